"""The language server on stdio: adapters between LSP's messages and `frontend`, and the life of the process.

Decides nothing about suggestions.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

from lsprotocol import types
from lsprotocol.converters import get_converter
from pygls.exceptions import JsonRpcException, JsonRpcInternalError
from pygls.io_ import StdinAsyncReader, StdoutWriter, run_async
from pygls.lsp.server import LanguageServer

from daemon.protocol import SocketError
from lsp import server_commands, wire
from lsp.documents import Encoding
from lsp.frontend import Answered, FrontEnd, path_of
from lsp.jsonrpc import Protocol
from lsp.launch import LOADING, STARTING, Daemon, LaunchError, connect, is_alive
from lsp.link import Link
from lsp.session import Progress
from lsp.settings import Settings, read_settings
from lsp.statistics import Statistics
from lsp.status import DaemonState

PARENT_POLL_S = 1.0
LAST_REPORT = "codestral-lsp/lastReport"
REPORT = "codestral/report"
STATUS = "didChangeStatus"
_DAEMON_STATES: dict[str, DaemonState] = {STARTING: "starting", LOADING: "loading"}
SWITCH_S = 0.0005  # how long a thread that reads files may keep the interpreter from a keystroke; Python's own is 5 ms
TRIGGER_CHARACTERS = (".", "(", "[", "{", "=", ":", ",")

logger = logging.getLogger(__name__)
_background: set[asyncio.Task[None]] = set()  # asyncio itself holds its tasks only weakly


class Server(LanguageServer):
    """pygls' server with our protocol and one FrontEnd, made at `initialize`."""

    protocol: Protocol  # pyright: ignore[reportIncompatibleVariableOverride] (this server never has another)
    front_end: FrontEnd

    def __init__(self) -> None:
        super().__init__("codestral-lsp", _version(), protocol_cls=Protocol, converter_factory=get_converter)
        self.encoding: Encoding = "utf-16"
        self.bars = _ProgressBars(self)
        self.client_name = ""
        self.problems: tuple[str, ...] = ()  # with the settings, told once the editor listens

    @property
    def problem_of_stdin(self) -> str | None:
        """Said when stdin has ended: whoever starts this by hand should hear that it is for editors."""
        if hasattr(self, "front_end"):
            return None
        return "stdin ended before any editor said `initialize`, expected an editor's LSP messages there"

    def report_server_error(self, error: Exception, source: Any) -> None:
        """pygls would open a popup in the editor; a line in the log is enough."""
        logger.warning("%s", error)

    def begin(self, settings: Settings) -> None:
        async def start_or_find() -> Daemon:
            try:
                daemon = await connect(settings, say=self.say)
            except (LaunchError, SocketError) as error:
                self.front_end.board.daemon_failed(str(error))
                raise
            self.front_end.board.daemon("ready")
            return daemon

        self.encoding = wire.ENCODINGS[self.workspace.position_encoding or "utf-16"]
        self.front_end = FrontEnd(
            settings,
            link=Link(start_or_find),
            report=self.bars.show,
            tell=self.tell if settings.reports else None,
            statistics=Statistics(is_on=settings.statistics and settings.enable),
            notify=self.tell_status if settings.status or _knows_status(self.client_name) else None,
            sends_each_key=_is_code(self.client_name),
        )

    def open_folder(self, uri: str) -> None:
        path = path_of(uri)
        if path is not None:
            self.front_end.open_folder(path)
        else:
            logger.warning("%s: a workspace that is not a folder of this machine is not read", uri)

    def tell(self, answered: Answered) -> None:
        self.protocol.notify(REPORT, wire.answered_object(answered))

    def tell_status(self, status: dict[str, Any]) -> None:
        self.protocol.notify(STATUS, status)

    def say(self, what: str) -> None:
        """What the launch of the daemon waits for."""
        logger.info("%s", what)
        if what in _DAEMON_STATES:
            self.front_end.board.daemon(_DAEMON_STATES[what])

    def log(self, message: str, kind: types.MessageType) -> None:
        self.window_log_message(types.LogMessageParams(type=kind, message=message))


