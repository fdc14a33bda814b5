"""In which order several suggestions for one place are offered: those that parse first.

The daemon gives them likeliest first. That order stays, but for those that would leave the file with more errors than it had (context/parses.py says what that
means): they come last. Of a language without a grammar all stay as they are. How many lines a suggestion has does not matter: a longer one is not a better one.
Knows texts and syntax. Does not know: the model, the editor's protocol.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from context.parses import Parsed


class Insertable(Protocol):
    """A text for the cursor, with \\n line ends, and how many characters right of the cursor it stands in place of."""

    @property
    def text(self) -> str: ...
    @property
    def replaces(self) -> int: ...


T = TypeVar("T", bound=Insertable)


def ranked(text: str, offset: int, choices: Sequence[T], *, language: str) -> list[T]:
    """`choices` for the cursor at `offset` of `text`, both with \\n line ends: those that parse first, else as given, and one of those that make the same text.

    `language`: an LSP languageId. One choice costs nothing; two or more cost a parse of the file, at most a tenth of a second.
    """
    different: dict[str, T] = {}
    for choice in choices:
        different.setdefault(_line_after(text, offset, choice), choice)
    order = list(different.values())
    if len(order) < 2:
        return order
    parsed = Parsed(text, language)
    return sorted(order, key=lambda choice: parsed.breaks(offset, choice.text, replaces=choice.replaces) is True)


def _line_after(text: str, offset: int, choice: Insertable) -> str:
    """What stands right of the cursor then: `foo)` in place of a bracket and `foo` before it are the same."""
    end = text.find("\n", offset)
    return choice.text + text[offset + choice.replaces : len(text) if end < 0 else end]
