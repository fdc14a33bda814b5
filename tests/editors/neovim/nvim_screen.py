"""The screen that Neovim draws for a user interface (`ext_linegrid`): cells, highlights, the cursor. Knows no process.

What a user sees is what tests look at, so nothing here asks Neovim for its buffers.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Cell(NamedTuple):
    text: str  # "" in the second half of a wide character
    highlight: int


BLANK = Cell(" ", 0)


@dataclass
class Screen:
    """One grid. `feed` takes the events of a `redraw` notification."""

    width: int
    height: int
    cells: list[list[Cell]] = field(default_factory=list)
    colours: dict[int, dict[str, Any]] = field(default_factory=dict)  # what a highlight looks like
    names: dict[int, list[str]] = field(default_factory=dict)  # the groups that it is made of
    default: dict[str, int] = field(default_factory=dict)
    cursor: tuple[int, int] = (0, 0)
    n_flushed: int = 0

    def __post_init__(self) -> None:
        self._clear()

    def feed(self, events: list[Any]) -> None:
        for name, *calls in events:
            handle = getattr(self, f"_on_{name}", None)
            for arguments in calls if handle is not None else ():
                handle(*arguments)

    def rows(self) -> list[str]:
        """The screen's lines without white space at their ends."""
        return ["".join(cell.text for cell in row).rstrip() for row in self.cells]

    def marked(self, group: str = "CodestralGhost", *, brackets: str = "‹›") -> list[str]:
        """The same with what is drawn in a highlight group between brackets."""
        rows = []
        for row in self.cells:
            line, is_in = "", False
            for cell in row:
                if cell.text and (group in self.names.get(cell.highlight, [])) != is_in:
                    line += brackets[is_in]
                    is_in = not is_in
                line += cell.text
            rows.append(line.rstrip() + (brackets[1] if is_in else ""))
        return rows

    def drawn_in(self, group: str = "CodestralGhost") -> str:
        """All that is drawn in a highlight group, with \\n between screen lines that have some of it."""
        lines = [
            "".join(cell.text for cell in row if group in self.names.get(cell.highlight, [])).rstrip()
            for row in self.cells
        ]
        return "\n".join(line for line in lines if line)

    def _clear(self) -> None:
        self.cells = [[BLANK] * self.width for _ in range(self.height)]

    def _on_grid_resize(self, _grid: int, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._clear()

    def _on_grid_clear(self, _grid: int) -> None:
        self._clear()

    def _on_grid_line(self, _grid: int, row: int, column: int, cells: list[Any], *_: Any) -> None:
        highlight = 0
        for text, *more in cells:
            highlight = more[0] if more else highlight
            for _ in range(more[1] if len(more) > 1 else 1):
                self.cells[row][column] = Cell(text, highlight)
                column += 1

    def _on_grid_scroll(
        self, _grid: int, top: int, bottom: int, left: int, right: int, rows: int, _columns: int
    ) -> None:
        order = range(top, bottom - rows) if rows > 0 else range(bottom - 1, top - rows - 1, -1)
        for row in order:
            self.cells[row][left:right] = self.cells[row + rows][left:right]

    def _on_grid_cursor_goto(self, _grid: int, row: int, column: int) -> None:
        self.cursor = (row, column)

    def _on_hl_attr_define(self, name: int, rgb: dict[str, Any], _cterm: Any, info: list[dict[str, Any]]) -> None:
        self.colours[name] = rgb
        self.names[name] = [part.get("hi_name", part.get("ui_name", "")) for part in info]

    def _on_default_colors_set(self, foreground: int, background: int, special: int, *_: Any) -> None:
        self.default = {"foreground": foreground, "background": background, "special": special}

    def _on_flush(self) -> None:
        self.n_flushed += 1
