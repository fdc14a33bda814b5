"""Counting what becomes of suggestions, on this machine only. Nothing of any text is kept: numbers, lengths, times, languages and days.

Knows ids and numbers; knows no document and no LSP. Where it is written is `statistics_store`'s business.

Invariant: no keystroke waits for this. A note is an addition in memory; a thread writes what has come together every few seconds. A disk that is full, locked
or damaged costs one line in the log and at worst the statistics: what cannot be written stays in memory, bounded, and is tried again.
"""

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lsp.counts import OTHER, Count, Source, Sums, Time, bucket_of

Part = Literal["word", "line", "part"]

FLUSH_S = 2.0  # from a note until it is written, with all that come meanwhile
RETRY_S = 60.0  # after a fault of the disk's
CLOSE_S = 1.0  # that the last writing may keep an editor from closing
MAX_SUMS = 20_000  # different numbers in memory; only a disk that is away for days, or an editor that makes up languages, gets there
MAX_FATES = 2000  # suggestions whose fate may still change

_LANGUAGE = re.compile(r"[A-Za-z0-9_+#./-]{1,40}")

_Fate = Literal["shown", "partly", "accepted", "rejected"]

logger = logging.getLogger(__name__)


class Statistics:
    """Of one editor window. `note_*` are for the thread of the event loop alone, return at once and raise nothing.

    A suggestion is told from others by its id, and counts once whatever is noted twice: shown, then accepted, or accepted in part and no more, or rejected.
    `now` is the wall clock, whose local day counts.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        is_on: bool = True,
        flush_s: float = FLUSH_S,
        retry_s: float = RETRY_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._is_on = is_on
        self._now = now
        self._fates: OrderedDict[str, _Fate] = OrderedDict()
        self._writer = _Writer(path, flush_s=flush_s, retry_s=retry_s)

    def note_shown(self, id: str, *, language: str, n_chars: int) -> None:
        """A suggestion of `n_chars` characters is on the screen."""
        if self._is_on and id not in self._fates:
            self._settle(id, "shown")
            self._note(language, shown=1, shown_chars=n_chars)

    def note_accepted(self, id: str, *, language: str, n_chars: int) -> None:
        """The user has taken all that was left of it, which has inserted `n_chars` characters. Editors that tell of no showing tell of this."""
        fate = self._fates.get(id)
        if self._is_on and fate != "accepted":
            self.note_shown(id, language=language, n_chars=n_chars)
            self._settle(id, "accepted")
            self._note(
                language, accepted=1, partly=-(fate == "partly"), rejected=-(fate == "rejected"), chars=n_chars, keys=1
            )

    def note_partly_accepted(self, id: str, *, language: str, n_chars: int, part: Part = "part") -> None:
        """The user has taken a word, a line or some other part, which has inserted `n_chars` characters more."""
        fate = self._fates.get(id)
        if self._is_on and fate != "accepted":
            self.note_shown(id, language=language, n_chars=n_chars)
            self._settle(id, "partly")
            is_new = fate != "partly"
            self._note(
                language, partly=int(is_new), rejected=-(fate == "rejected"), chars=n_chars, keys=1, **{f"{part}s": 1}
            )

    def note_rejected(self, id: str, *, language: str) -> None:
        """The user has sent it away as it was shown. What becomes of the rest of one that was taken in part is not counted."""
        if self._is_on and self._fates.get(id) == "shown":
            self._settle(id, "rejected")
            self._note(language, rejected=1)

    def note_looked_after(self, *, language: str, is_still_there: bool) -> None:
        """Whether the text of a suggestion that was accepted a while ago stands in its document still."""
        self._note(language, looked_after=1, still_there=int(is_still_there))

    def note_answered(self, *, language: str, source: Source, ms: float, n_tokens_fed: int = 0) -> None:
        """A request for a suggestion was answered, after `ms` in this process, with the model or without."""
        if self._is_on:
            sums = Sums()
            sums.time(Time(self._day(), _named(language), source, bucket_of(ms)))
            self._writer.add(sums)
            self._note(language, tokens_fed=n_tokens_fed)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Writes what is noted, as far as that succeeds in time. Nothing is noted from then on."""
        self._is_on = False
        self._writer.close(timeout_s)

    def _settle(self, id: str, fate: _Fate) -> None:
        self._fates[id] = fate
        self._fates.move_to_end(id)
        if len(self._fates) > MAX_FATES:
            self._fates.popitem(last=False)

    def _note(self, language: str, **numbers: int) -> None:
        if self._is_on:
            sums, day = Sums(), self._day()
            for name, n in numbers.items():
                if n:
                    sums.count(Count(day, _named(language), name), n)
            self._writer.add(sums)

    def _day(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self._now()))


class _Writer:
    """What is to be written, and the thread that does it: started with the first note, ended by `close`."""

    def __init__(self, path: Path | None, *, flush_s: float, retry_s: float) -> None:
        self._path = path
        self._flush_s, self._retry_s = flush_s, retry_s
        self._sums = Sums(most=MAX_SUMS)
        self._lock = threading.Lock()  # of `_sums`; held for additions, never while anything is written
        self._has_work = threading.Event()
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_complained = False

    def add(self, sums: Sums) -> None:
        if not sums or self._is_closing.is_set():
            return
        with self._lock:
            self._sums.add(sums)
        self._has_work.set()
        if self._thread is None:
            # One that is in the middle of a write to a slow disk must not keep the editor's server from ending.
            self._thread = threading.Thread(target=self._run, name="codestral-lsp-statistics", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> None:
        self._is_closing.set()
        self._has_work.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            # SQLite takes some 15 ms to import. Here no start and no keystroke waits for it.
            from lsp.statistics_store import Store, StoreError

            store, is_last = Store(self._path), False
            while not is_last:
                self._has_work.wait()
                self._is_closing.wait(self._flush_s)
                is_last = self._is_closing.is_set()
                sums = self._take()
                try:
                    news = store.add(sums) if sums else None
                except StoreError as error:
                    self._complain(str(error))
                    self._put_back(sums)
                    self._is_closing.wait(self._retry_s)
                else:
                    self._tell(sums, news)
            store.close()
        except Exception as error:  # a fault of ours, or a Python without SQLite: the editor works all the same
            self._complain(f"{type(error).__name__}: {error}")

    def _take(self) -> Sums:
        with self._lock:
            sums, self._sums = self._sums, Sums(most=MAX_SUMS)
            self._has_work.clear()
        return sums

    def _put_back(self, sums: Sums) -> None:
        with self._lock:
            self._sums.add(sums)
            self._has_work.set()

    def _tell(self, sums: Sums, news: str | None) -> None:
        if news is not None:
            logger.warning("statistics: %s", news)
        if sums.n_dropped:
            logger.warning(
                "statistics: %d numbers were not counted, there were too many different ones", sums.n_dropped
            )

    def _complain(self, why: str) -> None:
        if not self._has_complained:
            logger.warning("statistics: %s; nothing is counted as long as that is so", why)
        self._has_complained = True


def _named(language: str) -> str:
    return language if _LANGUAGE.fullmatch(language) else OTHER
