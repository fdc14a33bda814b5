"""What is counted of suggestions, as values: sums by day and language, and times in buckets.

Knows arithmetic; knows no disk, no thread and nothing of any text.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Source = Literal["model", "typed"]  # who has answered: the model, or what was shown already and typed through
SOURCES: tuple[Source, ...] = ("model", "typed")
NAMES = (
    "shown",  # suggestions, each once
    "shown_chars",
    "accepted",  # as a whole, or its last part
    "partly",  # a part and no more
    "rejected",
    "words",  # acts of accepting a word, a line, another part
    "lines",
    "parts",
    "chars",  # inserted by accepting
    "keys",  # pressed for that
    "looked_after",  # accepted suggestions that were looked for after a while
    "still_there",  # and found
    "tokens_fed",
)
OTHER = "other"  # a language whose name is none, or one too many
MAX_SUMS = 20_000  # different ones: a thousand languages in a day; more would be a fault of an editor's

# Times are counted in buckets that grow by 8 %, so that a time read from the middle of one is at most 4 % off.
LEAST_MS, GROWTH = 0.001, 1.08
MAX_BUCKET = 300  # over 10^7 ms


class Count(NamedTuple):
    """What a number is of. `day`: `2026-08-01` of the user's own calendar."""

    day: str
    language: str
    name: str


class Time(NamedTuple):
    day: str
    language: str
    source: Source
    bucket: int


@dataclass(slots=True)
class Sums:
    """Numbers that can be added up. With `most`, only so many different ones: what is one too many is counted in `n_dropped` and nowhere else."""

    counts: dict[Count, int] = field(default_factory=dict)
    times: dict[Time, int] = field(default_factory=dict)
    most: int | None = None
    n_dropped: int = 0

    def count(self, key: Count, n: int = 1) -> None:
        if self._has_room(key in self.counts):
            self.counts[key] = self.counts.get(key, 0) + n

    def time(self, key: Time, n: int = 1) -> None:
        if self._has_room(key in self.times):
            self.times[key] = self.times.get(key, 0) + n

    def add(self, other: "Sums") -> None:
        for key, n in other.counts.items():
            self.count(key, n)
        for time, n in other.times.items():
            self.time(time, n)
        self.n_dropped += other.n_dropped

    def _has_room(self, is_known: bool) -> bool:
        if is_known or self.most is None or len(self.counts) + len(self.times) < self.most:
            return True
        self.n_dropped += 1
        return False

    def __bool__(self) -> bool:
        return bool(self.counts or self.times)


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some days and languages."""

    counts: Mapping[str, int]  # by NAMES
    times: Mapping[Source, Mapping[int, int]]  # how many in each bucket

    def of(self, name: str) -> int:
        return self.counts.get(name, 0)

    @property
    def acceptance(self) -> float | None:
        """Share of the suggestions shown that were accepted as a whole; None: none was shown."""
        return self.of("accepted") / self.of("shown") if self.of("shown") else None

    @property
    def chars_saved(self) -> int:
        """Inserted by accepting, less the keys that it took."""
        return self.of("chars") - self.of("keys")

    @property
    def typed_share(self) -> float | None:
        """Share of the answers that were given without the model; None: there was no answer."""
        model, typed = (sum(self.times.get(source, {}).values()) for source in SOURCES)
        return typed / (model + typed) if model + typed else None

    def percentile_ms(self, source: Source, percent: float) -> float | None:
        return percentile_ms(self.times.get(source, {}), percent)


def summaries(sums: Sums, of: Callable[[Count | Time], str]) -> dict[str, Summary]:
    """The numbers of each day, of each language, or of whatever else `of` says of what they belong to."""
    counts: dict[str, dict[str, int]] = {}
    times: dict[str, dict[Source, dict[int, int]]] = {}
    for key, n in sums.counts.items():
        named = counts.setdefault(of(key), {})
        named[key.name] = named.get(key.name, 0) + n
    for time, n in sums.times.items():
        buckets = times.setdefault(of(time), {}).setdefault(time.source, {})
        buckets[time.bucket] = buckets.get(time.bucket, 0) + n
    return {name: Summary(counts.get(name, {}), times.get(name, {})) for name in sorted({*counts, *times})}


def bucket_of(ms: float) -> int:
    """The bucket of a time; what is no number counts as none at all."""
    if not ms > LEAST_MS:  # not a number, too
        return 0
    return (
        min(MAX_BUCKET, 1 + math.floor(math.log(ms / LEAST_MS) / math.log(GROWTH))) if math.isfinite(ms) else MAX_BUCKET
    )


def ms_of(bucket: int) -> float:
    """The middle of a bucket, in ratio."""
    return LEAST_MS * GROWTH ** (min(bucket, MAX_BUCKET) - 0.5) if bucket > 0 else LEAST_MS


def percentile_ms(buckets: Mapping[int, int], percent: float) -> float | None:
    """The time that `percent` of all did not exceed (nearest rank); None where there is none."""
    rank = math.ceil(percent / 100 * sum(buckets.values()))
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return ms_of(bucket)
    return None
