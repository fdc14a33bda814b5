"""Mappings fall through: where nothing is shown a key does what it did before, whatever that was. The server answers what a test has written."""

import pytest

from tests.editors.neovim.conftest import Script, Start

CALL = "require('codestral')"
# What users and other plugins make of <Tab>, and what it does to "a" then.
BEFORE = {
    "nothing": ("", "a\tz"),
    "text": ("vim.keymap.set('i', '<Tab>', 'TAB')", "aTABz"),
    "keys": ("vim.keymap.set('i', '<Tab>', '<Left>')", "za"),
    "a function": ("vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({ 'F' }, 'c', false, true) end)", "aFz"),
    "an expression in Lua": ("vim.keymap.set('i', '<Tab>', function() return '<Left>' end, { expr = true })", "za"),
    "an expression in Vim's language": ("vim.cmd([[inoremap <expr> <Tab> pumvisible() ? '<C-n>' : 'E']])", "aEz"),
    "a plug": ("vim.cmd([[inoremap <Plug>(x) P\nimap <Tab> <Plug>(x)]])", "aPz"),
    "itself and more": ("vim.cmd([[imap <Tab> <Tab>!]])", "a\t!z"),
    "a mapping of the buffer": (
        "vim.api.nvim_create_autocmd('InsertEnter', { callback = function()"
        " vim.keymap.set('i', '<Tab>', function()"
        f" if not {CALL}.accept() then vim.api.nvim_feedkeys('B', 'n', false) end end, {{ buffer = true }}) end }})",
        "azB",  # fed at the end of what is typed
    ),
}


@pytest.mark.parametrize(("mapping", "line"), BEFORE.values(), ids=BEFORE)
def test_tab_accepts_or_does_what_it_did(mapping: str, line: str, start: Start, script: Script) -> None:
    nvim = start(more=f"vim.o.expandtab = false\n{mapping}", name="a.txt")
    nvim.type("a<Tab>z")
    nvim.wait_lines([line])
    script.write({"after": "q", "items": [{"text": "uux"}]})
    nvim.type("<C-u><C-k>a:<C-o>0<C-o>Dq")  # an empty line, whatever stood there
    nvim.wait_ghost("uux")
    nvim.type("<Tab>")
    nvim.wait_lines(["quux"])


def test_tab_inserts_a_tab_after_acceptance(start: Start, script: Script) -> None:
    nvim = start(more="vim.o.expandtab = false", name="a.txt")
    script.write({"after": "q", "items": [{"text": "uux"}]})
    nvim.type("q")
    nvim.wait_ghost("uux")
    nvim.type("<Tab><Tab>")
    nvim.wait_lines(["quux\t"])


@pytest.mark.parametrize("keys", [{"accept": "<C-y>"}, {"accept": False}])
def test_keys_are_the_users(keys: dict[str, str | bool], start: Start, script: Script) -> None:
    nvim = start(
        keys=keys,
        more="vim.o.expandtab = false\nvim.keymap.set('i', '<C-g>a', '<Plug>(codestral-accept)')",
        name="a.txt",
    )
    script.write({"after": "q", "items": [{"text": "uux"}]})
    nvim.type("q")
    nvim.wait_ghost("uux")
    nvim.type(keys["accept"] if isinstance(keys["accept"], str) else "<C-g>a")
    nvim.wait_lines(["quux"])
    nvim.type("<Tab>")
    nvim.wait_lines(["quux\t"])


def test_no_keys_at_all(start: Start) -> None:
    nvim = start(keys=False)
    descriptions = [
        mapping.get("desc", "") for mapping in nvim.request("nvim_get_keymap", "i") if "<Plug>" not in mapping["lhs"]
    ]
    assert [text for text in descriptions if text.startswith("codestral")] == []


def test_an_expression_mapping_may_accept(start: Start, script: Script) -> None:
    mapping = f"vim.keymap.set('i', '<C-l>', function() return {CALL}.accept() and '' or 'none' end, {{ expr = true }})"
    nvim = start(keys=False, more=mapping)
    script.write({"after": "f(", "items": [{"text": "x)", "forward": 1}]})
    nvim.type("f()<Left>")
    nvim.wait(lambda: nvim.screen.marked()[0] == "f(‹x›)", "the suggestion")
    nvim.type("<C-l>")
    nvim.wait_lines(["f(x)"])
    nvim.type("<C-l>")
    nvim.wait_lines(["f(x)none"])


def test_setup_again_gives_keys_back(start: Start) -> None:
    nvim = start(more="vim.keymap.set('i', '<Tab>', 'TAB')")
    nvim.lua(f"{CALL}.setup({{ keys = {{ accept = '<C-y>' }} }})")
    assert nvim.lua("return vim.fn.maparg('<Tab>', 'i')") == "TAB"
    nvim.lua(f"{CALL}.setup({{}})")
    nvim.lua(f"{CALL}.setup({{}})")  # our own mapping is not what the key did before
    nvim.type("a<Tab>")
    nvim.wait_lines(["aTAB"])


def test_in_lua_snippets_of_neovim_tab_still_jumps(start: Start) -> None:
    nvim = start()
    if not nvim.lua("return vim.fn.has('nvim-0.11')"):
        pytest.skip("before 0.11 Neovim has no mapping of its own for <Tab>")
    nvim.lua("vim.snippet.expand('f(${1:a}, ${2:b})')")
    nvim.type("x<Tab>")
    nvim.wait(lambda: nvim.request("nvim_get_mode")["mode"] == "s", "the second place")
    nvim.type("y")
    nvim.wait_lines(["f(x, y)"])
