"""What stands around a cursor: one row a case, the cursor marked in the text. And that it holds for any text, and costs little."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.families import LANGUAGE_BY_END, LANGUAGE_BY_NAME, family_of
from context.lexing import inside
from context.place import Place, language_of, place_of

CURSOR = "‸"
CODE, COMMENT, STRING = "code", "comment", "string"

# language, text with the cursor -> kind, several lines?, why
ROWS = [
    # Python: lines, arguments, blocks.
    ("python", "x = ‸", CODE, False, "line_end"),
    ("python", "x = ‸ + 1", CODE, False, "rest_of_line"),
    ("python", "x = re‸sult", CODE, False, "mid_word"),
    ("python", "x = ‸result", CODE, False, "mid_word"),
    ("python", "x = foo(‸)", CODE, False, "arguments"),
    ("python", "x = foo(a, ‸", CODE, False, "arguments"),
    ("python", "x = foo(\n    a,\n    ‸\n)", CODE, False, "arguments"),
    ("python", "x = [\n    a,\n    ‸\n]", CODE, False, "arguments"),
    ("python", "x = foo(')', '(')‸", CODE, False, "line_end"),
    ("python", "x = d['‸']", STRING, False, "string"),
    ("python", "def f(x):‸", CODE, True, "empty_body"),
    ("python", "def f(x):‸\n\n\ndef g():\n    pass\n", CODE, True, "empty_body"),
    ("python", "def f(x):‸\n    return x\n", CODE, True, "block_start"),
    ("python", "def f(x):\n    ‸", CODE, True, "empty_body"),
    ("python", "def f(x):\n    ‸\n\ndef g():\n    pass\n", CODE, True, "empty_body"),
    ("python", "def f(x):\n    ‸\n    return x\n", CODE, True, "block_start"),
    ("python", "def f(x):\n‸    return x\n", CODE, False, "rest_of_line"),
    ("python", "def f(x):\n    y = 1\n    ‸\n    return y\n", CODE, True, "blank_line"),
    ("python", "def f(x):\n    y = 1\n\n‸\n    return y\n", CODE, True, "blank_line"),
    ("python", "def f(x):\n    y = 1\n\n‸\ndef g():\n    pass\n", CODE, False, "top_level"),
    ("python", "import os\n‸\n\ndef f():\n", CODE, False, "top_level"),
    ("python", "‸", CODE, False, "top_level"),
    ("python", "    else:‸", CODE, True, "empty_body"),
    ("python", "x = {a:‸", CODE, False, "line_end"),
    ("python", "x = y[1:‸", CODE, False, "arguments"),
    ("python", "for x in foo(a):  # why‸", COMMENT, False, "comment"),
    # Python: comments and strings.
    ("python", "# a comment‸", COMMENT, False, "comment"),
    ("python", "# a comment\n‸", CODE, False, "top_level"),
    ("python", 'x = "a # b"‸', CODE, False, "line_end"),
    ("python", 'x = "it\'s‸"', STRING, False, "string"),
    ("python", "x = 'it\\'s‸'", STRING, False, "string"),
    ("python", "x = 'a'  # it's\ny = ‸", CODE, False, "line_end"),
    ("python", "x = 'not closed\ny = ‸", CODE, False, "line_end"),
    ("python", 'def f():\n    """Does ‸', COMMENT, True, "comment"),
    ("python", 'def f():\n    """Does ‸"""', COMMENT, True, "comment"),
    ("python", 'def f():\n    """Does it.\n\n    ‸\n    """', COMMENT, True, "comment"),
    ("python", 'def f():\n    """Does ‸ it."""', COMMENT, False, "rest_of_line"),
    ("python", 'def f():\n    """Does it."""\n    ‸', CODE, True, "blank_line"),
    ("python", 'x = """SELECT ‸\n"""', STRING, False, "string"),
    ("python", 'f("""SELECT\n‸\n""")', STRING, False, "string"),
    ("python", "x = r'''a \\''' ‸", STRING, False, "string"),
    ("python", 'x = f"{a}, ‸"', STRING, False, "string"),
    # JavaScript and TypeScript.
    ("javascript", "function f(x) {‸}", CODE, True, "empty_body"),
    ("javascript", "function f(x) {\n  ‸\n}", CODE, True, "empty_body"),
    ("javascript", "function f(x) {\n  ‸\n  return x\n}", CODE, True, "block_start"),
    ("javascript", "function f(x) {\n  let y\n  ‸\n}", CODE, True, "blank_line"),
    ("javascript", "const f = (x) =>‸", CODE, True, "empty_body"),
    ("javascript", "rows.map(x => ‸)", CODE, False, "arguments"),
    ("javascript", "rows.map(x => {‸})", CODE, True, "empty_body"),
    ("javascript", "rows.map(x => {\n  ‸\n})", CODE, True, "empty_body"),
    ("javascript", "foo(a, ‸);", CODE, False, "arguments"),
    ("javascript", "const s = `a ‸`", STRING, False, "string"),
    ("javascript", "const s = `a ${b.‸}`", CODE, False, "line_end"),
    ("javascript", "const s = `a ${b} ‸`", STRING, False, "string"),
    ("javascript", "const s = `a ${b(`${c}`)} ‸`", STRING, False, "string"),
    ("javascript", "const s = `a ${{b: 1}.b}`\nlet y = ‸", CODE, False, "line_end"),
    ("javascript", "const r = /['\"`]/g\nlet y = ‸", CODE, False, "line_end"),
    ("javascript", "const r = a / b; // it's ‸", COMMENT, False, "comment"),
    ("javascript", "x = 'http://a' + ‸", CODE, False, "line_end"),
    ("typescript", "/** Does\n * ‸\n */", COMMENT, True, "comment"),
    ("typescript", "/* a ‸ */ x", COMMENT, False, "rest_of_line"),
    ("typescript", "/* a ‸ */", COMMENT, True, "comment"),
    ("typescript", "interface A {\n  a: string;\n  ‸\n}", CODE, True, "blank_line"),
    ("typescriptreact", "return <div>‸</div>", CODE, False, "rest_of_line"),
    # C, C++, C#, Java, Go, Rust, Kotlin, Swift, PHP.
    ("c", "int main() {\n\t‸\n}\n", CODE, True, "empty_body"),
    ("c", "char c = '\"'; int x = ‸", CODE, False, "line_end"),
    ("c", "switch (x) {\ncase 1:‸\n", CODE, True, "empty_body"),
    ("c", "x = a ? b :‸", CODE, False, "line_end"),
    ("cpp", 'auto s = R"x(a " ) ‸)x";', STRING, False, "rest_of_line"),
    ("cpp", 'auto s = R"x(a " )x"; int y = ‸', CODE, False, "line_end"),
    ("cpp", "int x = 1'000'000; // ‸", COMMENT, False, "comment"),
    ("csharp", 'var s = @"C:\\"; var x = ‸', CODE, False, "line_end"),
    ("csharp", 'var s = @"C:\\‸"', STRING, False, "string"),
    ("java", 'String s = """\n  a "b" ‸\n""";', STRING, False, "string"),
    ("java", "class A {\n    void f() {‸\n    }\n}", CODE, True, "empty_body"),
    ("go", "s := `a \\` + ‸", CODE, False, "line_end"),
    ("go", "for i := range xs {\n\t‸\n}", CODE, True, "empty_body"),
    ("rust", "fn f<'a>(x: &'a str) -> &'a str {\n    ‸\n}", CODE, True, "empty_body"),
    ("rust", "/* a /* b */ ‸", COMMENT, True, "comment"),
    ("rust", "/* a /* b */ */ let x = ‸", CODE, False, "line_end"),
    ("rust", 'let s = r#"a "b" ‸', STRING, False, "string"),
    ("rust", "let c = '\"'; let y = ‸", CODE, False, "line_end"),
    ("rust", "match x {\n    Some(y) =>‸\n}", CODE, True, "empty_body"),
    ("kotlin", "xs.map { x ->‸}", CODE, True, "empty_body"),
    ("kotlin", "fun f() {\n    /* a /* b */ ‸ */", COMMENT, True, "comment"),
    ("swift", 'func f() {\n    let s = """\n    ‸\n', STRING, False, "string"),
    ("php", "<?php\n# it's\n$x = ‸", CODE, False, "line_end"),
    ("php", "<?php\n#[Attribute('a')]\n$x = <<<EOT\n it's ‸", STRING, False, "string"),
    # Ruby, shell, Lua, YAML, SQL, HTML, Lisp, Haskell and others.
    ("ruby", "xs.each do |x|‸", CODE, True, "empty_body"),
    ("ruby", "def f(x)\n  ‸\nend", CODE, True, "empty_body"),
    ("ruby", 's = "#{x} ‸"', STRING, False, "string"),
    ("ruby", "x = 1 # it's‸", COMMENT, False, "comment"),
    ("ruby", "s = <<~TEXT\n  it's ‸\nTEXT\n", STRING, False, "string"),
    ("ruby", "s = <<~TEXT\n  it's\nTEXT\nx = ‸", CODE, False, "line_end"),
    ("ruby", "=begin\n‸\n=end\n", COMMENT, True, "comment"),
    ("shellscript", "if true; then‸", CODE, True, "empty_body"),
    ("shellscript", "echo ${x#y} $# it\\'s ‸", CODE, False, "line_end"),
    ("shellscript", "cat <<'EOF'\nit's ‸\nEOF\n", STRING, False, "string"),
    ("shellscript", "cat <<EOF\nit's\nEOF\n# ‸", COMMENT, False, "comment"),
    ("lua", "for i = 1, 3 do\n  ‸\nend", CODE, True, "empty_body"),
    ("lua", "local f = function(a, b)‸", CODE, True, "empty_body"),
    ("lua", "--[==[ a ]] ‸", COMMENT, True, "comment"),
    ("lua", "-- it's\nlocal s = [[ a ‸", STRING, False, "string"),
    ("yaml", "jobs:\n  build:‸\n", CODE, True, "empty_body"),
    ("yaml", "name: it's a # don't ‸", COMMENT, False, "comment"),
    ("yaml", "name: it's a#b ‸", CODE, False, "line_end"),
    ("sql", "SELECT 'it''s', ‸", CODE, False, "line_end"),
    ("sql", "SELECT a -- it's ‸", COMMENT, False, "comment"),
    ("html", '<a href="‸">', STRING, False, "string"),
    ("html", "<p>it's ‸", CODE, False, "line_end"),
    ("html", "<div>\n  ‸\n</div>", CODE, True, "empty_body"),
    ("html", "<!-- a ‸ -->", COMMENT, True, "comment"),
    ("html", "<script>\nconst s = `${a} ‸`\n</script>", STRING, False, "string"),
    ("html", "<script>\nlet x = 'a'\n</script>\n<p>it's ‸", CODE, False, "line_end"),
    ("vue", "<style>\na { /* ‸", COMMENT, True, "comment"),
    ("clojure", "(defn f [x]\n  ‸)", CODE, True, "blank_line"),
    ("lisp", '(f "a ; ‸")', STRING, False, "string"),
    ("lisp", "#| a #| b |# ‸", COMMENT, True, "comment"),
    ("haskell", "f' x = x -- it's ‸", COMMENT, False, "comment"),
    ("haskell", "f x = x --> y ‸", CODE, False, "line_end"),
    ("haskell", "{- a {- b -} ‸", COMMENT, True, "comment"),
    ("haskell", "main = do‸", CODE, True, "empty_body"),
    ("elixir", "def f(x) do\n  ‸\nend", CODE, True, "empty_body"),
    ("toml", "a = '\\' # ‸", COMMENT, False, "comment"),
    ("css", "a {\n  ‸\n}", CODE, True, "empty_body"),
    ("css", "a { background: url(//x.y/‸", CODE, False, "arguments"),
    ("json", '{\n  "a": "b ‸"', STRING, False, "string"),
    ("dockerfile", "RUN a # it's\nRUN ‸", CODE, False, "line_end"),
    ("ocaml", "let x = (* a (* b *) ‸", COMMENT, True, "comment"),
    ("powershell", "<# it's ‸", COMMENT, True, "comment"),
    ("latex", "100\\% of % it ‸", COMMENT, False, "comment"),
    ("markdown", "Some text, it's ‸", CODE, False, "prose"),
    ("plaintext", "- a\n  ‸\n  - b", CODE, False, "prose"),
    ("git-commit", "Add it's ‸", CODE, False, "prose"),
    # A language that nobody knows.
    ("brainstorm", "f(x) {\n  ‸\n}", CODE, True, "empty_body"),
    ("brainstorm", "see http://a.b ‸", CODE, False, "line_end"),
    ("", "x = 1 // it's ‸", COMMENT, False, "comment"),
    ("", 'x = "a ‸', STRING, False, "string"),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{number}" for number, row in enumerate(ROWS)])
