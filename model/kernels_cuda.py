"""Triton kernels for many tokens: the short convolution, and the chunked scan from any state.

One program of `scan_kernel` owns a head (or a part of its channels) and goes through all blocks of the sequence with the state in registers. The usual
five kernels (cumulative sums, chunk states, state passing, chunk scan, C B^T) would write every block's state to memory and read it back twice: for 4,096
tokens of a layer of Codestral 64 blocks x 4.2 MB x 3, 0.19 ms at 4.3 TB/s, where the layer's projections take 1.3 ms. Here the state crosses the memory
once for all tokens. What is paid for that is C B^T, taken by each program instead of once for each group: the scan is then 0.6 of 14.6 billion operations
for each token of the whole model, 4 %. Memory is flat and no term is quadratic in the length: the caller feeds some thousand tokens at a time.

Letters as in model/ssd.py: B batch, T tokens, H heads, P head_dim, G groups, N d_state, Q tokens of a block, K width of the convolution.
`proj` is the input projection (B, T, width), in the order z, x, B, C, dt. `where` is int64 (4) on the device: the addresses of the states' tensors,
conv in, ssm in, conv out, ssm out, each (L, B, ...) fp32 and contiguous; in and out may be one. So a captured graph serves any state without a copy.
`lengths` is int64 (B) on the device: how many of the T tokens are real; what follows them leaves the state as it is.
Knows: pointers and shapes. Does not know: layers, weights' names, graphs. Source of the mathematics: Dao and Gu, arXiv 2405.21060, section 6.
"""

# Triton's types know neither the options of a launch nor the loops of a kernel.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from typing import NamedTuple

import torch
import triton  # pyright: ignore[reportMissingImports], an optional dependency
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from model.config import Mamba2Config

COMPILER = f"triton {triton.__version__}"
BLOCK = 64  # tokens of one block of the scan (Q): whole tiles of the matrix units, while C B^T, which grows with it, stays small


class Recurrence(NamedTuple):
    """What a layer's recurrence needs besides its input; all fp32."""

    A: Tensor  # (H), negative
    dt_bias: Tensor  # (H)
    D: Tensor  # (H)


class Taps(NamedTuple):
    """The short convolution of a layer; both fp32."""

    weight: Tensor  # (conv_dim, K)
    bias: Tensor  # (conv_dim)


CONV_IN, SSM_IN, CONV_OUT, SSM_OUT = (tl.constexpr(i) for i in range(4))


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(exp(-|x|)), the logarithm by its series in e / (2 + e) <= 1/3: exact to fp32, also for the tiny steps that log(1 + e) loses."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)
    q = s * s
    series = 1.0 + q * (
        1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15 + q / 17))))))
    )
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def step_size(raw, bias, low, high):
    """softplus(raw + bias), clamped to the config's dt_limit."""
    return tl.minimum(tl.maximum(softplus(raw.to(tl.float32) + bias), low), high)


@triton.jit
def state_pointer(where_ptr, which: tl.constexpr):
    return tl.load(where_ptr + which).to(tl.pointer_type(tl.float32))


@triton.jit
def ssm_pointers(where_ptr, which: tl.constexpr, offset, N: tl.constexpr):
    """Tensors that torch makes start at a multiple of 16 bytes, and so do rows of N; saying so lets the compiler move 16 bytes at a time."""
    pointers = state_pointer(where_ptr, which) + offset
    if N % 4 == 0:
        pointers = tl.multiple_of(pointers, (16, 16))
    return pointers


@triton.jit
def raw_column(proj_ptr, window_ptr, at, channel, valid, width, K: tl.constexpr):
    """What stood before the convolution at position `at` (a number or a column): from this call's tokens, or where it is negative from the window."""
    here = tl.load(proj_ptr + at * width + channel, mask=valid & (at >= 0), other=0.0).to(tl.float32)
    before = tl.load(window_ptr + channel * (K - 1) + at + K - 1, mask=valid & (at < 0), other=0.0)
    return tl.where(at >= 0, here, before)


