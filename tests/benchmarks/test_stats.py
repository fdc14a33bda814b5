"""What becomes of samples: quiet rounds, ratios within a round, tables and the JSON line."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import stats
from benchmarks.peers import PeerError, Work, quantized_path, run_program
from benchmarks.stats import Rounds, Sample, Spread, interleave, nested, quietest, rounded, spread, table


def samples(*values: tuple[float, float], others: tuple[float, ...] = ()) -> Rounds:
    """Rounds of (a, b), quiet unless `others` says how busy each round was."""
    noise = others or (0.0,) * len(values)
    return Rounds(
        tuple({"a": Sample(a, n), "b": Sample(b, n)} for (a, b), n in zip(values, noise, strict=True)), noisy=0
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], Spread(3.0, 3.0, 3.0)),
        ([5.0, 1.0, 3.0], Spread(3.0, 1.0, 5.0)),
        ([4.0, 1.0, 3.0, 2.0], Spread(2.5, 1.0, 4.0)),
    ],
)
def test_a_spread_is_the_median_and_the_extremes(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was four times slower in the second round, for both; medians of each alone would say 10 / 3.
    found = samples((1.0, 3.0), (4.0, 12.0), (2.0, 10.0))
    assert found.ratio("b", "a") == Spread(3.0, 3.0, 5.0)
    assert found.spread("b") == Spread(10.0, 3.0, 12.0)


@pytest.mark.parametrize(
    ("others", "rounds", "expected"),
    [
        ((0.0, 0.9, 0.1, 0.2), 2, [0, 2]),
        ((0.5, 0.4, 0.3, 0.2), 2, [2, 3]),
        ((0.2, 0.2), 1, [0]),
        ((0.2,), 3, [0]),
    ],
)
def test_the_quietest_rounds_count_in_their_order(others: tuple, rounds: int, expected: list[int]) -> None:
    taken = samples(*((float(i), 1.0) for i in range(len(others))), others=others).samples
    assert [int(chosen["a"].value) for chosen in quietest(taken, rounds)] == expected


class Machine:
    """A counter of what others use: each look at it moves it on by what the script says for the sample at hand."""

    def __init__(self, script: list[float]) -> None:
        self.script, self.total, self.looks = script, 0.0, 0

    def busy_elsewhere_s(self) -> float:
        if self.looks % 2 == 1:  # the second look, after a sample
            self.total += self.script[self.looks // 2 % len(self.script)]
        self.looks += 1
        return self.total


@pytest.mark.parametrize(
    ("script", "rounds", "spare", "order", "noisy"),
    [
        ([0.0], 3, 2, "ab ba ab", 0),
        ([0.0, 0.0, 9.0, 0.0, 0.0, 0.0], 2, 2, "ab ba ab", 0),  # the second round was noisy: one more
        ([9.0], 2, 1, "ab ba ab", 2),  # never quiet: the spare one too, then it ends
        ([9.0], 2, 0, "ab ba", 2),
    ],
)
def test_rounds_turn_and_noisy_ones_are_taken_again(
    script: list[float], rounds: int, spare: int, order: str, noisy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "busy_elsewhere_s", Machine(script).busy_elsewhere_s)
    ran: list[str] = []

    def contestant(name: str):
        def run() -> float:
            ran.append(name)
            return float(len(ran))

        return run

    contestants = {name: contestant(name) for name in "ab"}
    found = interleave(contestants, rounds=rounds, spare_rounds=spare, patience_s=0)
    assert "".join(ran) == order.replace(" ", "")
    assert (len(found.samples), found.noisy) == (rounds, noisy)


def test_what_others_use_is_no_less_than_nothing_and_never_ours() -> None:
    before = stats.busy_elsewhere_s()
    sum(i * i for i in range(2_000_000))  # ours: must not count
    assert stats.busy_elsewhere_s() - before > -0.1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1234.56, 1235.0),
        (0.000123456, 0.0001235),
        (3, 3),
        (None, None),
        ("text", "text"),
        (Spread(1.23456, 1.0, 2.0), [1.235, 1.0, 2.0]),
        ({"a": (1.00004, {"b": 2.00009})}, {"a": [1.0, {"b": 2.0}]}),
    ],
)
def test_numbers_are_rounded_for_people(value: object, expected: object) -> None:
    assert rounded(value) == expected


def test_paths_become_nested_objects_and_the_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    tree = nested({("s", "int4", "8"): 2.71828, ("s", "int4", "16"): 2.5, ("c8", "int8"): None})
    assert tree == {"s": {"int4": {"8": 2.718, "16": 2.5}}, "c8": {"int8": None}}
    stats.print_json({"feed_ratio": tree})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"feed_ratio": tree}
    with pytest.raises(ValueError, match="JSON"):
        stats.print_json({"feed_ratio": float("nan")})


def test_a_table_lines_up() -> None:
    assert table(["name", "ms"], [["feed", 1.25], ["decode 1", "10.00"]]).split("\n") == [
        "| name     |    ms |",
        "| -------- | ----: |",
        "| feed     |  1.25 |",
        "| decode 1 | 10.00 |",
    ]


@pytest.mark.parametrize(
    ("s_per_token", "expected"), [(0.001, 38), (1e-6, 100), (1.0, 1)], ids=["fits", "at most 100", "at least 1"]
)
def test_a_sample_lasts_about_as_long_as_wanted(s_per_token: float, expected: int) -> None:
    assert Work("feed", 8, 3).lasting(0.3, s_per_token=s_per_token) == Work("feed", 8, expected)


@pytest.mark.parametrize(
    ("kind", "pure", "expected"),
    [
        ("BF16", False, "s-BF16.gguf"),
        ("BF16", True, "s-BF16.gguf"),
        ("Q4_0", False, "s-Q4_0.gguf"),
        ("Q4_0", True, "s-pure-Q4_0.gguf"),
    ],
)
def test_where_a_peers_weights_lie(kind: str, pure: bool, expected: str) -> None:
    assert quantized_path(Path("a", "s-BF16.gguf"), kind, pure=pure) == Path("a", expected)


PROGRAM = "import os, sys; print('OMP_NUM_THREADS' in os.environ); big = bytearray(50_000_000); {rest}"


def test_a_program_tells_what_it_printed_and_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out, peak_bytes = run_program(
        [sys.executable, "-c", PROGRAM.format(rest="__import__('time').sleep(0.1)")], watch_memory=True
    )
    assert out == "False\n"
    assert 50e6 < peak_bytes < 100e6  # ours is larger, and not counted


@pytest.mark.parametrize(
    ("rest", "timeout_s", "said"),
    [
        ("sys.exit('first\\nlast words')", None, "ended with 1: last words"),
        ("sys.exit(3)", None, "ended with 3: no word"),
        ("__import__('time').sleep(60)", 0.5, "took more than 0.5 s"),
    ],
)
def test_a_program_that_fails_is_one_line(rest: str, timeout_s: float | None, said: str) -> None:
    for watch_memory in (False, True):
        with pytest.raises(PeerError) as caught:
            run_program(
                [sys.executable, "-c", PROGRAM.format(rest=rest)], timeout_s=timeout_s, watch_memory=watch_memory
            )
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
