"""Where a completion ends, and what of it is worth showing.

A model that was trained to fill in says itself where the gap ends. Of one that was not, the text is also cut where it leaves the gap: where it begins to
repeat the lines below, closes a bracket that is not the gap's to close, falls below the indentation of the cursor's line, or begins another file.
Knows: text before and after the cursor, text generated. Does not know: tokens, models.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from daemon.protocol import CompletionRequest

HEADER = "\n+++++ "  # the model begins another file
CLOSERS = re.compile(r"[\s)\]}>\"'`,;:]*")
REST_CHARS = 8  # of the text right of the cursor that a suggestion has to reach
# Pairs of characters that no cut may part. `>>` is not one of them: it closes nested generics, and an editor may have put the second there.
TWO = "== != <= >= += -= *= /= %= &= |= ^= := ** // << -> => && || ++ -- :: .. ?? ?. <- |> ~= =~ </ /* */"
OPERATORS = frozenset(TWO.split(" "))
JOINER = "\u200d"
# Brackets, and strings, so that those inside are not seen. In text that is still being written a string may not be closed yet; elsewhere a lone quote
# is an apostrophe, or a lifetime in Rust.
BRACKETS = re.compile(r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'|[()\[\]{}]")
BRACKETS_SO_FAR = re.compile(r'"(?:\\.|[^"\\\n])*"?|' + r"'(?:\\.|[^'\\\n])*'?|[()\[\]{}]")
OPENER = {")": "(", "]": "[", "}": "{"}
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
    "end",
)
FOLLOWS_ON = re.compile(rf"[)\]}}]|(?:{'|'.join(FOLLOW_ON)})\b")
FENCE = "```"
REPEATED_CHARS = 20  # of the first line below that, when they come again, tell that all of it would
REPEATED_SHARE = 0.75
THRICE = re.compile(r"(.{4,80}?)\1\1$", re.DOTALL)


class Shown(NamedTuple):
    """The text to insert, or why there is none."""

    text: str
    empty_because: str | None = None  # a word of daemon.protocol.Report.empty_because; None when there is a text


class Trim:
    """One request's rules. `open_ended`: the model does not know where the gap ends; `fenced`: its answer stands in a block of code."""

    def __init__(self, request: CompletionRequest, *, open_ended: bool = False, fenced: bool = False) -> None:
        self._request = request
        self._line_stop = line_stop(request)
        self._overrun = overrun_of(request, fenced=fenced) if open_ended else None
        rest = beginning(request.rest_of_line)
        self._rest = rest if len(rest) > 2 and not CLOSERS.fullmatch(rest) else None

    def stop(self, text: bytes) -> str | None:
        """Why decoding ends after `text`, or None."""
        if self._overrun is not None:
            whole = text.decode("utf-8", "ignore")
            if (over := self._overrun(whole)) is not None:
                return over.reason
            if self._rest is not None and reached(whole, self._rest, is_whole=False) is not None:
                return "suffix"
        return self._line_stop(text)

    def shown(self, text: bytes) -> str:
        """The text to insert; "" when nothing is worth it."""
        return self.outcome(text).text

    def outcome(self, text: bytes) -> Shown:
        """The same with the reason why there is none."""
        if self._overrun is not None:
            whole = text.decode("utf-8", "ignore")
            over = self._overrun(whole)
            made = outcome_of(whole[: over.at if over is not None else None].encode(), self._request)
            if over is not None and made.empty_because == "blank":
                return Shown("", "next_line" if over.reason == "suffix" else "leaves")
            return made
        return outcome_of(text, self._request)


def line_stop(request: CompletionRequest) -> Callable[[bytes], str | None]:
    """Stops at the end of the first line that has something in it, at a stop string, or where the text repeats itself.

    At the end of a line the model may begin with a line break and then write one line; in front of other text it may not.
    """
    stops = [stop.encode() for stop in request.stop if stop]
    one_line = bool(request.rest_of_line.strip())

    def check(text: bytes) -> str | None:
        if any(stop in text for stop in stops):
            return "stop"
        if repetition(text.decode("utf-8", "ignore")):
            return "repetition"
        end = text.rfind(b"\n")
        if end >= 0 and (one_line or text[:end].strip()):
            return "line"
        return None

    return check


def trimmed(text: bytes, request: CompletionRequest) -> str:
    """The text to insert; "" when nothing is left."""
    return outcome_of(text, request).text


