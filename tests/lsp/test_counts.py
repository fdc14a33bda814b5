"""Sums and times as values: what is added up, what is one too many, and how exact a percentile is."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp.counts import GROWTH, MAX_BUCKET, Count, Summary, Sums, Time, bucket_of, ms_of, percentile_ms, summaries

DAY = "2026-08-01"


def test_sums_add_up() -> None:
    sums = Sums()
    for _ in range(2):
        sums.add(Sums(counts={Count(DAY, "go", "shown"): 2}, times={Time(DAY, "go", "model", 7): 1}, n_dropped=1))
    assert sums == Sums(counts={Count(DAY, "go", "shown"): 4}, times={Time(DAY, "go", "model", 7): 2}, n_dropped=2)
    assert bool(sums)
    assert not Sums()


def test_summaries_by_whatever() -> None:
    sums = Sums(
        counts={
            Count("1", "go", "shown"): 4,
            Count("1", "c", "shown"): 6,
            Count("2", "c", "accepted"): 5,
            Count("2", "c", "chars"): 90,
            Count("2", "c", "keys"): 7,
        },
        times={Time("1", "c", "model", 1): 1, Time("2", "c", "model", 1): 1, Time("2", "go", "typed", 2): 6},
    )
    whole = {"": Summary({"shown": 10, "accepted": 5, "chars": 90, "keys": 7}, {"model": {1: 2}, "typed": {2: 6}})}
    assert summaries(sums, lambda _: "") == whole
    assert (whole[""].acceptance, whole[""].chars_saved, whole[""].typed_share) == (0.5, 83, 0.75)
    assert summaries(sums, lambda key: key.day) == {
        "1": Summary({"shown": 10}, {"model": {1: 1}}),
        "2": Summary({"accepted": 5, "chars": 90, "keys": 7}, {"model": {1: 1}, "typed": {2: 6}}),
    }
    assert list(summaries(sums, lambda key: key.language)) == ["c", "go"]


def test_sums_are_bounded_and_what_is_dropped_is_counted() -> None:
    sums = Sums(most=3)
    for language in "abcde":
        sums.count(Count(DAY, language, "shown"))
    sums.count(Count(DAY, "a", "shown"))
    sums.time(Time(DAY, "a", "model", 1))
    assert (sum(sums.counts.values()), sums.times, sums.n_dropped) == (4, {}, 3)


@given(st.floats(0.0011, 1e6))
def test_a_time_is_read_back_within_four_in_a_hundred(ms: float) -> None:
    found = percentile_ms({bucket_of(ms): 1}, 50)
    assert found == pytest.approx(ms, rel=0.04)


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(0.0, 0), (-1.0, 0), (math.nan, 0), (-math.inf, 0), (math.inf, MAX_BUCKET), (1e300, MAX_BUCKET), (0.001, 0)],
)
def test_times_that_are_none(ms: float, bucket: int) -> None:
    assert bucket_of(ms) == bucket


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
@pytest.mark.parametrize("n", [1, 2, 10, 5000])
def test_percentiles_are_those_of_the_times_themselves_within_five_in_a_hundred(n: int, percent: float) -> None:
    times = [random.Random(i).lognormvariate(4.0, 1.2) for i in range(n)]
    buckets: dict[int, int] = {}
    for ms in times:
        buckets[bucket_of(ms)] = buckets.get(bucket_of(ms), 0) + 1
    exact = sorted(times)[math.ceil(percent / 100 * n) - 1]
    assert percentile_ms(buckets, percent) == pytest.approx(exact, rel=0.05)
    assert GROWTH**0.5 < 1.05


def test_a_bucket_that_none_can_be_is_read_all_the_same() -> None:
    assert ms_of(10**9) == ms_of(MAX_BUCKET)
    assert ms_of(-5) == ms_of(0)