class _ProgressBars:
    """`$/progress`, one bar for each workspace that is being read. An editor that cannot show one gets nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._shown: dict[Path, str] = {}  # the token of the bar
        self._count = 0

    def show(self, root: Path, progress: Progress) -> None:
        if progress.stage == "failed":
            self._server.log(f"{root}: {progress.message}", types.MessageType.Warning)
        token = self._shown.get(root)
        is_over = progress.stage in ("ready", "failed")
        if token is None and (is_over or not self._can_show()):
            return
        value = wire.progress_value(progress, name=root.name or str(root), is_first=token is None)
        if token is None:
            self._count += 1
            token = self._shown[root] = f"codestral-lsp-{os.getpid()}-{self._count}"
            self._server.window_work_done_progress_create(types.WorkDoneProgressCreateParams(token=token))
        elif is_over:
            del self._shown[root]
        self._server.protocol.notify(types.PROGRESS, types.ProgressParams(token=token, value=value))

    def _can_show(self) -> bool:
        window = self._server.client_capabilities.window
        return bool(window is not None and window.work_done_progress)


def make_server() -> Server:
    server = Server()
    server.feature(types.INITIALIZE)(_initialize)
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.SHUTDOWN)(_shutdown)
    server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(_folders_changed)
    server.feature(types.TEXT_DOCUMENT_DID_OPEN)(_opened)
    server.feature(types.TEXT_DOCUMENT_DID_CHANGE)(_changed)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(_saved)
    server.feature(types.TEXT_DOCUMENT_DID_CLOSE)(_closed)
    server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(_changed_on_disk)
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(_inline_completion)
    server.feature(LAST_REPORT)(_last_report)
    for name, handler in _EVENTS.items():
        server.feature(name)(handler)
    for name in server_commands.COMMANDS:
        server.command(name)(_command(name))
    return server


def run_stdio() -> NoReturn:
    """Serves until `exit`, the end of stdin or the end of the editor, then ends the process.

    The status is 0 after a `shutdown`, else 1.
    """
    server = make_server()
    sys.setswitchinterval(SWITCH_S)
    try:
        asyncio.new_event_loop().run_until_complete(_serve(server))
    except BrokenPipeError:
        logger.info("the editor has closed its end")
    except KeyboardInterrupt:
        os._exit(130)
    if server.problem_of_stdin:
        sys.stderr.write(f"codestral-lsp: {server.problem_of_stdin}\n")
        sys.stderr.flush()
    # A thread may sit in a read of stdin or of a slow disk for long. Nothing that it holds is worth waiting for.
    os._exit(0 if server.protocol.is_shut_down else 1)


async def _serve(server: Server) -> None:
    # stdout belongs to the protocol alone: what else is printed, by a library or a fault, goes to stderr.
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server.protocol.ended = Event()
    server.protocol.set_writer(StdoutWriter(stdout))
    reader = StdinAsyncReader(sys.stdin.buffer)
    await run_async(
        server.protocol.ended,
        reader,
        server.protocol,
        logger=logging.getLogger("pygls.io"),
        error_handler=server.report_server_error,
    )


def _initialize(ls: Server, params: types.InitializeParams) -> None:
    ls.client_name = params.client_info.name if params.client_info is not None else ""
    settings, ls.problems = read_settings(params.initialization_options, os.environ)
    document = params.capabilities.text_document
    if document is None or document.inline_completion is None:
        options = types.CompletionOptions(trigger_characters=list(TRIGGER_CHARACTERS))
        ls.feature(types.TEXT_DOCUMENT_COMPLETION, options)(_completion)
    ls.begin(settings)
    if params.process_id is not None:
        _keep(_end_with(params.process_id))


def _initialized(ls: Server, _: types.InitializedParams) -> None:
    for problem in ls.problems:
        logger.warning("%s", problem)
    if ls.problems:
        ls.log("codestral-lsp settings: " + "; ".join(ls.problems), types.MessageType.Warning)
    _keep(_watch_files(ls))
    ls.front_end.board.start()
    for folder in ls.workspace.folders.values():
        ls.open_folder(folder.uri)
    if not ls.workspace.folders and ls.workspace.root_uri:
        ls.open_folder(ls.workspace.root_uri)


async def _shutdown(ls: Server, _: None) -> None:
    await ls.front_end.close()


def _folders_changed(ls: Server, params: types.DidChangeWorkspaceFoldersParams) -> None:
    for folder in params.event.added:
        ls.open_folder(folder.uri)
    for folder in params.event.removed:
        if (path := path_of(folder.uri)) is not None:
            _keep(ls.front_end.close_folder(path))


def _opened(ls: Server, params: types.DidOpenTextDocumentParams) -> None:
    ls.front_end.opened(wire.to_document(params.text_document, ls.encoding))


def _changed(ls: Server, params: types.DidChangeTextDocumentParams) -> None:
    ls.front_end.changed(
        params.text_document.uri, wire.to_edits(params.content_changes), version=params.text_document.version
    )


def _saved(ls: Server, params: types.DidSaveTextDocumentParams) -> None:
    ls.front_end.saved(params.text_document.uri)


def _changed_on_disk(ls: Server, params: types.DidChangeWatchedFilesParams) -> None:
    ls.front_end.changed_on_disk([change.uri for change in params.changes])


def _closed(ls: Server, params: types.DidCloseTextDocumentParams) -> None:
    ls.front_end.closed(params.text_document.uri)


async def _inline_completion(ls: Server, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    # The task starts before the next message is read, so the document is the one that the position is meant for.
    uri, position, context = params.text_document.uri, wire.to_position(params.position), params.context
    answer = await ls.front_end.suggest(
        uri,
        position,
        is_by_name=context.trigger_kind == types.InlineCompletionTriggerKind.Invoked,
        selected=wire.to_selected(context.selected_completion_info),
        style=ls.protocol.style_of(uri),
    )
    return wire.inline_list(answer)


async def _completion(ls: Server, params: types.CompletionParams) -> types.CompletionList:
    uri, position = params.text_document.uri, wire.to_position(params.position)
    typed = ls.front_end.word_before(uri, position)
    return wire.completion_list(await ls.front_end.suggest(uri, position), typed)


def _shown(ls: Server, params: Any) -> None:
    if (item := wire.item_id(params)) is not None:
        ls.front_end.ledger.shown(item)


def _partly_accepted(ls: Server, params: Any) -> None:
    item, part = wire.item_id(params), wire.accepted_part(params)
    if item is not None and part is not None:
        ls.front_end.partly_accepted(item, part, of=wire.item_text(params))


def _rejected(ls: Server, params: Any) -> None:
    if (item := wire.item_id(params)) is not None:
        ls.front_end.suggester.dismissed(item)


def _focused(ls: Server, params: Any) -> None:
    ls.front_end.focused(wire.uri_in(params))


def _command(name: str) -> Callable[..., Awaitable[Any]]:
    async def run(ls: Server, *arguments: Any) -> Any:
        try:
            return await server_commands.run(name, ls.front_end, arguments)
        except server_commands.CommandError as error:
            raise JsonRpcException(str(error), JsonRpcInternalError.CODE) from None

    return run


def _last_report(ls: Server, params: Any) -> dict[str, Any] | None:
    uri = wire.uri_in(params)
    return wire.report_object(ls.front_end.last(uri) if uri is not None else None)


# What editors say of a suggestion's fate. The first three as the Copilot language server documents them.
_EVENTS = {
    "textDocument/didShowCompletion": _shown,
    "textDocument/didPartiallyAcceptCompletion": _partly_accepted,
    "textDocument/didFocus": _focused,
    "textDocument/didRejectCompletion": _rejected,
}


def _version() -> str:
    try:
        return metadata.version("codestral-lsp")
    except metadata.PackageNotFoundError:  # run from a source tree; the editor only shows it
        return "unknown"


def _is_code(client: str) -> bool:
    """VS Code and what is built on it: these tell of each key, while Neovim and others collect keys for a moment."""
    return any(name in client.lower() for name in ("code", "codium", "cursor", "windsurf"))


def _knows_status(client: str) -> bool:
    """Some editors warn their users of a notification that they do not know."""
    return _is_code(client) or client == "Neovim"


async def _watch_files(ls: Server) -> None:
    """Asks the editor to tell of files that change on disk. One that cannot leaves saves, branches and the look after a quiet minute."""
    workspace = ls.client_capabilities.workspace
    watching = workspace.did_change_watched_files if workspace is not None else None
    if watching is None or not watching.dynamic_registration:
        return
    options = types.DidChangeWatchedFilesRegistrationOptions([types.FileSystemWatcher(glob_pattern="**/*")])
    method = types.WORKSPACE_DID_CHANGE_WATCHED_FILES
    try:
        await ls.client_register_capability_async(
            types.RegistrationParams([types.Registration(id=method, method=method, register_options=options)])
        )
    except JsonRpcException as error:
        logger.info("the editor does not watch files: %s", error)


async def _end_with(pid: int) -> None:
    """An editor that was killed sends no `exit`, and its pipe may be held open by another of its children."""
    while is_alive(pid):
        await asyncio.sleep(PARENT_POLL_S)
    logger.info("the editor (pid %d) is gone", pid)
    os._exit(1)


def _keep(coroutine: Any) -> None:
    task = asyncio.ensure_future(coroutine)
    _background.add(task)
    task.add_done_callback(_background.discard)
