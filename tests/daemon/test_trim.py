"""What of a generated text is shown, and where the model is told to stop: one row a case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.brackets import closable_brackets, open_brackets, unopened_brackets
from daemon.overrun import overrun_of
from daemon.protocol import CompletionRequest
from daemon.trim import Trim, line_stop, outcome_of, trimmed


def request(prompt: str = "", rest: str = "", suffix: str = "", stop: tuple[str, ...] = ()) -> CompletionRequest:
    return CompletionRequest(prompt=prompt, rest_of_line=rest, suffix=suffix, stop=list(stop))


def check(
    shown: str, generated: str | bytes, rest: str = "", suffix: str = "", prompt: str = "", stop: tuple[str, ...] = ()
) -> None:
    text = generated.encode() if isinstance(generated, str) else generated
    assert trimmed(text, request(prompt, rest, suffix, stop)) == shown


# shown, generated, rest of line, suffix, prompt, stop strings
ROWS = [
    # One line, without what stands after it.
    ("", "", "", "", "", ()),
    ("x", "x", "", "", "", ()),
    ("x", "x\n", "", "", "", ()),
    ("x", "x\ny", "", "", "", ()),
    ("x", "x  \t\ny", "", "", "", ()),
    (" x", " x", "", "", "", ()),
    ("return x", "return x\n\n\n", "", "", "    ", ()),
    ("", "   ", "", "", "", ()),
    ("", "\n", "", "", "", ()),
    ("", "\n\n  \n", "", "", "", ()),
    ("x = 1", "x = 1\r\ny", "", "", "", ()),
    # In front of other text only what leads up to it.
    ("", "args, **kwargs):", ") for arg in args]".replace(")", "name", 1), "", "[Row(", ()),
    ("lines(", "lines(text) if x:", "text) if x:  # why", "", "for line in ", ()),
    ("self.", "self.rows.tuple()", "rows.tuple() + 1", "", "return ", ()),
    ("", "x", ".tuple", "", "return rows", ()),
    # The same three times in a row is shown once; indentation and drawn lines are not meant.
    ("a, name: str", "a, name: str, name: str, name: str,", "", "", "f(", ()),
    ("\n            return 1", "\n            return 1\n", "", "", "def f():", ()),
    ("----------------", "----------------", "", "", "# ", ()),
    # At the end of a line it may begin with a line break and write one more line.
    ("\n    return 1", "\n    return 1\n", "", "", "def f():", ()),
    ("\n    return 1", "\n    return 1\n    more", "", "", "def f():", ()),
    ("\n\n    y", "\n\n    y\nz", "", "", "def f():", ()),
    ("\n    return 1", "\n    return 1\n", "   ", "", "def f():", ()),
    # In front of other text it may not.
    ("", "\n    return 1", ")", "", "f(", ()),
    ("a", "a\nb", ")", "", "f(", ()),
    # What stands to the right already is not repeated.
    ("a, b", "a, b)", ")", "", "f(", ()),
    ("g(a)", "g(a))", ")", "", "f(", ()),
    ("a", "a):", "):", "", "f(", ()),
    ("a", "a):", "):  # why", "", "f(", ()),
    ("a", "a)", "):", "", "f(", ()),
    ("", ")", ")", "", "f(", ()),
    ("", "):", "):", "", "f(", ()),
    ("a", "a", ")", "", "f(", ()),
    ("a", "a + b", " + b", "", "x = ", ()),
    ("a", "a +", " + b", "", "x = ", ()),
    ("a", "a+ b", " + b", "", "x = ", ()),
    ("a ", "a + b", "+ b", "", "x = ", ()),
    ('key"', 'key"]', "]", "", 'd["', ()),
    ("key", 'key"]', '"]', "", 'd["', ()),
    ("", '"]', '"]  ', "", 'd["', ()),
    ("日本", "日本」", "」", "", "「", ()),
    ("f(x)", "f(x)", "  ", "", "", ()),
    # Stop strings, the first that occurs, and the header of another file.
    ("a", "a;b;c", "", "", "", (";",)),
    ("a", "a;b.c", "", "", "", (".", ";")),
    ("a", "a;b.c", "", "", "", (";", ".")),
    ("", ";a", "", "", "", (";",)),
    ("a;b", "a;b", "", "", "", ("",)),
    ("a;b", "a;b", "", "", "", ()),
    ("", "\n+++++ other.py\nimport os", "", "", "x = 1", ()),
    ("x", "x\n+++++ other.py\n", "", "", "", ()),
    ("+++++ a", "+++++ a", "", "", "", ()),
    # The line that stands below already.
    ("", "    return x", "", "    return x\n", "", ()),
    ("", "urn x", "", "\n\n    return x\n", "    ret", ()),
    ("", "\n    return x\n", "", "    return x\n", "def f():", ()),
    ("urn y", "urn y", "", "    return x\n", "    ret", ()),
    ("urn x", "urn x", "", "    y = 1\n    return x\n", "    ret", ()),
    ("}", "}", "", "}\n", "", ()),
    ("urn x", "urn x", "", "", "    ret", ()),
    ("urn x", "urn x", "", "   \n\t\n", "    ret", ()),
    # Whole characters only.
    ("é", "é".encode(), "", "", "", ()),
    ("x", b"x\xc3", "", "", "", ()),
    ("", b"\xf0\x9f\x99", "", "", "", ()),
    ("🙂", "🙂".encode() + b"\xf0\x9f", "", "", "", ()),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[1]!r}" for number, row in enumerate(ROWS)])
def test_what_is_shown(row: tuple) -> None:
    check(*row)


# Text right of the cursor is met at whole tokens only: generated, rest -> what is inserted, and why nothing is.
BOUNDARIES = [
    # A word is not cut in its middle, at neither end of what both texts share.
    ("parent", "top", "", "rest_of_line"),
    ("parent", "t", "", "rest_of_line"),
    ("x + t", "top", "", "rest_of_line"),
    ("x + fo", " + foo", "", "rest_of_line"),
    ("f(topology)", "top)", "", "rest_of_line"),
    ("stop = top", "top", "stop = ", None),
    ("stop, top", "top", "stop, ", None),
    ("a.result_xylophone", "result_x_long + 1", "", "rest_of_line"),
    ("a.result_x_long + 1", "result_x_long + 1", "a.", None),
    ("a.result_x_long", "result_x_long + 1", "a.", None),
    ("x1", "1", "", "rest_of_line"),
    ("x, 1", "1", "x, ", None),
    ("value_", "_private", "", "rest_of_line"),
    ("items = list(xs", "(xs)", "items = list", None),
    ("desktop if top else", "top if x else y", "", "rest_of_line"),
    ("desktop if top if x", "top if x else y", "desktop if ", None),
    ("", "top", "", "rest_of_line"),
    ("top", "top", "", "present"),
    # Closers and quotes part from anything.
    ("items)", ")", "items", None),
    ("items))", ")", "items)", None),
    ("xs[0]])", "])", "xs[0]", None),
    ("List<T>>", ">", "List<T>", None),
    ("name'", "'", "name", None),
    ('doc"""', '"""', "doc", None),
    ('doc"""', '"', 'doc""', None),
    ("it's'", "'", "it's", None),
    (")", ")", "", "present"),
    # An operator is whole too.
    ("x ==", "= y", "", "rest_of_line"),
    ("x =", " == y", "", "rest_of_line"),
    ("x ==", " == y", "x", None),
    ("a + b", "+ b", "a ", None),
    ("f(**kw)", "*kw)", "", "rest_of_line"),
    ("f(**kw)", "**kw)", "f(", None),
    ("a->b", ">b", "", "rest_of_line"),
    ("a->b", "->b", "a", None),
    ("std::", "::string s", "std", None),
    ("std:", "::string s", "", "rest_of_line"),
    # In any script; what belongs to the character before it does not part from it.
    ("größe", "ße = 1", "", "rest_of_line"),
    ("die größe", "größe = 1", "die ", None),
    ("переменная", "ная", "", "rest_of_line"),
    ("ab日本", "本", "", "rest_of_line"),
    ("e\u0301", "\u0301x", "", "rest_of_line"),
    ("x = 🙂", "🙂", "x = ", None),
    ("👩\u200d💻", "\u200d💻", "", "rest_of_line"),
]


