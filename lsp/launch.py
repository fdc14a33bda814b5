"""Finding the daemon of a model, starting it when there is none, and stopping it.

Knows processes, sockets and the log file; knows no LSP and no documents.

Two front ends may start a daemon at the same moment. The daemon settles that with a lock: the loser exits with status
0, so such a child only means "keep asking the socket". `CODESTRAL_LSP_DAEMON_COMMAND`, a shell-like command line,
replaces `python -I -m daemon`; it is meant for tests and packagers.
"""

import asyncio
import logging
import os
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from daemon.protocol import PROTOCOL_VERSION, Health, SocketError, socket_path
from lsp.client import Client, DaemonError
from lsp.settings import Settings

COMMAND_VARIABLE = "CODESTRAL_LSP_DAEMON_COMMAND"
LOG_LIMIT_BYTES = 5_000_000
POLL_S = 0.05
SILENCE_S = 60.0  # from the start of a process to its first answer; importing torch on a busy machine takes long
# A daemon that is just leaving breaks connections too, and one that loads its model may be slow to answer; only what
# stays so is someone else's. By the type of the DaemonError.
UNCLEAR_S = {"broken": 2.0, "silent": 15.0}
RESTART_S = 1.0  # between two starts, so that a daemon that is just leaving has time to let go of its lock
STOP_S = 20.0
STARTING, LOADING = "starting the daemon", "loading the model"  # what `connect` says it waits for

logger = logging.getLogger(__name__)


class LaunchError(Exception):
    """There is no daemon to talk to and none could be started. One line, for people."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that is ready."""

    client: Client
    health: Health


async def connect(settings: Settings, *, say: Callable[[str], None] = logger.info) -> Daemon:
    """The ready daemon of the settings' model and precision, started if need be.

    `say` hears what is waited for. Raises LaunchError or SocketError, each with one line.
    """
    path = socket_path(settings.model, settings.precision)
    client = Client(path)
    command = daemon_command(settings, path)
    try:
        return Daemon(client, await _Launch(client, command=command, say=say).run())
    except BaseException:
        await client.close()
        raise


async def stop_at(path: Path) -> bool:
    """Waits until the process of the daemon on this socket is gone. False when none ran. Raises SocketError or LaunchError."""
    client = Client(path)
    try:
        health = await _probe(client)
        if health is None:
            return False
        await _dismiss(client, health)
        return True
    finally:
        await client.close()


def daemon_command(settings: Settings, path: Path) -> list[str]:
    """What is run. `-I`: neither the user's environment nor the current folder decides which `daemon` that is."""
    override = os.environ.get(COMMAND_VARIABLE)
    program = shlex.split(override) if override else [sys.executable, "-I", "-m", "daemon"]
    options = ["--model", settings.model, "--precision", settings.precision, "--socket", str(path)]
    return [*program, *options, *settings.daemon_options]


