"""Longest-match continuations: what followed, in a context's documents and in the text before the cursor, where the last tokens occurred before.

An infini-gram (Liu et al., COLM 2024) over token ids, cut at MAX_MATCH tokens. Documents: one array of positions sorted by the tokens that end there, read
backwards (a suffix array of the reversed text, 4 bytes a token), asked by narrowing an interval one token at a time. The open buffer changes with every key,
so it has no index: its matches are found by comparing the whole array, which for a file is microseconds and always exact.
Knows: token ids. Does not know: text, models, how continuations are weighed (model/mixture.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_MATCH = 32  # tokens; longer matches tell nothing more
MAX_OCCURRENCES = 512  # of one match that are counted: a common short match needs no more


@dataclass(frozen=True, slots=True)
class Continuations:
    """The tokens that followed the longest match, most frequent first. `length` 0: nothing matched."""

    length: int
    tokens: np.ndarray  # (k,) int32
    counts: np.ndarray  # (k,) int32


NOTHING = Continuations(0, np.empty(0, np.int32), np.empty(0, np.int32))


class DocumentIndex:
    """An index over documents that never change; one document can be left out of each question."""

    def __init__(self, documents: Sequence[tuple[str, np.ndarray]]) -> None:
        """`documents` are (name, token ids). Matches never cross from one document into another."""
        self.names = {name: number for number, (name, _) in enumerate(documents)}
        separator = np.array([-1], np.int32)
        parts = [part for _, ids in documents for part in (separator, np.asarray(ids, np.int32))]
        self.ids = np.concatenate([*parts, separator]) if parts else separator
        lengths = [len(ids) + 1 for _, ids in documents]
        self.owner = np.repeat(np.arange(len(documents), dtype=np.int32), lengths)
        self.order = sort_backwards(self.ids)
        first = self.ids[self.order]
        self.tokens, starts = np.unique(first, return_index=True)
        self.bounds = np.append(starts, len(self.order))

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.owner.nbytes + self.order.nbytes

    def continuations(self, text: np.ndarray, *, without: str | None = None) -> Continuations:
        """What followed the longest suffix of `text` (n,) that occurs in a document other than `without`."""
        intervals = self._intervals(text)
        left_out = self.names.get(without) if without is not None else None
        for length in range(len(intervals), 0, -1):
            low, high = intervals[length - 1]
            ends = self.order[low:high]
            if left_out is not None:
                ends = ends[self.owner[ends] != left_out]
            ends = ends[:: max(1, len(ends) // MAX_OCCURRENCES)]
            followers = self.ids[ends + 1]
            followers = followers[followers >= 0]
            if len(followers):
                return count(length, followers)
        return NOTHING

    def _intervals(self, text: np.ndarray) -> list[tuple[int, int]]:
        """For match lengths 1, 2, ...: the interval of `order` whose positions end such a match."""
        found: list[tuple[int, int]] = []
        for depth in range(min(MAX_MATCH, len(text))):
            token = int(text[-1 - depth])
            if depth == 0:
                at = int(np.searchsorted(self.tokens, token))
                if at == len(self.tokens) or self.tokens[at] != token:
                    break
                low, high = int(self.bounds[at]), int(self.bounds[at + 1])
            else:
                low, high = found[-1]
                # Position 0 holds a separator, so a match never runs off the start.
                column = self.ids[self.order[low:high] - depth] if high - low <= 64 else None
                if column is not None:
                    low, high = (
                        low + int(np.searchsorted(column, token)),
                        low + int(np.searchsorted(column, token, "right")),
                    )
                else:
                    low, high = self._narrow(low, high, depth, token)
            if low == high:
                break
            found.append((low, high))
        return found

    def _narrow(self, low: int, high: int, depth: int, token: int) -> tuple[int, int]:
        """Binary search inside an interval that is sorted by the token `depth` places back."""
        ids, order = self.ids, self.order

        def first(wanted: int) -> int:
            a, b = low, high
            while a < b:
                middle = (a + b) // 2
                if ids[order[middle] - depth] < wanted:
                    a = middle + 1
                else:
                    b = middle
            return a

        return first(token), first(token + 1)


def sort_backwards(ids: np.ndarray) -> np.ndarray:
    """Positions sorted by the up to MAX_MATCH tokens that end there, nearest first (prefix doubling), separators left out."""
    rank = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    width = 1
    while width < MAX_MATCH:
        # A pair of ranks, `width` tokens apart, ranks twice as many tokens; before the start lies a rank below all others.
        before = np.zeros_like(rank)
        before[width:] = rank[:-width] + 1
        rank = np.unique(rank * (len(ids) + 1) + before, return_inverse=True)[1].astype(np.int64)
        width *= 2
    order = np.argsort(rank, kind="stable").astype(np.int32)
    return order[ids[order] >= 0]


def buffer_continuations(text: np.ndarray, *, known: int | None = None) -> Continuations:
    """What followed the longest earlier occurrence of the end of `text` (n,) in `text` itself.

    Only what followed within the first `known` tokens counts (default: all of them): text that was generated must not
    confirm itself, or one repetition leads to the next.
    """
    known = len(text) if known is None else known
    if len(text) < 2 or known < 2:
        return NOTHING
    ends = longest = np.flatnonzero(text[: known - 1] == text[-1])
    length = 0
    while len(ends):
        length += 1
        longest = ends
        if length == min(MAX_MATCH, len(text)):
            break
        ends = ends[ends >= length]
        ends = ends[text[ends - length] == text[-1 - length]]
    if not length:
        return NOTHING
    return count(length, text[longest[-MAX_OCCURRENCES:] + 1])


def count(length: int, followers: np.ndarray) -> Continuations:
    tokens, counts = np.unique(followers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Continuations(length, tokens[order].astype(np.int32), counts[order].astype(np.int32))