@pytest.mark.parametrize(("generated", "rest", "inserted", "why"), BOUNDARIES)
def test_what_stands_to_the_right_is_met_at_a_boundary(
    generated: str, rest: str, inserted: str, why: str | None
) -> None:
    made = outcome_of(generated.encode(), request("", rest))
    assert (made.text, made.empty_because) == (inserted, why)
    assert trimmed(generated.encode(), request("", rest)) == inserted
    if inserted:  # both together go on from what the model wrote, as far as it goes
        assert (inserted + rest).startswith(generated.removesuffix(rest))


@pytest.mark.parametrize(
    ("text", "wanted", "why"),
    [
        ("\n", request(), "blank"),
        ("  ", request("", "x"), "rest_of_line"),
        ("  ", request("", ")"), "blank"),
        ("    return x", request("", "", "    return x\n"), "next_line"),
        ("x", request(), None),
        ("\nprint(x)\n", request("    x = "), "leaves"),
        ("urn x\n", request("    ret", "", "    return x\n"), "next_line"),
    ],
)
def test_why_there_is_nothing(text: str, wanted: CompletionRequest, why: str | None) -> None:
    made = Trim(wanted, open_ended=True).outcome(text.encode())
    assert (made.text == "", made.empty_because) == (why is not None, why)


