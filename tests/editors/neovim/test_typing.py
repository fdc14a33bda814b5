"""While the user types: what agrees with the ghost text shrinks it at once and asks nobody; all else hides it. The server answers what a test has written."""

import json
from typing import Any

import pytest

from tests.editors.neovim.conftest import Script, Start
from tests.editors.neovim.nvim_child import Nvim

ADD = {"after": "def ", "items": [{"text": "add(a, b):\n    return a + b"}]}
BOTH_LINES = "add(a, b):\n    return a + b"
PAIRS = "vim.keymap.set('i', '(', '()<Left>'); vim.keymap.set('i', ')', '<Right>')"  # as plugins for pairs do
SLOW_S = 0.4


def shown(start: Start, script: Script, rule: dict[str, Any] = ADD, **options: Any) -> Nvim:
    """A Neovim where "def " was typed, and what the rule says is shown."""
    nvim = start(**options)
    script.write(rule)
    nvim.type_slowly("def ")
    nvim.wait_ghost(rule["items"][0]["text"])
    return nvim


def test_typing_what_is_shown_asks_nobody(start: Start, script: Script) -> None:
    nvim = shown(start, script)
    n_asked = script.n_asked()
    for n, key in enumerate("add(a, b):", start=1):
        flushed = nvim.screen.n_flushed
        nvim.type(key)
        nvim.wait(lambda n=flushed: nvim.screen.n_flushed > n, "a redraw")
        nvim.lua("return 0")
        rest = BOTH_LINES[n:].removeprefix("\n")
        nvim.wait_ghost(rest)
    nvim.type("<CR>")
    nvim.wait_ghost("return a + b")
    nvim.settle()
    assert script.n_asked() == n_asked
    assert len(script.heard("textDocument/didShowCompletion")) == 1
    nvim.type("<Tab>")
    nvim.wait_lines(["def add(a, b):", "    return a + b"])


def test_no_frame_without_ghost_text_while_typing_agrees(start: Start, script: Script) -> None:
    nvim = shown(start, script)
    frames = []
    flush = nvim.screen._on_flush

    def note() -> None:
        flush()
        frames.append(nvim.screen.rows()[0])

    nvim.screen._on_flush = note  # type: ignore[method-assign]
    for key in "add(a":
        nvim.type(key)
        nvim.lua("return 0")
    nvim.settle()
    assert set(frames) == {
        "def add(a, b):"
    }  # the screen never changes: what is typed takes the place of what was shown


OTHERWISE = {
    "another text": "x",
    "backspace": "<BS>",
    "leaving insert mode": "<Esc>",
    "the cursor moves left": "<Left>",
    "the cursor moves away": "<Up>",
    "another window": "<C-o><C-w>w",
    "dismissed": "<C-]>",
}


@pytest.mark.parametrize("keys", OTHERWISE.values(), ids=OTHERWISE)
def test_it_hides(keys: str, start: Start, script: Script) -> None:
    nvim = start("first\nx")
    nvim.command("vnew | wincmd p")
    script.write(ADD)
    nvim.type("<CR>def ")
    nvim.wait_ghost(BOTH_LINES)
    script.write()
    nvim.type(keys)
    nvim.wait_ghost("")
    nvim.settle()
    assert nvim.ghost() == ""


@pytest.mark.parametrize(
    ("keys", "n_rejected"), [("<BS>", 1), ("ad<BS>", 1), ("<C-]>", 1), ("x", 0), ("<Esc>", 0), ("<Left>", 0)]
)
def test_rejected_is_what_was_taken_back_or_dismissed(keys: str, n_rejected: int, start: Start, script: Script) -> None:
    nvim = shown(start, script)
    script.write()
    for key in keys.replace("<", " <").split() if "<" in keys else [keys]:
        nvim.type(key)
        nvim.lua("return 0")
    nvim.wait_ghost("")
    nvim.settle()
    rejected = script.heard("textDocument/didRejectCompletion")
    assert [each["item"]["command"]["arguments"] for each in rejected] == [["id 0"]] * n_rejected


def test_dismissed_does_not_come_back_by_itself(start: Start, script: Script) -> None:
    nvim = shown(start, script)
    n_asked = script.n_asked()
    nvim.type("<C-]>")
    nvim.wait_ghost("")
    nvim.settle(0.3)
    assert (nvim.ghost(), script.n_asked()) == ("", n_asked)


