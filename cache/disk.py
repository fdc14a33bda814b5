"""Kept states on disk: one folder for each fingerprint, within a byte budget, a share of the free space and a day's writing.

Nothing that a disk can do raises here: a state that cannot be read whole and right is a miss and its file goes, a state that cannot be written is not
kept, and the log says so in one line. The index is made from the files' headers at every start. One process writes, told by a lock; all may read.
Knows: chains, named arrays, notes. Does not know: torch, what a state is, text. `write` is for one thread; everything else for any.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.allowance import Record, WriteAllowance, victims
from cache.chain import Chain
from cache.folder import StateFolder, WriterLock, fault, write_whole
from cache.index import (
    DiskEntry,
    Removed,
    Seen,
    as_entry,
    as_record,
    examine,
    idle_files,
    keys_in,
    look_through,
    name_of,
    remove_states,
    shard_of,
    sweep_states,
)
from cache.owners import Owners
from cache.snapshot_file import DamageError, Draft, Header, Snapshot, read_arrays, read_chain
from cache.store import same_tokens

RETRY_S = 600.0  # a disk that refused is tried again after this
TOUCH_S = 60.0  # a file's own time need not be more exact
SAID_S = 3600.0  # the same trouble is told again after this
MEGABYTE = 1_000_000
log = logging.getLogger("codestral_lsp.cache")


class DiskTier:
    """The states of one fingerprint below `folder`. `root` is the key that its chains start from."""

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        root: bytes,
        budget_bytes: int,
        max_free_share: float = 0.1,
        daily_write_bytes: int = 20_000_000_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fingerprint`: hexadecimal, names all that decides a state besides the tokens. `max_free_share`: of what would be free without these states.

        The budget is for this fingerprint and those that no daemon runs at present: what is left of a model that is not used any more goes first.
        """
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self.hits = self.misses = self.evictions = 0
        self.why_not_writing: str | None = None
        self._root, self._fingerprint, self._clock = root, fingerprint, clock
        self._group = fingerprint[:16]
        self._max_free_share = max_free_share
        self._states = StateFolder(folder)
        self._owners = Owners(self._states, self._group)
        self._allowance = WriteAllowance(daily_write_bytes, clock)
        self._writer = WriterLock()
        self._lock = threading.RLock()  # of the index and its counters; never held while a state is read or written
        self._owners_lock = threading.Lock()
        self._records: dict[bytes, Record] = {}
        self._hopeless: set[bytes] = set()  # damaged, and could not be removed
        # In no workspace's file, since that failed or it was purged: not written, or the next purge would miss them.
        self._unlisted: set[bytes] = set()
        self._n_purges = 0  # of everything
        self._said: dict[str, float] = {}
        self._stopped_at: float | None = None
        self._closed = False
        if not self._may_write():  # which reads the index too
            self._read_index()

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: bytes) -> bool:
        """Whether a state is there to be read. Costs a look at the disk only where another process writes."""
        if key in self._records:
            return True
        if self._writer.held or key in self._hopeless or not os.path.lexists(self._path(key)):
            return False
        record = self._look(key, as_record)
        if record is not None:
            self._add(key, record)
        return record is not None

    def read(self, chain: Chain, length: int) -> Snapshot | None:
        """The state after the first `length` slices, every byte checked and the tokens compared; None is a miss. A hit counts as a use."""
        key = chain.slices[length - 1].key

        def whole(file: int, header: Header) -> Snapshot:
            stored = read_chain(file, header)
            if not same_tokens(stored.slices, chain.slices[:length]):
                raise DamageError("it has read other tokens than its key stands for")
            arrays = read_arrays(file, header)
            return Snapshot(chain=stored, arrays=arrays, note=header.note, nbytes=header.nbytes)

        snapshot = self._look(key, whole) if key in self else None
        if snapshot is None:
            self.misses += 1
        else:
            self.hits += 1
            self.touch(key)
        return snapshot

    def read_chain(self, key: bytes) -> Chain | None:
        """What a state has read, its keys computed anew; None where there is none."""
        return self._look(key, read_chain) if key in self else None

    def note(self, key: bytes) -> dict[str, Any] | None:
        """What was noted when a state was written; None where there is none."""
        record = self._records.get(key) if key in self else None
        return None if record is None else dict(record.note)

    def keys(self, *, kind: str | None = None) -> list[bytes]:
        """The states whose last slice is of a kind, or all; the last used first."""
        with self._lock:
            chosen = [(record.used_at, key) for key, record in self._records.items() if kind in (None, record.kind)]
        return [key for _, key in sorted(chosen, reverse=True)]

    def entries(self) -> list[DiskEntry]:
        """All states, the last used first."""
        with self._lock:
            records = {key: self._records[key] for key in self.keys()}
        return [as_entry(key, record, self._owners.of(key)) for key, record in records.items()]

    def touch(self, key: bytes) -> None:
        """Counts a use. The file is told too, now and then, so that the next process knows."""
        with self._lock:
            record, now = self._records.get(key), self._clock()
            if record is None:
                return
            record.uses += 1
            record.used_at = now
            if 0 <= now - record.touched_at < TOUCH_S:
                return
            record.touched_at = now
        try:
            with self._states.open(self._group, shard_of(key)) as folder:
                os.utime(name_of(key), (now, now), dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            log.debug("the last use of a state on disk could not be noted: %s", fault(error))

    def write(self, chain: Chain, length: int, arrays: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> bool:
        """Keeps the state after the first `length` slices: whole and durable when this returns True, as it does when it is there already.

        `note`: JSON; its `cost_tokens` is what the state would cost to compute again. Blocks for as long as the disk takes, and raises for none of its faults.
        """
        cut = chain.upto(length)
        if cut.root != self._root:
            raise ValueError(f"a chain from {cut.root.hex()[:16]}, expected one from {self._root.hex()[:16]}")
        key, now = cut.tip, self._clock()
        if key in self and os.path.lexists(self._path(key)):
            self.touch(key)
            return True
        if key in self._unlisted or key in self._hopeless or not self._may_write():
            return False
        try:
            draft = Draft(cut, arrays, fingerprint=self._fingerprint, made_at=now, note=note)
            with self._states.open(self._group, shard_of(key), make=True) as folder:
                if not self._make_room(draft.nbytes) or not self._write_file(folder, draft, key, now):
                    return False
        except DamageError as error:
            self._say("array", f"a state is not kept on disk: {error}")
            return False
        except OSError as error:
            self._stop(error)
            return False
        last = cut.slices[-1]
        record = Record(last.kind, last.end, draft.nbytes, note=dict(note), made_at=now, used_at=now, touched_at=now)
        self._add(key, record)
        self.why_not_writing = None
        return True

    def remove(self, keys: Iterable[bytes], *, durable: bool = False) -> tuple[int, int]:
        """Removes states; how many that were, and their bytes. What cannot be removed stays and is told in the log."""
        removed = self._remove(keys, durable=durable)
        if removed.fault is not None:
            self._say("remove", f"states on disk could not be removed: {fault(removed.fault)}")
        return len(removed.keys), removed.nbytes

    def own(self, workspace: str, keys: Iterable[bytes]) -> bool:
        """Notes that states are derived from or used by a workspace, durably; to be called before they are written. False: it could not be noted.

        A state whose workspace could not be noted is not written until it can, since purging would miss it.
        """
        keys = list(keys)
        with self._owners_lock:
            try:
                self._owners.add(workspace, keys)
            except OSError as error:
                self._unlisted.update(keys)
                self._stop(error)
                return False
            self._unlisted.difference_update(keys)
            return True

    def purge(self, workspace: str | None) -> tuple[int, int]:
        """Removes all states of a workspace, or all of this fingerprint, so that not even a crash brings them back; how many, and their bytes.

        A state that is being written, or is owned and not written yet, is not kept either, unless it is owned anew.
        """
        try:
            with self._owners_lock:
                owned = self._owners.workspaces() if workspace is None else [workspace]
                listed = set().union(*map(self._owners.keys, owned))
                self._unlisted |= listed
                if workspace is None:
                    self._n_purges += 1
                    listed.update(keys_in(self._states, self._group))
                removed = self._remove(listed, durable=True)
                if removed.fault is not None:
                    raise removed.fault
                for name in owned:
                    self._owners.forget(name)
        except OSError as error:
            self._say("purge", f"states on disk could not be purged: {fault(error)}")
            return 0, 0
        return len(removed.keys), removed.nbytes

    def close(self) -> None:
        """Lets another process write. What is on disk stays readable."""
        self._closed = True
        self._writer.release()

    def _path(self, key: bytes) -> Path:
        return self._states.path / self._group / shard_of(key) / name_of(key)

    def _look(self, key: bytes, look: Callable[[int, Header], Seen]) -> Seen | None:
        """What `look` makes of a state's file; None where it is missing or not to be believed, in which case it goes."""

        def of_this_root(file: int, header: Header) -> Seen:
            if header.root != self._root or header.fingerprint != self._fingerprint:
                raise DamageError(f"it is of the model {header.fingerprint!r}")
            return look(file, header)

        known = self._records.get(key)
        try:
            return examine(self._states, self._group, key, of_this_root)
        except FileNotFoundError:
            with self._lock:
                if self._records.get(key) is known:  # not written anew in between
                    self._forget(key)
        except DamageError as error:
            self._discard(key, str(error))
        except OSError as error:
            self._say("read", f"states on disk cannot be read: {fault(error)}")
        return None

    def _may_write(self) -> bool:
        """Whether this process is the one that writes, which it becomes where nobody else is."""
        if self._closed or (self._stopped_at is not None and 0 <= self._clock() - self._stopped_at < RETRY_S):
            return False
        try:
            with self._states.open(self._group, make=True) as base:
                if not self._writer.holds(base):
                    if not self._writer.acquire(base):
                        self._say(
                            "lock",
                            f"states are not written to disk: another daemon writes to {self._states.path / self._group}",
                        )
                        return False
                    self._take_over()
        except OSError as error:
            self._stop(error)
            return False
        self._stopped_at = None
        return True

    def _take_over(self) -> None:
        """What another process has left behind is found, or swept. Raises OSError."""
        sweep_states(self._states, self._group, now=self._clock(), mine=True)
        self._read_index()
        with self._owners_lock:
            self._owners.compact(set(self._records))
        self._make_room(0)  # the budget may be smaller than last time

    def _read_index(self) -> None:
        """Reads all headers anew; uses that were counted stay."""
        found = {}
        try:
            for key, record, why in look_through(self._states, self._group):
                if record is None:
                    self._discard(key, str(why))
                    continue
                if key in self._records:
                    record.uses = self._records[key].uses
                found[key] = record
            with self._owners_lock:
                self._owners.load()
        except OSError as error:
            self._say("read", f"states on disk cannot be read: {fault(error)}")
        with self._lock:
            added = {key: record for key, record in self._records.items() if key not in found}
            found |= {key: record for key, record in added.items() if os.path.lexists(self._path(key))}
            self._records = found
            self.nbytes = sum(record.nbytes for record in found.values())

    def _make_room(self, nbytes: int) -> bool:
        """Evicts until `nbytes` more fit. False, with nothing evicted, where they cannot, or where enough was written today. Raises OSError."""
        with self._states.open(self._group) as base:
            idle = idle_files(self._states, but=self._group)
            n_idle = sum(file.nbytes for file in idle)
            free = shutil.disk_usage(base).free + self.nbytes + n_idle
            limit = min(self.budget_bytes, int(self._max_free_share * free))
            if nbytes > limit:
                size = f"a state of {nbytes / MEGABYTE:,.0f} MB is more than the {limit / MEGABYTE:,.0f} MB that may be kept there"
                self._say("budget", f"states are not written to disk: {size}")
                return False
            if nbytes > self._allowance.left(base):
                daily = f"{self._allowance.daily_bytes / MEGABYTE:,.0f} MB were written in the last 24 hours, as many as may be"
                self._say("daily", f"states are not written to disk: {daily}")
                return False
            if nbytes:
                self._allowance.count(base, nbytes)
        excess = self.nbytes + n_idle + nbytes - limit
        for file in idle:
            if excess <= 0:
                break
            excess -= remove_states(self._states, file.group, [file.key]).nbytes
        with self._lock:
            chosen = victims(self._records, excess=excess, now=self._clock())
            self.evictions += self.remove(chosen)[0]
        return True

    def _write_file(self, folder: int, draft: Draft, key: bytes, now: float) -> bool:
        """False where the state's workspace was purged meanwhile. Raises DamageError, OSError."""

        def write(file: int) -> None:
            draft.write(file)
            os.utime(file, (now, now))

        n_purges = self._n_purges
        write_whole(folder, name_of(key), write)
        with self._owners_lock:
            purged = key in self._unlisted or self._n_purges != n_purges or self._owners.purged(key)
        if purged:
            remove_states(self._states, self._group, [key], durable=True)
        return not purged

    def _add(self, key: bytes, record: Record) -> None:
        with self._lock:
            self._forget(key)
            self._hopeless.discard(key)
            self._records[key] = record
            self.nbytes += record.nbytes

    def _forget(self, key: bytes) -> Record | None:
        with self._lock:
            record = self._records.pop(key, None)
            if record is not None:
                self.nbytes -= record.nbytes
            return record

    def _remove(self, keys: Iterable[bytes], *, durable: bool) -> Removed:
        with self._lock:  # or a state that is written anew in between would be forgotten with its file there
            removed = remove_states(self._states, self._group, keys, durable=durable)
            for key in (*removed.keys, *removed.absent):
                self._forget(key)
        return removed

    def _discard(self, key: bytes, why: str) -> None:
        """A file that is not to be believed goes, with one line in the log."""
        self._forget(key)
        refused = remove_states(self._states, self._group, [key]).fault
        if refused is None:
            log.warning("%s: %s; it was removed", self._path(key), why)
        else:
            self._hopeless.add(key)
            log.warning("%s: %s; it could not be removed (%s) and is left alone", self._path(key), why, fault(refused))

    def _stop(self, error: OSError) -> None:
        self._stopped_at = self._clock()
        self._say("fault", f"states are not written to disk: {fault(error)}")

    def _say(self, kind: str, line: str) -> None:
        """One line in the log for a kind of trouble, not one for every state that meets it."""
        if kind not in ("read", "remove", "purge", "array"):
            self.why_not_writing = line
        now = self._clock()
        if not 0 <= now - self._said.get(kind, -SAID_S) < SAID_S:
            self._said[kind] = now
            log.warning("%s", line)