STOPS = [
    # text so far -> the reason to stop, with nothing to the right and with ")" there
    (b"", None, None),
    (b"x", None, None),
    (b"x\n", "line", "line"),
    (b"\n", None, "line"),
    (b"\n    ", None, "line"),
    (b"\n    x", None, "line"),
    (b"\n    x\n", "line", "line"),
    (b"\n\n  \n", None, "line"),
    (b"x\ny", "line", "line"),
    (b"x;", "stop", "stop"),
    (b";\n", "stop", "stop"),
    (b"\xf0\x9f", None, None),
]


@pytest.mark.parametrize(("text", "at_line_end", "in_a_line"), STOPS)
def test_where_it_stops(text: bytes, at_line_end: str | None, in_a_line: str | None) -> None:
    assert line_stop(request(stop=(";", "")))(text) == at_line_end
    assert line_stop(request(rest="   ", stop=(";",)))(text) == at_line_end
    assert line_stop(request(rest=" )", stop=(";",)))(text) == in_a_line


words = st.text("ab() \n\t+;é🙂", max_size=12)


@given(words, words.map(lambda text: text.replace("\n", "")), words, words)
def test_whatever_is_shown(generated: str, rest: str, suffix: str, prompt: str) -> None:
    """It is the start of what was generated, has something in it, is one line after at most a line break, and never ends in white space."""
    wanted = request(prompt, rest, suffix)
    shown = trimmed(generated.encode(), wanted)
    assert generated.startswith(shown)
    assert shown == "" or shown.strip()
    assert "\n" not in shown.strip()
    if rest.strip():
        assert "\n" not in shown
    else:
        assert shown == shown.rstrip()
    for end in range(len(generated)):  # stopping where the model is told to loses nothing of it
        if line_stop(wanted)(generated[:end].encode()) is not None:
            assert trimmed(generated[:end].encode(), wanted) == shown
            break


