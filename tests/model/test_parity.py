"""One recurrence: our prefill, resume and step against each other and against transformers' `Mamba2ForCausalLM`."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Mamba2Config as HfConfig
from transformers import Mamba2ForCausalLM

from model import ssd
from model.config import Mamba2Config
from model.network import Mamba2LM
from model.state import Mamba2State, zero_state

TOLERANCE = 1e-4
VOCAB = 199
CONFIG = Mamba2Config(d_model=32, n_layers=3, vocab_size=VOCAB, d_state=16, head_dim=8, n_heads=8, scan_chunk=16)
SPLIT_LENGTH = 130
LONG_LENGTH = 600

Make = Callable[..., Mamba2LM]


def config_of(n_groups: int, tied: bool, **changes: object) -> Mamba2Config:
    return replace(CONFIG, n_groups=n_groups, tie_embeddings=tied, **changes)  # type: ignore[arg-type]


def reference(network: Mamba2LM, *, chunk_size: int = 32) -> Mamba2ForCausalLM:
    """transformers' model with the same weights, by way of the config that we would write to disk."""
    model = Mamba2ForCausalLM(HfConfig(**network.config.to_hf() | {"chunk_size": chunk_size}))
    model.load_state_dict(network.state_dict(), strict=True)
    return model.eval()


def ids_of(length: int, *, batch: int = 1, seed: int = 1) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def check_logits(network: Mamba2LM, ids: Tensor, *, chunk_size: int = 32) -> None:
    expected = reference(network, chunk_size=chunk_size)(ids, use_cache=False).logits
    found, _ = network(ids)
    assert expected.std() > 0.1, "logits so small that any difference would pass"
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE


def check_same(found: tuple[Tensor, Mamba2State], expected: tuple[Tensor, Mamba2State]) -> None:
    assert (found[0] - expected[0]).abs().max() <= TOLERANCE
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= TOLERANCE


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n_groups", [1, 2, 8])
def test_logits_are_those_of_transformers(random_network: Make, n_groups: int, tied: bool) -> None:
    network = random_network(config_of(n_groups, tied))
    for length in (1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 65, 100, 129):
        check_logits(network, ids_of(length, seed=length))
    check_logits(network, ids_of(37, batch=2))


@pytest.mark.parametrize("length", [255, 256, 257, 599, 600])
def test_long_sequences_are_those_of_transformers(random_network: Make, length: int) -> None:
    check_logits(random_network(config_of(2, False)), ids_of(length), chunk_size=256)


@pytest.mark.parametrize("limit", [(0.01, 0.05), (0.0, 0.02)])
def test_a_limit_of_the_step_size_is_that_of_transformers(random_network: Make, limit: tuple[float, float]) -> None:
    network = random_network(config_of(2, False, dt_limit=limit))
    check_logits(network, ids_of(70))
    unlimited = random_network(config_of(2, False))
    assert (network(ids_of(70))[0] - unlimited(ids_of(70))[0]).abs().max() > 10 * TOLERANCE, "the limit did nothing"


@pytest.mark.parametrize("n_groups", [1, 2, 8])
@torch.no_grad()
def test_resume_at_every_split(random_network: Make, n_groups: int) -> None:
    network = random_network(config_of(n_groups, False))
    ids = ids_of(SPLIT_LENGTH)
    expected = network(ids)
    assert (expected[0] - reference(network)(ids, use_cache=False).logits).abs().max() <= TOLERANCE
    for split in range(1, SPLIT_LENGTH):
        first, state = network(ids[:, :split])
        second, state = network(ids[:, split:], state)
        check_same((torch.cat([first, second], dim=1), state), expected)


@pytest.mark.parametrize("split", [1, 2, 3, 4, 15, 16, 17, 255, 256, 257, 300, 511, 597, 598, 599])
@torch.no_grad()
def test_resume_in_a_long_sequence(random_network: Make, split: int) -> None:
    network = random_network(config_of(8, True))
    ids = ids_of(LONG_LENGTH)
    first, state = network(ids[:, :split])
    second, state = network(ids[:, split:], state)
    check_same((torch.cat([first, second], dim=1), state), network(ids))


@pytest.mark.parametrize("prefill", [0, 1, 2, 3, 16, 50])
@torch.no_grad()
def test_single_steps_after_a_prefill(random_network: Make, prefill: int) -> None:
    network = random_network(config_of(2, False))
    ids = ids_of(90, batch=2)
    parts, state = [], zero_state(network.config, batch=2)
    if prefill:
        out, state = network(ids[:, :prefill], state)
        parts.append(out)
    for at in range(prefill, ids.shape[1]):
        out, state = network(ids[:, at : at + 1], state)
        parts.append(out)
    check_same((torch.cat(parts, dim=1), state), network(ids))


