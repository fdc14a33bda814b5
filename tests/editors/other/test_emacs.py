"""Emacs with the very settings that editors/other/README.md shows: eglot and lsp-mode, each with its ghost text.

Emacs counts in code points, so this is where the server is asked for UTF-32.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.editors.editor_parts import FILES, HOUSE, TYPING, find_editor
from tests.editors.terminal import Terminal

SETTINGS = HOUSE / "editors" / "other" / "emacs"
CHECK = Path(__file__).parent / "eglot_check.el"
TO_THE_END, SAVE, TAB, CONTROL_G = "\x1b>", "\x18\x13", "\t", "\x07"  # M->, C-x C-s
LAST_KEY_AGAIN = "\x7f" + TYPING.keys[-1]
WHOLE = TYPING.keys + TYPING.suggested

# What a fresh Emacs asks or shows and no test wants to see; no suggestion depends on it.
QUIET = """
(setq inhibit-startup-screen t make-backup-files nil auto-save-default nil create-lockfiles nil ring-bell-function 'ignore
      python-indent-guess-indent-offset nil lsp-auto-guess-root t lsp-session-file (expand-file-name "lsp-session" "~")
      lsp-headerline-breadcrumb-enable nil lsp-warn-no-matched-clients nil lsp-enabled-clients '(codestral-lsp))
(menu-bar-mode -1)
(electric-indent-mode -1)
"""


@pytest.fixture
def emacs() -> Path:
    return find_editor("emacs", variable="EMACS", installed="emacs/bin/emacs")


@pytest.fixture
def open_emacs(emacs: Path, environment: dict[str, str], workspace: Path) -> Iterator[Callable[[str], Terminal]]:
    """Settings' name -> Emacs in a terminal, at the end of TYPING's file."""
    opened: list[Terminal] = []

    def open_(settings: str) -> Terminal:
        place = Path(environment["XDG_CONFIG_HOME"]) / "emacs"
        place.mkdir(parents=True)
        (place / "init.el").write_text(f'{QUIET}\n(load "{SETTINGS / settings}")\n', encoding="utf-8")
        opened.append(Terminal([emacs, "-nw", TYPING.path], environment=environment, folder=workspace))
        opened[-1].wait_for(FILES[TYPING.path].splitlines()[-1])
        opened[-1].press(TO_THE_END)
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()


def cursor_line(terminal: Terminal) -> str:
    return terminal.text.splitlines()[terminal.cursor[0]]


def has_ghost(terminal: Terminal) -> bool:
    """The suggestion stands behind what was typed, in a colour that what was typed has not."""
    line = cursor_line(terminal)
    if WHOLE not in line:
        return False
    colours = terminal.colours(terminal.cursor[0])[line.index(WHOLE) :]
    typed = {colour for colour, key in zip(colours, TYPING.keys, strict=False) if key != " "}
    return not typed & set(colours[len(TYPING.keys) : len(WHOLE)])


def lsp_mode_is_ready(text: str) -> bool:
    """The mode line names the server's process, and behind it nothing, such as "/starting"."""
    return re.search(r"LSP\[codestral-lsp:\d+]", text) is not None


def takes_the_ghost_text(terminal: Terminal, workspace: Path) -> None:
    terminal.type(TYPING.keys)
    terminal.wait_for(lambda _: has_ghost(terminal), again=LAST_KEY_AGAIN)
    terminal.press(TAB)
    terminal.wait_for(lambda _: WHOLE in cursor_line(terminal) and not has_ghost(terminal))
    terminal.press(SAVE)
    terminal.wait_for("Wrote")
    assert (workspace / TYPING.path).read_text(encoding="utf-8").startswith(FILES[TYPING.path] + WHOLE)


def test_eglot_shows_the_suggestion_as_a_preview(open_emacs: Callable[[str], Terminal], workspace: Path) -> None:
    terminal = open_emacs("codestral-eglot.el")
    terminal.wait_for("eglot")  # in the mode line
    takes_the_ghost_text(terminal, workspace)


def test_lsp_mode_shows_ghost_text(open_emacs: Callable[[str], Terminal], workspace: Path) -> None:
    terminal = open_emacs("codestral-lsp-mode.el")
    terminal.wait_for(lsp_mode_is_ready)
    takes_the_ghost_text(terminal, workspace)


def test_lsp_mode_leaves_the_text_alone_when_the_ghost_is_sent_away(
    open_emacs: Callable[[str], Terminal], workspace: Path
) -> None:
    terminal = open_emacs("codestral-lsp-mode.el")
    terminal.wait_for(lsp_mode_is_ready)
    terminal.type(TYPING.keys)
    terminal.wait_for(lambda _: has_ghost(terminal), again=LAST_KEY_AGAIN)
    terminal.press(CONTROL_G)
    terminal.wait_for(lambda _: WHOLE not in cursor_line(terminal))
    terminal.press(SAVE)
    terminal.wait_for("Wrote")
    assert (workspace / TYPING.path).read_text(encoding="utf-8") == FILES[TYPING.path] + TYPING.keys + "\n"


def test_eglot_and_the_server_agree_on_wide_letters(emacs: Path, environment: dict[str, str], workspace: Path) -> None:
    before = '    fox = "🦊 größer"; '
    given = {
        "CHECK_SETTINGS": str(SETTINGS / "codestral-eglot.el"),
        "CHECK_FILE": str(workspace / TYPING.path),
        "CHECK_EDIT": before + "ledger.record_depos",
        "CHECK_KEYS": TYPING.keys.split("_")[-1],
    }
    done = subprocess.run(
        [emacs, "--batch", "-l", CHECK],
        env=environment | given, cwd=workspace, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    at = {"line": len(FILES[TYPING.path].splitlines()), "character": len(before + TYPING.keys.strip())}
    assert (said["name"], said["encoding"], said["character"]) == ("codestral-lsp", "utf-32", at["character"])
    assert said["inline"][0]["insertText"].startswith(TYPING.suggested)
    assert said["inline"][0]["range"] == {"start": at, "end": at}
    assert said["menu"][0]["label"].startswith(TYPING.keys.split(".")[-1] + TYPING.suggested)
