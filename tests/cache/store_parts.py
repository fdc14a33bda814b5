"""Small real parts for the tests of the store: roads that part, and a tier that holds what it is given."""

from typing import Any

from cache.chain import Chain, as_tokens

ROOT = Chain.start(b"test")


def chain_of(*sizes: int, root: Chain = ROOT, seed: int = 0, kind: str = "base") -> Chain:
    """Slices of these many tokens; another seed, other tokens."""
    return root.extend(kind, [(as_tokens([seed] * size), True) for size in sizes])


def fork() -> tuple[Chain, ...]:
    """Three roads, two of which part after three slices; other objects each time."""
    base = chain_of(5, 1, 3)
    return (
        chain_of(2, 2, 7, root=base, seed=1),
        chain_of(1, 4, root=base, seed=2),
        chain_of(6, 6, seed=3),
    )


class DictShelf:
    """A tier behind memory that holds whatever it is given, as the disk would."""

    def __init__(self, kept: dict[bytes, tuple[object, int]] | None = None) -> None:
        self.kept = {} if kept is None else kept
        self.asked = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self.kept

    def load(self, chain: Chain, length: int) -> tuple[Any, int] | None:
        self.asked += 1
        return self.kept[chain.slices[length - 1].key]
