"""One replay for people who look: a row for each key and each answer, the cursor's line with what is grey on it; in a terminal, or as an SVG.

Knows: moments. Does not know: how they came about.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from benchmarks.feel_replay import Moment, Played

WIDTH = 100  # characters of a line that are shown, those around the cursor
COLOURS = {"model": "#c07000", "reused": "#208030", "unknown": "#888888", "empty": "#bbbbbb", "": "#4060c0"}
_DIM, _BOLD, _OFF = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_ROW, _LETTER = 18, 7.3  # pixels


def in_terminal(played: Played, *, colour: bool) -> str:
    """Without colour what is grey stands in `⟨⟩`."""
    rows = [f"{played.hole.path}: {played.hole.kind}, {played.n_keys} keys, {played.style.name} editor"]
    for moment in visible_rows(played.moments):
        before, grey, after = parts(moment)
        ghost = f"{_DIM}{grey}{_OFF}" if colour and grey else f"⟨{grey}⟩" if grey else ""
        what = moment.kind or moment.what
        rows.append(f"{moment.ms / 1000:7.2f} s  {what:<14.14} {before}{'' if colour else '|'}{ghost}{after}")
    return "\n".join(rows)


def as_svg(played: Played) -> str:
    """What was typed in black, what is grey in grey; the dot says where an answer came from."""
    rows = list(visible_rows(played.moments))
    height = _ROW * (len(rows) + 3)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{int(330 + _LETTER * WIDTH)}" height="{height}" '
        'font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(10, 0, f"{played.hole.path}: {played.n_keys} keys, {played.style.name} editor", "black"),
        "".join(
            f'<circle cx="{16 + 130 * i}" cy="{_ROW * 1.75}" r="4" fill="{COLOURS[kind]}"/>'
            + _text(26 + 130 * i, 1, {"": "key", "reused": "typed through"}.get(kind, kind), "black")
            for i, kind in enumerate(COLOURS)
        ),
    ]
    for row, moment in enumerate(rows, 2):
        before, grey, after = parts(moment)
        middle = _ROW * (row + 0.75)
        out.append(f'<circle cx="16" cy="{middle}" r="4" fill="{COLOURS.get(moment.kind, "#4060c0")}"/>')
        out.append(_text(28, row, f"{moment.ms / 1000:7.2f} s", "#888888"))
        out.append(_text(110, row, (moment.kind or moment.what)[:24], "#4060c0"))
        out.append(
            f'<text x="300" y="{middle + 4}" xml:space="preserve">{escape(before)}'
            f'<tspan fill="#c00000">|</tspan><tspan fill="#999999" font-style="italic">{escape(grey)}</tspan>'
            f"{escape(after)}</text>"
        )
    return "\n".join([*out, "</svg>\n"])


def visible_rows(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Without answers that have changed nothing on the screen."""
    last = None
    for moment in moments:
        seen = (moment.line, moment.column, moment.ghost)
        if moment.what != "answer" or seen != last:
            yield moment
        last = seen


def parts(moment: Moment) -> tuple[str, str, str]:
    """The line before the cursor, what is grey and the line after it, cut to WIDTH; line ends of what is grey as `⏎`."""
    before, after = moment.line[: moment.column], moment.line[moment.column :]
    before = before if len(before) <= WIDTH // 2 else "…" + before[-WIDTH // 2 :]
    grey = moment.ghost.replace("\n", "⏎")
    room = WIDTH - len(before)
    grey = grey if len(grey) <= room else grey[: room - 1] + "…"
    return before, grey, after[: max(0, room - len(grey))]


def write_trace(path: Path, played: Sequence[Played]) -> None:
    """JSON lines: one for each hole, then one for each of its moments."""
    with path.open("w", encoding="utf-8") as file:
        for each in played:
            head = {
                "path": each.hole.path,
                "kind": each.hole.kind,
                "editor": each.style.name,
                "keys": each.n_keys,
                "truth": each.hole.truth,
                "problems": [problem._asdict() for problem in each.problems],
            }
            for value in (head, *(moment._asdict() for moment in each.moments)):
                file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _text(x: float, row: int, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{_ROW * (row + 1)}" fill="{colour}" xml:space="preserve">{escape(text)}</text>'
