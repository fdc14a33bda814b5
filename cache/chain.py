"""What a model shall read, as a chain of slices, each with a key that says everything about the state at its end.

K0 = BLAKE3(fingerprint), Ki = BLAKE3(Ki-1, kind, tokens). Where a chain is cut into slices is a pure function of its content, and each segment starts a
new grid, so the cold and the warm way feed the same slices and get the same bits. Knows: token ids and bytes. Does not know: text, models, storage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import blake3
import numpy as np

SLICE_TOKENS = 256  # the longest slice: what a keystroke may have to wait for
Tokens = np.ndarray  # (n,) int32, never written to


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Tokens that are fed in one piece. `keep`: whether the state at its end is worth keeping; `end`: tokens of the whole chain up to there.

    Two chains hold the same Slice only where one was extended to the other, or both from the same: all before it is then shared as well.
    """

    kind: str
    tokens: Tokens
    keep: bool
    key: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """An ordered run of slices from a root key. Extending makes a new chain that shares the slices of the old one."""

    root: bytes
    slices: tuple[Slice, ...] = ()

    @classmethod
    def start(cls, *fingerprint: bytes) -> Self:
        """An empty chain; `fingerprint` names all that decides a state besides the tokens: format, weights, numerics, tokenizer, layout."""
        hasher = blake3.blake3()
        for part in fingerprint:
            hasher.update(len(part).to_bytes(8, "little") + part)
        return cls(root=hasher.digest())

    @property
    def tip(self) -> bytes:
        """The key of the state after the last slice."""
        return self.slices[-1].key if self.slices else self.root

    @property
    def n_tokens(self) -> int:
        return self.slices[-1].end if self.slices else 0

    def extend(self, kind: str, pieces: Sequence[tuple[Tokens, bool]]) -> Self:
        """This chain and one more segment, already cut; a piece is (tokens, keep). Empty pieces are left out."""
        added, key, end = [], self.tip, self.n_tokens
        for tokens, keep in pieces:
            if len(tokens):
                key = next_key(key, kind, tokens)
                end += len(tokens)
                added.append(Slice(kind=kind, tokens=tokens, keep=keep, key=key, end=end))
        return type(self)(root=self.root, slices=self.slices + tuple(added))

    def upto(self, length: int) -> Self:
        """The first `length` slices."""
        return type(self)(root=self.root, slices=self.slices[:length])


def next_key(previous: bytes, kind: str, tokens: Tokens) -> bytes:
    name = kind.encode()
    return blake3.blake3(previous + len(name).to_bytes(1, "little") + name + tokens.tobytes()).digest()


def as_tokens(ids: Sequence[int] | np.ndarray) -> Tokens:
    """An int32 array that nothing can write to."""
    tokens = np.array(ids, dtype=np.int32)
    tokens.flags.writeable = False
    return tokens


def cut_grid(
    tokens: Tokens, *, size: int = SLICE_TOKENS, keep: bool = False, keep_last: bool = True
) -> list[tuple[Tokens, bool]]:
    """Pieces of `size` tokens from the first on; `keep` marks all of them, `keep_last` the last."""
    starts = range(0, len(tokens), size)
    return [(tokens[start : start + size], keep or (keep_last and start + size >= len(tokens))) for start in starts]


def cut_at_lines(tokens: Tokens, newline: int, *, size: int = SLICE_TOKENS) -> list[tuple[Tokens, bool]]:
    """Pieces of at most `size` tokens that end at line ends where they can, all kept; appending lines changes the last piece alone."""
    pieces, start = [], 0
    ends = np.flatnonzero(tokens == newline) + 1
    while start < len(tokens):
        end = min(start + size, len(tokens))
        if end < len(tokens):
            last = np.searchsorted(ends, end, side="right") - 1  # the last line end at or before `end`
            if last >= 0 and ends[last] > start:
                end = int(ends[last])
        pieces.append((tokens[start:end], True))
        start = end
    return pieces
