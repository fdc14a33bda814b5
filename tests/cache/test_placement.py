"""Where checkpoints stand, against all placements there are, against the plain recurrence, and in cases that can be done in the head."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.placement import GATHERED_EDITS, UNSEEN_SHARE, edit_shares, expected_loss, first_shares, place


def allowed(n_tokens: list[int], kept: tuple[int, ...], gap: int) -> bool:
    """Whether no checkpoint is nearer than `gap` to the one before it or to the start; the end alone is always allowed."""
    ends = [0, *(sum(n_tokens[: number + 1]) for number in kept)]
    return len(kept) == 1 or all(b - a >= gap for a, b in itertools.pairwise(ends))


def least_loss(n_tokens: list[int], shares: list[float], n_checkpoints: int, gap: int) -> float:
    """By trying everything."""
    last = len(n_tokens) - 1
    subsets = (
        (*inner, last)
        for size in range(min(n_checkpoints, len(n_tokens)))
        for inner in itertools.combinations(range(last), size)
    )
    return min(expected_loss(n_tokens, shares, kept) for kept in subsets if allowed(n_tokens, kept, gap))


def plain_recurrence(n_tokens: np.ndarray, shares: np.ndarray, n_checkpoints: int) -> float:
    """O(M N^2), straight from the definition of a segment's cost."""
    n = len(n_tokens)
    starts = np.concatenate([[0], np.cumsum(n_tokens)])
    segment = np.full((n + 1, n + 1), math.inf)  # [a, b]: documents a..b-1 behind a checkpoint at a
    for a in range(n):
        segment[a, a + 1 :] = np.cumsum(shares[a:] * (starts[a:n] - starts[a]))
    costs = np.full(n + 1, math.inf)
    costs[0] = 0.0
    least = math.inf
    for _ in range(n_checkpoints):
        costs = (costs[:, None] + segment).min(axis=0)
        least = min(least, costs[n])
    return least


documents = st.lists(
    st.tuples(st.integers(0, 40), st.one_of(st.just(0.0), st.floats(0, 5), st.sampled_from([1e-300, 1e300]))),
    min_size=1,
    max_size=8,
)


@settings(max_examples=500)
@given(documents, st.integers(1, 9), st.integers(0, 60), st.sampled_from([(1.0,), (2.0, 7.5)]))
def test_no_placement_is_better(documents: list, n_checkpoints: int, gap: int, n_edits: tuple) -> None:
    n_tokens, weights = [size for size, _ in documents], [weight for _, weight in documents]
    kept = place(n_tokens, weights, n_checkpoints, min_gap_tokens=gap, n_edits=n_edits)
    assert kept == sorted(set(kept)) and kept[-1] == len(n_tokens) - 1
    assert len(kept) <= n_checkpoints
    assert allowed(n_tokens, tuple(kept), gap)
    shares = first_shares(edit_shares(weights), n_edits)
    found = expected_loss(n_tokens, shares, kept)
    assert found == pytest.approx(least_loss(n_tokens, shares, n_checkpoints, gap), abs=1e-5)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n_checkpoints", [1, 2, 5, 16])
def test_the_hull_gives_the_value_of_the_plain_recurrence(seed: int, n_checkpoints: int) -> None:
    """At sizes where all placements are too many, with what real repositories have: sizes and edits over orders of magnitude, and empty files."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 150))
    n_tokens = rng.lognormal(6, 1.5, n).astype(int) * (rng.random(n) > 0.1)
    weights = rng.permutation(1 / np.arange(1, n + 1) ** 1.1)
    shares = first_shares(edit_shares(weights.tolist()), GATHERED_EDITS)
    found = expected_loss(n_tokens.tolist(), shares, place(n_tokens.tolist(), weights.tolist(), n_checkpoints))
    assert found == pytest.approx(plain_recurrence(n_tokens, np.array(shares), n_checkpoints), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_segments_cost_satisfies_the_quadrangle_inequality(seed: int) -> None:
    """What the hull's slopes rest on: w(a, c) + w(b, d) <= w(a, d) + w(b, c) for a <= b <= c <= d."""
    rng = np.random.default_rng(seed)
    n_tokens, shares = rng.integers(0, 50, 9), rng.dirichlet(np.ones(9))
    starts = np.concatenate([[0], np.cumsum(n_tokens)])

    def cost(a: int, b: int) -> float:
        return float((shares[a:b] * (starts[a:b] - starts[a])).sum())

    for a, b, c, d in itertools.combinations_with_replacement(range(9), 4):
        assert cost(a, c) + cost(b, d) <= cost(a, d) + cost(b, c) + 1e-12


