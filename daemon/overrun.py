"""Where a text leaves its gap on the way: the first character that is no part of it, for models that do not know where the gap ends.

Where it begins to repeat the lines below, closes a bracket that is not the gap's to close, falls below the indentation of the cursor's line, or begins
another file. Knows: text before and after the cursor, text generated. Does not know: tokens, models, how several lines go on (daemon/block.py).
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from daemon.brackets import Balance, closable_brackets
from daemon.overlap import CLOSERS
from daemon.protocol import CompletionRequest

HEADER = "\n+++++ "  # the model begins another file
ENDS = ("end", "fi", "done", "esac", "until")  # words that close
CLOSES = re.compile(rf"[)\]}}]|(?:{'|'.join(ENDS)})\b|</")
# What may stand below the indentation of the line before and still belong to it.
FOLLOW_ON = (
    "else",
    "elif",
    "elsif",
    "except",
    "finally",
    "case",
    "default",
    "catch",
    "then",
    "rescue",
    "ensure",
    *ENDS,
)
FOLLOWS_ON = re.compile(rf"[)\]}}]|</|(?:{'|'.join(FOLLOW_ON)})\b")
FENCE = "```"
TAB_SIZE = 4
REPEATED_CHARS = 20  # of the first line below that, when they come again, tell that all of it would
REPEATED_SHARE = 0.75


class Overrun(NamedTuple):
    """Where a text leaves the gap: the first character that is no part of it."""

    at: int
    reason: str  # "suffix" | "brackets" | "dedent" | "fence" | "file"


def overrun_of(request: CompletionRequest, *, fenced: bool = False) -> Callable[[str], Overrun | None]:
    """A function that says where a text put at the cursor leaves the gap; what depends on the request alone is looked at once."""
    above = request.head + request.prompt
    typed = above[above.rfind("\n") + 1 :]
    below = first_line(request.suffix).rstrip()
    balance = Balance(typed, closable_of(request))
    columns = max(indentation(typed), indentation(request.indent))
    ends_at_fence = fenced and not is_in_fence(above)

    def look(text: str) -> Overrun | None:
        found = list(left_lines(text, typed, below, columns=columns, ends_at_fence=ends_at_fence))
        if (at := balance.foreign(text)) is not None:
            found.append(Overrun(at, "brackets"))
        return min(found, default=None)

    return look


def foreign_of(request: CompletionRequest) -> Callable[[str], Overrun | None]:
    """A function that says where a text closes a bracket that is not the gap's to close, and nothing else."""
    balance = Balance(request.prompt[request.prompt.rfind("\n") + 1 :], closable_of(request))

    def look(text: str) -> Overrun | None:
        at = balance.foreign(text)
        return None if at is None else Overrun(at, "brackets")

    return look


def closable_of(request: CompletionRequest) -> Callable[[], str]:
    """Gives the brackets that the gap may close, the innermost last, and looks for them once, when it is asked first.

    Those right of the cursor that may be replaced are the gap's too.
    """
    # In front of anything else only a text that leads up to it is shown, so there it may say whatever stands there.
    rest = request.rest_of_line if CLOSERS.fullmatch(request.rest_of_line) and not request.may_replace else ""
    below = rest + "\n" + request.suffix
    return functools.cache(lambda: closable_brackets(request.prompt, below, head=request.head))


def is_in_fence(above: str) -> bool:
    """Whether a block is open in a file that has such blocks itself, as Markdown: that one may be closed."""
    return sum(line.startswith(FENCE) for line in above.split("\n")) % 2 == 1


def left_lines(text: str, typed: str, below: str, *, columns: int, ends_at_fence: bool) -> Iterator[Overrun]:
    """The first line of `text` that belongs to what follows the gap. The first one is the cursor's, behind `typed`."""
    first, *others = text.split("\n")
    if others and len((typed + first).strip()) > 2 and repeats(typed + first, below, is_whole=True):
        yield Overrun(0, "suffix")
    if ends_at_fence and (typed + first).startswith(FENCE):
        yield Overrun(0, "fence")
    if (typed + first).startswith(HEADER[1:]):
        yield Overrun(0, "file")
    if first.strip() and not typed and indentation(first) < columns:
        yield Overrun(0, "dedent")
    at = len(first)
    for number, line in enumerate(others, start=1):
        body = line.strip()
        is_whole = number < len(others)
        if body:
            if ends_at_fence and line.startswith(FENCE):
                yield Overrun(at, "fence")
            elif line.startswith(HEADER[1:]):
                yield Overrun(at, "file")
            elif repeats(line, below, is_whole=is_whole):
                yield Overrun(at, "suffix")
            elif indentation(line) < columns and is_left(body, is_whole=is_whole):
                yield Overrun(at, "dedent")
        at += 1 + len(line)


def repeats(line: str, below: str, *, is_whole: bool) -> bool:
    """Whether a line is the one below the gap; of one that is still being written, whether it will be.

    The end of a block, and a line of a few signs such as `*/`, are the same only where they are indented alike.
    """
    body, is_same_depth = line.strip(), indentation(line) == indentation(below)
    below = below.strip()
    if is_whole and CLOSES.match(body):
        return body == below and len(body) > 2 and is_same_depth
    if is_whole:
        is_telling = len(body) > 2 or (is_same_depth and not any(map(str.isalnum, body)))
        return bool(body) and body == below and is_telling
    return len(body) >= max(REPEATED_CHARS, REPEATED_SHARE * len(below)) and below.startswith(body)


def is_left(body: str, *, is_whole: bool) -> bool:
    """Whether a line that is indented less ends the block. A line with `else` does not, and neither does one that may still become that."""
    if not is_whole and any(word.startswith(body) for word in (*FOLLOW_ON, "</")):
        return False
    return FOLLOWS_ON.match(body) is None


def indentation(line: str) -> int:
    expanded = line.expandtabs(TAB_SIZE)
    return len(expanded) - len(expanded.lstrip())


def first_line(text: str) -> str:
    """The first line with something in it."""
    return next((line for line in text.split("\n") if line.strip()), "")
