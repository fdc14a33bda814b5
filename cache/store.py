"""Kept states in memory: a byte budget and true least-recently-used order.

Knows: keys, bytes, opaque values. Does not know: what a state is, text, disks. Only the thread that owns the model calls it; nothing here locks.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.chain import Chain, Slice


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The state after a run of slices. `value` is never written to; `slices` share their tokens with the chain they came from."""

    slices: tuple[Slice, ...]
    value: Any
    nbytes: int


class StateStore:
    """Maps keys to entries within `budget_bytes`. A hit and a put make an entry the most recently used."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self.hits = self.misses = self.evictions = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def get(self, chain: Chain, length: int) -> Entry | None:
        """The entry after the first `length` slices of `chain`; a hit is counted and refreshes the entry.

        The tokens are compared, not only the key; an entry whose tokens differ is dropped.
        """
        key = chain.slices[length - 1].key
        entry = self._entries.get(key)
        if entry is not None and not same_tokens(entry.slices, chain.slices[:length]):
            self._drop(key)
            entry = None
        if entry is None:
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def put(self, chain: Chain, length: int, value: Any, nbytes: int) -> bool:
        """Keeps the state after the first `length` slices, dropping the least recently used until it fits.

        Returns False, and keeps nothing, when it is larger than the whole budget.
        """
        if nbytes > self.budget_bytes:
            return False
        key = chain.slices[length - 1].key
        if key in self._entries:
            self._drop(key)
        while self.nbytes + nbytes > self.budget_bytes:
            self._drop(next(iter(self._entries)))
            self.evictions += 1
        self._entries[key] = Entry(slices=chain.slices[:length], value=value, nbytes=nbytes)
        self.nbytes += nbytes
        return True

    def touch(self, key: bytes) -> None:
        """Makes an entry the most recently used without counting a hit: what others build on must not age while they are used."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def check(self) -> None:
        """Asserts the accounting law: the bytes counted are the bytes kept, and within the budget."""
        assert self.nbytes == sum(entry.nbytes for entry in self._entries.values()), (
            "bytes counted are not the bytes kept"
        )
        assert self.nbytes <= self.budget_bytes, "over budget"
        assert all(entry.slices[-1].key == key for key, entry in self._entries.items()), "an entry under a foreign key"

    def _drop(self, key: bytes) -> None:
        self.nbytes -= self._entries.pop(key).nbytes


def same_tokens(a: tuple[Slice, ...], b: tuple[Slice, ...]) -> bool:
    """Slices that two chains share are the same objects, so most of this is a comparison of pointers."""
    return len(a) == len(b) and all(
        x is y or (x.kind == y.kind and np.array_equal(x.tokens, y.tokens)) for x, y in zip(a, b, strict=True)
    )
