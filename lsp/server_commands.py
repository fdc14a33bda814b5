"""What an editor's user can ask of the server by name: `workspace/executeCommand`.

Knows the front end, the daemon's client and the launch; knows no LSP library. Every command answers with an object or None, and says what cannot be done as a
CommandError, which editors show to whoever has asked.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from daemon.protocol import SocketError, socket_path
from lsp.client import DaemonError
from lsp.frontend import FrontEnd
from lsp.launch import LaunchError, log_path, stop_at
from lsp.pause import PauseError
from lsp.session import Session

Command = Callable[[FrontEnd, Sequence[Any]], Awaitable[Any]]
CLEARED = ("workspace", "all")


class CommandError(Exception):
    """One line, for people."""


async def run(name: str, front_end: FrontEnd, arguments: Sequence[Any]) -> Any:
    """Raises CommandError."""
    try:
        return await COMMANDS[name](front_end, arguments)
    except (DaemonError, LaunchError, SocketError, PauseError) as error:
        raise CommandError(str(error)) from None


async def _accept(front_end: FrontEnd, arguments: Sequence[Any]) -> None:
    if arguments and isinstance(arguments[0], str):
        front_end.ledger.accepted(arguments[0])


async def _pause(front_end: FrontEnd, arguments: Sequence[Any]) -> dict[str, Any]:
    minutes = arguments[0] if arguments else None
    if minutes is not None and (not isinstance(minutes, int | float) or isinstance(minutes, bool)):
        raise CommandError(f"codestral.pause: expected a number of minutes, found {minutes!r}")
    paused = front_end.pause.begin(minutes)
    front_end.board.look_at_pause()
    return {"until": paused.until, "message": paused.words()}


async def _resume(front_end: FrontEnd, _: Sequence[Any]) -> dict[str, Any]:
    was_paused = front_end.pause.end()
    front_end.board.look_at_pause()
    return {"message": "suggesting again" if was_paused else "nothing was paused"}


async def _restart(front_end: FrontEnd, _: Sequence[Any]) -> dict[str, Any]:
    """Ends the daemon, for all windows; each of them finds or starts the next one and tells it everything again."""
    settings = front_end.settings
    was_running = await stop_at(socket_path(settings.model, settings.precision))
    await front_end.reconnect()
    return {"message": "the daemon starts again" if was_running else "no daemon ran; one starts"}


async def _clear_cache(front_end: FrontEnd, arguments: Sequence[Any]) -> dict[str, Any]:
    scope = arguments[0] if arguments else "workspace"
    if scope not in CLEARED:
        raise CommandError(f'codestral.clearCache: expected "workspace" or "all", found {scope!r}')
    client = (await front_end.link.daemon()).client
    roots = [None] if scope == "all" else [str(root) for root in front_end.sessions]
    reports = [await client.purge(root) for root in roots]
    n, nbytes = sum(each.states for each in reports), sum(each.nbytes for each in reports)
    return {
        "states": n,
        "bytes": nbytes,
        "message": f"{n} states removed, {nbytes / 1e6:.1f} MB; the repository is read again when it is needed",
    }


async def _what_is_read(front_end: FrontEnd, _: Sequence[Any]) -> dict[str, Any]:
    return {"workspaces": [_read_of(str(root), session) for root, session in sorted(front_end.sessions.items())]}


async def _log(_: FrontEnd, __: Sequence[Any]) -> dict[str, Any]:
    return {"daemon": str(log_path())}


def _read_of(root: str, session: Session) -> dict[str, Any]:
    status, posted = session.status, session.posted
    left_out = set(status.left_out) if status is not None else set()
    documents = [{"path": path, "chars": len(each.text)} for path, each in posted.items() if path not in left_out]
    return {
        "root": root,
        "stage": "reading" if status is None else "ready" if status.state == "ready" else "feeding",
        "tokens": status.tokens if status is not None else 0,
        "done": status.tokens_fed + status.tokens_reused if status is not None else 0,
        "current": status.current if status is not None else 0.0,
        "n_documents": len(documents),
        "documents": documents,
        "left_out": sorted(left_out),
    }


COMMANDS: dict[str, Command] = {
    "codestral.accept": _accept,
    "codestral.pause": _pause,
    "codestral.resume": _resume,
    "codestral.restart": _restart,
    "codestral.clearCache": _clear_cache,
    "codestral.whatIsRead": _what_is_read,
    "codestral.log": _log,
}
