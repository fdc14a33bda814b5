"""What the editor has open, in which workspace, and whose turn it is.

Knows documents, sessions and tasks; knows no LSP library and no wire.

Invariant: one document has at most one suggestion under way. A newer request ends the older one, which is answered with
nothing at once, so that an editor that never cancels (Neovim) does not pile up requests.

A document that is edited and not saved is the model's business too, once its user has turned to another one or has left
it alone for a while: until then it is read by the completions in it and by no others.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from context.listing import is_git_top
from context.repository import find_root
from daemon.protocol import SocketError
from lsp.client import DaemonError
from lsp.completion import Suggestion, suggest
from lsp.documents import Document, Edit, Position
from lsp.launch import LaunchError
from lsp.link import Link
from lsp.relations import Relations
from lsp.session import Progress, Session
from lsp.settings import Settings
from lsp.suggestion import Shown, goes_on

IDLE_S = 60.0  # after the last edit, before a document that is not saved counts as left alone

_WORD_END = re.compile(r"\w*\Z")

logger = logging.getLogger(__name__)

Report = Callable[[Path, Progress], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """A suggestion, for those who count what it cost. `ms` is from the request to the answer, in this process."""

    uri: str
    version: int
    suggestion: Suggestion
    ms: float


class FrontEnd:
    """One editor window. Method by method what the editor says, in our values.

    `report` hears how far each workspace's context is, `tell` what each suggestion has cost.
    """

    def __init__(
        self, settings: Settings, *, link: Link, report: Report, tell: Callable[[Answered], None] | None = None
    ) -> None:
        self._settings = settings
        self._link = link
        self._report = report
        self._tell = tell
        self._documents: dict[str, Document] = {}
        self._sessions: dict[Path, Session] = {}  # by folder of the workspace, or repository of a file opened alone
        self._alone = Session(None, link=link, settings=settings, report=lambda _: None)
        self._has_folders = False
        self._newest: dict[str, asyncio.Task[Suggestion | None]] = {}
        self._last: dict[str, Suggestion] = {}
        self._shown = Shown()
        self._relations = Relations(self._documents.get)
        self._current: str | None = None  # the document that the user is in
        self._unsaved: dict[
            str, asyncio.TimerHandle
        ] = {}  # documents edited since they were saved, until they are left alone

    def open_folder(self, folder: Path) -> None:
        self._has_folders = True
        self._open_root(folder)

    async def close_folder(self, folder: Path) -> None:
        if (session := self._sessions.pop(folder, None)) is not None:
            await session.close()

    def opened(self, document: Document) -> None:
        self._documents[document.uri] = document
        path = path_of(document.uri)
        if path is None or not self._settings.enable:
            return
        if not self._has_folders:
            root = find_root(path.parent)
            if is_git_top(root):  # without a repository nothing says how far around the file may be read
                self._open_root(root)
        self._turn_to(document.uri)
        self._relations.look(document.uri, path, self._session_of(path))

    def changed(self, uri: str, edits: Sequence[Edit], *, version: int) -> None:
        document = self._documents.get(uri)
        if document is None:
            logger.warning("%s: changed without having been opened", uri)
            return
        self._documents[uri] = document.edited(edits, version)
        path = path_of(uri)
        session = self._session_of(path)
        if path is None or session is self._alone:
            return
        self._turn_to(uri)
        if (timer := self._unsaved.get(uri)) is not None:
            timer.cancel()
        self._unsaved[uri] = asyncio.get_running_loop().call_later(IDLE_S, self._left_alone, uri)
        self._relations.typed(uri, path, session)

    def saved(self, uri: str) -> None:
        path = path_of(uri)
        session = self._session_of(path)
        if path is None or session is self._alone:
            return
        if (timer := self._unsaved.pop(uri, None)) is not None:
            timer.cancel()
        session.saved(path)
        if uri in self._documents:
            self._relations.look(uri, path, session)

    def changed_on_disk(self, uris: Sequence[str]) -> None:
        """Files or folders are new, other or gone, as the editor's watcher says."""
        by_session: dict[Session, list[Path]] = {}
        for path in filter(None, map(path_of, uris)):
            by_session.setdefault(self._session_of(path), []).append(path)
        for session, paths in by_session.items():
            session.changed_on_disk(paths)

    def closed(self, uri: str) -> None:
        self._documents.pop(uri, None)
        self._last.pop(uri, None)
        self._shown.forget(uri)
        self._relations.forget(uri)
        if (task := self._newest.pop(uri, None)) is not None:
            task.cancel()
        if (timer := self._unsaved.pop(uri, None)) is not None:
            timer.cancel()
        if self._current == uri:
            self._current = None
        if (path := path_of(uri)) is not None:
            self._session_of(path).closed(path)

    async def suggest(self, uri: str, position: Position, *, is_wanted_anew: bool = False) -> Suggestion | None:
        """None: nothing to show, for whatever reason; the log has it. Never raises but for cancellation.

        `is_wanted_anew`: the user has asked by name, and what is shown at that very place will not do.
        """
        started = time.perf_counter()
        document = self._documents.get(uri)
        if document is None:
            logger.warning("%s: asked for a suggestion without having been opened", uri)
            return None
        if not self._settings.enable:
            return None
        self._turn_to(uri)
        rest = self._shown.rest(document, position, is_wanted_anew=is_wanted_anew)
        if rest is not None and rest.is_enough:
            if (older := self._newest.pop(uri, None)) is not None:
                older.cancel()
            suggestion = rest.suggestion
            self._shown.count(suggestion, uri=uri)
        else:
            suggestion = await self._ask(document, position)
            if rest is not None and not goes_on(rest.suggestion, suggestion):
                suggestion = rest.suggestion if self._documents.get(uri) is document else None
            elif suggestion is not None:
                self._shown.keep(document, suggestion)
        if suggestion is None:
            return None
        self._last[uri] = suggestion
        if self._tell is not None:
            self._tell(Answered(uri, document.version, suggestion, 1000 * (time.perf_counter() - started)))
        return suggestion

    def word_before(self, uri: str, position: Position) -> str:
        """The word that ends at the position; empty for a document that is not open."""
        document = self._documents.get(uri)
        found = _WORD_END.search(document.text, 0, document.offset(position)) if document is not None else None
        return found[0] if found else ""

    def last(self, uri: str) -> Suggestion | None:
        """The last suggestion that was made for a document."""
        return self._last.get(uri)

    async def close(self) -> None:
        for task in self._newest.values():
            task.cancel()
        for timer in self._unsaved.values():
            timer.cancel()
        await asyncio.gather(self._relations.close(), *(session.close() for session in self._sessions.values()))
        await self._link.close()

    async def _ask(self, document: Document, position: Position) -> Suggestion | None:
        path = path_of(document.uri)
        asking = suggest(
            document,
            position,
            path=path,
            session=self._session_of(path),
            settings=self._settings,
            related=self._relations.of(document.uri),
        )
        return await self._alone_for(document.uri, _logged(asking, document.uri))

    async def _alone_for(self, uri: str, asking: Coroutine[Any, Any, Suggestion | None]) -> Suggestion | None:
        """The newest request of a document ends the one before it."""
        task = asyncio.ensure_future(asking)
        if (older := self._newest.get(uri)) is not None:
            older.cancel()
        self._newest[uri] = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # the editor's own $/cancelRequest
            task.cancel()
            raise
        finally:
            if self._newest.get(uri) is task:
                del self._newest[uri]
        return None if task.cancelled() else task.result()

    def _turn_to(self, uri: str) -> None:
        """Whatever the user was in before is left alone now."""
        left, self._current = self._current, uri
        if left is not None and left != uri:
            self._left_alone(left)

    def _left_alone(self, uri: str) -> None:
        document, path = self._documents.get(uri), path_of(uri)
        if document is None or path is None or (timer := self._unsaved.get(uri)) is None:
            return
        timer.cancel()
        self._session_of(path).left_unsaved(path, document.text)

    def _open_root(self, root: Path) -> None:
        if root not in self._sessions and self._settings.enable:
            self._sessions[root] = Session(
                root, link=self._link, settings=self._settings, report=lambda at: self._report(root, at)
            )
            self._sessions[root].start()

    def _session_of(self, path: Path | None) -> Session:
        """The innermost folder's."""
        roots = [root for root in self._sessions if path is not None and path.is_relative_to(root)]
        return self._sessions[max(roots, key=lambda root: len(root.parts))] if roots else self._alone


def path_of(uri: str) -> Path | None:
    """None for what is not a file, such as an unsaved buffer."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        return None
    return Path(unquote(parts.path))


async def _logged(asking: Coroutine[Any, Any, Suggestion | None], uri: str) -> Suggestion | None:
    """A suggestion that fails is a line in the log and nothing on the screen."""
    try:
        return await asking
    except (DaemonError, LaunchError, SocketError) as error:
        # A request that the daemon gave up for a newer one is the usual course of things.
        is_usual = isinstance(error, DaemonError) and error.status in (409, 499)
        logger.log(logging.DEBUG if is_usual else logging.WARNING, "%s: no suggestion: %s", uri, error)
    except Exception:  # a fault of ours, which must not cost the editor its answer
        logger.exception("%s: no suggestion", uri)
    return None
