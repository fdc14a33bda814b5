"""The native kernels: every instruction set that runs here, every precision, odd shapes, any cut into calls."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from model.build import shapes_of, torch_network
from model.config import Mamba2Config
from model.native import NativeLM, instruction_sets, why_not
from model.network import Mamba2LM
from model.packed import PackedMatrix, pack, quantise_activations, unpack
from model.packed_file import is_projection, kind_of
from model.state import Mamba2State, zero_state

pytestmark = pytest.mark.skipif(not instruction_sets(), reason="the kernels were not built: no C++ compiler")
Make = Callable[..., Mamba2LM]

SHAPES = {
    "codestral's ratios": {"d_model": 128, "n_heads": 16, "head_dim": 16, "d_state": 32, "n_groups": 8},
    "codestral's heads": {"d_model": 64, "n_heads": 8, "head_dim": 64, "d_state": 128, "n_groups": 8},
    "one group, wide state": {"d_model": 80, "n_heads": 3, "head_dim": 128, "d_state": 256, "n_groups": 1},
    "narrow": {"d_model": 16, "n_heads": 2, "head_dim": 32, "d_state": 16, "n_groups": 2, "vocab_size": 33},
    "nothing round": {
        "d_model": 48,
        "n_heads": 5,
        "head_dim": 48,
        "d_state": 48,
        "n_groups": 5,
        "d_conv": 3,
        "vocab_size": 77,
    },
}
# Largest difference of a logit (they are of size 1) from torch with the same packed weights. int8 and int4 are exact but where the fp32 sums before a
# rounding differ in their last bit and an activation stands just between two steps; in bf16 torch rounds the sums too.
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-1, "int8": 5e-2, "int4": 1e-1}


def network_of(random_network: Make, shape: str) -> Mamba2LM:
    return random_network(Mamba2Config(**({"n_layers": 3, "vocab_size": 100} | SHAPES[shape])))


def packed(network: Mamba2LM, precision: str) -> dict[str, torch.Tensor | PackedMatrix]:
    state = network.state_dict()
    return {
        n: pack(state[n], kind_of(n, precision)) if is_projection(n) else state[n] for n in shapes_of(network.config)
    }


def tokens(network: Mamba2LM, n: int, *, batch: int = 1) -> torch.Tensor:
    return torch.randint(0, network.config.vocab_size, (batch, n), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("shape", list(SHAPES))
@torch.no_grad()
def test_parity_with_torch(shape: str, precision: str, isa: str, random_network: Make) -> None:
    network = network_of(random_network, shape)
    tensors = packed(network, precision)
    reference = torch_network(network.config, tensors, precision) if precision != "fp32" else network
    native = NativeLM(network.config, tensors, precision=precision, isa=isa, threads=2)
    ids = tokens(network, 45, batch=2)
    expected, state = reference(ids)
    found, found_state = native(ids)
    difference = (found - expected).abs()
    assert difference.max() < TOLERANCE[precision]
    assert difference.mean() < TOLERANCE[precision] / 10
    assert (found_state.conv - state.conv).abs().max() < TOLERANCE[precision]
    assert found_state.ssm.shape == state.ssm.shape
    assert (found_state.ssm - state.ssm).abs().max() < TOLERANCE[precision]


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("precision", list(TOLERANCE))
@torch.no_grad()
def test_any_cut_and_any_number_of_threads_give_the_same_bits(precision: str, isa: str, random_network: Make) -> None:
    network = network_of(random_network, "codestral's heads")
    tensors = packed(network, precision)
    one, three = (NativeLM(network.config, tensors, precision=precision, isa=isa, threads=n) for n in (1, 3))
    ids = tokens(network, 600)  # more than one block
    logits, end = one(ids)
    for cuts in ([600], [1] * 40 + [560], [7, 1, 12, 13, 96, 97, 374], [299, 301]):
        state, parts = None, []
        for part in ids.split(cuts, dim=1):
            out, state = three(part, state)
            parts.append(out)
        assert torch.equal(torch.cat(parts, dim=1), logits)
        assert state is not None and torch.equal(state.ssm, end.ssm) and torch.equal(state.conv, end.conv)
    last, _ = three(ids, last_only=True)
    assert torch.equal(last[:, 0], logits[:, -1])


@torch.no_grad()
def test_sequences_of_a_batch_do_not_touch_each_other(random_network: Make) -> None:
    network = network_of(random_network, "codestral's ratios")
    native = NativeLM(network.config, packed(network, "int8"), precision="int8", threads=2)
    ids = tokens(network, 300, batch=3)
    first, state = native(ids[:, :170])
    second, end = native(ids[:, 170:], state)
    for i in range(3):
        alone, alone_end = native(ids[i : i + 1])
        assert torch.equal(torch.cat([first, second], dim=1)[i], alone[0])
        assert torch.equal(end.ssm[:, i], alone_end.ssm[:, 0])
        assert torch.equal(end.conv[:, i], alone_end.conv[:, 0])


@torch.no_grad()
def test_a_state_is_written_to_only_where_the_caller_gives_it_up(random_network: Make) -> None:
    network = network_of(random_network, "codestral's ratios")
    native = NativeLM(network.config, packed(network, "fp32"), precision="fp32", threads=1)
    _, state = native(tokens(network, 20))
    kept = Mamba2State(state.conv.clone(), state.ssm.clone())
    more = tokens(network, 5)
    logits, after = native(more, state)
    assert torch.equal(state.ssm, kept.ssm) and torch.equal(state.conv, kept.conv)
    again, same = native(more, state, into=state)
    assert same.ssm.data_ptr() == state.ssm.data_ptr() and same.conv.data_ptr() == state.conv.data_ptr()
    assert torch.equal(again, logits) and torch.equal(same.ssm, after.ssm)
    # A state of torch has another order in memory: it is read all the same, and not written to.
    foreign = Mamba2State(kept.conv.clone(), kept.ssm.contiguous())
    third, new = native(more, foreign, into=foreign)
    assert torch.equal(third, logits) and torch.equal(foreign.ssm, kept.ssm) and torch.equal(new.ssm, after.ssm)


@torch.no_grad()
def test_nothing_read_is_a_state_of_zeros(random_network: Make) -> None:
    network = network_of(random_network, "nothing round")
    native = NativeLM(network.config, packed(network, "fp32"), precision="fp32")
    ids = tokens(network, 3)
    assert torch.equal(native(ids)[0], native(ids, zero_state(network.config))[0])


def test_what_cannot_run_is_said(random_network: Make) -> None:
    network = network_of(random_network, "narrow")
    native = NativeLM(network.config, packed(network, "fp32"), precision="fp32")
    with pytest.raises(ValueError, match="token ids up to 33, expected 0 to 32"):
        native(torch.tensor([[1, 33]]))
    with pytest.raises(ValueError, match="token ids"):
        native(torch.tensor([[-1]]))
    with pytest.raises(ValueError, match="instruction set is 'sse9', expected one of"):
        NativeLM(network.config, packed(network, "fp32"), precision="fp32", isa="sse9")
    small = Mamba2Config(d_model=64, n_layers=1, vocab_size=9, n_heads=2, head_dim=24, d_state=16)
    assert why_not(small) == "head_dim is 24, expected a multiple of 16"


def test_what_a_step_reads(random_network: Make) -> None:
    network = network_of(random_network, "codestral's ratios")
    c = network.config
    native = NativeLM(c, packed(network, "int8"), precision="int8")
    # int8 and one fp16 scale for 64 of them; rows padded to 16.
    assert (c.in_proj_dim, c.d_model, c.d_inner, c.vocab_size) == (1040, 128, 256, 100)
    values = c.n_layers * (1040 * 128 + 128 * 256) + 112 * 128
    assert native.weight_bytes == native.read_weights() == values + 2 * values // 64
    native(tokens(network, 3))
    assert set(native.profile()) == {"norm", "in_proj", "conv", "scan", "gate", "out_proj", "head"}
    assert 0 < sum(native.profile().values()) <= native.last_call_s


@torch.no_grad()
def test_the_fallback_rounds_what_the_kernels_round(random_network: Make) -> None:
    """A network whose linear layers are fakes of the packed ones, made another way than model.packed_linear."""
    network = network_of(random_network, "codestral's heads")
    fake = copy.deepcopy(network)
    for name, module in fake.named_modules():
        if isinstance(module, nn.Linear):
            kind = kind_of(f"{name}.weight", "int4")
            module.weight = nn.Parameter(unpack(pack(module.weight, kind)), requires_grad=False)
            module.register_forward_pre_hook(lambda _, inputs: (quantise_activations(inputs[0]),))
    ids = tokens(network, 30)
    found = torch_network(network.config, packed(network, "int4"), "int4")
    assert torch.equal(found(ids)[0], fake(ids)[0])
    assert "int4" in found.numerics
