"""What is shown stays while it agrees with what is typed: the rest of the last suggestion, at once and without the model.

Knows documents and suggestions; asks nobody. Lines are compared as they are, which for those that no edit has touched is a look at the same object, so the
cost does not grow with the document.

Invariant: while typing agrees with what is shown, nothing else than what is shown or a text that goes on from it is answered.
"""

import logging
from dataclasses import dataclass, replace

from lsp.completion import Suggestion
from lsp.documents import Document, Position

FEW = 8  # characters left of a suggestion that was cut off, at which the model is asked how it goes on
_CUT_OFF = ("max_tokens", "time")  # what `Report.stopped_by` says then

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A suggestion as the model made it, and the document that it was made for."""

    suggestion: Suggestion
    document: Document


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of the suggestion that is shown; with `is_enough` it is the answer, else the model may give one that goes on from it."""

    suggestion: Suggestion
    is_enough: bool


class Shown:
    """The suggestions last made, one for each document."""

    def __init__(self) -> None:
        self.answered_without_model = 0
        self._made: dict[str, _Shown] = {}

    def rest(self, document: Document, position: Position, *, is_wanted_anew: bool) -> Rest | None:
        """None: the model is to be asked, and what was shown is forgotten.

        `is_wanted_anew`: the user has asked for a suggestion by name, so that the one that is shown at that very place will not do.
        """
        made = self._made.get(document.uri)
        text = _rest(made, document, position) if made is not None else None
        if made is None or not text or (is_wanted_anew and text == made.suggestion.text):
            self.forget(document.uri)
            return None
        is_enough = made.suggestion.report.stopped_by not in _CUT_OFF or len(text) >= FEW
        return Rest(replace(made.suggestion, text=text, position=position, is_reused=True), is_enough)

    def keep(self, document: Document, suggestion: Suggestion) -> None:
        """The model's answer, which `document` was sent for."""
        self._made[document.uri] = _Shown(suggestion, document)

    def forget(self, uri: str) -> None:
        self._made.pop(uri, None)

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


def goes_on(rest: Suggestion, made: Suggestion | None) -> bool:
    """Whether an answer of the model may be shown where `rest` is shown."""
    return made is not None and made.text.startswith(rest.text)


def _rest(made: _Shown, document: Document, position: Position) -> str | None:
    """What is left of a suggestion, when the document differs from the one that it was made for by a beginning of it and nothing else."""
    old, new = made.document, document
    (row, column), (new_row, new_column) = old.place(made.suggestion.position), new.place(position)
    if new_row < row or old.lines[:row] != new.lines[:row] or old.lines[row + 1 :] != new.lines[new_row + 1 :]:
        return None
    if old.lines[row][column:] != new.lines[new_row][new_column:]:
        return None
    before, now = old.lines[row][:column], "".join((*new.lines[row:new_row], new.lines[new_row][:new_column]))
    if not now.startswith(before):
        return None
    typed = now[len(before) :].replace("\r\n", "\n").replace("\r", "\n")
    text = made.suggestion.text
    return text[len(typed) :] if text.startswith(typed) else None
