"""Longest-match continuations: what followed, in a context's documents and in the text before the cursor, where the last tokens occurred before.

An infini-gram (Liu et al., COLM 2024) over token ids, cut at MAX_MATCH tokens. Documents: one array of positions sorted by the tokens that end there, read
backwards (a suffix array of the reversed text, 4 bytes a token), asked by narrowing an interval one token at a time until so few places are left that all
of them are compared at once. Documents that changed since get a small index of their own, laid over the large one, in which their old texts are hidden.
The open buffer changes with every key, so it has no index: its matches are found by comparing the whole array, which for a file is microseconds and
always exact.
Knows: token ids. Does not know: text, models, how continuations are weighed (model/mixture.py) or checked (model/generate.py).
"""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

import numpy as np

MAX_MATCH = 32  # tokens; longer matches tell nothing more
MAX_OCCURRENCES = 512  # of one match that are counted: a common short match needs no more
FEW = 64  # places that are compared at once
PACKED = 4  # tokens in one number of an index, at most
COLUMN = 1024  # places of which one token each is looked up at once; of more, a binary search looks at fewer


@dataclass(frozen=True, slots=True)
class Continuations:
    """The tokens that followed the longest match, most frequent first. `length` 0: nothing matched."""

    length: int
    tokens: np.ndarray  # (k,) int32
    counts: np.ndarray  # (k,) int32


NOTHING = Continuations(0, np.empty(0, np.int32), np.empty(0, np.int32))
NO_DRAFT = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Where the longest match ends: `places` are (token ids, positions in them), the latest text last. `length` 0: nowhere.

    A token follows at every position. A negative id ends a document.
    """

    length: int
    places: tuple[tuple[np.ndarray, np.ndarray], ...]

    def continuations(self) -> Continuations:
        if not self.length:
            return NOTHING
        followers = [ids[ends + 1] for ids, ends in self.places]
        return count(self.length, followers[0] if len(followers) == 1 else np.concatenate(followers))

    def draft(self, n: int) -> np.ndarray:
        """The up to `n` tokens (int32) that most often followed, token by token; of equally frequent ones the latest. Never crosses a document's end."""
        if not self.length or n <= 0:
            return NO_DRAFT
        rows = [following(ids, np.sort(ends), n) for ids, ends in self.places]
        rows = rows[0] if len(rows) == 1 else np.concatenate(rows)
        for column in range(n):
            if len(rows) == 1:
                break
            rows = rows[rows[:, column] == latest_favourite(rows[:, column])]
            if rows[0, column] < 0:
                break
        row = rows[0]
        over = np.flatnonzero(row < 0)
        return row[: over[0]] if len(over) else row


NOWHERE = Hits(0, ())


class Lookup(Protocol):
    """Documents that can be searched; one of them can be left out of each question, by its name."""

    @property
    def nbytes(self) -> int: ...

    def search(self, text: np.ndarray, *, without: str | None = None) -> Hits:
        """Where the longest suffix of `text` (n,) occurs, and something follows it, in a document other than `without`."""
        ...

    def continuations(self, text: np.ndarray, *, without: str | None = None) -> Continuations:
        """What followed there."""
        ...

    def draft(self, text: np.ndarray, n: int, *, without: str | None = None) -> np.ndarray:
        """The up to `n` tokens that most often followed there, int32."""
        ...


