"""What the editor has open, in which workspace, and whose turn it is.

Knows documents, sessions and tasks; knows no LSP library and no wire.

Invariant: one document has at most one suggestion under way. A newer request ends the older one, which is answered with
nothing at once, so that an editor that never cancels (Neovim) does not pile up requests.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
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
from lsp.session import Progress, Session
from lsp.settings import Settings

_WORD_END = re.compile(r"\w*\Z")

logger = logging.getLogger(__name__)

Report = Callable[[Path, Progress], None]


class FrontEnd:
    """One editor window. Method by method what the editor says, in our values."""

    def __init__(self, settings: Settings, *, link: Link, report: Report) -> None:
        self._settings = settings
        self._link = link
        self._report = report
        self._documents: dict[str, Document] = {}
        self._sessions: dict[Path, Session] = {}  # by folder of the workspace, or repository of a file opened alone
        self._alone = Session(None, link=link, settings=settings, report=lambda _: None)
        self._has_folders = False
        self._newest: dict[str, asyncio.Task[Suggestion | None]] = {}
        self._last: dict[str, Suggestion] = {}

    def open_folder(self, folder: Path) -> None:
        self._has_folders = True
        self._open_root(folder)

    async def close_folder(self, folder: Path) -> None:
        if (session := self._sessions.pop(folder, None)) is not None:
            await session.close()

    def opened(self, document: Document) -> None:
        self._documents[document.uri] = document
        path = path_of(document.uri)
        if path is None or self._has_folders or not self._settings.enable:
            return
        root = find_root(path.parent)
        if is_git_top(root):  # without a repository nothing says how far around the file may be read
            self._open_root(root)

    def changed(self, uri: str, edits: Sequence[Edit], *, version: int) -> None:
        document = self._documents.get(uri)
        if document is None:
            logger.warning("%s: changed without having been opened", uri)
            return
        self._documents[uri] = document.edited(edits, version)

    def saved(self, uri: str) -> None:
        session = self._session_of(path_of(uri))
        if session is not self._alone:
            session.saved()

    def closed(self, uri: str) -> None:
        self._documents.pop(uri, None)
        self._last.pop(uri, None)
        if (task := self._newest.pop(uri, None)) is not None:
            task.cancel()

    async def suggest(self, uri: str, position: Position) -> Suggestion | None:
        """None: nothing to show, for whatever reason; the log has it. Never raises but for cancellation."""
        document = self._documents.get(uri)
        if document is None:
            logger.warning("%s: asked for a suggestion without having been opened", uri)
            return None
        if not self._settings.enable:
            return None
        path = path_of(uri)
        asking = suggest(document, position, path=path, session=self._session_of(path), settings=self._settings)
        suggestion = await self._alone_for(uri, _logged(asking, uri))
        if suggestion is not None:
            self._last[uri] = suggestion
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
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        await self._link.close()

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
