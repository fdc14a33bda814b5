"""One suggestion from the question to what the editor may show: by which rules, in which order.

Knows documents, suggestions and settings; knows no LSP library, no sockets and no workspaces. The rules themselves are next door: `gate` (when not),
`suggestion` (what is shown stays), `turns` (one question under way), `completion` (the model), `ranking`, `insertion` (which edit), and `ledger` (what
became of it).

Computing begins at once; showing something new waits until the user has not typed for a moment (the settings `delay_ms` and `delay_lines_ms`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from context.place import Place, place_of
from daemon.protocol import Document as RelatedDocument
from lsp.completion import Suggestion, Wanted, suggest
from lsp.documents import Document, Edit, Position
from lsp.gate import Gate, only_deletes
from lsp.insertion import Insertion, Selected, insertion_of, with_selected
from lsp.ledger import Ledger
from lsp.pause import Pause
from lsp.ranking import ranked
from lsp.session import Session
from lsp.settings import Settings
from lsp.style import Style, styled
from lsp.suggestion import Shown, goes_on
from lsp.turns import Turns

logger = logging.getLogger(__name__)

# What was made, or None where asking has failed.
Asking = Callable[[Awaitable[list[Suggestion]], str], Awaitable[list[Suggestion] | None]]


@dataclass(frozen=True, slots=True)
class Question:
    """`is_by_name`: the user has asked for it, and wants to choose. `selected`: the item that the editor's menu has selected."""

    document: Document
    position: Position
    path: Path | None
    session: Session
    related: Sequence[RelatedDocument] = ()
    is_by_name: bool = False
    selected: Selected | None = None
    style: Style | None = None

    @property
    def key(self) -> tuple[object, ...]:
        return self.document, self.position, self.is_by_name, self.selected


@dataclass(frozen=True, slots=True)
class Offer:
    """One suggestion and the edit that shows it."""

    suggestion: Suggestion
    insertion: Insertion


class Answer(NamedTuple):
    """`made` is what the answer comes from, None where nobody was asked; `offers` is what may be shown of it."""

    offers: tuple[Offer, ...] = ()
    made: Suggestion | None = None


NOTHING = Answer()


class _Failed(Exception):
    """The model could not be asked, which has been logged. A question that was asked ahead and failed is asked again."""


class _Made(NamedTuple):
    """The model's answer: its likeliest text, and those that may be shown."""

    first: Suggestion | None
    fit: tuple[Suggestion, ...]


