"""Which files a workspace has. Knows git, ignore rules and kinds of directory entries; does not know their contents.

In a git repository git is asked (`context.git` says how it is kept safe). Elsewhere, and when git is missing or
refuses, the folders are walked. Symbolic links are never followed: one that stays inside the workspace would only show
a file twice, or show an ignored one under an innocent name.
"""

import os
import stat
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from context.disk import Unfit, check_regular, why_unreadable
from context.git import GitRefused, run_git
from context.ignore import why_never_read, why_secret
from context.rules import Rules

OWN_RULES = ".codestralignore"
_GIT_RULES = (".gitignore", ".git/info/exclude")
_MAX_WALK_ENTRIES = 200_000
_MAX_REPOSITORIES = 200  # in one workspace; git is started for each


class LeftOut(NamedTuple):
    path: str  # relative to the workspace; a folder ends in "/"
    reason: str  # one line


@dataclass(frozen=True, slots=True)
class Listing:
    sizes: dict[str, int]  # bytes of each regular file, by path relative to the workspace
    left_out: tuple[LeftOut, ...]
    listed_by: str  # "git", "walk", "walk (why git was not heard)" or "nothing"


def list_files(root: Path, *, top: Path, max_file_bytes: int) -> Listing:
    """All regular files below `root` that may be opened and read. Does not raise for anything that lies in the folder.

    `root` is resolved; `top` is the top level of the git working tree that holds it, else `root` itself.
    """
    lister = _Lister(root=root, top=top, max_file_bytes=max_file_bytes)
    if reason := lister.why_nothing():
        return Listing({}, (LeftOut("./", reason),), "nothing")
    listed_by = lister.add_all("")
    while lister.repositories:
        lister.add_all(lister.repositories.popleft())
    return Listing(dict(sorted(lister.sizes.items())), tuple(sorted(lister.left_out)), listed_by)


def list_some(root: Path, *, top: Path, max_file_bytes: int, paths: Collection[str]) -> dict[str, int]:
    """Those of `paths` that `list_files` would give, with their sizes; nothing else is looked at.

    For a few files that have changed: git is given their names.
    """
    lister = _Lister(root=root, top=top, max_file_bytes=max_file_bytes)
    if lister.why_nothing() is None:
        lister.add_some("", paths)
        while lister.repositories:
            folder = lister.repositories.popleft()
            lister.add_some(folder, [path for path in paths if path.startswith(f"{folder}/")])
    return {path: size for path, size in lister.sizes.items() if path in paths}


def is_git_top(folder: Path) -> bool:
    """As git does, takes an empty `.git` folder for nothing. In worktrees and submodules `.git` is a file."""
    mark = os.path.join(folder, ".git")
    return os.path.isfile(mark) or os.path.lexists(os.path.join(mark, "HEAD"))


def tracked_files(root: Path) -> frozenset[str] | None:
    """Paths below `root` that git tracks, relative to it; None where git gives no list. Those inside submodules are not among them."""
    try:
        output = run_git(root, "ls-files", "-z", "--cached")
    except GitRefused:
        return None
    return frozenset(os.fsdecode(name) for name in output.split(b"\0") if name)


