"""The extension in VS Code 1.99.3, as its user meets it: grey text, keys, status bar, menu, and what goes wrong.

The .vsix is built and installed, the server and its model are the real ones. A test types into a window and looks at what is on the screen; the text is what
VS Code has saved.
"""

import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.editors.editor_parts import FILES, TYPING, wait_until
from tests.editors.vscode.conftest import Start
from tests.editors.vscode.workbench import BUTTON, MESSAGE, ROW, STATUS, Page, servers_of

READY = f"{STATUS} .codicon-check"
BEFORE = FILES[TYPING.path]
SUGGESTED = f"^{re.escape(TYPING.suggested)}"


@contextlib.contextmanager
def restarting(page: Page) -> Iterator[set[int]]:
    """Gives the servers that run, and waits for one that did not."""
    home = Path(page.server.environment["HOME"])
    before = set(servers_of(home))
    assert before, "no server runs"
    yield before
    wait_until(lambda: bool(set(servers_of(home)) - before), "a new server")


def test_what_is_typed_gets_a_suggestion_that_tab_accepts_also_after_a_reload(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.type(TYPING.keys)
    ghost = page.ghost(SUGGESTED)
    page.picture("suggestion")
    page.press("Tab")
    page.no_ghost(SUGGESTED)
    assert page.saved(workspace / TYPING.path) == BEFORE + TYPING.keys + ghost
    page.reload()
    page.see(READY)
    page.go_to_end()
    page.press("Enter")
    page.type(TYPING.keys.strip())
    page.ghost(SUGGESTED)


def test_a_word_and_a_line_are_accepted_alone(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.type(TYPING.keys)
    ghost = page.ghost(SUGGESTED)
    page.press("Control+ArrowRight")
    word = re.match(r"\w+", ghost)
    assert word is not None
    rest = page.ghost(f"^{re.escape(ghost[word.end() :])}")
    assert page.saved(workspace / TYPING.path) == BEFORE + TYPING.keys + word[0]
    page.press("Control+ArrowDown")
    page.no_ghost(f"^{re.escape(rest)}")
    assert page.saved(workspace / TYPING.path).startswith(BEFORE + TYPING.keys + ghost)


def test_typing_on_keeps_the_rest_and_escape_takes_it_away(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.type(TYPING.keys)
    ghost = page.ghost(SUGGESTED)
    page.type(ghost[:3])
    page.ghost(f"^{re.escape(ghost[3:])}")
    page.press("Escape")
    page.no_ghost()
    assert page.saved(workspace / TYPING.path) == BEFORE + TYPING.keys + ghost[:3]


def test_a_server_that_was_killed_starts_again(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    with restarting(page) as servers:
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
    page.see(READY)
    page.type(TYPING.keys)
    page.ghost(SUGGESTED)
    page.press("Tab")
    assert page.saved(workspace / TYPING.path).startswith(BEFORE + TYPING.keys + TYPING.suggested)


def test_with_several_cursors_nothing_is_suggested(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.press("Enter", "Shift+Alt+ArrowUp")  # a second cursor, on the line above
    page.type(TYPING.keys)
    page.no_ghost(for_s=2)
    page.press("Escape", "Backspace")  # one cursor again, and the same place has a suggestion
    page.type(TYPING.keys[-1])
    page.ghost()


def test_the_list_of_vscode_and_the_grey_text_agree(page: Page, workspace: Path) -> None:
    """With the list of words open, Tab is the list's; what is grey goes on from the selected word or is not there."""
    page.server.set(editor__wordBasedSuggestions="currentDocument", editor__quickSuggestions=True)
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.type(TYPING.keys)
    page.see(".suggest-widget.visible .monaco-list-row", "record_withdrawal")
    page.press("Tab")
    page.gone(".suggest-widget.visible")
    text = page.saved(workspace / TYPING.path)
    assert text.startswith(BEFORE + "    ledger.record_withdrawal")
    page.ghost(r"^\(")


def test_a_language_is_turned_off_and_on_again(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    with restarting(page):
        page.run("Codestral: Turn Suggestions On or Off for This Language")
    page.see(f"{STATUS} .codicon-circle-slash")
    page.picture("off")
    page.go_to_end()
    page.type(TYPING.keys)
    page.no_ghost(for_s=2)
    with restarting(page):
        page.run("Codestral: Turn Suggestions On or Off for This Language")
    page.see(READY)
    page.go_to_end()
    page.press("Backspace")
    page.type(TYPING.keys[-1])
    page.ghost(SUGGESTED)


def test_the_menu_pauses_and_resumes(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.click(STATUS)
    page.see(ROW, "Pause")
    page.picture("menu")
    page.click(ROW, "Pause")
    page.click(ROW, "For 15 minutes")
    page.see(STATUS, "paused")
    page.go_to_end()
    page.type(TYPING.keys)
    page.no_ghost(for_s=2)
    page.click(STATUS)
    page.click(ROW, "Suggest again|Resume")
    page.see(READY)
    page.go_to_end()
    page.press("Backspace")
    page.type(TYPING.keys[-1])
    page.ghost(SUGGESTED)


def test_what_has_been_read_is_listed_file_by_file(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    page.run("Codestral: Show What Has Been Read")
    page.see(ROW, r"ready: \d files, .* tokens, up to date")
    page.see(ROW, "accounts/ledger.py")
    page.picture("read")
    page.type("ledger")
    page.press("Enter")
    page.see(".tab.active", "ledger.py")


def test_a_changed_setting_holds_at_once(page: Page, workspace: Path) -> None:
    page.open(workspace, file=TYPING.path)
    page.see(READY)
    with restarting(page):
        page.server.set(codestralLsp__automatic=False)
    page.see(READY)
    page.type(TYPING.keys)
    page.no_ghost(for_s=2)
    page.press("Alt+\\")
    page.ghost(SUGGESTED)


def test_how_it_starts_is_told(start: Start, cold_environment: dict[str, str], workspace: Path) -> None:
    """Where no daemon runs: it is started, it loads the model, it reads."""
    page = start(cold_environment)
    page.open(workspace, file=TYPING.path)
    page.see(STATUS, "codestral: (starting|loading|reading)")
    page.picture("starting")
    page.see(READY)
    page.type(TYPING.keys)
    page.ghost(SUGGESTED)


def test_without_the_program_it_says_how_to_install_it(
    start: Start, environment: dict[str, str], workspace: Path
) -> None:
    folders = [each for each in environment["PATH"].split(os.pathsep) if not Path(each, "codestral-lsp").exists()]
    environment = {**environment, "PATH": os.pathsep.join(folders)}
    assert shutil.which("git", path=environment["PATH"]), "the test needs what else VS Code starts"
    page = start(environment)
    page.open(workspace, file=TYPING.path)
    page.see(STATUS, "not installed")
    page.see(MESSAGE, "cannot find it: codestral-lsp is neither on PATH nor in the usual places")
    page.click(BUTTON, "^How to install$")
    page.see(".getting-started-step", "Install the program")
    page.picture("not-installed")


def test_a_workspace_that_is_not_trusted_names_no_program(page: Page, workspace: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was-run"
    for name in ("prog", ".venv/bin/codestral-lsp"):
        program = workspace / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\ntouch {proof}\necho codestral-lsp 9.9.9\n", encoding="utf-8")
        program.chmod(0o755)
    settings = workspace / ".vscode" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"codestralLsp.server.path": str(workspace / "prog")}), encoding="utf-8")
    page.open(workspace, file=TYPING.path, is_trusted=False)
    page.see(READY)
    page.type(TYPING.keys)
    page.ghost(SUGGESTED)
    assert not proof.exists()


def test_a_cell_of_a_notebook_gets_suggestions(page: Page, workspace: Path) -> None:
    cell = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": [BEFORE]}
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]}
    (workspace / "fees.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    page.open(workspace)
    page.see(READY)
    page.click(".explorer-folders-view .monaco-list-row", "fees.ipynb")
    page.click(".notebook-editor .view-line")
    page.press("Control+End")
    page.type(TYPING.keys)
    page.ghost(SUGGESTED)


def test_inside_the_extension_host(start: Start, environment: dict[str, str], workspace: Path) -> None:
    """What only an extension can see: commands, documents, what the server was told. in_host.js asserts."""
    here = Path(__file__).parent
    paths = (("extensionDevelopmentPath", str(here.parents[2] / "editors" / "vscode")),
             ("extensionTestsPath", str(here / "in_host.js")))  # fmt: skip
    page = start(environment, runs_tests=True)
    page.open(workspace, payload=paths, is_trusted=None)
    wait_until(lambda: any(kind == "exit" for kind, _ in page.calls()), "the test in the extension host")
    said = [str(words[0]) for kind, words in page.calls() if kind == "log" and words]
    assert ("exit", 0) in page.calls(), next((each for each in said if "AssertionError" in each), said[-1:])
