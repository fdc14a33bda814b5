"""Orders a repository's files for reading and keeps them within a budget. Knows paths, sizes and how often files are
edited; does not know the disk, git, tokens or which file is open.

The order: documentation and data first, then tests and examples, then source, since a recurrent state remembers best
what it read last. Inside each, what is edited seldom for its size comes first: an edit makes the model read everything
behind it again, and reading by ascending weight / size has the least to read again in the mean (Smith's rule for
weighted completion times). Ties go by path, so equal files with equal weights give equal states everywhere.

What does not fit goes step by step in this order, until the rest fits: data, documentation, the README at the root are
dropped; tests and examples are read as their outlines, then not at all; source files are read as their outlines, then
not at all. Inside each step the largest file first, of equally large ones the one whose path sorts last. What is gone
is not put back when a smaller one would still fit, so that a small edit seldom changes what is read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from context.history import prior_weight
from context.kinds import Kind, kind_of
from context.listing import LeftOut
from context.outline import outline
from context.repository import SourceFile

_HEADER_BYTES = 8  # about what the line with a file's path costs beside the path itself
_FEEDING_RANK = {Kind.DATA: 0, Kind.PROSE: 0, Kind.ROOT_README: 0, Kind.TEST: 1, Kind.SOURCE: 2}
_OUTLINED = (Kind.TEST, Kind.SOURCE)


@dataclass(frozen=True, slots=True)
class Plan:
    """`files` in feeding order; the estimate is of these, path lines included."""

    files: tuple[SourceFile, ...]  # an outlined file has its outline for a text
    left_out: tuple[LeftOut, ...]  # sorted by path
    estimated_tokens: int
    weights: Mapping[str, float]  # of exactly these files, by path: how often each is edited, beside the others
    outlined: frozenset[str]  # paths of files read as their outline


def plan_base(
    files: Sequence[SourceFile],
    *,
    budget_tokens: int,
    bytes_per_token: float,
    weights: Mapping[str, float] | None = None,
) -> Plan:
    """The files to feed as BASE, in order; the rules are in this module's docstring.

    `weights`: as `history.edit_weights` gives them; a file without one has the prior's. Raises ValueError for a
    `bytes_per_token` that is not positive.
    """
    if not bytes_per_token > 0:
        raise ValueError(f"bytes_per_token {bytes_per_token}: expected a positive number")
    kept = {file.path: file for file in files}
    known = weights or {}
    edits = {path: known.get(path, prior_weight(path, len(file.text.encode()))) for path, file in kept.items()}
    cost = {path: estimate_tokens(file, bytes_per_token=bytes_per_token) for path, file in kept.items()}
    outlined: set[str] = set()
    left_out: list[LeftOut] = []
    total = sum(cost.values())
    for path, may_outline in _steps(kept, cost):
        if total <= budget_tokens:
            break
        total -= cost[path]
        text = outline(path, kept[path].text) if may_outline else None
        brief = SourceFile(path, text) if text else None
        if brief and (n_tokens := estimate_tokens(brief, bytes_per_token=bytes_per_token)) < cost[path]:
            kept[path], cost[path] = brief, n_tokens
            outlined.add(path)
            total += n_tokens
        else:
            what = "its outline alone" if path in outlined else "about"
            left_out.append(LeftOut(path, f"{what} {cost[path]} tokens, beyond the budget of {budget_tokens}"))
            del kept[path]
    order = sorted(kept, key=lambda path: (_FEEDING_RANK[kind_of(path)], edits[path] / cost[path], path))
    return Plan(
        files=tuple(kept[path] for path in order),
        left_out=tuple(sorted(left_out)),
        estimated_tokens=total,
        weights={path: edits[path] for path in order},
        outlined=frozenset(outlined & kept.keys()),
    )


def estimate_tokens(file: SourceFile, *, bytes_per_token: float) -> int:
    """From the sizes in bytes of the text and of the line with its path."""
    n_bytes = len(file.text.encode()) + len(file.path.encode()) + _HEADER_BYTES
    return math.ceil(n_bytes / bytes_per_token)


def _steps(kept: Mapping[str, SourceFile], cost: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
    """Which file goes next, and whether its outline may stay. Looks at `kept` and `cost` as they are when it gets there."""
    for kind in Kind:
        if kind in _OUTLINED:
            yield from ((path, True) for path in _largest_first(kept, cost, kind=kind))
        yield from ((path, False) for path in _largest_first(kept, cost, kind=kind))


def _largest_first(kept: Mapping[str, SourceFile], cost: Mapping[str, int], *, kind: Kind) -> list[str]:
    return sorted((path for path in kept if kind_of(path) is kind), key=lambda path: (cost[path], path), reverse=True)