# Where a text leaves its gap, for models that do not know: at which character and why.
# text, reason, what of it is left; then prompt, rest of line, suffix
OVERRUNS = [
    # Nothing left yet.
    ("", None, "", "x = ", "", ""),
    ("f(a)", None, "f(a)", "x = ", "", "y = 1\n"),
    ("\n    return x", None, "\n    return x", "def f(x):", "", "\n\ndef g():\n"),
    # It repeats the first line below that has something in it, as soon as that is sure.
    ("1\n    return result\n", "suffix", "1", "    result = ", "", "    return result\n"),
    ("1\n\n  return result\n", "suffix", "1\n", "  result = ", "", "\n\n  return result\n"),
    ("1\n    return result", None, "1\n    return result", "    result = ", "", "    return result\n"),
    ("1\n    return the_whole_res", "suffix", "1", "    result = ", "", "    return the_whole_result\n"),
    ("1\n    return the_who", None, "1\n    return the_who", "    result = ", "", "    return the_whole_result\n"),
    (
        "1\n    return the_hole_res",
        None,
        "1\n    return the_hole_res",
        "    result = ",
        "",
        "    return the_whole_result\n",
    ),
    ("urn x\n", "suffix", "", "    ret", "", "    return x\n"),
    ("urn y\n", None, "urn y\n", "    ret", "", "    return x\n"),
    ("}\n}\n", "brackets", "", "x", "", "}\n"),
    # A bracket that is not the gap's to close.
    ("a)", None, "a)", "f(", "", ""),
    ("a))", "brackets", "a)", "f(", "", ""),
    ("a), b)", "brackets", "a", "f(", ")", ""),
    ("[a], {b: (c)}", None, "[a], {b: (c)}", "f(", ")", ""),
    ("a]", "brackets", "a", "f(", "", ""),
    ("a,\n)", "brackets", "a,\n", "f(\n    ", "", ")\n"),
    ("a\n}", None, "a\n}", "int f() {\n", "", "int g() {\n}\n"),
    ("a\n}\n}", "brackets", "a\n}\n", "int f() {\n", "", ""),
    ("a\n}\n}", None, "a\n}\n}", "class A { int f() {\n", "", ""),
    ("a\n}\n}", "brackets", "a\n}\n", "class A { int f() {\n", "", "}\n"),
    # Brackets in strings say nothing, closed or still being written, begun before the cursor or after it.
    ('"a)"', None, '"a)"', "x = ", "", ""),
    ('"a)', None, '"a)', "x = ", "", ""),
    ("a :)'", None, "a :)'", "x = 'b", "", ""),
    ("a)", None, "a)", "x = '(' + f(", "", ""),
    ("# don't :)", None, "# don't :)", "x  ", "", ""),
    # In a comment they are punctuation.
    (") first\n", None, ") first\n", "    # 1", "", ""),
    # A lone quote above hides nothing: an apostrophe, a lifetime.
    ("\n}", None, "\n}", "impl<'a> Foo {\n    x", "", ""),
    # A line that is indented less than the cursor's, unless it goes on with the same statement.
    ("1\nprint(x)", "dedent", "1", "    x = ", "", ""),
    ("1\n\n\ndef g():", "dedent", "1\n\n", "    x = ", "", ""),
    ("1\n    print(x)", None, "1\n    print(x)", "    x = ", "", ""),
    ("1\n    else:", None, "1\n    else:", "        x = ", "", ""),
    ("1\n    el", None, "1\n    el", "        x = ", "", ""),
    ("1\n    elephant()", "dedent", "1", "        x = ", "", ""),
    ("1\n    el\n", "dedent", "1", "        x = ", "", ""),
    ("1;\n  }", None, "1;\n  }", "  {\n    x = ", "", ""),
    ("\nx", "dedent", "", "\t", "", ""),
    ("x\ny", None, "x\ny", "", "", ""),
    # Another file.
    ("\n+++++ b.py\n", "file", "", "x = 1", "", ""),
    ("+++++ b.py", "file", "", "", "", ""),
    ("+++++ b", None, "+++++ b", "x = 1 ", "", ""),
]


@pytest.mark.parametrize("row", OVERRUNS, ids=[f"{number}-{row[0]!r}" for number, row in enumerate(OVERRUNS)])
def test_where_a_text_leaves_its_gap(row: tuple) -> None:
    text, reason, left, prompt, rest, suffix = row
    over = overrun_of(request(prompt, rest, suffix))(text)
    assert (over.reason if over else None, text[: over.at] if over else text) == (reason, left)


