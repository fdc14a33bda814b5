"""Measuring on a machine that others use too: quiet rounds, interleaved, and ratios taken within a round.

Each round runs every contestant once, in turning order, so that whatever slows the machine for a while slows all of them. How much processor time went to
others meanwhile (other processes and the hypervisor) is kept with each sample; the rounds that count are the quietest, chosen by that figure and never by
the results. Knows: clocks and /proc/stat. Does not know: models.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model.machine import total_bytes

QUIET_CORES = 0.15  # more than this much of a core kept busy by others makes a round a noisy one
STAT = Path("/proc/stat")


class Sample(NamedTuple):
    """One measurement, in whatever unit its contestant gives, and the cores that others kept busy while it was taken."""

    value: float
    others: float


class Spread(NamedTuple):
    """What the rounds gave: the median and the extremes."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}..{self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds that count, oldest first: in each, one sample of every contestant. `noisy` of them were not quiet."""

    samples: tuple[Mapping[str, Sample], ...]
    noisy: int

    def values(self, name: str) -> list[float]:
        return [sample[name].value for sample in self.samples]

    def spread(self, name: str) -> Spread:
        return spread(self.values(name))

    def ratio(self, above: str, below: str) -> Spread:
        """`above` / `below` within each round."""
        return spread([a / b for a, b in zip(self.values(above), self.values(below), strict=True)])


def interleave(
    contestants: Mapping[str, Callable[[], float]], *, rounds: int, spare_rounds: int, patience_s: float
) -> Rounds:
    """Runs all contestants in turn until `rounds` quiet rounds are there, or `spare_rounds` more than that have been run.

    A contestant is a function that does its work and returns its value, so set-up can stay outside of what it times. Before each, up to
    `patience_s` seconds are spent waiting for others to calm down.
    """
    taken: list[Mapping[str, Sample]] = []
    while len(taken) < rounds + spare_rounds and sum(map(is_quiet, taken)) < rounds:
        names = list(contestants)
        turned = names if len(taken) % 2 == 0 else names[::-1]
        taken.append({name: take(contestants[name], patience_s=patience_s) for name in turned})
    chosen = quietest(taken, rounds)
    return Rounds(tuple(chosen), noisy=sum(not is_quiet(samples) for samples in chosen))


def quietest(taken: Sequence[Mapping[str, Sample]], rounds: int) -> list[Mapping[str, Sample]]:
    """The `rounds` with the least noise, in the order in which they were taken."""
    best = sorted(range(len(taken)), key=lambda i: noise(taken[i]))[:rounds]
    return [taken[i] for i in sorted(best)]


def noise(samples: Mapping[str, Sample]) -> float:
    return max(sample.others for sample in samples.values())


def is_quiet(samples: Mapping[str, Sample]) -> bool:
    return noise(samples) <= QUIET_CORES


def take(contestant: Callable[[], float], *, patience_s: float = 0.0) -> Sample:
    """One sample, after a wait for quiet of at most `patience_s`."""
    wait_for_quiet(patience_s)
    before, started = busy_elsewhere_s(), time.monotonic()
    value = contestant()
    took = time.monotonic() - started
    # The counters tick in hundredths of a second; what one tick could have added to a short sample is not noise.
    others = max(0.0, busy_elsewhere_s() - before - 0.02) / max(took, 0.01)
    return Sample(value, others)


def wait_for_quiet(patience_s: float) -> bool:
    """Until others use less than QUIET_CORES for half a second; False when they did not within `patience_s`."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        before = busy_elsewhere_s()
        time.sleep(0.5)
        if (busy_elsewhere_s() - before) / 0.5 <= QUIET_CORES:
            return True
    return patience_s <= 0


def busy_elsewhere_s() -> float:
    """Processor seconds that other processes, and other machines on the same host, have used so far. 0 where no /proc/stat tells."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, STAT.read_text().split("\n")[0].split()[1:9])
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - ours


def median_s(run: Callable[[], object], *, repetitions: int) -> float:
    """The median time of one call, in seconds, after one that does not count."""
    run()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns line up, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in cells
    ]
    lines.insert(1, ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def nested(figures: Mapping[tuple[str, ...], object]) -> dict:
    """{("s", "int4", "8"): x} as {"s": {"int4": {"8": x}}}, numbers to four significant digits."""
    tree: dict = {}
    for path, value in figures.items():
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = rounded(value)
    return tree


def rounded(value: object) -> object:
    """Floats to four significant digits, inside lists and dicts too; a Spread becomes [median, low, high]."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return value


def print_json(figures: Mapping[str, object]) -> None:
    """The one JSON line that ends every benchmark."""
    sys.stdout.write(json.dumps(rounded(figures), allow_nan=False) + "\n")
    sys.stdout.flush()


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    name = "unknown"
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {"cpu": name, "cores": os.cpu_count(), "memory_gb": total_bytes() / 1e9}
