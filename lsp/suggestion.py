"""What is shown stays while it agrees with what is typed: the rest of the last suggestion, at once and without the model.

Knows documents, their changes and suggestions; asks nobody. Lines are compared as they are, which for those that no edit has touched is a look at the same
object, so the cost does not grow with the document.

Invariants: while typing agrees with what is shown, nothing else than what is shown or a text that goes on from it is answered. What was turned down at a
place is not offered there again, unless it is asked for by name.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from lsp.completion import Suggestion
from lsp.documents import Document, Edit, Position

FEW = 8  # characters left of a suggestion that was cut off, at which the model is asked how it goes on
REMEMBERED = 16  # suggestions turned down, in each document
_CUT_OFF = ("max_tokens", "time")  # what `Report.stopped_by` says then
_OPENER = {")": "(", "]": "[", "}": "{", ">": "<"}
_QUOTES = "\"'`"
_AT_ONCE = 3  # characters of a suggestion that nobody types between two messages of an editor
_MOST_CLOSERS = 3  # that an editor puts right of the cursor for one key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Made:
    """Suggestions as the model made them, the first of them shown, and the document that they were made for. `current` is what is left of them by now."""

    suggestions: tuple[Suggestion, ...]
    document: Document
    current: tuple[Suggestion, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of the suggestions that are shown; with `is_enough` they are the answer, else the model may give one that goes on from the first."""

    suggestions: tuple[Suggestion, ...]
    is_enough: bool

    @property
    def suggestion(self) -> Suggestion:
        return self.suggestions[0]


class Event(NamedTuple):
    """What a change of the text says about the suggestion that was shown. `n_chars` of it are in the text now, which ends at `position`."""

    kind: Literal["accepted", "partly", "rejected"]
    suggestion: Suggestion
    n_chars: int
    position: Position


class _TurnedDown(NamedTuple):
    """A line as it would have become, and the one above it."""

    above: str
    line: str


class Shown:
    """The suggestions last made, for each document.

    `sends_each_key`: the editor tells of every key on its own, so that several characters at once were not typed.
    """

    def __init__(self, *, sends_each_key: bool = False) -> None:
        self.answered_without_model = 0
        self._sends_each_key = sends_each_key
        self._made: dict[str, _Made] = {}
        self._turned_down: dict[str, deque[_TurnedDown]] = {}

    def rest(self, document: Document, position: Position, *, is_wanted_anew: bool) -> Rest | None:
        """None: the model is to be asked, and what was shown is forgotten.

        `is_wanted_anew`: the user has asked for a suggestion by name, so that the one that is shown at that very place will not do.
        """
        made = self._made.get(document.uri)
        left = _left(made, document, position) if made is not None else ()
        left = tuple(each for each in left if each.text)
        if made is None or not left or (is_wanted_anew and left[0].text == made.suggestions[0].text):
            self._made.pop(document.uri, None)
            return None
        self._made[document.uri] = replace(made, current=left)
        is_enough = left[0].report.stopped_by not in _CUT_OFF or len(left[0].text) >= FEW
        return Rest(left, is_enough)

    def keep(self, document: Document, *suggestions: Suggestion) -> None:
        """The model's answer, which `document` was sent for; its first text is the one that is shown."""
        self._made[document.uri] = _Made(suggestions, document, suggestions)

    def follow(self, document: Document, edits: Sequence[Edit]) -> Event | None:
        """After an open document has become this by `edits`: what the change says about what is shown there; None: nothing, or it was typed."""
        made = self._made.get(document.uri)
        edit = edits[0] if len(edits) == 1 else None
        if made is None or edit is None or edit.start is None or edit.end is None:
            return None
        shown = made.current[0]
        if not edit.text and _order(edit.start) < _order(shown.position) <= _order(edit.end):
            self._turn_down(made, shown)
            return Event("rejected", shown, 0, edit.start)
        found = _where_it_ends(made, document, edit.start, edit.text)
        if found is None:
            return None
        agreeing, position = found
        shown_by_id = {each.id: each for each in made.current}
        left = tuple(each for each in agreeing if each.id in shown_by_id)
        if not left:
            return None
        taken = shown_by_id[left[0].id]
        n_chars = len(taken.text) - len(left[0].text)
        is_typed = n_chars < _AT_ONCE if not self._sends_each_key else n_chars <= 1 or not edit.text.strip()
        if not left[0].text:
            self._made.pop(document.uri, None)
            return None if is_typed else Event("accepted", taken, n_chars, position)
        self._made[document.uri] = replace(made, current=tuple(each for each in left if each.text))
        if is_typed or not self._sends_each_key:  # an editor that collects keys for a moment sends a word as well
            return None
        return Event("partly", taken, n_chars, position)

    def turned_down(self, suggestion_id: str) -> bool:
        """The editor says that its user has dismissed a suggestion. False: it is not shown any more."""
        for made in list(self._made.values()):
            for shown in made.current:
                if shown.id == suggestion_id:
                    self._turn_down(made, shown)
                    return True
        return False

    def is_turned_down(self, document: Document, suggestion: Suggestion) -> bool:
        """Whether the user has seen the same line at the same place and did not want it."""
        return _result(document, suggestion) in self._turned_down.get(document.uri, ())

    def forget(self, uri: str) -> None:
        self._made.pop(uri, None)
        self._turned_down.pop(uri, None)

    def count(self, suggestion: Suggestion, *, uri: str) -> None:
        """That a suggestion was given without the model."""
        self.answered_without_model += 1
        logger.debug(
            "%s:%d:%d answered without the model (%d so far): the rest of what is shown, %d characters",
            uri,
            suggestion.position.line + 1,
            suggestion.position.character + 1,
            self.answered_without_model,
            len(suggestion.text),
        )

    def _turn_down(self, made: _Made, shown: Suggestion) -> None:
        uri = made.document.uri
        whole = next(each for each in made.suggestions if each.id == shown.id)
        self._turned_down.setdefault(uri, deque(maxlen=REMEMBERED)).append(_result(made.document, whole))
        self._made.pop(uri, None)


