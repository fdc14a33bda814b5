"""Splits a document around the cursor into the pieces that a model reads. Knows strings; no files, tokens or editors.

    head | prefix <cursor> rest_of_line \\n suffix ...

The anchor, where `head` ends and `prefix` starts, moves in jumps and never slides: a recurrent state of the head stays
good until the cursor has moved by about a step.

Breaks are the places where an anchor may stand: the line starts and, inside a line longer than `LONG_LINE_STEPS` steps,
every multiple of `step` characters from that line's start. The k-th boundary is the first break at or after k * `step`
characters of the file. The anchor is the last boundary that leaves at least `step` characters before the start of the
cursor line, else 0. So it depends on the text above the cursor line only.

The one exception keeps a keystroke's cost bounded: when more than `LONG_LINE_STEPS` steps of the cursor line stand
before the cursor, the anchor is inside that line, at its last multiple of `step` that leaves at least `step` characters
before the cursor. The prefix is then the line's tail end, between one and two steps long; the head still is all the
text before it, and its last line is the beginning of the cursor line.
"""

from dataclasses import dataclass

LONG_LINE_STEPS = 4


@dataclass(frozen=True, slots=True)
class WindowSize:
    step: int = 400  # characters; a prefix has at least so many above the cursor line, if the document has
    suffix_chars: int = 300

    def __post_init__(self) -> None:
        if self.step < 1 or self.suffix_chars < 1:
            raise ValueError(f"{self}: expected a step and suffix_chars of at least 1")


@dataclass(frozen=True, slots=True)
class Window:
    """`head + prefix + rest_of_line` is the document up to the end of the cursor line.

    `suffix` is the beginning of what follows the newline there.
    """

    head: str
    prefix: str
    rest_of_line: str
    suffix: str


DEFAULT = WindowSize()


def split(text: str, offset: int, *, size: WindowSize = DEFAULT) -> Window:
    """The window around `offset`, an index into `text`, whose lines end in \\n.

    For a document without overlong lines: typing inside a line changes neither head nor suffix, and Enter at a line's
    end does not change the suffix. Raises ValueError for an offset that is not in the text.
    """
    if not 0 <= offset <= len(text):
        raise ValueError(f"offset {offset}: expected 0 to {len(text)}, the length of the text")
    anchor = _anchor(text, offset, step=size.step)
    line_end = _find_newline(text, offset)
    return Window(
        head=text[:anchor],
        prefix=text[anchor:offset],
        rest_of_line=text[offset:line_end],
        suffix=_suffix(text, line_end + 1, max_chars=size.suffix_chars),
    )


def _anchor(text: str, offset: int, *, step: int) -> int:
    line_start = text.rfind("\n", 0, offset) + 1
    if offset - line_start > LONG_LINE_STEPS * step:
        return line_start + (offset - line_start - step) // step * step
    latest = line_start - step
    # Breaks are at most LONG_LINE_STEPS steps and a newline apart, so a few rounds are enough in any document.
    for k in range(latest // step, 0, -1):
        boundary = _first_break(text, k * step, step=step)
        if boundary <= latest:
            return boundary
    return 0


def _first_break(text: str, position: int, *, step: int) -> int:
    """The first break at or after `position`, which is above the cursor line."""
    start = text.rfind("\n", 0, position) + 1
    end = _find_newline(text, position)
    if position == start:
        return position
    if end - start > LONG_LINE_STEPS * step:
        inside = start + -(-(position - start) // step) * step
        if inside < end:
            return inside
    return end + 1


def _suffix(text: str, start: int, *, max_chars: int) -> str:
    """Whole lines that fit; when not even the first does, its beginning."""
    piece = text[start : start + max_chars]
    if start + max_chars >= len(text):
        return piece
    return piece[: piece.rfind("\n") + 1] or piece


def _find_newline(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
