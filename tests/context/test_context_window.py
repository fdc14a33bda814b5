"""The laws of the windows around a cursor, on any text, and a few texts to read with the eyes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.window import LONG_LINE_STEPS, Window, WindowSize, split

STEP = 20
SIZE = WindowSize(step=STEP, suffix_chars=30)
LONGEST_PREFIX = 10 * STEP + 1

short_lines = st.text("ab é", max_size=STEP)
any_lines = st.one_of(short_lines, st.integers(0, 12 * STEP).map("x".__mul__))
short_texts = st.lists(short_lines, max_size=30).map("\n".join)
any_texts = st.lists(any_lines, max_size=12).map("\n".join)
typed = st.text("ab é", max_size=STEP)


@st.composite
def cursors(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> tuple[str, int]:
    text = draw(texts)
    return text, draw(st.integers(0, len(text)))


def line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def line_end(text: str, offset: int) -> int:
    return (text + "\n").find("\n", offset)


@given(cursors(any_texts))
def test_the_pieces_are_the_text(cursor: tuple[str, int]) -> None:
    text, offset = cursor
    window = split(text, offset, size=SIZE)
    assert window.head + window.prefix == text[:offset]
    assert window.rest_of_line == text[offset : line_end(text, offset)]
    below = text[line_end(text, offset) + 1 :]
    assert below.startswith(window.suffix)
    assert bool(window.suffix) == bool(below)
    assert len(window.suffix) <= SIZE.suffix_chars
    first_line_fits = len(below.split("\n")[0]) < SIZE.suffix_chars
    assert window.suffix == below or window.suffix.endswith("\n") == first_line_fits


@given(cursors(any_texts))
def test_the_prefix_is_bounded_whatever_the_lines(cursor: tuple[str, int]) -> None:
    text, offset = cursor
    assert len(split(text, offset, size=SIZE).prefix) <= LONGEST_PREFIX


@given(cursors(short_texts))
def test_the_anchor_is_what_the_docstring_says(cursor: tuple[str, int]) -> None:
    text, offset = cursor
    starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
    boundaries = [0] + [
        next((start for start in starts if start >= multiple), len(text) + 1)
        for multiple in range(STEP, len(text), STEP)
    ]
    expected = max(boundary for boundary in boundaries if boundary == 0 or line_start(text, offset) - boundary >= STEP)
    assert len(split(text, offset, size=SIZE).head) == expected


@given(cursors(short_texts), typed)
def test_typing_changes_neither_head_nor_suffix(cursor: tuple[str, int], new: str) -> None:
    text, offset = cursor
    before = split(text, offset, size=SIZE)
    after = split(text[:offset] + new + text[offset:], offset + len(new), size=SIZE)
    assert after == Window(before.head, before.prefix + new, before.rest_of_line, before.suffix)


@given(cursors(short_texts), st.integers(0, STEP))
def test_deleting_in_the_line_changes_neither_head_nor_suffix(cursor: tuple[str, int], n_deleted: int) -> None:
    text, offset = cursor
    n_deleted = min(n_deleted, offset - line_start(text, offset))
    before = split(text, offset, size=SIZE)
    after = split(text[: offset - n_deleted] + text[offset:], offset - n_deleted, size=SIZE)
    assert (after.head, after.suffix) == (before.head, before.suffix)


@given(cursors(any_texts))
def test_enter_at_the_end_of_a_line_leaves_the_suffix(cursor: tuple[str, int]) -> None:
    text, offset = cursor
    end = line_end(text, offset)
    before = split(text, end, size=SIZE)
    after = split(text[:end] + "\n" + text[end:], end + 1, size=SIZE)
    assert after.suffix == before.suffix
    assert after.rest_of_line == before.rest_of_line == ""


@given(cursors(any_texts), any_texts)
def test_what_is_below_the_cursor_does_not_move_the_anchor(cursor: tuple[str, int], below: str) -> None:
    text, offset = cursor
    one, two = split(text, offset, size=SIZE), split(text[:offset] + below, offset, size=SIZE)
    assert (one.head, one.prefix) == (two.head, two.prefix)


@given(short_texts)
def test_the_anchor_only_jumps_forward_and_seldom(text: str) -> None:
    anchors = [len(split(text, offset, size=SIZE).head) for offset in range(len(text) + 1)]
    assert anchors == sorted(anchors)
    assert len(set(anchors)) <= 1 + len(text) // STEP


@given(short_texts)
def test_the_head_ends_at_a_line_end(text: str) -> None:
    for offset in range(len(text) + 1):
        head = split(text, offset, size=SIZE).head
        assert head == "" or head.endswith("\n")


@given(any_texts, any_texts)
def test_in_an_overlong_line_the_anchor_jumps_once_a_step(above: str, below: str) -> None:
    line = "x" * (LONG_LINE_STEPS * STEP + 5 * STEP)
    start = len(above) + 1
    text = f"{above}\n{line}\n{below}"
    long_part = range(start + LONG_LINE_STEPS * STEP + 1, start + len(line))
    anchors = [len(split(text, offset, size=SIZE).head) for offset in long_part]
    assert all(STEP <= offset - anchor < 2 * STEP for offset, anchor in zip(long_part, anchors, strict=True))
    assert {(anchor - start) % STEP for anchor in anchors} == {0}
    assert anchors == sorted(anchors)


def test_a_huge_line_costs_no_more_than_a_long_one() -> None:
    line = "x" * 5_000_000
    for text, offset in [(line, len(line)), (line + "\n", len(line) + 1), (f"{line}\nshort\n", len(line) + 4)]:
        window = split(text, offset)
        assert len(window.prefix) <= 10 * 1200 + 1
        assert window.head + window.prefix == text[:offset]


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("|", Window("", "", "", "")),
        ("ab|cd", Window("", "ab", "cd", "")),
        ("ab|\n", Window("", "ab", "", "")),
        ("ab\n|", Window("", "ab\n", "", "")),
        ("ab|\n\n", Window("", "ab", "", "\n")),
        ("one\nt|wo\nthree\nfour", Window("", "one\nt", "wo", "three\nfour")),
        ("|a\n1234\n5678\n90", Window("", "", "a", "1234\n5678\n")),
        ("|a\n1234567890123", Window("", "", "a", "1234567890")),
        ("|a\n\n1234567890123", Window("", "", "a", "\n")),
        ("0123\n5678\n|", Window("0123\n", "5678\n", "", "")),
        ("0123\n5678|\n", Window("", "0123\n5678", "", "")),
        ("0123456789012345678901234|", Window("01234567890123456789"[:20], "01234", "", "")),
        ("01234567890123456789|", Window("", "01234567890123456789", "", "")),
    ],
)
def test_examples(marked: str, expected: Window) -> None:
    offset = marked.index("|")
    assert split(marked.replace("|", ""), offset, size=WindowSize(step=5, suffix_chars=10)) == expected


@pytest.mark.parametrize("offset", [-1, 4])
def test_an_offset_outside(offset: int) -> None:
    with pytest.raises(ValueError, match=f"offset {offset}: expected 0 to 3"):
        split("abc", offset)


@pytest.mark.parametrize(("step", "suffix_chars"), [(0, 1), (1, 0), (-3, 5)])
def test_a_size_of_nothing(step: int, suffix_chars: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        WindowSize(step=step, suffix_chars=suffix_chars)
