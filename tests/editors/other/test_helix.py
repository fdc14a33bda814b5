"""Helix with the very settings that editors/other/README.md shows: it connects, syncs, and offers the suggestion in its menu."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.editor_parts import FILES, HOUSE, TYPING, find_editor
from tests.editors.terminal import Terminal

SETTINGS = HOUSE / "editors" / "other" / "helix" / "languages.toml"
DOWN, ENTER, ESCAPE, CONTROL_X = "\x0e", "\r", "\x1b", "\x18"


@pytest.fixture
def helix(environment: dict[str, str], workspace: Path) -> Iterator[Terminal]:
    """Helix on the file of TYPING, in insert mode on a new last line."""
    settings = Path(environment["XDG_CONFIG_HOME"]) / "helix"
    settings.mkdir(parents=True)
    shutil.copy(SETTINGS, settings)
    program = find_editor("hx", variable="HX", installed="helix/bin/hx")
    terminal = Terminal([program, TYPING.path], environment=environment, folder=workspace)
    try:
        terminal.wait_for("NOR")
        terminal.press("geo")  # to the last line, and open one below
        terminal.wait_for("INS")
        yield terminal
    finally:
        terminal.close()


def menu_line(text: str) -> str | None:
    """The menu's line of our suggestion; Helix' own, of words in the buffer, has no bracket."""
    whole = TYPING.keys.split(".")[-1] + TYPING.suggested
    return next((line.strip("~ ") for line in text.splitlines() if line.strip("~ ").startswith(whole)), None)


def saved(helix: Terminal, workspace: Path, *, begins: str) -> str:
    helix.press(ESCAPE)
    helix.wait_for("NOR")
    helix.type(":w")
    helix.press(ENTER)
    helix.wait_for("written")
    text = (workspace / TYPING.path).read_text(encoding="utf-8")
    assert text.startswith(FILES[TYPING.path] + begins)
    return text


def test_the_suggestion_is_in_the_menu_and_is_taken(helix: Terminal, workspace: Path) -> None:
    helix.type(TYPING.keys)
    text = helix.wait_for(lambda text: menu_line(text) is not None, again=CONTROL_X)
    offered = (menu_line(text) or "").rsplit(maxsplit=1)[0]  # the last word is its kind
    helix.press(DOWN)
    helix.press(ENTER)
    helix.wait_for(TYPING.keys.split(".")[0] + "." + offered)
    assert saved(helix, workspace, begins=TYPING.keys + TYPING.suggested).endswith(offered + "\n")


def test_the_server_follows_edits_around_wide_letters(helix: Terminal, workspace: Path) -> None:
    """Helix counts in UTF-8. A server that counted otherwise would take the word before the cursor for another."""
    before = '    fox = "🦊 größer"; '
    helix.type(before + "ledger.record_depos")
    helix.press("\x17")  # deletes the word: the server hears of a removal behind the fox
    helix.type(TYPING.keys.split(".")[-1])
    helix.wait_for(lambda text: menu_line(text) is not None, again=CONTROL_X)
    saved(helix, workspace, begins=before + TYPING.keys.strip())
