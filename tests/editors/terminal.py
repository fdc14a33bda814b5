"""A terminal with one program in it: keys go in, and what comes back is the screen that a person would see.

Knows pseudo terminals and pyte, which draws; knows no editor. Colours are kept, since ghost text differs from real text in
nothing else.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.editors.editor_parts import PATIENCE_S

COLUMNS, LINES = 100, 30
STEP_S = 0.05
AGAIN_S = 5.0
# What an editor asks of its terminal and waits for: its position, its kind, its background. pyte answers only the first two.
QUERIES = {b"\x1b[?u": b"\x1b[?0u", b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\"}
# What pyte takes for something else: keyboard protocols for "restore the cursor", private questions for its own, curly lines.
FOREIGN = re.compile(
    rb"\x1b\[[<>=][0-?]*[ -/]*[@-~]|\x1b\[\?[0-9;]*(?:[unmc]|\$p)|\x1b\[[0-9;]*:[0-9;:]*m|\x1b[P_^].*?\x1b\\\\",
    re.DOTALL,
)
BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[P_^\]][^\x07\x1b]*\x1b?)?\Z")  # a sequence whose end has not come yet


class Terminal:
    """A program in a terminal of its own. It ends with `close`."""

    def __init__(self, command: Sequence[str | Path], *, environment: Mapping[str, str], folder: Path) -> None:
        import pyte

        self._screen = pyte.Screen(COLUMNS, LINES)
        self._screen.write_process_input = self._write
        self._stream = pyte.ByteStream(self._screen)
        self._begun = b""
        variables = {**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(str(command[0]), [str(word) for word in command], variables)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def type(self, keys: str, *, pause_s: float = STEP_S) -> None:
        """Key by key, as a person types; `pause_s` lies between two."""
        for key in keys:
            self.press(key)
            self.look(pause_s)

    def press(self, keys: str) -> None:
        """All at once: one key that is several bytes."""
        self._write(keys)

    def look(self, seconds: float) -> str:
        """Draws what comes within so many seconds. The screen's text."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self._fd], [], [], left)
            if not ready:
                break
            try:
                written = os.read(self._fd, 65536)
            except OSError:  # the program has ended
                break
            self._draw(self._begun + written)
        return self.text

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def cursor(self) -> tuple[int, int]:
        """Line and column, both from 0."""
        return self._screen.cursor.y, self._screen.cursor.x

    def colours(self, line: int) -> list[str]:
        """Of each letter of a line of the screen: the foreground's name or RRGGBB."""
        return [self._screen.buffer[line][column].fg for column in range(COLUMNS)]

    def wait_for(self, what: str | Callable[[str], bool], *, again: str = "") -> str:
        """Looks until the screen shows a text, or is as the function wants it. Fails with the screen.

        `again` is pressed every few seconds, where a person would ask once more: on a busy machine an answer may come too late
        to be shown, and no editor asks again by itself.
        """
        started = asked = time.monotonic()
        while True:
            text = self.look(STEP_S)
            if what in text if isinstance(what, str) else what(text):
                return text
            now = time.monotonic()
            if now - started > PATIENCE_S:
                wanted = repr(what) if isinstance(what, str) else "what was expected"
                pytest.fail(f"{PATIENCE_S:g} s have not brought {wanted}; the screen:\n{text}", pytrace=False)
            if again and now - asked > AGAIN_S:
                asked = now
                self.press(again)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def _write(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def _draw(self, written: bytes) -> None:
        begun = BEGUN.search(written)
        whole, self._begun = (written[: begun.start()], begun.group()) if begun else (written, b"")
        for query, answer in QUERIES.items():
            if query in whole:
                os.write(self._fd, answer)
        self._stream.feed(FOREIGN.sub(b"", whole))
