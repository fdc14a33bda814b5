"""Reads a repository's files, or one file that the user names, as text.

Knows which texts are worth reading; does not know how files are found (`listing`), what a secret looks like (`ignore`),
in which order files are fed (`plan`), tokens or LSP.

Nothing that lies in a workspace makes `read_repository` fail: what cannot be used is named in the snapshot, with the
reason in one line.
"""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from context.disk import Unfit, load_text, why_unreadable
from context.ignore import why_never_read
from context.listing import LeftOut, is_git_top, list_files, list_some

MAX_FILE_BYTES = 200_000
MAX_TOTAL_BYTES = 20_000_000  # ten times what the largest context holds
MAX_DOCUMENT_BYTES = 2_000_000
_FILES_PER_REPORT = 50

logger = logging.getLogger(__name__)


class ReadError(Exception):
    """A path that the user named cannot be read. One line for people, with the path."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: str  # relative to the root, with forward slashes
    text: str  # without a byte order mark, lines end in \n


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a repository held when it was read. Both tuples are sorted by path; what git ignores is in neither."""

    root: Path  # resolved
    files: tuple[SourceFile, ...]
    left_out: tuple[LeftOut, ...]
    listed_by: str  # "git", "walk", "walk (why git was not heard)" or "nothing"


def find_root(path: Path) -> Path:
    """The top level of the git working tree that holds `path`, else the folder itself (a file's folder).

    Resolved: links in the path are followed.

    Looks for `.git` instead of asking git, whose answer a `core.worktree` in the repository's own settings could make
    any folder.
    """
    resolved = Path(os.path.realpath(path))
    folder = resolved if os.path.isdir(resolved) else resolved.parent
    return next((parent for parent in (folder, *folder.parents) if is_git_top(parent)), folder)


def read_repository(
    root: Path,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_total_bytes: int = MAX_TOTAL_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Snapshot:
    """All files below `root` that are worth reading; beyond `max_total_bytes` the largest are left out.

    `progress` is called with the numbers of files done and in all, now and then and at the end; what it raises ends the
    reading. Raises ReadError when `root` is not a folder that can be opened.
    """
    root = _opened_folder(root)
    listing = list_files(root, top=find_root(root), max_file_bytes=max_file_bytes)
    paths, left_out = _within(listing.sizes, max_total_bytes=max_total_bytes)
    left_out.extend(listing.left_out)
    files: list[SourceFile] = []
    for n_done, path in enumerate(paths):
        if progress and n_done % _FILES_PER_REPORT == 0:
            progress(n_done, len(paths))
        try:
            files.append(_read(root, path, max_bytes=max_file_bytes))
        except Unfit as why:
            left_out.append(LeftOut(path, str(why)))
    if progress:
        progress(len(paths), len(paths))
    return Snapshot(root=root, files=tuple(files), left_out=tuple(sorted(left_out)), listed_by=listing.listed_by)


def read_some(
    root: Path, paths: Collection[str], *, texts: Mapping[str, str], max_file_bytes: int = MAX_FILE_BYTES
) -> list[SourceFile]:
    """Those of `paths`, relative to `root`, that `read_repository` would give, as they are by now.

    `texts` stand in place of what is on the disk, as an editor's unsaved text does; they are judged as a file's are. Raises ReadError as `read_repository`.
    """
    root = _opened_folder(root)
    files: list[SourceFile] = []
    for path in sorted(list_some(root, top=find_root(root), max_file_bytes=max_file_bytes, paths=paths)):
        try:
            file = _read(root, path, max_bytes=max_file_bytes) if path not in texts else SourceFile(path, texts[path])
        except Unfit as why:
            logger.debug("%s is not read: %s", path, why)
            continue
        if path not in texts or is_fit(file, max_file_bytes=max_file_bytes):
            files.append(file)
    return files


def is_fit(file: SourceFile, *, max_file_bytes: int = MAX_FILE_BYTES) -> bool:
    """Whether a text that is not from the disk may be read all the same."""
    if len(file.text) > max_file_bytes or len(file.text.encode(errors="replace")) > max_file_bytes:
        return False
    return bool(file.text.strip()) and why_never_read(file.path, file.text) is None


def read_document(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """The text of one file, links followed, since the user named it. `ignore.why_secret` says whether it may be fed.

    Raises ReadError: no such file, a folder or another special file, not permitted, too large, binary, not UTF-8 (with
    the offset).
    """
    try:
        return load_text(path, max_bytes=max_bytes, follow_links=True)
    except Unfit as why:
        raise ReadError(f"{path}: {why}") from None


def _opened_folder(root: Path) -> Path:
    try:
        resolved = root.resolve(strict=True)
        next(resolved.iterdir(), None)
    except NotADirectoryError:
        raise ReadError(f"{root}: a file, expected a folder") from None
    except OSError as error:
        reason = "no such folder" if isinstance(error, FileNotFoundError) else why_unreadable(error)
        raise ReadError(f"{root}: {reason}") from None
    except (ValueError, RuntimeError) as error:  # a NUL character in the name; a loop of links before Python 3.13
        raise ReadError(f"{root}: no such folder ({error})") from None
    return resolved


def _within(sizes: dict[str, int], *, max_total_bytes: int) -> tuple[list[str], list[LeftOut]]:
    """Paths in order, the largest files taken away until the rest fits."""
    total = sum(sizes.values())
    left_out: list[LeftOut] = []
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        if total <= max_total_bytes:
            break
        total -= sizes[path]
        left_out.append(
            LeftOut(path, f"{sizes[path]} bytes, beyond the {max_total_bytes} bytes for a whole repository")
        )
    dropped = {path for path, _ in left_out}
    return [path for path in sorted(sizes) if path not in dropped], left_out


def _read(root: Path, path: str, *, max_bytes: int) -> SourceFile:
    text = load_text(root / path, max_bytes=max_bytes)
    if not text.strip():
        raise Unfit("empty")
    if reason := why_never_read(path, text):
        raise Unfit(reason)
    return SourceFile(path, text)
