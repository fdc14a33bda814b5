"""Typing through a suggestion: each row is a document with its cursor at `|`, a suggestion, the document later, and what is left of the suggestion."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.protocol import Report, Timings
from lsp.completion import Suggestion
from lsp.documents import Document, Edit, Encoding, new_document
from lsp.suggestion import FEW, Shown, goes_on


def parsed(marked: str, encoding: Encoding = "utf-16") -> tuple[Document, int]:
    before, _, after = marked.partition("|")
    text = before + after
    return new_document(uri="u", language="", version=1, text=text, encoding=encoding), len(
        before.replace("\r\n", "\n")
    )


def suggestion_at(marked: str, text: str, *, stopped_by: str = "line") -> tuple[Document, Suggestion]:
    document, offset = parsed(marked)
    report = Report(
        context_tokens=0, tokens_fed=1, tokens_reused=0, segment="line", context_ready=True, stopped_by=stopped_by, ms=Timings()
    )  # fmt: skip
    return document, Suggestion(text, document.position(offset), report)


def rest(shown: Shown, marked: str, *, anew: bool = False) -> str | None:
    document, offset = parsed(marked)
    left = shown.rest(document, document.position(offset), is_wanted_anew=anew)
    return left.suggestion.text if left is not None else None


ROWS = [
    ("x = |\ny", "foo(bar)", "x = |\ny", "foo(bar)"),
    ("x = |\ny", "foo(bar)", "x = f|\ny", "oo(bar)"),
    ("x = |\ny", "foo(bar)", "x = foo(bar|\ny", ")"),
    ("x = |\ny", "foo(bar)", "x = foo(bar)|\ny", None),  # nothing is left
    ("x = |\ny", "foo(bar)", "x = g|\ny", None),
    ("x = |\ny", "foo(bar)", "x =|\ny", None),  # before where it was made
    ("x = |\ny", "foo(bar)", "x =  |\ny", None),
    ("x = |\ny", "foo(bar)", "x = f|)\ny", None),  # a bracket that the editor has put right of the cursor
    ("x = |\ny", "foo(bar)", "x = f|\nz", None),  # another edit below
    ("a\nx = |\ny", "foo(bar)", "b\nx = f|\ny", None),  # and above
    ("a\nx = |\ny", "foo(bar)", "a\n\nx = f|\ny", None),
    ("x = |\ny", "foo(bar)", "x = f\n|y", None),  # cursor elsewhere
    ("x = |\ny", "foo(bar)", "x = |f\ny", None),
    ("if x:|\ny", "\n    a\n    b", "if x:\n|\ny", "    a\n    b"),
    ("if x:|\ny", "\n    a\n    b", "if x:\n    |\ny", "a\n    b"),
    ("if x:|\ny", "\n    a\n    b", "if x:\n    a\n    |\ny", "b"),
    ("if x:|\ny", "\n    a\n    b", "if x:\n\t|\ny", None),
    ("if x:|\r\ny\r\n", "\n    a", "if x:\r\n    |\r\ny\r\n", "a"),
    ("s = '😀|'\n", "é𝒳!", "s = '😀é|'\n", "𝒳!"),
    ("s = '😀|'\n", "é𝒳!", "s = '😀é𝒳|'\n", "!"),
    ("|", "abc", "a|", "bc"),
    ("x|", "abc", "|x", None),
]


@pytest.mark.parametrize(("made", "text", "later", "left"), ROWS, ids=range(len(ROWS)))
def test_what_is_left(made: str, text: str, later: str, left: str | None) -> None:
    shown = Shown()
    shown.keep(*suggestion_at(made, text))
    assert rest(shown, later) == left


def test_typed_through_and_taken_back_key_by_key() -> None:
    text, shown = "foo(bar, baz)", Shown()
    shown.keep(*suggestion_at("x = |\ny", text))
    for n in [*range(len(text)), *reversed(range(len(text)))]:
        assert rest(shown, f"x = {text[:n]}|\ny") == text[n:]


def test_what_does_not_agree_is_forgotten() -> None:
    shown = Shown()
    shown.keep(*suggestion_at("x = |\ny", "foo"))
    assert rest(shown, "x = g|\ny") is None
    assert rest(shown, "x = f|\ny") is None
    shown.keep(*suggestion_at("x = |\ny", "foo"))
    assert rest(shown, "x = |\ny", anew=True) is None
    shown.keep(*suggestion_at("x = |\ny", "foo"))
    assert rest(shown, "x = f|\ny", anew=True) == "oo"  # what is shown there is no answer to another place
    shown.forget("u")
    assert rest(shown, "x = f|\ny") is None


CUT = [
    ("line", 1, True),
    ("eos", 1, True),
    ("max_tokens", FEW, True),
    ("max_tokens", FEW - 1, False),
    ("time", 1, False),
]


@pytest.mark.parametrize(("stopped_by", "n_left", "is_enough"), CUT)
def test_the_model_goes_on_where_it_was_cut_off(stopped_by: str, n_left: int, is_enough: bool) -> None:
    text, shown = "0123456789abcdef", Shown()
    shown.keep(*suggestion_at("x = |\n", text, stopped_by=stopped_by))
    document, offset = parsed(f"x = {text[:-n_left]}|\n")
    left = shown.rest(document, document.position(offset), is_wanted_anew=False)
    assert left is not None
    assert (left.suggestion.text, left.is_enough, left.suggestion.is_reused) == (text[-n_left:], is_enough, True)
    assert left.suggestion.position == document.position(offset)


def test_only_a_longer_text_takes_the_place_of_what_is_shown() -> None:
    _, shown = suggestion_at("|", "ab")
    for text, is_shown in [("ab", True), ("abc", True), ("a", False), ("x", False), ("", False)]:
        assert goes_on(shown, suggestion_at("|", text)[1]) == is_shown
    assert not goes_on(shown, None)


@pytest.mark.parametrize("at", ["start", "end"])
def test_it_takes_no_longer_in_a_large_document(at: str) -> None:
    lines = "".join(f"line {n}\n" for n in range(50_000))
    document, suggestion = suggestion_at(f"{lines}x = |\n" if at == "end" else f"x = |\n{lines}", "foo(bar)")
    shown, seconds = Shown(), []
    shown.keep(document, suggestion)
    row, start = document.place(suggestion.position)
    for n, key in enumerate("foo(ba"):
        lines_now = list(document.lines)
        lines_now[row] = lines_now[row][: start + n] + key + lines_now[row][start + n :]
        document = Document("u", "", n + 2, "utf-16", tuple(lines_now))
        position = type(suggestion.position)(row, start + n + 1)
        began = time.perf_counter()
        assert shown.rest(document, position, is_wanted_anew=False) is not None
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.005


PIECES = st.text(alphabet="ab\n\r é𝒳", max_size=6)


@given(before=PIECES, after=PIECES, text=PIECES, typed=PIECES, n_taken=st.integers(0, 3), later=PIECES)
def test_what_is_left_is_exactly_what_is_missing(
    before: str, after: str, text: str, typed: str, n_taken: int, later: str
) -> None:
    """Whatever is edited: a rest is only given where the text before, the typed text and the rest are the text before and the suggestion."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    document = new_document(uri="u", language="", version=1, text=before + after, encoding="utf-16")
    offset = len(new_document(uri="u", language="", version=1, text=before, encoding="utf-16").text)
    position = document.position(offset)
    _, made = suggestion_at("|", text)
    shown = Shown()
    shown.keep(document, replace(made, position=position))
    typed = text[: len(text) - n_taken] if later else typed
    now = document.edited([Edit(typed, position, position)], 2)
    cursor = now.position(document.offset(position) + len(typed.replace("\r\n", "\n")))
    left = shown.rest(now, cursor, is_wanted_anew=False)
    if left is None:
        return
    start, end = document.offset(position), now.offset(cursor)
    assert now.text[:end] + left.suggestion.text == document.text[:start] + text
    assert now.text[end:] == document.text[start:]


