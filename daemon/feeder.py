"""Feeding one slice, in pieces that a keystroke need not wait for.

A slice of 256 tokens takes milliseconds with a small model and many seconds with a large one. Where the network gives the same bits however tokens
are cut into calls, a slice is fed in pieces of about PIECE_S; between two of them whoever waits may interrupt, and the next try goes on from there.
Knows: networks, slices. Does not know: chains, the store, threads.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache.chain import SLICE_TOKENS, Tokens
from model.network import Network
from model.state import Mamba2State

PIECE_S = 0.03  # how long a piece may take, at the speed measured so far
MIN_PIECE_TOKENS = 16  # fewer would read the weights too often


class Interrupted(Exception):
    """Somebody more urgent waits. Feed the same slice again later."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What is kept at the end of a slice: the state and the logits after its last token, both never written to."""

    state: Mamba2State
    logits: Tensor  # (V,)

    @property
    def nbytes(self) -> int:
        return self.state.nbytes + self.logits.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A slice that was interrupted: its first `done` tokens after `before`."""

    tokens: Tokens
    before: Value | None
    done: int
    state: Mamba2State


class Feeder:
    """`interrupted` is asked between two pieces; whoever drives the feeding sets it."""

    def __init__(self, network: Network, *, tokens_per_s: float) -> None:
        self.network = network
        self.tokens_fed = 0  # since the start
        self.tokens_per_s = tokens_per_s  # corrected by every piece long enough to tell
        self.interrupted: Callable[[], bool] = lambda: False
        # The last one only: a large model's state takes hundreds of megabytes. It outlives what a key feeds, or steady typing would
        # let no longer slice of the background ever come to its end.
        self._begun: _Begun | None = None

    @torch.no_grad()
    def feed(self, tokens: Tokens, value: Value | None) -> Value:
        """The value after `tokens`; the given one is never written to. Raises Interrupted."""
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        state, done = self._resume(tokens, value)
        own = done > 0  # a state made on the way is ours to write over
        if own:
            self._begun = None
        piece = self.piece_tokens()
        while True:
            part = ids[:, done : done + piece]
            started = time.monotonic()
            logits, state = self.network(part, state, last_only=True, into=state if own else None)
            self._account(part.shape[1], time.monotonic() - started)
            done, own = done + part.shape[1], True
            if done == len(tokens):
                return Value(state, logits[0, -1].clone())
            if self.interrupted():
                self._begun = _Begun(tokens, value, done, state)
                raise Interrupted

    def forget(self) -> None:
        """What was begun."""
        self._begun = None

    def piece_tokens(self) -> int:
        """How many tokens are fed without looking up."""
        if not self.network.any_cut:
            return SLICE_TOKENS
        return min(SLICE_TOKENS, max(MIN_PIECE_TOKENS, int(PIECE_S * self.tokens_per_s)))

    def _resume(self, tokens: Tokens, value: Value | None) -> tuple[Mamba2State | None, int]:
        begun = self._begun
        if begun is not None and begun.before is value and np.array_equal(begun.tokens, tokens):
            return begun.state, begun.done
        return None if value is None else value.state, 0

    def _account(self, n_tokens: int, seconds: float) -> None:
        self.tokens_fed += n_tokens
        if n_tokens >= min(SLICE_TOKENS // 4, self.piece_tokens()):
            self.tokens_per_s += 0.1 * (n_tokens / max(1e-6, seconds) - self.tokens_per_s)
