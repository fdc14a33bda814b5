"""Kept states in memory: a byte budget, pins, and eviction by what it would cost to have a state again.

Greedy-dual size frequency (Cherkasova, HPL-98-69): H = L + uses x cost / bytes, the lowest H goes first, and L, the clock, becomes the H of what went, so
that what was useful once ages against what is useful now. The cost is measured in tokens from the nearest ancestor that is still kept: when that one
goes, all that built on it become dearer; when a state between arrives, cheaper. So each entry knows its ancestor and who builds on it.
Knows: keys, bytes, opaque values, and that a tier may lie behind memory. Does not know: what a state is, text, disks. Only the thread that owns the model
calls it; nothing here locks. `entries`, `pinned` and the counters may be read from other threads.
"""

import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cache.chain import Chain, Slice

NOT_OFFERED = 0  # the ticket of an entry that cannot be evicted at present


class Shelf(Protocol):
    """The tier behind memory, as the store sees it."""

    def __contains__(self, key: bytes, /) -> bool: ...

    def load(self, chain: Chain, length: int) -> tuple[Any, int] | None:
        """The state after the first `length` slices and its bytes in memory; None is a miss. It has compared the tokens."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """The state after a run of slices. `value` is never written to; `slices` share their tokens with the chain they came from."""

    slices: tuple[Slice, ...]
    value: Any = field(repr=False)
    nbytes: int
    n_tokens: int  # read by it from the root on
    cost_tokens: int  # to be fed to have it again from the nearest ancestor that is kept
    uses: int = 1  # its making, and every hit
    made_at: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.monotonic)
    # The rest is the store's own.
    aged_at: float = 0.0  # what the store's clock showed at the last use
    order: int = 0  # of the last use among all uses: the least recent goes first where H is equal
    ticket: int = NOT_OFFERED  # of its one record in the heap
    ancestor: "Entry | None" = field(default=None, repr=False)
    dependants: dict[bytes, set["Entry"]] = field(
        default_factory=dict, repr=False
    )  # by the key of their first slice after this one

    @property
    def key(self) -> bytes:
        return self.slices[-1].key

    @property
    def rank(self) -> tuple[float, int]:
        """H and the order of the last use; the lowest goes first."""
        return self.aged_at + self.uses * self.cost_tokens / max(1, self.nbytes), self.order


class StateStore:
    """Maps keys to entries within `budget_bytes`."""

    def __init__(self, budget_bytes: int, *, shelf: Shelf | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self.pinned_bytes = 0  # of the entries that may not be evicted
        self.hits = self.misses = self.evictions = (
            0  # `hits` of memory; `misses` are counted by who finds no state at all
        )
        self.shelf_hits = 0
        self.clock = 0.0
        self._shelf = shelf
        self._entries: dict[bytes, Entry] = {}
        self._top = Entry(
            slices=(), value=None, nbytes=0, n_tokens=0, cost_tokens=0
        )  # the root: kept by nobody, so never lost
        self._pins: dict[str, frozenset[bytes]] = {}
        self._pin_counts: dict[bytes, int] = {}
        # Records (H, order, ticket, key), no entries, lest a record keep a state alive. One that says less than its entry's rank by now is
        # corrected when it comes up, and one whose ticket is no longer its entry's is thrown away; none ever says more.
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._n_uses = self._n_tickets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        """Whether it is in memory or on the shelf."""
        return key in self._entries or (self._shelf is not None and key in self._shelf)

    def holds(self, key: bytes) -> bool:
        """Whether it is in memory."""
        return key in self._entries

    def pinned(self, key: bytes) -> bool:
        return key in self._pin_counts

    def entries(self) -> list[Entry]:
        """What is in memory now. The list keeps the states alive, so nobody should hold it for long."""
        return list(
            self._entries.copy().values()
        )  # one call that nothing can come between; going over a changing dictionary raises

    def peek(self, key: bytes) -> Entry | None:
        """The entry in memory under a key; neither a hit nor a use."""
        return self._entries.get(key)

    def get(self, chain: Chain, length: int) -> Entry | None:
        """The entry after the first `length` slices of `chain`, from memory or else from the shelf; a hit is counted and is a use.

        The tokens are compared, not only the key; an entry whose tokens differ is dropped. What the shelf has is kept in memory from now on, if it fits.
        """
        entry = self._entries.get(chain.slices[length - 1].key)
        if entry is None:
            return self._fetch(chain, length)
        slices = chain.slices[:length]
        if not same_tokens(entry.slices, slices):
            self._forget(entry)
            return self._fetch(chain, length)
        # The asking chain's slices from now on: the next question comes with the same objects, and comparing pointers is a hundred times faster.
        entry.slices = slices
        entry.uses += 1
        self._refresh(entry)
        self.hits += 1
        return entry

    def put(self, chain: Chain, length: int, value: Any, nbytes: int) -> bool:
        """Keeps the state after the first `length` slices, evicting the least worth until it fits; an entry that is there keeps its uses.

        Returns False, evicts nothing and changes nothing when it does not fit into the budget beside what is pinned.
        """
        slices = chain.slices[:length]
        key = slices[-1].key
        entry = self._entries.get(key)
        if entry is not None and not same_tokens(entry.slices, slices):
            self._forget(entry)
            entry = None
        known_bytes = 0 if entry is None else entry.nbytes
        if nbytes + self.pinned_bytes - (known_bytes if self.pinned(key) else 0) > self.budget_bytes:
            return False
        if entry is not None:
            entry.ticket = NOT_OFFERED  # must not be evicted to make room for itself
        self._make_room(nbytes - known_bytes)
        if entry is None:
            entry = self._entries[key] = self._linked(slices)
        else:
            entry.slices = slices
        entry.value, entry.nbytes = value, nbytes
        self.nbytes += nbytes - known_bytes
        if self.pinned(key):
            self.pinned_bytes += nbytes - known_bytes
        self._refresh(entry)
        self._offer(entry)
        return True

    def touch(self, key: bytes) -> None:
        """Makes an entry young again without counting a hit or a use: what others build on must not age while they are used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._refresh(entry)

    def pin(self, owner: str, keys: Iterable[bytes]) -> None:
        """Replaces the pins of `owner`. What anybody has pinned is never evicted; a key that is not kept (yet) may be pinned too."""
        wanted, before = frozenset(keys), self._pins.get(owner, frozenset())
        for key in wanted - before:
            self._pin_counts[key] = count = self._pin_counts.get(key, 0) + 1
            if count == 1 and key in self._entries:
                self.pinned_bytes += self._entries[key].nbytes
        for key in before - wanted:
            self._unpin(key)
        if wanted:
            self._pins[owner] = wanted
        else:
            self._pins.pop(owner, None)

    def unpin(self, owner: str) -> None:
        self.pin(owner, ())

    def drop(self, keys: Iterable[bytes]) -> tuple[int, int]:
        """Removes entries from memory, pinned ones too. Returns how many there were and their bytes."""
        found = [self._entries[key] for key in set(keys) if key in self._entries]
        for entry in found:
            self._forget(entry)
        return len(found), sum(entry.nbytes for entry in found)

    def check(self) -> None:
        """Asserts all laws of the store, each by the plainest way of computing it."""
        entries = self._entries
        assert self.nbytes == sum(entry.nbytes for entry in entries.values()), "bytes counted are not the bytes kept"
        assert self.nbytes <= self.budget_bytes, "over budget"
        assert all(entry.key == key for key, entry in entries.items()), "an entry under a foreign key"
        counts: dict[bytes, int] = {}
        for key in (key for keys in self._pins.values() for key in keys):
            counts[key] = counts.get(key, 0) + 1
        assert counts == self._pin_counts, "pins counted are not the pins that owners have"
        held = sum(entries[key].nbytes for key in counts if key in entries)
        assert self.pinned_bytes == held, "pinned bytes counted are not those pinned"
        check_links(self._top, entries)
        self._check_heap()

    def _check_heap(self) -> None:
        heap = self._heap
        assert all(heap[(i - 1) // 2] <= heap[i] for i in range(1, len(heap))), "the heap is out of order"
        valid: dict[bytes, tuple[float, int]] = {}
        for h, order, ticket, key in heap:
            if key in self._entries and self._entries[key].ticket == ticket:
                assert key not in valid, "two records of one entry"
                valid[key] = h, order
        for key, entry in self._entries.items():
            assert key in valid or (self.pinned(key) and entry.ticket == NOT_OFFERED), (
                "an entry that could never be evicted"
            )
            assert key not in valid or valid[key] <= entry.rank, "a record that promises more than its entry is worth"

    def _fetch(self, chain: Chain, length: int) -> Entry | None:
        """From the shelf, into memory. What does not fit there is handed out all the same."""
        if self._shelf is None or chain.slices[length - 1].key not in self._shelf:
            return None
        loaded = self._shelf.load(chain, length)
        if loaded is None:
            return None
        value, nbytes = loaded
        self.shelf_hits += 1
        if not self.put(chain, length, value, nbytes):
            slices = chain.slices[:length]
            ancestor, cost = self._nearest(slices)
            return Entry(slices, value, nbytes, n_tokens=ancestor.n_tokens + cost, cost_tokens=cost)
        entry = self._entries[chain.slices[length - 1].key]
        entry.uses += 1
        return entry

    def _refresh(self, entry: Entry) -> None:
        """Its rank only grows by this, so its record in the heap may stay."""
        self._n_uses += 1
        entry.order, entry.aged_at, entry.used_at = self._n_uses, self.clock, time.monotonic()

    def _unpin(self, key: bytes) -> None:
        self._pin_counts[key] -= 1
        if self._pin_counts[key]:
            return
        del self._pin_counts[key]
        entry = self._entries.get(key)
        if entry is not None:
            self.pinned_bytes -= entry.nbytes
            if entry.ticket == NOT_OFFERED:
                self._offer(entry)

    def _offer(self, entry: Entry) -> None:
        """Puts a record of its present rank into the heap, which makes an older one void; none for a pinned entry."""
        entry.ticket = NOT_OFFERED
        if self.pinned(entry.key):
            return
        self._n_tickets += 1
        entry.ticket = self._n_tickets
        heapq.heappush(self._heap, (*entry.rank, entry.ticket, entry.key))
        if len(self._heap) > 64 + 2 * len(self._entries):
            offered = (each for each in self._entries.values() if each.ticket != NOT_OFFERED)
            self._heap = [(*each.rank, each.ticket, each.key) for each in offered]
            heapq.heapify(self._heap)

    def _make_room(self, nbytes: int) -> None:
        """Evicts until `nbytes` more fit. The caller has seen to it that what is not pinned is enough."""
        while self.nbytes + nbytes > self.budget_bytes:
            h, order, ticket, key = heapq.heappop(self._heap)
            entry = self._entries.get(key)
            if entry is None or entry.ticket != ticket:
                continue
            if self.pinned(key):
                entry.ticket = NOT_OFFERED
            elif entry.rank > (h, order):
                heapq.heappush(self._heap, (*entry.rank, ticket, key))
            else:
                self.clock = max(self.clock, h)
                self.evictions += 1
                self._forget(entry)

    def _nearest(self, slices: tuple[Slice, ...]) -> tuple[Entry, int]:
        """The deepest kept entry before the last slice, and the tokens after it."""
        cost = len(slices[-1].tokens)
        for length in range(len(slices) - 1, 0, -1):
            part = slices[length - 1]
            kept = self._entries.get(part.key)
            if kept is not None and len(kept.slices) == length:
                return kept, cost
            cost += len(part.tokens)
        return self._top, cost

    def _linked(self, slices: tuple[Slice, ...]) -> Entry:
        """A new entry below its ancestor, and above those of the ancestor's dependants that go through it."""
        ancestor, cost = self._nearest(slices)
        entry = Entry(slices, None, 0, n_tokens=ancestor.n_tokens + cost, cost_tokens=cost, ancestor=ancestor)
        group = ancestor.dependants.setdefault(slices[len(ancestor.slices)].key, set())
        length, key = len(slices), entry.key
        for other in [each for each in group if len(each.slices) > length and each.slices[length - 1].key == key]:
            group.remove(other)
            entry.dependants.setdefault(other.slices[length].key, set()).add(other)
            other.ancestor = entry
            other.cost_tokens -= cost
            self._offer(other)  # its rank has sunk below what its record says
        group.add(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        """Removes an entry; those that built on it build on its ancestor from now on."""
        del self._entries[entry.key]
        self.nbytes -= entry.nbytes
        if self.pinned(entry.key):
            self.pinned_bytes -= entry.nbytes
        ancestor = entry.ancestor
        assert ancestor is not None, "only the top has no ancestor"
        branch = entry.slices[len(ancestor.slices)].key
        group = ancestor.dependants[branch]
        group.remove(entry)
        for other in (other for others in entry.dependants.values() for other in others):
            other.ancestor = ancestor
            other.cost_tokens += entry.cost_tokens
            group.add(other)
        if not group:
            del ancestor.dependants[branch]
        entry.ancestor, entry.dependants = None, {}


def same_tokens(a: tuple[Slice, ...], b: tuple[Slice, ...]) -> bool:
    """Whether kinds, cuts and tokens are the same. Slices that two chains share are the same objects, so most of this is a comparison of pointers.

    What differs is near the end as a rule: tokens are compared from there back to a shared slice, and the rest in one go, since slices are equal by
    identity alone. Only where that fails is each slice looked at.
    """
    if len(a) != len(b):
        return False
    shared = len(a)
    while shared and a[shared - 1] is not b[shared - 1]:
        shared -= 1
        if not _same_slice(a[shared], b[shared]):
            return False
    return a[:shared] == b[:shared] or all(map(_same_slice, a[:shared], b[:shared]))


def _same_slice(x: Slice, y: Slice) -> bool:
    return x is y or (x.kind == y.kind and np.array_equal(x.tokens, y.tokens))


def check_links(top: Entry, entries: dict[bytes, Entry]) -> None:
    """Asserts that every entry hangs below its nearest kept ancestor, in the right group, at the right cost, and that nothing else hangs anywhere."""
    for entry in entries.values():
        lengths = range(len(entry.slices) - 1, 0, -1)
        kept = ((n, entries.get(entry.slices[n - 1].key)) for n in lengths)
        above, ancestor = next(((n, each) for n, each in kept if each is not None and len(each.slices) == n), (0, top))
        assert entry.ancestor is ancestor, "an entry that does not know its nearest ancestor"
        assert entry.cost_tokens == sum(len(part.tokens) for part in entry.slices[above:]), (
            "a cost that is not the way from the ancestor"
        )
        assert entry.n_tokens == sum(len(part.tokens) for part in entry.slices), (
            "tokens counted are not the tokens read"
        )
        assert entry in ancestor.dependants.get(entry.slices[above].key, ()), (
            "an ancestor that does not know who builds on it"
        )
    groups = [group for each in (top, *entries.values()) for group in each.dependants.values()]
    assert all(groups) and sum(map(len, groups)) == len(entries), "a dependant that is not kept"
