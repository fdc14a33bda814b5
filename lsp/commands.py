"""What the commands do: ask the daemon and print.

Knows files, the daemon and the terminal; knows no LSP, and argument parsing is in `__main__`.

Raises ClickException with one line for whatever cannot be done.
"""

import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from click import ClickException, UsageError
from click.exceptions import Exit

from context.ignore import why_secret
from context.listing import is_git_top
from context.place import language_of, place_of
from context.repository import ReadError, find_root, read_document
from daemon.protocol import CompletionResponse, ContextRequest, ContextStatus, SocketError, socket_path
from lsp.client import DaemonError
from lsp.completion import relative_path, request_at
from lsp.fleet import Found, all_sockets, look, sockets_of, stop_all
from lsp.insertion import asked_at
from lsp.launch import Daemon, LaunchError, connect, daemon_command
from lsp.pause import Pause
from lsp.relations import outlines
from lsp.session import window_size
from lsp.settings import AUTO, BUNDLED, MODEL_EXPECTED, Settings, WrongValue, is_hub_name, parse_model, read_settings
from lsp.terminal import counted, harmless, health_lines, reading_line, tell, why_nothing
from lsp.workspace_texts import limits_of, plan_texts, read_files

NEWS_S = 2.0  # how long one question after the context's status may wait; the progress line moves that often

INTERRUPTED = 130

_PLACE = re.compile(r"(?P<path>.+):(?P<line>[0-9]{1,9}):(?P<column>[0-9]{1,9})", re.DOTALL)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column count from 1."""

    path: Path
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading the repository has cost: 0 tokens when the daemon had read it before."""

    context: str | None = None
    tokens_fed: int = 0
    ms: float = 0.0


def parse_place(text: str) -> Place:
    """PATH:LINE:COLUMN. Raises UsageError."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text}: expected PATH:LINE:COLUMN")
    line, column = int(found["line"]), int(found["column"])
    if line < 1 or column < 1:
        raise UsageError(f"{text}: lines and columns count from 1")
    return Place(Path(found["path"]), line, column)


def settings_of(model: str | None, precision: str | None, *, idle_minutes: float | None = None) -> Settings:
    """The environment's settings and, before them, the options'. A path may be relative to the current folder.

    Raises UsageError.
    """
    settings, problems = read_settings(None, os.environ)
    for problem in problems:
        click.echo(problem, err=True)
    if idle_minutes is not None:
        settings = replace(settings, idle_minutes=idle_minutes)
    if precision is not None:
        settings = replace(settings, precision=precision)
    if model is None:
        return settings
    try:
        is_path = model not in ("", BUNDLED) and not _means_hub(model)
        return replace(settings, model=parse_model(os.path.abspath(os.path.expanduser(model)) if is_path else model))
    except (WrongValue, ValueError):
        raise UsageError(f"--model: expected {MODEL_EXPECTED}, found {model!r}") from None


def _means_hub(model: str) -> bool:
    """Whether an argument names a model of the hub: a folder here of such a name is meant only where none was pulled.

    Otherwise a workspace could put its own weights in the place of those asked for.
    """
    if not is_hub_name(model):
        return False
    if not os.path.exists(model):
        return True
    from huggingface_hub import constants  # 20 ms, for this rare case only

    folder = f"models--{model.partition('@')[0].replace('/', '--')}"
    return os.path.isdir(os.path.join(constants.HF_HUB_CACHE, folder))


def serve(settings: Settings) -> None:
    """Becomes the daemon: the same process, so that signals and the exit code are its own."""
    path = _answer(lambda: socket_path(settings.model, settings.precision))
    options = daemon_command(settings, path)
    command = [*options, "--foreground"]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise ClickException(f"{command[0]}: cannot be run ({error.strerror})") from None


def complete(place: Place, settings: Settings, *, as_json: bool) -> None:
    text = _answer(lambda: read_document(place.path))
    offset = offset_of(text, place)
    path = Path(os.path.realpath(place.path))
    if secret := why_secret(str(path), text):
        raise ClickException(f"{place.path}: is never sent to a model: {secret}")
    response, reading = run(lambda: _complete(text, offset, path=path, settings=settings))
    suggestion = response.choices[0].message.content if response.choices else ""
    if as_json:
        print_json(_as_object(suggestion, response, reading))
    elif not suggestion:
        why = why_nothing(response.report, text[offset:].partition("\n")[0])
        click.echo(f"{place.path}:{place.line}:{place.column}: no suggestion" + (f": {why}" if why else ""), err=True)
    elif sys.stdout.isatty():
        click.echo(in_place(text, offset, suggestion))
    else:
        click.echo(suggestion)


def status(model: str | None, precision: str | None, *, as_json: bool) -> None:
    """All daemons of this user, or those of one model, or in one precision of one model."""
    settings = settings_of(model, precision)
    is_one = model is not None or precision is not None
    found = run(lambda: look(sockets_of(settings.model, precision) if is_one else all_sockets()))
    daemons = [(each.health, each.current) for each in found if each.health is not None]
    if is_one and not daemons:
        _refuse_others(found)
    for each in found:
        if each.problem is not None:
            click.echo(f"{each.socket} {each.problem}", err=True)
    paused = Pause().paused()
    if as_json:
        values = [{**msgspec.to_builtins(health), "current": current} for health, current in daemons]
        pause = {"until": paused.until} if paused is not None else None
        print_json({"running": bool(daemons), **(values[0] if values else {}), "daemons": values, "paused": pause})
        return
    if daemons:
        click.echo("\n\n".join("\n".join(health_lines(health, current=current)) for health, current in daemons))
    else:
        click.echo(_none_runs(replace(settings, precision=precision or AUTO)) if is_one else "no daemon runs")
    if paused is not None:
        click.echo(f"suggestions are {paused.words()}; codestral-lsp resume ends that")


def stop(model: str | None, precision: str | None, *, stop_everything: bool) -> None:
    """The daemons of one model, in all precisions unless one is given; or all of this user's."""
    if stop_everything and (model is not None or precision is not None):
        raise UsageError("--all ends every daemon, so it takes no --model and no --precision")
    settings = settings_of(model, precision)
    n = run(lambda: _stop_found(all_sockets()) if stop_everything else stop_all(sockets_of(settings.model, precision)))
    none = "no daemon runs" if stop_everything else _none_runs(replace(settings, precision=precision or AUTO))
    click.echo(none if n == 0 else "stopped" if n == 1 else f"stopped {counted(n, 'daemon')}")


