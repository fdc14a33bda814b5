"""The whole chain: keys typed into Neovim, the installed server, its daemon and the bundled model, ghost text, <Tab>, text."""

import os
import signal
from pathlib import Path

from tests.editors.editor_parts import TYPING
from tests.editors.neovim.conftest import Editors
from tests.editors.neovim.nvim_child import Nvim
from tests.editors.neovim.picture import picture

SERVER = ["codestral-lsp", "--stdio"]
LINE = "return require('codestral').statusline()"


def typing(real_editors: Editors, workspace: Path) -> Nvim:
    nvim = real_editors.start(workspace / TYPING.path, options={"cmd": SERVER}, cwd=workspace, size=(160, 24))
    nvim.wait(lambda: nvim.lua("return require('codestral.client').get() ~= nil"), "the server")
    nvim.type("Go<C-u>")
    nvim.type_slowly(TYPING.keys)
    nvim.wait(
        lambda: nvim.ghost().startswith(TYPING.suggested), lambda: f"{TYPING.suggested}, there is {nvim.ghost()!r}"
    )
    return nvim


def current_line(nvim: Nvim) -> str:
    return nvim.request("nvim_get_current_line")


def test_what_is_typed_is_completed(real_editors: Editors, workspace: Path) -> None:
    nvim = typing(real_editors, workspace)
    for key in TYPING.suggested[:3]:
        before = nvim.ghost()
        nvim.type(key)
        nvim.wait(lambda before=before: nvim.ghost() == before[1:], "the ghost text without what was typed")
    nvim.type("<M-Right>")
    word = TYPING.suggested.partition("(")[0]
    nvim.wait(lambda: current_line(nvim) == TYPING.keys + word, "the word")
    rest = nvim.ghost()
    assert rest.startswith("(")
    nvim.type("<Tab>")
    nvim.wait(lambda: current_line(nvim).startswith(TYPING.keys + TYPING.suggested), "all of it")
    assert "Error" not in nvim.messages()


def test_a_server_that_is_killed_comes_back(real_editors: Editors, workspace: Path) -> None:
    nvim = typing(real_editors, workspace)
    children = Path(f"/proc/{nvim.lua('return vim.fn.getpid()')}/task").glob("*/children")
    for pid in [int(pid) for each in children for pid in each.read_text().split()]:
        os.kill(pid, signal.SIGKILL)
    nvim.wait(lambda: nvim.ghost() == "", "no ghost text without a server")
    nvim.wait(lambda: nvim.lua("return require('codestral.client').get() ~= nil"), "the server again")
    nvim.type(f"<Esc>S<C-u>{TYPING.keys}")
    nvim.wait(lambda: nvim.ghost().startswith(TYPING.suggested), "the suggestion again")


def test_paused_resumed_and_what_is_read(real_editors: Editors, workspace: Path) -> None:
    nvim = typing(real_editors, workspace)
    nvim.wait(lambda: nvim.lua(LINE) == "codestral", lambda: f"ready, there is {nvim.lua(LINE)}")
    nvim.type("<Cmd>Codestral pause<CR>")
    nvim.wait(lambda: nvim.lua(LINE) == "codestral paused", lambda: f"paused, there is {nvim.lua(LINE)}")
    nvim.type(f"<Esc>S<C-u>{TYPING.keys}")
    nvim.settle(0.5)
    assert nvim.ghost() == ""
    nvim.type("<Cmd>Codestral resume<CR>")
    nvim.wait(lambda: nvim.lua(LINE) == "codestral", lambda: f"ready, there is {nvim.lua(LINE)}")
    # Asked for by name, because what was deleted under a suggestion is a rejection.
    nvim.type(f"<Esc>S<C-u>{TYPING.keys}<M-Bslash>")
    nvim.wait(lambda: nvim.ghost().startswith(TYPING.suggested), "the suggestion again")
    nvim.type("<Esc><Cmd>Codestral read<CR>")
    nvim.wait(
        lambda: any("accounts/ledger.py" in line for line in nvim.lines()),
        lambda: f"the files, there is {nvim.lines()}",
    )
    nvim.type("q<Cmd>Codestral log<CR>")
    nvim.wait(
        lambda: "daemon.log" in nvim.screen.rows()[-1],
        "where the daemon's log would be: it was not this server that started it",
    )


def test_health_has_no_error(real_editors: Editors, workspace: Path) -> None:
    nvim = typing(real_editors, workspace)
    nvim.type("<Esc>")
    nvim.command("checkhealth codestral")
    nvim.wait(lambda: "trigger" in "\n".join(nvim.lines()), "the report")
    report = "\n".join(nvim.lines())
    assert "ERROR" not in report and "WARNING" not in report
    assert "codestral-lsp (" in report


def test_it_can_be_pictured(real_editors: Editors, workspace: Path) -> None:
    drawn = picture(typing(real_editors, workspace).screen)
    assert TYPING.suggested.partition("(")[0] in drawn and drawn.startswith("<svg")
