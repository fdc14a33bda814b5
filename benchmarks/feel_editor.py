"""An editor's text and cursor as VS Code treats the keys: closing brackets and quotes that come by themselves, typing over them, indentation after Enter.

Each key is one change, as the editor tells its language server. Knows: text, a cursor, the few rules of a language that keys need. Does not know: servers,
suggestions, who presses the keys.

Rules taken from VS Code's `typeOperations` and language configurations, in a smaller form: a bracket is closed where whitespace or one of CLOSE_BEFORE
follows, a quote too, unless a word character stands before it or the cursor is in a string or a comment. A third quote in a row closes nothing.
"""

import re
from collections import Counter
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

PAIRS = {"(": ")", "[": "]", "{": "}"}
CLOSE_BEFORE = ";:.,=}])> \n\t"
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Language:
    """`name` is an LSP language id."""

    name: str
    quotes: str = "\"'"
    triple: tuple[str, ...] = ()
    comment: str = "//"
    block_ends: str = "([{"  # a line that ends with one of these is followed by a deeper one
    leaves: str = ""  # regular expression: after such a line the next one is less deep

    def kind(self, before: str) -> str:
        """Where a cursor stands that has `before` before it: "code" | "string" | "comment"."""
        found = None
        for token in _tokens(self).finditer(before):
            found = token
        if found is None or found.end() < len(before):
            return "code"
        if found.lastgroup == "comment":
            return "comment"
        return "string" if found.lastgroup is not None else "code"


PYTHON = Language(
    "python",
    triple=('"""', "'''"),
    comment="#",
    block_ends="([{:",
    leaves=r"\s*(return|pass|break|continue|raise)\b",
)
LANGUAGES = {
    ".py": PYTHON,
    ".js": Language("javascript", quotes="\"'`"),
    ".ts": Language("typescript", quotes="\"'`"),
    ".go": Language("go", quotes="\"'`"),
    ".rs": Language("rust", quotes='"'),
    ".java": Language("java"),
    ".c": Language("c"),
    ".h": Language("c"),
    ".cpp": Language("cpp"),
}

_PATTERNS: dict[str, re.Pattern[str]] = {}


def _tokens(language: Language) -> re.Pattern[str]:
    """Strings and comments, each whole or open at the end of the text."""
    if language.name not in _PATTERNS:
        kinds = []
        for number, mark in enumerate((*language.triple, *language.quotes)):
            end, plain = re.escape(mark), r"[\s\S]" if len(mark) == 3 or mark == "`" else r"[^\n]"
            inside = rf"(?:\\{plain}|(?!{end}|\\){plain})*"
            kinds.append(rf"{end}{inside}(?:{end}|(?P<open{number}>\\?\Z))")
        kinds.append(rf"(?P<comment>{re.escape(language.comment)}[^\n]*)")
        _PATTERNS[language.name] = re.compile("|".join(kinds))
    return _PATTERNS[language.name]


class Change(NamedTuple):
    """[start, end) of the text before becomes `text`; `lsp` says the same as LSP does."""

    start: int
    end: int
    text: str
    lsp: dict[str, Any]


