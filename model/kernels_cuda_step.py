"""Triton kernels for few tokens, and the norms: what a decoding step and a keystroke's chunk of up to 32 tokens run.

Such a call is bound by memory, so a program holds its tile of the state in registers: read once, written once, however many tokens there are. One token
is one kernel (`step_kernel`: convolution, step size, recurrence, skip); more are two (`conv` first, then `recurrence_kernel`, token by token, the same
arithmetic as the step). The gate and its grouped norm need a whole group's channels, 16 heads of Codestral's, so they are a kernel of their own, which
also slides the window of a step: by then no program looks at the old one any more. The residual sum goes with the next layer's norm.

Letters, `proj`, `where` and `lengths` as in model/kernels_cuda.py. Knows: pointers and shapes. Does not know: layers, weights' names, graphs.
"""

# Triton's types know neither the options of a launch nor the loops of a kernel.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import triton  # pyright: ignore[reportMissingImports], an optional dependency
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from model.config import Mamba2Config
from model.kernels_cuda import (
    CONV_IN,
    CONV_OUT,
    SSM_IN,
    SSM_OUT,
    Recurrence,
    Taps,
    raw_column,
    slide_window,
    ssm_pointers,
    state_pointer,
    step_size,
)

MOST_TOKENS = 32  # above this, one token after the other takes longer than the chunked scan's matrix products


@triton.jit
def advance(S, x, B, C, dt, A, D):
    """S = exp(dt A) S + dt x B^T and y = S C + D x, for one token: S (rows, N), x (rows), B and C (N), all fp32."""
    S = S * tl.exp(dt * A) + (x * dt)[:, None] * B[None, :]
    return S, tl.sum(S * C[None, :], axis=1) + x * D


@triton.jit
def convolved(proj_ptr, window_ptr, weight_ptr, bias_ptr, channel, valid, width, K: tl.constexpr, WINDOW: tl.constexpr):
    """One token's convolution for some channels, rounded as `conv` rounds it. WINDOW is a power of two that holds K."""
    k = tl.arange(0, WINDOW)[None, :]
    inside = valid[:, None] & (k < K)
    taps = tl.load(weight_ptr + channel[:, None] * K + k, mask=inside, other=0.0)
    columns = raw_column(proj_ptr, window_ptr, k - (K - 1), channel[:, None], inside, width, K)
    y = tl.sum(taps * columns, axis=1) + tl.load(bias_ptr + channel, mask=valid, other=0.0)
    y = y * tl.sigmoid(y)
    return y.to(proj_ptr.dtype.element_ty).to(tl.float32)


@triton.jit(do_not_specialize=["layer"])
def step_kernel(
    proj_ptr,
    where_ptr,
    weight_ptr,
    bias_ptr,
    decay_ptr,
    dt_bias_ptr,
    skip_ptr,
    y_ptr,
    layer,
    width,
    low,
    high,
    H: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    WINDOW: tl.constexpr,
    ROWS: tl.constexpr,
    STATES: tl.constexpr,
):
    """One token, all of a layer between its projections but the gate; grid (blocks of ROWS channels of a head, H, B). Leaves the window alone."""
    h, b = tl.program_id(1), tl.program_id(2)
    p, s = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, STATES)
    rows, states = p < P, s < N
    sequence = layer.to(tl.int64) * tl.num_programs(2) + b
    conv_dim: tl.constexpr = H * P + 2 * G * N
    tile = (sequence * H + h) * P * N + p[:, None] * N + s[None, :]
    inside = rows[:, None] & states[None, :]
    S = tl.load(ssm_pointers(where_ptr, SSM_IN, tile, N), mask=inside, other=0.0)
    window_ptr = state_pointer(where_ptr, CONV_IN) + sequence * conv_dim * (K - 1)
    proj_ptr += b * width
    raw = proj_ptr + H * P
    group = H * P + h // (H // G) * N
    x = convolved(raw, window_ptr, weight_ptr, bias_ptr, h * P + p, rows, width, K, WINDOW)
    B = convolved(raw, window_ptr, weight_ptr, bias_ptr, group + s, states, width, K, WINDOW)
    C = convolved(raw, window_ptr, weight_ptr, bias_ptr, group + G * N + s, states, width, K, WINDOW)
    dt = step_size(tl.load(raw + conv_dim + h), tl.load(dt_bias_ptr + h), low, high)
    S, y = advance(S, x, B, C, dt, tl.load(decay_ptr + h), tl.load(skip_ptr + h))
    tl.store(y_ptr + b * H * P + h * P + p, y.to(y_ptr.dtype.element_ty), mask=rows)
    tl.store(ssm_pointers(where_ptr, SSM_OUT, tile, N), S, mask=inside)


