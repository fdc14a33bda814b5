"""Snapshots of a state: back to the bit in fp32, rounded once in fp16 and int8, usable by both backends as they come, and refused where they do not fit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from model.config import Mamba2Config
from model.native import NativeLM, instruction_sets
from model.packed import pack
from model.packed_file import is_projection
from model.snapshot import SNAPSHOT_FORMATS, SnapshotError, from_arrays, snapshot_bytes, to_arrays
from model.state import Mamba2State

TINY = Mamba2Config(d_model=32, n_layers=3, vocab_size=50, d_state=16, head_dim=32, n_heads=4, n_groups=2)
CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32_768, n_groups=8)
Arrays = dict[str, np.ndarray]


def made_state(config: Mamba2Config = TINY, *, native: bool = False, seed: int = 0) -> tuple[Mamba2State, Tensor]:
    """Heads of very different sizes, in the memory order of torch or of the native kernels."""
    c, generator = config, torch.Generator().manual_seed(seed)
    conv = torch.randn(c.n_layers, 1, c.conv_dim, c.d_conv - 1, generator=generator)
    ssm = torch.randn(c.n_layers, 1, c.n_heads, c.head_dim, c.d_state, generator=generator)
    ssm *= torch.exp(6 * torch.randn(c.n_layers, 1, c.n_heads, 1, 1, generator=generator))
    if native:
        ssm = ssm.transpose(-1, -2).contiguous().transpose(-1, -2)
    return Mamba2State(conv, ssm), torch.randn(c.vocab_size, generator=generator)


def with_heads(values: list[list[float]]) -> Mamba2State:
    """A state of one layer and one row for each head, from its numbers."""
    ssm = torch.tensor(values, dtype=torch.float32)[None, None, :, None]
    return Mamba2State(torch.zeros(1, 1, 2, 3), ssm)


def config_of(state: Mamba2State) -> Mamba2Config:
    _, _, heads, rows, columns = state.ssm.shape
    n = state.conv.shape[2] - heads * rows
    return Mamba2Config(
        d_model=1, n_layers=1, vocab_size=2, d_state=columns, head_dim=rows, n_heads=heads, n_groups=n // 2 // columns
    )


@pytest.mark.parametrize("native", [False, True], ids=["torch", "native"])
def test_fp32_comes_back_to_the_bit_in_its_own_memory_order(native: bool) -> None:
    state, logits = made_state(native=native)
    arrays = to_arrays(state, logits, "fp32")
    assert all(array.flags.c_contiguous for array in arrays.values())
    found, found_logits = from_arrays(arrays, TINY)
    for a, b in zip((*found, found_logits), (*state, logits), strict=True):
        assert a.dtype == torch.float32 and a.shape == b.shape and torch.equal(a, b)
    assert (found.ssm.stride(), found.conv.stride()) == (state.ssm.stride(), state.conv.stride())


@pytest.mark.parametrize("format", SNAPSHOT_FORMATS)
@pytest.mark.parametrize("native", [False, True], ids=["torch", "native"])
def test_what_rounding_costs(format: str, native: bool) -> None:
    state, logits = made_state(native=native)
    found, found_logits = from_arrays(to_arrays(state, logits, format), TINY)
    assert torch.equal(found.conv, state.conv) and torch.equal(found_logits, logits)
    error = (found.ssm - state.ssm).abs()
    if format == "fp16":
        assert (error <= state.ssm.abs() * 2.0**-11).all()
        assert error.max() > 0
    head_error = (error.square().mean((-1, -2)) / state.ssm.square().mean((-1, -2))).sqrt()
    assert head_error.max() <= {"fp32": 0, "fp16": 2.0**-11, "int8": 1e-2}[format]
    largest = state.ssm.abs().amax((-1, -2), keepdim=True)
    assert (error / largest).max() <= {"fp32": 0, "fp16": 2.0**-11, "int8": 1 / 127}[format]


def test_rounding_what_was_rounded_changes_nothing() -> None:
    state, logits = made_state()
    once = to_arrays(state, logits, "fp16")
    again = to_arrays(*from_arrays(once, TINY), "fp16")
    assert once.keys() == again.keys()
    assert all(np.array_equal(once[name], again[name]) for name in once)


@example(heads=[[0.0, 0.0, 0.0, 3.401992901712019e38]], format="fp16")  # rounded up it would be more than fp32 holds
@given(
    heads=st.lists(
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        min_size=1,
        max_size=3,
    ),
    format=st.sampled_from(SNAPSHOT_FORMATS),
)
def test_any_finite_state(heads: list[list[float]], format: str) -> None:
    """Nothing overflows, and what comes back is off by a share of its head's largest number; below fp32's normal numbers, flushed or not, by one of those."""
    state = with_heads(heads)
    state = state._replace(conv=torch.zeros(1, 1, len(heads) + 8, 3))
    found, _ = from_arrays(to_arrays(state, torch.zeros(2), format), config_of(state))
    share = {"fp32": 0.0, "fp16": 2.0**-11, "int8": 1 / 127}[format]
    bound = state.ssm.abs().amax((-1, -2), keepdim=True).double() * share + 2.0**-126
    assert ((found.ssm.double() - state.ssm.double()).abs() <= bound).all()


@pytest.mark.parametrize("exponent", [-90, -40, -1, 0, 15, 16, 100])
@pytest.mark.parametrize("mantissa", [0.5, 0.75, 65504 / 65536, 65519 / 65536, 65520 / 65536, 1 - 2.0**-24])
def test_fp16_uses_its_range(mantissa: float, exponent: int) -> None:
    """The largest magnitude lies just below the overflow, so 2^-29 of it is still a normal number: no bit of those above is lost."""
    largest = mantissa * 2.0**exponent
    small = largest * 2.0**-27
    state = with_heads([[largest, -small, 0.0]])
    state = state._replace(conv=torch.zeros(1, 1, 1 + 2 * 3, 3))
    arrays = to_arrays(state, torch.zeros(2), "fp16")
    stored = arrays["ssm_pn"].astype(np.float64).ravel()
    assert 2.0**15 - 16 <= stored[0] <= 65504
    assert -stored[1] >= 2.0**-14
    found = from_arrays(arrays, config_of(state))[0].ssm.double().ravel()
    assert abs(found[1] + small) <= small * 2.0**-11 and found[2] == 0


def test_a_large_number_coarsens_only_its_row_and_column() -> None:
    """With one scale for the head an outlier of a thousand would leave nothing of the others."""
    state, logits = made_state()
    ssm = torch.randn(state.ssm.shape, generator=torch.Generator().manual_seed(1))
    ssm[..., 3, 5] = 1000.0
    found, _ = from_arrays(to_arrays(Mamba2State(state.conv, ssm), logits, "int8"), TINY)
    error = (found.ssm - ssm).abs()
    rest = torch.ones_like(ssm, dtype=torch.bool)
    rest[..., 3, :] = rest[..., :, 5] = False
    assert error[rest].max() < 0.03
    assert error.max() < 1


@pytest.mark.skipif(not instruction_sets(), reason="the kernels were not built: no C++ compiler")
@pytest.mark.parametrize("backend", ["torch", "native"])
@torch.no_grad()
def test_the_backends_go_on_from_it(backend: str, random_network: Callable) -> None:
    """To the bit in fp32, whether a token or many follow; the native kernels without copying the state once more."""
    network = random_network(TINY)
    if backend == "native":
        tensors = {n: pack(t, "fp32") if is_projection(n) else t for n, t in network.state_dict().items()}
        network = NativeLM(TINY, tensors, precision="fp32", threads=1)
    ids = torch.randint(0, TINY.vocab_size, (1, 40), generator=torch.Generator().manual_seed(2))
    logits, state = network(ids[:, :20])
    restored, restored_logits = from_arrays(to_arrays(state, logits[0, -1], "fp32"), TINY)
    assert torch.equal(restored_logits, logits[0, -1])
    assert restored.ssm.transpose(-1, -2).is_contiguous() == (backend == "native")
    assert restored.ssm.is_contiguous() == (backend == "torch")
    for following in (ids[:, 20:21], ids[:, 20:]):
        for a, b in zip(network(following, state), network(following, restored), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("format", SNAPSHOT_FORMATS)
def test_it_shares_no_memory_with_what_it_came_from(format: str) -> None:
    state, logits = made_state()
    arrays = to_arrays(state, logits, format)
    kept = {name: array.copy() for name, array in arrays.items()}
    state.ssm.zero_()
    state.conv.zero_()
    assert all(np.array_equal(arrays[name], kept[name]) for name in arrays)
    for array in arrays.values():
        array.flags.writeable = False  # as those of a file
    found, found_logits = from_arrays(arrays, TINY)
    expected = from_arrays(kept, TINY)[0].ssm.clone()
    found.ssm.add_(1)
    found.conv.add_(1)
    found_logits.add_(1)
    assert torch.equal(from_arrays(arrays, TINY)[0].ssm, expected)


@pytest.mark.parametrize("format", SNAPSHOT_FORMATS)
def test_unaligned_bytes_of_a_file_will_do(format: str) -> None:
    arrays = to_arrays(*made_state(), format)
    shifted = {}
    for name, array in arrays.items():
        room = np.empty(array.nbytes + 1, np.uint8)[1:]
        room[:] = array.reshape(-1).view(np.uint8)
        shifted[name] = np.frombuffer(room.data, array.dtype).reshape(array.shape)
    assert torch.equal(from_arrays(shifted, TINY)[0].ssm, from_arrays(arrays, TINY)[0].ssm)


@pytest.mark.parametrize(
    ("config", "format", "n_bytes"),
    [
        (TINY, "fp32", 4 * (3 * 4 * 32 * 16 + 3 * (128 + 64) * 3 + 50)),
        (TINY, "fp16", 2 * 3 * 4 * 32 * 16 + 4 * (3 * 4 + 3 * (128 + 64) * 3 + 50)),
        (TINY, "int8", 3 * 4 * 32 * 16 + 4 * (3 * 4 * (32 + 16) + 3 * (128 + 64) * 3 + 50)),
        (CODESTRAL, "fp32", 276_430_848),
        (CODESTRAL, "fp16", 142_245_888),
        (CODESTRAL, "int8", 81_395_712),
    ],
)
def test_how_many_bytes(config: Mamba2Config, format: str, n_bytes: int) -> None:
    assert snapshot_bytes(config, format) == n_bytes
    if config is TINY:
        assert sum(array.nbytes for array in to_arrays(*made_state(), format).values()) == n_bytes


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays[name].copy())}


def put(name: str, value: float) -> Callable[[Arrays], Arrays]:
    def change(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[-1] = value
        return array

    return changed(name, change)


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


EXPECTED_FP16 = "expected conv, logits, scale, ssm_pn"
BAD: list[tuple[str, Callable[[Arrays], Arrays], str]] = [
    ("fp16", lambda _: {}, "has no state, expected one of ssm_np and ssm_pn"),
    ("fp16", without("ssm_pn"), "has no state, expected one of ssm_np and ssm_pn"),
    (
        "fp16",
        lambda arrays: arrays | {"ssm_np": arrays["ssm_pn"]},
        "has ssm_np and ssm_pn, expected one of ssm_np and ssm_pn",
    ),
    ("fp16", without("scale"), f"has conv, logits, ssm_pn, {EXPECTED_FP16}"),
    ("fp32", lambda arrays: arrays | {"more": arrays["conv"]}, "has conv, logits, more, ssm_pn, expected conv, logits, ssm_pn"),
    ("int8", without("scale_rows"), "has conv, logits, scale_columns, ssm_pn, expected conv, logits, scale_columns, scale_rows, ssm_pn"),
    ("fp32", changed("ssm_pn", lambda a: a.astype(np.float64)), "ssm_pn is float64, expected one of float16, float32, int8"),
    ("fp32", changed("ssm_pn", lambda a: (0 * a).astype(np.float16)), f"has conv, logits, ssm_pn, {EXPECTED_FP16}"),
    ("fp32", changed("ssm_pn", lambda a: a[:2]), "ssm_pn is float32 (2, 4, 32, 16), expected float32 (3, 4, 32, 16)"),
    ("fp32", changed("ssm_pn", lambda a: a.swapaxes(2, 3)), "ssm_pn is float32 (3, 4, 16, 32), expected float32 (3, 4, 32, 16)"),
    ("fp32", changed("conv", lambda a: a[:, :-1]), "conv is float32 (3, 191, 3), expected float32 (3, 192, 3)"),
    ("fp32", changed("conv", lambda a: a.astype(np.float64)), "conv is float64 (3, 192, 3), expected float32 (3, 192, 3)"),
    ("fp32", changed("logits", lambda a: a[None]), "logits is float32 (1, 50), expected float32 (50,)"),
    ("fp32", put("logits", np.nan), "logits is not finite, expected numbers"),
    ("fp16", put("conv", -np.inf), "conv is not finite, expected numbers"),
    *((format, put("ssm_pn", np.nan), "ssm_pn is not finite in layer 2, expected numbers") for format in ("fp16", "fp32")),
    *((format, put("ssm_pn", -np.inf), "ssm_pn is not finite in layer 2, expected numbers") for format in ("fp16", "fp32")),
    ("fp16", put("scale", 3.0), "scale has 3.0, expected powers of two"),
    ("fp16", put("scale", 0.0), "scale has 0.0, expected powers of two"),
    ("fp16", put("scale", -2.0), "scale has -2.0, expected scales of at least 0"),
    ("fp16", put("scale", np.inf), "scale is not finite, expected numbers"),
    ("fp16", put("scale", 2.0**127), "ssm_pn is not finite in layer 2, expected numbers"),
    ("int8", put("scale_rows", np.nan), "scale_rows is not finite, expected numbers"),
    ("int8", put("scale_columns", -1.0), "scale_columns has -1.0, expected scales of at least 0"),
    ("int8", put("scale_columns", 3e38), "ssm_pn is not finite in layer 2, expected numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "damage", "said"), BAD)
def test_what_does_not_fit_is_one_line(format: str, damage: Callable[[Arrays], Arrays], said: str) -> None:
    arrays = to_arrays(*made_state(), format)
    with pytest.raises(SnapshotError) as caught:
        from_arrays(damage(arrays), TINY)
    assert str(caught.value) == f"snapshot: {said}"


def test_a_snapshot_of_another_model() -> None:
    """Its rows and columns have the same product and its convolution the same channels."""
    arrays = to_arrays(*made_state(), "fp16")
    other = Mamba2Config(d_model=32, n_layers=3, vocab_size=50, d_state=32, head_dim=16, n_heads=4, n_groups=2)
    assert (snapshot_bytes(other, "fp16"), other.conv_dim) == (snapshot_bytes(TINY, "fp16"), TINY.conv_dim)
    with pytest.raises(SnapshotError) as caught:
        from_arrays(arrays, other)
    assert str(caught.value) == "snapshot: ssm_pn is float16 (3, 4, 32, 16), expected float16 (3, 4, 16, 32)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", SNAPSHOT_FORMATS)
def test_what_is_not_finite_is_not_kept(format: str, value: float) -> None:
    for name, where in (("ssm", "the state of layer 1"), ("conv", "conv"), ("logits", "logits")):
        state, logits = made_state()
        {"ssm": state.ssm[1], "conv": state.conv, "logits": logits}[name].view(-1)[7] = value
        with pytest.raises(SnapshotError) as caught:
            to_arrays(state, logits, format)
        assert str(caught.value) == f"snapshot: {where} is not finite, expected numbers"


def test_what_is_asked_wrongly() -> None:
    state, logits = made_state()
    with pytest.raises(SnapshotError, match=r"^snapshot: the format is 'bf16', expected one of fp16, fp32, int8$"):
        to_arrays(state, logits, "bf16")
    two = Mamba2State(*(torch.cat([tensor, tensor], dim=1) for tensor in state))
    with pytest.raises(SnapshotError, match=r"^snapshot: a state of 2 sequences, expected one$"):
        to_arrays(two, logits, "fp32")
