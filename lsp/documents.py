"""Open documents as immutable values, and positions in them.

Knows lines, code units and edits; knows no LSP library, no files and no daemon.

This stands in for pygls' own document, which is not exact: it splits lines wherever `str.splitlines` does (a form feed,
U+2028), while LSP knows only \\n, \\r\\n and \\r, and it puts a position beyond the end of the last line one character
too early. Either makes every later edit land in the wrong place.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Encoding = Literal["utf-8", "utf-16", "utf-32"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Position:
    """Zero-based; `character` counts code units of the negotiated encoding."""

    line: int
    character: int


@dataclass(frozen=True, slots=True)
class Edit:
    """`text` in place of what is between `start` and `end`; in place of everything when they are None."""

    text: str
    start: Position | None = None
    end: Position | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One version of an open document.

    An edit makes another value, so a request that holds this one is not disturbed by later typing.
    """

    uri: str
    language: str
    version: int
    encoding: Encoding
    lines: tuple[str, ...]  # with their line ends; the last has none and may be empty

    @property
    def text(self) -> str:
        """With \\n line ends and no surrogates."""
        return encodable(_LINE_END.sub("\n", "".join(self.lines)))

    def edited(self, edits: Sequence[Edit], version: int) -> "Document":
        """The document after `edits`, each of which sees the one before."""
        lines = self.lines
        for edit in edits:
            lines = _applied(lines, edit, self.encoding)
        return replace(self, lines=lines, version=version)

    def offset(self, position: Position) -> int:
        """The index into `text`.

        A position beyond a line's end is its end; beyond the last line, the end of the text.
        """
        row, column, _ = _locate(self.lines, position, self.encoding)
        return len(_LINE_END.sub("\n", "".join(self.lines[:row]))) + column

    def place(self, position: Position) -> tuple[int, int]:
        """The row in `lines`, and the column in characters of that line; as `offset` has it, without a look at the rest of the text."""
        row, column, _ = _locate(self.lines, position, self.encoding)
        return row, column

    def after(self, position: Position, text: str) -> Position:
        """Where `text`, which stands at `position`, ends."""
        *breaks, last = _LINE_END.split(text)
        start = 0 if breaks else position.character
        return Position(position.line + len(breaks), start + _units(last, self.encoding))

    def position(self, offset: int) -> Position:
        """The position of an index into `text`, clamped to it."""
        left = max(0, offset)
        for row, line in enumerate(self.lines):
            content = _content(line)
            if left <= len(content):
                return Position(row, _units(content[:left], self.encoding))
            left -= len(content) + 1
        return Position(len(self.lines) - 1, _units(self.lines[-1], self.encoding))


def new_document(*, uri: str, language: str, version: int, text: str, encoding: Encoding) -> Document:
    return Document(uri=uri, language=language, version=version, encoding=encoding, lines=_split(text))


def encodable(text: str) -> str:
    """A surrogate alone is no character and has no UTF-8; it becomes U+FFFD, one for one, so that offsets stay."""
    return _SURROGATE.sub("\ufffd", text) if _SURROGATE.search(text) else text


def _applied(lines: tuple[str, ...], edit: Edit, encoding: Encoding) -> tuple[str, ...]:
    if edit.start is None or edit.end is None:
        return _split(edit.text)
    first, before, _ = _cut(lines, edit.start, encoding)
    last, _, after = _cut(lines, edit.end, encoding)
    if last < first:  # a backwards range deletes nothing
        last, _, after = _cut(lines, edit.start, encoding)
    # A line that ends in \r may become one with a \n that now follows it.
    if first > 0 and lines[first - 1].endswith("\r"):
        first -= 1
        before = lines[first] + before
    middle = _split(before + edit.text + after)
    rest = lines[last + 1 :]
    if rest and middle[-1] == "":  # the text ended with a line end, which closes the line before `rest`
        middle = middle[:-1]
    return lines[:first] + middle + rest


def _split(text: str) -> tuple[str, ...]:
    """Lines with their ends; always one more at the end, without.

    Two halves of a pair that have come together are one character again.
    """
    if _SURROGATE.search(text):
        text = _SURROGATE_PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), text)
    lines = _LINE.findall(text)
    return tuple(lines) if lines and not lines[-1].endswith(("\n", "\r")) else (*lines, "")


def _cut(lines: tuple[str, ...], position: Position, encoding: Encoding) -> tuple[int, str, str]:
    """The row, and its text before and after the position.

    In UTF-16 a position may part a pair: editors that count so really do cut it in two.
    """
    row, column, parts_pair = _locate(lines, position, encoding)
    line = lines[row]
    if not parts_pair:
        return row, line[:column], line[column:]
    halves = line[column].encode("utf-16-le")
    high, low = (halves[i : i + 2].decode("utf-16-le", "surrogatepass") for i in (0, 2))
    return row, line[:column] + high, low + line[column + 1 :]


def _locate(lines: tuple[str, ...], position: Position, encoding: Encoding) -> tuple[int, int, bool]:
    """Row, column in code points (rounded down), and whether the position is in the middle of a UTF-16 pair."""
    if position.line >= len(lines):
        return len(lines) - 1, len(lines[-1]), False
    row = max(0, position.line)
    content, wanted = _content(lines[row]), max(0, position.character)
    if encoding == "utf-32" or content.isascii():
        return row, min(wanted, len(content)), False
    units = 0
    for column, character in enumerate(content):
        size = _units(character, encoding)
        if units + size > wanted:
            return row, column, encoding == "utf-16" and units < wanted
        units += size
    return row, len(content), False


def _units(text: str, encoding: Encoding) -> int:
    if encoding == "utf-32" or text.isascii():
        return len(text)
    if encoding == "utf-16":
        return len(text) + sum(character > "\uffff" for character in text)
    return len(text.encode("utf-8", "surrogatepass"))


def _content(line: str) -> str:
    return line.rstrip("\r\n")
