"""Which commit of a repository is checked out, told cheaply enough to be asked every few seconds. Knows the files below `.git`; runs no git and knows no
contents of the workspace.

What it says is only compared with what it said before, so a guess that is wrong costs a look at the repository and nothing else.
"""

import os
from pathlib import Path

from context.disk import Unfit, load_bytes

_MAX_BYTES = 4096


def head_mark(top: Path) -> str | None:
    """Differs whenever another branch or commit is checked out; None where nothing says so. `top`: of the working tree."""
    git = _git_folder(top)
    head = _line(git / "HEAD") if git is not None else None
    if git is None or head is None:
        return None
    name = head.removeprefix("ref: ")
    if name == head or ".." in name:  # a commit itself
        return head
    # A worktree has a HEAD of its own; its branches are in the repository that it belongs to.
    common = git / (_line(git / "commondir") or ".")
    return f"{head} {_line(common / name) or _stamp(common / 'packed-refs')}"


def is_checking_out(top: Path) -> bool:
    """Whether git holds the lock of its index, as it does while it writes the files of another branch."""
    git = _git_folder(top)
    return git is not None and os.path.lexists(git / "index.lock")


def _git_folder(top: Path) -> Path | None:
    mark = top / ".git"
    if mark.is_dir():
        return mark
    pointer = _line(mark)  # in worktrees and submodules: "gitdir: PATH"
    if pointer is None or not pointer.startswith("gitdir: "):
        return None
    return top / pointer.removeprefix("gitdir: ")


def _line(path: Path) -> str | None:
    """A small file's text; None where there is none."""
    try:
        return load_bytes(path, max_bytes=_MAX_BYTES).decode(errors="replace").strip()
    except Unfit:
        return None


def _stamp(path: Path) -> str:
    """When a file was written, for one that is too large to be read each time."""
    try:
        info = os.stat(path)
    except OSError:
        return "none"
    return f"{info.st_mtime_ns} {info.st_size}"
