"""The network on CUDA against the torch one, by logits and states: on a GPU, else in Triton's interpreter (test_cuda_interpreted.py runs this file so)."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed (it is part of codestral-lsp[cuda])", allow_module_level=True)
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU here: test_cuda_interpreted.py runs this file", allow_module_level=True)

from model import cuda
from model.config import CheckpointError, Mamba2Config
from model.cuda import Captured, CudaNetwork, build_cuda, padded_size, random_on_device, write_inputs
from model.network import Mamba2LM
from model.state import Mamba2State, zero_state

DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = 1e-4
VOCAB = 61
CONFIG = Mamba2Config(d_model=24, n_layers=2, vocab_size=VOCAB, d_state=16, head_dim=16, n_heads=2)
CONFIGS = {
    "plain": CONFIG,
    "groups": replace(CONFIG, n_heads=4, n_groups=2, tie_embeddings=True),
    "eight groups": replace(CONFIG, n_layers=1, n_heads=8, n_groups=8, head_dim=8),
    "wide heads": replace(CONFIG, n_layers=1, head_dim=128, d_state=64),
    "odd": replace(CONFIG, n_heads=3, head_dim=12, d_state=20, d_conv=3, dt_limit=(0.01, 0.05)),
}

Make = Callable[..., Mamba2LM]
Both = tuple[Mamba2LM, CudaNetwork]


@pytest.fixture(scope="module")
def both(random_network: Make) -> Callable[..., Both]:
    def make(config: Mamba2Config, dtype: torch.dtype = torch.float32) -> Both:
        network = random_network(config)
        return network, CudaNetwork(config, network.state_dict(), DEVICE, dtype=dtype)

    return make


def ids_of(length: int, *, batch: int = 1) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(length))


def here(state: Mamba2State) -> Mamba2State:
    return Mamba2State(*(tensor.to(DEVICE) for tensor in state))


def check_same(found: tuple[Tensor, Mamba2State], expected: tuple[Tensor, Mamba2State]) -> None:
    assert found[0].shape == expected[0].shape
    assert expected[0].std() > 0.1, "logits so small that any difference would pass"
    assert (found[0] - expected[0]).abs().max() <= TOLERANCE
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.shape == other.shape
        assert (one.cpu() - other).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_and_states_are_those_of_torch(both: Callable[..., Both], name: str) -> None:
    reference, network = both(CONFIGS[name])
    lengths = (
        [(1, 1), (5, 2)] if name == "eight groups" else [(1, 1), (2, 2), (5, 1), (33, 1)]
    )  # slow in the interpreter
    for length, batch in lengths:
        ids = ids_of(length, batch=batch)
        _, state = reference(ids_of(3, batch=batch))
        check_same(network(ids, here(state)), reference(ids, state))
    check_same(network(ids_of(4)), reference(ids_of(4)))


@torch.no_grad()
def test_projections_in_triton(random_network: Make) -> None:
    reference = random_network(replace(CONFIG, n_layers=1))
    weights = reference.state_dict()
    plain, network = (
        CudaNetwork(reference.config, weights, DEVICE, dtype=torch.float32, projections=kind)
        for kind in cuda.PROJECTIONS
    )
    assert network.numerics != plain.numerics
    for length in (1, 6, 33):
        check_same(network(ids_of(length), last_only=True), reference(ids_of(length), last_only=True))


@pytest.mark.parametrize("splits", [(1, 1, 1, 1, 30), (3, 31), (33, 1)])
@torch.no_grad()
def test_any_split_ends_in_the_same_place(both: Callable[..., Both], splits: tuple[int, ...]) -> None:
    """Steps, small chunks and the chunked scan hand the state to each other."""
    reference, network = both(CONFIG)
    ids = ids_of(sum(splits))
    parts, state = [], None
    for piece in ids.split(splits, dim=1):
        logits, state = network(piece, state)
        parts.append(logits)
    assert state is not None
    check_same((torch.cat(parts, dim=1), state), reference(ids))


@torch.no_grad()
def test_long_input_is_cut_into_blocks(both: Callable[..., Both], monkeypatch: pytest.MonkeyPatch) -> None:
    reference, network = both(replace(CONFIG, n_layers=1))
    monkeypatch.setattr(cuda, "BLOCK_TOKENS", 20)
    ids = ids_of(45)
    _, state = reference(ids_of(3))
    expected = reference(ids, state)
    given = here(state)
    check_same(network(ids, given), expected)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(given, state, strict=True))
    logits, after = network(ids, given, last_only=True)
    check_same((logits, after), (expected[0][:, -1:], expected[1]))


@torch.no_grad()
def test_a_state_is_a_value_unless_it_is_given_up(both: Callable[..., Both]) -> None:
    _, network = both(CONFIG)
    _, given = network(ids_of(5))
    for length in (1, 4):
        kept = Mamba2State(*(tensor.clone() for tensor in given))
        expected = network(ids_of(length), given)
        assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
        other = zero_state(CONFIG, device=DEVICE)
        for into in (other, kept):  # storage of something else, and the state's own
            _, after = network(ids_of(length), kept, into=into)
            assert [tensor.data_ptr() for tensor in after] == [tensor.data_ptr() for tensor in into]
            assert all(torch.equal(one, other) for one, other in zip(after, expected[1], strict=True))
    strided = Mamba2State(given.conv.transpose(2, 3).contiguous().transpose(2, 3), given.ssm)
    again = network(ids_of(4), strided, into=strided)  # the kernels cannot write there
    assert all(torch.equal(one, other) for one, other in zip(again[1], network(ids_of(4), given)[1], strict=True))


@torch.no_grad()
def test_16_bits_are_close_to_torch(both: Callable[..., Both]) -> None:
    dtype = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter multiplies bf16 as integers
    reference, network = both(replace(CONFIGS["groups"], n_layers=1), dtype)
    for length in (1, 6, 33):
        expected, _ = reference(ids_of(length))
        found, state = network(ids_of(length))
        assert found.dtype == torch.float32 and state.ssm.dtype == torch.float32
        assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.parametrize(("n_tokens", "size"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (256, 256), (257, 257)])
def test_the_size_of_a_padded_call(n_tokens: int, size: int) -> None:
    assert padded_size(n_tokens) == size


def test_inputs_hold_addresses_lengths_and_padded_ids() -> None:
    before, after = zero_state(CONFIG, batch=2, device=DEVICE), zero_state(CONFIG, batch=2, device=DEVICE)
    inputs = torch.full((4 + 2 + 2 * 4,), -1, device=DEVICE)
    write_inputs(inputs, torch.tensor([[1, 2, 3], [4, 5, 6]]), before, after)
    addresses = [tensor.data_ptr() for tensor in (*before, *after)]
    assert inputs.tolist() == [*addresses, 3, 3, 1, 2, 3, 0, 4, 5, 6, 0]


class Replayed:
    """What a CUDA graph does, on any device: the same work again, on whatever the inputs hold now, into the same logits."""

    def __init__(self, network: CudaNetwork, inputs: Tensor, logits: Tensor, batch: int) -> None:
        self.network, self.inputs, self.logits, self.batch = network, inputs, logits, batch
        self.count = 0

    def replay(self) -> None:
        self.count += 1
        last_only = self.logits.shape[1] == 1
        self.logits.copy_(self.network._forward(self.inputs, self.batch, last_only=last_only))


def replayed(network: CudaNetwork, size: int, rows: int) -> Replayed:
    inputs = torch.zeros(4 + 1 + size, dtype=torch.int64, device=DEVICE)
    graph = Replayed(network, inputs, torch.empty(1, rows, VOCAB, device=DEVICE), 1)
    network._graphs[1, size] = Captured(graph, inputs, graph.logits)  # pyright: ignore[reportArgumentType]
    return graph


@torch.no_grad()
def test_a_graph_changes_no_bit(both: Callable[..., Both]) -> None:
    config = replace(CONFIG, n_layers=1)
    (_, plain), (_, network) = both(config), both(config)
    graphs = {1: replayed(network, 1, 1), 4: replayed(network, 4, 4), 64: replayed(network, 64, 1)}
    results = []
    for runner in (plain, network):
        out, state = [], None
        for length, last_only in [(3, False), (1, True), (4, True), (2, False), (40, True), (33, False), (1, False)]:
            logits, state = runner(ids_of(length), state, last_only=last_only, into=state)
            assert logits.shape == (1, 1 if last_only else length, VOCAB)
            out.append(logits)
        results.append((torch.cat(out, dim=1), *state))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    # Size 2 has no graph; all 33 logits are more than the graph of 64 keeps.
    assert {size: graph.count for size, graph in graphs.items()} == {1: 2, 4: 2, 64: 1}


@torch.no_grad()
def test_warming_up_prepares_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "SIZES", (1, 2, 4))
    network = random_on_device(replace(CONFIG, n_layers=1), DEVICE, dtype=torch.float32)
    said = []
    network.warm_up(lambda done, total, what: said.append((done / total, what)))
    assert said == [(i / 3, "preparing the GPU") for i in range(3)]
    assert len(network._graphs) == (0 if INTERPRETED else 3)
    logits, _ = network(ids_of(3))
    assert logits.std() > 0.1 and torch.isfinite(logits).all()


@pytest.mark.skipif(INTERPRETED, reason="a graph needs a GPU")
@torch.no_grad()
def test_a_captured_graph_changes_no_bit(both: Callable[..., Both]) -> None:
    (_, plain), (_, network) = both(CONFIG), both(CONFIG)
    network.warm_up()
    results = []
    for runner in (plain, network):
        out, state = [], None
        for length in (3, 1, 1, 16, 200, 40, 1):
            logits, state = runner(ids_of(length), state, last_only=True)
            out.append(logits)
        results.append((torch.cat(out, dim=1), *state))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


class Stored:
    """A source whose tensors are a network's. `held` counts tensors that were read and are still alive."""

    def __init__(self, network: Mamba2LM) -> None:
        self.config = network.config
        self.tensors = {name: tensor.half() for name, tensor in network.state_dict().items()}
        self.stored_bytes = sum(tensor.nbytes for tensor in self.tensors.values())

    def names(self) -> list[str]:
        return [name for name in self.tensors if name != "lm_head.weight" or not self.config.tie_embeddings]

    def read(self, name: str) -> Tensor:
        return self.tensors[name].clone()


