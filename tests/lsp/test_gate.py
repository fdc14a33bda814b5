"""Where nothing is suggested, and why: each row is a document, a cursor, settings, and the reason or None."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.place import Place
from lsp.documents import Document, Edit, Position, new_document
from lsp.gate import MAX_BYTES, MAX_LINE_CHARS, Before, Gate, only_deletes
from lsp.settings import Settings

CODE = Place(kind="code", is_multi=False, why="line_end")
COMMENT = Place(kind="comment", is_multi=True, why="comment")
STRING = Place(kind="string", is_multi=False, why="string")
END = Position(0, 10**7)  # of the first line
ROOT = Path("/home/me/project")


def document(
    text: str = "x = 1\n", *, uri: str = "file:///home/me/project/a.py", language: str = "python", version: int = 1
) -> Document:
    return new_document(uri=uri, language=language, version=version, text=text, encoding="utf-16")


def why(
    of: Document,
    *,
    at: Position = END,
    place: Place = CODE,
    path: Path | None = ROOT / "a.py",
    root: Path | None = ROOT,
    is_automatic: bool = True,
    before: Before = "typed",
    **settings: Any,
) -> str | None:
    gate = Gate(Settings(**settings))
    return gate.why_not(of, at, place, path=path, root=root, is_automatic=is_automatic, before=before)


LONG = "x" * (MAX_LINE_CHARS + 1)
MINIFIED = "a=1;" * 1000
SHORT_LINES = "x = 1\n" * 5000

BY_TEXT = [
    ("x = 1\n", "python", None),
    ("", "python", None),
    (SHORT_LINES, "python", None),
    ("a" * MAX_LINE_CHARS + "\n" * 30, "python", None),
    ("x = 1\n" * (MAX_BYTES // 6), "python", None),
    ("x = 1\n" * (MAX_BYTES // 6 + 1), "python", "over 1 MB"),
    ("x = 'ä'\r\n" * (MAX_BYTES // 10), "python", None),
    ("x = 'ä'\r\n" * (MAX_BYTES // 10 + 1), "python", "over 1 MB"),
    (MINIFIED, "javascript", "minified"),
    ("// a licence\n" * 5 + MINIFIED, "javascript", "minified"),
    ("a=1;" * 400, "javascript", None),
    (MINIFIED, "markdown", None),
    (LONG, "markdown", "a line of over 5000 characters"),
    ("x = 1\0\n", "python", "binary"),
    (SHORT_LINES + "\0", "python", "binary"),
    ("\ufffd" * 30 + "x" * 100, "python", "binary"),
    ("# caf\ufffd and more words than that\n" * 9, "python", None),
]


@pytest.mark.parametrize(("text", "language", "reason"), BY_TEXT, ids=lambda value: repr(value)[:20])
def test_text(text: str, language: str, reason: str | None) -> None:
    assert why(document(text, language=language)) == reason
    assert why(document(text, language=language), is_automatic=False) == reason


BY_URI: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("file:///a.py", "python", {}, None),
    ("untitled:Untitled-1", "python", {}, None),
    ("vscode-notebook-cell:/a.ipynb#W0s", "python", {}, None),
    ("inmemory://model/1", "typescript", {}, None),
    ("vscode-scm:git/scm0/input", "scminput", {}, "a commit message"),
    ("vscode-scm:git/scm0/input", "python", {"languages": {"*": True}}, "a commit message"),
    ("output:extension-output-1", "Log", {}, "a program's output"),
    ("git:/home/me/a.py?%7B%22ref%22", "python", {}, "an older version"),
    ("fugitive:///home/me/a.py", "python", {}, "an older version"),
    ("comment://1/commentinput-1.md", "markdown", {}, "a comment in a review"),
    ("search-editor:#0.1", "search-result", {}, "search results"),
    ("file:///a.code-search", "search-result", {}, "search results"),
    ("file:///var/log/x.log", "log", {}, "a log"),
    ("file:///var/log/x.log", "log", {"languages": {"log": True}}, None),
    ("file:///a.py", "python", {"languages": {"python": False}}, "python is off in your settings"),
    ("file:///a.go", "go", {"languages": {"python": False}}, None),
    ("file:///a.go", "go", {"languages": {"*": False, "python": True}}, "go is off in your settings"),
    ("file:///a.py", "python", {"languages": {"*": False, "python": True}}, None),
    ("file:///a", "", {"languages": {"*": False}}, "this language is off in your settings"),
    ("file:///a.py", "python", {"enable": False}, "off in your settings"),
]


@pytest.mark.parametrize(("uri", "language", "settings", "reason"), BY_URI)
def test_kind_of_document(uri: str, language: str, settings: dict[str, Any], reason: str | None) -> None:
    path = Path(uri.removeprefix("file://")) if uri.startswith("file:") else None
    of = document(uri=uri, language=language)
    assert why(of, path=path, root=None, **settings) == reason
    assert Gate(Settings(**settings)).why_off(of, path=path, root=None) == reason


def test_an_empty_buffer_without_a_name_says_nothing_to_go_on_from() -> None:
    for text, reason in (("", True), ("\n", True), ("  ", True), ("x", False), ("\n\n\n", False)):
        of = document(text, uri="untitled:Untitled-1")
        assert why(of, path=None) == ("empty and without a name" if reason else None)


EXCLUDED: list[tuple[str, Path | None, tuple[str, ...], bool]] = [
    ("/home/me/project/a.py", ROOT, (), False),
    ("/home/me/project/a.py", ROOT, ("*.py",), True),
    ("/home/me/project/sub/a.py", ROOT, ("/a.py",), False),
    ("/home/me/project/sub/a.py", ROOT, ("sub/",), True),
    ("/home/me/project/sub/a.py", ROOT, ("home/",), False),
    ("/home/me/project/gen/deep/a.py", ROOT, ("gen/**", "!gen/deep/"), True),
    ("/home/me/project/a.py", ROOT, ("*.py", "!a.py"), False),
    ("/home/me/other/a.py", ROOT, ("/home/me/other/",), True),
    ("/home/me/other/a.py", None, ("other/*.py",), False),
    ("/home/me/other/a.py", None, ("**/other/*.py",), True),
    ("/home/me/project/a.py", ROOT, ("# *.py", ""), False),
]


@pytest.mark.parametrize(("path", "root", "patterns", "is_excluded"), EXCLUDED)
def test_excluded_paths(path: str, root: Path | None, patterns: tuple[str, ...], is_excluded: bool) -> None:
    found = why(document(uri=f"file://{path}"), path=Path(path), root=root, exclude=patterns)
    assert found == ("excluded in your settings" if is_excluded else None)


def test_a_workspace_that_is_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "gen").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for root, path in (("link", "real/gen/a.py"), ("real", "link/gen/a.py")):
        found = why(document(), path=tmp_path / path, root=tmp_path / root, exclude=("/gen",))
        assert found == "excluded in your settings"


AT_CURSOR: list[tuple[str, int, dict[str, Any], str | None, str | None]] = [
    # text, character, more, reason when automatic, reason when asked for by name
    ("x = foo", 7, {}, None, None),
    ("x = foo)", 7, {}, None, None),
    ("x = foo", 5, {}, "in the middle of a word", None),
    ("x = foo", 4, {}, "in the middle of a word", None),
    ("x = _foo", 4, {}, "in the middle of a word", None),
    ("x = über", 4, {}, "in the middle of a word", None),
    ("x = '\U0001f600'; y", 10, {}, "in the middle of a word", None),
    ("x = '\U0001f600'; y", 9, {}, None, None),
    ("x\r\n", 1, {}, None, None),
    ("x", 99, {}, None, None),
    ("# x", 3, {"place": COMMENT}, None, None),
    ("# x", 3, {"place": COMMENT, "disable_in": ("string",)}, None, None),
    (
        "# x",
        3,
        {"place": COMMENT, "disable_in": ("comment",)},
        "comments are off in your settings",
        "comments are off in your settings",
    ),
    (
        "'x",
        2,
        {"place": STRING, "disable_in": ("comment", "string")},
        "strings are off in your settings",
        "strings are off in your settings",
    ),
    ("x", 1, {"automatic": False}, "only when asked for, by your settings", None),
    ("x", 1, {"before": "deleted"}, "right after a deletion", None),
]


@pytest.mark.parametrize(("text", "character", "more", "automatic", "by_name"), AT_CURSOR)
def test_cursor(text: str, character: int, more: dict[str, Any], automatic: str | None, by_name: str | None) -> None:
    at = Position(0, character)
    assert why(document(text), at=at, **more) == automatic
    assert why(document(text), at=at, is_automatic=False, **more) == by_name


def test_a_long_line_is_off_and_its_neighbours_are_not() -> None:
    of = document(SHORT_LINES + LONG + "\n" + SHORT_LINES)
    assert why(of, at=Position(5000, 0), is_automatic=False) == "a line of over 5000 characters"
    assert why(of, at=Position(5001, 5)) is None


A, B = Position(0, 1), Position(2, 3)


@pytest.mark.parametrize(
    ("edits", "is_so"),
    [
        ([], False),
        ([Edit("", A, B)], True),
        ([Edit("", A, A)], False),
        ([Edit("x", A, A)], False),
        ([Edit("x", A, B)], False),
        ([Edit("", A, B), Edit("", A, B)], True),
        ([Edit("", A, B), Edit("x", A, A)], False),
        ([Edit("x")], False),
    ],
)
def test_what_deletes_only(edits: list[Edit], is_so: bool) -> None:
    assert only_deletes(edits) is is_so


def reasons(gate: Gate, of: Document) -> str | None:
    return gate.why_off(of, path=ROOT / "a.py", root=ROOT)


PIECES = st.sampled_from(["", "x", "\n", "\r\n", "é\n", "\0", "\ufffd" * 40, "ab\n" * 300, "y" * 3000, "z" * 1_000_000])


@given(st.lists(st.tuples(PIECES, st.integers(0, 700), st.integers(0, 3), st.integers(0, 5)), max_size=12))
def test_a_document_that_changes_is_judged_as_one_that_is_new(edits: list[tuple[str, int, int, int]]) -> None:
    """What is counted from one version to the next comes to what the whole text comes to."""
    gate, of = Gate(Settings()), document("x = 1\n" * 600)
    for version, (text, line, column, n_lines) in enumerate(edits, start=2):
        reasons(gate, of)
        of = of.edited([Edit(text, Position(line, column), Position(line + n_lines, 0))], version)
        assert reasons(gate, of) == reasons(Gate(Settings()), of)


def test_what_is_known_of_a_document_is_forgotten_with_it_and_never_grows_for_ever() -> None:
    gate, other = Gate(Settings()), Path("/home/me/project/b.py")
    excluding = Gate(Settings(exclude=("b.py",)))
    of = document()
    assert excluding.why_off(of, path=ROOT / "a.py", root=ROOT) is None
    assert excluding.why_off(of, path=other, root=ROOT) == "excluded in your settings"
    for i in range(1000):
        reasons(gate, document(uri=f"file:///{i}.py"))
    assert len(gate._judged) == 256
    gate.forget("file:///999.py")
    assert len(gate._judged) == 255


def test_a_key_in_a_large_document_costs_what_has_changed() -> None:
    """The lines that are looked at one by one are those of the edit, whatever the document's length."""
    looked: list[int] = []

    class Counting(str):
        def isascii(self) -> bool:
            looked.append(1)
            return super().isascii()

    lines = tuple(Counting("x = 1\n") for _ in range(30_000))
    gate = Gate(Settings())
    of = Document(uri="file:///a.py", language="python", version=1, encoding="utf-16", lines=lines)
    assert reasons(gate, of) is None
    assert len(looked) >= 30_000
    looked.clear()
    at = Position(15_000, 3)
    assert reasons(gate, of.edited([Edit("y", at, at)], 2)) is None
    assert len(looked) <= 4
