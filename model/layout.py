"""The tensors of a Mamba2: their names, shapes and order, and whether a file's tensors are those of a config.

Names are Hugging Face's. Knows: configs, names, shapes. Does not know: bytes, torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from model.config import CheckpointError, Mamba2Config, shown

EMBEDDINGS = "backbone.embeddings.weight"
FINAL_NORM = "backbone.norm_f.weight"
HEAD = "lm_head.weight"
PER_LAYER = 9  # tensors of one layer


class Found(NamedTuple):
    """One tensor of a file, before its values are read."""

    path: Path
    dtype: str  # in the letters of the file's format
    shape: tuple[int, ...]
    start: int  # byte in the file
    nbytes: int


def tensor_shapes(config: Mamba2Config) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, in reading order; `lm_head.weight` only where it is not the embeddings."""
    return dict(each_shape(config))


def each_shape(config: Mamba2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """`tensor_shapes` one by one, for a config that nobody has compared with its weights yet: it may ask for 10**9 layers."""
    c = config
    yield EMBEDDINGS, (c.vocab_size, c.d_model)
    for layer in range(c.n_layers):
        start = f"backbone.layers.{layer}"
        yield f"{start}.norm.weight", (c.d_model,)
        yield f"{start}.mixer.in_proj.weight", (c.in_proj_dim, c.d_model)
        yield f"{start}.mixer.conv1d.weight", (c.conv_dim, 1, c.d_conv)
        yield f"{start}.mixer.conv1d.bias", (c.conv_dim,)
        yield f"{start}.mixer.dt_bias", (c.n_heads,)
        yield f"{start}.mixer.A_log", (c.n_heads,)
        yield f"{start}.mixer.D", (c.n_heads,)
        yield f"{start}.mixer.norm.weight", (c.d_inner,)
        yield f"{start}.mixer.out_proj.weight", (c.d_model, c.d_inner)
    yield FINAL_NORM, (c.d_model,)
    if not c.tie_embeddings:
        yield HEAD, (c.vocab_size, c.d_model)


def tensor_count(config: Mamba2Config) -> int:
    return PER_LAYER * config.n_layers + (2 if config.tie_embeddings else 3)


def check_layout(
    expected: Iterable[tuple[str, tuple[int, ...]]], found: Mapping[str, Found], *, n_tensors: int, where: Path
) -> None:
    """`expected` (name, shape) in the file's own names, `n_tensors` of them; `where` is the model's folder or file.

    Raises CheckpointError for the first tensor that is missing, has another shape or belongs to another model.
    """
    rest = dict(found)
    for name, shape in expected:
        tensor = rest.pop(name, None)
        if tensor is None:
            others = f", the first of the others is {shown(next(iter(rest)))}" if rest else ""
            raise CheckpointError(
                f"{where}: tensor {name} is missing, expected {n_tensors} tensors, found {len(found)}{others}"
            )
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.path}: tensor {name} has shape {shown(tensor.shape)}, expected {shown(shape)}"
            )
    for name, tensor in rest.items():
        raise CheckpointError(f"{tensor.path}: tensor {shown(name)} is not part of a Mamba2 of this config")
