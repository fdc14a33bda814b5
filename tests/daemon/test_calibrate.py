"""Calibration: the rule of choice, what is measured of a hole, and the process on a small job."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from daemon.bases import ground_of
from daemon.calibrate import (
    MIN_HOLES,
    Bench,
    Way,
    best_of,
    calibrate,
    gain,
    in_time,
    mean_and_error,
    profile_of,
    read_job,
    share_and_error,
    with_short_head,
)
from daemon.completion import Engine
from daemon.measure import Outcome, edit_similarity, measure, read_ground
from daemon.profile import profile_path, read_profile
from daemon.protocol import (
    CalibrationFailure,
    CalibrationHole,
    CalibrationProgress,
    CalibrationReset,
    CalibrationResult,
    CalibrationStart,
    CompletionRequest,
    Document,
    WindowSizes,
)
from model.checkpoint import LoadedModel
from model.config import ConfigError

PATIENCE_S = 100.0
SMALL, LARGE = WindowSizes(step=300, suffix_chars=100), WindowSizes(step=1200, suffix_chars=400)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# The rule of choice.


def outcomes(*similarities: float) -> list[Outcome]:
    return [Outcome(s == 1.0, s, -1.0, moved_tokens=1, moved_ms=1.0, key_tokens=1, key_ms=1.0) for s in similarities]


def noisy(seed: int, *, mean: float, spread: float, n: int) -> list[float]:
    rng = random.Random(seed)
    return [mean + spread * rng.uniform(-1, 1) for _ in range(n)]


A, B, C = Way("spm", 0), Way("instruct", 0), Way("plain", 0)
LEVEL = [0.5] * 40

# similarities of two challengers -> who is kept
CHOICES = [
    (LEVEL, LEVEL, A),
    ([0.6] * 40, LEVEL, B),
    ([0.6] * 40, [0.7] * 40, C),
    ([0.4] * 40, [0.3] * 40, A),
    ([0.5] * 39 + [1.0], LEVEL, A),  # one lucky hole is noise
    ([0.5] * 20 + [0.7] * 20, LEVEL, B),
    (noisy(1, mean=0.52, spread=0.4, n=40), LEVEL, A),
    (noisy(0, mean=0.80, spread=0.4, n=40), LEVEL, B),
]


@pytest.mark.parametrize(("one", "other", "kept"), CHOICES)
def test_the_default_is_kept_unless_another_is_ahead_by_more_than_the_noise(
    one: list[float], other: list[float], kept: Way
) -> None:
    assert best_of({A: outcomes(*LEVEL), B: outcomes(*one), C: outcomes(*other)}, A) == kept


def test_too_few_holes_choose_nothing() -> None:
    for n, kept in [(MIN_HOLES - 1, A), (MIN_HOLES, B)]:
        assert best_of({A: outcomes(*[0.1] * n), B: outcomes(*[0.9] * n)}, A) == kept


def test_equal_ways_seldom_beat_the_default() -> None:
    """Six challengers that are no better: in at most one of ten runs one is taken for better."""
    wrong = 0
    for run in range(200):
        ways = {Way("spm", n): outcomes(*noisy(1000 * run + n, mean=0.5, spread=0.5, n=40)) for n in range(7)}
        wrong += best_of(ways, Way("spm", 0)) != Way("spm", 0)
    assert wrong <= 20


def test_errors() -> None:
    assert mean_and_error([1.0, 2.0, 3.0, 4.0]) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert mean_and_error([1.0]) == (1.0, math.inf)
    assert gain(outcomes(0.5, 1.0), outcomes(0.25, 0.75)) == (0.25, 0.0)
    share, error = share_and_error([True] + [False] * 9)
    assert (share, error) == (0.1, pytest.approx(math.sqrt(3 / 14 * 11 / 14 / 14)))
    assert share_and_error([False] * 10)[1] > 0.05


# tokens of each size -> those that are tried, at a limit of 100
SIZES = [
    ([80, 20, 40, 90, 85], [0, 1, 2, 3, 4]),
    ([80, 20, 40, 190, 185], [0, 1, 2]),
    ([180, 20, 40, 290, 285], [2, 1]),
    ([480, 120, 240, 890, 685], [1]),
    ([480], [0]),
]


@pytest.mark.parametrize(("tokens", "expected"), SIZES)
def test_windows_that_a_machine_cannot_feed_in_time_are_not_tried(tokens: list[float], expected: list[int]) -> None:
    assert in_time(tokens, limit=100) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 1.0), ("abc", "abc", 1.0), ("abc", "", 0.0), ("abc", "axc", 2 / 3), ("kitten", "sitting", 4 / 7)],
)
def test_edit_similarity(a: str, b: str, expected: float) -> None:
    assert edit_similarity(a, b) == pytest.approx(expected)
    assert edit_similarity(b, a) == pytest.approx(expected)


def test_a_long_head_is_cut_at_a_line() -> None:
    for n_chars, head in [(100, "aaa\nbbb\nccc\n"), (12, "aaa\nbbb\nccc\n"), (11, "bbb\nccc\n"), (5, "ccc\n"), (0, "")]:
        request = CompletionRequest(prompt="x", head="aaa\nbbb\nccc\n")
        assert with_short_head(request, n_chars=n_chars).head == head


# Measuring.

TEXT = "".join(f"def value_{n}(first, second):\n    return first * {n} + second\n\n" for n in range(30))


def hole_at(n: int, *, cut: str = "first * ") -> CalibrationHole:
    text = TEXT.replace("value_", f"value_of_{n}_")
    at = 0
    for _ in range(n + 6):
        at = text.index(f"return {cut}", at) + len(f"return {cut}") - 2
    end = text.index("\n", at)
    below = text[end + 1 : end + 400]
    requests = [
        CompletionRequest(prompt=text[max(0, at - size) : at], suffix=below[:size], path=f"part_{n}.py", max_tokens=12)
        for size in (300, 600)
    ]
    return CalibrationHole(truth=text[at:end], where="token", requests=requests)


HOLES = [hole_at(n) for n in range(3)]


def test_one_hole(bundled: LoadedModel, documents: list[Document]) -> None:
    for strategy in ("spm", "instruct", "plain"):
        engine = Engine(bundled, store_budget_bytes=1 << 28, strategy=strategy)
        reading = read_ground(engine, ground_of(engine.prompter, documents, max_tokens=2000))
        fed = engine.tokens_fed
        made = measure(engine, reading, HOLES[0].requests[0], HOLES[0].truth)
        assert 0 < engine.tokens_fed - fed < 1000  # the context was not read again
        assert 0 <= made.similarity <= 1
        assert made.exact == (made.similarity == 1.0)
        assert made.log_probability is not None
        assert -20 < made.log_probability < 0
        assert 0 <= made.key_tokens <= 16 < made.moved_tokens
        assert made.key_ms > 0 < made.moved_ms


def test_a_truth_is_likelier_than_its_reverse(bundled: LoadedModel, documents: list[Document]) -> None:
    engine = Engine(bundled, store_budget_bytes=1 << 28)
    reading = read_ground(engine, ground_of(engine.prompter, documents, max_tokens=2000))
    request, truth = HOLES[0].requests[0], HOLES[0].truth
    forward, backward = (measure(engine, reading, request, text).log_probability for text in (truth, truth[::-1]))
    assert forward is not None is not backward
    assert forward > backward


def test_a_store_too_small_for_a_context_reads_it_once(bundled: LoadedModel, documents: list[Document]) -> None:
    engine = Engine(bundled, store_budget_bytes=8_000_000, strategy="spm")
    reading = read_ground(engine, ground_of(engine.prompter, documents, max_tokens=2000))
    for hole in HOLES:
        fed = engine.tokens_fed
        measure(engine, reading, hole.requests[0], hole.truth)
        assert engine.tokens_fed - fed < reading.n_tokens


def test_a_calibration(bundled: LoadedModel, documents: list[Document]) -> None:
    """Each strategy at the first window, then the winner at the other; each row has figures."""
    said: list[tuple[str, int, int]] = []
    start = CalibrationStart(windows=[SMALL, LARGE], documents=documents)
    bench = Bench(bundled, start, HOLES, lambda *news: said.append(news))
    result = calibrate(bench)
    ways = [(row.strategy, row.window) for row in result.rows]
    assert ways == [("spm", SMALL), ("instruct", SMALL), ("plain", SMALL), ("spm", LARGE)]
    assert (result.strategy, result.window) == (result.default_strategy, result.default_window) == ("spm", SMALL)
    assert result.notes[-1] == "3 holes are too few to choose by: fewer than 20; nothing was kept"
    assert result.feed_tokens_per_s > 100
    assert result.decode_tokens_per_s > 10
    assert result.context_tokens > 500
    assert {row.n_holes for row in result.rows} == {3}
    assert max(row.tokens_per_key for row in result.rows) <= 16
    assert [done for _, done, total in said if total] == list(range(12))
    assert msgspec.json.decode(msgspec.json.encode(result), type=CalibrationResult) == result
    kept = profile_of(bench, result)
    assert kept.is_of(bundled)
    assert (kept.strategy, kept.window, kept.n_holes) == ("spm", SMALL, 3)


def test_a_model_with_fewer_control_tokens_is_asked_as_it_can_be(
    bundled: LoadedModel, documents: list[Document]
) -> None:
    tokenizer = object.__new__(type(bundled.tokenizer))
    tokenizer.__dict__.update(bundled.tokenizer.__dict__)
    tokenizer.control = replace(tokenizer.control, prefix=None, inst=None)
    start = CalibrationStart(windows=[SMALL], documents=documents)
    result = calibrate(Bench(replace(bundled, tokenizer=tokenizer), start, HOLES, lambda *_: None))
    assert [row.strategy for row in result.rows] == ["plain"]
    assert result.notes[0].endswith("spm, instruct")


# What comes in on stdin.
START = msgspec.json.encode(CalibrationStart(windows=[SMALL, LARGE], documents=[]))
HOLE = msgspec.json.encode(HOLES[0])
WRONG = [
    ([], "stdin, line 1: Input data was truncated, expected a CalibrationStart"),
    ([b"{}"], "stdin, line 1: Object missing required field `windows`, expected a CalibrationStart"),
    ([START], "stdin: 0 holes and 2 window sizes, expected at least one each"),
    ([START, HOLE, b"x"], "stdin, line 3: "),
    ([START, b"{}"], "stdin, line 2: "),
    ([START, HOLE.replace(b'"requests":[', b'"requests":[],"x":[')], "stdin, line 2: 0 requests, truth '* 5 + second'"),
    (
        [START, msgspec.json.encode(msgspec.structs.replace(HOLES[0], truth=" "))],
        "stdin, line 2: 2 requests, truth ' '",
    ),
]


@pytest.mark.parametrize(("lines", "said"), WRONG)
def test_what_is_no_job_is_one_line(lines: list[bytes], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_job(lines)
    assert str(refusal.value).startswith(said)
    assert "\n" not in str(refusal.value)


def test_a_job_comes_as_it_was_sent() -> None:
    start, holes = read_job([START, *map(msgspec.json.encode, HOLES)])
    assert (start.windows, holes) == ([SMALL, LARGE], HOLES)


# The process.


def process(cache: Path, *flags: str) -> subprocess.Popen:
    environment = {**os.environ, "CODESTRAL_LSP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-I", "-m", "daemon.calibrate", "--threads", "1", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def news_of(output: bytes) -> list[CalibrationProgress | CalibrationResult | CalibrationFailure]:
    kinds = CalibrationProgress | CalibrationResult | CalibrationFailure
    return [msgspec.json.decode(line, type=kinds) for line in output.splitlines()]


def test_the_process_keeps_what_it_finds(cache: Path, bundled: LoadedModel, documents: list[Document]) -> None:
    start = msgspec.json.encode(CalibrationStart(windows=[SMALL], documents=documents))
    few = b"\n".join([start, *(msgspec.json.encode(hole) for hole in one_window(HOLES[:2]))])
    output, complaints = process(cache).communicate(few, timeout=PATIENCE_S)
    result = news_of(output)[-1]
    assert isinstance(result, CalibrationResult), complaints
    assert (result.profile, read_profile(bundled.digest)) == ("", None)
    enough = b"\n".join([start, *(msgspec.json.encode(hole) for hole in one_window(HOLES[:2] * (MIN_HOLES // 2)))])
    output, complaints = process(cache).communicate(enough, timeout=PATIENCE_S)
    *progress, result = news_of(output)
    assert isinstance(result, CalibrationResult), complaints
    assert all(isinstance(each, CalibrationProgress) for each in progress)
    kept = read_profile(bundled.digest)
    assert kept is not None
    assert (result.profile, kept.strategy, kept.n_holes) == (str(profile_path(bundled.digest)), "spm", 20)
    assert json.loads(Path(result.profile).read_text())["window"] == {"step": 300, "suffix_chars": 100}
    output, _ = process(cache, "--reset").communicate(b"", timeout=PATIENCE_S)
    assert msgspec.json.decode(output, type=CalibrationReset) == CalibrationReset(
        model="bundled", profile=result.profile, was_there=True
    )
    assert read_profile(bundled.digest) is None


def one_window(holes: list[CalibrationHole]) -> list[CalibrationHole]:
    return [msgspec.structs.replace(hole, requests=hole.requests[:1]) for hole in holes]


@pytest.mark.parametrize(
    ("flags", "job", "said"),
    [
        ((), b"x\n", "stdin, line 1: "),
        (("--model", "/nowhere"), START + b"\n" + HOLE, "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_the_last_word(cache: Path, flags: tuple[str, ...], job: bytes, said: str) -> None:
    started = process(cache, *flags)
    output, complaints = started.communicate(job, timeout=PATIENCE_S)
    failure = news_of(output)[-1]
    assert isinstance(failure, CalibrationFailure), complaints
    assert failure.message.startswith(said)
    assert "\n" not in failure.message
    assert started.returncode == 1
    assert not (cache / "profiles").exists()


@pytest.mark.parametrize("end", ["interrupted", "abandoned"])
def test_an_interrupted_process_keeps_nothing(cache: Path, documents: list[Document], end: str) -> None:
    start = msgspec.json.encode(CalibrationStart(windows=[SMALL, LARGE], documents=documents))
    started = process(cache)
    assert started.stdin is not None and started.stdout is not None and started.stderr is not None
    with started.stdin as stdin:
        stdin.write(b"\n".join([start, *(HOLE for _ in range(400))]))
    while b"asking as" not in started.stdout.readline():
        assert started.poll() is None, started.stderr.read()
    if end == "interrupted":
        started.send_signal(signal.SIGINT)
    else:
        started.stdout.close()
    assert started.wait(PATIENCE_S) == 130
    assert b"Traceback" not in started.stderr.read()
    assert not (cache / "profiles").exists()
    started.stderr.close()
    started.stdout.close()


def test_speeds_are_of_the_model(random_network: Callable, bundled: LoadedModel) -> None:
    """A slower network has slower figures; both calls give what a plain timing gives, roughly."""
    from daemon.measure import decode_speed, feed_speed

    class Slow:
        config, numerics, weight_bytes, any_cut = bundled.config, "slow", 0, False

        def __call__(self, ids: torch.Tensor, state=None, *, last_only: bool = False, into=None):
            time.sleep(0.02)  # what makes it the slower one
            return bundled.network(ids, state, last_only=last_only)

    engine = Engine(replace(bundled, network=Slow()), store_budget_bytes=0)  # type: ignore[arg-type]
    ids = bundled.tokenizer.encode(TEXT)
    assert feed_speed(engine, ids) < 256 / 0.02
    assert decode_speed(engine, ids) < 1 / 0.02
    assert feed_speed(engine, []) > 10