@pytest.mark.parametrize(
    ("n_tokens", "weights", "n_checkpoints", "gap", "expected"),
    [
        pytest.param([], [], 4, 0, [], id="nothing"),
        pytest.param([7], [1], 4, 0, [0], id="one document"),
        pytest.param([10, 10, 10, 10], [1, 1, 1, 1], 1, 0, [3], id="the end comes first"),
        pytest.param([10, 10, 10, 10], [1, 1, 1, 1], 2, 0, [1, 3], id="even edits, the middle"),
        pytest.param([10, 10, 10, 10], [0, 0, 0, 9], 2, 0, [2, 3], id="before what is edited"),
        pytest.param([10, 10, 10, 10], [0, 9, 0, 0], 2, 0, [0, 3], id="before what is edited, early"),
        pytest.param([10, 10, 10, 10], [0, 9, 0, 0], 2, 11, [1, 3], id="not too near the start"),
        pytest.param([10, 10, 10, 10], [0, 0, 0, 9], 2, 20, [1, 3], id="not too near the end"),
        pytest.param([1, 1, 1], [5, 5, 5], 9, 100, [2], id="too short for more than the end"),
        pytest.param([10, 10], [1, 1], 9, 0, [0, 1], id="no more than documents"),
        pytest.param([0, 0, 10, 0, 0], [1, 1, 1, 1, 1], 9, 0, [2, 4], id="none that gains nothing"),
        pytest.param([10, 10, 10, 10], [0, 0, 0, 0], 2, 0, [1, 3], id="nobody has edited anything"),
        pytest.param(
            [10, 10, 10, 10], [1e308, 1e308, 1e308, 1e308], 2, 0, [1, 3], id="weights near the end of numbers"
        ),
    ],
)
def test_small_cases(n_tokens: list, weights: list, n_checkpoints: int, gap: int, expected: list[int]) -> None:
    assert place(n_tokens, weights, n_checkpoints, min_gap_tokens=gap, n_edits=(1.0,)) == expected


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], []),
        ([0, 0], [0.5, 0.5]),
        ([3, 0, 1, 0], [0.75 * (1 - UNSEEN_SHARE), 0, 0.25 * (1 - UNSEEN_SHARE), 0]),
    ],
)
def test_shares_are_smoothed(weights: list[float], expected: list[float]) -> None:
    even = UNSEEN_SHARE / len(weights) if any(weights) else 0.0
    assert edit_shares(weights) == pytest.approx([share + even for share in expected])


@pytest.mark.parametrize("n_edits", [1, 2, 3])
def test_the_first_of_several_edits_counts(n_edits: int) -> None:
    """Against all runs of edits there are."""
    shares = [0.5, 0.0, 0.3, 0.2]
    expected = [0.0] * len(shares)
    for run in itertools.product(range(len(shares)), repeat=n_edits):
        expected[min(run)] += math.prod(shares[i] for i in run)
    assert first_shares(shares, [float(n_edits)]) == pytest.approx(expected)


def test_several_numbers_of_edits_are_averaged() -> None:
    one, ten = (np.array(first_shares([0.5, 0.3, 0.2], [n])) for n in (1.0, 10.0))
    assert first_shares([0.5, 0.3, 0.2], [1.0, 10.0]) == pytest.approx((one + ten) / 2)


def test_the_more_edits_are_gathered_the_earlier_checkpoints_stand() -> None:
    n_tokens, weights = [10] * 20, [1.0] * 20
    kept = [place(n_tokens, weights, 3, n_edits=[n]) for n in (1.0, 3.0, 30.0)]
    assert kept[0] > kept[1] > kept[2]
    assert all(numbers[-1] == 19 for numbers in kept)


@pytest.mark.parametrize("n_edits", [(), (0.0,), (1.0, 0.5), (math.nan,), (math.inf,)])
def test_fewer_than_one_edit_is_refused(n_edits: tuple) -> None:
    with pytest.raises(ValueError, match="n_edits"):
        place([1], [1], 1, n_edits=n_edits)


@pytest.mark.parametrize(
    ("n_tokens", "weights", "n_checkpoints", "message"),
    [
        ([1, 2], [1], 1, "2 sizes and 1 weights"),
        ([1], [-1.0], 1, r"weight -1\.0"),
        ([1], [math.nan], 1, "weight nan"),
        ([1], [math.inf], 1, "weight inf"),
        ([-3], [1], 1, "n_tokens -3"),
        ([1], [1], 0, "n_checkpoints 0"),
    ],
)
def test_what_cannot_be_is_refused(n_tokens: list, weights: list, n_checkpoints: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place(n_tokens, weights, n_checkpoints)


def test_five_thousand_documents_take_linear_time() -> None:
    """Compared with a tenth of them in the same process, so that a slow machine does not matter."""

    def seconds(n: int) -> float:
        rng = np.random.default_rng(n)
        n_tokens, weights = rng.lognormal(6, 1, n).astype(int).tolist(), rng.zipf(2.1, n).tolist()
        times = []
        for _ in range(3):
            started = time.process_time()
            place(n_tokens, weights, 16, min_gap_tokens=512)
            times.append(time.process_time() - started)
        return min(times)

    small, large = seconds(500), seconds(5000)
    assert large < 30 * small, f"{small:.4f} s for 500 documents, {large:.4f} s for 5,000"
