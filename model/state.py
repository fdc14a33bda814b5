"""The recurrent state of a batch of sequences: a plain value of fixed size, whatever the model has read.

Knows: tensors. Does not know: how a state is computed or where it is kept. A state is never written to after it was made.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.config import Mamba2Config


class Mamba2State(NamedTuple):
    """fp32 in every layer; L layers, B sequences."""

    conv: Tensor  # (L, B, conv_dim, d_conv - 1): the last columns before the convolution
    ssm: Tensor  # (L, B, H, P, N)

    @property
    def nbytes(self) -> int:
        return self.conv.nbytes + self.ssm.nbytes


def zero_state(config: Mamba2Config, *, batch: int = 1, device: torch.device | str = "cpu") -> Mamba2State:
    """The state of a model that has read nothing."""
    c = config
    return Mamba2State(
        conv=torch.zeros(c.n_layers, batch, c.conv_dim, c.d_conv - 1, device=device),
        ssm=torch.zeros(c.n_layers, batch, c.n_heads, c.head_dim, c.d_state, device=device),
    )
