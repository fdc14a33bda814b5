"""Texts of several lines: where the model is told to stop, and what of them is shown. One row a case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.protocol import CompletionRequest
from daemon.trim import Trim


def request(prompt: str = "", rest: str = "", suffix: str = "", **more: object) -> CompletionRequest:
    wanted = {"prompt": prompt, "rest_of_line": rest, "suffix": suffix, "max_lines": 6} | more
    return CompletionRequest(**wanted)  # type: ignore[arg-type]


DEF, IF, BRACE = "def f(x):", "    if x:", "int f() {"

# prompt, rest of line, suffix; what the model says -> what is shown of it, and the reason to stop right then
ROWS = [
    # As long as it is in the block, nothing is cut.
    (DEF, "", "", "\n    y = x\n    return y", "\n    y = x\n    return y", None),
    (DEF, "", "", "\n    y = x\n    return y\n", "\n    y = x\n    return y", None),
    (DEF, "", "", "\n    if x:\n        return 1\n    return 2", "\n    if x:\n        return 1\n    return 2", None),
    ("x = ", "", "", "1\ny = 2", "1\ny = 2", None),
    # The block ends: less indentation, or as much as the line that opens it.
    (DEF, "", "", "\n    return x\ny", "\n    return x", "dedent"),
    (DEF, "", "", "\n    return x\n\n\ndef g", "\n    return x", "blank"),
    (DEF, "", "", "\n    return x\n\nz", "\n    return x", "dedent"),
    (DEF, "", "", "\ny = 1\n", "", "dedent"),
    ("def f(", "", "", "x):\n    return x\nz", "x):\n    return x", "dedent"),
    ("    y = ", "", "", "1\nz", "1", "dedent"),
    (IF, "", "", "\n        y = 1\n    z", "\n        y = 1", "dedent"),
    (IF, "", "", "\n        y = 1\n    else:\n        y = 2", "\n        y = 1\n    else:\n        y = 2", None),
    (IF, "", "", "\n        y = 1\n    el", "\n        y = 1\n    el", None),
    (IF, "", "", "\n        y = 1\n    elephant", "\n        y = 1", "dedent"),
    # Blank lines: one inside is kept, two end it, and so does one before the left margin.
    (DEF, "", "", "\n    y = 1\n\n    return y", "\n    y = 1\n\n    return y", None),
    (DEF, "", "", "\n    y = 1\n\n\n", "\n    y = 1", "blank"),
    ("", "", "", "import os\n\nx", "import os", "blank"),
    ("", "", "", "import os\nx", "import os\nx", None),
    # Braces: the closer of what was opened ends the block; what is not the gap's to close is cut.
    (BRACE, "", "", "\n  return 1;\n}", "\n  return 1;\n}", None),
    (BRACE, "", "", "\n  return 1;\n}\n", "\n  return 1;\n}", "block"),
    (BRACE, "", "}\n", "\n  return 1;\n}", "\n  return 1;", "brackets"),
    (BRACE, "", "", "\n  if (x) {\n    y();\n  }\n  z();\n", "\n  if (x) {\n    y();\n  }\n  z();", None),
    ("  if (x) {", "", "", "\n    y();\n  } else {\n    z();\n  }\n", "\n    y();\n  } else {\n    z();\n  }", "block"),
    ("f(x => {", "", "", "\n  g();\n});\n", "\n  g();\n});", "block"),
    ("f(x => {", "", "});\n", "\n  g();\n})", "\n  g();", "brackets"),
    # An automatic brace right of the cursor comes to stand on a line of its own.
    (BRACE, "}", "", "\n  return 1;\n}", "\n  return 1;\n", "brackets"),
    (BRACE, "}", "", "\n  return 1;", "\n  return 1;\n", None),
    ("  f() {", "}", "", "\n    g();\n  }", "\n    g();\n  ", "brackets"),
    # Words that close.
    ("def f(x)", "", "", "\n  x\nend\n", "\n  x\nend", "block"),
    ("def f(x)", "", "end\n", "\n  x\nend\n", "\n  x", "suffix"),
    ("  if x then", "", "  end\n", "\n    y()\n  end", "\n    y()", None),
    ("  xs.each do |x|", "", "", "\n    y\n  end\n  z", "\n    y\n  end", "block"),
    # The lines below begin to come again: the first, or two of which the first is short.
    (DEF, "", "    return result\n", "\n    result = 1\n    return result\n", "\n    result = 1", "suffix"),
    (DEF, "", "\n    return the_whole_result\n", "\n    y = 1\n    return the_whole_res", "\n    y = 1", "suffix"),
    ("{", "", "  }\n  next_one();\n", "\n    a();\n  }\n  next_one();\n", "\n    a();", "brackets"),
    ("a:", "", "  x\n  something\n", "\n  y\n  x\n  something\n", "\n  y", "suffix"),
    ("a:", "", "  x\n  something\n", "\n  y\n  x\n  others\n", "\n  y\n  x\n  others", None),
    ("if x; then", "", "fi\nnext_one\n", "\n  a\nfi\n", "\n  a", "block"),
    ("    y = ", "", "    return x\n", "1\n    return x", "1", None),
    # Lines repeat each other.
    (DEF, "", "", "\n    first(a)\n    first(a)\n", "\n    first(a)", "repetition"),
    (DEF, "", "", "\n    a = 1\n    b = 2\n    a = 1\n    b = 2\n", "\n    a = 1\n    b = 2", "repetition"),
    ("", "", "", "0, 0\n0, 0\n", "0, 0\n0, 0", None),
    ("x = f(", "", "", "a, a, a, a, a, a, ", "a, a,", "repetition"),
    # As many lines as were asked for, not counting the line break that they begin with.
    (
        DEF,
        "",
        "",
        "".join(f"\n    x{n} = {n}" for n in range(7)) + "\n",
        "".join(f"\n    x{n} = {n}" for n in range(6)),
        "lines",
    ),
    (
        DEF,
        "",
        "",
        "".join(f"\n    x{n} = {n}" for n in range(6)) + "\n",
        "".join(f"\n    x{n} = {n}" for n in range(6)),
        "lines",
    ),
    (DEF, "", "", "".join(f"\n    x{n} = {n}" for n in range(6)), "".join(f"\n    x{n} = {n}" for n in range(6)), None),
    # Another file; nothing at all.
    (DEF, "", "", "\n    return x\n+++++ b.py\n", "\n    return x", "file"),
    (DEF, "", "", "\n\n", "", None),
    (DEF, "", "", "", "", None),
    # Text right of the cursor that is more than closers: one line, as ever.
    ("x = ", "a", "", "b + a\nc", "b + ", "line"),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[3]!r}" for number, row in enumerate(ROWS)])
def test_several_lines(row: tuple[str, str, str, str, str, str | None]) -> None:
    prompt, rest, suffix, text, shown, reason = row
    for open_ended in (False, True):
        made = Trim(request(prompt, rest, suffix), open_ended=open_ended)
        assert (made.shown(text.encode()), made.stop(text.encode())) == (shown, reason)


CUT = [
    (DEF, "\n    y = x\n    ret", "\n    y = x"),
    (DEF, "\n    y = x\n", "\n    y = x"),
    (DEF, "\n    y = ", "\n    y ="),
    ("x = ", "1 + ", "1 +"),
    ("x = ", "1\ny", "1"),
    (DEF, "\n    y = x\nz = 1", "\n    y = x"),
]


@pytest.mark.parametrize(("prompt", "text", "shown"), CUT)
def test_a_line_that_was_not_finished_is_not_shown_behind_others(prompt: str, text: str, shown: str) -> None:
    made = Trim(request(prompt)).outcome(text.encode(), is_cut=True)
    assert made.text == shown
    assert text.startswith(shown)


# white space typed on the cursor's line, prompt, what the model says from column 0 on -> what is shown, why nothing; for one line
INDENTED = [
    ("    ", "def f():\n", "    return x\n", "return x", None),
    ("    ", "def f():\n", "        return x\n", "    return x", None),
    ("    ", "def f():\n", "return x\n", "", "leaves"),
    ("    ", "def f():\n", "  return x\n", "", "leaves"),
    ("    ", "    x = 1\n", "\n    return x\n", "\n    return x", None),
    ("    ", "    x = 1\n", "\n  return x\n", "", "leaves"),
    ("    ", "    x = 1\n\n", "\n    return x\n", "return x", None),
    ("    ", "def f():\n", "\n\n    return x\n", "return x", None),
    ("\t", "func f() {\n", "\treturn x\n", "return x", None),
    ("\t", "func f() {\n", "    return x\n", "return x", None),
    ("\t", "func f() {\n", "\t\treturn x\n", "\treturn x", None),
    ("\t", "func f() {\n", "            return x\n", "\t\treturn x", None),
    ("    ", "def f():\n", "\treturn x\n", "return x", None),
    ("    ", "def f():\n", "\t\treturn x\n", "    return x", None),
    ("      ", "def f():\n", "\treturn x\n", "", "leaves"),
    ("    ", "def f():\n", "    \n", "", "blank"),
    ("    ", "def f():\n", "", "", "blank"),
    ("", "def f():\n", "    return x\n", "    return x", None),
]


@pytest.mark.parametrize("max_lines", [1, 6])
@pytest.mark.parametrize("row", INDENTED, ids=[f"{number}-{row[2]!r}" for number, row in enumerate(INDENTED)])
def test_behind_typed_indentation(row: tuple[str, str, str, str, str | None], max_lines: int) -> None:
    indent, prompt, text, shown, why = row
    for open_ended in (False, True):
        made = Trim(request(prompt, indent=indent, max_lines=max_lines), open_ended=open_ended).outcome(text.encode())
        assert (made.text, made.empty_because) == (shown, why)


INDENTED_LINES = [
    ("    ", "def f():\n", "", "    y = 1\n    return y\nx", "y = 1\n    return y", "dedent"),
    ("    ", "def f():\n", "", "y", "", "dedent"),
    (
        "        ",
        "    if x:\n",
        "",
        "        y = 1\n    else:\n        y = 2\n",
        "y = 1\n    else:\n        y = 2",
        None,
    ),
    ("        ", "def f():\n    if x:\n", "", "        y = 1\nexcept E:\n", "y = 1", "dedent"),
    ("  ", "int f() {\n", "", "  return 1;\n}\n", "return 1;\n}", "block"),
    ("  ", "int f() {\n", "}\n", "  return 1;\n}\n", "return 1;", "brackets"),
    ("    ", "    x = 1\n", "    return x\n", "    y = 2\n    return x\n", "y = 2", "suffix"),
    ("    ", "def f():\n", "    return x\n", "    return x\n", "", "suffix"),
]


def test_a_brace_right_of_typed_indentation_gets_a_line_of_its_own() -> None:
    made = Trim(request("  f() {\n", "}", indent="    ")).outcome(b"    g();\n    h();\n")
    assert made.text == "g();\n    h();\n  "
    made = Trim(request("  f() {\n", "}", indent="    ")).outcome(b"    g();\n  }\n")
    assert made.text == "g();\n  "


@pytest.mark.parametrize("row", INDENTED_LINES, ids=[f"{n}-{row[3]!r}" for n, row in enumerate(INDENTED_LINES)])
def test_several_lines_behind_typed_indentation(row: tuple[str, str, str, str, str, str | None]) -> None:
    indent, prompt, suffix, text, shown, reason = row
    made = Trim(request(prompt, "", suffix, indent=indent))
    assert (made.shown(text.encode()), made.stop(text.encode())) == (shown, reason)


code = st.lists(
    st.sampled_from(
        ["a", "b = 1", " ", "    ", "\n", "\n    ", "\t", "{", "}", "(", ")", "else:", "end", "é", "🙂", '"']
    ),
    max_size=14,
).map("".join)


@given(
    code, code.map(lambda text: text.replace("\n", "")), code, code, st.sampled_from(["", "  ", "\t"]), st.booleans()
)
def test_whatever_is_said(generated: str, rest: str, suffix: str, prompt: str, indent: str, may_replace: bool) -> None:
    """Wherever the model is told to stop, the same is shown as of the whole text up to there; nothing is shown that was not said, but for indentation."""
    wanted = request(prompt, rest, suffix, indent=indent, may_replace=may_replace, max_lines=3)
    one, other = Trim(wanted), Trim(wanted)
    for end in range(len(generated) + 1):
        text = generated[:end].encode()
        assert one.stop(text) == Trim(wanted).stop(text), "what was looked at before must not matter"
        if one.stop(text) is not None:
            break
    shown = other.outcome(generated.encode())
    assert shown.text == "" or shown.text.strip()
    assert (shown.text == "") == (shown.empty_because is not None)
    assert 0 <= shown.replaces <= len(rest)
    assert may_replace or not shown.replaces
    assert shown.text.strip() in generated
    assert generated[: shown.upto].rstrip().endswith(shown.text.strip())
    assert len([line for line in shown.text.split("\n") if line.strip()]) <= 3