@triton.jit
def slide_window(proj_ptr, window_ptr, out_ptr, n, channel, valid, width, K: tl.constexpr):
    """The K-1 columns before the next token. In place too: column j takes what stood n to its right, and j grows."""
    for j in tl.static_range(K - 1):
        column = raw_column(proj_ptr, window_ptr, n - (K - 1) + j, channel, valid, width, K)
        tl.store(out_ptr + channel * (K - 1) + j, column, mask=valid)


@triton.jit(do_not_specialize=["layer", "n_tokens"])
def conv_kernel(
    proj_ptr,
    where_ptr,
    lengths_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    layer,
    n_tokens,
    width,
    OFFSET: tl.constexpr,
    CHANNELS: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """silu(causal convolution + bias) of x, B and C; grid (blocks of TOKENS, blocks of WIDE channels, B).

    Only the programs of the first tokens look at the old window, so they alone may write the new one, in place or not.
    """
    b = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0) * TOKENS
    n = tl.load(lengths_ptr + b)
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    valid = channel < CHANNELS
    t = (first + tl.arange(0, TOKENS))[:, None]
    row = (layer.to(tl.int64) * tl.num_programs(2) + b) * CHANNELS * (K - 1)
    window_ptr = state_pointer(where_ptr, CONV_IN) + row
    proj_ptr += b * n_tokens * width + OFFSET
    live = valid[None, :] & (t < n_tokens)
    y = tl.zeros((TOKENS, WIDE), tl.float32) + tl.load(bias_ptr + channel, mask=valid, other=0.0)[None, :]
    for k in tl.static_range(K):
        tap = tl.load(weight_ptr + channel * K + k, mask=valid, other=0.0)
        y += raw_column(proj_ptr, window_ptr, t - (K - 1) + k, channel[None, :], live, width, K) * tap[None, :]
    y = y * tl.sigmoid(y)
    out = out_ptr + (b * n_tokens + t) * CHANNELS + channel[None, :]
    tl.store(out, y.to(out_ptr.dtype.element_ty), mask=live)
    if first == 0:
        tl.debug_barrier()  # every thread has read the old window
        slide_window(proj_ptr, window_ptr, state_pointer(where_ptr, CONV_OUT) + row, n, channel, valid, width, K)


def conv(proj: Tensor, where: Tensor, lengths: Tensor, taps: Taps, layer: int, config: Mamba2Config) -> Tensor:
    """proj (B, T, width) -> x, B and C after the convolution (B, T, conv_dim), in proj's dtype; slides the window of `layer`."""
    batch, n_tokens, width = proj.shape
    out = proj.new_empty(batch, n_tokens, config.conv_dim)
    tokens = max(16, triton.next_power_of_2(config.d_conv))  # the first programs must cover the window's reach
    wide = 128
    grid = (triton.cdiv(n_tokens, tokens), triton.cdiv(config.conv_dim, wide), batch)
    conv_kernel[grid](
        proj,
        where,
        lengths,
        *taps,
        out,
        layer,
        n_tokens,
        width,
        OFFSET=config.d_inner,
        CHANNELS=config.conv_dim,
        K=config.d_conv,
        TOKENS=tokens,
        WIDE=wide,
        num_warps=4,
    )
    return out


