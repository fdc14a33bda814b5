"""What a user sees: where ghost text stands on the screen, and that the text is the same once it is accepted.

Ghost text stands between ‹ and ›. The server answers what the test has written down.
"""

from typing import Any, NamedTuple

import pytest

from tests.editors.neovim.conftest import Script, Start


class Shown(NamedTuple):
    before: str  # the file's text; the cursor stands at its end unless `keys` move it
    keys: str
    item: dict[str, Any]
    screen: list[str]
    accepted: list[str]
    name: str = "a.py"
    size: tuple[int, int] = (60, 12)
    more: str = ""


PLACES = {
    "at the end of a line": Shown("", "def ", {"text": "add(a, b):"}, ["def ‹add(a, b):›"], ["def add(a, b):"]),
    "several lines": Shown(
        "", "def ", {"text": "f():\n    return 1\n\nx = 2"}, ["def ‹f():›", "‹    return 1›", "", "‹x = 2›"],
        ["def f():", "    return 1", "", "x = 2"],
    ),
    "beginning with a line break": Shown(
        "", "def f():", {"text": "\n    return 1"}, ["def f():", "‹    return 1›"], ["def f():", "    return 1"]
    ),
    "a closer is replaced by itself": Shown(
        "", "f()<Left>", {"text": "a, b)", "forward": 1}, ["f(‹a, b›)"], ["f(a, b)"]
    ),
    "text behind the closer": Shown(
        "", "f()<Left>", {"text": "a, b):", "forward": 1}, ["f(‹a, b›)‹:›"], ["f(a, b):"]
    ),
    "two closers apart": Shown(
        "", 'f(x[""])<Left><Left><Left>', {"text": 'k"], 1)', "forward": 3}, ['f(x["‹k›"]‹, 1›)'], ['f(x["k"], 1)']
    ),
    "a closer that does not come again": Shown(
        "", "f()<Left>", {"text": "x", "forward": 1}, ["f(‹x›"], ["f(x"]
    ),
    "a closer and several lines": Shown(
        "", "f({})<Left><Left>", {"text": "\n  a: 1,\n}", "forward": 1}, ["f({", "‹  a: 1,›", "‹}›)"],
        ["f({", "  a: 1,", "})"],
    ),
    "several lines and text that stays": Shown(
        "", "a  # note<C-o>2F ", {"text": "b\nc"}, ["a ‹b›", "‹c› # note"], ["a b", "c # note"]
    ),
    "in the middle of a line": Shown("", "x = + 1<C-o>F+", {"text": "y "}, ["x = ‹y ›+ 1"], ["x = y + 1"]),
    "wide characters": Shown("", "s = '日本", {"text": "語😀é'"}, ["s = '日本‹語😀é'›"], ["s = '日本語😀é'"]),
    "a tab in the first line": Shown(
        "", "ab", {"text": "\tc\td"}, ["ab‹      c       d›"], ["ab\tc\td"], name="a.txt"
    ),
    "tabs in the other lines": Shown(
        "", "f {", {"text": "\n\ta\tb\n}"}, ["f {", "‹    a   b›", "‹}›"], ["f {", "\ta\tb", "}"], name="a.go",
        more="vim.o.tabstop = 4",
    ),
    "a wrapped first line": Shown(
        "", "ab", {"text": "c" * 30}, ["ab‹" + "c" * 18 + "›", "‹" + "c" * 12 + "›"], ["ab" + "c" * 30], size=(20, 8)
    ),
    "a wrapped other line": Shown(
        "", "a", {"text": "\n" + "x" * 25 + "日\n!"}, ["a", "‹" + "x" * 20 + "›", "‹xxxxx日›", "‹!›"],
        ["a", "x" * 25 + "日", "!"], size=(20, 8),
    ),
    "a window scrolled sideways": Shown(
        "0123456789\nab", "cdefghijklmnopqrstuv", {"text": "\n    xyz"}, ["3456789", "defghijklmnopqrstuv", "‹ xyz›"],
        ["0123456789", "abcdefghijklmnopqrstuv", "    xyz"], size=(20, 8), more="vim.o.wrap = false; vim.o.sidescroll = 1; vim.o.sidescrolloff = 0",
    ),
    "line numbers beside it": Shown(
        "", "a", {"text": "\n" + "x" * 20}, ["  1 a", "    ‹" + "x" * 16 + "›", "    ‹xxxx›"], ["a", "x" * 20],
        size=(20, 8), more="vim.o.number = true",
    ),
    "a file with carriage returns": Shown(
        "a\r\nb", "<CR>def ", {"text": "f():\r\n    pass"}, ["a", "b", "def ‹f():›", "‹    pass›"],
        ["a", "b", "def f():", "    pass"],
    ),
    "a range that begins before the cursor": Shown(
        "", "pri", {"text": "print(1)", "back": 3}, ["pri‹nt(1)›"], ["print(1)"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_the_screen_before_is_the_text_after(place: Shown, start: Start, script: Script) -> None:
    nvim = start(place.before, name=place.name, size=place.size, more=place.more)
    script.write({"after": "", "items": [place.item]})
    nvim.type(place.keys)
    nvim.wait(
        lambda: [row for row in nvim.screen.marked() if row != "~"][: len(place.screen)] == place.screen,
        f"{place.screen}",
    )
    bare = [row.replace("‹", "").replace("›", "") for row in place.screen]
    script.write()  # nothing more after it
    nvim.type("<Tab>")
    nvim.wait_lines(place.accepted)
    nvim.wait(
        lambda: nvim.screen.rows()[: len(bare)] == bare or place.size[0] == 20,
        f"the same screen without ghost text: {bare}",
    )
    assert nvim.ghost() == ""
    assert "Error" not in nvim.messages()