def outcome_of(text: bytes, request: CompletionRequest) -> Shown:
    """The text to insert: whole characters, up to the line's end, without what already stands to the right of the cursor."""
    out = text.decode("utf-8", "ignore")
    out = out[: len(out) - 2 * len(repetition(out))]
    for stop in [*request.stop, HEADER]:
        if stop and stop in out:
            out = out[: out.index(stop)]
    lead = len(out) - len(out.lstrip())
    rest = request.rest_of_line.rstrip()
    end = out.find("\n", lead if not rest.strip() else 0)
    out = (out if end < 0 else out[:end]).rstrip()
    if not out:
        return Shown("", "blank" if CLOSERS.fullmatch(rest) else "rest_of_line")
    left = fitted(out, rest)
    if left is None:
        return Shown("", "rest_of_line")
    if not left.strip():
        return Shown("", "present")
    return Shown("", "next_line") if repeats_next_line(left, request) else Shown(left)


def repetition(text: str) -> str:
    """What stands three times in a row at the end of `text`, as a small model writes when it is lost; "" when nothing does.

    A run of one character is no repetition: indentation, or a line drawn in a comment.
    """
    found = THRICE.search(text, max(0, len(text) - 240))
    return found[1] if found and len(set(found[1])) > 1 else ""


def fitted(out: str, rest: str) -> str | None:
    """What of `out` fits in front of `rest`, the text already right of the cursor; None when it would break the line.

    In front of closers and punctuation, such as an editor's automatic bracket, all of it but what stands there already. In front of
    anything else only what leads up to it: the model does not see `rest`, and what does not reach it would break the line.
    """
    # With the space before it if that fits, so that it does not stand there twice.
    shorter = next((cut for text in (rest, rest.lstrip()) if (cut := without_overlap(out, text)) != out), out)
    if shorter != out or CLOSERS.fullmatch(rest):
        return shorter
    at = reached(out, beginning(rest))
    return None if at is None else out[:at]


def without_overlap(out: str, rest: str) -> str:
    """Drops the longest end of `out` that is the start of the text already right of the cursor, such as a closing bracket.

    Whole tokens only: of `parent` nothing is dropped in front of `top`, which would read `parentop`.
    """
    for length in range(min(len(out), len(rest)), 0, -1):
        if out.endswith(rest[:length]) and splits(out, len(out) - length) and splits(rest, length):
            return out[:-length]
    return out


def beginning(rest: str) -> str:
    """The first REST_CHARS of the text right of the cursor, and the rest of the token in which they end."""
    text, end = rest.strip(), REST_CHARS
    while not splits(text, end):
        end += 1
    return text[:end]


def reached(out: str, start: str, *, is_whole: bool = True) -> int | None:
    """Where in `out` the text right of the cursor, which begins with `start`, stands as whole tokens; None when it does not.

    Of a text that is still being written (`is_whole` False) its last token is not known yet.
    """
    at = out.find(start) if start else -1
    while at >= 0:
        end = at + len(start)
        is_known = is_whole or end < len(out) or not may_go_on(start[-1])
        if is_known and splits(out, at) and splits(out, end):
            return at
        at = out.find(start, at + 1)
    return None


def splits(text: str, at: int) -> bool:
    """Whether a cut of `text` before index `at` leaves every word and every operator whole."""
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before + after in OPERATORS:
        return False
    return not (is_mark(after) or (is_word(before) and is_word(after)))


def may_go_on(last: str) -> bool:
    """Whether the token that ends in this character may go on."""
    return is_word(last) or any(pair[0] == last for pair in OPERATORS)


def is_word(character: str) -> bool:
    """Whether identifiers and numbers may have it, in any script."""
    return character == "_" or character.isalnum() or is_mark(character)


def is_mark(character: str) -> bool:
    """Whether it belongs to the character before it: accents, vowel signs, joined emoji."""
    return character == JOINER or unicodedata.category(character).startswith("M")


def repeats_next_line(out: str, request: CompletionRequest) -> bool:
    """Whether the completed line is the one that stands below already."""
    following = first_line(request.suffix).strip()
    typed = request.prompt[request.prompt.rfind("\n") + 1 :]
    completed = (typed + out).strip() if "\n" not in out else out.strip()
    return len(completed) > 2 and completed == following


class Overrun(NamedTuple):
    """Where a text leaves the gap: the first character that is no part of it."""

    at: int
    reason: str  # "suffix" | "brackets" | "dedent" | "fence" | "file"


