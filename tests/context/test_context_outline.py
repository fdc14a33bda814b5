"""What an outline keeps of a file, in each language, and that nothing makes it fail or grow."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.grammars import _GRAMMARS
from context.outline import MAX_CHARS, MAX_SOURCE_BYTES, outline, outline_items

HOUSE = Path(__file__).parents[2]


def _case(path: Path) -> tuple[str, str]:
    text, _, expected = path.read_text(encoding="utf-8").partition("=== outline\n")
    return text, expected


# name of a file -> (its text, its outline); a file of the folder has both
CASES = {path.stem: _case(path) for path in sorted((Path(__file__).parent / "outlines").glob("*.txt"))}


@pytest.mark.parametrize("name", CASES)
def test_languages(name: str) -> None:
    text, expected = CASES[name]
    assert outline(name, text) == expected
    assert "".join(f"{item.text}\n" for item in outline_items(name, text)) == expected


def test_each_language_has_a_case() -> None:
    # tsx is TypeScript with other brackets, c a part of C++.
    covered = {id(_GRAMMARS[name.rpartition(".")[2]]) for name in (*CASES, "a.tsx", "a.c")}
    assert covered == {id(grammar) for grammar in _GRAMMARS.values()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.unknown", "def f(): pass"),
        ("Makefile", "all:\n\ttrue"),
        ("", "x"),
        ("a.py", ""),
        ("a.py", "\n\n# only a comment\n"),
        ("a.py", '"""Only this."""\n'),
        ("a.py", "print(1)\n"),
        ("a.py", "def _hidden(): pass\n"),
        ("a.h", "#ifndef A_H\n#define A_H\n#endif\n"),
        ("a.py", "x: int = 1\n" * (MAX_SOURCE_BYTES // 10)),
    ],
)
def test_no_outline(name: str, text: str) -> None:
    assert outline(name, text) is None
    assert outline_items(name, text) == ()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", "def f(a):\n    return (\n\ndef g(b): return 1\n", "def g(b): ...\n"),
        ("a.ts", "export function f(a: string) { if (\n\nexport class B { c() { return 1 } }\n", "class B"),
        ("a.c", "FOO(int) BAR\nint f(int a) { return 1; }\n", "int f(int a) { ... }\n"),
    ],
)
def test_half_typed_files(name: str, text: str, expected: str) -> None:
    assert expected in (outline(name, text) or "")


@pytest.mark.parametrize("name", ["a.py", "a.ts", "a.rs", "a.cpp", "a.rb"])
def test_long_files_have_short_outlines(name: str) -> None:
    lines = {"a.py": "def f{0}(a): return 1", "a.rb": "def f{0}(a)\nend", "a.rs": "fn f{0}(a: i32) {{}}"}
    text = "\n".join(lines.get(name, "int f{0}(int a) {{ return 1; }}").format(n) for n in range(4000))
    found = outline(name, text)
    assert found is None if name == "a.ts" else 0.9 * MAX_CHARS < len(found or "") < 1.1 * MAX_CHARS


def test_nothing_in_an_outline_is_endless() -> None:
    text = f"X = '{'x' * 90_000}'\nclass A:\n    def f(self, a='{'y' * 90_000}'): pass\n" + "class B:\n" * 3
    deep = "".join("    " * n + f"class C{n}:\n" for n in range(60))
    for source in (
        text,
        deep,
        "(" * 50_000,
        "class A {" * 9_000,
        "a(b[{" * 20_000,
        "if x:\n " * 20_000,
        "namespace a {" * 5_000,
    ):
        for end in ("py", "js", "cpp", "java"):
            start = time.thread_time()
            assert len(outline(f"a.{end}", source) or "") < 2000
            assert time.thread_time() - start < 2


def test_200_kB_take_less_than_100_ms() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((HOUSE / "lsp").glob("*.py")))
    text = (text * 9)[:200_000]
    outline("a.py", "x = 1")  # the grammar is loaded once
    spent = []
    for _ in range(3):
        start = time.thread_time()
        assert outline("a.py", text)
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.1


pieces = st.lists(
    st.sampled_from(
        [line for text, _ in CASES.values() for line in text.splitlines()]
        + ["{", "}", "(", "\n", "    ", '"""', "/*", "\x00", "\ud800", "é漢", "\r", "\t"]
    ),
    max_size=40,
).map("\n".join)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(_GRAMMARS)),
    st.one_of(pieces, st.text(alphabet=st.characters(exclude_categories=()), max_size=300)),
)
def test_any_text(end: str, text: str) -> None:
    first = outline(f"a.{end}", text)
    assert first == outline(f"a.{end}", text)
    assert first is None or first.endswith("\n")
    (first or "").encode()


def test_the_front_end_starts_without_the_parser() -> None:
    program = "import sys, lsp.server; print([name for name in sys.modules if name.startswith('tree_sitter')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