class Editor:
    """One document. `auto` are the offsets of closers that came by themselves and may be typed over, the nearest first."""

    def __init__(self, text: str, cursor: int, language: Language) -> None:
        self.text, self.cursor, self.language = text, cursor, language
        self.version = 1
        self.auto: list[int] = []
        self.unit = _unit(text)

    def copy(self) -> "Editor":
        other = copy(self)
        other.auto = list(self.auto)
        return other

    @property
    def before(self) -> str:
        return self.text[: self.cursor]

    @property
    def line_before(self) -> str:
        return self.text[self.text.rfind("\n", 0, self.cursor) + 1 : self.cursor]

    @property
    def rest_of_line(self) -> str:
        end = self.text.find("\n", self.cursor)
        return self.text[self.cursor : end if end >= 0 else len(self.text)]

    def position(self, offset: int | None = None) -> dict[str, int]:
        """Of an offset, the cursor's where none is given; in UTF-16 code units."""
        at = self.cursor if offset is None else offset
        start = self.text.rfind("\n", 0, at) + 1
        return {"line": self.text.count("\n", 0, at), "character": len(self.text[start:at].encode("utf-16-le")) // 2}

    def offset(self, position: dict[str, int]) -> int | None:
        """Of a position in UTF-16 code units; None where there is none such."""
        start = 0
        for _ in range(position["line"]):
            start = self.text.find("\n", start) + 1
            if not start:
                return None
        end = self.text.find("\n", start)
        line = self.text[start : end if end >= 0 else len(self.text)].encode("utf-16-le")
        units = 2 * position["character"]
        return start + len(line[:units].decode("utf-16-le", "replace")) if 0 <= units <= len(line) else None

    def type(self, char: str) -> Change:
        """One character that is not a line's end."""
        at = self.cursor
        if self.auto and self.auto[0] == at and self.text[at] == char:
            self.auto.pop(0)
            return self._replace(at, at + 1, char, cursor=at + 1)
        closer = self._closer(char)
        change = self._replace(at, at, char + closer, cursor=at + 1)
        if closer:
            self.auto.insert(0, self.cursor)
        return change

    def enter(self) -> Change:
        """With the indentation of the line, one deeper after what opens a block, one less after what leaves it. A line of whitespace alone loses it."""
        line, rest = self.line_before, self.rest_of_line
        indent = line[: len(line) - len(line.lstrip())]
        if line and not line.strip() and not rest:
            return self._replace(self.cursor - len(line), self.cursor, "\n" + indent)
        opener = line.rstrip()[-1:]
        deeper = bool(opener) and opener in self.language.block_ends
        leaves = self.language.leaves and re.match(self.language.leaves, line)
        inner = indent + self.unit if deeper else indent[: -len(self.unit)] if leaves else indent
        if deeper and rest and PAIRS.get(opener) == rest[0]:
            at = self.cursor
            return self._replace(at, at, f"\n{inner}\n{indent}", cursor=at + 1 + len(inner))
        return self._replace(self.cursor, self.cursor, "\n" + inner)

    def backspace(self) -> Change:
        """One character; both of an empty pair that closed itself; in a line's indentation, back to the last stop."""
        at, line = self.cursor, self.line_before
        assert at > 0, "nothing stands before the cursor"
        if self.auto and self.auto[0] == at and _closes(self.text[at - 1], self.text[at]):
            self.auto.pop(0)
            return self._replace(at - 1, at + 1, "")
        n = 1
        if line and not line.strip(" ") and not self.unit.startswith("\t"):
            n = (len(line) - 1) % len(self.unit) + 1
        return self._replace(at - n, at, "")

    def delete(self) -> Change:
        """The character after the cursor."""
        return self._replace(self.cursor, self.cursor + 1, "")

    def accept(self, start: int, end: int, text: str) -> Change:
        """A suggestion in place of what is between, or a beginning of it."""
        return self._replace(start, end, text)

    def move(self, offset: int) -> None:
        """By arrow keys or the mouse; closers that are left behind can no longer be typed over."""
        self.cursor = offset
        self.auto = [at for at in self.auto if at >= offset and self.text.count("\n", offset, at) == 0]

    def _closer(self, char: str) -> str:
        after = self.text[self.cursor : self.cursor + 1]
        if after and after not in CLOSE_BEFORE:
            return ""
        if char in PAIRS:
            return PAIRS[char]
        if char not in self.language.quotes or _WORD.match(self.before[-1:]):
            return ""
        if self.before.endswith(2 * char) or self.language.kind(self.before) != "code":
            return ""
        return char

    def _replace(self, start: int, end: int, text: str, *, cursor: int | None = None) -> Change:
        change = Change(
            start,
            end,
            text,
            {"range": {"start": self.position(start), "end": self.position(end)}, "text": text},
        )
        self.text = self.text[:start] + text + self.text[end:]
        grown = len(text) - (end - start)
        self.auto = [at + grown if at >= end else at for at in self.auto if not start <= at < end]
        self.cursor = start + len(text) if cursor is None else cursor
        self.version += 1
        return change


def _closes(opener: str, closer: str) -> bool:
    return PAIRS.get(opener, opener) == closer


def _unit(text: str) -> str:
    """What one step of indentation is in a text: by how much its lines are most often deeper than the line above."""
    indents = [line[: len(line) - len(line.lstrip())] for line in text.split("\n") if line.strip()]
    if any(indent.startswith("\t") for indent in indents):
        return "\t"
    steps = Counter(len(low) - len(high) for high, low in pairwise(indents) if len(low) > len(high))
    return " " * (steps.most_common(1)[0][0] if steps else 4)
