"""What of a generated text is shown, and where the model is told to stop: one row a case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.protocol import CompletionRequest
from daemon.trim import line_stop, trimmed


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
    ("a, name: str,", "a, name: str, name: str, name: str,", "", "", "f(", ()),
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
