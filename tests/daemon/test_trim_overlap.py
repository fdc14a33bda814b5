"""Closers right of the cursor, which an editor put there by itself: what a text stands in place of, and that nothing stands there twice."""

import pytest

from daemon.overlap import closed
from daemon.protocol import CompletionRequest
from daemon.trim import Trim

# before the cursor, right of it, what the model says -> the text shown and how much of the right it replaces; the text if nothing may be replaced
ROWS = [
    # The text ends before the closer, or with it: the closer stays.
    ("if foo(a", ")", ", b", ", b", 0, ", b"),
    ("if foo(a", ")", ", b)", ", b", 0, ", b"),
    ("if foo(a", "):", ", b):", ", b", 0, ", b"),
    ("foo(g(a", "))", "))", "", 0, ""),
    ("foo(g(", "))", "a))", "a", 0, "a"),
    ("foo(g(a", ")", "))", ")", 0, ")"),
    # It goes on behind the closer.
    ("if foo(a", ")", ", b):", ", b):", 1, ", b"),
    ("foo(a", ")", ", b) + c(d)", ", b) + c(d", 0, ", b) + c(d"),  # reads the same
    ("foo(a", ")", ", b) + c(d) + e", ", b) + c(d) + e", 1, ", b"),
    ("foo(a", ");", ", b) + c;", ", b) + c", 1, ", b"),
    ("foo(a", "):", ", b) -> int:", ", b) -> int", 1, ", b"),
    ("foo(g(a", "))", "), b)", "), b", 1, ""),
    ("foo(g(a", "))", "), b", "), b", 1, ""),
    ("foo([a", "])", ", b], c)", ", b], c", 1, ", b"),
    ("foo(a", " )", ", b) or c", ", b) or c", 2, ", b"),
    ("x = [", "]", "a for a in b] + c", "a for a in b] + c", 1, "a for a in b"),
    ("f(", ")", "g(a)[0], {b: (c)})", "g(a)[0], {b: (c)}", 0, "g(a)[0], {b: (c)}"),
    ("f(", ")", "'a)b', c) + d", "'a)b', c) + d", 1, "'a)b', c"),
    # Quotes end the string that the cursor is in.
    ('d["', '"]', 'key"] = 1', 'key"] = 1', 2, "key"),
    ('d["', '"]', 'key"]', "key", 0, "key"),
    ('d["', '"]', "key", "key", 0, "key"),
    ('f("', '")', '(a", b)', '(a", b', 1, "(a"),
    ('f("', '")', 'a\\"b", c) + d', 'a\\"b", c) + d', 2, 'a\\"b'),
    ("x = '", "'", "a' + b", "a' + b", 1, "a"),
    ('f"{foo(', ')}"', 'a)} b" + c', 'a)} b" + c', 3, "a"),
    # Angle brackets close types; arrows do not.
    ("List<", ">", "String> x = y", "String> x = y", 1, "String"),
    ("f(", ")", "x -> x > 1) + 1", "x -> x > 1) + 1", 1, "x -> x > 1"),
    # Not the gap's to close.
    ("x = foo(a", ")", ", b))", ", b", 0, ", b)"),
    ("foo(a", ")", "]", "", 0, "]"),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[2]}" for number, row in enumerate(ROWS)])
def test_closers(row: tuple[str, str, str, str, int, str]) -> None:
    prompt, rest, text, shown, replaces, kept = row
    asked = CompletionRequest(prompt=prompt, rest_of_line=rest)
    made = Trim(CompletionRequest(prompt=prompt, rest_of_line=rest, may_replace=True)).outcome(text.encode())
    assert (made.text, made.replaces) == (shown, replaces)
    made = Trim(asked).outcome(text.encode())
    assert (made.text, made.replaces) == (kept, 0)


CLOSED = [
    ("a)", ")", [(1, 0)]),
    ("(a)", ")", []),
    ("a) b)", "))", [(1, 0), (4, 1)]),
    ("a]", ")", []),
    ("a] b)", ")", []),
    ("a, b", ")", []),
    ('a" + b)', '")', [(1, 0), (6, 1)]),
    ("", ")", []),
    (")", "", []),
    ("don't)", ")", [(5, 0)]),
]


@pytest.mark.parametrize(("text", "rest", "pairs"), CLOSED)
def test_which_closers_a_text_writes_itself(text: str, rest: str, pairs: list[tuple[int, int]]) -> None:
    assert closed(text, rest) == pairs
