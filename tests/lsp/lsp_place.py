"""What the processes of one test share: a runtime folder, a home, a repository, and a stub daemon started on demand."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lsp_client import PATIENCE_S, LspClient

GARBAGE = b"SSH-2.0-OpenSSH_9.2\r\n"  # what a server of something else may say
STUB = Path(__file__).parent / "stub_daemon.py"


def program() -> list[str]:
    """The installed console script, else the module."""
    script = Path(sys.executable).parent / "codestral-lsp"
    return [str(script)] if script.exists() else [sys.executable, "-I", "-m", "lsp"]


@dataclass
class Place:
    """What the processes of one test share."""

    root: Path
    env: dict[str, str]
    clients: list[LspClient] = field(default_factory=list)

    @property
    def repository(self) -> Path:
        return self.root / "repo"

    @property
    def socket(self) -> Path:
        """Where the bundled model's daemon listens."""
        from daemon.protocol import socket_path

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", self.env["XDG_RUNTIME_DIR"])
            return socket_path("bundled")

    def client(self, **env: str) -> LspClient:
        client = LspClient([*program(), "--stdio"], env={**self.env, **env}, cwd=self.repository)
        self.clients.append(client)
        return client

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program(), *arguments],
            env={**self.env, **env},
            cwd=self.repository,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the stub daemons have written down, oldest first."""
        path = Path(self.env["STUB_EVENTS"])
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if event["event"] == kind]

    def wait_events(self, kind: str, n: int = 1) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.events(kind)) >= n, f"{n} events {kind!r}")
        return self.events(kind)


def uri_of(place: Place, name: str = "b.py") -> str:
    return (place.repository / name).as_uri()


def ready(place: Place, **env: str) -> LspClient:
    """A client whose context is fed."""
    client = place.client(**{"CODESTRAL_LSP_LOG": "debug", **env})
    client.initialize(place.repository)
    client.wait_for_error("tokens of context")
    return client


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)  # polling for another process, bounded by PATIENCE_S


def write_repository(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def make_place() -> Place:
    # In /tmp and short, because a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="cl"))
    (root / "run").mkdir(mode=0o700)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CODESTRAL_", "STUB_", "XDG_"))}
    env |= {
        "HOME": str(root / "home"),
        "XDG_RUNTIME_DIR": str(root / "run"),
        "STUB_EVENTS": str(root / "events"),
        "STUB_ALIVE": str(root / "alive"),
        "CODESTRAL_LSP_DAEMON_COMMAND": f"{sys.executable} -I {STUB}",
    }
    (root / "alive").touch()
    here = Place(root, env)
    write_repository(here.repository, {"a.py": "def first():\n    return 1\n", "b.py": "x = first()\ny = \n"})
    return here


def remove_place(place: Place) -> None:
    """Ends what the test has left running, and only that. A stub that has just been started looks for the file."""
    Path(place.env["STUB_ALIVE"]).unlink()
    for client in place.clients:
        client.kill()
    for event in place.events("serving"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(event["pid"], signal.SIGKILL)
    shutil.rmtree(place.root, ignore_errors=True)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A foreign server on the daemon's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
