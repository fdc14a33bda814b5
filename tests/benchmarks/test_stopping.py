"""Holes of several lines, and how their lines are counted."""

import pytest

from benchmarks.stopping import Answered, block_hole, block_places, counts, sure_lines
from daemon.certainty import Line

TEXT = """import os


def f(x):
    if x:
        a = 1

        b = 2
        c = 3
    return x


def g():
    pass
"""
LINES = TEXT.split("\n")


def test_places_are_where_a_body_begins() -> None:
    assert [LINES[number] for number in block_places(LINES)] == ["    if x:", "        a = 1", "    pass"]


# the body's first line, lines wanted, at the opener's end? -> what is cut out, what stands before, typed indentation
HOLES = [
    (5, 1, True, "        a = 1", "    if x:", ""),
    (5, 2, True, "        a = 1", "    if x:", ""),
    (5, 3, True, "        a = 1\n\n        b = 2", "    if x:", ""),
    (5, 6, True, "        a = 1\n\n        b = 2\n        c = 3", "    if x:", ""),
    (5, 6, False, "        c = 3", "        b = 2\n", "        "),
    (4, 6, False, "    return x", "        c = 3\n", "    "),
    (13, 6, False, "    pass", "def g():\n", "    "),
]


@pytest.mark.parametrize(("number", "n_lines", "is_start", "truth", "before", "indent"), HOLES)
def test_a_hole_is_in_one_block(
    number: int, n_lines: int, is_start: bool, truth: str, before: str, indent: str
) -> None:
    hole = block_hole("a.py", LINES, number, n_lines=n_lines, is_start=is_start)
    asked = hole.request
    assert (hole.truth, asked.indent) == (truth, indent)
    assert asked.prompt.endswith(before)
    assert asked.rest_of_line == ""
    # The file without the hole; on a line that has only its indentation, the line is still there.
    lines_break = "" if indent else "\n"
    assert asked.head + asked.prompt + lines_break + truth + hole.following == TEXT


def test_lines_are_counted_by_place() -> None:
    several = [
        Answered(["a", "b"], ["a", "c", "d"], [], 3),
        Answered(["a"], ["b"], [], 1),
    ]
    assert counts(several, [3, 1])[:4] == [(1, 2), (0, 1), (0, 1), (0, 0)]
    assert counts(several, [1, 0])[:2] == [(1, 1), (0, 0)]


def test_the_first_line_needs_no_certainty() -> None:
    lines = [Line(5, 0.1, 0.1), Line(9, 0.9, 0.5), Line(12, 0.4, 0.5)]
    assert [sure_lines(lines, *each) for each in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.6), (0.95, 0.0))] == [3, 2, 1, 1]
