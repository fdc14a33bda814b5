"""The typist's editor and the typist: keys as VS Code takes them, and any hole typed to its end, with and without suggestions."""

from pathlib import Path

import pytest

from benchmarks.feel_editor import LANGUAGES, PYTHON, Editor
from benchmarks.feel_holes import OWN, Hole, bodies, cut, insides, lines, projects_of
from benchmarks.feel_screen import Screen
from benchmarks.feel_typist import Typist, keys_alone, neighbours
from benchmarks.scratch_workspace import WorkspaceError

# Keys pressed at the end of the first text (or at "|"), and the text that stands there then. "\b" is Backspace, "\x7f" Delete, "\n" Enter.
KEYS = [
    ("", "f(", "f(|)"),
    ("", "f(a)", "f(a)|"),
    ("", "f([{", "f([{|}])"),
    ("", "f(\b", "f|"),
    ("f(|)", "\b", "f|)"),
    ("|x", "(", "(|x"),
    ("", '"a"', '"a"|'),
    ("", '"""a', '"""a|'),
    ("don", "'", "don'|"),
    ("# ", "'", "# '|"),
    ("# (", "'", "# ('|"),
    ('x = "', "'", "x = \"'|"),
    ("x = 'a' + ", "'", "x = 'a' + '|'"),
    ("'''doc\n", '"', "'''doc\n\"|"),
    ("if x:", "\n", "if x:\n    |"),
    ("if x:", "\n\b", "if x:\n|"),
    ("if x:\n    f()", "\n", "if x:\n    f()\n    |"),
    ("if x:\n    f()", "\n\n", "if x:\n    f()\n\n    |"),
    ("def f():\n    return 1", "\n", "def f():\n    return 1\n|"),
    ("", "f(\n", "f(\n    |\n)"),
    ("", "f(\n\n", "f(\n\n    |\n)"),
    ("a|b", "\x7f", "a|"),
    ("a", "\b", "|"),
    ("if x:\n      ", "\b", "if x:\n    |"),
]


@pytest.mark.parametrize(("text", "keys", "expected"), KEYS)
def test_keys(text: str, keys: str, expected: str) -> None:
    at = text.find("|") if "|" in text else len(text)
    editor = Editor(text.replace("|", ""), at, PYTHON)
    document = editor.text
    for key in keys:
        act = {"\n": editor.enter, "\b": editor.backspace, "\x7f": editor.delete}.get(key)
        change = act() if act else editor.type(key)
        document = document[: change.start] + change.text + document[change.end :]
    assert f"{editor.before}|{editor.text[editor.cursor :]}" == expected
    assert document == editor.text, "the changes say what the text has become"
    assert editor.version == 1 + len(keys)


def test_positions_count_utf16() -> None:
    editor = Editor("é😀x\n😀", 7 - 2, PYTHON)
    assert [editor.position(at) for at in range(6)] == [
        {"line": 0, "character": 0},
        {"line": 0, "character": 1},
        {"line": 0, "character": 3},
        {"line": 0, "character": 4},
        {"line": 1, "character": 0},
        {"line": 1, "character": 2},
    ]
    assert [editor.offset(editor.position(at)) for at in range(6)] == list(range(6))
    assert [editor.offset({"line": line, "character": n}) for line, n in ((0, 5), (2, 0), (0, -1))] == [None] * 3


KINDS = [
    ("x = 1", "code"),
    ("x = 'a", "string"),
    ("x = 'a'", "code"),
    ("x = 'a\\'", "string"),
    ("x = 'a\n", "code"),
    ("# don't", "comment"),
    ("# don't\n", "code"),
    ("x = '#'", "code"),
    ('"""a\n', "string"),
    ('"""a"""', "code"),
    ("f'''{a}'", "string"),
]


@pytest.mark.parametrize(("before", "kind"), KINDS)
def test_strings_and_comments(before: str, kind: str) -> None:
    assert PYTHON.kind(before) == kind


def test_a_moved_cursor_leaves_closers_behind() -> None:
    editor = Editor("x\n", 2, PYTHON)
    editor.type("(")
    editor.move(0)
    editor.move(3)
    editor.type(")")
    assert editor.text == "x\n())"