@pytest.mark.parametrize("block", [1, 2, 7, 64, 100, 1000])
@torch.no_grad()
def test_the_block_of_the_scan_changes_nothing(random_network: Make, block: int) -> None:
    ids, state = ids_of(100, batch=2), random_network(CONFIG)(ids_of(5, batch=2))[1]
    expected = random_network(CONFIG)(ids, state)
    check_same(random_network(replace(CONFIG, scan_chunk=block))(ids, state), expected)


@torch.no_grad()
def test_the_scan_is_the_plain_recurrence_in_float64() -> None:
    """S = exp(dt A) S + dt x B^T, y = S C, token by token, with slow and fast heads and strong inputs."""
    generator = torch.Generator().manual_seed(3)
    batch, length, heads, head_dim, groups, d_state = 2, 75, 4, 5, 2, 6

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, B, C = (
        noise(batch, length, heads, head_dim),
        noise(batch, length, groups, d_state),
        noise(batch, length, groups, d_state),
    )
    dt, A = noise(batch, length, heads).exp(), -torch.tensor([1e-4, 0.1, 1.0, 16.0])
    start = noise(batch, heads, head_dim, d_state)
    S, outputs = start.double(), []
    for t in range(length):
        b, c = (each[:, t].double().repeat_interleave(heads // groups, dim=1) for each in (B, C))
        decay = torch.exp(dt[:, t] * A).double()[..., None, None]
        S = decay * S + (dt[:, t, :, None] * x[:, t]).double()[..., None] * b[:, :, None]
        outputs.append((S * c[:, :, None]).sum(-1))
    expected = torch.stack(outputs, dim=1)
    for block in (1, 8, 64, 128):
        y, state = ssd.scan(x, dt, A, B, C, start, block=block)
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert (state - S).abs().max() <= 1e-4 * S.abs().max()


@pytest.mark.parametrize("length", [1, 2, 3, 40])
@torch.no_grad()
def test_a_state_is_never_written_to(random_network: Make, length: int) -> None:
    network = random_network(CONFIG)
    _, state = network(ids_of(20))
    before = Mamba2State(*(each.clone() for each in state))
    ids = ids_of(length)
    ids_before = ids.clone()
    _, after = network(ids, state)
    assert all(torch.equal(one, other) for one, other in zip(state, before, strict=True))
    assert torch.equal(ids, ids_before)
    shared = {each.untyped_storage().data_ptr() for each in state} & {
        each.untyped_storage().data_ptr() for each in after
    }
    assert not shared, "the next state lives in the memory of the one before"


@pytest.mark.parametrize("length", [1, 2, 3, 50])
@torch.no_grad()
def test_rows_of_a_batch_do_not_mix(random_network: Make, length: int) -> None:
    network = random_network(config_of(2, False))
    _, state = network(ids_of(30, batch=3))
    ids = ids_of(length, batch=3, seed=9)
    logits, after = network(ids, state)
    for row in range(3):
        alone = Mamba2State(*(each[:, row : row + 1] for each in state))
        check_same(
            (logits[row : row + 1], Mamba2State(*(each[:, row : row + 1] for each in after))),
            network(ids[row : row + 1], alone),
        )
    other = ids.clone()
    other[0] = (other[0] + 1) % VOCAB
    changed, _ = network(other, state)
    assert torch.equal(changed[1:], logits[1:])
    assert not torch.equal(changed[0], logits[0])


@torch.no_grad()
def test_last_only_is_the_last(random_network: Make) -> None:
    network = random_network(CONFIG)
    ids = ids_of(33)
    every, state = network(ids)
    last, same_state = network(ids, last_only=True)
    check_same((last, same_state), (every[:, -1:], state))


@torch.no_grad()
def test_logits_of_a_token_do_not_depend_on_later_ones(random_network: Make) -> None:
    network = random_network(CONFIG)
    ids = ids_of(60)
    other = ids.clone()
    other[:, 30:] = (other[:, 30:] + 1) % VOCAB
    found, expected = network(other)[0], network(ids)[0]
    assert (found[:, :30] - expected[:, :30]).abs().max() <= TOLERANCE
    assert (found[:, 30] - expected[:, 30]).abs().max() > TOLERANCE


@torch.no_grad()
def test_the_state_has_the_size_that_the_config_says(random_network: Make) -> None:
    network = random_network(config_of(8, False))
    _, state = network(ids_of(3))
    assert state.nbytes == network.config.state_bytes
    assert all(each.dtype == torch.float32 for each in state)


@torch.no_grad()
def test_a_long_life_stays_finite(random_network: Make) -> None:
    network = random_network(CONFIG)
    state, length = zero_state(CONFIG), 256
    for part in range(20):
        logits, state = network(ids_of(length, seed=part), state)
    assert logits.isfinite().all()
    assert all(each.isfinite().all() for each in state)
