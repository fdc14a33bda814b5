"""Packed projections in torch, for machines without the native kernels: the same integers, the same rounding of activations, the rest in fp32.

Slow on purpose of exactness: a weight is unpacked each time it is used, so that memory stays what the precision promises. Results agree with the
kernels' up to the order of fp32 sums, and up to a step of an activation that stands just between two (tests/model/test_native.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network import Mamba2LM
from model.packed import PackedMatrix, quantise_activations, unpack


class PackedLinear(nn.Module):
    """x (..., cols) fp32 -> (..., rows) fp32."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.kind, self.rows, self.cols = matrix.kind, matrix.rows, matrix.cols
        self.register_buffer("data", matrix.data)
        self.register_buffer("scales", matrix.scales)
        self.register_buffer("weight", torch.empty(0))  # its dtype is what comes in: fp32

    def forward(self, x: Tensor) -> Tensor:
        weight = unpack(PackedMatrix(self.kind, self.rows, self.cols, self.data, self.scales))  # type: ignore[arg-type]
        if self.kind in ("int8", "int4"):
            x = quantise_activations(x)
        return F.linear(x.to(weight.dtype), weight).float()


class RoundedLinear(nn.Module):
    """x (..., cols) fp32 -> (..., rows) fp32 through a weight in bf16 that is not packed: torch multiplies those fast where the machine can."""

    def __init__(self, stored: Tensor) -> None:
        super().__init__()
        self.register_buffer("stored", stored)
        self.register_buffer("weight", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.stored, Tensor)
        return F.linear(x.bfloat16(), self.stored).float()


def pack_network(network: Mamba2LM, matrices: dict[str, PackedMatrix], precision: str) -> Mamba2LM:
    """Puts packed projections in the place of the named weights of `network` ("….in_proj.weight"); returns it."""
    for name, matrix in matrices.items():
        parent, _, child = name.removesuffix(".weight").rpartition(".")
        setattr(network.get_submodule(parent), child, PackedLinear(matrix))
    network.precision = precision
    return network


def round_network(network: Mamba2LM) -> Mamba2LM:
    """A network whose matrices are in bf16: their products stay so, everything between them becomes fp32. Returns it."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, RoundedLinear(module.weight.data))
    network.precision = "bf16"
    return network.requires_grad_(False)
