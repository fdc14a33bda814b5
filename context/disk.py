"""Opens one file safely and makes text of it. Knows the disk and UTF-8; does not know repositories, ignore rules or
which files are wanted.

Only regular files are opened: a FIFO would block, a device may act when it is opened. A file that turns into something
else between the look and the opening is caught by a second look at what was opened.
"""

import os
import stat
from pathlib import Path

# Some of these flags do not exist on Windows, where links need a privilege and FIFOs are not files.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_BINARY_CHECK_BYTES = 8192
_BOM = b"\xef\xbb\xbf"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unfit(Exception):
    """A file cannot be used; the message says why in one line, without the file's name."""


def load_text(path: Path, *, max_bytes: int, follow_links: bool = False) -> str:
    """The file's text without a byte order mark and with \\n line ends. Raises Unfit."""
    return to_text(load_bytes(path, max_bytes=max_bytes, follow_links=follow_links))


def load_bytes(path: Path, *, max_bytes: int, follow_links: bool = False) -> bytes:
    """The bytes of a regular file. Raises Unfit: not there, not regular, not permitted, more than `max_bytes`."""
    try:
        check_regular(os.stat(path, follow_symlinks=follow_links), max_bytes=max_bytes)
        descriptor = os.open(path, _FLAGS | (0 if follow_links else _NO_LINK))
        with os.fdopen(descriptor, "rb") as file:
            check_regular(os.fstat(descriptor), max_bytes=max_bytes)
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise Unfit(why_unreadable(error)) from None
    except ValueError:  # what Python says to a NUL character in a name
        raise Unfit("no such file (a NUL character in its name)") from None
    if (
        len(content) > max_bytes
    ):  # it grew since it was looked at, or is one of those whose size the system reports as 0
        raise Unfit(f"more than {max_bytes} bytes")
    return content


def check_regular(info: os.stat_result, *, max_bytes: int) -> None:
    """Raises Unfit unless `info` is of a regular file of at most `max_bytes`."""
    if not stat.S_ISREG(info.st_mode):
        kind = next((name for test, name in _KINDS if test(info.st_mode)), "a special file")
        raise Unfit(f"{kind}, expected a regular file")
    if info.st_size > max_bytes:
        raise Unfit(f"{info.st_size} bytes, more than {max_bytes}")


def why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({(error.strerror or type(error).__name__).lower()})"


def to_text(content: bytes) -> str:
    """Raises Unfit for what is not UTF-8 text, with the offset of the first byte that shows it."""
    nul = content.find(b"\0", 0, _BINARY_CHECK_BYTES)
    if nul >= 0:
        raise Unfit(f"binary (a NUL byte at offset {nul}), expected UTF-8 text")
    try:
        text = content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + (len(_BOM) if content.startswith(_BOM) else 0)
        raise Unfit(f"not UTF-8 (byte 0x{content[offset]:02x} at offset {offset}), expected UTF-8 text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
