"""Which suggestions an editor was given, and what it says, or its text says, has become of them.

Knows ids and lengths; what is counted is in `statistics`, where each suggestion counts once, whoever tells of it. Some editors tell what they show and what
was accepted, others let the text speak, some do both. An editor that has once said what it shows is believed: what it does not name was not shown.
"""

from collections import OrderedDict
from dataclasses import dataclass

from lsp.completion import Suggestion
from lsp.statistics import Part, Statistics

REMEMBERED = 256  # suggestions; one that is older has long been decided


@dataclass(slots=True)
class _Given:
    language: str
    n_chars: int
    n_taken: int = 0  # characters accepted in parts


class Ledger:
    """Of one editor window."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._given: OrderedDict[str, _Given] = OrderedDict()
        self._is_told = False  # the editor says what it shows

    def answered(self, suggestion: Suggestion, *, language: str, ms: float) -> None:
        """A request was answered from this suggestion, shown or not."""
        self._statistics.note_answered(
            language=language,
            source="typed" if suggestion.is_reused else "model",
            ms=ms,
            n_tokens_fed=0 if suggestion.is_reused else suggestion.report.tokens_fed,
        )

    def given(self, suggestion: Suggestion, *, language: str, is_first: bool) -> None:
        """It was sent to the editor, which shows the first of several."""
        if suggestion.id not in self._given:
            self._given[suggestion.id] = _Given(language, len(suggestion.text))
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)
        if is_first and not self._is_told:
            self._show(suggestion.id)

    def n_chars_of(self, suggestion_id: str) -> int:
        """Of the whole suggestion; 0 for one that is not known."""
        given = self._given.get(suggestion_id)
        return given.n_chars if given is not None else 0

    def shown(self, suggestion_id: str) -> None:
        self._is_told = True
        self._show(suggestion_id)

    def accepted(self, suggestion_id: str) -> None:
        """To its end."""
        if (given := self._given.get(suggestion_id)) is not None:
            n_chars = max(0, given.n_chars - given.n_taken)
            self._statistics.note_accepted(suggestion_id, language=given.language, n_chars=n_chars)

    def partly_accepted(self, suggestion_id: str, n_chars: int, *, part: Part) -> None:
        """`n_chars`: from the suggestion's beginning, all that was accepted so far."""
        given = self._given.get(suggestion_id)
        if given is None or n_chars <= given.n_taken:
            return
        n_new, given.n_taken = n_chars - given.n_taken, n_chars
        self._statistics.note_partly_accepted(suggestion_id, language=given.language, n_chars=n_new, part=part)

    def rejected(self, suggestion_id: str) -> None:
        if (given := self._given.get(suggestion_id)) is not None:
            self._statistics.note_rejected(suggestion_id, language=given.language)

    def looked_after(self, suggestion_id: str, *, is_still_there: bool) -> None:
        if (given := self._given.get(suggestion_id)) is not None:
            self._statistics.note_looked_after(language=given.language, is_still_there=is_still_there)

    def close(self) -> None:
        self._statistics.close()

    def _show(self, suggestion_id: str) -> None:
        if (given := self._given.get(suggestion_id)) is not None:
            self._statistics.note_shown(suggestion_id, language=given.language, n_chars=given.n_chars)
