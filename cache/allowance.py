"""How much may be written to disk, and which state goes first when there is no room.

Knows: bytes, times, uses, a small file of what was written in the last day. Does not know: chains, what is in a state. A time in the future, as after the
clock was set back, counts as now.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cache.folder import UnsafeFileError, open_file, write_whole

DAY_S = 86400.0
RECENT_S = 60.0  # what was used within it goes last
WRITTEN = ".written"
_MAX_BYTES = 4096  # of that file: 25 lines


@dataclass(slots=True)
class Record:
    """What a tier knows about one of its files. Times in seconds since 1970; `uses` since this process started, and one before."""

    kind: str
    n_tokens: int
    nbytes: int
    note: dict[str, Any]
    made_at: float
    used_at: float
    uses: int = 1
    touched_at: float = field(default=0.0)  # when the file itself was last told

    def worth(self, now: float) -> float:
        """What a byte of it saves: tokens not fed, times how often it was used in its age (Blankstein et al., Hyperbolic Caching, ATC 2017).

        The age counts from the last use, which outlives this process as the file's time, and an hour is added, so that the newest is not priceless.
        """
        cost = self.note.get("cost_tokens", self.n_tokens)
        cost = cost if isinstance(cost, int | float) and cost >= 0 else self.n_tokens
        return (1 + cost) * self.uses / (self.nbytes * (3600.0 + now - min(self.used_at, now)))


def victims(records: dict[bytes, Record], *, excess: int, now: float) -> list[bytes]:
    """The keys that go to be rid of `excess` bytes, the least worth first, those used in the last minute only after all others."""
    gone, chosen = 0, []
    for record in records.values():
        record.used_at = min(record.used_at, now)
    for key, record in sorted(records.items(), key=lambda item: (now - item[1].used_at < RECENT_S, item[1].worth(now))):
        if gone >= excess:
            break
        chosen.append(key)
        gone += record.nbytes
    return chosen


class WriteAllowance:
    """At most `daily_bytes` in any 24 hours, counted by the hour in a file, so that a daemon that is started again and again has no more."""

    def __init__(self, daily_bytes: int, clock: Callable[[], float]) -> None:
        self.daily_bytes = daily_bytes
        self._clock = clock

    def left(self, folder: int) -> int:
        """Bytes that may still be written. Raises OSError."""
        return self.daily_bytes - sum(self._hours(folder).values())

    def count(self, folder: int, n_bytes: int) -> None:
        """Raises OSError."""
        hours = self._hours(folder)
        now = int(self._clock() // 3600)
        self._save(folder, hours | {now: hours.get(now, 0) + n_bytes})

    def _hours(self, folder: int) -> dict[int, int]:
        """Bytes by hour since 1970, of the last day; what is no pair of numbers counts nothing."""
        try:
            with open_file(folder, WRITTEN) as file:
                found = pairs(os.read(file, _MAX_BYTES).decode("ascii", "replace").splitlines())
        except (FileNotFoundError, UnsafeFileError):
            return {}
        now, hours = int(self._clock() // 3600), {}
        for hour, count in found:
            if now - 24 < min(hour, now):
                hours[min(hour, now)] = hours.get(min(hour, now), 0) + count
        if any(hour > now for hour, _ in found):
            self._save(folder, hours)  # or it would stay "now" until the clock is there again
        return hours

    @staticmethod
    def _save(folder: int, hours: dict[int, int]) -> None:
        text = "".join(f"{hour} {count}\n" for hour, count in sorted(hours.items())).encode()
        write_whole(folder, WRITTEN, lambda file: os.write(file, text))


def pairs(lines: Iterable[str]) -> list[tuple[int, int]]:
    split = [line.split() for line in lines]
    return [
        (int(words[0]), int(words[1])) for words in split if len(words) == 2 and all(word.isdecimal() for word in words)
    ]
