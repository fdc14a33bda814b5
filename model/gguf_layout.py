"""How llama.cpp lays a Mamba2 out in a GGUF file: names of tensors, their shapes, the keys of its config.

Source: conversion/mamba.py and src/models/mamba2.cpp of llama.cpp. What differs from Hugging Face's: A is stored instead of A_log, A and D have a
second dimension of 1, the gated norm's weight has a row for each group, the convolution lacks its middle dimension. Does not know: bytes.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES, Keys

from model.config import CheckpointError, ConfigError, Mamba2Config, real_number, shown, sound, whole_number
from model.layout import EMBEDDINGS, FINAL_NORM, HEAD, Found

ARCHITECTURE = MODEL_ARCH_NAMES[MODEL_ARCH.MAMBA2]
CONTEXT_LENGTH = 1 << 20  # a Mamba2 has none; llama.cpp's converter writes this number too
OUTSIDE = {EMBEDDINGS: "token_embd.weight", FINAL_NORM: "output_norm.weight", HEAD: "output.weight"}
INSIDE = {  # after backbone.layers.N. and blk.N.
    "norm.weight": "attn_norm.weight",
    "mixer.in_proj.weight": "ssm_in.weight",
    "mixer.conv1d.weight": "ssm_conv1d.weight",
    "mixer.conv1d.bias": "ssm_conv1d.bias",
    "mixer.dt_bias": "ssm_dt.bias",
    "mixer.A_log": "ssm_a",
    "mixer.D": "ssm_d",
    "mixer.norm.weight": "ssm_norm.weight",
    "mixer.out_proj.weight": "ssm_out.weight",
}


class Key:
    """Keys of the config's numbers."""

    CONTEXT_LENGTH = Keys.LLM.CONTEXT_LENGTH.format(arch=ARCHITECTURE)
    D_MODEL = Keys.LLM.EMBEDDING_LENGTH.format(arch=ARCHITECTURE)
    N_LAYERS = Keys.LLM.BLOCK_COUNT.format(arch=ARCHITECTURE)
    D_CONV = Keys.SSM.CONV_KERNEL.format(arch=ARCHITECTURE)
    D_INNER = Keys.SSM.INNER_SIZE.format(arch=ARCHITECTURE)
    D_STATE = Keys.SSM.STATE_SIZE.format(arch=ARCHITECTURE)
    N_HEADS = Keys.SSM.TIME_STEP_RANK.format(arch=ARCHITECTURE)
    N_GROUPS = Keys.SSM.GROUP_COUNT.format(arch=ARCHITECTURE)
    NORM_EPS = Keys.Attention.LAYERNORM_RMS_EPS.format(arch=ARCHITECTURE)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor that Hugging Face calls `name`."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    layer, _, rest = name.removeprefix("backbone.layers.").partition(".")
    return f"blk.{layer}.{INSIDE[rest]}"


def gguf_shape(name: str, shape: tuple[int, ...], config: Mamba2Config) -> tuple[int, ...]:
    """The shape, rows first, in which llama.cpp stores the tensor that Hugging Face calls `name` and gives `shape`."""
    if name.endswith((".A_log", ".D")):
        return (*shape, 1)
    if name.endswith(".mixer.norm.weight"):
        return (config.n_groups, config.d_inner // config.n_groups)
    if name.endswith(".conv1d.weight"):
        return (shape[0], shape[2])
    return shape


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Outer dimensions of 1 are left out by some of ggml's programs and kept by others."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def config_from_gguf(fields: Mapping[str, object], found: Mapping[str, Found], path: Path) -> Mamba2Config:
    """The vocabulary's size is that of the embeddings, and without an output matrix they are the output's too. Raises ConfigError."""
    architecture = fields.get(Keys.General.ARCHITECTURE)
    if architecture != ARCHITECTURE:
        raise ConfigError(f"{path}: {Keys.General.ARCHITECTURE} is {shown(architecture)}, expected {ARCHITECTURE!r}")
    parts = fields.get(Keys.Split.LLM_KV_SPLIT_COUNT, 1)
    if parts not in (0, 1):
        raise ConfigError(
            f"{path}: is one of {shown(parts)} parts, expected one file (llama-gguf-split --merge makes it)"
        )
    embeddings = found.get(OUTSIDE[EMBEDDINGS])
    if embeddings is None or len(embeddings.shape) != 2:
        is_there = "is missing" if embeddings is None else f"has shape {embeddings.shape}"
        raise CheckpointError(f"{path}: tensor {OUTSIDE[EMBEDDINGS]} {is_there}, expected (vocabulary, width)")
    source = str(path)
    d_inner, n_heads = whole_number(fields, Key.D_INNER, source), whole_number(fields, Key.N_HEADS, source)
    if d_inner % n_heads:
        raise ConfigError(f"{path}: {Key.D_INNER} {d_inner} is no multiple of the {n_heads} heads ({Key.N_HEADS})")
    config = Mamba2Config(
        d_model=whole_number(fields, Key.D_MODEL, source),
        n_layers=whole_number(fields, Key.N_LAYERS, source),
        vocab_size=embeddings.shape[0],
        d_state=whole_number(fields, Key.D_STATE, source),
        d_conv=whole_number(fields, Key.D_CONV, source),
        head_dim=d_inner // n_heads,
        n_heads=n_heads,
        n_groups=whole_number(fields, Key.N_GROUPS, source),
        norm_eps=shortest(real_number(fields.get(Key.NORM_EPS), Key.NORM_EPS, source)),
        tie_embeddings=OUTSIDE[HEAD] not in found,
    )
    return sound(config, source)


def shortest(value: float) -> float:
    """The number that was written before it was rounded to 32 bits: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