@pytest.mark.parametrize("name", ["plain", "groups"])
@torch.no_grad()
def test_it_is_built_from_a_source(random_network: Make, name: str) -> None:
    reference, said = random_network(CONFIGS[name]), []
    network = build_cuda(
        Stored(reference),  # pyright: ignore[reportArgumentType]
        device=DEVICE,
        dtype=torch.float32,
        progress=lambda done, total, what: said.append((done, total)),
        warm=False,
    )
    assert said[-1][0] == said[-1][1] or reference.config.tie_embeddings
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert (network(ids_of(3))[0] - reference(ids_of(3))[0]).abs().max() <= 0.01  # stored in fp16
    assert network.weight_bytes == reference.weight_bytes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("backbone.layers.1.mixer.D"), "tensor backbone.layers.1.mixer.D: found nothing"),
        (lambda tensors: tensors.update({"backbone.norm_f.weight": torch.ones(3)}), "norm_f.weight: found (3,)"),
    ],
)
def test_a_wrong_tensor_is_named(random_network: Make, change: Callable, said: str) -> None:
    tensors = dict(random_network(CONFIG).state_dict())
    change(tensors)
    with pytest.raises(CheckpointError) as caught:
        CudaNetwork(CONFIG, tensors, DEVICE)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_id_that_is_no_token_is_refused(both: Callable[..., Both]) -> None:
    _, network = both(CONFIG)
    for bad in (-1, VOCAB):
        with pytest.raises(IndexError, match="expected 0 to 60"):
            network(torch.tensor([[1, bad]]))


def test_numerics_name_what_bits_depend_on(both: Callable[..., Both]) -> None:
    _, network = both(CONFIG)
    for part in ("triton ", "torch ", "float32", "block 64", "256"):
        assert part in network.numerics
