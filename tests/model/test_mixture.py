"""The mixture is a probability, is the model alone where nothing matched, and can be worked out by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.mixture import (
    AGREEMENT_EDGES,
    CONFIDENCE_EDGES,
    COUNT_EDGES,
    FAVOURITE_EDGES,
    FEATURES,
    LENGTH_EDGES,
    SOURCES,
    Gate,
    feature_bins,
    mix,
    read_gate,
)
from model.source import BUNDLED

VOCAB = 50


@dataclass(frozen=True)
class Found:
    length: int
    tokens: np.ndarray
    counts: np.ndarray


def found(length: int, counts: dict[int, int]) -> Found:
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return Found(length, np.array([t for t, _ in ordered], np.int32), np.array([c for _, c in ordered], np.int32))


NOTHING = found(0, {})


def gate_of(value: float) -> Gate:
    """Every table is `value` in its first feature and 0 in the others."""
    return Gate({s: {name: [value if name == "length" else 0.0] * size for name, size in FEATURES} for s in SOURCES})


def distribution(seed: int, sharpness: float = 3.0) -> np.ndarray:
    powers = np.exp(sharpness * np.random.default_rng(seed).standard_normal(VOCAB))
    return (powers / powers.sum()).astype(np.float32)


matches = st.one_of(
    st.just(NOTHING),
    st.builds(
        found,
        st.integers(1, 32),
        st.dictionaries(st.integers(0, VOCAB - 1), st.integers(1, 300), min_size=1, max_size=8),
    ),
)
gates = st.one_of(
    st.just(read_gate(BUNDLED / "gate.json")),
    st.floats(-50, 50).map(gate_of),
    st.integers(0, 99).map(
        lambda seed: Gate(
            {
                s: {n: list(np.random.default_rng(seed + size).normal(0, 4, size)) for n, size in FEATURES}
                for s in SOURCES
            }
        )
    ),
)


@given(st.integers(0, 99), st.floats(0, 30), matches, matches, gates)
def test_it_is_a_probability(seed: int, sharpness: float, buffer: Found, documents: Found, gate: Gate) -> None:
    model = distribution(seed, sharpness)
    before = model.copy()
    weights = gate.weights(model, [buffer, documents])
    mixed = mix(model, [buffer, documents], gate)
    assert abs(weights.sum() - 1) < 1e-9
    assert (weights >= 0).all()
    assert [weight == 0 for weight in weights[1:]] == [match.length == 0 for match in (buffer, documents)] or (
        weights[1:] < 1e-15
    ).any()
    assert abs(mixed.sum() - 1) < 1e-5
    assert (mixed >= 0).all()
    assert np.array_equal(model, before), "the model's distribution was written to"
    matched = {int(t) for match in (buffer, documents) for t in match.tokens}
    for token in range(VOCAB):
        if token not in matched:
            assert mixed[token] <= model[token] * (1 + 1e-6)


@given(st.integers(0, 99), gates)
def test_without_a_match_it_is_the_model(seed: int, gate: Gate) -> None:
    model = distribution(seed)
    mixed = mix(model, [NOTHING, NOTHING], gate)
    assert np.array_equal(mixed, model)
    assert mixed is not model


@pytest.mark.parametrize("value", [-2.0, 0.0, 1.5])
def test_a_mixture_worked_out_by_hand(value: float) -> None:
    model = np.full(VOCAB, 1 / VOCAB)
    mixed = mix(model, [found(3, {7: 3, 8: 1}), NOTHING], gate_of(value))
    share = math.exp(value) / (1 + math.exp(value))
    expected = (1 - share) * model
    expected[7] += share * 0.75
    expected[8] += share * 0.25
    assert np.allclose(mixed, expected)


def test_both_sources_share_with_the_model() -> None:
    weights = gate_of(0.0).weights(distribution(1), [found(1, {2: 1}), found(9, {3: 4})])
    assert np.allclose(weights, 1 / 3)


def test_huge_logits_do_not_overflow() -> None:
    mixed = mix(distribution(1), [found(5, {3: 2}), NOTHING], gate_of(5000.0))
    assert np.isclose(mixed[3], 1)


BINS = [
    # length, counts, the model's confidence and its probability of the favourite -> the rows of the five tables
    (1, {1: 1}, 0.0, 0.0, (0, 0, 4, 0, 0)),
    (2, {1: 1, 2: 1}, 0.1, 1e-4, (1, 1, 1, 1, 1)),
    (5, {1: 2, 2: 1}, 0.3, 0.05, (3, 2, 2, 2, 3)),
    (8, {1: 3, 2: 1}, 0.79, 0.1, (4, 2, 2, 3, 4)),
    (9, {1: 4, 2: 1}, 0.8, 0.4, (5, 3, 2, 4, 5)),
    (31, {1: 30, 2: 2}, 0.95, 0.8, (7, 4, 3, 5, 6)),
    (32, {1: 512}, 1.0, 1.0, (8, 5, 4, 5, 6)),
    (4, dict.fromkeys(range(10), 1), 0.5, 1e-2, (3, 4, 0, 3, 3)),
]


@pytest.mark.parametrize(("length", "counts", "confidence", "favourite", "expected"), BINS)
def test_rows_of_the_tables(
    length: int, counts: dict[int, int], confidence: float, favourite: float, expected: tuple[int, ...]
) -> None:
    assert feature_bins(found(length, counts), confidence, favourite) == expected


@given(matches.filter(lambda match: match.length > 0), st.floats(0, 1), st.floats(0, 1))
def test_every_match_has_a_row_in_every_table(match: Found, confidence: float, favourite: float) -> None:
    bins = feature_bins(match, confidence, favourite)
    assert all(0 <= row < size for row, (_, size) in zip(bins, FEATURES, strict=True))


def test_the_tables_have_a_row_for_each_edge() -> None:
    edges = (LENGTH_EDGES, COUNT_EDGES, AGREEMENT_EDGES, CONFIDENCE_EDGES, FAVOURITE_EDGES)
    assert [size for _, size in FEATURES] == [len(each) for each in edges]
