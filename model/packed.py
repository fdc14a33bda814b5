"""Weights in the layout of the CPU kernels, at each precision: 16 output rows interleaved, int8 and int4 in groups of 64 inputs with one scale.

The layout is the same for every instruction set, so a packed file can be mapped into memory anywhere (model/cpp/csl.h draws it). Quantisation here
is the only one there is: native and torch run the same integers. Knows: torch. Does not know: files, ctypes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks import GROUP, ROWS, padded

PIECE = 1 << 18  # weights quantised at once: they and their temporaries stay in the second-level cache
INT4_SHRINKS = (1.0, 0.94, 0.88, 0.82)  # of the largest weight: what the scale is fitted to, the best of them is kept


class PackedMatrix(NamedTuple):
    """A projection's weight (rows, cols). `data` is uint8, `scales` fp16 (blocks, groups, 16), None for fp32 and bf16."""

    kind: str  # a precision
    rows: int
    cols: int
    data: Tensor
    scales: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)


def pack(weight: Tensor, kind: str) -> PackedMatrix:
    """weight (rows, cols) of any floating dtype."""
    rows, cols = weight.shape
    if kind in ("fp32", "bf16"):
        values = _pad(weight.to(torch.float32 if kind == "fp32" else torch.bfloat16))
        return PackedMatrix(kind, rows, cols, _interleave(values.view(torch.uint8)), None)
    height, width = padded(rows, ROWS), padded(cols, GROUP)
    data = torch.empty(height, width if kind == "int8" else width // 2, dtype=torch.uint8)
    scales = torch.empty(height, width // GROUP, dtype=torch.float16)
    step = max(ROWS, PIECE // width // ROWS * ROWS)
    for start in range(0, height, step):
        stop = min(start + step, height)
        piece = F.pad(weight[start : min(stop, rows)].float(), (0, width - cols, 0, stop - min(stop, rows)))
        quantised, scales[start:stop] = (quantise_int8 if kind == "int8" else quantise_int4)(
            piece.view(stop - start, -1, GROUP)
        )
        data[start:stop] = _bytes_of(quantised.view(stop - start, width), kind)
    scales = scales.view(height // ROWS, ROWS, -1).transpose(1, 2).contiguous()
    return PackedMatrix(kind, rows, cols, _interleave(data), scales)


def unpack(matrix: PackedMatrix) -> Tensor:
    """The weight that the packed one stands for, (rows, cols) in fp32, or bf16 where that is its kind."""
    height = padded(matrix.rows, ROWS)
    rows = matrix.data.view(torch.int32).view(height // ROWS, -1, ROWS).transpose(1, 2).contiguous().view(height, -1)
    if matrix.scales is None:
        values = rows.view(torch.float32 if matrix.kind == "fp32" else torch.bfloat16)
        return values[: matrix.rows, : matrix.cols]
    stored = rows.view(torch.uint8)
    if matrix.kind == "int4":
        halves = stored.view(height, -1, 1, 4)
        quantised = torch.cat([halves & 15, halves >> 4], dim=2).view(height, -1).float() - 8
    else:
        quantised = stored.float() - 128
    scales = matrix.scales.transpose(1, 2).reshape(height, -1).float()
    values = quantised.view(height, -1, GROUP) * scales[..., None]
    return values.view(height, -1)[: matrix.rows, : matrix.cols]


def quantise_int8(groups: Tensor) -> tuple[Tensor, Tensor]:
    """groups (..., 64) fp32 -> whole numbers -127..127 as fp32 and their scales (...) in fp16; value = number * scale."""
    scale = (groups.abs().amax(-1) / 127).half()
    return _round_to(groups, scale, low=-127, high=127), scale


def quantise_int4(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Like quantise_int8, -8..7. The weight that is largest in size takes the -8; of some smaller scales the one with the least square error is kept."""
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    best, best_scale, least = None, None, None
    for shrink in INT4_SHRINKS:
        scale = (largest * (shrink / -8)).half()
        quantised = _round_to(groups, scale, low=-8, high=7)
        error = (quantised * scale.float()[..., None] - groups).square_().sum(-1)
        if best is None or best_scale is None or least is None:
            best, best_scale, least = quantised, scale, error
            continue
        better = error < least
        best = torch.where(better[..., None], quantised, best)
        best_scale, least = torch.where(better, scale, best_scale), torch.minimum(error, least)
    assert best is not None and best_scale is not None
    return best, best_scale


def quantise_activations(x: Tensor) -> Tensor:
    """x (..., cols) as the kernels' int8 activations stand for it: groups of 64, the largest of each at 127."""
    groups = F.pad(x, (0, padded(x.shape[-1], GROUP) - x.shape[-1])).unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    return (torch.round(groups * inverse) * (largest / 127.0)).flatten(-2)[..., : x.shape[-1]]


def _round_to(groups: Tensor, scale: Tensor, *, low: int, high: int) -> Tensor:
    """Rounded against the scale as it is stored, so that its own rounding costs nothing."""
    inverse = 1.0 / scale.float()
    inverse = torch.where(torch.isfinite(inverse), inverse, 0.0)[..., None]
    return torch.round(groups * inverse).clamp_(low, high)


def _bytes_of(quantised: Tensor, kind: str) -> Tensor:
    """(rows, cols) whole numbers -> bytes in the order of the inputs; two int4 a byte, the inputs j and j + 4 of each 8."""
    if kind == "int8":
        return (quantised + 128).to(torch.uint8)
    eights = (quantised + 8).to(torch.uint8).view(quantised.shape[0], -1, 2, 4)
    return (eights[:, :, 0] | (eights[:, :, 1] << 4)).view(quantised.shape[0], -1)


def _pad(weight: Tensor) -> Tensor:
    rows, cols = weight.shape
    return F.pad(weight, (0, padded(cols, GROUP) - cols, 0, padded(rows, ROWS) - rows)).contiguous()


def _interleave(data: Tensor) -> Tensor:
    """Bytes (rows, n) -> [rows / 16][n / 4][16][4], flat."""
    fours = data.view(torch.int32).view(data.shape[0] // ROWS, ROWS, -1)
    return fours.transpose(1, 2).contiguous().view(torch.uint8).view(-1)