SOURCE = '''import os


def first(a, b):
    """Says 'so'."""
    if a:
        return [b, {"k": (a, b)}]

    return os.path.join(
        a,
        b,
    )


class Thing:
    name = "it's"

    def second(self):
        for each in self.first("a", b=(1, 2)):
            print(f"{each!r}: {self.name}", end="")
        return None
'''


def test_holes_are_where_they_should_be() -> None:
    found = [SOURCE[start:end] for start, end in bodies(SOURCE, 400)]
    assert [hole.split("\n")[1].strip() for hole in found] == [
        '"""Says \'so\'."""',
        'for each in self.first("a", b=(1, 2)):',
    ]
    assert all(hole.startswith("\n") and not hole.endswith("\n") for hole in found)
    assert all(40 <= end - start <= 100 for start, end in lines(SOURCE, 100))
    text = SOURCE + "f(1, 'two', three)"
    assert {text[start - 1] + text[end] for start, end in insides(text, 400)} == {"()"}


@pytest.mark.parametrize("seed", range(6))
def test_any_hole_is_typed_to_its_end(seed: int) -> None:
    spans = bodies(SOURCE, 400) + lines(SOURCE, 90) + [(0, len(SOURCE) - 1)]
    for start, end in spans:
        hole = Hole("a.py", SOURCE[:start], SOURCE[start:end], SOURCE[end:], PYTHON, "lines")
        keys = keys_alone(hole, seed=seed)
        assert 0.5 * len(hole.truth) < keys < 2 * len(hole.truth)
        assert keys == keys_alone(hole, seed=seed)


@pytest.mark.parametrize("chunk", [1, 2, 7, 30, 1000])
def test_suggestions_that_are_right_are_taken(chunk: int) -> None:
    """Whatever part of the truth is offered, what is typed in the end is the truth, with fewer keys where the parts are long."""
    start, end = bodies(SOURCE, 400)[0]
    hole = Hole("a.py", SOURCE[:start], SOURCE[start:end], SOURCE[end:], PYTHON, "body")
    typist, editor, screen = Typist(hole, seed=3), Editor(hole.opened, len(hole.before), PYTHON), Screen()
    while (act := typist.next(editor, screen)) is not None:
        typist.press(act, editor, screen)
        junk, wanted, tail = typist.left(editor)
        closers = next((n for n in range(len(tail), -1, -1) if wanted.endswith(tail[:n]) and chunk >= len(wanted)), 0)
        at = editor.position()
        end_at = editor.position(editor.cursor + closers)
        item = {"insertText": wanted[:chunk], "range": {"start": at, "end": end_at}}
        screen.edited(editor)
        screen.answered([] if junk or not wanted else [item], editor, is_invoked=True, is_reused=False)
    assert editor.text == SOURCE
    assert not [problem for problem in screen.problems if problem.kind in ("doubled", "deletes", "misplaced")]
    alone = keys_alone(hole, seed=3)
    assert (typist.n_keys < alone / 2) == (chunk >= 7)


def test_typists_hit_a_neighbour() -> None:
    assert (neighbours("a"), neighbours("g"), neighbours("p"), neighbours("(")) == ("s", "fh", "o", "")


def test_projects_of_this_machine(tmp_path: Path) -> None:
    first, second = projects_of([], rounds=2, holes=3, most_chars=200, seed=1)
    assert (first.name, second.name) == (OWN.name, "starlette")
    assert first == projects_of([], rounds=2, holes=3, most_chars=200, seed=1)[0]
    for hole in (*first.holes, *second.holes):
        assert dict((first if hole in first.holes else second).files)[hole.path] == hole.before + hole.after
        assert len(hole.truth) <= 200
    assert len({hole.path for hole in first.holes}) == 3
    with pytest.raises(WorkspaceError, match="0 files of code to type in, expected 1"):
        projects_of([tmp_path], rounds=1, holes=1, most_chars=200, seed=1)


def test_other_languages_are_typed_too() -> None:
    source = "package main\n\nfunc main() {\n\tfor i := range 3 {\n\t\tprintln(i, `it's`)\n\t}\n}\n"
    import random

    hole = cut("a.go", source, most_chars=200, chance=random.Random(1))
    assert hole is not None and hole.language is LANGUAGES[".go"]
    assert keys_alone(hole, seed=1) > 10
