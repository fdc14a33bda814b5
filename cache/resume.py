"""From a chain to its state: the deepest kept state, then the slices after it, one at a time, keeping checkpoints on the way.

Knows: chains, the store, and a feed function that is handed in. Does not know: the model, threads, text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cache.chain import Chain, Tokens
from cache.store import StateStore

Feed = Callable[
    [Tokens, Any], Any
]  # (tokens, value before them or None) -> value after them; never writes to the value it is given


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


@dataclass(slots=True)
class Feeding:
    """A chain on its way to its state. `step` feeds one slice, so whoever drives it can stop between any two and go on later."""

    chain: Chain
    store: StateStore
    feed: Feed
    value: Any  # after the first `done` slices; None before anything was read
    done: int  # slices
    tokens_reused: int
    resumed_kind: str  # kind of the slice whose end was found, "root" when none was
    tokens_fed: int = 0

    @property
    def ready(self) -> bool:
        return self.done == len(self.chain.slices)

    @property
    def tokens_missing(self) -> int:
        return sum(len(part.tokens) for part in self.chain.slices[self.done :])

    def step(self) -> None:
        """Feeds the next slice; keeps the state at its end if the slice says so."""
        part = self.chain.slices[self.done]
        self.value = self.feed(part.tokens, self.value)
        self.done += 1
        self.tokens_fed += len(part.tokens)
        if part.keep:
            self.store.put(self.chain, self.done, self.value, self.value.nbytes)


def resume(chain: Chain, store: StateStore, feed: Feed) -> Feeding:
    """Finds the deepest kept state of `chain`, feeding nothing yet."""
    for length in range(len(chain.slices), 0, -1):
        # Also where this chain would keep nothing: an older chain with the same beginning may have.
        if chain.slices[length - 1].key not in store:
            continue
        entry = store.get(chain, length)
        if entry is not None:
            reused = sum(len(part.tokens) for part in chain.slices[:length])
            kind = chain.slices[length - 1].kind
            return Feeding(chain, store, feed, value=entry.value, done=length, tokens_reused=reused, resumed_kind=kind)
    store.misses += 1
    return Feeding(chain, store, feed, value=None, done=0, tokens_reused=0, resumed_kind="root")