class DocumentIndex:
    """An index over documents that never change."""

    def __init__(self, documents: Sequence[tuple[str, np.ndarray]]) -> None:
        """`documents` are (name, token ids). Matches never cross from one document into another."""
        self.names = {name: number for number, (name, _) in enumerate(documents)}
        separator = np.array([-1], np.int32)
        parts = [part for _, ids in documents for part in (separator, np.asarray(ids, np.int32))]
        self.ids = np.concatenate([*parts, separator]) if parts else separator
        lengths = [len(ids) + 1 for _, ids in documents]
        self.owner = np.repeat(np.arange(len(documents), dtype=np.int32), lengths)
        self.order = sort_backwards(self.ids)
        # The last tokens before each position in one number, in the same order, so that the first steps of a search are one call that touches little.
        self.token_bits = (int(self.ids.max()) + 2).bit_length()
        self.n_packed = min(PACKED, 64 // self.token_bits)
        self.codes = self._packed_codes()

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + self.owner.nbytes + self.order.nbytes + self.codes.nbytes

    def _packed_codes(self) -> np.ndarray:
        """(positions,) uint64, ascending: the token at a position in the highest bits, then those before it; 0 stands for a separator."""
        values = np.concatenate([np.zeros(self.n_packed, np.uint64), (self.ids + 1).astype(np.uint64)])
        codes = np.zeros(len(self.order), np.uint64)
        for back in range(self.n_packed):
            codes = (codes << np.uint64(self.token_bits)) | values[self.order + self.n_packed - back]
        return codes

    def hiding(self, names: AbstractSet[str]) -> np.ndarray:
        """(documents,) bool: true for those of `names`; names of no document count for nothing."""
        return np.fromiter((name in names for name in self.names), bool, len(self.names))

    def search(self, text: np.ndarray, *, without: str | None = None, hidden: np.ndarray | None = None) -> Hits:
        """See Lookup. `hidden`, as `hiding` gives it, are documents to be left out too."""
        if without in self.names:
            hidden = np.zeros(len(self.names), bool) if hidden is None else hidden.copy()
            hidden[self.names[without]] = True
        intervals = self._intervals(text)
        for depth in range(len(intervals), 0, -1):
            low, high = intervals[depth - 1]
            ends = self._shown(self.order[low:high], hidden)
            if not len(ends):
                continue
            if depth == len(intervals) and high - low <= FEW:
                lengths = match_lengths(self.ids, ends, text, depth=depth)
                longest = int(lengths.max())
                return Hits(longest, ((self.ids, ends[lengths == longest]),))
            return Hits(depth, ((self.ids, ends[:: max(1, len(ends) // MAX_OCCURRENCES)]),))
        return NOWHERE

    def continuations(self, text: np.ndarray, *, without: str | None = None) -> Continuations:
        """See Lookup."""
        return self.search(text, without=without).continuations()

    def draft(self, text: np.ndarray, n: int, *, without: str | None = None) -> np.ndarray:
        """See Lookup."""
        return self.search(text, without=without).draft(n)

    def _shown(self, ends: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
        """Those of the positions `ends` that are not hidden and that a token follows."""
        shown = self.ids[ends + 1] >= 0
        if hidden is not None:
            shown &= ~hidden[self.owner[ends]]
        return ends[shown]

    def _intervals(self, text: np.ndarray) -> list[tuple[int, int]]:
        """For match lengths 1, 2, ...: the interval of `order` whose positions end such a match, up to the first with few."""
        found: list[tuple[int, int]] = []
        for low, high in self._first_intervals(text):
            if low == high:
                return found
            found.append((low, high))
            if high - low <= FEW:
                return found
        for depth in range(len(found), min(MAX_MATCH, len(text))):
            if depth < self.n_packed:  # a token that stands nowhere
                break
            low, high = self._narrow(*found[-1], depth=depth, token=int(text[-1 - depth]))
            if low == high:
                break
            found.append((low, high))
            if high - low <= FEW:
                break
        return found

    def _first_intervals(self, text: np.ndarray) -> list[tuple[int, int]]:
        """Those of match lengths 1 to `n_packed`, up to the first token that is beyond all of the index's."""
        bits, edges, code = self.token_bits, [], 0
        for depth in range(min(self.n_packed, len(text))):
            value = int(text[-1 - depth]) + 1
            if value >= (1 << bits) - 1:
                break
            code = (code << bits) | value
            below = bits * (self.n_packed - 1 - depth)
            edges += [code << below, (code + 1) << below]
        ends = self.codes.searchsorted(np.array(edges, np.uint64)).tolist()
        return list(zip(ends[::2], ends[1::2], strict=True))

    def _narrow(self, low: int, high: int, *, depth: int, token: int) -> tuple[int, int]:
        """The part of an interval, which is sorted by the token `depth` places back, where that is `token`."""
        ids, order = self.ids, self.order

        def first(wanted: int) -> int:
            a, b = low, high
            while a < b:
                middle = (a + b) // 2
                # Position 0 holds a separator, so a match never runs off the start.
                if ids.item(order.item(middle) - depth) < wanted:
                    a = middle + 1
                else:
                    b = middle
            return a

        if high - low > COLUMN:
            return first(token), first(token + 1)
        column = ids[order[low:high] - depth]
        wanted = np.array([token, token + 1], np.int32)
        start, end = column.searchsorted(wanted)
        return low + int(start), low + int(end)


class LayeredIndex:
    """A large index that is kept, and over it a small one of the documents that changed since. Made in microseconds, so one for each save.

    The longer match wins; where both match equally far, what followed is added up.
    """

    def __init__(self, base: DocumentIndex, hot: DocumentIndex | None, superseded: AbstractSet[str]) -> None:
        """Documents of `base` that are `superseded`, changed or removed, are never matched; `hot` has those that there are now instead."""
        self.base = base
        self.hot = hot
        self.superseded = superseded
        self._hidden = base.hiding(superseded) if superseded else None

    @property
    def nbytes(self) -> int:
        return self.base.nbytes + (0 if self.hot is None else self.hot.nbytes)

    def search(self, text: np.ndarray, *, without: str | None = None) -> Hits:
        """See Lookup."""
        old = self.base.search(text, without=without, hidden=self._hidden)
        if self.hot is None:
            return old
        new = self.hot.search(text, without=without)
        if old.length != new.length:
            return max(old, new, key=lambda hits: hits.length)
        return Hits(old.length, (*old.places, *new.places))

    def continuations(self, text: np.ndarray, *, without: str | None = None) -> Continuations:
        """See Lookup."""
        return self.search(text, without=without).continuations()

    def draft(self, text: np.ndarray, n: int, *, without: str | None = None) -> np.ndarray:
        """See Lookup."""
        return self.search(text, without=without).draft(n)


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


def buffer_search(text: np.ndarray, *, known: int | None = None) -> Hits:
    """Where the longest earlier occurrence of the end of `text` (n,) ends in `text` itself.

    Only what followed within the first `known` tokens counts (default: all of them): text that was generated must not
    confirm itself, or one repetition leads to the next.
    """
    known = len(text) if known is None else known
    if len(text) < 2 or known < 2:
        return NOWHERE
    ids = text[:known]
    ends = np.flatnonzero(ids[:-1] == text[-1])
    if not len(ends):
        return NOWHERE
    length = 1
    while len(ends) > FEW and length < min(MAX_MATCH, len(text)):
        longer = ends[ends >= length]
        longer = longer[text[longer - length] == text[-1 - length]]
        if not len(longer):
            break
        ends, length = longer, length + 1
    if len(ends) <= FEW:
        lengths = match_lengths(text, ends, text, depth=length)
        length = int(lengths.max())
        ends = ends[lengths == length]
    return Hits(length, ((ids, ends[-MAX_OCCURRENCES:]),))


def buffer_continuations(text: np.ndarray, *, known: int | None = None) -> Continuations:
    """What followed there; see `buffer_search`."""
    return buffer_search(text, known=known).continuations()


def buffer_draft(text: np.ndarray, n: int, *, known: int | None = None) -> np.ndarray:
    """The up to `n` tokens that most often followed there, int32; see `buffer_search`."""
    return buffer_search(text, known=known).draft(n)


def match_lengths(ids: np.ndarray, ends: np.ndarray, text: np.ndarray, *, depth: int) -> np.ndarray:
    """(k,) how many tokens, up to MAX_MATCH, at the end of `text` stand in `ids` up to each of the positions `ends` (k,), where `depth` do at least."""
    back = np.arange(depth, min(MAX_MATCH, len(text)))
    if not len(back):
        return np.full(len(ends), depth)
    at = ends[:, None] - back
    same = (ids[np.maximum(at, 0)] == text[-1 - back]) & (at >= 0)
    return depth + np.where(same.all(1), len(back), same.argmin(1))


def following(ids: np.ndarray, ends: np.ndarray, n: int) -> np.ndarray:
    """(k, n) the tokens after each of the positions `ends` (k,), and -1 beyond the last of `ids`."""
    at = ends[:, None] + np.arange(1, n + 1)
    return np.where(at < len(ids), ids[np.minimum(at, len(ids) - 1)], np.int32(-1))


def latest_favourite(tokens: np.ndarray) -> int:
    """The most frequent of `tokens` (k,), k >= 1; of equally frequent ones the one that stands last."""
    latest_first = tokens[::-1].tolist()
    return Counter(latest_first).most_common(1)[0][0]  # which of equals is the one that came first


def count(length: int, followers: np.ndarray) -> Continuations:
    """Of equally frequent tokens the lower id comes first."""
    if len(followers) <= FEW:  # for so few, sorting in numpy costs more than they are worth
        pairs = sorted(Counter(followers.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))
        both = np.array(pairs, np.int32).T
        return Continuations(length, both[0], both[1])
    tokens, counts = np.unique(followers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return Continuations(length, tokens[order].astype(np.int32), counts[order].astype(np.int32))
