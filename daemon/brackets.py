"""Which brackets are open, and which of them a gap may close. Knows text only: brackets, and strings as far as they hide some.

A few regular expressions rather than a parser: they must be cheap, and right for text that is still being written.
"""

import re
from collections.abc import Callable
from functools import lru_cache

# Brackets, and strings, so that those inside are not seen. In text that is still being written a string may not be closed yet; elsewhere a lone quote
# is an apostrophe, or a lifetime in Rust.
BRACKETS = re.compile(r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'|[()\[\]{}]")
BRACKETS_SO_FAR = re.compile(r'"(?:\\.|[^"\\\n])*"?|' + r"'(?:\\.|[^'\\\n])*'?|[()\[\]{}]")
COMMENT = re.compile(
    r"\s*(?:#|//|/\*|\*|--|;|%|<!--|\"\"\"|''')"
)  # how a line begins in which brackets are punctuation, as in 1)
OPENER = {")": "(", "]": "[", "}": "{"}


class Balance:
    """Finds the first bracket of a text that closes one that is not the gap's to close; a text that grows is not looked through again."""

    def __init__(self, typed: str, closable: Callable[[], str]) -> None:
        """`typed`: the cursor's line before it. `closable` gives the brackets above that the gap may close, the innermost last.

        It is asked only when a bracket closes none of the cursor's line.
        """
        self._typed = typed
        self._closable = closable
        self._is_comment = COMMENT.match(typed) is not None
        self._balanced = ""  # a text that has none

    def foreign(self, text: str) -> int | None:
        """Where that bracket stands; None: there is none."""
        if self._is_comment or (
            text.startswith(self._balanced) and not any(closer in text[len(self._balanced) :] for closer in OPENER)
        ):
            return None
        at = foreign_closer(text, self._typed, self._closable)
        if at is None:
            self._balanced = text
        return at


def foreign_closer(text: str, typed: str, closable: Callable[[], str]) -> int | None:
    """Where the first bracket stands that closes one that is not the gap's to close; None: there is none.

    `closable` gives those that are, the innermost last, and is asked only when a bracket closes none of the cursor's line.
    """
    open_here, left = "", None
    for match in BRACKETS_SO_FAR.finditer(typed + text):
        at, bracket = match.start() - len(typed), match[0]
        if at < 0 or len(bracket) > 1 or bracket in "\"'":
            continue
        if bracket not in OPENER:
            open_here += bracket
        elif open_here:
            open_here = open_here[:-1]
        else:
            left = closable() if left is None else left
            if not left.endswith(OPENER[bracket]):
                return at
            left = left[:-1]
    return None


def closable_brackets(above: str, below: str, *, head: str = "") -> str:
    """The brackets, open before the cursor, that the gap may close: as many as leave the others to what follows the cursor.

    Where text above and below do not agree, as when a bracket stands in a comment, all of them. `head`: whole lines before `above`.
    """
    is_open, closers = open_brackets(above, before=_open_in_head(head)), unopened_brackets(below)
    for n_left in range(len(is_open), -1, -1):
        left = is_open[: len(is_open) - n_left]  # the gap closes `n_left`, what follows closes these
        if all(OPENER[closer] == bracket for closer, bracket in zip(closers, reversed(left), strict=False)) and len(
            closers
        ) <= len(left):
            return is_open[len(left) :]
    return is_open


def open_brackets(text: str, *, before: str = "") -> str:
    """Those that nothing closes, the innermost last. A closer closes the nearest bracket of its kind, or nothing. `before`: those open before `text`."""
    stack = list(before)
    line = text.rfind("\n") + 1  # the cursor's: a string that is begun there is still being written
    for match in (*BRACKETS.finditer(text[:line]), *BRACKETS_SO_FAR.finditer(text[line:])):
        bracket = match[0]
        if bracket in OPENER.values():
            stack.append(bracket)
        elif bracket in OPENER and OPENER[bracket] in stack:
            while stack.pop() != OPENER[bracket]:
                continue
    return "".join(stack)


@lru_cache(maxsize=8)
def _open_in_head(head: str) -> str:
    """A file's head stays while lines below it are typed."""
    return open_brackets(head)


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