def goes_on(rest: Suggestion, made: Suggestion | None) -> bool:
    """Whether an answer of the model may be shown where `rest` is shown."""
    return made is not None and made.text.startswith(rest.text)


def _where_it_ends(
    made: _Made, document: Document, start: Position, text: str
) -> tuple[tuple[Suggestion, ...], Position] | None:
    """Where the cursor is after `text` was put at `start`, if what is shown agrees with it: behind the text, or before the closers that the editor added."""
    for n_closers in range(min(_MOST_CLOSERS, len(text)) + 1):
        if n_closers and text[-n_closers] not in _OPENER and text[-n_closers] not in _QUOTES:
            break
        position = document.after(start, text[: len(text) - n_closers])
        if left := _left(made, document, position):
            return left, position
    return None


def _left(made: _Made, document: Document, position: Position) -> tuple[Suggestion, ...]:
    """What is left of each suggestion that agrees; of one that was typed or taken to its end, an empty text."""
    return tuple(
        left for each in made.suggestions if (left := _rest(each, made.document, document, position)) is not None
    )


def _rest(suggestion: Suggestion, old: Document, new: Document, position: Position) -> Suggestion | None:
    """What is left of a suggestion, when `new` differs from `old`, for which it was made, by a beginning of it and nothing else."""
    (row, column), (new_row, new_column) = old.place(suggestion.position), new.place(position)
    if new_row < row or old.lines[:row] != new.lines[:row] or old.lines[row + 1 :] != new.lines[new_row + 1 :]:
        return None
    before, now = old.lines[row][:column], "".join((*new.lines[row:new_row], new.lines[new_row][:new_column]))
    if not now.startswith(before):
        return None
    typed = now[len(before) :].replace("\r\n", "\n").replace("\r", "\n")
    if not suggestion.text.startswith(typed):
        return None
    replaces = _still_replaced(
        old.lines[row][column:], new.lines[new_row][new_column:], typed=typed, n_replaced=suggestion.replaces
    )
    if replaces is None:
        return None
    text = suggestion.text[len(typed) :]
    return replace(suggestion, text=text, position=position, is_reused=True, replaces=replaces if text else 0)


def _still_replaced(old_right: str, new_right: str, *, typed: str, n_replaced: int) -> int | None:
    """How many characters right of the cursor the rest stands in place of; None: another text stands there.

    Typing over an automatic bracket takes it away; typing an opening one may have put another there.
    """
    if new_right == old_right:
        return n_replaced
    for n_gone in range(1, n_replaced + 1):
        if new_right == old_right[n_gone:]:
            return n_replaced - n_gone
    added = new_right[: len(new_right) - len(old_right)]
    if not added or added + old_right != new_right or not all(_is_automatic(each, added, typed) for each in added):
        return None
    return n_replaced + len(added)


def _is_automatic(closer: str, added: str, typed: str) -> bool:
    """Whether `closer` closes what was typed and is still open."""
    if closer in _QUOTES:
        return typed.count(closer) % 2 == 1
    opener = _OPENER.get(closer)
    return opener is not None and typed.count(opener) - typed.count(closer) >= added.count(closer)


def _result(document: Document, suggestion: Suggestion) -> _TurnedDown:
    row, column = document.place(suggestion.position)
    return _TurnedDown(document.lines[row - 1] if row else "", document.lines[row][:column] + suggestion.text)


def _order(position: Position) -> tuple[int, int]:
    return position.line, position.character