def test_brackets_that_an_editor_pairs(start: Start, script: Script) -> None:
    nvim = shown(start, script, {"after": "def ", "items": [{"text": "add(a, b): pass"}]}, more=PAIRS)
    n_asked = script.n_asked()
    nvim.type_slowly("add(")
    nvim.wait(lambda: nvim.screen.marked()[0] == "def add(‹a, b›)‹: pass›", "the paired bracket inside the ghost text")
    nvim.type_slowly("a, b)")
    nvim.wait(lambda: nvim.screen.marked()[0] == "def add(a, b)‹: pass›", "the bracket typed over")
    nvim.type("<Tab>")
    nvim.wait_lines(["def add(a, b): pass"])
    assert script.n_asked() >= n_asked


@pytest.mark.parametrize("keys", ["add(<Tab>", "add(a,<Tab>"])
def test_paired_brackets_are_not_doubled(keys: str, start: Start, script: Script) -> None:
    nvim = shown(start, script, {"after": "def ", "items": [{"text": "add(a, b):"}]}, more=PAIRS)
    nvim.type(keys)
    nvim.wait_lines(["def add(a, b):"])


def test_the_menu_hides_it_and_gives_it_back(start: Start, script: Script) -> None:
    nvim = start("addition\n", more="vim.o.completeopt = 'menuone,noselect'")
    script.write({"after": "def ad", "items": [{"text": "d(a, b):"}]})
    nvim.type("<CR>def ad")
    nvim.wait_ghost("d(a, b):")
    nvim.type("<C-n>")
    nvim.wait(lambda: nvim.lua("return vim.fn.pumvisible()") == 1, "the menu")
    nvim.wait_ghost("")
    nvim.settle()
    assert nvim.ghost() == ""
    assert nvim.lua("return require('codestral').is_visible()") is False
    nvim.type("<C-e>")
    nvim.wait_ghost("d(a, b):")


# What these two plugins have for others to ask and to hear, since they are too large to install here.
MENUS = {
    "nvim-cmp": (
        "Heard, IsOpen = {}, false; package.loaded['cmp'] = { visible = function() return IsOpen end,"
        " event = { on = function(_, name, act) Heard[name] = act end } }",
        "IsOpen = not IsOpen; Heard[IsOpen and 'menu_opened' or 'menu_closed']()",
    ),
    "blink.cmp": (
        "IsOpen = false; package.loaded['blink.cmp'] = { is_menu_visible = function() return IsOpen end }",
        "IsOpen = not IsOpen; vim.api.nvim_exec_autocmds('User', { pattern = IsOpen and 'BlinkCmpMenuOpen' or 'BlinkCmpMenuClose' })",
    ),
}


@pytest.mark.parametrize(("menu", "toggle"), MENUS.values(), ids=MENUS)
def test_menus_of_other_plugins_hide_it_too(menu: str, toggle: str, start: Start, script: Script) -> None:
    nvim = shown(start, script, more=menu)
    for ghost in ("", BOTH_LINES):
        nvim.lua(toggle)
        nvim.wait_ghost(ghost)
    nvim.lua(toggle)
    nvim.type("x")  # typed while the menu is open: nothing is asked before it closes
    n_asked = script.n_asked()
    nvim.settle()
    assert (nvim.ghost(), script.n_asked()) == ("", n_asked)
    script.write({"after": "def x", "items": [{"text": "yz"}]})
    nvim.lua(toggle)
    nvim.wait_ghost("yz")


def test_a_newer_key_ends_the_older_request(start: Start, script: Script) -> None:
    nvim = start(debounce_ms=0)
    nvim.settle()
    n_before = script.n_asked()
    script.write(
        {"after": "c", "items": [{"text": "lass"}], "delay_s": 0.05},
        {"after": "", "items": [{"text": "stale"}], "delay_s": SLOW_S},
    )
    nvim.type_slowly("abc")
    nvim.wait_ghost("lass")
    assert (script.n_asked() - n_before, len(script.heard("$/cancelRequest"))) == (3, 2)
    nvim.settle(SLOW_S)
    assert nvim.ghost() == "lass"


