"""How much memory and disk kept states may take, where nobody has said: from what the machine has and what a state of the model takes.

Knows: sizes. Does not know: what is kept.
"""

from model.config import Mamba2Config
from model.machine import usable_bytes

MEMORY_SHARE = 1 / 8  # of the machine's, that states may take
LARGE_MEMORY_SHARE = 1 / 4  # where a model's states are so large that few would fit
WANTED_STATES = 24  # BASE's end and checkpoints, and those of the file that is being edited
LEAST_MEMORY_BYTES = 64 << 20
MOST_MEMORY_BYTES = 16 << 30
SMALL_STATE_BYTES = 16 << 20  # which are worth keeping without rounding them
DISK_BYTES = 16 << 30
STATES = "states"  # the folder of the disk tier, in the folder of all that is derived


def state_bytes(config: Mamba2Config) -> int:
    """Of a state as it is kept in memory, its logits included (fp32)."""
    return config.state_bytes + 4 * config.vocab_size


def snapshot_format(config: Mamba2Config) -> str:
    """Of the states on disk. fp16 halves them and costs 2e-4 nats once (benchmarks/snapshots.py), which a small state need not pay."""
    return "fp32" if state_bytes(config) <= SMALL_STATE_BYTES else "fp16"


def memory_budget(config: Mamba2Config, *, machine_bytes: int | None = None) -> int:
    """Bytes for states in memory: an eighth of it, and up to a quarter for a model whose states are large."""
    total = usable_bytes() if machine_bytes is None else machine_bytes
    wanted = min(WANTED_STATES * state_bytes(config), int(LARGE_MEMORY_SHARE * total))
    return max(LEAST_MEMORY_BYTES, min(MOST_MEMORY_BYTES, max(int(MEMORY_SHARE * total), wanted)))