def follow(
    made: str, text: str, change: tuple[int, int, str], *, each_key: bool = True, replaces: int = 0
) -> str | None:
    """What a change says, in a word: (start, end, text) replaces characters of the document, whose cursor is at `|`."""
    shown = Shown(sends_each_key=each_key)
    document, suggestion = suggestion_at(made, text)
    shown.keep(document, replace(suggestion, id="x", replaces=replaces))
    start, end, new = change
    edit = Edit(new, document.position(start), document.position(end))
    event = shown.follow(document.edited([edit], 2), [edit])
    return None if event is None else f"{event.kind} {event.n_chars}"


FOLLOWED = [
    ("x = |\n", "foo(bar)", (4, 4, "f"), None),  # typed
    ("x = |\n", "foo(bar)", (4, 4, "foo"), "partly 3"),
    ("x = |\n", "foo(bar)", (4, 4, "foo(bar)"), "accepted 8"),
    ("x = |\n", "foo(bar)", (4, 4, "foo(bar"), "partly 7"),
    ("x = |\n", "foo(bar)", (4, 4, "food"), None),  # does not agree
    ("x = |\n", "foo(bar)", (3, 4, ""), "rejected 0"),
    ("x = |\n", "foo(bar)", (0, 4, ""), "rejected 0"),
    ("x = |\ny", "foo(bar)", (5, 6, ""), None),  # elsewhere
    ("x = |\n", "foo(bar)", (3, 4, " foo(bar)"), "accepted 8"),  # as a menu replaces what it completes
    ("f(|)\n", "a, b):", (2, 3, "a, b):"), "accepted 6"),
    ("f(|)\n", "a, b", (2, 2, "a, b"), "accepted 4"),
    ("if x:|\n", "\n    a\n    b", (5, 5, "\n    "), None),  # Enter and what the editor indents
    ("if x:|\n", "\n    a\n    b", (5, 5, "\n    a\n"), "partly 7"),
    ("if x:|\r\ny\r\n", "\n    a\n    b", (5, 5, "\r\n    a\r\n    b"), "accepted 12"),
    ("x = |\n", "f(y)", (4, 4, "f()"), "partly 2"),  # two characters, and a closer that the editor put there
]