@triton.jit(do_not_specialize=["layer", "n_tokens"])
def scan_kernel(
    xbc_ptr,
    proj_ptr,
    where_ptr,
    lengths_ptr,
    decay_ptr,
    bias_ptr,
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
    Q: tl.constexpr,
    ROWS: tl.constexpr,
    STATES: tl.constexpr,
):
    """grid (blocks of ROWS channels of a head, H, B). Per block of Q tokens, with c the running sum of dt A and S the state, kept as (N, P):
    y = (C B^T o exp(c_i - c_j) [j <= i]) (dt x) + exp(c) (C S) + D x;  S = exp(c_Q) S + B^T (exp(c_Q - c) dt x).
    """
    h, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    kind = xbc_ptr.dtype.element_ty
    q, p, s = tl.arange(0, Q), tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, STATES)
    n = tl.load(lengths_ptr + b)
    A, bias, D = tl.load(decay_ptr + h), tl.load(bias_ptr + h), tl.load(skip_ptr + h)
    conv_dim: tl.constexpr = H * P + 2 * G * N
    xbc_ptr += b * n_tokens * conv_dim
    dt_ptr = proj_ptr + b * n_tokens * width + H * P + conv_dim + h
    y_ptr += b * n_tokens * H * P + h * P
    group = H * P + h // (H // G) * N
    tile = ((layer.to(tl.int64) * tl.num_programs(2) + b) * H + h) * P * N + p[None, :] * N + s[:, None]
    inside = (p < P)[None, :] & (s < N)[:, None]
    S = tl.load(ssm_pointers(where_ptr, SSM_IN, tile, N), mask=inside, other=0.0)
    for first in range(0, n_tokens, Q):
        t = first + q
        live = t < n
        row = xbc_ptr + t[:, None] * conv_dim
        x = tl.load(row + h * P + p[None, :], mask=live[:, None] & (p < P)[None, :], other=0.0)
        B = tl.load(row + group + s[None, :], mask=live[:, None] & (s < N)[None, :], other=0.0)
        C = tl.load(row + group + G * N + s[None, :], mask=live[:, None] & (s < N)[None, :], other=0.0)
        dt = tl.where(live, step_size(tl.load(dt_ptr + t * width, mask=live, other=0.0), bias, low, high), 0.0)
        c = tl.cumsum(dt * A, axis=0)
        whole = tl.sum(tl.where(q == Q - 1, c, 0.0), axis=0)
        xdt = x.to(tl.float32) * dt[:, None]
        between = tl.where(q[:, None] >= q[None, :], c[:, None] - c[None, :], float("-inf"))
        mix = tl.dot(C, tl.trans(B), input_precision="ieee") * tl.exp(between)
        y = tl.dot(C, S.to(kind), input_precision="ieee") * tl.exp(c)[:, None] + x.to(tl.float32) * D
        y = tl.dot(mix.to(kind), xdt.to(kind), acc=y, input_precision="ieee")
        out = y_ptr + t[:, None] * (H * P) + p[None, :]
        tl.store(out, y.to(y_ptr.dtype.element_ty), mask=(t < n_tokens)[:, None] & (p < P)[None, :])
        added = (xdt * tl.exp(whole - c)[:, None]).to(kind)
        S = tl.dot(tl.trans(B), added, acc=S * tl.exp(whole), input_precision="ieee")
    tl.store(ssm_pointers(where_ptr, SSM_OUT, tile, N), S, mask=inside)


class ScanTiles(NamedTuple):
    """How the scan is cut. They change speed, and bits by the order of sums, never the mathematics."""

    block: int = BLOCK  # tokens (Q)
    rows: int = 32  # channels of a head that one program owns
    warps: int = 4
    stages: int = 2  # of the pipeline that loads the next block


def scan(
    xbc: Tensor,
    proj: Tensor,
    where: Tensor,
    lengths: Tensor,
    recurrence: Recurrence,
    layer: int,
    config: Mamba2Config,
    *,
    tiles: ScanTiles | None = None,
) -> Tensor:
    """xbc (B, T, conv_dim) from `conv` -> y (B, T, d_inner) with the skip D x, not yet gated; the state of `layer` goes on."""
    if tiles is None:
        tiles = ScanTiles(warps=4 if config.d_state <= 128 else 8)
        if (
            proj.dtype == torch.float32
        ):  # no matrix units for exact fp32: small tiles, or the unrolled products fill the registers
            tiles = tiles._replace(block=16, stages=1)
    batch, n_tokens, width = proj.shape
    y = proj.new_empty(batch, n_tokens, config.d_inner)
    rows = max(16, min(tiles.rows, triton.next_power_of_2(config.head_dim)))
    scan_kernel[(triton.cdiv(config.head_dim, rows), config.n_heads, batch)](
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
        Q=tiles.block,
        ROWS=rows,
        STATES=max(16, triton.next_power_of_2(config.d_state)),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return y
