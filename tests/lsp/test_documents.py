"""Documents against a plain model: a list of the code units that an editor of that encoding would hold."""

import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp.documents import Document, Edit, Encoding, Position, new_document

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
# Line ends of LSP, things that Python but not LSP takes for line ends, and characters of one to four bytes.
PIECES = ["\n", "\r\n", "\r", "\f", "\u2028", "a", "b", " ", "é", "€", "😀", "𝒳"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def document(text: str, encoding: Encoding) -> Document:
    return new_document(uri="file:///d.py", language="python", version=1, text=text, encoding=encoding)


def units(text: str, encoding: Encoding) -> int:
    return (
        len(text.encode({"utf-8": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}[encoding]))
        // {
            "utf-8": 1,
            "utf-16": 2,
            "utf-32": 4,
        }[encoding]
    )


def raw_lines(text: str) -> list[tuple[int, str]]:
    """Each line's start and its text without the end, as LSP counts lines."""
    lines, start = [], 0
    for end in re.finditer(r"\r\n|\r|\n", text):
        lines.append((start, text[start : end.start()]))
        start = end.end()
    return [*lines, (start, text[start:])]


def position_of(text: str, line: int, column: int, encoding: Encoding) -> tuple[Position, int]:
    """A position that an editor might send, and the raw index that it means."""
    lines = raw_lines(text)
    start, content = lines[line % len(lines)]
    column %= len(content) + 1
    return Position(line % len(lines), units(content[:column], encoding)), start + column


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.sampled_from(ENCODINGS),
    text=TEXTS,
    edits=st.lists(st.tuples(*[st.integers(0, 11)] * 4, TEXTS), max_size=5),
)
def test_edits_equal_those_of_a_plain_string(
    encoding: Encoding, text: str, edits: list[tuple[int, int, int, int, str]]
) -> None:
    ours = document(text, encoding)
    for version, (line, column, end_line, end_column, new) in enumerate(edits, start=2):
        start, first = position_of(text, line, column, encoding)
        end, last = position_of(text, end_line, end_column, encoding)
        if last < first:
            start, first, end, last = end, last, start, first
        ours = ours.edited([Edit(new, start, end)], version)
        text = text[:first] + new + text[last:]
        assert "".join(ours.lines) == text
        assert ours.lines == document(text, encoding).lines
        assert ours.version == version
    assert ours.text == text.replace("\r\n", "\n").replace("\r", "\n")


@settings(max_examples=300, deadline=None)
@given(encoding=st.sampled_from(ENCODINGS), text=TEXTS, line=st.integers(0, 11), column=st.integers(0, 11))
def test_positions_and_offsets_are_inverse(encoding: Encoding, text: str, line: int, column: int) -> None:
    position, index = position_of(text, line, column, encoding)
    ours = document(text, encoding)
    lines = raw_lines(text)
    offset = ours.offset(position)
    assert offset == sum(len(before) + 1 for _, before in lines[: position.line]) + index - lines[position.line][0]
    assert ours.position(offset) == position


CLAMPED = [
    # text, position, offset
    ("ab\ncd", Position(0, 9), 2),
    ("ab\r\ncd", Position(0, 3), 2),
    ("ab\r\ncd", Position(1, 9), 5),
    ("ab\ncd", Position(7, 0), 5),
    ("ab\ncd\n", Position(2, 5), 6),
    ("ab\ncd\n", Position(3, 0), 6),
    ("", Position(0, 0), 0),
    ("", Position(4, 4), 0),
    ("ab", Position(-1, -1), 0),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("text", "position", "offset"), CLAMPED)
def test_positions_beyond_the_end_are_clamped(text: str, position: Position, offset: int, encoding: Encoding) -> None:
    assert document(text, encoding).offset(position) == offset


HALVES = [
    # A UTF-16 editor may cut a pair in two, and put the halves together again.
    ("a😀b", [Edit("x", Position(0, 2), Position(0, 2))], "a\ufffdx\ufffdb"),
    ("a😀b", [Edit("", Position(0, 2), Position(0, 3))], "a\ufffdb"),
    ("a😀b", [Edit("x", Position(0, 2), Position(0, 2)), Edit("", Position(0, 2), Position(0, 3))], "a😀b"),
    ("ab", [Edit("\ud83d", Position(0, 1), Position(0, 1)), Edit("\ude00", Position(0, 2), Position(0, 2))], "a😀b"),
    ("a\ud83db", [Edit("x", Position(0, 3), Position(0, 3))], "a\ufffdbx"),
]


@pytest.mark.parametrize(("text", "edits", "expected"), HALVES)
def test_halves_of_a_utf16_pair(text: str, edits: list[Edit], expected: str) -> None:
    after = document(text, "utf-16").edited(edits, 2).text
    assert after == expected
    after.encode("utf-8")


@pytest.mark.parametrize(
    ("encoding", "character", "offset"),
    [("utf-8", 3, 1), ("utf-8", 5, 2), ("utf-16", 2, 1), ("utf-16", 3, 2), ("utf-32", 2, 2)],
)
def test_a_position_inside_a_character_is_its_start(encoding: Encoding, character: int, offset: int) -> None:
    assert document("a😀b", encoding).offset(Position(0, character)) == offset


def test_an_edit_leaves_the_older_version_as_it_was() -> None:
    before = document("one\ntwo\n", "utf-16")
    after = before.edited([Edit("2", Position(1, 0), Position(1, 3))], 2)
    assert (before.text, after.text) == ("one\ntwo\n", "one\n2\n")


def test_a_whole_text_and_a_backwards_range() -> None:
    start = document("one\ntwo\n", "utf-8")
    assert start.edited([Edit("new")], 2).text == "new"
    assert start.edited([Edit("X", Position(1, 1), Position(0, 1))], 2).text == "one\ntXwo\n"


def test_a_thousand_edits_of_a_long_document_take_no_time() -> None:
    long = document("line of text\n" * 20_000, "utf-16")
    edits = [Edit("  ", Position(line, 0), Position(line, 0)) for line in range(1000)]
    assert long.edited(edits, 2).text.count("  line") == 1000
