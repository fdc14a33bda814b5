"""What the screen complains about, and what it does not: ghost text through typing, closing brackets, other answers, Esc."""

from typing import Any

import pytest

from benchmarks.feel_editor import PYTHON, Editor
from benchmarks.feel_figures import failures, figure_table, figures, is_broken, quantile
from benchmarks.feel_holes import Hole
from benchmarks.feel_picture import as_svg, in_terminal, write_trace
from benchmarks.feel_replay import STYLES, Answer, Judged, Moment, Played
from benchmarks.feel_screen import PROBLEMS, Problem, Screen, is_surplus
from benchmarks.feel_superseded import Superseded


def item(editor: Editor, text: str, *, before: int = 0, replaces: int = 0, name: str | None = None) -> dict[str, Any]:
    """A suggestion at the cursor, its range reaching to both sides."""
    start, end = editor.position(editor.cursor - before), editor.position(editor.cursor + replaces)
    command = {"command": {"title": "", "command": "codestral.accept", "arguments": [name]}} if name else {}
    return {"insertText": text, "range": {"start": start, "end": end}, **command}


def play(text: str, steps: list[tuple[str, Any]]) -> tuple[Screen, Editor]:
    """("key", characters), ("model" | "reused" | "asked" | "unseen", texts), ("esc", None), ("back", None)."""
    editor, screen = Editor(text, len(text), PYTHON), Screen()
    for what, value in steps:
        if what == "key":
            for char in value:
                editor.type(char)
                screen.edited(editor)
        elif what == "back":
            screen.reject(editor, "offered_again_after_backspace")
            editor.backspace()
            screen.edited(editor)
        elif what == "esc":
            screen.reject(editor, "offered_again")
        else:
            items = [
                item(editor, each) if isinstance(each, str) else item(editor, *each[:1], **each[1]) for each in value
            ]
            if what == "unseen":
                screen.unseen(items, editor)
                continue
            screen.answered(items, editor, is_invoked=what == "asked", is_reused=what == "reused")
    return screen, editor


SCREENS = [
    # text, what happens, what is grey then, the complaints
    ("x = ", [("model", ["foo(a)"])], "foo(a)", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "fo")], "o(a)", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "foo(")], "a)", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "foo(a)")], "", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "x")], "", []),
    ("x = ", [("model", ["foo"]), ("key", "f"), ("reused", ["oo"])], "oo", []),
    ("x = ", [("model", ["foo"]), ("key", "f"), ("model", ["oo + 1"])], "oo + 1", []),
    ("x = ", [("model", ["foo"]), ("key", "f"), ("model", ["ar"])], "ar", ["flicker"]),
    ("x = ", [("model", ["foo"]), ("key", "f"), ("model", ["o"])], "o", ["flicker"]),
    ("x = ", [("model", ["foo"]), ("key", "f"), ("model", [])], "", ["vanished"]),
    ("x = ", [("model", ["foo"]), ("key", "b"), ("model", ["ar"])], "ar", []),
    ("x = ", [("model", ["foo"]), ("key", "b"), ("model", [])], "", []),
    ("x = ", [("model", ["foo"]), ("asked", ["bar", "baz"])], "bar", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "foo("), ("reused", [("a)", {"replaces": 1})])], "a)", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "foo("), ("reused", ["a"])], "a", []),
    ("x = ", [("model", ["foo(a"]), ("key", "foo("), ("reused", ["a"])], "a", []),
    ("x = ", [("model", ["foo(a)"]), ("key", "f"), ("reused", ["foo(a)"])], "foo(a)", ["flicker", "stale"]),
    ("x = ", [("reused", ["foo"])], "foo", ["stale"]),
    ("x = ", [("model", ["f()"]), ("key", "f("), ("reused", [])], "", []),
    ("x = ", [("model", ["f()"]), ("key", "f()"), ("model", [" + 1"])], " + 1", []),
    ("x = ", [("unseen", ["foo"]), ("reused", ["foo"])], "foo", []),
    ("x = ", [("model", ["foo"]), ("esc", None)], "", []),
    ("x = ", [("model", ["foo"]), ("esc", None), ("reused", ["foo"])], "foo", ["offered_again"]),
    ("x = ", [("model", ["foo"]), ("esc", None), ("asked", ["foo"])], "foo", []),
    ("x = ", [("model", ["foo"]), ("esc", None), ("key", "f"), ("model", ["oo"])], "oo", []),
    (
        "x = ",
        [("model", ["foo"]), ("esc", None), ("key", "z"), ("back", None), ("model", ["foo"])],
        "foo",
        ["offered_again"],
    ),
    (
        "x = ",
        [("key", "a"), ("model", ["b"]), ("back", None), ("key", "a"), ("model", ["b"])],
        "b",
        ["offered_again_after_backspace"],
    ),
    ("x = f", [("model", [("foo", {"before": 1})])], "oo", []),
    ("x = f", [("model", [("goo", {"before": 1})])], "", ["misplaced"]),
    ("x = ", [("asked", ["foo", "foo"])], "foo", ["equal_alternatives"]),
]


