"""State space duality: the pure functions of a Mamba2 layer.

Source: Dao and Gu, "Transformers are SSMs", 2024, arXiv 2405.21060, section 6 and listing 1; numerics as in state-spaces/mamba.
Letters: B batch, T tokens, H heads, P head_dim, G groups, N d_state, Q tokens of one block, C blocks.
Knows: tensors in, tensors out. Does not know: weights, layers, files. No argument is written to.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv(x: Tensor, previous: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution and SiLU that continues from earlier tokens.

    x (B, T, D); previous (B, D, K-1) fp32, the last columns before x; weight (D, 1, K); bias (D).
    Returns y (B, T, D) and the next `previous`.
    """
    n_tokens, width = x.shape[1], weight.shape[-1]
    padded = torch.cat([previous.transpose(1, 2).to(x.dtype), x], dim=1)  # (B, K-1+T, D)
    taps = weight[:, 0].to(x.dtype)
    y = bias.to(x.dtype) + sum(padded[:, k : k + n_tokens] * taps[:, k] for k in range(width))
    return F.silu(y), padded[:, n_tokens:].float().transpose(1, 2).contiguous()


def step_size(dt: Tensor, dt_bias: Tensor, limit: tuple[float, float]) -> Tensor:
    """dt (..., H) -> softplus(dt + dt_bias) in fp32, clamped to `limit`."""
    dt = F.softplus(dt.float() + dt_bias.float())
    return dt if limit == (0.0, float("inf")) else dt.clamp(*limit)


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, *, block: int) -> tuple[Tensor, Tensor]:
    """The recurrence S = exp(dt A) S + dt x B^T, y = S C, over T tokens in blocks of `block`, from any state.

    x (B, T, H, P); dt (B, T, H) fp32; A (H) fp32, negative; B and C (B, T, G, N); state (B, H, P, N) fp32.
    Returns y (B, T, H, P) and the state after the last token. Costs T * block, never T squared.
    """
    batch, n_tokens, n_heads, head_dim = x.shape
    groups, d_state = B.shape[2:]
    per_group = n_heads // groups
    Q = min(block, n_tokens)
    pad = -n_tokens % Q
    if pad:  # a step of size 0 leaves the state as it is
        x, B, C = (F.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = F.pad(dt, (0, 0, 0, pad))
    n_blocks = (n_tokens + pad) // Q
    xdt = (x * dt[..., None]).to(x.dtype).view(batch, n_blocks, Q, groups, per_group, head_dim)
    B = B.view(batch, n_blocks, Q, groups, d_state).transpose(2, 3)  # (B, C, G, Q, N)
    C = C.view(batch, n_blocks, Q, groups, d_state).transpose(2, 3)
    decay = (dt * A).view(batch, n_blocks, Q, groups, per_group).permute(0, 1, 3, 4, 2).cumsum(-1)  # (B, C, G, R, Q)

    # 1. Inside a block: token i reads token j <= i, decayed by what lies between.
    between = decay[..., :, None] - decay[..., None, :]
    future = torch.ones(Q, Q, dtype=torch.bool, device=x.device).triu(1)
    mix = (C @ B.transpose(-1, -2))[:, :, :, None] * torch.exp(between.masked_fill(future, -torch.inf)).to(x.dtype)
    xdt = xdt.permute(0, 1, 3, 4, 2, 5)  # (B, C, G, R, Q, P)
    y = mix @ xdt

    # 2. What each block adds to the state by its end.
    to_end = torch.exp(decay[..., -1:] - decay).to(x.dtype)  # (B, C, G, R, Q)
    weighted = (xdt * to_end[..., None]).transpose(-1, -2)  # (B, C, G, R, P, Q)
    rows = weighted.reshape(batch, n_blocks, groups, per_group * head_dim, Q)
    added = (rows @ B).float().view(batch, n_blocks, n_heads, head_dim, d_state)

    # 3. The state at the start of each block, one after the other.
    whole = torch.exp(decay[..., -1]).reshape(batch, n_blocks, n_heads, 1, 1)
    starts = []
    for i in range(n_blocks):
        starts.append(state)
        state = state * whole[:, i] + added[:, i]
    start = torch.stack(starts, dim=1).to(x.dtype).view(batch, n_blocks, groups, per_group * head_dim, d_state)

    # 4. What each token reads from the state before its block.
    carried = (C @ start.transpose(-1, -2)).view(batch, n_blocks, groups, Q, per_group, head_dim).transpose(3, 4)
    y = y + carried * torch.exp(decay)[..., None].to(x.dtype)
    y = y.permute(0, 1, 4, 2, 3, 5).reshape(batch, n_tokens + pad, n_heads, head_dim)
    return y[:, :n_tokens], state


def scan_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of `scan`: x (B, H, P), dt (B, H), B and C (B, G, N), state (B, H, P, N)."""
    batch, n_heads, head_dim = x.shape
    groups = B.shape[1]
    S = state.view(batch, groups, -1, state.shape[-1])  # (B, G, R*P, N): rows of one group share B and C
    xdt = (x.float() * dt[..., None]).view(batch, groups, -1, 1)
    kept = torch.exp(dt * A)[..., None, None].expand(-1, -1, head_dim, 1).reshape(batch, groups, -1, 1)
    S = S * kept + xdt * B.float()[:, :, None]
    y = (S @ C.float()[..., None]).view(batch, n_heads, head_dim)
    return y.to(x.dtype), S.view_as(state)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., D) in its own dtype; the mean square is taken in fp32."""
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, *, groups: int, eps: float) -> Tensor:
    """Gate first, then RMSNorm over each of `groups` parts of the channels on its own: y, z (..., D), weight (D)."""
    gated = y.float() * F.silu(z.float())
    parts = gated.unflatten(-1, (groups, -1))
    parts = parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + eps)
    return (parts.flatten(-2) * weight.float()).to(y.dtype)
