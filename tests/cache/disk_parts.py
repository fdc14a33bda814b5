"""Parts of the tests of the disk tier: small states, chains from one root, a clock that is set by hand, tiers in a folder. Does not know: faults."""

from pathlib import Path

import numpy as np

from cache.chain import Chain, as_tokens
from cache.disk import DiskTier
from cache.index import name_of, shard_of

FINGERPRINT = "ab" * 32
ROOT = Chain.start(bytes.fromhex(FINGERPRINT))
LOGGER = "codestral_lsp.cache"


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_chain(
    number: int = 0, *, kinds: tuple[str, ...] = ("base", "hot"), n_slices: int = 2, n_tokens: int = 7
) -> Chain:
    """A chain of its own for each number: one segment for each kind, in slices of `n_tokens`."""
    chain = ROOT
    for kind in kinds:
        pieces = [(as_tokens(np.arange(n_tokens) * 31 % 1000 + number), index % 2 == 1) for index in range(n_slices)]
        chain = chain.extend(kind, pieces)
    return chain


def make_arrays(number: int = 0, *, n_bytes: int = 64) -> dict[str, np.ndarray]:
    """Arrays as a state has them: fp16 (`n_bytes` of them), fp32, int8."""
    random = np.random.default_rng(number)
    return {
        "ssm": random.standard_normal((2, n_bytes // 4)).astype(np.float16),
        "conv": random.standard_normal((3, 2)).astype(np.float32),
        "rows": random.integers(-128, 128, (5,), dtype=np.int8),
    }


def make_tier(folder: Path, **settings: object) -> DiskTier:
    defaults = {"fingerprint": FINGERPRINT, "root": ROOT.root, "budget_bytes": 1_000_000_000}
    return DiskTier(folder, **(defaults | settings))


def put(tier: DiskTier, number: int = 0, *, n_bytes: int = 64, **note: object) -> Chain:
    """Writes a state, which must succeed, and returns its chain."""
    chain = make_chain(number)
    assert tier.write(chain, len(chain.slices), make_arrays(number, n_bytes=n_bytes), note)
    return chain


def holds(tier: DiskTier, number: int = 0, *, n_bytes: int = 64) -> bool:
    """Whether a state is read, and then right in every bit."""
    chain = make_chain(number)
    snapshot = tier.read(chain, len(chain.slices))
    if snapshot is None:
        return False
    same(snapshot.arrays, make_arrays(number, n_bytes=n_bytes))
    return True


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def file_of(folder: Path, key: bytes, *, fingerprint: str = FINGERPRINT) -> Path:
    return folder / "v1" / fingerprint[:16] / shard_of(key) / name_of(key)


def checked(tier: DiskTier) -> None:
    """Asserts the accounting law: what is counted is what lies there, and nothing else does."""
    base = tier._states.path / FINGERPRINT[:16]
    files = {path.stem: path.stat().st_size for path in base.glob("??/*.safetensors")}
    assert sorted(map(bytes.hex, tier.keys())) == sorted(files)
    assert tier.nbytes == sum(files.values()) and len(tier) == len(files)
    assert not list(base.glob("**/*.tmp"))
