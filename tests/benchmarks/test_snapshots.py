"""What benchmarks/snapshots.py measures: nothing where nothing is rounded, more where more is, at places that lie where they are said to."""

import pytest
import torch

from benchmarks import snapshots
from benchmarks.snapshots import EXACT, FORMATS, ONE_BIT, Place, followed, measure, one_bit_off, spread_places
from model.config import ConfigError, Mamba2Config
from model.network import Mamba2LM
from model.state import Mamba2State

TINY = Mamba2Config(d_model=32, n_layers=2, vocab_size=64, d_state=16, head_dim=16, n_heads=4)


@pytest.fixture
def network(random_network, monkeypatch: pytest.MonkeyPatch) -> Mamba2LM:
    monkeypatch.setattr(snapshots, "GAP", 8)
    monkeypatch.setattr(snapshots, "APART", 16)
    return random_network(TINY)


def stream(n: int, *, seed: int) -> list[int]:
    return torch.randint(0, TINY.vocab_size, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def test_coarser_numbers_lie_further_off(network: Mamba2LM) -> None:
    streams = [stream(80, seed=0), stream(70, seed=1)]
    places = spread_places(streams, before=32, n=4, steps=10)
    figures = measure(network, places, roundings=[1, 4], steps=10)
    assert {format: set(row) for format, row in figures.items()} == {
        format: {1} if format in (EXACT, ONE_BIT) else {1, 4} for format in FORMATS
    }
    assert figures[EXACT][1] == (0.0, 0.0, 1.0)
    assert 0 < figures[ONE_BIT][1].kl < figures["fp16"][1].kl < figures["int8"][1].kl < 0.1
    assert all(found.kl_worst >= found.kl for row in figures.values() for found in row.values())


@torch.no_grad()
def test_states_are_those_before_the_place(network: Mamba2LM) -> None:
    ids = stream(80, seed=2)
    for place, states in followed(network, [Place(ids, 32), Place(ids, 48)], back=2):
        assert len(states) == 3
        for back, (state, logits) in enumerate(reversed(states)):
            expected, whole = network(torch.tensor([ids[: place.end - 8 * back]]))
            assert (logits - expected[0, -1]).abs().max() < 1e-4
            assert (state.ssm - whole.ssm).abs().max() < 1e-4


def test_places_are_taken_from_the_texts_in_turn(network: Mamba2LM) -> None:
    streams = [list(range(60)), list(range(100))]
    places = spread_places(streams, before=32, n=4, steps=20)
    assert [(streams.index(place.ids), place.end) for place in places] == [(0, 32), (1, 32), (1, 48), (1, 64)]
    with pytest.raises(ConfigError, match="room for 5 places, expected 6"):
        spread_places(streams, before=32, n=6, steps=20)


def test_one_bit_is_one_bit() -> None:
    state = Mamba2State(torch.zeros(1, 1, 2, 3), torch.randn(1, 1, 2, 3, 4))
    state.ssm[0, 0, 0, 0] = 0
    moved, _ = one_bit_off(state, torch.zeros(2))
    difference = (moved.ssm - state.ssm).abs()
    assert difference.max() > 0 and (difference <= state.ssm.abs() * 2.0**-22).all()
