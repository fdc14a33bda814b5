"""A state and its logits as named numpy arrays, rounded once for keeping, and back.

A live state is fp32 and stays so; only what is stored is rounded. Knows: states, tensors, numpy. Does not know: files, checksums, keys, tokens.

    conv            fp32  (L, conv_dim, K-1)
    logits          fp32  (V,)                 a rounded logit could change which token is the likeliest
    ssm_np, ssm_pn  fp32, fp16 or int8         (L, H, N, P) as the native kernels keep it, or (L, H, P, N) as torch does: a state comes back in the
                                               memory order in which it was, so neither copies it again and sums run in the same order
    scale           fp32  (L, H)               of fp16: powers of two, so that scaling itself rounds nothing
    scale_rows      fp32  (L, H, N or P)       of int8: a number is int8 x its row's scale x its column's scale
    scale_columns   fp32  (L, H, P or N)

One sequence, so no batch dimension. Rounding what was rounded gives the same fp16 numbers again.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.config import Mamba2Config
from model.state import Mamba2State

SNAPSHOT_FORMATS = ("fp16", "fp32", "int8")
ORDERS = ("np", "pn")  # of the last two axes in memory
TOP_SCALE, TOP_FP16 = 2.0**112, 32752.0  # above this scale, this is the largest number in fp16 that fp32 holds scaled
DTYPES = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32), "int8": np.dtype(np.int8)}
FP32 = np.dtype(np.float32)
LARGEST_FP16 = 65504.0
# Of int8's scales, after the largest number of the head was brought to 2^15 or above: what is smaller is nothing beside it.
SMALLEST_ROW, SMALLEST_COLUMN = 2.0**-30, 2.0**-60


class SnapshotError(Exception):
    """Arrays are not a snapshot of this model's state, or a state is not worth keeping. One line that names the array and what was expected."""


class Part(NamedTuple):
    """What an array of a snapshot has to be."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def to_arrays(state: Mamba2State, logits: Tensor, format: str) -> dict[str, np.ndarray]:
    """The snapshot of one sequence's state (conv (L, 1, C, K-1), ssm (L, 1, H, P, N)) and its logits (V,), in arrays of its own.

    `format` is one of SNAPSHOT_FORMATS. fp16 errs by 2^-11 of each number, where that is above 2^-29 of its head's largest; int8 by about 2^-8 of the
    largest in its row and column. Beside the result one layer is in memory. Raises SnapshotError for a state that is not finite.
    """
    if format not in SNAPSHOT_FORMATS:
        raise SnapshotError(f"snapshot: the format is {format!r}, expected one of {', '.join(SNAPSHOT_FORMATS)}")
    if state.ssm.shape[1] != 1:
        raise SnapshotError(f"snapshot: a state of {state.ssm.shape[1]} sequences, expected one")
    is_np = not state.ssm.is_contiguous() and state.ssm.transpose(-1, -2).is_contiguous()
    layers = (state.ssm.transpose(-1, -2) if is_np else state.ssm)[:, 0]
    name = f"ssm_{ORDERS[0] if is_np else ORDERS[1]}"
    parts = _parts(name, format, conv=tuple(state.conv[:, 0].shape), ssm=tuple(layers.shape), n_logits=len(logits))
    arrays = {key: np.empty(part.shape, part.dtype) for key, part in parts.items()}
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
    tensors["conv"].copy_(state.conv[:, 0])
    tensors["logits"].copy_(logits)
    for key in ("conv", "logits"):
        if not torch.isfinite(tensors[key]).all():
            raise SnapshotError(f"snapshot: {key} is not finite, expected numbers")
    work = torch.empty(layers.shape[1:], device=layers.device)
    for i, layer in enumerate(layers):
        largest = _largest(layer)
        if not torch.isfinite(largest).all():
            raise SnapshotError(f"snapshot: the state of layer {i} is not finite, expected numbers")
        if format == "fp32":
            tensors[name][i].copy_(layer)
        elif format == "fp16":
            scale = _powers_of_two(largest)
            tensors["scale"][i].copy_(scale)
            torch.mul(layer, scale.reciprocal()[:, None, None], out=work)
            if (
                float(scale.max()) > TOP_SCALE
            ):  # fp16 would round up what is next to fp32's largest number, to more than fp32 holds
                top = torch.where(scale > TOP_SCALE, TOP_FP16, LARGEST_FP16)[:, None, None]
                torch.clamp(work, -top, top, out=work)
            tensors[name][i].copy_(work)
        else:
            rows, columns = _to_int8(layer, _powers_of_two(largest), work)
            tensors[name][i].copy_(work)
            tensors["scale_rows"][i].copy_(rows)
            tensors["scale_columns"][i].copy_(columns)
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray], config: Mamba2Config) -> tuple[Mamba2State, Tensor]:
    """The state (fp32, one sequence, on the CPU, in the memory order in which it was kept) and the logits (V,), sharing no memory with `arrays`.

    Raises SnapshotError for an array that is missing or too many, of another shape or type, not finite, or a scale that no scale could be.
    """
    name, format = _kind_of(arrays)
    c = config
    rows_and_columns = (c.d_state, c.head_dim) if name == f"ssm_{ORDERS[0]}" else (c.head_dim, c.d_state)
    conv_shape = (c.n_layers, c.conv_dim, c.d_conv - 1)
    ssm_shape = (c.n_layers, c.n_heads, *rows_and_columns)
    _check(arrays, _parts(name, format, conv=conv_shape, ssm=ssm_shape, n_logits=c.vocab_size))
    small = {key: _own(array) for key, array in arrays.items() if key != name}
    ssm = torch.empty(ssm_shape)
    for i, layer in enumerate(ssm):
        layer.copy_(_own(arrays[name][i]))
        if format == "fp16":
            layer.mul_(small["scale"][i, :, None, None])
        elif format == "int8":
            layer.mul_(small["scale_rows"][i, :, :, None]).mul_(small["scale_columns"][i, :, None, :])
        if not torch.isfinite(_largest(layer)).all():
            raise SnapshotError(f"snapshot: {name} is not finite in layer {i}, expected numbers")
    ssm = ssm[:, None]
    return Mamba2State(small["conv"][:, None], ssm.transpose(-1, -2) if name == f"ssm_{ORDERS[0]}" else ssm), small[
        "logits"
    ]


def snapshot_bytes(config: Mamba2Config, format: str) -> int:
    """Bytes of the arrays of one snapshot, without a file's header and its tokens."""
    c = config
    conv, ssm = (c.n_layers, c.conv_dim, c.d_conv - 1), (c.n_layers, c.n_heads, c.head_dim, c.d_state)
    return sum(part.nbytes for part in _parts("ssm_pn", format, conv=conv, ssm=ssm, n_logits=c.vocab_size).values())


