"""What every test of a real editor stands on: a home of its own, a repository, one warm daemon, and an end to all of it.

Knows processes, folders and git; knows no editor. An editor's own tests drive it.

Everything lies in one short folder below /tmp: a socket's path has at most 107 bytes. Whatever a test starts inherits the
folder as its HOME, and so is found and ended with it, however many processes lie between.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon.protocol import socket_path
from lsp.client import Client, DaemonError

HOUSE = Path(__file__).parents[2]
INSTALLED = HOUSE / "build" / "editors"  # where tests/editors/install.sh puts what the tests need
SERVER = Path(sys.executable).parent / "codestral-lsp"
PATIENCE_S = 60.0  # for anything that another process does on a busy machine
POLL_S = 0.05

LEDGER = '''"""Accounts of members and what they owe."""

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """All amounts are whole cents."""

    member: str
    entries: list[int] = field(default_factory=list)

    def record_deposit(self, amount_cents: int) -> None:
        if amount_cents <= 0:
            raise ValueError(f"{amount_cents}: expected more than 0 cents")
        self.entries.append(amount_cents)

    def record_withdrawal(self, amount_cents: int) -> None:
        if amount_cents > self.balance_cents():
            raise ValueError(f"{amount_cents}: expected at most the balance")
        self.entries.append(-amount_cents)

    def balance_cents(self) -> int:
        return sum(self.entries)
'''
USE = """from accounts.ledger import Ledger


def pay_monthly_fee(ledger: Ledger, fee_cents: int) -> int:
    ledger.record_withdrawal(amount_cents=fee_cents)
    return ledger.balance_cents()


def refund_monthly_fee(ledger: Ledger, fee_cents: int) -> int:
    ledger.record_deposit(amount_cents=fee_cents)
    return ledger.balance_cents()


def pay_yearly_fee(ledger: Ledger, fee_cents: int) -> int:
"""
FILES = {
    "accounts/__init__.py": "",
    "accounts/ledger.py": LEDGER,
    "accounts/fees.py": USE,
    "README.md": "# Accounts\n\nA ledger for members.\n",
}


@dataclass(frozen=True, slots=True)
class Typing:
    """Keys after which the bundled model is sure of what follows, whatever else changes about it."""

    path: str  # in the workspace; its last line is empty, and that is where to type
    keys: str
    suggested: str  # what the suggestion begins with


TYPING = Typing("accounts/fees.py", "    ledger.record_with", "drawal(")


def wait_until(is_so: Callable[[], bool], what: str, *, patience_s: float = PATIENCE_S) -> None:
    """Looks again and again. Fails with one line."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience_s:g} s in vain for {what}", pytrace=False)
        time.sleep(POLL_S)


def find_editor(name: str, *, variable: str, installed: str) -> Path:
    """The program that `variable` names, else that of install.sh (a path below build/editors), else that on PATH. Fails with one line."""
    named = os.environ.get(variable)
    if named:
        found = shutil.which(named)
        return Path(found) if found else pytest.fail(f"{variable}={named}: expected a program", pytrace=False)
    for place in (str(INSTALLED / installed), name):
        if found := shutil.which(place):
            return Path(found)
    return pytest.fail(f"no {name} here: `make editors` installs one, {variable}=PATH names one", pytrace=False)


def write_workspace(folder: Path, files: Mapping[str, str] = FILES) -> Path:
    """A git repository of these files with one commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    author = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*author, "commit", "-q", "-m", "Accounts"]):
        subprocess.run(["git", *words], cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return folder


def make_environment(home: Path, *, shared: Path, temporary: Path) -> dict[str, str]:
    """The variables of an editor: nothing of whoever runs the tests but PATH, language and what finds programs.

    `shared` holds the daemon's socket and what is derived from weights.
    """
    for folder in (home, shared, temporary):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Settings of this machine's user stay out, and tmux or an editor around these tests is not to be talked to.
    foreign = ("CODESTRAL_", "XDG_", "VSCODE_", "NVIM", "TMUX", "EMACS", "INSIDE_EMACS", "GIT_", "ALTERNATE_EDITOR")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return inherited | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PATH": f"{SERVER.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(shared),
        "CODESTRAL_LSP_CACHE": str(shared / "derived"),
        "OMP_NUM_THREADS": "1",
    }


@dataclass
class Session:
    """One folder and one daemon for all tests of a run, and the homes that were made in it."""

    root: Path
    _homes: list[Path] = field(default_factory=list)

    @property
    def shared(self) -> Path:
        return self.root / "r"

    def new_environment(self, *, has_own_daemon: bool = False) -> dict[str, str]:
        """A home of its own. With its own daemon nothing runs yet and nothing is read yet: for what is seen while it starts."""
        home = self.root / f"h{len(self._homes)}"
        self._homes.append(home)
        return make_environment(home, shared=home / "r" if has_own_daemon else self.shared, temporary=home / "t")

    def new_workspace(self, files: Mapping[str, str] = FILES) -> Path:
        """A repository in a folder of its own. The daemon knows these files, so it reads none of them twice."""
        return write_workspace(Path(tempfile.mkdtemp(dir=self.root, prefix="w")) / "club", files)

    def warm_up(self) -> None:
        """Starts the daemon, has it read the workspace once, and returns when both is done; again where a test has ended it."""
        environment = make_environment(self.root / "d", shared=self.shared, temporary=self.root / "d" / "t")
        if asyncio.run(_is_ready(environment)):
            return
        with (self.root / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                [SERVER, "serve"], env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

        def is_ready() -> bool:
            if daemon.poll() is not None:
                pytest.fail(f"codestral-lsp serve ended with {daemon.returncode}: {self.last_words()}", pytrace=False)
            return asyncio.run(_is_ready(environment))

        wait_until(is_ready, "a daemon that is ready")
        last_line = len(FILES[TYPING.path].splitlines()) + 1
        place = f"{self.new_workspace() / TYPING.path}:{last_line}:1"
        done = subprocess.run([SERVER, "complete", place], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.fail(f"the daemon does not answer: {done.stderr.strip()}", pytrace=False)

    def last_words(self) -> str:
        lines = (self.root / "daemon.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it left no message"

    def end(self, home: Path | None = None) -> None:
        """Ends all that was started with this home, or with any home of this session, and waits until it is gone."""
        folder = str(home or self.root)
        deadline = time.monotonic() + PATIENCE_S
        while left := processes_of(folder):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes {left} of {folder} do not end"
            time.sleep(POLL_S)


async def _is_ready(environment: Mapping[str, str]) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", environment["XDG_RUNTIME_DIR"])
        client = Client(socket_path("bundled"))
    try:
        return (await client.health()).state == "ready"
    except DaemonError:
        return False
    finally:
        await client.close()


def processes_of(folder: str) -> list[int]:
    """Those whose HOME is this folder or lies in it. Without /proc there is no way to see that, and none is found."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            is_dead = (place / "stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
        except OSError:  # someone else's, or it has just ended
            continue
        homes = [value[5:].decode("utf-8", "replace") for value in variables if value.startswith(b"HOME=")]
        if not is_dead and any(home == folder or home.startswith(folder + "/") for home in homes):
            found.append(int(place.name))
    return found