class Suggester:
    """Of one editor window. `asking` wraps each question to the model: it logs what fails and tells the status of it. `accepted` hears of what was taken."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger,
        asking: Asking,
        accepted: Callable[[str, Suggestion], None],
        pause: Pause,
        sends_each_key: bool = False,
    ) -> None:
        self._settings = settings
        self._accepted = accepted
        self._pause = pause
        self._ledger = ledger
        self._asking = asking
        self.gate = Gate(settings)
        self.shown = Shown(sends_each_key=sends_each_key)
        self._turns: Turns[_Made] = Turns()
        self._edited_at: dict[str, float] = {}
        self._current: dict[str, Document] = {}  # as they are by now, of those that were asked about
        self._only_deleted: set[str] = (
            set()
        )  # documents of which the last change took something away and put nothing there

    async def suggest(self, question: Question) -> Answer:
        """Never raises but for cancellation. A newer question of the document ends this one, which is then answered with nothing at once."""
        uri, path, root = question.document.uri, question.path, question.session.root
        self._current[uri] = question.document
        why = self.gate.why_off(question.document, path=path, root=root)
        if why is None and not question.is_by_name and self._pause.paused() is not None:
            why = "paused"
        if why is not None:
            return self._refuse(question, why)
        document, position = question.document, question.position
        if question.selected is not None:
            taken = with_selected(document, position, question.selected)
            if taken is None:
                return self._refuse(question, "the menu's item is not at the cursor")
            document, position = taken
        rest = self.shown.rest(document, position, is_wanted_anew=question.is_by_name)
        if rest is not None and rest.is_enough:
            self._turns.end(uri)
            self.shown.count(rest.suggestion, uri=uri)
            return Answer(self._offers(question, rest.suggestions), rest.suggestion)
        asked = replace(question, document=document, position=position)
        place = place_of(document.text, document.offset(position), language=document.language)
        if rest is None:
            before = "deleted" if uri in self._only_deleted else "typed"
            why = self.gate.why_not(
                document, position, place, path=path, root=root, is_automatic=not question.is_by_name, before=before
            )
            if why is not None:
                return self._refuse(question, why)
        try:
            made = await self._turns.ask(uri, question.key, lambda: self._ask(asked, self._wanted(asked, place)))
        except _Failed:
            made = _Made(None, ())
        if made is None or self._current.get(uri) is not question.document:
            return NOTHING  # of a text that is no more
        fit = made.fit
        if rest is not None and not goes_on(rest.suggestion, fit[0] if fit else None):
            return Answer(self._offers(question, rest.suggestions), rest.suggestion)
        if fit:
            self.shown.keep(document, *fit)
        return Answer(self._offers(question, fit), made.first)

    def changed(self, document: Document, edits: Sequence[Edit], next_question: Callable[[Position], Question]) -> None:
        """An open document has become this. After an accepted suggestion the next one is asked for before the editor does."""
        uri = document.uri
        self._edited_at[uri], self._current[uri] = time.monotonic(), document
        (self._only_deleted.add if only_deletes(edits) else self._only_deleted.discard)(uri)
        event = self.shown.follow(document, edits)
        if event is None:
            return
        suggestion_id = event.suggestion.id
        if event.kind == "rejected":
            self._ledger.rejected(suggestion_id)
        elif event.kind == "partly":
            taken = event.suggestion.text[: event.n_chars]
            n_before = self._ledger.n_chars_of(suggestion_id) - len(event.suggestion.text)
            self._ledger.partly_accepted(
                suggestion_id, n_before + event.n_chars, part="line" if "\n" in taken else "word"
            )
        else:
            self._ledger.accepted(suggestion_id)
            self._accepted(uri, event.suggestion)
            self._ask_ahead(next_question(event.position))

    def dismissed(self, suggestion_id: str) -> None:
        """By the editor's user."""
        self.shown.turned_down(suggestion_id)
        self._ledger.rejected(suggestion_id)

    def closed(self, uri: str) -> None:
        self._turns.end(uri)
        self.shown.forget(uri)
        self.gate.forget(uri)
        self._edited_at.pop(uri, None)
        self._current.pop(uri, None)
        self._only_deleted.discard(uri)

    def close(self) -> None:
        self._turns.end_all()

    def _refuse(self, question: Question, why: str) -> Answer:
        uri, at = question.document.uri, question.position
        self._turns.end(uri)
        logger.debug("%s:%d:%d nothing is asked: %s", uri, at.line + 1, at.character + 1, why)
        return NOTHING

    def _ask_ahead(self, question: Question) -> None:
        document, position = question.document, question.position
        place = place_of(document.text, document.offset(position), language=document.language)
        why = self.gate.why_not(
            document, position, place, path=question.path, root=question.session.root, is_automatic=True
        )
        if why is None and self._pause.paused() is None:
            self._turns.begin(document.uri, question.key, lambda: self._ask(question, self._wanted(question, place)))

    def _wanted(self, question: Question, place: Place) -> Wanted:
        return Wanted(
            max_lines=self._settings.max_lines if place.is_multi else 1,
            n=self._settings.alternatives if question.is_by_name else 1,
        )

    async def _ask(self, question: Question, wanted: Wanted) -> _Made:
        document = question.document
        asking = suggest(
            document,
            question.position,
            path=question.path,
            session=question.session,
            settings=self._settings,
            wanted=wanted,
            related=question.related,
        )
        made = await self._asking(asking, document.uri)
        if made is None:
            raise _Failed
        fit = [_styled(each, question) for each in made if each.text.strip()]
        if question.is_by_name:
            fit = self._ranked(question, fit)
        else:
            fit = [each for each in fit if not self.shown.is_turned_down(document, each)]
            await self._settle(document.uri, fit)
        return _Made(made[0] if made else None, tuple(fit))

    def _ranked(self, question: Question, suggestions: list[Suggestion]) -> list[Suggestion]:
        document = question.document
        return ranked(document.text, document.offset(question.position), suggestions, language=document.language)

    async def _settle(self, uri: str, fit: Sequence[Suggestion]) -> None:
        """Until the last edit is old enough for something new to be shown."""
        if fit:
            settings = self._settings
            delay_ms = settings.delay_lines_ms if "\n" in fit[0].text else settings.delay_ms
            left_s = self._edited_at.get(uri, 0.0) + delay_ms / 1000 - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)

    def _offers(self, question: Question, suggestions: Sequence[Suggestion]) -> tuple[Offer, ...]:
        """What can be shown, each edit once."""
        offers: dict[Insertion, Offer] = {}
        for each in suggestions:
            insertion = insertion_of(
                question.document,
                question.position,
                each.text,
                replaces=each.replaces,
                selected=question.selected,
                is_behind_selected=question.selected is not None,
                style=question.style,
            )
            if insertion is not None:
                offers.setdefault(insertion, Offer(each, insertion))
        return tuple(offers.values())


def _styled(suggestion: Suggestion, question: Question) -> Suggestion:
    """Indented as the document is, so that it agrees with what an editor types for its user."""
    document = question.document
    row, column = document.place(question.position)
    is_first = not document.lines[row][:column].strip()
    text = styled(
        suggestion.text,
        lines=document.lines,
        row=row,
        language=document.language,
        editor=question.style,
        is_first=is_first,
    )
    return replace(suggestion, text=text)
