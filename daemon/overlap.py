"""Text right of the cursor: what of a suggestion fits in front of it, and what it stands in place of.

Knows text only. Does not know: requests, tokens, models.
"""

import re
import unicodedata
from typing import NamedTuple

from daemon.brackets import OPENER, open_brackets

CLOSERS = re.compile(r"[\s)\]}>\"'`,;:]*")
CLOSING, QUOTES = frozenset(")]}>\"'`"), frozenset("\"'`")
STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'|`[^`\n]*`")
REST_CHARS = 8  # of the text right of the cursor that a suggestion has to reach
# Pairs of characters that no cut may part. `>>` is not one of them: it closes nested generics, and an editor may have put the second there.
TWO = "== != <= >= += -= *= /= %= &= |= ^= := ** // << -> => && || ++ -- :: .. ?? ?. <- |> ~= =~ </ /* */"
OPERATORS = frozenset(TWO.split(" "))
JOINER = "\u200d"


class Fit(NamedTuple):
    """A text in front of what stands right of the cursor, and how many characters of that it stands in place of."""

    text: str
    replaces: int = 0


def fitted(out: str, rest: str, *, may_replace: bool = False, opened: str = "") -> Fit | None:
    """What of `out` fits in front of `rest`, the text already right of the cursor; None when it would break the line.

    In front of closers and punctuation, such as an editor's automatic bracket, all of it but what stands there already. In front of
    anything else only what leads up to it: the model does not see `rest`, and what does not reach it would break the line.
    """
    if CLOSERS.fullmatch(rest):
        return before_closers(out, rest, may_replace=may_replace, opened=opened)
    at, lead = reached(out, beginning(rest)), rest[: len(rest) - len(rest.lstrip())]
    if at is not None and len(rest.strip()) > 2:  # shorter ones stand anywhere
        return Fit(out[:at].removesuffix(lead))
    # With the space before it if that fits, so that it does not stand there twice.
    shorter = next((cut for text in (rest, rest.lstrip()) if (cut := without_overlap(out, text)) != out), out)
    if len(open_brackets(shorter)) > len(open_brackets(out)):
        return None  # the bracket closes what `out` has opened; the one right of the cursor closes another
    if shorter != out:
        return Fit(shorter)
    return None if at is None else Fit(out[:at].removesuffix(lead))


def before_closers(out: str, rest: str, *, may_replace: bool, opened: str) -> Fit:
    """`out` in front of closers and punctuation: without those that end it too, and in place of those that it has in its middle.

    If nothing may be replaced, it ends where it would begin to write twice what stands there.
    """
    pairs = closed(out, rest, opened=opened)
    for n in range(len(pairs) + 1):
        start, replaces = (pairs[n - 1][0] + 1, pairs[n - 1][1] + 1) if n else (0, 0)
        left = rest[replaces:]
        tail, shared = next(
            (
                (cut, text)
                for text in (left, left.lstrip())
                if (cut := without_overlap(out[start:], text)) != out[start:]
            ),
            (out[start:], ""),
        )
        n_shared = sum(character in CLOSING for character in shared[: len(out) - start - len(tail)])
        if len(pairs) - n <= n_shared:  # what `out` closes behind the n-th stands there already
            if n and not may_replace:
                break
            return Fit(out[:start] + tail, replaces)
    return Fit(out[: pairs[0][0]])


def closed(out: str, rest: str, *, opened: str = "") -> list[tuple[int, int]]:
    """The closers of `rest`, in their order, that `out` writes itself: where each stands in both. `out` begins where `rest` does.

    A quote of `rest` ends a string that was begun before the cursor, so up to it no bracket counts.
    """
    wanted = [(at, character) for at, character in enumerate(rest) if character in CLOSING]
    # Brackets open before the cursor beyond those of `rest`, which closes the outer ones: `out` closes the inner ones itself.
    is_open, found, at = opened[sum(character in OPENER for character in rest) :], list[tuple[int, int]](), 0
    while at < len(out) and len(found) < len(wanted):
        character, (at_rest, closer) = out[at], wanted[len(found)]
        string = STRING.match(out, at) if closer not in QUOTES else None
        if string is not None:
            at = string.end()
            continue
        if (
            character == closer
            and (not is_open or closer in QUOTES)
            and not (closer == ">" and out[at - 1 : at] in ("-", "="))
        ):
            found.append((at, at_rest))
        elif closer in QUOTES:
            at += character == "\\"
        elif character in "([{" or (character == "<" and closer == ">"):
            is_open += character
        elif character in OPENER or (character == ">" and is_open.endswith("<")):
            if not is_open:
                break
            is_open = is_open[:-1]
        at += 1
    return found


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
