"""Whether a place in a file is code, in a comment or in a string, and which brackets are open there.

One scan over comments and strings, for families of languages that write them alike; nothing else of a language is known. A file of 2,000 lines takes about
a millisecond the first time. What lies far above the cursor is remembered, so that a typed key scans no more than the last few thousand characters.
Knows: how comments, strings and brackets are written. Does not know: which language writes how (see context/families), what is done with it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

BRACKET_CHARS = 2048  # before the cursor, at least, in which open brackets are looked for
OPENER = {")": "(", "]": "[", "}": "{"}
# A slash after one of these begins a regular expression; after a name, a number or a closing bracket it divides.
BEFORE_REGEX = re.compile(
    r"(?:^|[(,=:\[!&|?{};+*%~^<>\n-]|\b(?:return|typeof|case|do|else|in|of|if|when|unless|and|or|not|split|grep))$"
)
TEMPLATE_BODY = re.compile(r"[^`\\$]*(?:(?:\\(?:[\s\S]|\Z)|\$(?!\{))[^`\\$]*)*(?P<end>`|\$\{)?")


class Construct(NamedTuple):
    """One way of writing a comment or a string.

    `first`: the characters that one can begin with; `rest`: a pattern of what follows that one, in which the group `e` is its end. Without that group
    it ends with its line. `kind` "": neither comment nor string, but what is in it must not be seen.
    """

    kind: str  # "comment" | "string" | "tag" | ""
    first: str
    rest: str
    is_multi: bool = False  # it may go on over several lines
    # "nested": only the beginning is a pattern, and (`opens`, `closes`) are counted; "template": a JavaScript template, with code in ${};
    # "regex": a regular expression, unless it is a division; "embedded": a script, up to `closes`, written as the family `inner` is.
    special: str = ""
    opens: str = ""
    closes: str = ""
    inner: "Family | None" = None


class Family:
    """A language's constructs, those that are tried first before the others, as two patterns: with brackets and without."""

    def __init__(self, constructs: Sequence[Construct]) -> None:
        self.constructs = tuple(constructs)
        parts = [
            f"(?<=[{re.escape(each.first)}])(?P<c{i}>{each.rest.replace('(?P<e>', f'(?P<e{i}>')})"
            for i, each in enumerate(constructs)
        ]
        # The first character stands outside of the alternatives: then the engine skips what cannot begin any of them without trying.
        first = "".join(sorted({character for each in constructs for character in each.first}))
        self.plain = re.compile(f"[{re.escape(first)}](?:{'|'.join(parts)})") if parts else re.compile(r"(?!)")
        bracket = r"(?<=[()\[\]{}])(?P<b>)"
        self.with_brackets = re.compile(rf"[{re.escape(first)}()\[\]{{}}](?:{'|'.join([*parts, bracket])})")


class Inside(NamedTuple):
    """What is open at a place: the comment or string that it is in, and the brackets in the code before it, with where they stand."""

    kind: str = "code"  # "code" | "comment" | "string"
    is_multi: bool = False  # the comment or string may go on over several lines
    start: int = 0  # of the comment or string
    brackets: tuple[tuple[str, int], ...] = ()


def inside(text: str, offset: int, family: Family) -> Inside:
    """What `offset` is in. Brackets are those of the last BRACKET_CHARS and somewhat more: one opened far above is not among them."""
    cut = max(0, offset // BRACKET_CHARS - 1) * BRACKET_CHARS
    cut = text.rfind("\n", 0, cut) + 1
    return _scan(text, _resume(text[:cut], family), offset, family, with_brackets=True)


@lru_cache(maxsize=8)
def _resume(above: str, family: Family) -> int:
    """Where a scan can go on behind `above`: its end, or the start of what is open there."""
    found = _scan(above, 0, len(above), family, with_brackets=False)
    return found.start if found.kind != "code" else len(above)


def _scan(text: str, pos: int, end: int, family: Family, *, with_brackets: bool) -> Inside:
    brackets: list[tuple[str, int]] = []
    holes: list[
        tuple[int, int]
    ] = []  # of templates: where each template began, and how many brackets were open when its hole did
    while True:
        pattern = family.with_brackets if with_brackets or holes else family.plain
        match = pattern.search(text, pos, end)
        if match is None:
            break
        start, pos, name = match.start(), match.end(), match.lastgroup or ""
        if name == "b":
            if match[0] != "}" or not holes or holes[-1][1] != len(brackets):
                _count(match[0], start, brackets)
                continue
            start, _ = holes.pop()
            name = ""
        construct = family.constructs[int(name[1:])] if name else None
        if construct is None or construct.special == "template":
            body = TEMPLATE_BODY.match(text, pos, end)
            pos = body.end() if body is not None else pos
            is_closed = body is not None and body["end"] is not None
            if is_closed and body is not None and body["end"] == "${":
                holes.append((start, len(brackets)))
            if not is_closed:
                return Inside("string", True, start, tuple(brackets))
            continue
        if construct.special == "regex" and BEFORE_REGEX.search(text[max(0, start - 40) : start].rstrip(" \t")) is None:
            pos = start + 1
            continue
        if construct.special == "embedded":
            closes = re.compile(construct.closes, re.IGNORECASE).search(text, pos, end)
            if closes is None:
                assert construct.inner is not None
                found = _scan(text, pos, end, construct.inner, with_brackets=with_brackets)
                # Whoever goes on from here must know that it is a script.
                return found if with_brackets else Inside("string", True, start)
            pos = closes.start()
            continue
        if construct.special == "nested":
            pos, is_open = _nested_end(text, pos, end, construct)
        else:
            is_open = pos == end and match.groupdict().get("e" + name[1:]) is None
        if is_open and construct.kind == "tag":
            is_open = match.groupdict().get("q") is not None
        if is_open and construct.kind:
            return Inside(construct.kind.replace("tag", "string"), construct.is_multi, start, tuple(brackets))
    if holes and not with_brackets:
        return Inside("string", True, holes[0][0])
    return Inside(brackets=tuple(brackets))


def _count(bracket: str, at: int, brackets: list[tuple[str, int]]) -> None:
    """A closer closes the nearest bracket of its kind, or nothing."""
    if bracket not in OPENER:
        brackets.append((bracket, at))
        return
    for number in range(len(brackets) - 1, -1, -1):
        if brackets[number][0] == OPENER[bracket]:
            del brackets[number:]
            return


def _nested_end(text: str, pos: int, end: int, construct: Construct) -> tuple[int, bool]:
    """Where a comment in which others may stand ends, and whether it is still open."""
    depth = 1
    for match in re.compile(f"(?P<o>{construct.opens})|{construct.closes}").finditer(text, pos, end):
        depth += 1 if match["o"] is not None else -1
        if not depth:
            return match.end(), False
    return end, True
