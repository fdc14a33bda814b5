"""Accepting: all of it, a word, a line; the cursor, undo, the dot, the events. The server answers what a test has written."""

from typing import Any

import pytest

from tests.editors.neovim.conftest import Script, Start
from tests.editors.neovim.nvim_child import Nvim

TEXT = "add(a, b):\n    return a + b"
RULE = {"after": "def ", "items": [{"text": TEXT}]}


@pytest.fixture
def nvim(start: Start, script: Script) -> Nvim:
    made = start("# a\n")
    script.write(RULE)
    made.type("<CR>def ")
    made.wait_ghost(TEXT)
    return made


def accepted(script: Script) -> list[list[Any]]:
    return [
        each["arguments"] for each in script.heard("workspace/executeCommand") if each["command"] == "codestral.accept"
    ]


def lengths(script: Script) -> list[int]:
    return [each["acceptedLength"] for each in script.heard("textDocument/didPartiallyAcceptCompletion")]


def test_all(nvim: Nvim, script: Script) -> None:
    nvim.type("<Tab>")
    nvim.wait_lines(["# a", "def add(a, b):", "    return a + b"])
    nvim.wait(lambda: accepted(script) == [["id 0"]], "codestral.accept")
    assert nvim.cursor() == (3, len("    return a + b"))
    assert nvim.request("nvim_get_mode")["mode"] == "i"
    nvim.type("!")
    nvim.wait_lines(["# a", "def add(a, b):", "    return a + b!"])


def test_word_by_word(nvim: Nvim, script: Script) -> None:
    n_asked = script.n_asked()
    line = "def "
    for word in ("add", "(", "a", ",", " b", "):"):
        nvim.type("<M-Right>")
        line += word
        nvim.wait(lambda line=line: nvim.lines()[1] == line, line)
    nvim.wait_ghost("    return a + b")
    nvim.type("<M-Right>")
    nvim.wait_lines(["# a", "def add(a, b):", "    return"])
    nvim.wait_ghost(" a + b")
    assert nvim.cursor() == (3, len("    return"))
    nvim.wait(lambda: lengths(script) == [3, 4, 5, 6, 8, 10, 21], lambda: f"the lengths, there is {lengths(script)}")
    assert (script.n_asked(), accepted(script)) == (n_asked, [])
    nvim.type("<M-Right><M-Right><M-Right>")
    nvim.wait_lines(["# a", "def add(a, b):", "    return a + b"])
    nvim.wait(lambda: accepted(script) == [["id 0"]], "the last word to be the whole")
    assert lengths(script)[-1] == len(TEXT) - 2


def test_line_by_line(nvim: Nvim, script: Script) -> None:
    n_asked = script.n_asked()
    nvim.type("<M-Down>")
    nvim.wait_lines(["# a", "def add(a, b):"])
    nvim.wait_ghost("    return a + b")
    nvim.settle()
    assert (script.n_asked(), lengths(script)) == (n_asked, [10])
    nvim.type("<M-Down>")
    nvim.wait_lines(["# a", "def add(a, b):", "    return a + b"])
    nvim.wait(lambda: accepted(script) == [["id 0"]], "codestral.accept")


def test_undo_takes_back_what_was_accepted_and_no_more(nvim: Nvim) -> None:
    done = ["# a", "def add(a, b):", "    return a + b"]
    nvim.type("<Tab>")
    nvim.wait_lines(done)
    nvim.type("!!<Esc>")
    nvim.wait_lines([*done[:2], done[2] + "!!"])
    for lines in (done, ["# a", "def "], ["# a"]):
        nvim.type("u")
        nvim.wait_lines(lines)
    nvim.type("<C-r><C-r><C-r>")
    nvim.wait_lines([*done[:2], done[2] + "!!"])


def test_undo_of_a_word(nvim: Nvim) -> None:
    nvim.type("<M-Right><M-Right><M-Right><Esc>")
    nvim.wait_lines(["# a", "def add(a"])
    for line in ("def add(", "def add", "def "):
        nvim.type("u")
        nvim.wait_lines(["# a", line])


def test_the_dot_repeats_what_was_inserted(start: Start, script: Script) -> None:
    nvim = start("one two")
    script.write({"after": "ne", "items": [{"text": "w_name"}]})
    nvim.type("<Esc>0cwne")
    nvim.wait_ghost("w_name")
    nvim.type("<Tab>")
    nvim.wait_lines(["new_name two"])
    nvim.type("s<Esc>w.")
    nvim.wait_lines(["new_names new_names"])


CLOSERS = {
    "all": ("<Tab>", ["f(a[1], x):"]),
    "by words": ("<M-Right>" * 9, ["f(a[1], x):"]),
    "a word, then all": ("<M-Right><Tab>", ["f(a[1], x):"]),
    "by lines": ("<M-Down>", ["f(a[1], x):"]),
    "typed, then all": ("a[<Tab>", ["f(a[1], x):"]),
}


@pytest.mark.parametrize(("keys", "lines"), CLOSERS.values(), ids=CLOSERS)
def test_replaced_closers_are_not_doubled(keys: str, lines: list[str], start: Start, script: Script) -> None:
    nvim = start()
    script.write({"after": "f(", "items": [{"text": "a[1], x):", "forward": 1}]})
    nvim.type("f()<Left>")
    nvim.wait(lambda: nvim.screen.marked()[0] == "f(‹a[1], x›)‹:›", "the suggestion")
    nvim.type(keys)
    nvim.wait_lines(lines)
    nvim.settle()
    assert (nvim.lines(), nvim.cursor()) == (lines, (1, len(lines[0])))


def test_carriage_returns_count_for_the_server(start: Start, script: Script) -> None:
    nvim = start("a\r\nb")
    script.write({"after": "f", "items": [{"text": "g\r\nh\r\ni"}]})
    nvim.type("<CR>f")
    nvim.wait_ghost("g\nh\ni")
    nvim.type("<M-Down><M-Down>")
    nvim.wait_lines(["a", "b", "fg", "h"])
    nvim.wait(lambda: lengths(script) == [1, 4], "the lengths")


def test_a_recorded_macro_takes_what_is_shown(start: Start, script: Script) -> None:
    nvim = start()
    script.write({"after": "x", "items": [{"text": "yz"}]})
    nvim.type("<Esc>qqAx")
    nvim.wait_ghost("yz")
    nvim.type("<Tab><Esc>q")
    nvim.wait_lines(["xyz"])
    assert "Tab" in nvim.lua("return vim.fn.keytrans(vim.fn.getreg('q'))")


def test_nothing_shown_nothing_accepted(start: Start) -> None:
    nvim = start()
    for name in ("accept", "accept_word", "accept_line", "next", "prev", "dismiss", "is_visible"):
        assert nvim.lua("return require('codestral')[...]()", name) is False
