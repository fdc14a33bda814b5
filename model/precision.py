"""At which precision a model runs: what each costs in memory, and which one this machine's memory suggests.

Knows: sizes. Does not know: tensors, files of weights.
"""

from model.blocks import GROUP, ROWS, padded
from model.config import ConfigError, Mamba2Config

PRECISIONS = ("fp32", "bf16", "int8", "int4")
BITS = {"fp32": 32.0, "bf16": 16.0, "int8": 8 + 16 / GROUP, "int4": 4 + 16 / GROUP}
MEMORY_SHARE = 0.5  # of the machine's memory, for weights: the rest is for kept states, the editor and everything else


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


def choose_precision(config: Mamba2Config, memory_bytes: int, *, kernels: bool = True) -> str:
    """What a model runs at where nobody says otherwise: the first whose weights take at most half of `memory_bytes`, or the smallest.

    int8 before int4 on the native kernels: twice as fast as bf16 and, measured (docs/speed.md), the same text. Without them torch unpacks quantised
    weights at every use, so there it is fp32, then bf16, and those only where nothing else fits.
    """
    order = ("int8", "int4") if kernels else ("fp32", "bf16", "int8", "int4")
    for precision in order:
        if weight_bytes(config, precision) <= MEMORY_SHARE * memory_bytes:
            return precision
    return "int4"
