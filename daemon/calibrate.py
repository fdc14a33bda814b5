"""Which way of asking fills the holes of a repository best, and how fast this machine is: measured, chosen, kept as the model's profile.

    python -I -m daemon.calibrate --model bundled  < one CalibrationStart and then CalibrationHoles, as JSON lines

Writes CalibrationProgress lines and at the end one CalibrationResult, or a CalibrationFailure and status 1. The profile is written last, whole or not at all,
and of fewer than MIN_HOLES holes not at all. With --reset it reads nothing, removes the model's profile and writes one CalibrationReset.
`lsp/calibrate.py` cuts the holes, starts this and shows what it says. Knows: which ways there are, the rule of choice. Does not know: files of repositories.
"""

import argparse
import datetime
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from daemon.bases import ground_of
from daemon.completion import FEED_SHARE, Engine
from daemon.measure import Outcome, Reading, decode_speed, feed_speed, measure, read_ground
from daemon.profile import Profile, ProfileError, profile_path, remove_profile, write_profile
from daemon.protocol import (
    CalibrationFailure,
    CalibrationHole,
    CalibrationProgress,
    CalibrationReset,
    CalibrationResult,
    CalibrationRow,
    CalibrationStart,
    CompletionRequest,
    WindowSizes,
)
from model.checkpoint import LoadedModel, load_model
from model.config import ConfigError
from model.fim import STRATEGIES, default_strategy, possible_strategies
from model.machine import default_threads
from model.source import open_source
from model.state import zero_state

MIN_HOLES = 20  # fewer choose nothing
NOISE = 2.5  # standard errors of the paired difference that a challenger must be ahead by; of six by chance alone one is in 4 % of cases
KEY_S = 1.5  # a keystroke's time, of which FEED_SHARE may go into the windows around a cursor that has moved
CONTEXT_S = 20.0  # of reading, for each of the layouts
HEAD_S = 0.5  # of the file above the windows, for each hole
MAX_CONTEXT_TOKENS = 65_536
CHARS_PER_TOKEN = 2.9
KEPT_STATES = 8  # that fit into the store: those of one hole

Say = Callable[[str, int, int], None]  # what is under way, done, total


class Way(NamedTuple):
    """A way of asking: a strategy and the number of a window size."""

    strategy: str
    window: int


@dataclass(eq=False)
class Bench:
    """One model, its engines by strategy, and what was measured so far."""

    model: LoadedModel
    start: CalibrationStart
    holes: Sequence[CalibrationHole]
    say: Say
    feed_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)
    readings: dict[bytes, Reading] = field(
        default_factory=dict
    )  # by the layout's version: a context is read once for each
    outcomes: dict[Way, list[Outcome]] = field(default_factory=dict)
    n_expected: int = 0  # answers

    def __post_init__(self) -> None:
        value_bytes = zero_state(self.model.config).nbytes + 4 * self.model.config.vocab_size
        for strategy in possible_strategies(self.model.tokenizer.control):
            engine = Engine(self.model, store_budget_bytes=max(1 << 28, KEPT_STATES * value_bytes), strategy=strategy)
            alike = next((e for e in self.engines.values() if e.layout.version == engine.layout.version), None)
            if alike is not None:  # what stands before the windows is the same, and so are its states
                engine.store = alike.store
            self.engines[strategy] = engine

    def run(self, way: Way) -> list[Outcome]:
        """Asks all holes in this way, unless that has been done."""
        if way not in self.outcomes:
            engine, reading = self.engines[way.strategy], self._reading(way.strategy)
            found: list[Outcome] = []
            n_done = len(self.outcomes) * len(self.holes)
            for hole in self.holes:
                self.say(f"asking as {way.strategy}", n_done + len(found), self.n_expected)
                request = with_short_head(hole.requests[way.window], n_chars=self._head_chars)
                found.append(measure(engine, reading, request, hole.truth))
            self.outcomes[way] = found
        return self.outcomes[way]

    @property
    def _head_chars(self) -> int:
        return int(HEAD_S * self.feed_tokens_per_s * CHARS_PER_TOKEN)

    @property
    def context_tokens(self) -> int:
        return max((reading.n_tokens for reading in self.readings.values()), default=0)

    def _reading(self, strategy: str) -> Reading:
        engine = self.engines[strategy]
        version = engine.layout.version
        if version not in self.readings:
            self.say("reading the repository", 0, 0)
            n_tokens = min(MAX_CONTEXT_TOKENS, int(CONTEXT_S * self.feed_tokens_per_s))
            ground = ground_of(engine.prompter, self.start.documents, max_tokens=n_tokens)
            self.readings[version] = read_ground(engine, ground)
        return self.readings[version]

    def measure_speed(self) -> None:
        self.say("measuring this machine", 0, 0)
        engine = next(iter(self.engines.values()))
        text = "".join(document.text for document in self.start.documents[-8:])[:8192] or self.holes[0].truth
        ids = engine.model.tokenizer.encode(text)
        self.feed_tokens_per_s = feed_speed(engine, ids)
        self.decode_tokens_per_s = decode_speed(engine, ids)

    def window_tokens(self, window: int) -> float:
        """Of the text around the cursor, in the median hole."""
        encode = self.model.tokenizer.encode
        requests = [hole.requests[window] for hole in self.holes]
        return float(np.median([len(encode(each.prompt)) + len(encode(each.suffix)) for each in requests]))


