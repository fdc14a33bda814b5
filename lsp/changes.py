"""What has changed in a workspace since the last look, collected until it is worth one look. Knows names and time; does not know the disk, the daemon or LSP.

An editor tells of one save in several ways, and a branch switch as thousands of files over several seconds. What comes close together is taken together, so
that each leads to one look and one post, whatever it consists of.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

PAUSE_S = 0.1  # without news, before what has been noted is taken
MASS_PAUSE_S = 1.0  # the same where so much has been noted that more must be expected
LONGEST_S = 10.0  # news that never pause are taken all the same
MASS = 100  # more files than so many are not looked at one by one: the whole repository is read again
QUIET_S = 60.0  # without a save, before the repository is read again, in case something was missed


class Work(NamedTuple):
    paths: frozenset[str]  # relative to the workspace; a folder's stands for all that is in it
    everything: bool = False  # the whole repository is to be read again
    lost: bool = False  # the daemon knows nothing of this workspace any more


class Changes:
    """One writer side, whoever hears of a change, and one reader, who waits in `take`."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._everything = False
        self._lost = False
        self._noted_at = 0.0
        self._read_again_at: float | None = None
        self._news = asyncio.Event()

    def note(self, paths: Iterable[str]) -> None:
        self._paths.update(paths)
        self._wake(is_news=bool(self._paths))

    def note_everything(self) -> None:
        self._everything = True
        self._wake()

    def note_lost(self) -> None:
        self._lost = True
        self._wake()

    def forget_lost(self) -> None:
        self._lost = False

    def saved(self) -> None:
        """Puts off reading everything again until nothing has been saved for a while."""
        self._read_again_at = time.monotonic() + QUIET_S
        self._news.set()  # whoever waits has a new time to wait for

    async def take(self) -> Work:
        """Waits until there is something to do and it has paused; what is given is forgotten here."""
        while not (self._paths or self._everything or self._lost):
            self._news.clear()
            left = None if self._read_again_at is None else self._read_again_at - time.monotonic()
            if left is not None and left <= 0:
                self._everything = True
                break
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue
        if self._paths or self._everything:
            await self._pause()
        is_mass = len(self._paths) > MASS
        work = Work(frozenset(self._paths), self._everything or is_mass, self._lost)
        if work.everything:
            self._read_again_at = None
        self._paths, self._everything, self._lost = set(), False, False
        return work

    async def _pause(self) -> None:
        started = time.monotonic()
        while True:
            pause = MASS_PAUSE_S if len(self._paths) > MASS else PAUSE_S
            now = time.monotonic()
            until = min(self._noted_at + pause, started + LONGEST_S)
            if now >= until or self._lost:  # a daemon that knows nothing is told at once
                return
            await asyncio.sleep(until - now)

    def _wake(self, *, is_news: bool = True) -> None:
        if is_news:
            self._noted_at = time.monotonic()
            self._news.set()
