"""What the editor has open, and in which workspace.

Knows documents and sessions; knows no LSP library and no wire. By which rules something is suggested is in `suggester`.

A document that is edited and not saved is the model's business too, once its user has turned to another one or has left
it alone for a while: until then it is read by the completions in it and by no others.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from context.listing import is_git_top
from context.repository import find_root
from daemon.protocol import SocketError
from lsp.board import Board
from lsp.client import DaemonError
from lsp.completion import Suggestion, secret_in
from lsp.documents import Document, Edit, Position
from lsp.insertion import Selected
from lsp.launch import LaunchError
from lsp.ledger import Ledger
from lsp.link import Link
from lsp.pause import Pause
from lsp.relations import Relations
from lsp.session import Progress, Session
from lsp.settings import Settings
from lsp.statistics import Statistics
from lsp.style import Style
from lsp.suggester import Answer, Question, Suggester

IDLE_S = 60.0  # after the last edit, before a document that is not saved counts as left alone
STILL_THERE_S = 60.0  # after which an accepted suggestion is looked for

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

    `report` hears how far each workspace's context is, `tell` what each suggestion has cost, `notify` what the status bar shall show.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        link: Link,
        report: Report,
        tell: Callable[[Answered], None] | None = None,
        statistics: Statistics,
        notify: Callable[[dict[str, Any]], None] | None = None,
        sends_each_key: bool = False,
    ) -> None:
        self.settings = settings
        self.link = link
        self._report = report
        self._tell = tell
        self._documents: dict[str, Document] = {}
        self.sessions: dict[Path, Session] = {}  # by folder of the workspace, or repository of a file opened alone
        self._alone = Session(None, link=link, settings=settings, report=lambda _: None)
        self._has_folders = False
        self._last: dict[str, Suggestion] = {}
        self.ledger = Ledger(statistics)
        self.pause = Pause()
        self.board = Board(self.pause, notify)
        self.suggester = Suggester(
            settings,
            ledger=self.ledger,
            asking=self._logged,
            accepted=self._look_later,
            pause=self.pause,
            sends_each_key=sends_each_key,
        )
        self._relations = Relations(self._documents.get)
        self._current: str | None = None  # the document that the user is in
        self._is_told_focus = False  # the editor says which one that is
        self._focused: str | None = None  # what it has said
        self._unsaved: dict[
            str, asyncio.TimerHandle
        ] = {}  # documents edited since they were saved, until they are left alone

    def open_folder(self, folder: Path) -> None:
        self._has_folders = True
        self._open_root(folder)

    async def close_folder(self, folder: Path) -> None:
        if (session := self.sessions.pop(folder, None)) is not None:
            self.board.workspace_closed(folder)
            await session.close()

    def opened(self, document: Document) -> None:
        self._documents[document.uri] = document
        if self._focused == document.uri:  # in another language than before, perhaps
            self._show_focus(document.uri)
        path = path_of(document.uri)
        if path is None or not self.settings.enable:
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
        document = self._documents[uri] = document.edited(edits, version)
        self._note_change(document, edits)
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
        self.suggester.closed(uri)
        self._relations.forget(uri)
        if (timer := self._unsaved.pop(uri, None)) is not None:
            timer.cancel()
        if self._current == uri:
            self._current = None
            self._show_focus(None)
        if (path := path_of(uri)) is not None:
            self._session_of(path).closed(path)

    async def suggest(
        self,
        uri: str,
        position: Position,
        *,
        is_by_name: bool = False,
        selected: Selected | None = None,
        style: Style | None = None,
    ) -> Answer:
        """What may be shown there; nothing for whatever reason is in the log. Never raises but for cancellation.

        `is_by_name`: the user has asked for it, so what is shown at that very place will not do, and there may be several.
        """
        started = time.perf_counter()
        document = self._documents.get(uri)
        if document is None:
            logger.warning("%s: asked for a suggestion without having been opened", uri)
            return Answer()
        self._turn_to(uri)
        question = self._question(document, position, is_by_name=is_by_name, selected=selected, style=style)
        try:
            answer = await self.suggester.suggest(question)
        except Exception:  # a fault of ours, which must not cost the editor its answer
            logger.exception("%s: no suggestion", uri)
            return Answer()
        if answer.made is not None:
            self._count(document, answer, ms=1000 * (time.perf_counter() - started))
        return answer

    def partly_accepted(self, suggestion_id: str, part: str, *, of: str) -> None:
        """`part` is the beginning of `of`, which is what was left of the suggestion then."""
        n_before = max(0, self.ledger.n_chars_of(suggestion_id) - len(of))
        if len(part) >= len(of):
            self.ledger.accepted(suggestion_id)
        else:
            self.ledger.partly_accepted(suggestion_id, n_before + len(part), part="line" if "\n" in part else "word")

    def focused(self, uri: str | None) -> None:
        """The user looks at this document, or at none, as an editor says that can. It may open and change others behind the user's back."""
        self._is_told_focus, self._focused = True, uri
        if uri is not None and uri in self._documents:
            self._turn_to(uri)
        self._show_focus(uri)

    def _note_change(self, document: Document, edits: Sequence[Edit]) -> None:
        """What a change says of the suggestion that was shown."""
        try:
            self.suggester.changed(document, edits, lambda position: self._question(document, position))
        except Exception:  # a fault of ours, which must not cost the document its change
            logger.exception("%s: what becomes of its suggestion", document.uri)

    async def reconnect(self) -> None:
        """The daemon was ended. The next one is told everything again."""
        await self.link.renew()
        for session in self.sessions.values():
            session.tell_again()

    def word_before(self, uri: str, position: Position) -> str:
        """The word that ends at the position; empty for a document that is not open."""
        document = self._documents.get(uri)
        found = _WORD_END.search(document.text, 0, document.offset(position)) if document is not None else None
        return found[0] if found else ""

    def last(self, uri: str) -> Suggestion | None:
        """The last suggestion that was made for a document."""
        return self._last.get(uri)

    async def close(self) -> None:
        self.suggester.close()
        self.board.close()
        for timer in self._unsaved.values():
            timer.cancel()
        await asyncio.gather(self._relations.close(), *(session.close() for session in self.sessions.values()))
        await self.link.close()
        self.ledger.close()

    def _question(
        self,
        document: Document,
        position: Position,
        *,
        is_by_name: bool = False,
        selected: Selected | None = None,
        style: Style | None = None,
    ) -> Question:
        path = path_of(document.uri)
        return Question(
            document,
            position,
            path=path,
            session=self._session_of(path),
            related=self._relations.of(document.uri),
            is_by_name=is_by_name,
            selected=selected,
            style=style,
        )

    async def _logged(self, asking: Awaitable[list[Suggestion]], uri: str) -> list[Suggestion] | None:
        """A suggestion that fails is a line in the log and a word in the status bar, and nothing on the screen: None."""
        request = object()
        self.board.begun(request)
        try:
            made = await asking
            self.board.answered(request)
            return made
        except (DaemonError, LaunchError, SocketError) as error:
            # A request that the daemon gave up for a newer one is the usual course of things.
            is_usual = isinstance(error, DaemonError) and error.status in (409, 499)
            logger.log(logging.DEBUG if is_usual else logging.WARNING, "%s: no suggestion: %s", uri, error)
            if not is_usual:
                self.board.failed(request, str(error))
        except Exception as error:  # a fault of ours, which must not cost the editor its answer
            logger.exception("%s: no suggestion", uri)
            self.board.failed(request, f"an internal error ({type(error).__name__})")
        finally:
            self.board.dropped(request)
        return None

    def _count(self, document: Document, answer: Answer, *, ms: float) -> None:
        made = answer.made
        assert made is not None
        self._last[document.uri] = made
        self.ledger.answered(made, language=document.language, ms=ms)
        for number, offer in enumerate(answer.offers):
            self.ledger.given(offer.suggestion, language=document.language, is_first=number == 0)
        if self._tell is not None:
            self._tell(Answered(document.uri, document.version, made, ms))

    def _look_later(self, uri: str, accepted: Suggestion) -> None:
        """Whether a suggestion that was accepted is still there after a while says whether it was any good."""
        line = max(accepted.text.split("\n"), key=len).strip()

        def look() -> None:
            if (document := self._documents.get(uri)) is not None:
                is_there = any(line in each for each in document.lines)
                self.ledger.looked_after(accepted.id, is_still_there=is_there)

        asyncio.get_running_loop().call_later(STILL_THERE_S, look)

    def _turn_to(self, uri: str) -> None:
        """Whatever the user was in before is left alone now."""
        left, self._current = self._current, uri
        if left != uri and not self._is_told_focus:
            self._show_focus(uri)
        if left is not None and left != uri:
            self._left_alone(left)

    def _show_focus(self, uri: str | None) -> None:
        document = self._documents.get(uri) if uri is not None else None
        if document is None:
            self.board.focused(uri, root=None, off=None)
            return
        path = path_of(document.uri)
        root = self._session_of(path).root
        off = self.suggester.gate.why_off(document, path=path, root=root) or secret_in(path, document)
        self.board.focused(uri, root=root, off=off)

    def _left_alone(self, uri: str) -> None:
        document, path = self._documents.get(uri), path_of(uri)
        if document is None or path is None or (timer := self._unsaved.get(uri)) is None:
            return
        timer.cancel()
        self._session_of(path).left_unsaved(path, document.text)

    def _open_root(self, root: Path) -> None:
        if root not in self.sessions and self.settings.enable:
            self.sessions[root] = Session(
                root, link=self.link, settings=self.settings, report=lambda at: self._reported(root, at)
            )
            self.sessions[root].start()

    def _reported(self, root: Path, progress: Progress) -> None:
        self.board.workspace(root, progress)
        self._report(root, progress)

    def _session_of(self, path: Path | None) -> Session:
        """The innermost folder's."""
        roots = [root for root in self.sessions if path is not None and path.is_relative_to(root)]
        return self.sessions[max(roots, key=lambda root: len(root.parts))] if roots else self._alone


def path_of(uri: str) -> Path | None:
    """None for what is not a file, such as an unsaved buffer."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        return None
    return Path(unquote(parts.path))
