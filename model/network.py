"""The Mamba2 language model: (token ids, state) -> (logits, state).

Parameter names are those of Hugging Face's `Mamba2ForCausalLM`, so a state dict is a checkpoint. Prefill from nothing, from a state and
a single step are the same mathematics. Knows: torch. Does not know: text, files, caches.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from model import ssd
from model.config import Mamba2Config
from model.state import Mamba2State, zero_state


class Network(Protocol):
    """What runs a Mamba2: this file's torch, or the native kernels (model/native.py)."""

    config: Mamba2Config

    any_cut: bool  # whether a token's bits are the same however tokens are cut into calls

    @property
    def numerics(self) -> str:
        """Whatever may change a bit of a result, the weights apart: the backend, the precision, the instruction set."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoding step reads."""
        ...

    def __call__(
        self,
        ids: Tensor,
        state: Mamba2State | None = None,
        *,
        last_only: bool = False,
        into: Mamba2State | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """ids (B, T), T >= 1 -> logits (B, T, vocab), or (B, 1, vocab) with `last_only`, in fp32, and the next state.

        `into` is storage that the next state may be written to: of the same shape, and `state` itself where the caller gives that up.
        """
        ...


class Mamba2LM(nn.Module):
    """Token ids (B, T) and a state to logits and the state after the last token."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        self.any_cut = False
        self.precision: str | None = None  # set where the projections are packed (model/packed_linear.py)
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    @property
    def numerics(self) -> str:
        """torch's kernels, and so bits, depend on its version and on the number of threads."""
        weight = self.lm_head.weight
        precision = self.precision or str(weight.dtype)
        where = f"threads {torch.get_num_threads()}" if weight.device.type == "cpu" else weight.device.type
        return f"torch {torch.__version__} {precision} ftz {where} block {self.config.scan_chunk}"

    @property
    def weight_bytes(self) -> int:
        """All but the embedding table, of which a step reads one row."""
        table = 0 if self.config.tie_embeddings else self.backbone.embeddings.weight.nbytes
        return sum(tensor.nbytes for tensors in (self.parameters(), self.buffers()) for tensor in tensors) - table

    def forward(
        self,
        ids: Tensor,
        state: Mamba2State | None = None,
        *,
        last_only: bool = False,
        into: Mamba2State | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """See Network; `into` is left alone, torch makes a new state."""
        before = state if state is not None else zero_state(self.config, batch=ids.shape[0], device=ids.device)
        hidden, after = self.backbone(ids, before)
        if last_only:
            hidden = hidden[:, -1:]
        return self.lm_head(hidden.to(self.lm_head.weight.dtype)).float(), after


class Backbone(nn.Module):
    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm_f = Norm(config.d_model)
        self.eps = config.norm_eps

    def forward(self, ids: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        residual = self.embeddings(ids).float()
        convs, ssms = [], []
        for layer, conv, ssm in zip(self.layers, state.conv, state.ssm, strict=True):
            residual, conv, ssm = layer(residual, conv, ssm)
            convs.append(conv)
            ssms.append(ssm)
        hidden = ssd.rms_norm(residual, self.norm_f.weight, self.eps)
        return hidden, Mamba2State(torch.stack(convs), torch.stack(ssms))


class Block(nn.Module):
    """residual + mixer(norm(residual)); the residual stays fp32."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.norm = Norm(config.d_model)
        self.mixer = Mixer(config)
        self.eps = config.norm_eps

    def forward(self, residual: Tensor, conv: Tensor, ssm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = ssd.rms_norm(residual, self.norm.weight, self.eps).to(self.mixer.in_proj.weight.dtype)
        out, conv, ssm = self.mixer(hidden, conv, ssm)
        return residual + out.float(), conv, ssm


class Mixer(nn.Module):
    """One Mamba2 mixer. hidden (B, T, D), conv (B, conv_dim, K-1), ssm (B, H, P, N)."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        self.in_proj = nn.Linear(config.d_model, config.in_proj_dim, bias=False)
        self.conv1d = nn.Conv1d(
            config.conv_dim, config.conv_dim, config.d_conv, groups=config.conv_dim
        )  # holds weights only
        self.dt_bias = nn.Parameter(torch.zeros(config.n_heads))
        self.A_log = nn.Parameter(torch.zeros(config.n_heads))
        self.D = nn.Parameter(torch.ones(config.n_heads))
        self.norm = Norm(config.d_inner)
        self.out_proj = nn.Linear(config.d_inner, config.d_model, bias=False)

    def forward(self, hidden: Tensor, conv: Tensor, ssm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        batch, n_tokens, _ = hidden.shape
        # 1. One projection gives z (gate), x, B, C and dt.
        z, xBC, dt = self.in_proj(hidden).split([c.d_inner, c.conv_dim, c.n_heads], dim=-1)
        # 2. Short convolution over x, B and C.
        assert self.conv1d.bias is not None
        xBC, conv = ssd.causal_conv(xBC, conv, self.conv1d.weight, self.conv1d.bias)
        x, B, C = xBC.split([c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state], dim=-1)
        x = x.unflatten(-1, (c.n_heads, c.head_dim))
        B, C = B.unflatten(-1, (c.n_groups, -1)), C.unflatten(-1, (c.n_groups, -1))
        dt, A = ssd.step_size(dt, self.dt_bias, c.dt_limit), -torch.exp(self.A_log.float())
        # 3. The recurrence; heads of one group share B and C.
        if n_tokens == 1:
            y, ssm = ssd.scan_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], ssm)
            y = y[:, None]
        else:
            y, ssm = ssd.scan(x, dt, A, B, C, ssm, block=c.scan_chunk)
        y = y + x * self.D.to(x.dtype)[:, None]
        # 4. Gate, grouped norm, output.
        y = ssd.gated_rms_norm(y.reshape(batch, n_tokens, -1), z, self.norm.weight, groups=c.n_groups, eps=c.norm_eps)
        return self.out_proj(y), conv, ssm


class Norm(nn.Module):
    """The weight of an RMSNorm; `ssd` has the mathematics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