async def _stop_found(sockets: list[Path]) -> int:
    """Of all that listens, what is ours; a foreign socket in the folder must not keep the others from being ended."""
    return await stop_all([each.socket for each in await look(sockets) if each.health is not None])


def _refuse_others(found: list[Found]) -> None:
    for each in found:
        if each.problem is not None:
            raise ClickException(f"{each.socket} {each.problem}")


def _none_runs(settings: Settings) -> str:
    precision = "" if settings.precision == AUTO else f" in {settings.precision}"
    return f"no daemon runs for model {settings.model}{precision}"


def offset_of(text: str, place: Place) -> int:
    """The index into `text` before the column. Raises ClickException for a place beyond the end."""
    lines = text.split("\n")
    # As compilers count, the last line end starts no line; the cursor can stand there all the same.
    n_lines = max(1, len(lines) - (lines[-1] == ""))
    if place.line > len(lines):
        raise ClickException(
            f"{place.path}:{place.line}: beyond the end, the file has {n_lines} line{'s' * (n_lines != 1)}"
        )
    line = lines[place.line - 1]
    if place.column > len(line) + 1:
        where = f"{place.path}:{place.line}:{place.column}"
        raise ClickException(
            f"{where}: beyond the end, line {place.line} has {len(line)} characters, so columns 1 to {len(line) + 1}"
        )
    return sum(len(before) + 1 for before in lines[: place.line - 1]) + place.column - 1


def in_place(text: str, offset: int, suggestion: str) -> str:
    """The cursor's line with the suggestion dimmed in it, safe to show on a terminal."""
    line_start, line_end = text.rfind("\n", 0, offset) + 1, text.find("\n", offset)
    after = text[offset : line_end if line_end >= 0 else len(text)]
    return harmless(text[line_start:offset]) + click.style(harmless(suggestion), dim=True) + harmless(after)


