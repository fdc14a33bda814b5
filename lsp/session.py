"""One workspace: read once, posted to the daemon, and kept up to date there by posting what changes.

Knows paths, the wire and the order of things; knows no LSP and no cursor. What is read is in `workspace_texts`, what has changed is collected in `changes`.

One task, the updater, reads and posts, so there are never two posts at once; another follows what the daemon makes of the last one. No completion waits for
either: until a context's id is known a completion goes without, and from then on the daemon serves the best that it has read by then. A daemon that has died
or forgotten the context gets everything again, in the background, once for each time that happens.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from context.head import head_mark, is_checking_out
from context.listing import OWN_RULES
from context.repository import ReadError, SourceFile, find_root
from context.window import DEFAULT, WindowSize
from daemon.protocol import (
    CompletionRequest,
    CompletionResponse,
    ContextRequest,
    ContextStatus,
    Document,
    Health,
    SocketError,
)
from lsp.changes import Changes, Work
from lsp.client import DaemonError
from lsp.launch import Daemon, LaunchError
from lsp.link import Link
from lsp.settings import Settings
from lsp.threads import in_thread
from lsp.workspace_texts import Texts, difference, limits_of, plan_texts, read_again, read_files

NEWS_S = 10.0  # how long one question after the context's status may wait
HEAD_POLL_S = 3.0  # between two looks at which commit is checked out
POSTED_S = 1.5  # that a completion waits for the context to be posted again after the daemon was lost
CHECKOUT_S = 10.0  # how long a checkout that is under way is waited for
MAX_LOSSES = 2  # times in a row that a daemon may die while it reads, before it is left in peace until someone asks
MAX_TOUCHED = 200  # files edited here that are remembered as such
_RULES = (".gitignore", OWN_RULES, ".git/info/exclude")

_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the context of a workspace is. `done` and `total` are tokens and 0 outside of "feeding"."""

    stage: Literal["reading", "feeding", "ready", "failed"]
    done: int = 0
    total: int = 0
    message: str = ""  # when failed: why, in one line
    current: float = 1.0  # share of the workspace's text that completions are answered with as it is now


class _Posted(NamedTuple):
    """What the daemon was told last, and what it calls it."""

    id: str
    documents: Mapping[str, Document]


