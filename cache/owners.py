"""Which workspaces a state was derived from or used by, so that purging a workspace really removes what has read it.

One file for each workspace: its path as JSON in the first line, then keys in hexadecimal; only ever appended to, and on disk before the state is.
Locked while it is touched, so that two processes can share it. Knows: keys, paths as names. Does not know: states.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import blake3

from cache.folder import StateFolder, UnsafeFileError, open_file, remove, write_whole

OWNERS = "owners"
_OPEN = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class _Owned:
    """What one file says, and which file it was: another process may have removed it since."""

    workspace: str | None
    keys: set[bytes] = field(default_factory=set)
    identity: tuple[int, ...] | None = None


class Owners:
    """The owner files of one fingerprint. Raises OSError wherever it touches the disk."""

    def __init__(self, folder: StateFolder, fingerprint: str) -> None:
        self._folder = folder
        self._names = (fingerprint, OWNERS)
        self._owned: dict[str, _Owned] = {}

    def load(self) -> None:
        """Reads all files anew."""
        found = {}
        for name in self._folder.names(*self._names):
            if name.endswith(".txt"):
                with self._folder.open(*self._names) as folder, contextlib.suppress(FileNotFoundError, UnsafeFileError):
                    found[name] = _read(folder, name)
        self._owned = found

    def add(self, workspace: str, keys: Iterable[bytes]) -> None:
        """Appends what is new and waits until it is durable."""
        name = file_name(workspace)
        with self._folder.open(*self._names, make=True) as folder, _locked(folder, name) as file:
            known = self._owned.get(name)
            if known is None or known.identity != _identity(os.fstat(file)):
                known = _read(folder, name)
            known.workspace = workspace
            new = [key for key in dict.fromkeys(keys) if key not in known.keys]
            first = [] if os.fstat(file).st_size else [json.dumps(workspace)]
            if new or first:
                # The first line break ends a line that a crash has cut off.
                text = "\n".join([*first, *([""] if not first else []), *(key.hex() for key in new), ""])
                _append(file, text.encode())
                os.fsync(file)
                if first:
                    os.fsync(folder)
            known.keys.update(new)
            known.identity = _identity(os.fstat(file))
            self._owned[name] = known

    def of(self, key: bytes) -> tuple[str, ...]:
        """The workspaces that a key belongs to, sorted."""
        return tuple(
            sorted(owned.workspace for owned in list(self._owned.values()) if owned.workspace and key in owned.keys)
        )

    def workspaces(self) -> tuple[str, ...]:
        return tuple(sorted(owned.workspace for owned in list(self._owned.values()) if owned.workspace))

    def keys(self, workspace: str) -> set[bytes]:
        """What is listed for a workspace, read anew: another process may have added to it."""
        try:
            with self._folder.open(*self._names) as folder:
                return _read(folder, file_name(workspace)).keys
        except FileNotFoundError:
            return set()

    def purged(self, key: bytes) -> bool:
        """Whether a workspace of this key was purged by somebody since the key was added to it."""
        mine = [(name, owned) for name, owned in self._owned.items() if key in owned.keys]
        if not mine:
            return False
        try:
            with self._folder.open(*self._names) as folder:
                for name, owned in mine:
                    if _identity(os.stat(name, dir_fd=folder, follow_symlinks=False)) != owned.identity:
                        self._owned[name] = now = _read(folder, name)
                        if key not in now.keys:
                            return True
        except FileNotFoundError:
            return True
        return False

    def forget(self, workspace: str) -> None:
        """Removes a workspace's file."""
        with contextlib.suppress(FileNotFoundError), self._folder.open(*self._names) as folder:
            remove(folder, file_name(workspace))
        self._owned.pop(file_name(workspace), None)

    def compact(self, alive: set[bytes]) -> None:
        """Leaves out the keys of states that are gone, where they are most of a file. Only for who holds the writer's lock, before it writes."""
        for name, owned in list(self._owned.items()):
            keep = owned.keys & alive
            if owned.workspace is None or 2 * len(keep) >= len(owned.keys):
                continue
            with self._folder.open(*self._names) as folder, _locked(folder, name):
                now = _read(folder, name)
                now.keys &= alive
                text = "\n".join([json.dumps(owned.workspace), *sorted(key.hex() for key in now.keys), ""]).encode()
                write_whole(folder, name, lambda file, text=text: _append(file, text))
                self._owned[name] = _read(folder, name)


def file_name(workspace: str) -> str:
    """Says nothing about the path, and is the same for the same path."""
    return blake3.blake3(workspace.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".txt"


def _append(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _read(folder: int, name: str) -> _Owned:
    """A line that is no key, as a crash may leave one, is left out: its state was not written yet."""
    with open_file(folder, name) as file:
        identity = _identity(os.fstat(file))
        text = b"".join(iter(lambda: os.read(file, 1 << 16), b"")).decode("ascii", "replace")
    first, *lines = text.split("\n")
    try:
        workspace = json.loads(first)
    except ValueError:
        workspace = None
    keys = {bytes.fromhex(line) for line in lines if len(line) == 64 and all(c in "0123456789abcdef" for c in line)}
    return _Owned(workspace=workspace if isinstance(workspace, str) else None, keys=keys, identity=identity)


@contextlib.contextmanager
def _locked(folder: int, name: str) -> Iterator[int]:
    """The file, to append to; made if it is missing, and surely the one that `name` stands for."""
    while True:
        file = os.open(name, _OPEN, 0o600, dir_fd=folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _stands_for(name, file, folder):
                yield file
                return
        finally:
            os.close(file)


def _stands_for(name: str, file: int, folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Changes when somebody else appends; the number of a removed file may be given to the next one."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
