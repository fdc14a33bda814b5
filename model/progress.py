"""How far a long command has come, on stderr: one line that is rewritten on a terminal, a line now and then elsewhere.

Knows the terminal and the clock; does not know what is being done.
"""

import sys
import time
from collections.abc import Callable
from typing import TextIO

REDRAW_S = 0.1  # of a terminal's line
# Where no terminal is: a line is printed so long after the one before, sooner when it is about something else.
SPARSE_S, SPARSE_NEWS_S = 30.0, 3.0
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what


class ProgressLine:
    """A Progress for people. Use it as a context manager, so that its line is wiped at the end."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._clock = clock
        self._what = self._shown = ""
        self._since = self._drawn = clock()
        self._from = 0  # done when `what` began: what an earlier run has done says nothing of this one's speed

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Bytes done, bytes in all (0: not known), of what."""
        self._advance(done, total, what, shown_bytes)

    def count(self, done: int, total: int, what: str) -> None:
        """As above for what is not bytes: tokens, files."""
        self._advance(done, total, what, lambda n: f"{n:.0f}")

    def say(self, what: str) -> None:
        """A stage without a number."""
        if self._is_due(what, is_last=True):
            self._show(what, what)

    def _advance(self, done: int, total: int, what: str, shown: Callable[[float], str]) -> None:
        if what != self._what:
            self._what, self._since, self._from = what, self._clock(), done
        if not self._is_due(what, is_last=done == total):
            return
        if not total:
            self._show(what, f"{what}: {shown(done)}")
            return
        parts = [f"{shown(done)} of {shown(total)}", f"{100 * done // total} %"]
        seconds = self._clock() - self._since
        if seconds >= 1 and done > self._from:
            per_s = (done - self._from) / seconds
            parts += [f"{shown(per_s)}/s", f"{shown_seconds((total - done) / per_s)} left"]
        self._show(what, f"{what}: {', '.join(parts)}")

    def _is_due(self, what: str, *, is_last: bool) -> bool:
        silent_s = self._clock() - self._drawn
        if self._is_terminal:
            return is_last or what != self._shown or silent_s >= REDRAW_S
        return silent_s >= (SPARSE_S if what == self._shown else SPARSE_NEWS_S)

    def _show(self, what: str, line: str) -> None:
        self._shown, self._drawn = what, self._clock()
        self._stream.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        self._stream.flush()


def shown_bytes(n_bytes: float) -> str:
    """Three digits or so and a decimal unit: `14.6 GB`."""
    for size, unit in _UNITS:
        if n_bytes >= 0.9995 * size:
            return f"{n_bytes / size:.{0 if n_bytes >= 99.95 * size else 1}f} {unit}"
    return f"{n_bytes:.0f} B"


def shown_seconds(seconds: float) -> str:
    """`40 s`, `7 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