def calibrate(bench: Bench) -> CalibrationResult:
    """Strategies first, at the default window; then the winner's windows. The profile's path is left empty."""
    bench.measure_speed()
    notes: list[str] = []
    default = default_strategy(bench.model.tokenizer.control, name=bench.model.name)
    tokens = [bench.window_tokens(number) for number in range(len(bench.start.windows))]
    limit = FEED_SHARE * KEY_S * bench.feed_tokens_per_s
    sizes = in_time(tokens, limit=limit)
    home = sizes[0]
    if n_left_out := len(tokens) - len(sizes):
        notes.append(f"{n_left_out} window sizes were left out: more than the {limit:,.0f} tokens that are fed in time")
    bench.n_expected = len(bench.holes) * (len(bench.engines) + len(sizes) - 1)
    if len(bench.engines) < len(STRATEGIES):
        missing = [strategy for strategy in STRATEGIES if strategy not in bench.engines]
        notes.append(f"not possible, since the model has no control tokens for it: {', '.join(missing)}")
    incumbent = Way(default, home)
    bench.run(incumbent)
    for strategy in bench.engines:
        bench.run(Way(strategy, home))
    best = best_of(bench.outcomes, incumbent)
    for window in sizes[1:]:
        way = Way(best.strategy, window)
        if bench.engines[best.strategy].layout.shows_suffix or changes_prefix(bench.start.windows, way.window, home):
            bench.run(way)
    best = best_of(bench.outcomes, best)
    if len(bench.holes) < MIN_HOLES:
        notes.append(f"{len(bench.holes)} holes are too few to choose by: fewer than {MIN_HOLES}; nothing was kept")
    elif best == incumbent:
        notes.append(f"nothing beat the default by more than {NOISE:g} standard errors of the difference")
    return CalibrationResult(
        model=bench.model.name,
        precision=bench.model.precision,
        rows=[row_of(bench, way, incumbent) for way in bench.outcomes],
        strategy=best.strategy,
        window=bench.start.windows[best.window],
        default_strategy=default,
        default_window=bench.start.windows[home],
        notes=notes,
        feed_tokens_per_s=bench.feed_tokens_per_s,
        decode_tokens_per_s=bench.decode_tokens_per_s,
        context_tokens=bench.context_tokens,
        n_holes=len(bench.holes),
        profile="",
    )


def in_time(tokens: Sequence[float], *, limit: float) -> list[int]:
    """The numbers of the window sizes, given by their `tokens`, that can be fed in time, the one that counts as default first.

    That is the first; where it has more tokens than `limit`, the largest that has not; where all have, the smallest of them.
    """
    possible = [number for number, n_tokens in enumerate(tokens) if n_tokens <= limit]
    smallest = min(range(len(tokens)), key=tokens.__getitem__)
    home = 0 if 0 in possible else max(possible, key=tokens.__getitem__, default=smallest)
    return [home, *(number for number in possible if number != home)]


def best_of(outcomes: Mapping[Way, Sequence[Outcome]], incumbent: Way) -> Way:
    """The way that is furthest ahead of `incumbent`, of those ahead by more than the noise; else, and with too few holes, `incumbent`."""
    ahead: dict[Way, float] = {}
    for way, found in outcomes.items():
        mean, error = gain(found, outcomes[incumbent])
        if len(found) >= MIN_HOLES and mean > NOISE * error:
            ahead[way] = mean
    return max(ahead, key=ahead.__getitem__, default=incumbent)


def gain(outcomes: Sequence[Outcome], incumbent: Sequence[Outcome]) -> tuple[float, float]:
    """Mean difference of the similarity on the same holes, and its standard error."""
    return mean_and_error([a.similarity - b.similarity for a, b in zip(outcomes, incumbent, strict=True)])


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """A mean and its standard error, which is infinite for fewer than two values: they say nothing of the noise."""
    if len(values) < 2:
        return (values[0] if values else 0.0), math.inf
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def share_and_error(flags: Sequence[bool]) -> tuple[float, float]:
    """A share and its standard error by Agresti and Coull, which is not 0 where all agree: (k + 2) of (n + 4)."""
    n, k = len(flags), sum(flags)
    p = (k + 2) / (n + 4)
    return k / n, math.sqrt(p * (1 - p) / (n + 4))