def _parts(name: str, format: str, *, conv: tuple[int, ...], ssm: tuple[int, ...], n_logits: int) -> dict[str, Part]:
    """What belongs to a snapshot whose state is called `name`; `ssm` is (L, H, rows, columns)."""
    parts = {"conv": Part(FP32, conv), "logits": Part(FP32, (n_logits,)), name: Part(DTYPES[format], ssm)}
    if format == "fp16":
        parts["scale"] = Part(FP32, ssm[:2])
    elif format == "int8":
        parts["scale_rows"] = Part(FP32, ssm[:3])
        parts["scale_columns"] = Part(FP32, (*ssm[:2], ssm[3]))
    return parts


def _kind_of(arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """The name of the state's array and its format."""
    names = [name for name in (f"ssm_{order}" for order in ORDERS) if name in arrays]
    if len(names) != 1:
        raise SnapshotError(f"snapshot: has {' and '.join(names) or 'no state'}, expected one of ssm_np and ssm_pn")
    dtype = arrays[names[0]].dtype
    for format, expected in DTYPES.items():
        if dtype == expected:
            return names[0], format
    raise SnapshotError(f"snapshot: {names[0]} is {dtype}, expected one of {', '.join(map(str, DTYPES.values()))}")


def _check(arrays: Mapping[str, np.ndarray], parts: Mapping[str, Part]) -> None:
    """The state itself is looked through layer by layer, while it is restored."""
    if arrays.keys() != parts.keys():
        raise SnapshotError(f"snapshot: has {', '.join(sorted(arrays))}, expected {', '.join(sorted(parts))}")
    for name, part in parts.items():
        array = arrays[name]
        if array.dtype != part.dtype or array.shape != part.shape:
            found, expected = f"{array.dtype} {array.shape}", f"{part.dtype} {part.shape}"
            raise SnapshotError(f"snapshot: {name} is {found}, expected {expected}")
        if not name.startswith("ssm_") and not np.isfinite(array).all():
            raise SnapshotError(f"snapshot: {name} is not finite, expected numbers")
        if name.startswith("scale") and (array < 0).any():
            raise SnapshotError(f"snapshot: {name} has {array.min()}, expected scales of at least 0")
        if name == "scale" and (np.frexp(array)[0] != 0.5).any():
            odd = array[np.frexp(array)[0] != 0.5][0]
            raise SnapshotError(f"snapshot: {name} has {odd}, expected powers of two")


def _own(array: np.ndarray) -> Tensor:
    """A tensor of its own memory: the array may lie in a file's bytes, unaligned and not to be written to."""
    return torch.from_numpy(np.array(array, order="C"))


def _largest(layer: Tensor) -> Tensor:
    """(H, rows, columns) -> (H,): of each head's magnitudes; NaN where one is."""
    low, high = torch.aminmax(layer.flatten(1), dim=1)
    return torch.maximum(-low, high)


def _powers_of_two(largest: Tensor) -> Tensor:
    """The scales that bring the largest magnitudes as far up in fp16 as they go, into [2^15 - 16, 65504]: what is small stays out of the subnormals."""
    mantissa, exponent = torch.frexp(largest)  # largest = mantissa x 2^exponent, mantissa in [0.5, 1)
    exponent = exponent - 16 + (mantissa * 65536.0 > LARGEST_FP16).to(exponent.dtype)
    exponent = exponent.clamp(-126, 126).masked_fill(largest == 0, 0)
    return torch.ldexp(torch.ones_like(largest), exponent)


def _to_int8(layer: Tensor, scale: Tensor, work: Tensor) -> tuple[Tensor, Tensor]:
    """Fills `work` with whole numbers from -127 to 127; returns the scales (H, rows) and (H, columns) that they are to be multiplied with.

    A row's scale is the square root of its largest magnitude: a large number then coarsens its row and its column half as much each
    (research: "decoupled scales" of Q-Mamba, Findings of ACL 2025).
    """
    torch.mul(layer, scale.reciprocal()[:, None, None], out=work)
    rows = work.abs().amax(-1).sqrt().clamp_min(SMALLEST_ROW)
    work.mul_(rows.reciprocal()[:, :, None])
    columns = (work.abs().amax(-2) / 127).clamp_min(SMALLEST_COLUMN)
    work.mul_(columns.reciprocal()[:, None, :]).round_().clamp_(-127, 127)
    return rows, columns * scale[:, None]
