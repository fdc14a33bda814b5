"""Where a text of several lines leaves its block, for all models: line by line, each looked at once.

A block ends where a line is indented less than it, unless that line closes what was opened or goes on like `else`; where the lines below begin to be
repeated; where lines repeat each other; at two blank lines, or at one before something at the left margin; and after as many lines as were asked for.
Knows: text before and after the cursor, text generated. Does not know: tokens, models, how sure of a line the model is (daemon/certainty.py).
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from daemon.brackets import Balance
from daemon.overrun import (
    CLOSES,
    ENDS,
    FENCE,
    HEADER,
    Overrun,
    closable_of,
    indentation,
    is_in_fence,
    is_left,
    repeats,
)
from daemon.protocol import CompletionRequest

# Behind these a block begins, in one language or another.
OPENS = re.compile(
    r"(?:[:{(\[]|=>|->|\b(?:do|then|else|begin|repeat|try|of|where)|\bdo *\|[^|]*\||\bfunction\b[^()]*\([^()]*\))$"
)
OPENS_WITH = re.compile(
    r"(?:def|class|module|if|elsif|unless|while|until|case|when|for|function|begin|struct|elif|else|try)\b"
)
SHORT = 2  # characters of a line that is not worth comparing alone, such as a lone bracket
REPEATED_LINE = 8  # characters of a line, or of a few lines together, that do not come twice in a row by chance
BELOW_LINES = 4
MAX_ABOVE = 100  # lines that are looked at for the one that opens the cursor's block
KNOWN = 64


class State(NamedTuple):
    """After some whole lines of a text."""

    floor: int  # columns below which the block ends
    is_pending: bool = False  # the line before opened a block: its first line says how far that is indented
    first_at: int = -1  # where the first line with something in it begins; -1: there was none
    n_lines: int = 0  # from that one on
    blank_at: int = -1  # where the blank lines right before begin; -1: there are none
    n_blank: int = 0
    said: tuple[tuple[int, str], ...] = ()  # where the last lines with something in them begin, and what they are
    over: Overrun | None = None


class Block:
    """One request's rules for several lines."""

    def __init__(self, request: CompletionRequest, *, fenced: bool) -> None:
        above = request.head + request.prompt
        at = above.rfind("\n") + 1
        self._typed = above[at:]
        self._max_lines = request.max_lines
        self._columns = max(indentation(self._typed), indentation(request.indent))
        self._has_indent = bool(request.indent)
        self._below = [line.rstrip() for line in request.suffix.split("\n") if line.strip()][:BELOW_LINES]
        self._balance = Balance(self._typed, closable_of(request))
        self._ends_at_fence = fenced and not is_in_fence(above)
        self._header = header_columns(above[:at], self._columns)
        self._known: dict[str, State] = {"": State(self._columns)}

    def look(self, text: str) -> Overrun | None:
        """Where `text`, put at the cursor, leaves the gap. Its last line may still be being written."""
        cut = text.rfind("\n") + 1
        state = self._after(text[:cut])
        over = state.over
        if over is None and cut < len(text):
            over = self._line(state, text[cut:], cut, is_whole=False).over
        foreign = self._balance.foreign(text)
        if foreign is None or (over is not None and over.at <= foreign):
            return over
        return Overrun(foreign, "brackets")

    def _after(self, whole: str) -> State:
        """The state after whole lines; those before the last are mostly known."""
        state = self._known.get(whole)
        if state is None:
            at = whole.rfind("\n", 0, -1) + 1
            before = self._after(whole[:at])
            state = before if before.over is not None else self._line(before, whole[at:-1], at, is_whole=True)
            if len(self._known) > KNOWN:
                self._known = {"": State(self._columns)}
            self._known[whole] = state
        return state

    def _line(self, state: State, line: str, at: int, *, is_whole: bool) -> State:
        """The state after one more line, which begins at `at`."""
        is_first = at == 0
        full = self._typed + line if is_first else line
        body = full.strip()
        if not line.strip() and (not is_first or not body or not is_whole):
            if not is_whole or state.first_at < 0:
                return state
            blank_at = at if state.blank_at < 0 else state.blank_at
            if state.n_blank:
                return state._replace(over=Overrun(max(0, blank_at - 1), "blank"))
            return state._replace(blank_at=blank_at, n_blank=1, n_lines=state.n_lines + 1)
        reason = next(self._reasons(state, full, at, is_whole=is_whole), None)
        if reason is not None:
            return state._replace(over=reason)
        return self._next(state, full, at, has_text=bool(line.strip())) if is_whole else state

    def _reasons(self, state: State, full: str, at: int, *, is_whole: bool) -> Iterator[Overrun]:
        """Why a line is no part of the gap. What is in front of it is cut with the line break or, after a blank line, from that on."""
        body = full.strip()
        end = max(0, (state.blank_at if state.blank_at >= 0 else at) - 1)
        if full.startswith(HEADER[1:]):
            yield Overrun(end, "file")
        if self._ends_at_fence and full.startswith(FENCE):
            yield Overrun(end, "fence")
        is_typed = at == 0 and bool(self._typed.strip())
        is_new = not is_typed or (is_whole and len(full) > len(self._typed))
        if self._below and is_new:
            if repeats(full, self._below[0], is_whole=is_whole):
                yield Overrun(end, "suffix")
            if is_whole and self._repeats_several(state, body):
                yield Overrun(max(0, state.said[-1][0] - 1), "suffix")
        if not is_typed:
            yield from self._dedents(state, full, end, is_first=at == 0, is_whole=is_whole)
        if is_whole and (repeated := repeated_from([*state.said, (at, full)])) is not None:
            yield Overrun(max(0, repeated - 1), "repetition")

    def _dedents(self, state: State, full: str, end: int, *, is_first: bool, is_whole: bool) -> Iterator[Overrun]:
        columns, body = indentation(full), full.strip()
        if self._has_indent and state.first_at < 0 and columns < self._columns:
            yield Overrun(0 if is_first else end, "dedent")
        if columns < state.floor:
            closes = CLOSES.match(body) or (not is_whole and any(word.startswith(body) for word in ENDS))
            if is_left(body, is_whole=is_whole) and not closes:
                yield Overrun(end, "dedent")
            if not closes and is_whole and self._header not in (None, columns) and columns < self._columns:
                yield Overrun(end, "dedent")
        elif state.n_blank and state.first_at >= 0 and not columns and is_left(body, is_whole=is_whole):
            yield Overrun(end, "blank")

    def _repeats_several(self, state: State, body: str) -> bool:
        """Whether the last two lines are the two below, of which the first alone says nothing."""
        below = [line.strip() for line in self._below[:2]]
        if len(below) < 2 or not state.said or len(below[0]) > SHORT:
            return False
        return [state.said[-1][1].strip(), body] == below and len(body) > SHORT

    def _next(self, state: State, full: str, at: int, *, has_text: bool) -> State:
        """After a whole line that belongs to the gap. `has_text`: some of it was generated."""
        columns, body = indentation(full), full.strip()
        opens = OPENS.search(body) is not None or OPENS_WITH.match(body) is not None
        floor, is_pending = state.floor, False
        is_cursor_line = at == 0 and bool(self._typed.strip())
        if is_cursor_line or columns < floor:
            floor, is_pending = (columns + 1, True) if opens else (min(floor, columns), False)
        elif state.is_pending or (state.first_at < 0 and not self._has_indent and not self._typed.strip()):
            floor = columns
        n_lines = state.n_lines + 1 if has_text or state.first_at >= 0 else 0
        end = at + len(full) - (len(self._typed) if at == 0 else 0)
        over = None
        if CLOSES.match(body) and not opens and columns < state.floor and not is_cursor_line:
            over = Overrun(end, "block")
        elif n_lines >= self._max_lines:
            over = Overrun(end, "lines")
        first_at = at if has_text and state.first_at < 0 else state.first_at
        return State(floor, is_pending, first_at, n_lines, said=(*state.said[-7:], (at, full)), over=over)


def repeated_from(said: Sequence[tuple[int, str]]) -> int | None:
    """Where the last lines begin that are the same as those right before them: one, two or three lines."""
    for n in (1, 2, 3):
        last, before = [line for _, line in said[-n:]], [line for _, line in said[-2 * n : -n]]
        if len(before) == n and last == before and sum(len(line.strip()) for line in last) >= REPEATED_LINE:
            return said[-n][0]
    return None


def header_columns(above: str, columns: int) -> int | None:
    """How far the line is indented that opens the block of a line with so many columns: the nearest above with less."""
    end = len(above)
    for _ in range(MAX_ABOVE):
        if end <= 0:
            break
        at = above.rfind("\n", 0, end - 1) + 1
        line = above[at:end]
        if line.strip() and indentation(line) < columns:
            return indentation(line)
        end = at
    return None
