"""`render = 'native'`: Neovim's own inline completion in place of our drawing, with the same keys and events. The server answers what a test has written."""

import pytest

from tests.editors.neovim.conftest import Script, Start
from tests.editors.neovim.nvim_child import Nvim

RULE = {"after": "def ", "items": [{"text": "add(a):\n    pass"}, {"text": "sub(b)"}]}
GROUP = "vim.api.nvim_set_hl(0, 'ComplHint', { fg = '#707070' })"


@pytest.fixture
def nvim(start: Start, script: Script) -> Nvim:
    made = start(render="native", more=GROUP)
    if not made.lua("return vim.fn.has('nvim-0.12')"):
        assert "render: expected 'extmark'" in made.messages()
        pytest.skip("Neovim has inline completion of its own since 0.12; before, the message above is all")
    script.write(RULE)
    made.type("def ")
    wait_hint(made, "add(a):\n    pass")
    return made


def wait_hint(nvim: Nvim, expected: str) -> None:
    nvim.wait(
        lambda: nvim.screen.drawn_in("ComplHint") == expected,
        lambda: f"{expected!r}: {nvim.screen.drawn_in('ComplHint')!r}",
    )


def commands(script: Script) -> list[str]:
    return [each["command"] for each in script.heard("workspace/executeCommand")]


def test_tab_accepts(nvim: Nvim, script: Script) -> None:
    nvim.type("<Tab>")
    nvim.wait_lines(["def add(a):", "    pass"])
    assert "Error" not in nvim.messages()
    wait_hint(nvim, "")


def test_a_word(nvim: Nvim, script: Script) -> None:
    script.write({"after": "def add", "items": [{"text": "(a):"}]})
    nvim.type("<M-Right>")
    nvim.wait_lines(["def add"])
    nvim.wait(lambda: script.heard("textDocument/didPartiallyAcceptCompletion"), "the event")
    assert script.heard("textDocument/didPartiallyAcceptCompletion")[0]["acceptedLength"] == 3
    assert commands(script) == []
    wait_hint(nvim, "(a):")


def test_another_and_none(nvim: Nvim) -> None:
    nvim.type("<M-]>")
    wait_hint(nvim, "sub(b)")
    nvim.type("<C-]>")
    wait_hint(nvim, "")
    assert nvim.lua("return require('codestral').is_visible()") is False