def test_an_answer_for_an_older_text_is_not_shown(start: Start, script: Script) -> None:
    nvim = start(debounce_ms=5000)  # nothing is asked after the second key, so nothing is cancelled for it either
    script.write({"after": "a", "items": [{"text": "stale"}], "delay_s": SLOW_S})
    nvim.type("a")
    nvim.lua("require('codestral').trigger()")
    nvim.wait(script.n_asked, "the request")
    nvim.lua(
        "vim.api.nvim_buf_set_text(0, 0, 0, 0, 0, {'# '})"
    )  # not by a key: no event has come yet when the answer comes
    nvim.settle(2 * SLOW_S)
    assert nvim.ghost() == ""


def test_keys_in_quick_succession_are_one_request(start: Start, script: Script) -> None:
    nvim = start(debounce_ms=75)
    nvim.settle()
    n_asked = script.n_asked()
    nvim.type_slowly("abcdefgh")
    nvim.settle(0.3)
    assert script.n_asked() == n_asked + 1


def test_alternatives_come_when_asked_for(start: Start, script: Script) -> None:
    nvim = start()
    script.write(
        {"after": "x = ", "kind": 2, "items": [{"text": "one"}]},
        {"after": "x = ", "kind": 1, "items": [{"text": "one"}, {"text": "two"}, {"text": "three"}]},
    )
    nvim.type_slowly("x = ")
    nvim.wait_ghost("one")
    n_asked = script.n_asked()
    for key, row in [
        ("<M-]>", "x = ‹two› (2/3)"), ("<M-]>", "x = ‹three› (3/3)"), ("<M-]>", "x = ‹one› (1/3)"),
        ("<M-[>", "x = ‹three› (3/3)"), ("<M-Bslash>", "x = ‹one› (1/3)"),
    ]:  # fmt: skip
        nvim.type(key)
        nvim.wait(lambda row=row: nvim.screen.marked()[0] == row, row)
    assert script.n_asked() == n_asked + 1

    def shown_ids() -> list[str]:
        return [each["item"]["command"]["arguments"][0] for each in script.heard("textDocument/didShowCompletion")]

    nvim.wait(lambda: shown_ids() == ["id 0", "id 1", "id 2"], lambda: f"each to be told once, there is {shown_ids()}")
    nvim.type("<M-[><M-[>")
    nvim.type_slowly("tw")
    nvim.wait(lambda: nvim.screen.marked()[0].startswith("x = tw‹o›"), "the second one, typed through")
    nvim.type("<Tab>")
    nvim.wait_lines(["x = two"])
    wait_accepted(nvim, script, "id 1")


def test_by_name_where_nothing_comes_by_itself(start: Start, script: Script) -> None:
    nvim = start()
    script.write({"after": "x = ", "kind": 1, "items": [{"text": "one"}]})
    nvim.type("x = ")
    nvim.settle()
    assert nvim.ghost() == ""
    nvim.type("<M-Bslash>")
    nvim.wait(lambda: nvim.screen.marked()[0] == "x = ‹one› (1/1)", "the suggestion")
    nvim.type("<Tab>;<M-Bslash>")
    nvim.wait(lambda: "no suggestion here" in nvim.screen.rows()[-1], "a word about there being none")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_columns_in_any_encoding(encoding: str, start: Start, script: Script) -> None:
    script.write(encoding=encoding)
    nvim = start("# 日本語 😀")
    nvim.type("<CR>s = '語😀é")
    script.write({"after": "😀é(", "items": [{"text": "x😀)!", "forward": 1}]}, encoding=encoding)
    nvim.type("()<Left>")
    nvim.wait(lambda: nvim.screen.marked()[1].endswith("s = '語😀é(‹x😀›)‹!›"), "the suggestion at its place")
    nvim.type("<M-Right><M-Right>")
    nvim.wait(lambda: nvim.lines()[1].endswith("s = '語😀é(x😀)!"), "both words")
    wait_accepted(nvim, script, "id 0")
    lengths = [each["acceptedLength"] for each in script.heard("textDocument/didPartiallyAcceptCompletion")]
    assert lengths == [3]  # "x" and the two UTF-16 units of the other


def wait_accepted(nvim: Nvim, script: Script, name: str) -> None:
    def names() -> list[str]:
        return [
            each["arguments"][0]
            for each in script.heard("workspace/executeCommand")
            if each["command"] == "codestral.accept"
        ]

    nvim.wait(lambda: names() == [name], lambda: f"codestral.accept of {name}, there is {json.dumps(names())}")