@dataclass(slots=True)
class _Lister:
    """Collects files; `add_all` is to be called again for each of the `repositories` that it finds inside."""

    root: Path
    top: Path
    max_file_bytes: int
    sizes: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    repositories: deque[str] = field(default_factory=deque)
    own_rules: Rules = field(init=False)
    outer: str = field(init=False)  # the workspace relative to the top: "" or "a/b"
    _n_repositories: int = 0
    _real_folders: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.own_rules = Rules(self.top, OWN_RULES, strict=True)
        self.outer = _relative(self.root, self.top)

    def why_nothing(self) -> str | None:
        """Why no file of the whole workspace may be read, as when the user opens `~/.ssh`."""
        if ".git" in self.root.parts:
            return "inside a .git folder"
        if self.own_rules.ignores_folder(self.outer):
            return f"ignored by {OWN_RULES}"
        return why_secret(f"{self.root.as_posix()}/")

    def add_all(self, folder: str) -> str:
        """Adds the files below `folder`, the workspace ("") or a repository inside it; returns who listed them."""
        why = "walk"
        if folder or is_git_top(self.top):
            try:
                names = _ask_git(self.root / folder)
            except GitRefused as refusal:
                why = f"walk ({refusal})"
            else:
                for name in names:
                    self._add(_join(folder, name.removesuffix("/")))
                return "git"
        self._walk(folder)
        return why

    def add_some(self, folder: str, paths: Collection[str]) -> None:
        """As `add_all` does, those of `paths` below `folder`, or the repositories inside it that hold them."""
        wanted = {
            self._inner_repository(path, folder) or path
            for path in paths
            if not self._why_elsewhere(path.rpartition("/")[0])  # git refuses a whole list for one such path
        }
        if wanted and (folder or is_git_top(self.top)):
            try:
                names = _ask_git(self.root / folder, [path[len(folder) + bool(folder) :] for path in sorted(wanted)])
            except GitRefused:  # `add_all` would have walked
                pass
            else:
                for path in wanted.intersection(_join(folder, name.removesuffix("/")) for name in names):
                    self._add(path)
                return
        rules, base = self._git_rules(folder)
        for path in wanted:
            if self._is_walked_to(path, folder, rules=rules, base=base):
                self._add(path)

    def _inner_repository(self, path: str, folder: str) -> str | None:
        """The outermost repository inside `folder` that holds `path`."""
        names = path.split("/")
        outer = folder.count("/") + 2 if folder else 1
        places = ("/".join(names[:n]) for n in range(outer, len(names)))
        return next((place for place in places if is_git_top(self.root / place)), None)

    def _is_walked_to(self, path: str, start: str, *, rules: Rules, base: str) -> bool:
        """Whether a walk from `start` would come to `path`."""
        names = path.split("/")
        if ".git" in names:
            return False
        first = start.count("/") + 2 if start else 1
        for n in range(first, len(names)):
            folder = "/".join(names[:n])
            if rules.ignores(_join(base, folder), is_folder=True) or self._why_not_entered(folder):
                return False
        is_folder = os.path.isdir(self.root / path) and not os.path.islink(self.root / path)
        return not rules.ignores(_join(base, path), is_folder=is_folder)

    def _walk(self, start: str) -> None:
        rules, base = self._git_rules(start)
        folders = deque([start])
        n_entries = 0
        while folders:
            folder = folders.popleft()
            for name, is_folder in self._scan(folder):
                path = _join(folder, name)
                n_entries += 1
                if name == ".git" or rules.ignores(_join(base, path), is_folder=is_folder):
                    continue
                if not is_folder:
                    self._add(path)
                elif is_git_top(self.root / path):
                    self._add_repository(path)
                elif reason := self._why_not_entered(path):
                    self.left_out.append(LeftOut(f"{_printable(path)}/", reason))
                else:
                    folders.append(path)
            if n_entries > _MAX_WALK_ENTRIES:
                reason = f"the walk ended after {n_entries} entries; {len(folders)} folders were not looked into"
                self.left_out.append(LeftOut("./", reason))
                return

    def _git_rules(self, start: str) -> tuple[Rules, str]:
        """The `.gitignore` rules for a walk, and the workspace relative to their top.

        Those of folders above count too, unless they ignore the folder where the walk starts: the user opened it.
        """
        if is_git_top(self.top):
            rules = Rules(self.top, *_GIT_RULES)
            if not rules.ignores_folder(_join(self.outer, start)):
                return rules, self.outer
        return Rules(self.root, *_GIT_RULES), ""

    def _scan(self, folder: str) -> list[tuple[str, bool]]:
        """Names in order, and whether each is a folder (a link to one is not)."""
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            self.left_out.append(LeftOut(f"{_printable(folder)}/" if folder else "./", why_unreadable(error)))
            return []

    def _why_not_entered(self, folder: str) -> str | None:
        if self.own_rules.ignores_folder(_join(self.outer, folder)):
            return f"ignored by {OWN_RULES}"
        return why_never_read(f"{folder}/")

    def _add(self, path: str) -> None:
        """Adds the file or the repository at `path`, or says why not."""
        try:
            info = os.lstat(self.root / path)
        except OSError as error:
            # A file that git tracks and the user has deleted is the usual case.
            self.left_out.append(LeftOut(_printable(path), why_unreadable(error)))
            return
        if stat.S_ISDIR(info.st_mode):
            self._add_repository(path)
        elif reason := self._why_not_listed(path, info):
            self.left_out.append(LeftOut(_printable(path), reason))
        else:
            self.sizes[path] = info.st_size

    def _add_repository(self, folder: str) -> None:
        if reason := self._why_not_entered(folder) or self._why_elsewhere(folder):
            self.left_out.append(LeftOut(f"{_printable(folder)}/", reason))
        elif self._n_repositories == _MAX_REPOSITORIES:
            self.left_out.append(
                LeftOut(f"{_printable(folder)}/", f"more than {_MAX_REPOSITORIES} repositories inside")
            )
        elif is_git_top(self.root / folder):
            self._n_repositories += 1
            self.repositories.append(folder)
        else:
            # Without this check git would list the repository around an empty submodule, for ever.
            self.left_out.append(LeftOut(f"{_printable(folder)}/", "a submodule that is not checked out"))

    def _why_not_listed(self, path: str, info: os.stat_result) -> str | None:
        if _printable(path) != path:
            return "its name is not UTF-8"
        if self.own_rules.ignores_within(_join(self.outer, path)):
            return f"ignored by {OWN_RULES}"
        if reason := why_never_read(path) or self._why_elsewhere(path.rpartition("/")[0]):
            return reason
        if stat.S_ISLNK(info.st_mode):
            return _why_no_link(self.root / path, root=self.root)
        try:
            check_regular(info, max_bytes=self.max_file_bytes)
        except Unfit as why:
            return str(why)
        return None if info.st_size else "empty"

    def _why_elsewhere(self, folder: str) -> str | None:
        """git lists `a/b` also when `a` has been replaced by a link to somewhere else."""
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(self.root / folder) == os.fspath(self.root / folder)
        return None if self._real_folders[folder] else f"{_printable(folder)}/ is reached through a symbolic link"


