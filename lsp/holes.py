"""Holes in a user's own files: the rest of a line, cut out where someone could be typing.

Knows texts and the request that the product would make for each; knows no disk and no model. The same files and seed give the same holes.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from context.kinds import is_code
from context.repository import SourceFile
from context.window import DEFAULT, WindowSize
from daemon.protocol import CompletionRequest
from lsp.completion import request_at

# The default first; then less, more above, more below. What a machine cannot feed in time is not tried.
WINDOWS = (
    DEFAULT,
    WindowSize(step=300, suffix_chars=100),
    WindowSize(step=800, suffix_chars=300),
    WindowSize(step=2400, suffix_chars=400),
    WindowSize(step=1200, suffix_chars=1200),
)
PLACES = ("start", "token", "inside")
MIN_TRUTH = 3  # characters that are worth completing
MIN_LINES = 10  # of a file
HELD_OUT_SHARE = 0.5  # of all files at most: the others are the context
MAX_TOKENS = 48  # of an answer
_TOKEN = re.compile(r"[^\W\d]\w*|\d+|[^\w\s]")
_COMMENT = ("#", "//", "/*", "*", "--", ";", "<!--", '"""', "'''")


@dataclass(frozen=True, slots=True)
class Hole:
    """`text` is the file without `truth`, the rest of a line that stood at `offset`."""

    path: str
    text: str
    offset: int
    truth: str
    where: str  # one of PLACES


def cut_holes(files: Sequence[SourceFile], *, n_holes: int, seed: int) -> list[Hole]:
    """At most `n_holes`, in turn at the start of a line's text, at a token and inside a name; fewer where the files are too small.

    Programs and tests come before other files, and no more than half of all files get holes, since what a hole's file says must not be read.
    They are spread over as many files as that allows: at most n_holes / files + 1 are in one.
    """
    rng = random.Random(seed)
    long_enough = sorted((file for file in files if file.text.count("\n") >= MIN_LINES), key=lambda file: file.path)
    order = [file for file in long_enough if is_code(file.path)] or long_enough
    rng.shuffle(order)
    n_files = min(len(order), max(1, int(HELD_OUT_SHARE * len(files))), n_holes)
    holes: list[Hole] = []
    n_holed = 0
    for file in order:
        if n_holed == n_files or len(holes) == n_holes:
            break
        share = -(-(n_holes - len(holes)) // (n_files - n_holed))
        found = _in_file(file, n_holes=min(share, n_holes // n_files + 1), rng=rng, n_before=len(holes))
        n_holed += bool(found)
        holes += found
    return holes


def requests_for(hole: Hole) -> list[CompletionRequest]:
    """What the product would ask, for each of WINDOWS."""
    return [
        request_at(
            hole.text, hole.offset, path=hole.path, document=None, max_tokens=MAX_TOKENS, budget_ms=None, size=size
        )
        for size in WINDOWS
    ]


def _in_file(file: SourceFile, *, n_holes: int, rng: random.Random, n_before: int) -> list[Hole]:
    """The kinds in turn; when no line is left for the one whose turn it is, the others."""
    lines = list(_lines(file.text))
    rng.shuffle(lines)
    holes: list[Hole] = []
    while lines and len(holes) < n_holes:
        turn = (n_before + len(holes)) % len(PLACES)
        found = next((hit for where in PLACES[turn:] + PLACES[:turn] if (hit := _place(lines, where, rng))), None)
        if found is None:
            break
        number, column, where = found
        start, line = lines.pop(number)
        offset, end = start + column, start + len(line)
        text = file.text[:offset] + file.text[end:]
        holes.append(Hole(file.path, text, offset, file.text[offset:end], where))
    return holes


def _place(lines: Sequence[tuple[int, str]], where: str, rng: random.Random) -> tuple[int, int, str] | None:
    """The first line with room for a hole of this kind, by its number, one of its columns, and the kind."""
    for number, (_, line) in enumerate(lines):
        if columns := list(_columns(line, where)):
            return number, rng.choice(columns), where
    return None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(offset, line without white space at its end) of what people write: no blank lines, no comments, not the first twentieth of a file."""
    start = 0
    for line in text.split("\n"):
        body = line.rstrip()
        if start > len(text) // 20 and body and not body.lstrip().startswith(_COMMENT) and len(body) <= 200:
            yield start, body
        start += len(line) + 1


def _columns(line: str, where: str) -> Iterator[int]:
    """The columns of a line where a hole of this kind may begin."""
    last = len(line) - MIN_TRUTH
    if where == "start":
        column = len(line) - len(line.lstrip())
        if column <= last:
            yield column
        return
    for number, token in enumerate(_TOKEN.finditer(line)):
        if where == "token" and number and token.start() <= last:
            yield token.start()
        elif where == "inside" and token[0].isidentifier():
            yield from (column for column in range(token.start() + 1, token.end() - 1) if column <= last)
