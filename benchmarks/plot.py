"""Pictures of measurements for docs/: the same picture as PNG and as SVG, the same bytes from the same figures.

Needs matplotlib (`pip install -e '.[bench]'`). Knows: lines on axes. Does not know: what was measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito: apart for every kind of colour vision
MARKS = ("o", "s", "^", "D")


@dataclass(frozen=True, slots=True)
class Line:
    """`stopped` says why there are no points further right, if that needs a word."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """With `x_label` and `ticks` it has an axis of its own; without, that of the whole picture."""

    title: str
    y_label: str
    lines: Sequence[Line]
    x_label: str = ""
    ticks: Sequence[int] = ()


def draw(panels: Sequence[Panel], *, x_label: str, ticks: Sequence[int], out: Path) -> list[Path]:
    """Panels side by side, both axes logarithmic. Writes `out`.png and `out`.svg and returns their paths."""
    import matplotlib  # heavy, and only installed for this

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullLocator

    matplotlib.rcParams.update({"svg.hashsalt": "codestral-lsp", "svg.fonttype": "none", "font.size": 9})
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False, layout="constrained")
    for panel, axis in zip(panels, axes[0], strict=True):
        for line, colour, mark in zip(panel.lines, COLOURS, MARKS, strict=False):
            axis.plot(line.x, line.y, label=line.label, color=colour, marker=mark, markersize=4)
            if line.stopped and line.x:
                place = (line.x[-1], line.y[-1])
                axis.annotate(line.stopped, place, xytext=(6, 2), textcoords="offset points", color=colour, fontsize=8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(decades([value for line in panel.lines for value in line.y]))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        marked = panel.ticks or ticks
        axis.set_xticks(marked, [short(tick) for tick in marked])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set(title=panel.title, xlabel=panel.x_label or x_label, ylabel=panel.y_label)
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = [out.with_suffix(suffix) for suffix in (".png", ".svg")]
    figure.savefig(paths[0], dpi=150, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return paths


def decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around positive `values`, at least one decade apart."""
    low = 10.0 ** math.floor(math.log10(min(values, default=1.0)))
    high = 10.0 ** math.ceil(math.log10(max(values, default=10.0)))
    return low, max(high, 10 * low)


def short(number: int) -> str:
    """65536 as 64k."""
    return f"{number // 1024}k" if number >= 1024 and number % 1024 == 0 else str(number)