def step(proj: Tensor, where: Tensor, taps: Taps, recurrence: Recurrence, layer: int, config: Mamba2Config) -> Tensor:
    """proj (B, 1, width) -> y (B, 1, d_inner), not yet gated; the ssm state of `layer` goes on, its window is left for `gated_norm`."""
    batch, _, width = proj.shape
    y = proj.new_empty(batch, 1, config.d_inner)
    rows = tile_rows(config)
    step_kernel[(triton.cdiv(config.head_dim, rows), config.n_heads, batch)](
        proj,
        where,
        *taps,
        *recurrence,
        y,
        layer,
        width,
        *config.dt_limit,
        H=config.n_heads,
        P=config.head_dim,
        G=config.n_groups,
        N=config.d_state,
        K=config.d_conv,
        WINDOW=triton.next_power_of_2(config.d_conv),
        ROWS=rows,
        STATES=triton.next_power_of_2(config.d_state),
        num_warps=4,
    )
    return y


def tile_rows(config: Mamba2Config) -> int:
    """Channels of a head for one program: 16 KB of state, so that two programs for each of a card's 132 units keep its memory busy on Codestral's 4 MB."""
    return int(min(triton.next_power_of_2(config.head_dim), max(1, 4096 // triton.next_power_of_2(config.d_state))))


@triton.jit
def token(x_ptr, B_ptr, dt_ptr, rows, states, exists, to_C):
    """x (rows), B (N), C (N) and the raw step size of one token, in fp32; zeros where there is none."""
    x = tl.load(x_ptr, mask=rows & exists, other=0.0).to(tl.float32)
    B = tl.load(B_ptr, mask=states & exists, other=0.0).to(tl.float32)
    C = tl.load(B_ptr + to_C, mask=states & exists, other=0.0).to(tl.float32)
    return x, B, C, tl.load(dt_ptr, mask=exists, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["layer", "n_tokens"])
def recurrence_kernel(
    xbc_ptr,
    proj_ptr,
    where_ptr,
    lengths_ptr,
    decay_ptr,
    dt_bias_ptr,
    skip_ptr,
    y_ptr,
    layer,
    n_tokens,
    width,
    low,
    high,
    H: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    STATES: tl.constexpr,
):
    """`step_kernel` for the real tokens of a chunk, after `conv`; grid (blocks of ROWS channels of a head, H, B)."""
    h, b = tl.program_id(1), tl.program_id(2)
    p, s = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, STATES)
    rows, states = p < P, s < N
    sequence = layer.to(tl.int64) * tl.num_programs(2) + b
    conv_dim: tl.constexpr = H * P + 2 * G * N
    tile = (sequence * H + h) * P * N + p[:, None] * N + s[None, :]
    inside = rows[:, None] & states[None, :]
    S = tl.load(ssm_pointers(where_ptr, SSM_IN, tile, N), mask=inside, other=0.0)
    A, dt_bias, D = tl.load(decay_ptr + h), tl.load(dt_bias_ptr + h), tl.load(skip_ptr + h)
    group = H * P + h // (H // G) * N
    xbc_ptr += b * n_tokens * conv_dim
    dt_ptr = proj_ptr + b * n_tokens * width + H * P + conv_dim + h
    y_ptr += b * n_tokens * H * P + h * P
    n = tl.load(lengths_ptr + b)
    x, B, C, raw = token(xbc_ptr + h * P + p, xbc_ptr + group + s, dt_ptr, rows, states, n > 0, G * N)
    for t in range(n):
        # The next token's numbers are on their way while this one is worked on: nothing of theirs depends on the state.
        xbc_ptr += conv_dim
        dt_ptr += width
        next_x, next_B, next_C, next_raw = token(
            xbc_ptr + h * P + p, xbc_ptr + group + s, dt_ptr, rows, states, t + 1 < n, G * N
        )
        S, y = advance(S, x, B, C, step_size(raw, dt_bias, low, high), A, D)
        tl.store(y_ptr + t * (H * P) + p, y.to(y_ptr.dtype.element_ty), mask=rows)
        x, B, C, raw = next_x, next_B, next_C, next_raw
    for t in range(n, n_tokens):  # what follows computes with padding too, and should find numbers
        tl.store(y_ptr + t * (H * P) + p, tl.zeros((ROWS,), y_ptr.dtype.element_ty), mask=rows)
    tl.store(ssm_pointers(where_ptr, SSM_OUT, tile, N), S, mask=inside)


def recur(
    xbc: Tensor,
    proj: Tensor,
    where: Tensor,
    lengths: Tensor,
    recurrence: Recurrence,
    layer: int,
    config: Mamba2Config,
) -> Tensor:
    """`scan` for at most MOST_TOKENS tokens: xbc (B, T, conv_dim) from `conv` -> y (B, T, d_inner); padding gets 0."""
    batch, n_tokens, width = proj.shape
    y = proj.new_empty(batch, n_tokens, config.d_inner)
    rows = tile_rows(config)
    recurrence_kernel[(triton.cdiv(config.head_dim, rows), config.n_heads, batch)](
        xbc,
        proj,
        where,
        lengths,
        *recurrence,
        y,
        layer,
        n_tokens,
        width,
        *config.dt_limit,
        H=config.n_heads,
        P=config.head_dim,
        G=config.n_groups,
        N=config.d_state,
        ROWS=rows,
        STATES=triton.next_power_of_2(config.d_state),
        num_warps=4,
    )
    return y


@triton.jit(do_not_specialize=["layer"])
def gated_norm_kernel(
    y_ptr,
    proj_ptr,
    weight_ptr,
    out_ptr,
    where_ptr,
    layer,
    width,
    eps,
    CHANNELS: tl.constexpr,
    CONV_CHANNELS: tl.constexpr,
    K: tl.constexpr,
    SLIDE: tl.constexpr,
    WIDE: tl.constexpr,
    CONV_WIDE: tl.constexpr,
):
    """RMSNorm of y silu(z) over one group's CHANNELS; grid (rows, groups). With SLIDE, rows are sequences and their windows go on by one token."""
    row, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    proj_ptr += row * width
    d_inner = tl.num_programs(1) * CHANNELS
    c = tl.arange(0, WIDE)
    valid = c < CHANNELS
    c += g * CHANNELS
    y = tl.load(y_ptr + row * d_inner + c, mask=valid, other=0.0).to(tl.float32)
    z = tl.load(proj_ptr + c, mask=valid, other=0.0).to(tl.float32)
    y = y * z * tl.sigmoid(z)
    y = y * tl.rsqrt(tl.sum(y * y, axis=0) / CHANNELS + eps) * tl.load(weight_ptr + c, mask=valid, other=0.0)
    tl.store(out_ptr + row * d_inner + c, y.to(out_ptr.dtype.element_ty), mask=valid)
    if SLIDE:
        channel = g * CONV_CHANNELS + tl.arange(0, CONV_WIDE)
        conv_dim = tl.num_programs(1) * CONV_CHANNELS
        window = (layer.to(tl.int64) * tl.num_programs(0) + row) * conv_dim * (K - 1)
        slide_window(
            proj_ptr + d_inner,
            state_pointer(where_ptr, CONV_IN) + window,
            state_pointer(where_ptr, CONV_OUT) + window,
            1,
            channel,
            tl.arange(0, CONV_WIDE) < CONV_CHANNELS,
            width,
            K,
        )


def gated_norm(y: Tensor, proj: Tensor, where: Tensor, weight: Tensor, layer: int, config: Mamba2Config) -> Tensor:
    """Gate first, then RMSNorm over each group: y (B, T, d_inner), z in proj, weight (d_inner) fp32 -> (B, T, d_inner). For T = 1 slides the window."""
    batch, n_tokens, width = proj.shape
    out = y.new_empty(y.shape)
    channels, conv_channels = config.d_inner // config.n_groups, config.conv_dim // config.n_groups
    gated_norm_kernel[(batch * n_tokens, config.n_groups)](
        y,
        proj,
        weight,
        out,
        where,
        layer,
        width,
        config.norm_eps,
        CHANNELS=channels,
        CONV_CHANNELS=conv_channels,
        K=config.d_conv,
        SLIDE=n_tokens == 1,
        WIDE=triton.next_power_of_2(channels),
        CONV_WIDE=triton.next_power_of_2(conv_channels),
        num_warps=4,
    )
    return out


@triton.jit
def add_norm_kernel(
    residual_ptr, added_ptr, weight_ptr, out_ptr, eps, D: tl.constexpr, ADD: tl.constexpr, WIDE: tl.constexpr
):
    """grid (rows); the sum is written back, in fp32."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, WIDE)
    valid = c < D
    x = tl.load(residual_ptr + row * D + c, mask=valid, other=0.0)
    if ADD:
        x += tl.load(added_ptr + row * D + c, mask=valid, other=0.0).to(tl.float32)
        tl.store(residual_ptr + row * D + c, x, mask=valid)
    x = x * tl.rsqrt(tl.sum(x * x, axis=0) / D + eps) * tl.load(weight_ptr + c, mask=valid, other=0.0)
    tl.store(out_ptr + row * D + c, x.to(out_ptr.dtype.element_ty), mask=valid)


def add_norm(residual: Tensor, added: Tensor | None, weight: Tensor, out: Tensor, *, eps: float) -> Tensor:
    """residual (..., D) fp32 takes `added` in place; out (..., D) gets RMSNorm of the sum times weight (D) fp32, and is returned."""
    width = residual.shape[-1]
    add_norm_kernel[(residual.numel() // width,)](
        residual,
        residual if added is None else added,
        weight,
        out,
        eps,
        D=width,
        ADD=added is not None,
        WIDE=triton.next_power_of_2(width),
        num_warps=8 if width > 2048 else 4,
    )
    return out