def test_a_place(row: tuple[str, str, str, bool, str]) -> None:
    language, marked, kind, is_multi, why = row
    offset = marked.index(CURSOR)
    assert place_of(marked.replace(CURSOR, ""), offset, language=language) == Place(kind, is_multi, why)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{number}" for number, row in enumerate(ROWS)])
def test_a_place_far_down_a_file(row: tuple[str, str, str, bool, str]) -> None:
    """What is above and closed changes neither the comment nor the string that a place is in; the lines far above are remembered, not read again."""
    language, marked, kind, _, _ = row
    if marked.startswith(("=", "<?php")):
        return  # what they begin with must stand at the start
    text = "word word\n" * 700 + "\n" + marked
    offset = text.index(CURSOR)
    for _ in range(2):
        assert place_of(text.replace(CURSOR, ""), offset, language=language).kind == kind


OPENED_FAR_ABOVE = [
    ("python", '"""', '"""', COMMENT),
    ("c", "/*", "*/", COMMENT),
    ("rust", "/* /*", "*/ */", COMMENT),
    ("javascript", "`", "`", STRING),
    ("javascript", "x = `${f(", ")}`", CODE),
    ("html", "<script> let x = `", "`</script>", STRING),
    ("lua", "--[[", "]]", COMMENT),
]


