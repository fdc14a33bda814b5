"""Whether a text still parses with something in it: what is typed, begun, closed twice or broken, in every language with a grammar.

A row has a cursor in it, `|`; what stands there is what has been typed so far.
"""

import random
import time

import pytest

from context.families import LANGUAGE_BY_END
from context.grammars import _GRAMMARS
from context.parses import MAX_SOURCE_BYTES, Parsed, breaks, n_errors

PYTHON = "import os\n\n\nclass A:\n    x = 1\n\n    def f(self, a):\n        %s\n        return a\n\n    def g(self):\n        pass\n"
SCRIPT = "function f(a) {\n  %s\n  return a;\n}\n\nclass B {\n  g() { return 1; }\n}\n"
JSX = "function F() {\n  return (\n    <div>\n      %s\n    </div>\n  );\n}\n"
RUBY = "class A\n  def f(a)\n    %s\n    a\n  end\nend\n"
GO = "package a\n\nfunc f(a int) int {\n\t%s\n\treturn a\n}\n\nfunc g() {}\n"
BRACES = {
    "go": GO,
    "typescript": SCRIPT,
    "rust": "fn f(a: i32) -> i32 {\n    %s\n    return a;\n}\n\nfn g() {}\n",
    "java": "class A {\n    int f(int a) {\n        %s\n        return a;\n    }\n}\n",
    "kotlin": "fun f(a: Int): Int {\n    %s\n    return a\n}\n\nfun g() {}\n",
    "csharp": "class A {\n    int F(int a) {\n        %s\n        return a;\n    }\n}\n",
    "php": "<?php\nfunction f($a) {\n    %s\n    return $a;\n}\n",
    "c": "int f(int a) {\n    %s\n    return a;\n}\n\nint g(void) { return 1; }\n",
    "cpp": "int f(int a) {\n    %s\n    return a;\n}\n\nint g() { return 1; }\n",
    "cuda-cpp": "__global__ void f(int a) {\n    %s\n    return;\n}\n",
    "typescriptreact": SCRIPT,
    "javascriptreact": SCRIPT,
}


def check(language: str, file: str, line: str, inserted: str, *, replaces: int = 0) -> bool | None:
    text = file % line
    offset = text.index("|")
    return breaks(text.replace("|", "", 1), offset, inserted, replaces=replaces, language=language)


# language, file, line with the cursor, what is inserted -> whether it breaks the file
ROWS = [
    # ends what was begun
    ("python", PYTHON, "x = foo(|", "a, b)", False),
    ("python", PYTHON, "x = |", "foo(a)", False),
    ("python", PYTHON, "x = foo(|", "a b)", True),
    ("python", PYTHON, "x = foo(|)", "a, b", False),
    ("python", PYTHON, "x = foo(|)", "a, b)", True),
    ("python", PYTHON, "|", "x = foo(a)", False),
    ("python", PYTHON, "|", "x = foo(a))", True),
    ("python", PYTHON, "|", "a b", True),
    ("python", PYTHON, "|", "x =", True),
    ("python", PYTHON, "x|", "))", True),
    ("python", PYTHON, "|", "else:", True),
    ("python", PYTHON, "|", "/* a", True),
    # begins what is to come
    ("python", PYTHON, "|", "if a:", False),
    ("python", PYTHON, "x = foo(|", "a,", False),
    ("python", PYTHON, "x = foo(|)", "a, {", False),
    ("python", PYTHON, "|", "return [", False),
    ("python", PYTHON, "|", '"""Doc', False),
    ("python", PYTHON, "|", "@property", False),
    ("python", PYTHON, "@|", "lru_cache(maxsize=1, key=(", False),
    ("python", PYTHON, "|", "@property foo", True),
    # goes on with a string or comment of several lines, also where nothing ends it yet
    ("python", "%s", 'def f():\n    """Does what|', " it (says", False),
    ("python", "%s", 'def f():\n    """Does what|', ' it says"""', False),
    ("c", "%s\nint f(void);\n", "/* what|", " it (says", False),
    ("python", PYTHON, "|", "x = {'a': [1, (", False),
    ("python", PYTHON, "|", "for b in a:\n            print(b)\n", False),
    ("python", PYTHON, "|", "for b in a:\n            print(b\n", False),
    ("python", PYTHON, "|", "for b in a\n            print(b)\n", True),
    ("javascript", SCRIPT, "|", "if (a) {", False),
    ("javascript", SCRIPT, "if| ", "(a) {", False),
    ("javascript", SCRIPT, "|", "const x = foo(a, (b) => {", False),
    ("javascript", SCRIPT, "foo(|)", "(b) => {", False),
    ("javascript", SCRIPT, "|", "/** Doc", False),
    ("javascript", SCRIPT, "|", "const x = `abc", False),
    ("javascript", SCRIPT, "|", "return (", False),
    ("javascript", SCRIPT, "|", "a b", True),
    ("javascript", SCRIPT, "|", "} else {", True),
    ("javascriptreact", JSX, "|", "<span>", False),
    ("javascriptreact", JSX, "|", "<A b={1}/>", False),
    ("javascriptreact", JSX, "|", "</B>", True),
    ("javascriptreact", JSX, "|", "{x.map((y) => (", False),
    ("typescriptreact", SCRIPT, "|", "const x: Promise<string> = foo(", False),
    ("ruby", RUBY, "|", "if a", False),
    ("ruby", RUBY, "|", "a.each do |b|", False),
    ("ruby", RUBY, "|", "x = foo(", False),
    ("ruby", RUBY, "|", "a b c )", True),
    ("nix", "{ %s }", "|", "}}}", None),
    *((language, file, "|", "{", False) for language, file in BRACES.items()),
    *((language, file, "|", "foo(", False) for language, file in BRACES.items()),
    *((language, file, "|", "a = )", True) for language, file in BRACES.items()),
    *((language, file, "|", "}", True) for language, file in BRACES.items()),
]


