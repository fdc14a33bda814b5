"""How often each file of a repository is edited, from git's log. Knows paths, commits and sizes; does not know texts, tokens, orders or the session.

A weight is in commits of today: a file that the newest commit touched has 1 from it, one that the commit `HALF_LIFE_COMMITS` before touched has 1/2. Whoever
knows of newer edits, as the editor does, adds 1 for each.

Age is counted in commits and not in days: a repository that was left alone for a year keeps its order, and so does one whose clock or dates are wrong.
Commits that touch many files at once (a formatter, a renamed licence) say little about any one of them: a commit of n files gives each
1 / max(1, n / `WIDE_COMMIT_FILES`).

A file that git does not track yet is being written: it counts as touched by the newest commit.

What git cannot say is filled in by a prior, which also smooths what it does say (Laplace): `prior_weight`, an expectation from kind and size alone. Without
git, in a clone without history or when git takes too long, the prior is all there is. The constants are those under which the edits that came next in eight
public histories were most likely (docs/log.md); half-lives of 50 to 200 commits do nearly as well.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from context.git import GitRefused, run_git
from context.kinds import Kind, kind_of

MAX_COMMITS = 2000
HALF_LIFE_COMMITS = 100
WIDE_COMMIT_FILES = 50
TIMEOUT_S = 2.0

# Of a file of `_PRIOR_BYTES`; the root of the size says best what is edited next (powers of 0, 1/4, 3/4 and 1 say it worse).
_PRIOR = {Kind.DATA: 1.0, Kind.PROSE: 0.3, Kind.ROOT_README: 1.5, Kind.TEST: 0.3, Kind.SOURCE: 0.5}
_PRIOR_BYTES, _PRIOR_POWER = 4000, 0.5
_LOG = (
    "log",
    "--name-only",
    "-z",
    "--no-renames",
    "--no-merges",
    "--no-ext-diff",
    "--no-textconv",
    "--no-show-signature",
    "--no-notes",
    "--no-color",
    "--no-follow",
    "--root",
    "--relative",
    "--format=tformat:%x00",  # an empty field before each commit's names
)


def edit_weights(
    root: Path, paths: Iterable[str], *, sizes: Mapping[str, int] | None = None, max_commits: int = MAX_COMMITS
) -> dict[str, float]:
    """For each path (relative to `root`, forward slashes) how likely its next edit is, beside the others'; positive, in commits of today.

    `sizes` are in bytes, where known. Asks git for at most `TIMEOUT_S`; never fails: what git cannot say is the prior. Files of repositories inside the
    workspace have the prior only.
    """
    sizes = sizes or {}
    weights = {path: prior_weight(path, sizes.get(path)) for path in paths}
    start = time.monotonic()
    commits = read_commits(root, max_commits=max_commits, timeout_s=TIMEOUT_S)
    left_s = TIMEOUT_S - (time.monotonic() - start)
    news = [_untracked(root, timeout_s=left_s)] if commits and left_s > 0 else []
    for age, names in enumerate([*news, *commits]):
        share = commit_share(max(0, age - len(news)), n_files=len(names))
        for name in names:
            if name in weights:
                weights[name] += share
    return weights


def commit_share(age: int, *, n_files: int) -> float:
    """What a commit adds to the weight of each of its `n_files`; `age` is in commits, 0 for the newest."""
    return 0.5 ** (age / HALF_LIFE_COMMITS) / max(1.0, n_files / WIDE_COMMIT_FILES)


def prior_weight(path: str, n_bytes: int | None = None) -> float:
    """The weight of a file of which nothing but its name and size is known."""
    size = _PRIOR_BYTES if n_bytes is None else n_bytes
    return _PRIOR[kind_of(path)] * (max(size, 1) / _PRIOR_BYTES) ** _PRIOR_POWER


def read_commits(root: Path, *, max_commits: int, timeout_s: float = TIMEOUT_S) -> list[list[str]]:
    """The paths that each commit touched below `root`, newest commit first, merges left out. Empty where git says nothing in time."""
    try:
        output = run_git(root, *_LOG, f"--max-count={max_commits}", "--", ".", timeout_s=timeout_s)
    except GitRefused:
        return []
    return list(_commits(output))


def _untracked(root: Path, *, timeout_s: float) -> list[str]:
    try:
        output = run_git(root, "ls-files", "-z", "--others", "--exclude-standard", timeout_s=timeout_s)
    except GitRefused:
        return []
    return [_name(field) for field in output.split(b"\0") if field]


def _commits(output: bytes) -> Iterator[list[str]]:
    names: list[str] = []
    starts = False
    for field in output.split(b"\0"):
        if not field:
            starts = True
            continue
        if starts:
            if names:
                yield names
            names, starts = [], False
            field = field.removeprefix(b"\n")
        names.append(_name(field))
    if names:
        yield names


def _name(field: bytes) -> str:
    return field.decode("utf-8", errors="surrogateescape")