async def _complete(text: str, offset: int, *, path: Path, settings: Settings) -> tuple[CompletionResponse, Reading]:
    daemon = await connect(settings, say=tell)
    try:
        root = find_root(path)
        if is_git_top(root):
            started = time.monotonic()
            tell("reading the repository")
            files, weights = read_files(root, buffers={})
            limits = limits_of(daemon.health, max_tokens=settings.context_max_tokens)
            documents = plan_texts(files, limits=limits, touched={}, weights=weights).documents
            request = ContextRequest(documents=list(documents.values()), workspace=str(root))
            reading = await _feed(daemon, request, started=started, settings=settings)
            name = relative_path(path, root) or ""
            imported = outlines(name, text, files, bytes_per_token=limits.bytes_per_token)
        else:
            reading, imported = Reading(), []
            click.echo(f"{path}: not in a git repository, so the file itself is all the context", err=True)
        name = relative_path(path, root)
        place = place_of(text, offset, language=language_of(path.name))
        request = request_at(
            text,
            offset,
            path=name,
            document=None,
            max_tokens=settings.max_tokens,
            budget_ms=None,
            size=window_size(daemon.health),
            related=imported,
            indent=asked_at(text, offset).indent,
            max_lines=settings.max_lines if place.is_multi else 1,
            min_confidence=settings.min_confidence,
        )
        return await daemon.client.complete(msgspec.structs.replace(request, context=reading.context)), reading
    finally:
        await daemon.client.close()


async def _feed(daemon: Daemon, request: ContextRequest, *, started: float, settings: Settings) -> Reading:
    """Waits until the repository's context is ready. `started`: when it began to be read from the disk, by `time.monotonic`."""
    try:
        status = await _follow(daemon, await daemon.client.post_context(request))
    except asyncio.CancelledError:  # Ctrl-C
        tell("")
        named = "" if settings.model == BUNDLED else f" --model {shlex.quote(settings.model)}"
        click.echo(f"the daemon goes on reading the repository; codestral-lsp stop{named} ends it", err=True)
        raise
    tell("")
    return Reading(status.id, tokens_fed=status.tokens_fed, ms=1000 * (time.monotonic() - started))


async def _follow(daemon: Daemon, status: ContextStatus) -> ContextStatus:
    """Until it is ready, with the speed since the first answer."""
    first, started = status, time.monotonic()
    while status.state != "ready":
        speed = (status.tokens_fed - first.tokens_fed) / max(1e-3, time.monotonic() - started)
        done = status.tokens_fed + status.tokens_reused
        tell(f"reading the repository: {reading_line(done, status.tokens, tokens_per_s=speed)}")
        status = await daemon.client.context_status(status.id, wait_s=NEWS_S)
    return status


def run(work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    return _answer(lambda: asyncio.run(work()))


def _answer(work: Callable[[], _Result]) -> _Result:
    """The result; an error that is meant for people becomes a ClickException."""
    try:
        return work()
    except (DaemonError, LaunchError, SocketError, ReadError) as error:
        if isinstance(error, DaemonError) and error.type == "unknown_context":
            raise ClickException("what was read has been purged meanwhile; run the command again") from None
        raise ClickException(str(error)) from None
    except KeyboardInterrupt:  # click would print an empty line
        raise Exit(INTERRUPTED) from None
    finally:
        tell("")


def _as_object(suggestion: str, response: CompletionResponse, reading: Reading) -> dict[str, Any]:
    """What the command has cost as a whole, reading the repository included."""
    report = response.report
    ms = {name: float(value) for name, value in msgspec.to_builtins(report.ms).items()}
    for name in ("context", "total"):
        ms[name] += reading.ms
    return {
        "text": suggestion,
        "model": response.model,
        "context_tokens": report.context_tokens,
        "tokens_fed": report.tokens_fed + reading.tokens_fed,
        "tokens_reused": max(0, report.tokens_reused - reading.tokens_fed),
        "stopped_by": report.stopped_by,
        "empty_because": report.empty_because,
        "ms": {name: round(value, 1) for name, value in ms.items()},
    }


def print_json(value: object) -> None:
    click.echo(msgspec.json.encode(value).decode())
