"""Each Triton kernel against model/ssd.py: on a GPU where there is one, else in Triton's interpreter (test_cuda_interpreted.py runs this file so).

The interpreter multiplies bf16 matrices as if their bits were integers (triton 3.7), so 16-bit products are tested in fp16 there.
"""

import importlib.util
import os
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed (it is part of codestral-lsp[cuda])", allow_module_level=True)
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU here: test_cuda_interpreted.py runs this file", allow_module_level=True)

from model import ssd
from model.config import Mamba2Config
from model.kernels_cuda import Recurrence, ScanTiles, Taps, conv, scan
from model.kernels_cuda_linear import linear
from model.kernels_cuda_step import add_norm, gated_norm, recur, step
from model.state import Mamba2State

DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = 1e-4
LAYER = 1  # of two, so that an offset forgotten is an error seen
ROUNDING = {torch.float32: 0.0, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # relative


class Case(NamedTuple):
    n_tokens: int
    n_heads: int = 2
    head_dim: int = 32
    d_state: int = 16
    n_groups: int = 1
    d_conv: int = 4
    batch: int = 1
    padding: int = 0  # tokens behind the real ones
    limit: tuple[float, float] = (0.0, float("inf"))
    dtype: torch.dtype = torch.float32
    in_place: bool = True

    def config(self) -> Mamba2Config:
        return Mamba2Config(
            d_model=16,
            n_layers=2,
            vocab_size=8,
            d_state=self.d_state,
            d_conv=self.d_conv,
            head_dim=self.head_dim,
            n_heads=self.n_heads,
            n_groups=self.n_groups,
            dt_limit=self.limit,
        )


class Layer(NamedTuple):
    """Random input and weights of one layer, and what model/ssd.py makes of them."""

    proj: Tensor
    before: Mamba2State
    taps: Taps
    recurrence: Recurrence
    gate: Tensor
    y: Tensor
    gated: Tensor
    after: Mamba2State  # of LAYER


def layer_of(case: Case) -> Layer:
    c, T = case.config(), case.n_tokens
    generator = torch.Generator().manual_seed(case.n_tokens)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    proj = noise(case.batch, T + case.padding, c.in_proj_dim).to(case.dtype)
    conv_state = noise(2, case.batch, c.conv_dim, c.d_conv - 1).to(case.dtype).float()
    ssm_state = noise(2, case.batch, c.n_heads, c.head_dim, c.d_state)
    weight, bias = 0.5 * noise(c.conv_dim, 1, c.d_conv), 0.1 * noise(c.conv_dim)
    A, dt_bias, D = -torch.linspace(1, 16, c.n_heads), noise(c.n_heads) - 4, 1 + 0.2 * noise(c.n_heads)
    gate = 1 + 0.2 * noise(c.d_inner)
    z, xBC, dt = proj[:, :T].float().split([c.d_inner, c.conv_dim, c.n_heads], dim=-1)
    xBC, conv_after = ssd.causal_conv(xBC, conv_state[LAYER], weight, bias)
    x, B, C = xBC.split([c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state], dim=-1)
    x = x.unflatten(-1, (c.n_heads, -1))
    B, C = B.unflatten(-1, (c.n_groups, -1)), C.unflatten(-1, (c.n_groups, -1))
    y, ssm_after = ssd.scan(x, ssd.step_size(dt, dt_bias, c.dt_limit), A, B, C, ssm_state[LAYER], block=16)
    y = (y + x * D[:, None]).flatten(-2)
    gated = ssd.gated_rms_norm(y, z, gate, groups=c.n_groups, eps=c.norm_eps)
    return Layer(
        proj.to(DEVICE),
        Mamba2State(conv_state.to(DEVICE), ssm_state.to(DEVICE)),
        Taps(weight[:, 0].contiguous().to(DEVICE), bias.to(DEVICE)),
        Recurrence(A.to(DEVICE), dt_bias.to(DEVICE), D.to(DEVICE)),
        gate.to(DEVICE),
        y,
        gated,
        Mamba2State(conv_after, ssm_after),
    )


def close(found: Tensor, expected: Tensor, case: Case) -> None:
    assert found.shape == expected.shape
    allowed = TOLERANCE + ROUNDING[case.dtype] * expected.abs().max()
    assert (found.float().cpu() - expected).abs().max() <= allowed


def check(case: Case, kernel: str, *, tiles: ScanTiles | None = None) -> None:
    """Runs one layer through `kernel` ("step", "recur" or "scan"), from a state into the same or another one."""
    c, layer = case.config(), layer_of(case)
    given = Mamba2State(*(tensor.clone() for tensor in layer.before))
    after = given if case.in_place else Mamba2State(*(torch.zeros_like(tensor) for tensor in given))
    where = torch.tensor([tensor.data_ptr() for tensor in (*given, *after)], device=DEVICE)
    lengths = torch.full((case.batch,), case.n_tokens, device=DEVICE)
    if kernel == "step":
        y = step(layer.proj, where, layer.taps, layer.recurrence, LAYER, c)
    else:
        xbc = conv(layer.proj, where, lengths, layer.taps, LAYER, c)
        if kernel == "recur":
            y = recur(xbc, layer.proj, where, lengths, layer.recurrence, LAYER, c)
        else:
            y = scan(xbc, layer.proj, where, lengths, layer.recurrence, LAYER, c, tiles=tiles)
    assert layer.y.std() > 0.3, "so small that any difference would pass"
    close(y[:, : case.n_tokens], layer.y, case)
    assert not y[:, case.n_tokens :].any(), "padding should read as 0"
    gated = gated_norm(y, layer.proj, where, layer.gate, LAYER, c)
    close(gated[:, : case.n_tokens], layer.gated, case)
    if layer.proj.shape[1] == 1 or kernel != "step":
        close(after.ssm[LAYER], layer.after.ssm, case)
    if kernel == "step" or case.n_tokens + case.padding > 1:  # a single token's window is the gate's to slide
        close(after.conv[LAYER], layer.after.conv, case)
    untouched = layer.before if case.in_place else Mamba2State(*(torch.zeros_like(t) for t in layer.before))
    for one, other in zip(after, untouched, strict=True):
        assert torch.equal(one[0], other[0]), "another layer's state changed"
    if not case.in_place:
        for one, other in zip(given, layer.before, strict=True):
            assert torch.equal(one, other), "the state that was given changed"


STEPS = [
    Case(1),
    Case(1, n_heads=8, n_groups=8, batch=2, in_place=False),
    Case(1, n_heads=4, head_dim=64, d_state=64, n_groups=2),
    Case(1, head_dim=128, d_state=128, d_conv=3),
    Case(1, n_heads=3, head_dim=24, d_state=18, d_conv=2),
    Case(1, d_state=256, limit=(0.01, 0.05)),
    Case(1, n_heads=8, head_dim=8, n_groups=2, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("case", STEPS, ids=str)
def test_the_step(case: Case) -> None:
    check(case, "step")


FEW = [
    Case(2),
    Case(3, n_heads=8, n_groups=8, batch=2, in_place=False),
    Case(7, n_heads=4, head_dim=64, d_state=64, n_groups=2, padding=1),
    Case(5, head_dim=128, d_state=128, padding=11),
    Case(16, n_heads=4, head_dim=24, d_state=18, n_groups=2, d_conv=3),
    Case(1, padding=1, limit=(0.01, 0.05)),
    Case(32, d_state=256),
    Case(4, dtype=torch.bfloat16, batch=2),
]


@pytest.mark.parametrize("case", FEW, ids=str)
def test_few_tokens(case: Case) -> None:
    check(case, "recur")


MANY = [
    Case(1, padding=32),
    Case(33, n_heads=8, n_groups=8, batch=2),
    Case(63, n_heads=4, head_dim=64, d_state=64, n_groups=2, in_place=False),
    Case(64, head_dim=128, d_state=128),
    Case(65, n_heads=4, head_dim=24, d_state=18, n_groups=2, d_conv=3, limit=(0.01, 0.05)),
    Case(70, padding=58),
    Case(40, d_state=256),
    Case(150, n_heads=1, head_dim=8),
    Case(70, n_heads=4, n_groups=2, dtype=torch.float16),
]


@pytest.mark.parametrize("case", MANY, ids=str)
def test_many_tokens(case: Case) -> None:
    check(case, "scan")


@pytest.mark.parametrize("tiles", [ScanTiles(block=16, rows=16), ScanTiles(block=128, rows=128)], ids=str)
def test_the_tiles_of_the_scan_change_nothing(tiles: ScanTiles) -> None:
    check(Case(70, head_dim=64), "scan", tiles=tiles)


@pytest.mark.parametrize(("rows", "width", "adds"), [(1, 32, False), (3, 32, True), (2, 100, True)])
def test_the_norm_takes_the_residual_sum_with_it(rows: int, width: int, adds: bool) -> None:
    residual, added, weight = torch.randn(rows, width), torch.randn(rows, width), torch.randn(width)
    total = residual + added if adds else residual.clone()
    given = residual.to(DEVICE)
    out = torch.empty_like(given)
    add_norm(given, added.to(DEVICE) if adds else None, weight.to(DEVICE), out, eps=1e-5)
    assert (given.cpu() - total).abs().max() <= 1e-6
    assert (out.cpu() - ssd.rms_norm(total, weight, 1e-5)).abs().max() <= 1e-5


def test_tiny_steps_are_not_lost() -> None:
    """softplus(-15) is 3e-7: log(1 + exp(x)) in fp32 would give 0 or 1.2e-7 steps, and a head that remembers would forget at a wrong rate."""
    case = Case(1, n_heads=4)
    c, layer = case.config(), layer_of(case)
    proj = layer.proj.clone()
    proj[..., -c.n_heads :] = torch.tensor([-15.0, -9.0, 5.0, 25.0], device=DEVICE)
    ones = torch.ones(c.n_heads, device=DEVICE)
    recurrence = Recurrence(-ones, 0 * ones, 0 * ones)
    empty = Mamba2State(torch.zeros_like(layer.before.conv), torch.zeros_like(layer.before.ssm))
    taps = Taps(torch.zeros_like(layer.taps.weight), torch.ones_like(layer.taps.bias))  # x, B and C are all silu(1)
    where = torch.tensor([tensor.data_ptr() for tensor in (*empty, *empty)], device=DEVICE)
    step(proj, where, taps, recurrence, LAYER, c)
    silu = torch.sigmoid(torch.tensor(1.0))
    expected = torch.nn.functional.softplus(torch.tensor([-15.0, -9.0, 5.0, 25.0])) * silu * silu
    found = empty.ssm[LAYER, 0, :, 0, 0].cpu()
    assert ((found - expected) / expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("rows", "depth", "width"), [(1, 16, 20), (3, 100, 64), (16, 300, 40), (20, 64, 33)])
def test_the_projection_of_few_tokens(rows: int, depth: int, width: int) -> None:
    x, weight = torch.randn(1, rows, depth), torch.randn(width, depth) / depth**0.5
    found = linear(x.to(DEVICE), weight.to(DEVICE)).cpu()
    assert (found - x @ weight.T).abs().max() <= TOLERANCE
    half = linear(x.half().to(DEVICE), weight.half().to(DEVICE)).float().cpu()
    assert (half - x @ weight.T).abs().max() <= 0.02
    alone = linear(x[:, -1:].to(DEVICE), weight.to(DEVICE)).cpu()
    if not INTERPRETED:  # numpy's products choose by shape
        assert torch.equal(alone[:, 0], found[:, -1])
    assert (alone[:, 0] - x[:, -1] @ weight.T).abs().max() <= TOLERANCE
