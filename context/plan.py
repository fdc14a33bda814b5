"""Orders a repository's files for reading and keeps them within a budget. Knows paths and sizes; does not know the
disk, git, tokens or which file is open.

The order: documentation and data first, then tests and examples, then source; inside each by folder, then by name.
Source comes last because a recurrent state remembers best what it read last. The order depends on nothing but paths and
texts, so equal repositories give equal states everywhere.

What does not fit is dropped in this order until the rest fits: data, documentation, the README at the root, tests and
examples, source; inside each the largest file first, of equally large ones the one whose path sorts last. A dropped
file is not put back when a smaller one would still fit, so that a small edit seldom changes what is read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePosixPath

from context.listing import LeftOut
from context.repository import SourceFile

_HEADER_BYTES = 8  # about what the line with a file's path costs beside the path itself


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DATA_ENDS = _words("""
    json jsonc json5 yaml yml toml ini cfg conf properties xml xsd xsl plist pbtxt rc in lst dic
    editorconfig gitignore gitattributes gitmodules dockerignore npmignore codestralignore mailmap
""")
_PROSE_ENDS = _words("md markdown mdx rst txt adoc asciidoc org tex texi bib wiki")
_PROSE_NAMES = _words(
    "readme license licence copying notice authors contributors changelog changes news history todo thanks"
)
# Names that look like text and are programs.
_SOURCE_NAMES = _words("cmakelists.txt meson_options.txt")
_TEST_FOLDERS = _words("""
    test tests testing spec specs __tests__ __mocks__ e2e testdata fixtures example examples demo demos sample samples
    bench benches benchmark benchmarks
""")


@dataclass(frozen=True, slots=True)
class Plan:
    """`files` in feeding order; the estimate is of these, path lines included."""

    files: tuple[SourceFile, ...]
    left_out: tuple[LeftOut, ...]  # sorted by path
    estimated_tokens: int


class _Kind(IntEnum):
    """In the order in which kinds are dropped."""

    DATA = 0
    PROSE = 1
    ROOT_README = 2
    TEST = 3
    SOURCE = 4


_FEEDING_RANK = {_Kind.DATA: 0, _Kind.PROSE: 0, _Kind.ROOT_README: 0, _Kind.TEST: 1, _Kind.SOURCE: 2}


def plan_base(files: Sequence[SourceFile], *, budget_tokens: int, bytes_per_token: float) -> Plan:
    """The files to feed as BASE, in order; the rule is in this module's docstring.

    Raises ValueError for a `bytes_per_token` that is not positive.
    """
    if not bytes_per_token > 0:
        raise ValueError(f"bytes_per_token {bytes_per_token}: expected a positive number")
    cost = {file.path: estimate_tokens(file, bytes_per_token=bytes_per_token) for file in files}
    least_useful_last = sorted(files, key=lambda file: (-_kind(file.path), cost[file.path], file.path))
    total = sum(cost.values())
    left_out: list[LeftOut] = []
    while least_useful_last and total > budget_tokens:
        dropped = least_useful_last.pop()
        total -= cost[dropped.path]
        left_out.append(
            LeftOut(dropped.path, f"about {cost[dropped.path]} tokens, beyond the budget of {budget_tokens}")
        )
    return Plan(
        files=tuple(sorted(least_useful_last, key=lambda file: _feeding_key(file.path))),
        left_out=tuple(sorted(left_out)),
        estimated_tokens=total,
    )


def is_code(path: str) -> bool:
    """Whether the name is that of a program or a test, rather than of data or documentation."""
    return _kind(path) in (_Kind.TEST, _Kind.SOURCE)


def estimate_tokens(file: SourceFile, *, bytes_per_token: float) -> int:
    """From the sizes in bytes of the text and of the line with its path."""
    n_bytes = len(file.text.encode()) + len(file.path.encode()) + _HEADER_BYTES
    return math.ceil(n_bytes / bytes_per_token)


def _feeding_key(path: str) -> tuple[int, tuple[str, ...], str]:
    pure = PurePosixPath(path)
    return _FEEDING_RANK[_kind(path)], pure.parts[:-1], pure.name


def _kind(path: str) -> _Kind:
    *folders, name = path.lower().split("/")
    _, dot, extension = name.rpartition(".")
    if name not in _SOURCE_NAMES:
        if dot and extension in _DATA_ENDS:
            return _Kind.DATA
        if (extension in _PROSE_ENDS) if dot else (name.partition("-")[0] in _PROSE_NAMES):
            return _Kind.PROSE if folders or name.partition(".")[0] != "readme" else _Kind.ROOT_README
    if not _TEST_FOLDERS.isdisjoint(folders) or _is_test_name(PurePosixPath(path).stem):
        return _Kind.TEST
    return _Kind.SOURCE


def _is_test_name(stem: str) -> bool:
    lower = stem.lower()
    starts_or_ends = lower.startswith("test_") or lower.endswith(("_test", ".test", "_spec", ".spec"))
    # FooTest.java and FooTests.cs, but not latest.py.
    return starts_or_ends or lower == "conftest" or stem.endswith(("Test", "Tests"))