@pytest.mark.parametrize(("text", "steps", "grey", "complaints"), SCREENS)
def test_the_screen(text: str, steps: list, grey: str, complaints: list[str]) -> None:
    screen, editor = play(text, steps)
    assert screen.visible(editor) == grey
    assert [problem.kind for problem in screen.problems] == complaints


def test_a_suggestion_may_replace_closers_and_nothing_else() -> None:
    for typed, text, complaints in (("f(", "a)", []), ("f", "oo", ["deletes"])):
        editor, screen = Editor("x", 0, PYTHON), Screen()
        editor.text, editor.cursor = ("", 0) if typed == "f(" else ("z", 0)
        for char in typed:
            editor.type(char)
        screen.answered([item(editor, text, replaces=1)], editor, is_invoked=False, is_reused=False)
        assert [problem.kind for problem in screen.problems] == complaints


SURPLUS = [
    (")", "a)", False),
    (")", "a", True),
    (")", "(a)", True),
    (")", "(a))", False),
    ("])", "a])", False),
    ("])", "a)]", True),
    ("\n)", "a,\n)", False),
    ("'", "a'", False),
    ("'", "a\n'", True),
    ("", "", False),
]


@pytest.mark.parametrize(("tail", "wanted", "surplus"), SURPLUS)
def test_closers_that_nothing_is_open_for(tail: str, wanted: str, surplus: bool) -> None:
    assert is_surplus(tail, wanted) is surplus


def test_a_doubled_closer_is_seen_after_accepting() -> None:
    for replaces, complaints in ((0, ["doubled"]), (1, [])):
        editor, screen = Editor("", 0, PYTHON), Screen()
        editor.type("(")
        screen.answered([item(editor, "a)", replaces=replaces)], editor, is_invoked=False, is_reused=False)
        ghost = screen.ghost
        assert ghost is not None
        editor.accept(editor.cursor, len(editor.text) - len(ghost.after), "a)")
        screen.accepted(editor, wanted="", tail=editor.text[editor.cursor :], was_surplus=False)
        assert [problem.kind for problem in screen.problems] == complaints


HOLE = Hole("a.py", "x = ", "foo(a)\ny = 2", "\n", PYTHON, "lines")


def played() -> Played:
    """A hole with every kind of answer, two suggestions and two complaints."""
    kinds = ["reused"] * 19 + ["model", "empty", "superseded"]
    return Played(
        HOLE,
        STYLES[0],
        n_keys=9,
        accepted=[5, 2],
        answers=[Answer(kind, 1.0 + number, False) for number, kind in enumerate(kinds)],
        shown=[Judged("x = \n", 4, "foo(a)", 0, HOLE.truth), Judged("x = \n", 4, "foo() 1 = (", 0, HOLE.truth)],
        problems=[Problem("flicker", "a -> b"), Problem("flicker", "a -> b")],
        moments=[
            Moment(0.0, "type 'f'", "x = f", 5, "oo\n<1>"),
            Moment(3.0, "answer", "x = f", 5, "oo\n<1>", "reused"),
        ],
    )


def test_figures_add_up() -> None:
    ended = [Superseded(20, 3.0, 4.0), Superseded(20, 9.0, 4.0), Superseded(20, 0.0, 0.0)]
    found = figures([played()], {"a.py": 12}, ended)
    assert found["problems"] == {name: 2 if name == "flicker" else 0 for name in PROBLEMS}
    assert (found["keys_saved_share"], found["accepted_characters_per_key"]) == (0.25, 7 / 9)
    assert (found["without_model_share"], found["reused_ms"]) == (0.95, [10.0, 19.0, 19.0])
    assert (found["shown"], found["right_share"], found["right_in_part_share"]) == (2, 0.5, 0.5)
    assert (found["judged_by_parser"], found["breaking_share"]) == (2, 0.5)
    assert found["superseded"]["steps_after"] == [0, 2, 2]
    assert failures(found) == [
        "flicker: 2, expected 0",
        "typed through: p95 19.0 ms, expected at most 5",
        "superseded requests: p95 2 steps for nobody, expected at most 1",
    ]
    assert "flicker: visible text" in figure_table(found)
    empty = figures([Played(HOLE, STYLES[0], n_keys=12)], {"a.py": 12}, [])
    assert (empty["reused_ms"], empty["right_share"], failures(empty)) == (None, None, [])
    assert figure_table(empty)


def test_quantiles_are_of_the_values() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], q) for q in (0.0, 0.5, 0.95)] == [1.0, 3.0, 4.0]


def test_what_breaks_a_file_is_told() -> None:
    assert is_broken(Judged("x = \n", 4, "foo(a)", 0, ""), played()) is False
    assert is_broken(Judged("x = \n", 4, ") 1 = (", 0, ""), played()) is True


def test_pictures(tmp_path) -> None:
    text = in_terminal(played(), colour=False)
    assert "x = f|⟨oo⏎<1>⟩" in text
    assert len(text.splitlines()) == 2, "an answer that changes nothing is not a row"
    svg = as_svg(played())
    assert "oo⏎&lt;1&gt;" in svg and svg.endswith("</svg>\n")
    path = tmp_path / "trace.jsonl"
    write_trace(path, [played()])
    assert len(path.read_text().splitlines()) == 3
