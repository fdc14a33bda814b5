"""The pause: while it lasts, no editor window of this user suggests anything. A small file that all of them look at.

Knows that file; knows no editor and no daemon. A window that looks again and again pays one `stat` each time.
"""

import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

MAX_MINUTES = 7 * 24 * 60  # a longer one is one without an end
_MAX_BYTES = 1000

logger = logging.getLogger(__name__)


class PauseError(Exception):
    """The pause cannot be begun or ended. One line, for people."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    until: float | None  # seconds since the epoch; None: until it is ended


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause that lasts. `until`: seconds since the epoch, None when only `resume` ends it."""

    until: float | None

    def words(self) -> str:
        """`paused until 14:05`, by the local clock; with the day where that is not today's."""
        if self.until is None:
            return "paused"
        end = time.localtime(self.until)
        is_today = time.localtime()[:3] == end[:3]
        return f"paused until {time.strftime('%H:%M' if is_today else '%a %H:%M', end)}"


class Pause:
    """The file, and what this process has last seen in it. `now` is the wall clock, since other processes read what is written."""

    def __init__(self, path: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._path = path or pause_path()
        self._now = now
        self._seen: tuple[int, ...] | None = None  # what tells one file from another
        self._until: float | None = None
        self._is_set = False

    def begin(self, minutes: float | None = None) -> Paused:
        """All windows of this user stop suggesting, for so long or until `end`; a pause that lasts is replaced. Raises PauseError."""
        if minutes is not None and not 0 < minutes <= MAX_MINUTES:
            raise PauseError(f"a pause of {minutes:g} minutes: expected more than 0 and up to {MAX_MINUTES}")
        until = None if minutes is None else self._now() + 60 * minutes
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._path, msgspec.json.encode(_File(until)))
        except OSError as error:
            raise PauseError(f"{self._path}: the pause cannot be written ({error.strerror})") from None
        return Paused(until)

    def end(self) -> bool:
        """False when nothing was paused. Raises PauseError."""
        was_paused = self.paused() is not None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise PauseError(f"{self._path}: the pause cannot be ended ({error.strerror})") from None
        return was_paused

    def paused(self) -> Paused | None:
        """None: suggest. A file that cannot be read or understood is no pause and one line in the log."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
            identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError) and self._seen != (error.errno or 0,):
                logger.warning("%s: cannot be looked at (%s); nothing is paused", self._path, error.strerror)
            self._seen, self._is_set = (error.errno or 0,), False
            return None
        if identity != self._seen:
            self._seen = identity
            self._is_set, self._until = self._read(is_file=stat.S_ISREG(found.st_mode))
        if not self._is_set or (self._until is not None and self._now() >= self._until):
            return None
        return Paused(self._until)

    def _read(self, *, is_file: bool) -> tuple[bool, float | None]:
        """Whether there is a pause in the file, and its end."""
        try:
            if not is_file:
                raise ValueError("it is no regular file")
            with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                written = msgspec.json.decode(file.read(_MAX_BYTES), type=_File)
            if written.until is not None and written.until > self._now() + 60 * MAX_MINUTES:
                raise ValueError("its end is too far away")  # the clock was wrong then or is now
        except FileNotFoundError:  # it has just been ended
            return False, None
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            why = error.strerror if isinstance(error, OSError) else error
            logger.warning(
                "%s: cannot be understood (%s), so nothing is paused; `codestral-lsp resume` removes it",
                self._path,
                why,
            )
            return False, None
        return True, written.until


def pause_path() -> Path:
    return platformdirs.user_state_path("codestral-lsp") / "pause.json"


def _replace(path: Path, content: bytes) -> None:
    """Whoever reads sees the old file or the new one, and only its owner may. mkstemp gives 0600."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
