"""A Neovim of a test's own: started with an embedded user interface, typed into, looked at. Knows msgpack-RPC; knows no plugin."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import msgpack
import pytest

from tests.editors.neovim.nvim_screen import Screen

PATIENCE_S = 10.0
REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
SETTLE_S = 0.15  # of quiet, after which nothing more is expected


class NvimError(Exception):
    """Neovim has answered a request with an error."""


class Nvim:
    """One process. All waiting ends after PATIENCE_S with a line that says for what, and with the screen."""

    def __init__(
        self, program: Path, *arguments: str, env: Mapping[str, str], cwd: Path, size: tuple[int, int] = (60, 12)
    ):
        self.screen = Screen(*size)
        self._changed = threading.Condition()
        self._answers: Queue[tuple[int, Any, Any]] = Queue()
        self._count = 0
        # -n: a killed Neovim leaves a swap file, and the next one would ask what to do about it.
        self.process = subprocess.Popen(
            [program, "--embed", "-n", "-i", "NONE", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(env), cwd=cwd, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        self.request("nvim_ui_attach", *size, {"rgb": True, "ext_linegrid": True, "ext_hlstate": True})

    def request(self, method: str, *arguments: Any) -> Any:
        self._count += 1
        assert self.process.stdin is not None
        self.process.stdin.write(msgpack.packb([REQUEST, self._count, method, list(arguments)]))
        self.process.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                name, error, result = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                self.fail(f"an answer to {method}{arguments}")
            if name == self._count:  # else an answer that nobody waits for any more
                break
        if error is not None:
            raise NvimError(error[1] if isinstance(error, list) else error)
        return result

    def type(self, keys: str) -> None:
        """As if typed, all at once; `<Tab>` and the like are keys."""
        self.request("nvim_input", keys)

    def type_slowly(self, keys: str) -> None:
        """Key by key, each of them handled before the next one, as people type."""
        for key in keys:
            self.type("<lt>" if key == "<" else key)
            self.lua("return 0")

    def lua(self, code: str, *arguments: Any) -> Any:
        return self.request("nvim_exec_lua", code, list(arguments))

    def command(self, command: str) -> str:
        """An Ex command; what it has printed."""
        return self.request("nvim_exec2", command, {"output": True})["output"]

    def lines(self) -> list[str]:
        return self.request("nvim_buf_get_lines", 0, 0, -1, False)

    def cursor(self) -> tuple[int, int]:
        """Line from 1, byte from 0."""
        row, column = self.request("nvim_win_get_cursor", 0)
        return row, column

    def wait(self, is_so: Callable[[], Any], what: str | Callable[[], str]) -> None:
        """Until it is so, looked at whenever the screen has changed and now and then."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            if time.monotonic() > deadline:
                self.fail(what if isinstance(what, str) else what())
            with self._changed:
                self._changed.wait(0.02)

    def ghost(self) -> str:
        return self.screen.drawn_in()

    def wait_ghost(self, expected: str) -> None:
        self.wait(lambda: self.ghost() == expected, lambda: f"the ghost text {expected!r}, there is {self.ghost()!r}")

    def wait_lines(self, expected: list[str]) -> None:
        self.wait(lambda: self.lines() == expected, lambda: f"the lines {expected}, there is {self.lines()}")

    def settle(self, seconds: float = SETTLE_S) -> None:
        """Until the screen has not changed for a while: for what must not happen."""
        seen, since = self.screen.n_flushed, time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.01)
            if self.screen.n_flushed != seen:
                seen, since = self.screen.n_flushed, time.monotonic()

    def messages(self) -> str:
        return self.command("messages")

    def fail(self, what: str) -> None:
        pytest.fail("waited in vain for " + what + "\n" + "\n".join(self.screen.marked()), pytrace=False)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 1 << 16):
            unpacker.feed(data)
            for message in unpacker:
                if message[0] == RESPONSE:
                    self._answers.put((message[1], message[2], message[3]))
                elif message[0] == NOTIFICATION and message[1] == "redraw":
                    with self._changed:
                        self.screen.feed(message[2])
                        self._changed.notify_all()
