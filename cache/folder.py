"""Folders and files that nobody else can enter or plant something in, and writing a file so that it is there whole or not at all.

Every folder from `states` down is opened from the one above it without following links, and must be ours and closed to others: states contain source
code. Knows: POSIX files, one lock. Does not know: what is in the files.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

VERSION = "v1"
SUFFIX = ".safetensors"
LOCK = ".lock"
TAG = "CACHEDIR.TAG"
TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# This folder holds what a model remembers of source code. It can be made anew.\n"
LEFTOVER_S = 3600.0  # a temporary file of this age belongs to nobody, whatever process has its number by now
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, a named pipe in a file's place would wait for somebody to write to it.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


OTHERS_WRITE = 0o022


class UnsafeError(OSError):
    """A folder that is a link, another's, or open to others. The text is one line."""

    def __init__(self, line: str) -> None:
        super().__init__(errno.EPERM, line)


class UnsafeFileError(UnsafeError):
    """The same of a file. The text does not name it."""


def fault(error: OSError) -> str:
    """An error of the disk in a few words."""
    return error.strerror or str(error)


class StateFolder:
    """The folders below `states`. Nothing is kept open, so that a folder that somebody removed is made anew."""

    def __init__(self, states: Path) -> None:
        self.path = states / VERSION
        self._states = states

    @contextlib.contextmanager
    def open(self, *names: str, make: bool = False) -> Iterator[int]:
        """A descriptor of `<states>/v1/<names>`, closed at the end. Raises UnsafeError, and OSError where it is missing and not to be made."""
        if make and not self._states.exists():
            self._states.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # a link that leads nowhere, or another process
                self._states.mkdir(mode=0o700)
        folder, path = _open_folder(str(self._states), self._states), self._states
        try:
            if make:
                self._tag(folder)
            for name in (VERSION, *names):
                path = path / name
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=folder)
                parent, folder = folder, -1
                try:
                    folder = _open_folder(name, path, parent)
                finally:
                    os.close(parent)
            yield folder
        finally:
            if folder >= 0:
                os.close(folder)

    def names(self, *names: str) -> list[str]:
        """What is in a folder, sorted; nothing when it is missing. Raises OSError."""
        try:
            with self.open(*names) as folder:
                return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    @staticmethod
    def _tag(folder: int) -> None:
        """Tells backup programs to leave it out."""
        with contextlib.suppress(FileExistsError):
            file = os.open(TAG, _MAKE_FILE, 0o600, dir_fd=folder)
            with os.fdopen(file, "wb") as stream:
                stream.write(TAG_TEXT)


def _open_folder(name: str, path: Path, parent: int | None = None) -> int:
    try:
        folder = os.open(name, _OPEN_FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise UnsafeError(f"{path} is a link or a file, expected a folder of ours") from None
        raise
    found = os.fstat(folder)
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE:
        os.close(folder)
        raise UnsafeError(f"{path} is {_owned(found)}, expected a folder of ours with mode 0700; remove it")
    if found.st_mode & 0o077:  # as a backup gives it back: others may have looked, but can have put nothing there
        os.fchmod(folder, 0o700)
    return folder


@contextlib.contextmanager
def open_file(folder: int, name: str) -> Iterator[int]:
    """A descriptor to read a regular file of ours, closed at the end. Raises UnsafeFileError, and OSError where there is none."""
    try:
        file = os.open(name, _OPEN_FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise UnsafeFileError("it is a symbolic link") from None
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise UnsafeFileError("it is not a regular file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise UnsafeFileError(f"it is {_owned(found)}, expected a file of ours with mode 0600")
        yield file
    finally:
        os.close(file)


def _owned(found: os.stat_result) -> str:
    return f"of user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}"


def write_whole(folder: int, name: str, write: Callable[[int], object]) -> None:
    """A file that is there whole and durable after this, or not at all; an older one is replaced. Raises OSError and what `write` raises.

    Temporary file, fsync, rename, fsync of the folder: rename alone is not durable (Pillai et al., OSDI 2014).
    """
    temporary = f".{name}.{os.getpid()}.tmp"
    remove(folder, temporary)
    file = os.open(temporary, _MAKE_FILE, 0o600, dir_fd=folder)
    try:
        try:
            write(file)
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with contextlib.suppress(
            OSError
        ):  # the first fault is the one to be told; what stays is swept at the next start
            remove(folder, temporary)
        raise


def remove(folder: int, name: str) -> None:
    """Removes a file, or a link in its place. Raises OSError; a file that is gone already is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def sweep(folder: int, *, now: float, mine: bool) -> None:
    """Removes temporary files whose writer is gone; `mine`: what has this process's number is from an earlier one. Raises OSError."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(".tmp"):
            with contextlib.suppress(FileNotFoundError):
                pid = name.split(".")[-2]
                age_s = now - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                gone = not pid.isdecimal() or not _alive(int(pid)) or (mine and int(pid) == os.getpid())
                if gone or age_s > LEFTOVER_S:
                    os.unlink(name, dir_fd=folder)


def _alive(pid: int) -> bool:
    if pid == 0:
        return False  # for the system it would mean all of our group
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return True


class WriterLock:
    """At most one process writes below a folder. The lock goes with the process, however it ends."""

    def __init__(self) -> None:
        self._file: int | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def holds(self, folder: int) -> bool:
        """Whether it is held for `folder` as it is now: somebody may have removed it and made it anew. Raises OSError."""
        return self._file is not None and _same(self._file, folder)

    def acquire(self, folder: int) -> bool:
        """Whether this process may write below `folder` from now on; does not wait. Raises OSError, as on a file system without locks."""
        self.release()
        file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        if not _same(file, folder):
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _same(file: int, folder: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(LOCK, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def is_locked(folder: int) -> bool:
    """Whether some process holds the lock for `folder`; nothing is made or kept. Raises OSError."""
    try:
        file = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    finally:
        os.close(file)
    return False
