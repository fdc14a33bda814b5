"""A screen of Neovim's as a picture (SVG): `python -m tests.editors.neovim.picture OUT.svg` draws editors/neovim/images/ anew.

Runs the installed server with the bundled model, so the picture is of the real thing. NVIM_0_12 names the Neovim.
"""

import re
import shutil
import sys
import tempfile
from html import escape
from pathlib import Path

from tests.editors.editor_parts import TYPING, Session
from tests.editors.neovim.conftest import Editors, program_of
from tests.editors.neovim.nvim_child import Nvim
from tests.editors.neovim.nvim_screen import Screen

CELL, LINE, FONT_PX = 8.4, 19, 14
SIZE = (78, 22)
SERVER = ["codestral-lsp", "--stdio"]
LOOK = """
vim.o.number, vim.o.laststatus = true, 2
function Status() return require('codestral').statusline() end
vim.o.statusline = ' %f %= %{v:lua.Status()} '
"""


def picture(screen: Screen) -> str:
    """The screen with its own colours; the cursor as a bar."""
    width, height = screen.width * CELL, screen.height * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" viewBox="0 0 {width:g} {height}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{FONT_PX}" xml:space="preserve">',
        f'<rect width="100%" height="100%" rx="6" fill="{_colour(screen.default.get("background", 0))}"/>',
    ]
    for row, cells in enumerate(screen.cells):
        column = 0
        while column < len(cells):
            end = column + 1
            while end < len(cells) and cells[end].highlight == cells[column].highlight:
                end += 1
            text = "".join(cell.text for cell in cells[column:end])
            parts += _run(screen, row, column, end, text)
            column = end
    row, column = screen.cursor
    bar = _colour(screen.default.get("foreground", 0xFFFFFF))
    parts.append(f'<rect x="{column * CELL:.1f}" y="{row * LINE + 2}" width="2" height="{LINE - 4}" fill="{bar}"/>')
    return "\n".join([*parts, "</svg>", ""])


def _run(screen: Screen, row: int, column: int, end: int, text: str) -> list[str]:
    look = screen.colours.get(screen.cells[row][column].highlight, {})
    front = look.get("foreground", screen.default.get("foreground", 0xFFFFFF))
    back = look.get("background")
    if look.get("reverse"):
        front, back = back if back is not None else screen.default.get("background", 0), front
    parts = []
    x, width = column * CELL, (end - column) * CELL
    if back is not None:
        parts.append(f'<rect x="{x:.1f}" y="{row * LINE}" width="{width:.1f}" height="{LINE}" fill="{_colour(back)}"/>')
    for words in re.finditer(r"\S+(?: \S+)*", text):  # not across wider gaps, which a browser would close
        style = ' font-style="italic"' if look.get("italic") else ""
        style += ' font-weight="bold"' if look.get("bold") else ""
        shown = words.group()
        parts.append(
            f'<text x="{x + words.start() * CELL:.1f}" y="{row * LINE + 14}" textLength="{len(shown) * CELL:.1f}" '
            f'fill="{_colour(front)}"{style}>{escape(shown)}</text>'
        )
    return parts


def _colour(value: int) -> str:
    return f"#{value:06x}"


def main(out: Path) -> None:
    session = Session(Path(tempfile.mkdtemp(dir="/tmp", prefix="cp")))
    try:
        session.warm_up()
        workspace = session.new_workspace()
        editors = Editors(program_of("0.12"), session.root, session.new_environment())
        nvim = editors.start(workspace / TYPING.path, options={"cmd": SERVER}, more=LOOK, cwd=workspace, size=SIZE)
        _suggest(nvim)
        out.write_text(picture(nvim.screen), encoding="utf-8")
        nvim.kill()
    finally:
        session.end()
        shutil.rmtree(session.root, ignore_errors=True)


def _suggest(nvim: Nvim) -> None:
    nvim.wait(lambda: nvim.lua("return require('codestral.client').get() ~= nil"), "the server")
    nvim.type("Go<C-u>")
    nvim.type_slowly(TYPING.keys)
    nvim.wait(lambda: nvim.ghost().startswith(TYPING.suggested), "the suggestion")
    nvim.settle()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
