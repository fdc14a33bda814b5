"""The order of several suggestions for one place: those that parse first, else as the daemon gave them, each text once."""

from dataclasses import dataclass

import pytest

from lsp import ranking
from lsp.ranking import ranked

FILE = "def f(a):\n    %s\n    return a\n"


@dataclass(frozen=True)
class Choice:
    text: str
    replaces: int = 0


def check(line: str, choices: list[str], expected: list[str], *, language: str = "python", file: str = FILE) -> None:
    text = file % line
    offset = text.index("|")
    text = text.replace("|", "", 1)
    given = [Choice(choice) for choice in choices]
    assert [choice.text for choice in ranked(text, offset, given, language=language)] == expected


# line with the cursor, choices likeliest first -> their order
ORDERS = [
    ("x = |", ["a", "b", "c"], ["a", "b", "c"]),
    ("x = |", ["a b", "b", "c"], ["b", "c", "a b"]),
    ("x = |", ["a)", "b b", "c"], ["c", "a)", "b b"]),
    ("x = |", ["a b", "a)"], ["a b", "a)"]),
    ("x = f(|)", ["a)", "b", "{"], ["b", "{", "a)"]),
    ("|", ["for b in a:", "x =", "return 1"], ["for b in a:", "return 1", "x ="]),
    # more lines do not win by themselves, and fewer do not either
    ("|", ["x = 1", "if a:\n        b = 1\n    c = 2"], ["x = 1", "if a:\n        b = 1\n    c = 2"]),
    ("|", ["if a:\n        b = 1\n    c = 2", "x = 1"], ["if a:\n        b = 1\n    c = 2", "x = 1"]),
    ("|", ["if a\n        b = 1\n    c = 2", "x = 1"], ["x = 1", "if a\n        b = 1\n    c = 2"]),
    # each text once
    ("x = |", ["a", "a", "b"], ["a", "b"]),
    ("x = |", ["a b", "a b", "a b"], ["a b"]),
    ("x = |", [], []),
    ("x = |", ["a b"], ["a b"]),
]


@pytest.mark.parametrize(("line", "choices", "expected"), ORDERS)
def test_order(line: str, choices: list[str], expected: list[str]) -> None:
    check(line, choices, expected)


@pytest.mark.parametrize("language", ["plaintext", "markdown", "", "nix"])
def test_without_a_grammar_all_stay_as_they_are(language: str) -> None:
    check("x = |", ["a b", "b", ")", "b"], ["a b", "b", ")"], language=language)


def test_the_same_text_by_two_ways_is_one() -> None:
    """`a)` in place of the editor's bracket, and `a` before it."""
    text = "x = f()\ny = 1\n"
    one, other, third = Choice("a)", replaces=1), Choice("a"), Choice("a", replaces=1)
    assert ranked(text, 6, [one, other], language="python") == [one]
    assert ranked(text, 6, [other, one], language="python") == [other]
    assert ranked(text, 6, [third, other, one], language="python") == [third, other]


def test_what_is_replaced_decides_what_parses() -> None:
    text = "x = f()\ny = 1\n"
    twice, once = Choice("a)"), Choice("b)", replaces=1)
    assert ranked(text, 6, [twice, once], language="python") == [once, twice]


def test_a_broken_file_is_ranked_by_what_gets_worse() -> None:
    check("x = |", ["a)", "b"], ["b", "a)"], file="def g(:\n\n\n" + FILE)


def test_one_choice_is_not_parsed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    monkeypatch.setattr(ranking, "Parsed", lambda *arguments: parsed.append(arguments) or pytest.fail("parsed"))
    check("x = |", ["a b"], ["a b"])
    check("x = |", ["a b", "a b"], ["a b"])
    assert not parsed