# text, head and prompt -> reason
FENCES = [
    ("\n```", "x = 1", "fence"),
    ("```", "", "fence"),
    ("\n```\n", "```sh\nls\n```\ntext", "fence"),
    ("\n```\n", "```sh\nls\ncd", None),
    ("x ```", "", None),
]


@pytest.mark.parametrize(("text", "above", "reason"), FENCES)
def test_the_end_of_a_block_ends_the_answer(text: str, above: str, reason: str | None) -> None:
    """Where the answer stands in a block of code, and only there; and not where the file itself has opened one."""
    over = overrun_of(request(above), fenced=True)(text)
    assert (over.reason if over else None) == reason
    assert overrun_of(request(above))(text) is None


# open before the cursor, behind it -> what the gap may close, the innermost last
CLOSABLE = [
    ("", "", ""),
    ("f(", "", "("),
    ("f(", ")", ""),
    ("f([", "", "(["),
    ("f([", ")", "["),
    ("f([", "])", ""),
    ("f([", "]", ""),  # the text below ends before the other
    ("{ { (", "x }", "{("),
    ("f(", "g()\n", "("),
    ("f(", "]", "("),  # they do not agree
    ("f(a)[", "", "["),
    ("(]", "", "("),
    ('"(" + (', "", "("),
]


@pytest.mark.parametrize(("above", "below", "closable"), CLOSABLE)
def test_which_brackets_are_the_gaps(above: str, below: str, closable: str) -> None:
    assert closable_brackets(above, below) == closable


def test_brackets_are_paired() -> None:
    for text, is_open, closers in [("([)]{", "{", ""), ("((", "((", ""), ("))", "", "))"), ("'(' \"[\" {", "{", "")]:
        assert (open_brackets(text), "".join(unopened_brackets(text))) == (is_open, closers)


@pytest.mark.parametrize(
    ("text", "shown", "reason"),
    [
        (b"1\nprint(x)\n", "1", "dedent"),
        (b"\n    return x\n", "\n    return x", "line"),
        (b"\nprint(x)\n", "", "dedent"),
        (b"a\n```\n", "a", "fence"),
        (b"x\n", "x", "line"),
        (b"x", "x", None),
    ],
)
def test_an_open_ended_text_is_stopped_and_cut(text: bytes, shown: str, reason: str | None) -> None:
    made = Trim(request("    x = "), open_ended=True, fenced=True)
    assert made.shown(text) == shown
    assert made.stop(text) == reason


def test_what_stands_to_the_right_stops_the_text() -> None:
    made = Trim(request("for line in ", "text) if x:"), open_ended=True)
    texts = (b"lines(", b"lines(text) ", b"lines(text) if", b"lines(text) iffy", b"lines(text) if ")
    assert [made.stop(text) for text in texts] == [None, None, None, None, "suffix"]
    assert made.shown(b"lines(text) if x") == "lines("
    assert Trim(request("f(", ")"), open_ended=True).stop(b"a") is None


def test_a_model_that_knows_its_end_is_trimmed_as_ever() -> None:
    made, wanted = Trim(request("    x = ")), request("    x = ")
    for row in OVERRUNS:
        assert made.stop(row[0].encode()) == line_stop(wanted)(row[0].encode())
        assert made.shown(row[0].encode()) == trimmed(row[0].encode(), wanted)


code = st.text("ab()[] \n\t'\"}`+e", max_size=14)


@given(code, code.map(lambda text: text.replace("\n", "")), code, code, st.booleans())
def test_whatever_is_cut(generated: str, rest: str, suffix: str, prompt: str, fenced: bool) -> None:
    """What is shown is the start of what was generated, wherever it was stopped."""
    made = Trim(request(prompt, rest, suffix), open_ended=True, fenced=fenced)
    shown = made.shown(generated.encode())
    assert generated.startswith(shown)
    for end in range(len(generated)):
        if made.stop(generated[:end].encode()) is not None:
            assert generated.startswith(made.shown(generated[:end].encode()))