@pytest.mark.parametrize(("language", "opening", "closing", "kind"), OPENED_FAR_ABOVE)
def test_what_was_opened_far_above(language: str, opening: str, closing: str, kind: str) -> None:
    text = opening + "\nsome words\n" * 1500
    assert place_of(text, len(text), language=language).kind == kind
    assert place_of(text + closing + "\n", len(text + closing) + 1, language=language).kind == CODE


NAMES = [
    ("a/b.py", "python"),
    ("C:\\a\\B.TSX", "typescriptreact"),
    ("Makefile", "makefile"),
    ("src/CMakeLists.txt", "cmake"),
    ("a.test.js", "javascript"),
    ("x.unknown", ""),
    ("py", ""),
    ("", ""),
    ("a.d/readme", ""),
]


@pytest.mark.parametrize(("path", "language"), NAMES)
def test_a_language_by_name(path: str, language: str) -> None:
    assert language_of(path) == language


def test_each_language_that_a_name_has_is_known() -> None:
    unknown = family_of("a language that nobody has made")
    for language in {*LANGUAGE_BY_END.values(), *LANGUAGE_BY_NAME.values()}:
        assert family_of(language) is not unknown, language


LANGUAGES = sorted({row[0] for row in ROWS})
pieces = st.lists(
    st.sampled_from([*"ab \n\t'\"`#/*-{}()[]<>\\$;:|=@%!?", "${", '"""', "<<E\n", "/*", "*/", "script>"]), max_size=40
)


