"""The plugin as a whole: it starts by itself, says once what is wrong, brings back a server that has died, and answers :Codestral and :checkhealth.

The server answers what a test has written.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.editors.neovim.conftest import PLUGIN, Script, Start
from tests.editors.neovim.nvim_child import Nvim

CALL = "require('codestral')"
STATUS = "vim.api.nvim_create_autocmd('User', { pattern = 'CodestralStatus', callback = function(e) Seen = e.data.state end })"


def status(state: str, **more: Any) -> dict[str, Any]:
    ours = {"state": state, **more.pop("ours", {})}
    return {
        "method": "didChangeStatus",
        "params": {"busy": False, "message": "", "kind": "Normal", **more, "codestral": ours},
    }


def pid_of_server(nvim: Nvim) -> int:
    children = Path(f"/proc/{nvim.lua('return vim.fn.getpid()')}/task").glob("*/children")
    found = [pid for each in children for pid in each.read_text().split()]
    served = [int(pid) for pid in found if b"scripted_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(served) == 1, f"{len(served)} servers, expected one for all buffers"
    return served[0]


def test_nothing_is_loaded_before_a_file_is_opened(start: Start) -> None:
    nvim = start()  # the plugin starts by itself: no setup was called
    assert nvim.lua("return #vim.lsp.get_clients({ name = 'codestral' })") == 1
    lean = nvim.lua(
        "local done = vim.system({ vim.v.progpath, '--headless', '--clean', '--cmd', 'set rtp+=' .. ..., '+lua io.write(tostring("
        "package.loaded.codestral))', '+qa' }, { text = true }):wait() return done.stdout .. done.stderr",
        str(PLUGIN),
    )
    assert lean == "nil"


def test_loaded_late_by_a_plugin_manager(start: Start, script: Script) -> None:
    """What the README has for managers that fetch the repository: a file is open already, and `plugin/` is not sourced for them."""
    nvim = start(name="late.py", has_server=False, is_appended=False)
    nvim.lua(
        "local plugin = { dir = ... } vim.opt.runtimepath:append(plugin.dir .. '/editors/neovim')"
        " vim.cmd.runtime('plugin/codestral.lua') require('codestral').setup({ debounce_ms = 0 })",
        str(PLUGIN.parents[1]),
    )
    nvim.wait(lambda: script.heard("textDocument/didOpen"), "the server to be told of the file")
    script.write({"after": "x", "items": [{"text": "yz"}]})
    nvim.type("x")
    nvim.wait_ghost("yz")
    nvim.type("<Tab>")
    nvim.wait_lines(["xyz"])


def test_a_missing_program_is_said_once(start: Start) -> None:
    missing = start(has_server=False, cmd=["/nowhere/codestral-lsp", "--stdio"])
    missing.command("edit! b.py")
    missing.command("edit c.py")
    missing.settle()
    told = [line for line in missing.messages().splitlines() if "codestral" in line]
    assert len(told) == 1
    assert "/nowhere/codestral-lsp" in told[0] and ":checkhealth codestral" in told[0]
    assert missing.lua(f"return {CALL}.statusline()") == "codestral error"
    report = health_of(missing)
    assert "ERROR" in report and "/nowhere/codestral-lsp: not found" in report


def test_one_server_for_all_buffers_and_folders(start: Start, script: Script, tmp_path: Path) -> None:
    nvim = start()
    other = tmp_path / "other"
    (other / ".git").mkdir(parents=True)
    (other / "b.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    nvim.type("<Esc>")
    nvim.command(f"edit! {other}/b.sh")
    nvim.wait(lambda: len(script.heard("textDocument/didOpen")) == 2, "the second file")
    pid_of_server(nvim)
    assert [each["textDocument"]["languageId"] for each in script.heard("textDocument/didOpen")] == [
        "python",
        "shellscript",
    ]
    added = [
        folder["name"]
        for each in script.heard("workspace/didChangeWorkspaceFolders")
        for folder in each["event"]["added"]
    ]
    assert added == [str(other)]
    nvim.command("new | setlocal buftype=nofile")
    nvim.wait(lambda: script.heard("textDocument/didFocus")[-1] == {}, "the focus on a buffer that is no file")
    focused = [
        each.get("textDocument", {}).get("uri", "").rpartition("/")[2] for each in script.heard("textDocument/didFocus")
    ]
    assert focused == ["a.py", "b.sh", ""]


def test_a_killed_server_is_started_again(start: Start, script: Script) -> None:
    nvim = start()
    script.write({"after": "x", "items": [{"text": "yz"}]})
    nvim.type("x")
    nvim.wait_ghost("yz")
    pid = pid_of_server(nvim)
    os.kill(pid, signal.SIGKILL)
    nvim.wait_ghost("")
    nvim.wait(
        lambda: len(script.heard("initialize")) == 2 and len(script.heard("textDocument/didOpen")) == 2,
        "another server",
    )
    assert pid_of_server(nvim) != pid
    nvim.type("x")
    nvim.wait_ghost("yz")


def test_a_server_that_keeps_dying_is_left_alone(start: Start, script: Script) -> None:
    nvim = start()
    nvim.lua("require('codestral.client').RESTARTS.delay_ms = 1")
    for n in range(6):
        nvim.wait(lambda n=n: len(script.heard("initialize")) == n + 1, f"start {n + 1}")
        nvim.wait(lambda: nvim.lua("return require('codestral.client').get() ~= nil"), "a server that answers")
        os.kill(pid_of_server(nvim), signal.SIGKILL)
    nvim.wait(lambda: nvim.lua(f"return {CALL}.status().state") == "failed", "it to be given up")
    assert "ended 6 times" in nvim.messages()
    nvim.command("Codestral restart")
    nvim.wait(lambda: len(script.heard("initialize")) == 7, "a restart by hand")


LINES = {
    "starting": (status("starting"), "codestral starting"),
    "reading": (status("reading", ours={"percent": 37}, busy=True), "codestral reading 37 of 100"),
    "ready": (status("ready"), "codestral"),
    "thinking": (status("thinking", busy=True), "codestral ..."),
    "off": (status("off", kind="Inactive", ours={"reason": "comment"}), "codestral off"),
    "paused": (status("paused", kind="Inactive"), "codestral paused"),
    "an error": (status("error", kind="Error", message="no memory for the model"), "codestral error"),
    "what Copilot sends": (
        {"method": "didChangeStatus", "params": {"busy": True, "message": "", "kind": "Normal"}},
        "codestral ...",
    ),
}


@pytest.mark.parametrize(("said", "line"), LINES.values(), ids=LINES)
def test_the_status(said: dict[str, Any], line: str, start: Start, script: Script) -> None:
    script.write(says=[said, said])
    nvim = start(more=STATUS)
    nvim.wait(lambda: nvim.lua(f"return {CALL}.statusline()") == line, line)
    nvim.wait(lambda: nvim.lua(f"return Seen == {CALL}.status().state"), "User CodestralStatus")
    message = said["params"]["message"]
    nvim.wait(lambda: nvim.messages().count(message) == 1 if message else True, "the message, once")


def test_switched_off_and_on(start: Start, script: Script) -> None:
    nvim = start(enabled=False)
    script.write({"after": "x", "items": [{"text": "yz"}]})
    nvim.type("x")
    nvim.settle()
    assert (nvim.ghost(), script.n_asked(), nvim.lua(f"return {CALL}.statusline()")) == ("", 0, "codestral off")
    for words, ghost in [
        ("enable", "yz"),
        ("disable", ""),
        ("enable buffer", "yz"),
        ("toggle buffer", ""),
        ("toggle buffer", "yz"),
    ]:
        nvim.type(f"<Cmd>Codestral {words}<CR>")
        nvim.wait_ghost(ghost)


ANSWERS = {
    "codestral.log": {"daemon": "/nowhere/daemon.log"},
    "codestral.clearCache": "12 states are gone",
    "codestral.whatIsRead": {
        "workspaces": [
            {"root": "/home/a", "stage": "ready", "tokens": 90, "done": 90, "current": 1.0, "n_documents": 2,
             "documents": [{"path": "a.py", "tokens": 80}, {"path": "b.py"}], "left_out": ["big.py"]},
        ],
    },
}  # fmt: skip
WORDS = [
    ("pause", ["codestral.pause", []], "paused"),
    ("pause 30", ["codestral.pause", [30]], "paused for 30 minutes"),
    ("resume", ["codestral.resume", []], "resumed"),
    ("clear_cache", ["codestral.clearCache", ["workspace"]], "12 states are gone"),
    ("clear_cache all", ["codestral.clearCache", ["all"]], "12 states are gone"),
    ("log", ["codestral.log", []], "no log yet at /nowhere/daemon.log"),
    ("read", ["codestral.whatIsRead", []], ""),
    ("status", None, "ready"),
    ("", None, "ready"),
    ("pause -1", None, "expected a number of minutes"),
    ("clear_cache b", None, "expected 'workspace' or 'all'"),
    ("what", None, "expected one of clear_cache, disable, enable, log, pause"),
    ("restart", ["codestral.restart", []], ""),
]


def test_the_command(start: Start, script: Script) -> None:
    script.write(commands=ANSWERS)
    nvim = start(size=(160, 30))
    nvim.type("<Esc>")
    for words, sent, said in WORDS:
        n_before = len(script.heard("workspace/executeCommand"))
        nvim.command("messages clear")
        at_once = nvim.command(f"Codestral {words}")
        nvim.wait(lambda said=said, at_once=at_once: said in at_once + nvim.messages(), f"{words}: {said}")
        if sent is not None:
            nvim.wait(lambda n=n_before: len(script.heard("workspace/executeCommand")) > n, words)
        commands = [
            [each["command"], each["arguments"]] for each in script.heard("workspace/executeCommand")[n_before:]
        ]
        assert commands == ([] if sent is None else [sent])
        if words == "read":
            expected = ["/home/a", "  ready: 90 of 90 tokens read, 100 % current, 2 documents", "        80  a.py",
                        "            b.py", "  left out  big.py", ""]  # fmt: skip
            nvim.wait_lines(expected)
            nvim.type("q")
    nvim.wait(lambda: len(script.heard("initialize")) == 2, "the server that was started anew")
    assert nvim.lua("return vim.fn.getcompletion('Codestral re', 'cmdline')") == ["read", "restart", "resume"]
    assert nvim.lua("return vim.fn.getcompletion('Codestral toggle ', 'cmdline')") == ["buffer"]


def test_wrong_options_are_told_and_the_rest_is_used(start: Start, script: Script) -> None:
    nvim = start(
        debounce_ms=-1, rendr="x", keys={"accept": 3, "jump": "<C-j>"}, show_count=False, settings={"max_lines": 3}
    )
    assert "codestral: 4 wrong options; see :checkhealth codestral" in nvim.messages()
    text = health_of(nvim)
    for part in (
        "debounce_ms: expected a number from 0",
        "one of cmd, ",
        '"rendr"',
        "keys.accept: expected a key",
        '"jump"',
    ):
        assert part in text
    assert nvim.lua(
        "local v = require('codestral.config').values return { v.debounce_ms, v.show_count, v.keys.accept }"
    ) == [15, False, "<Tab>"]
    assert script.heard("initialize")[0]["initializationOptions"] == {"max_lines": 3}
    assert text.count("WARNING") == 4


def test_health(start: Start) -> None:
    nvim = start(
        more="vim.api.nvim_create_autocmd('InsertEnter', { callback = function() vim.keymap.set('i', '<M-Down>', 'x', { buffer = true }) end })"
    )
    nvim.type("<Esc>")
    report = health_of(nvim, name="codestral")
    assert "ERROR" not in report
    for part in (
        "the server runs, for 1 buffers",
        "options are understood",
        "accept: <Tab>",
        "accept_line: <M-Down> is mapped to something else",
    ):
        assert part in report


def test_help_tags(start: Start, tmp_path: Path) -> None:
    nvim = start()
    (tmp_path / "doc").mkdir()
    (tmp_path / "doc" / "codestral.txt").write_bytes((PLUGIN / "doc" / "codestral.txt").read_bytes())
    nvim.command(f"helptags {tmp_path}/doc")
    tags = {line.split("\t")[0] for line in (tmp_path / "doc" / "tags").read_text().splitlines()}
    words = nvim.lua("return vim.tbl_keys(require('codestral.config').defaults)")
    names = nvim.lua(f"local names = {{}} for name in pairs({CALL}) do names[#names + 1] = name end return names")
    assert {f"codestral-option-{word}" for word in words} <= tags
    assert {f"codestral.{name}()" for name in names if not name.startswith("_") and name != "start"} <= tags


def test_what_nvim_says_for_other_buffers(start: Start, script: Script) -> None:
    nvim = start()
    nvim.type("<Esc>")
    for command in ("enew!", "vnew | setlocal buftype=nofile", "edit! term://sh"):
        nvim.command(command)
    nvim.settle()
    assert len(script.heard("textDocument/didOpen")) == 1


def health_of(nvim: Nvim, name: str = "codestral") -> str:
    nvim.type("<Esc>")
    nvim.command(f"checkhealth {name}")
    nvim.wait(lambda: "keys" in "\n".join(nvim.lines()), "the report")
    return "\n".join(nvim.lines())