class _Launch:
    """One attempt to reach a ready daemon: look, start, look again, until it is ready or there is reason to give up."""

    def __init__(self, client: Client, *, command: list[str], say: Callable[[str], None]) -> None:
        self._client = client
        self._command = command
        self._say = say
        self._child: _Child | None = None
        self._said = ""
        self._has_replaced = False

    async def run(self) -> Health:
        started = time.monotonic()
        while True:
            health = await _probe(self._client)
            if health is None:
                self._start_or_give_up(started)
            elif health.protocol != PROTOCOL_VERSION:
                await self._replace(health)
                started = time.monotonic()
            elif health.state == "ready":
                return health
            elif health.state == "failed":
                await _dismiss(self._client, health)  # so that the next attempt is a new one
                raise LaunchError(f"the daemon could not start: {health.error or 'it gives no reason'}")
            else:
                self._tell(LOADING)
                started = time.monotonic()
            await asyncio.sleep(POLL_S)

    def _start_or_give_up(self, started: float) -> None:
        child = self._child
        if child is not None and child.status() not in (None, 0):
            raise LaunchError(f"the daemon ended with status {child.status()}: {child.last_words()}")
        if time.monotonic() - started > SILENCE_S:
            said = f", it says: {child.last_words()}" if child is not None and child.status() == 0 else ""
            raise LaunchError(
                f"no daemon has answered on {self._client.socket} for {SILENCE_S:g} s; its log is {log_path()}{said}"
            )
        if child is None or (child.status() == 0 and child.age_s() > RESTART_S):
            self._tell(STARTING)
            self._child = _Child(self._command)

    async def _replace(self, health: Health) -> None:
        if self._has_replaced:
            raise LaunchError(
                f"the daemon speaks protocol {health.protocol}, expected {PROTOCOL_VERSION}; is there a second install?"
            )
        self._has_replaced = True
        logger.warning(
            "replacing a daemon of protocol %d (pid %d); ours is %d", health.protocol, health.pid, PROTOCOL_VERSION
        )
        await _dismiss(self._client, health)

    def _tell(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._say(what)


class _Child:
    """A daemon that we started. It outlives us: its own session, no terminal, its words in the log file."""

    def __init__(self, command: list[str]) -> None:
        log, self._log_from = _open_log()
        self._since = time.monotonic()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        except OSError as error:
            raise LaunchError(f"{command[0]}: the daemon cannot be started ({error.strerror})") from None
        finally:
            if log != subprocess.DEVNULL:
                os.close(log)
        # Someone has to wait for the child, or it stays behind as a zombie for as long as the editor runs.
        threading.Thread(target=self._process.wait, name="codestral-lsp-daemon-wait", daemon=True).start()

    def status(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    def age_s(self) -> float:
        return time.monotonic() - self._since

    def last_words(self) -> str:
        """The last line it wrote."""
        try:
            with log_path().open("rb") as log:
                log.seek(self._log_from)
                lines = log.read().decode("utf-8", "replace").split("\n")
        except OSError:
            lines = []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")


def log_path() -> Path:
    return platformdirs.user_state_path("codestral-lsp") / "daemon.log"


def _open_log() -> tuple[int, int]:
    """A descriptor of the log, opened to append and readable by its owner only, and the log's length.

    No place to write costs the log, not the daemon.
    """
    path = log_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        logger.warning("%s: cannot be written (%s); the daemon runs without a log", path, error.strerror)
        return subprocess.DEVNULL, 0
    return log, os.lseek(log, 0, os.SEEK_END)


async def _probe(client: Client) -> Health | None:
    """None: nothing listens. Raises SocketError when what is there is not ours."""
    path = client.socket
    started = time.monotonic()
    while True:
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise SocketError(f"{path} is in use by something that is not codestral-lsp (it is not a socket)")
            return await client.health()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SocketError(f"{path}: cannot be looked at ({error.strerror})") from None
        except DaemonError as error:
            if error.type == "unreachable":
                return None
            if time.monotonic() - started >= UNCLEAR_S.get(error.type, 0.0):
                raise SocketError(f"{path} is in use by something that is not codestral-lsp") from None
        await asyncio.sleep(POLL_S)


async def _dismiss(client: Client, health: Health) -> None:
    try:
        await client.shutdown()
    except DaemonError as error:
        if not error.is_gone:
            raise LaunchError(f"the daemon (pid {health.pid}) refused to stop: {error.message}") from None
    if not await wait_gone(health.pid, timeout_s=STOP_S):
        raise LaunchError(f"the daemon (pid {health.pid}) was asked to stop and is still there after {STOP_S:g} s")


def is_alive(pid: int) -> bool:
    """A process that has ended but was not waited for by its parent counts as gone."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and someone else's
        return True
    except OverflowError:  # a number that no process can have
        return False
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
    except OSError:  # not Linux, or it ended this moment; the next look will tell
        return True
    return after_name.split()[:1] != [b"Z"]


async def wait_gone(pid: int, *, timeout_s: float, poll_s: float = 0.05) -> bool:
    """True as soon as the process is gone, False when it is still there after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(poll_s)
    return True