@given(pieces.map("".join), pieces.map("".join), st.sampled_from(LANGUAGES))
def test_any_text_has_a_place(above: str, below: str, language: str) -> None:
    """The words are those that are promised, one line is all where something stands to the right, and what is below changes no comment or string."""
    place = place_of(above + below, len(above), language=language)
    assert place.kind in (CODE, COMMENT, STRING)
    assert place.why in (
        *("rest_of_line", "mid_word", "comment", "string", "arguments", "line_end", "block_start"),
        *("empty_body", "blank_line", "top_level", "prose"),
    )
    if place.why in ("rest_of_line", "mid_word", "arguments", "string", "line_end", "top_level", "prose"):
        assert not place.is_multi
    found = inside(above + below, len(above), family_of(language))
    assert found == inside(above, len(above), family_of(language))


def test_a_long_file_costs_little() -> None:
    """Looking again at a file of 2,000 lines after a key takes well under a millisecond; the bound is loose, for a busy machine."""
    text = "def function(first, second):\n    # It isn't much.\n    return 'first' + \"second\"\n\n" * 500
    place_of(text, len(text), language="python")
    started = time.process_time()
    for n in range(50):
        place_of(text + "x" * n, len(text) + n, language="python")
    assert (time.process_time() - started) / 50 < 0.002
