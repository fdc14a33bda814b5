"""From a chain to its state: the deepest kept state, then the slices after it, keeping checkpoints on the way.

Knows: chains, the store, and a feed function that is handed in. Does not know: the model, threads, text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cache.chain import Chain, Tokens, as_tokens
from cache.store import StateStore

Feed = Callable[
    [Tokens, Any], Any
]  # (tokens, value before them or None) -> value after them; never writes to the value it is given
MERGED_TOKENS = 512  # that slices are fed together up to


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


@dataclass(slots=True)
class Feeding:
    """A chain on its way to its state. `step` feeds one slice, so whoever drives it can stop between any two and go on later.

    `merge`: slices may be fed together up to the next that is kept, which is faster, where the feed gives the same bits however tokens are cut.
    """

    chain: Chain
    store: StateStore
    feed: Feed
    value: Any  # after the first `done` slices; None before anything was read
    done: int  # slices
    tokens_reused: int
    resumed: int  # slices whose end was found kept
    merge: bool = False
    tokens_fed: int = 0

    @property
    def ready(self) -> bool:
        return self.done == len(self.chain.slices)

    @property
    def tokens_missing(self) -> int:
        return self.chain.n_tokens - self._end_of(self.done)

    def step(self) -> None:
        """Feeds up to the next state worth keeping, or takes it from the store where somebody else has fed it meanwhile."""
        upto = self._next_stop()
        entry = self.store.get(self.chain, upto) if self.store.holds(self.chain.slices[upto - 1].key) else None
        n_tokens = self._end_of(upto) - self._end_of(self.done)
        if entry is not None:
            self.value = entry.value
            self.tokens_reused += n_tokens
        else:
            self.value = self.feed(self._tokens(upto), self.value)
            self.tokens_fed += n_tokens
        self.done = upto
        if entry is None and self.chain.slices[upto - 1].keep:
            self.store.put(self.chain, upto, self.value, self.value.nbytes)

    def _next_stop(self) -> int:
        """The number of slices up to where the next call goes."""
        slices, upto = self.chain.slices, self.done + 1
        start = self._end_of(self.done)
        while (
            self.merge
            and upto < len(slices)
            and not slices[upto - 1].keep
            and slices[upto].end - start <= MERGED_TOKENS
        ):
            upto += 1
        return upto

    def _tokens(self, upto: int) -> Tokens:
        parts = [part.tokens for part in self.chain.slices[self.done : upto]]
        return parts[0] if len(parts) == 1 else as_tokens(np.concatenate(parts))

    def _end_of(self, length: int) -> int:
        return self.chain.slices[length - 1].end if length else 0


def resume(chain: Chain, store: StateStore, feed: Feed, *, merge: bool = False) -> Feeding:
    """Finds the deepest kept state of `chain`, feeding nothing yet."""
    for length in range(len(chain.slices), 0, -1):
        # Also where this chain would keep nothing: an older chain with the same beginning may have.
        part = chain.slices[length - 1]
        if part.key not in store:
            continue
        entry = store.get(chain, length)
        if entry is not None:
            return Feeding(chain, store, feed, entry.value, length, tokens_reused=part.end, resumed=length, merge=merge)
    store.misses += 1
    return Feeding(chain, store, feed, value=None, done=0, tokens_reused=0, resumed=0, merge=merge)


def kept_length(chain: Chain, store: StateStore) -> int:
    """How many slices of `chain` the deepest kept state has read; nothing is loaded or counted."""
    return next((n for n in range(len(chain.slices), 0, -1) if chain.slices[n - 1].key in store), 0)