class Session:
    """`root` None is a place for documents that belong to no repository: it has no context."""

    def __init__(
        self, root: Path | None, *, link: Link, settings: Settings, report: Callable[[Progress], None]
    ) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root)) if root is not None else None
        self._link = link
        self._settings = settings
        self._report = report
        self._changes = Changes()
        self._texts: Texts | None = None
        self._buffers: dict[str, str] = {}  # unsaved texts that were posted, by path
        self._touched: dict[str, int] = {}  # how often files were edited here, the last one last
        self._posted: _Posted | None = None
        self.status: ContextStatus | None = None  # what the daemon said last of what it was posted
        self._context: str | None = None  # what completions name
        self._is_known = asyncio.Event()  # the daemon has been told
        self._n_losses = 0
        self._generation = 0  # counts the times that the daemon's knowledge was lost
        self._is_owed = False  # the context could not be fed for a reason of the daemon's
        self._weighed_at: str | None = None  # the commit whose history says how often files are edited
        self._is_behind = False  # something was noted that could not be read
        self._was_read = asyncio.Event()
        self._updater: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None

    async def files(self) -> Mapping[str, SourceFile]:
        """All files of the workspace that may be read, by path, as of the last look. Waits for the first; for ever where there is nothing to look at."""
        await self._was_read.wait()
        return self._texts.files if self._texts is not None else {}

    @property
    def posted(self) -> Mapping[str, Document]:
        """What the daemon was told last, by path; outlines in place of what did not fit whole."""
        return self._posted.documents if self._posted is not None else {}

    def start(self) -> None:
        """Reads and feeds the repository in the background and keeps that up to date; does nothing when it does so already."""
        if self.root is not None and self._settings.context_max_tokens > 0 and self._updater is None:
            self._updater = asyncio.create_task(self._update_for_ever(self.root))
            self._watcher = asyncio.create_task(self._watch_head(self.root))

    def saved(self, path: Path) -> None:
        """The editor has written a file."""
        if (name := self._name(path)) is not None:
            self._buffers.pop(name, None)
            self._note([name])
            self._changes.saved()

    def changed_on_disk(self, paths: Iterable[Path]) -> None:
        """Files or folders are new, other or gone, whoever did it."""
        self._note(name for path in paths if (name := self._name(path)) is not None)

    def left_unsaved(self, path: Path, text: str) -> None:
        """A document that the editor holds in another text than the disk's, and that its user has turned away from."""
        name = self._name(path)
        if name is not None and self._buffers.get(name) != text:
            self._buffers[name] = text
            self._note([name])

    def closed(self, path: Path) -> None:
        """What was not saved is gone."""
        name = self._name(path)
        if name is not None and self._buffers.pop(name, None) is not None:
            self._note([name])

    async def window_size(self) -> WindowSize:
        """How much around the cursor the daemon's model shall see. Raises LaunchError or SocketError."""
        return window_size((await self._link.daemon()).health)

    async def bytes_per_token(self) -> float:
        """Of the daemon's model. Raises LaunchError or SocketError."""
        return limits_of((await self._link.daemon()).health, max_tokens=0).bytes_per_token

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        """Asks with the context, if there is one.

        Raises DaemonError, LaunchError or SocketError when two attempts have failed.
        """
        daemon = await self._link.daemon()
        if self._is_owed:
            self._is_owed = False
            self._changes.note_lost()
        asked, generation = self._context, self._generation
        try:
            return await daemon.client.complete(msgspec.structs.replace(request, context=asked))
        except DaemonError as error:
            if error.is_gone:
                logger.warning("%s; starting the daemon again", error.message)
                await self._link.lost(daemon)
            elif error.status != 404:
                raise
        if asked is not None:
            self._lose(generation)
        daemon = await self._link.daemon()
        # The context is being posted again, and a daemon that was started again has its states on disk: worth a moment, not more.
        if asked is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_known.wait(), POSTED_S)
        return await daemon.client.complete(msgspec.structs.replace(request, context=self._context))

    def tell_again(self) -> None:
        """The daemon is another one."""
        self._lose(self._generation)

    async def close(self) -> None:
        tasks = [task for task in (self._updater, self._watcher, self._follower) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _update_for_ever(self, root: Path) -> None:
        """Nothing that goes wrong with one change keeps the next one from being posted; every failure is reported."""
        work = Work(frozenset(), everything=True)
        while True:
            try:
                await self._update(root, work)
            except (DaemonError, LaunchError, SocketError, ReadError) as error:
                logger.warning("%s: no %scontext: %s", root, "newer " * (self._context is not None), error)
                # What the daemon refuses it will refuse again.
                self._is_owed = error.is_gone if isinstance(error, DaemonError) else not isinstance(error, ReadError)
                self._report(Progress("failed", message=str(error)))
            except Exception as error:  # a fault of ours; completions go on, and the log has the reason
                logger.exception("%s: no newer context", root)
                self._report(Progress("failed", message=f"an internal error ({type(error).__name__})"))
            work = await self._changes.take()

    async def _update(self, root: Path, work: Work) -> None:
        if work.lost:
            self._posted = None
        texts, is_behind = self._texts, self._is_behind
        if texts is None or work.everything or is_behind:
            self._is_behind = True
            await self._read_all(root)
        elif work.paths:
            self._is_behind = True
            await self._read_again(root, work.paths, texts)
        self._is_behind = False
        await self._post(root)

    async def _read_all(self, root: Path) -> None:
        if self._texts is None:
            self._report(Progress("reading"))
        await _end_of_checkout(root)
        mark = await in_thread(lambda: head_mark(find_root(root)))
        # Asking git how often files are edited takes its time, and the answer is another only with other commits.
        known = self._texts.weights if self._texts is not None and mark == self._weighed_at else None
        buffers, touched = dict(self._buffers), dict(self._touched)
        # A daemon that must be started first takes longer than any repository.
        (files, weights), daemon = await asyncio.gather(
            in_thread(lambda: read_files(root, buffers=buffers, weights=known)), self._link.daemon()
        )
        limits = limits_of(daemon.health, max_tokens=self._settings.context_max_tokens)
        self._texts = await in_thread(lambda: plan_texts(files, limits=limits, touched=touched, weights=weights))
        self._weighed_at = mark
        self._was_read.set()

    async def _read_again(self, root: Path, paths: frozenset[str], had: Texts) -> None:
        if await in_thread(lambda: any(os.path.isdir(root / path) for path in paths)):  # what is in it was not told
            return await self._read_all(root)
        buffers, touched = dict(self._buffers), dict(self._touched)
        self._texts = await in_thread(lambda: read_again(root, paths, had, buffers=buffers, touched=touched))
        now = self._texts.documents
        for path in sorted(paths):
            if path in now and now[path] is not had.documents.get(path):
                self._touched[path] = self._touched.pop(path, 0) + 1
        for path in list(self._touched)[:-MAX_TOUCHED]:
            del self._touched[path]
        return None

    async def _post(self, root: Path) -> None:
        """Tells the daemon what it does not know, and follows what it makes of it."""
        texts, posted = self._texts, self._posted
        assert texts is not None
        change = difference(posted.documents, texts.documents) if posted is not None else None
        if change is not None and not change.documents and not change.removed:
            return
        if self._follower is not None:
            self._follower.cancel()
        status = None
        if posted is not None and change is not None:
            logger.info("%s: %d files changed, %d gone", root, len(change.documents), len(change.removed))
            status = await self._try_to_post(root, change.documents, on=posted.id, removed=change.removed)
        is_whole = status is None
        if status is None:
            # Whoever has noticed by now that the daemon knows nothing is content with this.
            self._generation += 1
            self._changes.forget_lost()
            documents = list(texts.documents.values())
            status = await self._try_to_post(root, documents) or await self._post_documents(root, documents)
        self._posted = _Posted(status.id, texts.documents)
        self._context = status.id
        self._is_known.set()
        self._is_owed = False
        self._follower = asyncio.create_task(self._follow(root, status, is_whole=is_whole))

    async def _try_to_post(
        self, root: Path, documents: list[Document], *, on: str | None = None, removed: list[str] | None = None
    ) -> ContextStatus | None:
        """None: the daemon has died or forgotten what this is a change of, so that it must be told everything."""
        try:
            return await self._post_documents(root, documents, on=on, removed=removed)
        except DaemonError as error:
            if not error.is_gone and error.status != 404:
                raise
            logger.warning("%s; posting the repository again", error.message)
            return None

    async def _post_documents(
        self, root: Path, documents: list[Document], *, on: str | None = None, removed: list[str] | None = None
    ) -> ContextStatus:
        request = ContextRequest(documents=documents, workspace=str(root), on=on, removed=removed or [])
        return await self._ask(lambda daemon: daemon.client.post_context(request))

    async def _follow(self, root: Path, status: ContextStatus, *, is_whole: bool) -> None:
        """Reports until the context is read. A change that is read at once is not worth a report of its own."""
        generation, is_news = self._generation, is_whole
        try:
            while True:
                self.status = status
                done = status.tokens_fed + status.tokens_reused
                if is_news:
                    self._report(Progress("feeding", done, status.tokens, current=status.current))
                if status.state == "ready":
                    break
                context, is_news = status.id, True
                status = await self._ask(
                    lambda daemon, context=context: daemon.client.context_status(context, wait_s=NEWS_S)
                )
        except (DaemonError, LaunchError, SocketError) as error:
            self._n_losses += 1
            if (
                isinstance(error, DaemonError)
                and (error.is_gone or error.status == 404)
                and self._n_losses < MAX_LOSSES
            ):
                logger.warning("%s; posting the repository again", error)
                self._lose(generation)
                return
            logger.warning("%s: no context: %s", root, error)
            self._is_owed, self._n_losses = True, 0
            self._report(Progress("failed", message=str(error)))
            return
        self._n_losses = 0
        logger.info("%s: %d tokens of context, of which %d were fed", root, status.tokens, status.tokens_fed)
        self._report(Progress("ready", status.tokens, status.tokens, current=status.current))

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

    def _lose(self, generation: int) -> None:
        """The daemon has nothing of what it was told up to `generation`. The first who notices has it told again."""
        if generation == self._generation:
            self._generation += 1
            self._context = None
            self._is_known.clear()
            self._changes.note_lost()

    def _note(self, names: Iterable[str]) -> None:
        """Files below `.git` are no files of the workspace, and rules say what else is one."""
        if self._updater is None:
            return
        wanted = list(names)
        if any(name.endswith(_RULES) or name == ".git/HEAD" for name in wanted):
            self._changes.note_everything()
        self._changes.note(name for name in wanted if ".git" not in name.split("/"))

    def _name(self, path: Path) -> str | None:
        """As documents are named; None for what is not in the workspace. Editors resolve links or do not."""
        for root in (self.root, self._real_root):
            if root is not None and path != root and path.is_relative_to(root):
                name = path.relative_to(root).as_posix()
                return name if ".." not in path.parts and "\0" not in name else None
        return None

    async def _watch_head(self, root: Path) -> None:
        """No editor need tell of another branch."""
        seen = await in_thread(lambda: head_mark(find_root(root)))
        while True:
            await asyncio.sleep(HEAD_POLL_S)
            mark = await in_thread(lambda: head_mark(find_root(root)))
            if mark != seen:
                seen = mark
                self._changes.note_everything()


async def _end_of_checkout(root: Path) -> None:
    """Half a branch is not worth reading. A lock that a killed git has left behind is waited for in vain."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CHECKOUT_S):
            while await in_thread(lambda: is_checking_out(find_root(root))):
                await asyncio.sleep(0.1)


def window_size(health: Health) -> WindowSize:
    """What calibration found best for the daemon's model on this machine, else the default."""
    window = health.model.window if health.model is not None else None
    return DEFAULT if window is None else WindowSize(step=window.step, suffix_chars=window.suffix_chars)
