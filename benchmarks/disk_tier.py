"""How fast states are written to disk and read back, beside what the disk does with the same bytes and no checks.

    python benchmarks/disk_tier.py [--folder DIR] [--rounds 5] [--tokens 262144] [--states 1000]

A state of Codestral's size in each format, after a chain of `--tokens` tokens. `written`: until it is durable (fsync of file and folder). `read`: every byte
checked, from the system's page cache and from the disk. `plain`: the same bytes with write and fsync, or read into memory, and nothing else. Then how long a
start takes that finds `--states` small states. Prints a table, then one JSON line. Knows: the disk tier. Does not know: models, torch.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.stats import Spread, machine, print_json, spread, table
from cache.chain import Chain, as_tokens, cut_grid
from cache.disk import DiskTier
from cache.index import name_of, shard_of

FINGERPRINT = "ab" * 32
ROOT = Chain.start(bytes.fromhex(FINGERPRINT))
N_LAYERS, N_HEADS, D_STATE, HEAD_DIM, CONV_DIM, N_VOCABULARY = 64, 128, 128, 64, 10240, 32768  # Codestral Mamba 7B
FORMATS = {"fp16": np.float16, "int8": np.int8, "fp32": np.float32}
MEGABYTE = 1e6
KINDS = ("written", "plain_written", "read", "plain_read", "read_from_disk", "plain_read_from_disk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; unless told, where temporary files go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--states", type=int, default=1000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="disk-tier-", dir=options.folder))
    try:
        chain = ROOT.extend("base", cut_grid(as_tokens(np.arange(options.tokens) * 7919 % N_VOCABULARY)))
        figures = {
            name: measure(folder / name, chain, state_arrays(dtype), options.rounds) for name, dtype in FORMATS.items()
        }
        starting_s = time_of_start(folder / "many", options.states)
    finally:
        shutil.rmtree(folder)
    rows = [as_row(name, kinds) for name, kinds in figures.items()]
    sys.stdout.write(
        table(["format", "MB", *(f"{kind.replace('_', ' ')} MB/s" for kind in KINDS), "memory beside it, MB"], rows)
        + "\n"
    )
    sys.stdout.write(f"start with {options.states} states on disk: {starting_s:.3f} s\n")
    print_json(
        {
            "formats": figures,
            "start_s": starting_s,
            "states": options.states,
            "tokens": options.tokens,
            "machine": machine(),
        }
    )
    return 0


def as_row(name: str, kinds: dict) -> list[str]:
    speeds = [f"{kinds[kind].median:,.0f}" for kind in KINDS]
    return [name, f"{kinds['megabytes']:.0f}", *speeds, f"{kinds['beside_mb']:.1f}"]


def state_arrays(dtype: type) -> dict[str, np.ndarray]:
    """Random numbers in the shapes of a state and its logits."""
    random = np.random.default_rng(1)
    ssm = random.integers(-100, 100, (N_LAYERS, N_HEADS, D_STATE, HEAD_DIM), dtype=np.int8)
    return {
        "ssm_np": ssm.astype(dtype, copy=False),
        "scale": np.ones((N_LAYERS, N_HEADS), np.float32),
        "conv": random.standard_normal((N_LAYERS, CONV_DIM, 3), dtype=np.float32),
        "logits": random.standard_normal(N_VOCABULARY, dtype=np.float32),
    }


def measure(folder: Path, chain: Chain, arrays: dict[str, np.ndarray], rounds: int) -> dict[str, object]:
    """MB/s of each of KINDS; a round does all of them, so that what slows the machine slows all."""
    tier, n = new_tier(folder), len(chain.slices)
    path = folder / "v1" / FINGERPRINT[:16] / shard_of(chain.tip) / name_of(chain.tip)
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        tier.remove([chain.tip])
        taken["written"].append(seconds(lambda: tier.write(chain, n, arrays, {"cost_tokens": chain.n_tokens})))
        taken["plain_written"].append(seconds(lambda: plain_write(folder / "plain", arrays)))
        for kind, cold in (("", False), ("_from_disk", True)):
            for what, file, act in (
                ("read", path, lambda: tier.read(chain, n)),
                ("plain_read", folder / "plain", lambda: plain_read(folder / "plain")),
            ):
                if cold:
                    forget(file)
                taken[what + kind].append(seconds(act))
    megabytes = path.stat().st_size / MEGABYTE
    tier.remove([chain.tip])
    tracemalloc.start()
    tier.write(chain, n, arrays, {"cost_tokens": chain.n_tokens})
    beside = tracemalloc.get_traced_memory()[1] / MEGABYTE
    tracemalloc.stop()
    tier.close()
    shutil.rmtree(folder)
    figures: dict[str, object] = {kind: in_mb_per_s(times, megabytes) for kind, times in taken.items()}
    return figures | {
        "megabytes": megabytes,
        "beside_mb": beside,
        "read_s": spread(taken["read"]),
        "read_from_disk_s": spread(taken["read_from_disk"]),
    }


def in_mb_per_s(times: list[float], megabytes: float) -> Spread:
    return spread([megabytes / one for one in times])


def new_tier(folder: Path) -> DiskTier:
    return DiskTier(
        folder,
        fingerprint=FINGERPRINT,
        root=ROOT.root,
        budget_bytes=10**12,
        max_free_share=1.0,
        daily_write_bytes=10**15,
    )


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    done = act()
    took = time.perf_counter() - start
    assert done, "it did not work"
    return took


def plain_write(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    with path.open("wb", buffering=0) as file:
        for array in arrays.values():
            view = array.reshape(-1).view(np.uint8).data
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return True


def plain_read(path: Path) -> bool:
    data = np.empty(path.stat().st_size, np.uint8).data
    with path.open("rb", buffering=0) as file:
        while data:
            data = data[file.readinto(data) :]
    return True


def forget(path: Path) -> None:
    """Makes the system drop what it remembers of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_of_start(folder: Path, n_states: int) -> float:
    tier = new_tier(folder)
    fsync, os.fsync = os.fsync, lambda _: None  # a thousand of them say nothing about the start
    try:
        for number in range(n_states):
            chain = ROOT.extend("base", [(as_tokens([number]), True)])
            tier.write(chain, 1, {"ssm": np.ones(100, np.float16)}, {"cost_tokens": 1})
    finally:
        os.fsync = fsync
    tier.close()
    start = time.perf_counter()
    assert len(new_tier(folder)) == n_states
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