def _ask_git(folder: Path, only: Sequence[str] = ()) -> list[str]:
    """Names below `folder`, relative to it: files, links, and repositories inside; all, or those in `only` and what is below them.

    Raises GitRefused, also when git ignores the folder itself.
    """
    names = [f":(literal){name}" for name in only]  # a file may be called `*`
    output = run_git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *names)
    # A file in conflict is listed once a side; a set does what --deduplicate does in git 2.31 and later.
    found = {os.fsdecode(name) for name in output.split(b"\0") if name}
    if not found and not is_git_top(folder) and _is_ignored_by_git(folder):
        raise GitRefused("the git repository around the folder ignores it")
    return sorted(found)


def _is_ignored_by_git(folder: Path) -> bool:
    try:
        run_git(folder, "check-ignore", "--quiet", ".")
    except GitRefused:  # its exit status is 1 for a folder that is not ignored
        return False
    return True


def _why_no_link(link: Path, *, root: Path) -> str:
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(root):
        return "a symbolic link that leads out of the workspace"
    if target.is_dir():
        return "a symbolic link to a folder"
    if target.exists():
        return "a symbolic link; its target is judged under its own name"
    return "a symbolic link that leads nowhere"


def _relative(path: Path, top: Path) -> str:
    relative = path.relative_to(top).as_posix()
    return "" if relative == "." else relative


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _printable(path: str) -> str:
    """The path itself, or with escapes for bytes that are not UTF-8."""
    return path.encode("utf-8", errors="backslashreplace").decode()
