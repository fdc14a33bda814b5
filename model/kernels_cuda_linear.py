"""A Triton kernel for the projections of few tokens, instead of cuBLAS: each program streams its rows of the weights past all tokens, once.

With up to MOST_ROWS tokens a projection is bound by the weights' bytes, and a program's tokens fit one tile of the matrix units whether there is one or 16.
So a token's result is the same, bit by bit, alone and in a chunk, which cuBLAS, choosing by the number of rows, does not promise. Which of the two is
faster is for a card to say: benchmarks/gpu_speed.py measures both. The weights are the left operand, so that they, not the padding, fill the tiles.
Knows: pointers and shapes. Does not know: layers.
"""

# Triton's types know neither the options of a launch nor the loops of a kernel.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import triton  # pyright: ignore[reportMissingImports], an optional dependency
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

MOST_ROWS = 32
# (outputs from which on a tile is taken, its outputs, its depth, stages). Of Codestral on an H100's 132 units: the input projection is 290 programs that all
# run at once, three to a unit (60 KB each), the output projection 128; either way some 50 to 100 KB are under way to each unit, and the memory needs 20.
# Narrower tiles would fetch the tokens' numbers, which each program reads, as often as the weights.
TILES = ((16384, 64, 128, 3), (4096, 32, 256, 4), (0, 16, 256, 4))


@triton.jit(do_not_specialize=["n_rows"])
def linear_kernel(
    x_ptr,
    matrix_ptr,
    out_ptr,
    n_rows,
    N: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    DEEP: tl.constexpr,
):
    """out (n_rows, N) = x (n_rows, K) weight (N, K)^T; grid (blocks of WIDE outputs). Sums are taken in one order, in fp32."""
    n, m, k = tl.program_id(0) * WIDE + tl.arange(0, WIDE), tl.arange(0, ROWS), tl.arange(0, DEEP)
    matrix_ptr += n.to(tl.int64)[:, None] * K + k[None, :]
    x_ptr += m[None, :] * K + k[:, None]
    total = tl.zeros((WIDE, ROWS), tl.float32)
    for start in range(0, K, DEEP):
        inside = start + k < K
        weight = tl.load(matrix_ptr + start, mask=(n < N)[:, None] & inside[None, :], other=0.0)
        x = tl.load(x_ptr + start, mask=(m < n_rows)[None, :] & inside[:, None], other=0.0)
        total = tl.dot(weight, x, acc=total, input_precision="ieee")
    out = out_ptr + m[None, :] * N + n[:, None]
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=(m < n_rows)[None, :] & (n < N)[:, None])


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., K) of at most MOST_ROWS rows, weight (N, K) of the same dtype -> (..., N)."""
    n_rows, (n_out, depth) = x.numel() // x.shape[-1], weight.shape
    assert n_rows <= MOST_ROWS, f"{n_rows} rows, at most {MOST_ROWS}"
    wide, deep, stages = next(tile for least, *tile in TILES if n_out >= least)
    out = x.new_empty(*x.shape[:-1], n_out)
    linear_kernel[(triton.cdiv(n_out, wide),)](
        x,
        weight,
        out,
        n_rows,
        N=n_out,
        K=depth,
        ROWS=16 if n_rows <= 16 else 32,
        WIDE=wide,
        DEEP=max(16, min(deep, triton.next_power_of_2(depth))),
        num_warps=4,
        num_stages=stages,
    )
    return out
