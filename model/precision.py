"""At which precision a model runs: what each costs in memory, and which one this machine's memory suggests.

Knows: sizes. Does not know: tensors, files of weights.
"""

import os
from pathlib import Path

from model.config import ConfigError, Mamba2Config
from model.packed import GROUP, ROWS, padded

PRECISIONS = ("fp32", "bf16", "int8", "int4")
BITS = {"fp32": 32.0, "bf16": 16.0, "int8": 8 + 16 / GROUP, "int4": 4 + 16 / GROUP}
MEMORY_SHARE = 0.5  # of the machine's memory that weights may take: the rest is for kept states, the editor and everything else


def check_precision(precision: str) -> str:
    """Raises ConfigError."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    return precision


def head_kind(precision: str) -> str:
    """The output head is 2 to 4 % of the bytes and every logit's last step: int4 models keep it in int8, as llama.cpp keeps it in 6 bits."""
    return "int8" if precision == "int4" else precision


def weight_bytes(config: Mamba2Config, precision: str) -> int:
    """Bytes of all weights in memory, the embedding table (two bytes a value, four in fp32) included."""
    c = config

    def matrix(rows: int, cols: int, kind: str) -> float:
        return padded(rows, ROWS) * padded(cols, GROUP) * BITS[kind] / 8

    layer = matrix(c.in_proj_dim, c.d_model, precision) + matrix(c.d_model, c.d_inner, precision)
    small = 4 * (c.conv_dim * (c.d_conv + 1) + 3 * c.n_heads + c.d_inner + c.d_model)
    head = matrix(c.vocab_size, c.d_model, head_kind(precision))
    table = c.vocab_size * c.d_model * (4 if precision == "fp32" else 2)
    return int(c.n_layers * (layer + small) + head + table + 4 * c.d_model)


def choose_precision(config: Mamba2Config, memory_bytes: int) -> str:
    """The most exact of bf16, int8 and int4 whose weights take at most half of `memory_bytes`; int4 where none does."""
    for precision in ("bf16", "int8"):
        if weight_bytes(config, precision) <= MEMORY_SHARE * memory_bytes:
            return precision
    return "int4"


def memory_bytes() -> int:
    """This machine's memory, or what the control group of this process may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total