def row_of(bench: Bench, way: Way, incumbent: Way) -> CalibrationRow:
    outcomes = bench.outcomes[way]
    exact, exact_error = share_and_error([each.exact for each in outcomes])
    similarity, similarity_error = mean_and_error([each.similarity for each in outcomes])
    ahead, ahead_error = gain(outcomes, bench.outcomes[incumbent])
    known = [each.log_probability for each in outcomes if each.log_probability is not None]
    return CalibrationRow(
        strategy=way.strategy,
        window=bench.start.windows[way.window],
        n_holes=len(outcomes),
        exact=exact,
        exact_error=exact_error,
        similarity=similarity,
        similarity_error=similarity_error if math.isfinite(similarity_error) else None,
        gain=ahead,
        gain_error=ahead_error if math.isfinite(ahead_error) else None,
        log_probability=float(np.mean(known)) if known else None,
        tokens_per_move=float(np.mean([each.moved_tokens for each in outcomes])),
        ms_per_move=float(np.median([each.moved_ms for each in outcomes])),
        tokens_per_key=float(np.mean([each.key_tokens for each in outcomes])),
        ms_per_key=float(np.median([each.key_ms for each in outcomes])),
    )


def changes_prefix(windows: Sequence[WindowSizes], one: int, other: int) -> bool:
    return windows[one].step != windows[other].step


def with_short_head(request: CompletionRequest, *, n_chars: int) -> CompletionRequest:
    """Only the last lines of what stands above the window, so that a slow machine comes to an end."""
    if len(request.head) <= n_chars:
        return request
    at = request.head.find("\n", len(request.head) - n_chars) + 1
    return msgspec.structs.replace(request, head=request.head[at:] if at else "")


def profile_of(bench: Bench, result: CalibrationResult) -> Profile:
    return Profile(
        strategy=result.strategy,
        window=result.window,
        feed_tokens_per_s=result.feed_tokens_per_s,
        decode_tokens_per_s=result.decode_tokens_per_s,
        numerics=bench.model.network.numerics,
        model=bench.model.name,
        date=datetime.datetime.now(tz=datetime.UTC).date(),
        n_holes=result.n_holes,
    )


def read_job(lines: Sequence[bytes]) -> tuple[CalibrationStart, list[CalibrationHole]]:
    """Raises ConfigError for what is no job, with the number of the line."""
    holes: list[CalibrationHole] = []
    number, expected = 1, "a CalibrationStart"
    try:
        start = msgspec.json.decode(lines[0] if lines else b"", type=CalibrationStart)
        for number, line in enumerate(lines[1:], start=2):  # noqa: B007, the message below names the line
            expected = f"a CalibrationHole with a truth and {len(start.windows)} requests"
            hole = msgspec.json.decode(line, type=CalibrationHole)
            if len(hole.requests) != len(start.windows) or not hole.truth.strip():
                raise msgspec.ValidationError(f"{len(hole.requests)} requests, truth {hole.truth!r}")
            holes.append(hole)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"stdin, line {number}: {error}, expected {expected}") from None
    if not holes or not start.windows:
        raise ConfigError(
            f"stdin: {len(holes)} holes and {len(start.windows)} window sizes, expected at least one each"
        )
    return start, holes


def say(what: str, done: int, total: int) -> None:
    tell(CalibrationProgress(what=what, done=done, total=total))


def tell(news: CalibrationProgress | CalibrationResult | CalibrationReset | CalibrationFailure) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
    sys.stdout.buffer.flush()


def measured(args: argparse.Namespace) -> CalibrationResult:
    """Does the job on stdin and keeps the profile: not one of too few holes, which would put chance in the place of an earlier, better one."""
    start, holes = read_job(sys.stdin.buffer.read().splitlines())
    say("loading the model", 0, 0)
    precision = None if args.precision == "auto" else args.precision
    bench = Bench(load_model(args.model, precision=precision), start, holes, say)
    result = calibrate(bench)
    if result.n_holes < MIN_HOLES:
        return result
    path = write_profile(bench.model.digest, profile_of(bench, result))
    return msgspec.structs.replace(result, profile=str(path))


def reset(name: str) -> CalibrationReset:
    """Removes the profile of a model; the daemons of the model keep theirs until they end."""
    source = open_source(name)
    return CalibrationReset(
        model=source.name, profile=str(profile_path(source.digest)), was_there=remove_profile(source.digest)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m daemon.calibrate", description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--precision", default="auto", help="auto: by this machine's memory")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--reset", action="store_true", help="remove the model's profile and measure nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    # A KeyboardInterrupt is lost where Python ignores exceptions, in a callback for one. Nothing is written before the end, so nothing is lost.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    try:
        tell(reset(args.model) if args.reset else measured(args))
    except (ConfigError, ProfileError) as error:
        tell(CalibrationFailure(message=str(error)))
        sys.exit(1)
    except BrokenPipeError:  # whoever asked has gone; nothing was written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python would still say at its end
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