@pytest.mark.parametrize(("made", "text", "change", "said"), FOLLOWED, ids=range(len(FOLLOWED)))
def test_what_a_change_says(made: str, text: str, change: tuple[int, int, str], said: str | None) -> None:
    replaces = 1 if said == "accepted 6" else 0
    assert follow(made, text, change, replaces=replaces) == said


def test_an_editor_that_collects_keys_has_accepted_only_what_nobody_types_at_once() -> None:
    for new, said in [("f", None), ("fo", None), ("foo", None), ("foo(bar)", "accepted 8")]:
        assert follow("x = |\n", "foo(bar)", (4, 4, new), each_key=False) == said
    assert follow("x = |\n", "ab", (4, 4, "ab"), each_key=False) is None


def test_what_was_turned_down_stays_so_at_its_place() -> None:
    shown = Shown()
    document, suggestion = suggestion_at("a\nx = |\n", "foo(bar)")
    suggestion = replace(suggestion, id="x")
    shown.keep(document, suggestion)
    assert not shown.is_turned_down(document, suggestion)
    assert not shown.turned_down("another")
    assert shown.turned_down("x")
    assert shown.is_turned_down(document, suggestion)
    further, rest_of_it = suggestion_at("a\nx = fo|\n", "o(bar)")  # the same line in the end
    assert shown.is_turned_down(further, rest_of_it)
    for marked, text in [("b\nx = |\n", "foo(bar)"), ("a\nx = |\n", "foo(baz)"), ("a\ny = |\n", "foo(bar)")]:
        assert not shown.is_turned_down(*suggestion_at(marked, text))
    shown.forget("u")
    assert not shown.is_turned_down(document, suggestion)


REPLACED = [
    # the document, characters replaced, the document later, what is left and how many characters it replaces then
    ("f(|)\n", 1, "f(a|)\n", "b):", 1),
    ("f(|)\n", 1, "f(ab)|\n", ":", 0),  # typed over
    ("f(|)\n", 0, "f(a|)\n", "b):", 0),
    ("f(|)\n", 1, "f(a|]\n", None, 0),
]


@pytest.mark.parametrize(("made", "n", "later", "left", "n_left"), REPLACED, ids=range(len(REPLACED)))
def test_closers_are_typed_over(made: str, n: int, later: str, left: str | None, n_left: int) -> None:
    shown = Shown()
    document, suggestion = suggestion_at(made, "ab):")
    shown.keep(document, replace(suggestion, replaces=n))
    now, offset = parsed(later)
    found = shown.rest(now, now.position(offset), is_wanted_anew=False)
    assert (None if found is None else (found.suggestion.text, found.suggestion.replaces)) == (
        None if left is None else (left, n_left)
    )


def test_automatic_closers_are_replaced_when_they_close_what_was_typed() -> None:
    for later, left in [("x = f(|)", ("y)", 1)), ("x = f(|]", None), ("x = f|)", None)]:
        shown = Shown()
        shown.keep(*suggestion_at("x = |", "f(y)"))
        document, offset = parsed(later)
        found = shown.rest(document, document.position(offset), is_wanted_anew=False)
        assert (None if found is None else (found.suggestion.text, found.suggestion.replaces)) == left