@pytest.mark.parametrize(("language", "file", "line", "inserted", "expected"), ROWS)
def test_what_breaks_a_file(language: str, file: str, line: str, inserted: str, expected: bool | None) -> None:
    assert check(language, file, line, inserted) is expected


def test_what_is_replaced_counts_as_gone() -> None:
    assert check("python", PYTHON, "x = foo(|)", "a)", replaces=1) is False
    assert check("python", PYTHON, "x = foo(|)", "a)", replaces=0) is True
    assert (
        check("python", PYTHON, "x = foo(|)", "a", replaces=1) is False
    )  # what opens is not closed here: that may come
    assert check("python", PYTHON, "x = foo(a|))", "", replaces=1) is False


# text -> errors
ERRORS = [
    ("", 0),
    ("x = 1\n", 0),
    ("x = \n", 1),
    ("x = (\ny = 2\n", 1),
    ("def f(:\n    pass\n", 1),
    ("class A:\r\n    x = 'é🙂'\r\n", 0),
]


@pytest.mark.parametrize(("text", "expected"), ERRORS)
def test_errors_are_counted(text: str, expected: int) -> None:
    assert n_errors(text, "python") == expected


def test_a_file_that_was_broken_elsewhere_is_no_excuse_and_no_blame() -> None:
    file = "def broken(:\n    pass\n\n\n" + PYTHON
    assert n_errors(file % "", "python") == 1
    assert check("python", file, "x = |", "foo(a)") is False
    assert check("python", file, "|", "x = foo(a))") is True
    assert check("python", file, "|", "if a:") is False


def test_line_ends_and_other_scripts_do_not_matter() -> None:
    file = "# ✓ é🙂 \ud800\n" + PYTHON
    for text in (file, file.replace("\n", "\r\n")):
        at = text.index("%s")
        whole = text.replace("%s", "")
        assert breaks(whole, at, "y = '🙂' + foo(a)", replaces=0, language="python") is False
        assert breaks(whole, at, "y = '🙂' + foo(a", replaces=0, language="python") is False
        assert breaks(whole, at, "y = '🙂' + foo a", replaces=0, language="python") is True


def test_every_language_with_a_grammar_can_be_asked() -> None:
    """By the name that editors use for files of each ending."""
    for end in _GRAMMARS:
        if (language := LANGUAGE_BY_END.get(end)) is not None:
            assert n_errors("", language) == 0, (end, language)
    assert n_errors("", "cuda-cpp") == 0
    for unknown in ("", "plaintext", "no such language", "py"):
        assert n_errors("x = (", unknown) is None


def test_a_text_that_is_too_large_or_takes_too_long_is_not_judged() -> None:
    assert n_errors("x = 1\n" * (MAX_SOURCE_BYTES // 6 + 1), "python") is None
    assert breaks("x = 1\n" * (MAX_SOURCE_BYTES // 6 + 1), 0, "))", replaces=0, language="python") is None
    started = time.perf_counter()
    found = n_errors("((((a<b>{" * 20_000, "cpp")
    assert found is None or found > 0
    assert time.perf_counter() - started < 20


def test_parts_that_stay_are_parsed_as_if_anew() -> None:
    """The same count with the old tree's parts as from nothing, in broken files too."""
    rng = random.Random(1)
    words = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        "x",
        " = ",
        "def f",
        "\n",
        "\n    ",
        "if a",
        "return",
        '"',
        "'''",
        "é",
        ",",
    ]
    for language, file in [
        ("python", PYTHON),
        ("javascript", SCRIPT),
        ("go", GO),
        ("ruby", RUBY),
        ("cpp", BRACES["cpp"]),
    ]:
        for _ in range(60):
            text = file % "".join(rng.choices(words, k=rng.randrange(6)))
            start = rng.randrange(len(text))
            end = min(len(text), start + rng.choice([0, 0, 1, 5]))
            inserted = "".join(rng.choices(words, k=rng.randrange(1, 6)))
            whole = text[:start] + inserted + text[end:]
            found = Parsed(text, language)._errors_with(start, end, inserted)
            assert found == n_errors(whole, language), (language, text, start, end, inserted)
