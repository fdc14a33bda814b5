"""One workspace: its repository is read once, posted to the daemon, and followed until it is fed.

Knows paths and the wire; knows no LSP and no cursor.

No completion waits for the context: until its id is known a completion goes without, and with the id the daemon serves
what it has read by then. A daemon that has died or forgotten the context gets the documents again, in the background,
once for each time that happens.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from context.plan import plan_base
from context.repository import ReadError, Snapshot, read_repository
from context.window import DEFAULT, WindowSize
from daemon.protocol import CompletionRequest, CompletionResponse, ContextStatus, Document, Health, SocketError
from lsp.client import DaemonError
from lsp.documents import encodable
from lsp.launch import Daemon, LaunchError
from lsp.link import Link
from lsp.settings import Settings

NEWS_S = 10.0  # how long one question after the context's status may wait
QUIET_S = 60.0  # without a save, before the repository is read again

_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the context of a workspace is. `done` and `total` are tokens and 0 outside of "feeding"."""

    stage: Literal["reading", "feeding", "ready", "failed"]
    done: int = 0
    total: int = 0
    message: str = ""  # when failed: why, in one line


class Session:
    """`root` None is a place for documents that belong to no repository: it has no context."""

    def __init__(
        self, root: Path | None, *, link: Link, settings: Settings, report: Callable[[Progress], None]
    ) -> None:
        self.root = root
        self._link = link
        self._settings = settings
        self._report = report
        self._context: str | None = None
        self._is_owed = False  # the context could not be fed for a reason of the daemon's
        self._feeding: asyncio.Task[None] | None = None
        self._rereading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Reads and feeds the repository in the background; does nothing while that is under way."""
        if (
            self.root is not None
            and self._settings.context_max_tokens > 0
            and (self._feeding is None or self._feeding.done())
        ):
            self._is_owed = False
            self._feeding = asyncio.create_task(self._feed(self.root))

    def saved(self) -> None:
        """A file has changed on disk: the repository is read again when nothing has been saved for a while.

        What is fed serves until then.
        """
        if self._rereading is not None:
            self._rereading.cancel()
        self._rereading = asyncio.create_task(self._start_when_quiet())

    async def window_size(self) -> WindowSize:
        """How much around the cursor the daemon's model shall see. Raises LaunchError or SocketError."""
        return window_size((await self._link.daemon()).health)

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Asks with the context, if there is one.

        Raises DaemonError, LaunchError or SocketError when two attempts have failed.
        """
        daemon = await self._link.daemon()
        if self._is_owed:
            self.start()
        try:
            return await daemon.client.complete(msgspec.structs.replace(request, context=self._context))
        except DaemonError as error:
            await self._recover(daemon, error)
        # Without the context this time, since it is being posted again: a late suggestion is better than one that waits
        # for that.
        daemon = await self._link.daemon()
        return await daemon.client.complete(msgspec.structs.replace(request, context=None))

    async def close(self) -> None:
        tasks = [task for task in (self._feeding, self._rereading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _recover(self, daemon: Daemon, error: DaemonError) -> None:
        """Prepares a second attempt, or raises `error` again when there is no sense in one."""
        if error.is_gone:
            logger.warning("%s; starting the daemon again", error.message)
            await self._link.lost(daemon)
        elif error.status != 404:
            raise error
        self._context = None
        self.start()

    async def _feed(self, root: Path) -> None:
        """From the disk to a context that is ready. Every way out is reported."""
        try:
            self._report(Progress("reading"))
            documents = await self._read(root)
            status = await self._feed_documents(documents)
        except (DaemonError, LaunchError, SocketError, ReadError) as error:
            logger.warning("%s: no context: %s", root, error)
            self._is_owed = not isinstance(error, ReadError)
            self._report(Progress("failed", message=str(error)))
        except Exception as error:  # a fault of ours; completions go on without a context, and the log has the reason
            logger.exception("%s: no context", root)
            self._report(Progress("failed", message=f"an internal error ({type(error).__name__})"))
        else:
            logger.info("%s: %d tokens of context, of which %d were fed", root, status.tokens, status.tokens_fed)
            self._report(Progress("ready", status.tokens, status.tokens))

    async def _read(self, root: Path) -> Sequence[Document]:
        snapshot = await _in_thread(lambda: read_repository(root))
        daemon = await self._link.daemon()
        return await _in_thread(
            lambda: plan_documents(snapshot, daemon.health, max_tokens=self._settings.context_max_tokens)
        )

    async def _feed_documents(self, documents: Sequence[Document]) -> ContextStatus:
        """Posts and follows. A daemon that dies on the way is given one more chance."""
        try:
            return await self._post_and_follow(documents)
        except DaemonError as error:
            if not error.is_gone and error.status != 404:
                raise
            logger.warning("%s; posting the repository again", error.message)
        return await self._post_and_follow(documents)

    async def _post_and_follow(self, documents: Sequence[Document]) -> ContextStatus:
        status = await self._ask(lambda daemon: daemon.client.post_context(documents))
        while True:
            if self._context is None or status.state == "ready":  # an older one that is fed serves until this one is
                self._context = status.id
            self._report(Progress("feeding", status.tokens_fed + status.tokens_reused, status.tokens))
            if status.state == "ready":
                return status
            context = status.id
            status = await self._ask(
                lambda daemon, context=context: daemon.client.context_status(context, wait_s=NEWS_S)
            )

    async def _ask(self, question: Callable[[Daemon], Awaitable[_Answer]]) -> _Answer:
        daemon = await self._link.daemon()
        try:
            return await question(daemon)
        except DaemonError as error:
            if error.is_gone:
                await self._link.lost(daemon)
            if error.is_gone or error.status == 404:
                self._context = None
            raise

    async def _start_when_quiet(self) -> None:
        await asyncio.sleep(QUIET_S)
        if self._feeding is not None:
            await asyncio.wait({self._feeding})
        self.start()


def plan_documents(snapshot: Snapshot, health: Health, *, max_tokens: int) -> list[Document]:
    """What the model shall read, in order, within what it can and the user wants."""
    model = health.model
    assert model is not None, "a daemon that is ready names its model"
    budget = min(max_tokens, model.max_context_tokens)
    plan = plan_base(snapshot.files, budget_tokens=budget, bytes_per_token=model.bytes_per_token)
    for path, reason in (*snapshot.left_out, *plan.left_out):
        logger.debug("%s is not read: %s", encodable(path), reason)
    return [Document(path=encodable(file.path), text=file.text) for file in plan.files]


def window_size(health: Health) -> WindowSize:
    """What calibration found best for the daemon's model on this machine, else the default."""
    window = health.model.window if health.model is not None else None
    return DEFAULT if window is None else WindowSize(step=window.step, suffix_chars=window.suffix_chars)


async def _in_thread(function: Callable[[], _Result]) -> _Result:
    """The function's result, or its exception, from a thread that never keeps the process from ending.

    `asyncio.to_thread` would do, but a process that ends waits for its threads, and reading a large repository from a
    slow disk can take a minute.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="codestral-lsp-work", daemon=True).start()
    return await future
