"""Where the model is asked, and which edit its answer becomes: one row a case. Whole roads are in tests/golden."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp.documents import Document, Edit, Encoding, Position, new_document
from lsp.insertion import Asked, Insertion, Selected, asked_at, insertion_of, line_end_of, with_selected
from lsp.style import Style, style_of, styled


def document_of(text: str, *, language: str = "python", encoding: Encoding = "utf-16") -> Document:
    return new_document(uri="file:///x", language=language, version=1, text=text, encoding=encoding)


def at(marked: str, **how) -> tuple[Document, Position]:
    """`|` is the cursor."""
    document = document_of(marked.replace("|", "", 1), **how)
    return document, document.position(marked.replace("\r\n", "\n").index("|"))


@pytest.mark.parametrize(
    ("marked", "offset", "indent"),
    [
        ("|", 0, ""),
        ("x = |", 4, ""),
        ("    |", 0, "    "),
        ("f()\n    |\ny", 4, "    "),
        ("f()\n\t |  \ny", 4, "\t "),
        ("f()\n  |  \ny", 4, "  "),
        ("f()\n|    \ny", 4, ""),
        ("f()\n    |y", 8, ""),
        ("f()\n    |)", 8, ""),
        ("f()\n    x|", 9, ""),
        ("\u3000|", 1, ""),  # no indentation of code
    ],
)
def test_where_the_model_is_asked(marked: str, offset: int, indent: str) -> None:
    assert asked_at(marked.replace("|", ""), marked.index("|")) == Asked(offset, indent)


# marked buffer, text, replaces -> what is inserted, and how many units right of the cursor it replaces
PLAIN = [
    ("x = |", "1", 0, "1", 0),
    ("x = |", "1  \t", 0, "1", 0),
    ("x = |", "", 0, None, 0),
    ("x = |", " \n\t", 0, None, 0),
    ("x = |+ 1", "y ", 0, "y ", 0),  # a blank before what follows
    ("x = |  ", "y ", 0, "y", 0),
    ("f(|)", "a", 0, "a", 0),
    ("f(|)", "a):", 1, "a):", 1),
    ("f(|)", "a)", 1, "a)", 1),
    ("f(|)", ")", 1, None, 0),  # nothing new
    ("f(|)", ") ", 1, None, 0),
    ("f(|)", "a", 1, None, 0),  # would take the bracket away
    ("f(|])", "a)]", 2, None, 0),  # or change the order of two
    ("f(|])", "a])", 2, "a])", 2),
    ("f(|)", "a)", 7, "a)", 1),  # beyond the end of the line
    ("f(|)\n)", "a))", 3, "a))", 1),
    ("f(|)", "a", -1, "a", 0),
    # Several lines reach to the end of their line, so that editors draw them.
    ("def f():|", "\n    a\n    b\n", 0, "\n    a\n    b", 0),
    ("def f(): |", "  \n    a", 0, "\n    a", 0),
    ("f {|}", "\n  a\n", 0, "\n  a\n}", 1),
    ("f(g {|});", "\n  a\n}", 1, "\n  a\n});", 3),
    ("f {|}", "\n  a\n}", 1, "\n  a\n}", 1),
    ("def f():|", "\n    a\n    \n    b", 0, "\n    a\n\n    b", 0),
    ("- a  |", "b  \nc  \nd  ", 0, "b  \nc  \nd", 0),  # in Markdown two blanks break a line
    ("x|", "\ry\r\nz", 0, "\ny\nz", 0),
]


@pytest.mark.parametrize(("marked", "text", "replaces", "inserted", "replaced"), PLAIN)
def test_plain(marked: str, text: str, replaces: int, inserted: str | None, replaced: int) -> None:
    document, position = at(marked)
    made = insertion_of(document, position, text, replaces=replaces)
    end = Position(position.line, position.character + replaced)
    assert made == (None if inserted is None else Insertion(inserted, position, end))


@pytest.mark.parametrize(("encoding", "start", "n"), [("utf-8", 7, 3), ("utf-16", 4, 1), ("utf-32", 3, 1)])
def test_positions_count_units(encoding: Encoding, start: int, n: int) -> None:
    document, position = at("(é🙂|」)", encoding=encoding)
    made = insertion_of(document, position, "x」y", replaces=1)
    assert made == Insertion("x」y", Position(0, start), Position(0, start + n))
    assert document.edited([Edit(made.text, made.start, made.end)], 2).text == "(é🙂x」y)"


def test_a_position_that_is_not_there_is_the_end_of_its_line() -> None:
    assert insertion_of(document_of("x\ny"), Position(0, 9), "z") == Insertion("z", Position(0, 1), Position(0, 1))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("", "\n"),
        ("x", "\n"),
        ("a\nb", "\n"),
        ("a\r\nb", "\r\n"),
        ("a\r\nb\nc\r\n", "\r\n"),
        ("a\rb", "\r"),
        ("a\r\nb\n", "\n"),
    ],
)
def test_line_ends(text: str, end: str) -> None:
    assert line_end_of(document_of(text).lines) == end
    made = insertion_of(document_of(text), Position(0, 1), "1\n2\r\n3\r4")
    assert made is not None
    assert made.text == end.join("1234")


# buffer, where the item begins and ends around the cursor, item, text behind it -> insertion and its columns
ITEMS = [
    ("a.lo|", 2, 4, "log", "(x)", 0, "log(x)", 2, 4),
    ("a.lo|", 1, 4, ".log", "(x)", 0, ".log(x)", 1, 4),
    ("a.lo|", 2, 4, "log", "", 0, None, 0, 0),
    ("a.lo|", 2, 4, "log", "  ", 0, None, 0, 0),
    ("(lo|)", 1, 3, "log", "(x)):", 1, "log(x)):", 1, 4),
    ("(lo|)", 1, 3, "log", "(x)", 1, "log(x)", 1, 4),
    ("(lo|)", 1, 3, "log", "(x", 1, None, 0, 0),  # would take the bracket away
    ("cl|", 0, 2, "console.log", "(x)", 0, "console.log(x)", 0, 2),
    ("lo|ud(x)", 0, 4, "log", "2", 0, "log2", 0, 4),
    ("lo|ud()", 0, 4, "log", "(x)", 2, "log(x)", 0, 6),
    ("lo|ud()", 0, 4, "log", "(x)", 0, "log(x)", 0, 4),
    ("f lo|", 0, 1, "log", "(x)", 0, None, 0, 0),  # another place
    ("lo|", 0, 2, "log", "\n  x", 0, "log\n  x", 0, 2),
]


@pytest.mark.parametrize(("marked", "start", "end", "item", "text", "replaces", "inserted", "first", "last"), ITEMS)
def test_behind_the_selected_item(marked, start, end, item, text, replaces, inserted, first, last) -> None:
    document, position = at(marked)
    selected = Selected(item, Position(0, start), Position(0, end))
    made = insertion_of(document, position, text, replaces=replaces, selected=selected, is_behind_selected=True)
    assert made == (None if inserted is None else Insertion(inserted, Position(0, first), Position(0, last)))


@pytest.mark.parametrize(
    ("text", "replaces", "inserted", "last"),
    [
        ("g(x)", 0, "log(x)", 4),
        ("g(x):", 0, "log(x):", 4),
        ("cal(x)", 0, None, 0),
        ("g", 0, None, 0),
        ("", 0, None, 0),
        ("g(x)):", 1, "log(x)):", 5),
    ],
)
def test_a_text_of_the_cursor_must_begin_with_the_selected_item(text, replaces, inserted, last) -> None:
    document, position = at("f(lo|)")
    selected = Selected("log", Position(0, 2), Position(0, 4))
    made = insertion_of(document, position, text, replaces=replaces, selected=selected)
    assert made == (None if inserted is None else Insertion(inserted, Position(0, 2), Position(0, last)))


def test_the_document_with_the_item_taken() -> None:
    document, position = at("🙂.lo|x)\r\n")
    taken = with_selected(document, position, Selected("log", Position(0, 3), Position(0, 6)))
    assert taken is not None
    assert (taken[0].lines, taken[1]) == (("🙂.log)\r\n", ""), Position(0, 6))
    assert with_selected(document, position, Selected("log", Position(0, 0), Position(0, 2))) is None
    assert with_selected(document, position, Selected("log", Position(0, 3), Position(1, 0))) is None


TABS, FOUR, TWO = Style(insert_spaces=False), Style(insert_spaces=True), Style(insert_spaces=True, tab_size=2)


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("", None),
        ("a\nb", None),
        ("a\n\tb", TABS),
        ("a\n\tb\n\t\tc\nd\n\te", TABS),
        ("a\n    b", FOUR),
        ("a\n  b\n    c\n      d\n  e", TWO),
        ("a:\n        b\n        c", Style(insert_spaces=True, tab_size=8)),
        ("a\n\tb\n  c", None),  # no two lines agree
        ("a\n\tb" * 20 + "\n    c", TABS),
        ("/*\n * a\n * b\n */\n\tc", TABS),
        ("    \n\t\n   ", None),  # blank lines say nothing
    ],
)
def test_style_of_a_document(text: str, style: Style | None) -> None:
    assert style_of(document_of(text).lines) == style


# document, editor's style, text, first line too -> text
STYLED = [
    ("a\n\tb", None, "\n        c\n    d", False, "\n\t\tc\n\td"),
    ("a\n\tb", None, "\n    c\n  d", False, "\n\t\tc\n\td"),
    ("a\n\tb", Style(False, 2), "\n    c", False, "\n\t\tc"),
    ("a\n\tb", Style(False, 8), "\n    c", False, "\n\tc"),  # half of a tab is no step
    ("a\n\tb", None, "\n     c", False, "\n\t c"),
    ("a\n\tb", None, "    c\n    d", False, "    c\n\td"),
    ("a\n\tb", None, "    c\n    d", True, "\tc\n\td"),
    ("a\n\tb", None, "\n * c", False, "\n * c"),
    ("a\n    b", None, "\n\t\tc\n\td", False, "\n        c\n    d"),
    ("a\n  b", None, "\n\t\tc", False, "\n    c"),
    ("a\n  b", None, "\n    c\n        d", False, "\n    c\n        d"),  # widths are the model's
    ("a\n  b", TABS, "\n    c", False, "\n    c"),
    ("a", None, "\n\tc", False, "\n\tc"),
    ("a", TWO, "\n\tc", False, "\n  c"),
    ("a", TABS, "\n    c", False, "\n\tc"),
    ("a", TWO, "x\ty", True, "x\ty"),  # not an indentation
]


@pytest.mark.parametrize(("document", "editor", "text", "is_first", "expected"), STYLED)
def test_styled(document: str, editor: Style | None, text: str, is_first: bool, expected: str) -> None:
    lines = document_of(document).lines
    assert styled(text, lines=lines, row=0, language="c", editor=editor, is_first=is_first) == expected


@pytest.mark.parametrize(("language", "text"), [("makefile", "\n\tb"), ("go", "\n\tb"), ("yaml", "\n  b")])
@pytest.mark.parametrize("editor", [TABS, FOUR, TWO, None])
def test_languages_that_allow_one_kind_only(language: str, text: str, editor: Style | None) -> None:
    assert styled(text, lines=["a"], row=0, language=language, editor=editor, is_first=False) == text


BUFFERS = st.text(st.sampled_from("ab \t()[]\"'\n\r🙂é"), max_size=30)


@given(BUFFERS, st.integers(0, 30), st.text(st.sampled_from('ab \t()[]"\n\r🙂'), max_size=12), st.integers(0, 5))
def test_nothing_that_was_typed_disappears(text: str, offset: int, said: str, replaces: int) -> None:
    for encoding in ("utf-8", "utf-16", "utf-32"):
        document = document_of(text, encoding=encoding)
        position = document.position(offset)
        made = insertion_of(document, position, said, replaces=replaces)
        if made is None:
            continue
        before, after = document.text, document.edited([Edit(made.text, made.start, made.end)], 2).text
        assert after.startswith(before[: document.offset(position)])
        left = iter(after)
        assert all(character in left for character in before)
        assert len(after.split()) >= len(before.split())
        assert len("".join(after.split())) > len("".join(before.split()))