def overrun_of(request: CompletionRequest, *, fenced: bool = False) -> Callable[[str], Overrun | None]:
    """A function that says where a text put at the cursor leaves the gap; what depends on the request alone is looked at once."""
    above = request.head + request.prompt
    typed = above[above.rfind("\n") + 1 :]
    below = first_line(request.suffix).strip()
    closable = closable_brackets(above, request.rest_of_line + "\n" + request.suffix)
    # In a file that has such blocks itself, as Markdown, an open one may be closed.
    ends_at_fence = fenced and sum(line.startswith(FENCE) for line in above.split("\n")) % 2 == 0

    def look(text: str) -> Overrun | None:
        found = [*left_lines(text, typed, below, ends_at_fence=ends_at_fence), *foreign_closer(text, typed, closable)]
        return min(found, default=None)

    return look


def left_lines(text: str, typed: str, below: str, *, ends_at_fence: bool) -> Iterator[Overrun]:
    """The first line of `text` that belongs to what follows the gap. The first one is the cursor's, behind `typed`."""
    first, *others = text.split("\n")
    if len(below) > 2 and others and (typed + first).strip() == below:
        yield Overrun(0, "suffix")
    if ends_at_fence and (typed + first).startswith(FENCE):
        yield Overrun(0, "fence")
    if (typed + first).startswith(HEADER[1:]):
        yield Overrun(0, "file")
    at = len(first)
    for number, line in enumerate(others, start=1):
        body = line.strip()
        is_whole = number < len(others)
        if body:
            if ends_at_fence and line.startswith(FENCE):
                yield Overrun(at, "fence")
            elif line.startswith(HEADER[1:]):
                yield Overrun(at, "file")
            elif repeats(body, below, is_whole=is_whole):
                yield Overrun(at, "suffix")
            elif indentation(line) < indentation(typed) and is_left(body, is_whole=is_whole):
                yield Overrun(at, "dedent")
        at += 1 + len(line)


def repeats(body: str, below: str, *, is_whole: bool) -> bool:
    """Whether a line is the one below the gap; of one that is still being written, whether it will be."""
    if is_whole:
        return len(below) > 2 and body == below
    return len(body) >= max(REPEATED_CHARS, REPEATED_SHARE * len(below)) and below.startswith(body)


def is_left(body: str, *, is_whole: bool) -> bool:
    """Whether a line that is indented less ends the block. A line with `else` does not, and neither does one that may still become that."""
    if not is_whole and any(word.startswith(body) for word in FOLLOW_ON):
        return False
    return FOLLOWS_ON.match(body) is None


def foreign_closer(text: str, typed: str, closable: str) -> Iterator[Overrun]:
    """The first bracket that closes one that is not the gap's to close. `closable`: those that are, the innermost last."""
    open_here, left = "", closable
    for match in BRACKETS_SO_FAR.finditer(typed + text):
        at, bracket = match.start() - len(typed), match[0]
        if at < 0 or len(bracket) > 1 or bracket in "\"'":
            continue
        if bracket not in OPENER:
            open_here += bracket
        elif open_here:
            open_here = open_here[:-1]
        elif left.endswith(OPENER[bracket]):
            left = left[:-1]
        else:
            yield Overrun(at, "brackets")
            return


def closable_brackets(above: str, below: str) -> str:
    """The brackets, open before the cursor, that the gap may close: as many as leave the others to what follows the cursor.

    Where text above and below do not agree, as when a bracket stands in a comment, all of them.
    """
    is_open, closers = open_brackets(above), unopened_brackets(below)
    for n_left in range(len(is_open), -1, -1):
        left = is_open[: len(is_open) - n_left]  # the gap closes `n_left`, what follows closes these
        if all(OPENER[closer] == bracket for closer, bracket in zip(closers, reversed(left), strict=False)) and len(
            closers
        ) <= len(left):
            return is_open[len(left) :]
    return is_open


def open_brackets(text: str) -> str:
    """Those that nothing closes, the innermost last. A closer closes the nearest bracket of its kind, or nothing."""
    stack: list[str] = []
    for match in BRACKETS.finditer(text):
        bracket = match[0]
        if bracket in OPENER.values():
            stack.append(bracket)
        elif bracket in OPENER and OPENER[bracket] in stack:
            while stack.pop() != OPENER[bracket]:
                continue
    return "".join(stack)


def unopened_brackets(text: str) -> list[str]:
    """The closers that nothing in `text` opens, in their order."""
    depth, closers = 0, []
    for match in BRACKETS.finditer(text):
        if match[0] in OPENER.values():
            depth += 1
        elif match[0] in OPENER:
            if depth == 0:
                closers.append(match[0])
            depth = max(0, depth - 1)
    return closers


def indentation(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def first_line(text: str) -> str:
    """The first line with something in it."""
    return next((line for line in text.split("\n") if line.strip()), "")
