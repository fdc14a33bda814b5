"""The states of all fingerprints on disk at once, for the command line: listed, verified and purged without a model, whether daemons run or not.

Knows: folders, files, owners. Does not know: models, budgets, what is said to people. A daemon that runs notices by itself that its files are gone.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cache.allowance import Record
from cache.folder import StateFolder
from cache.index import (
    DiskEntry,
    as_entry,
    as_record,
    groups,
    is_idle,
    keys_in,
    look_through,
    name_of,
    remove_states,
    shard_of,
    sweep_states,
)
from cache.owners import Owners
from cache.snapshot_file import Header, check_whole


class Verdict(NamedTuple):
    """A file, its length, and what is wrong with it; `why` is None for one that is whole and right."""

    path: Path
    nbytes: int
    why: str | None


@dataclass(frozen=True, slots=True)
class TierOnDisk:
    """The states of one model in one precision. `group`: the first 16 digits of its fingerprint; `in_use`: a daemon writes to it at present."""

    group: str
    in_use: bool
    entries: list[DiskEntry]  # the last used first
    damaged: list[Verdict]  # their headers are; `verify` looks at everything

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries) + sum(verdict.nbytes for verdict in self.damaged)


def all_tiers(folder: Path) -> list[TierOnDisk]:
    """What is in `<cache>/states`; nothing is changed. Raises OSError, with one line, for a folder that cannot be read or is not safe."""
    states = StateFolder(folder)
    return [_tier(states, group) for group in groups(states)]


def verify(folder: Path, *, remove: bool = False) -> Iterator[Verdict]:
    """Reads every byte of every state, one verdict each; `remove`: those that are damaged go. Raises OSError."""
    states = StateFolder(folder)
    for group in groups(states):
        for key, _, why in look_through(states, group, _check):
            path = _path(states, group, key)
            nbytes = _length(path)
            if why is not None and remove:
                refused = remove_states(states, group, [key]).fault
                why = (
                    f"{why}; {'it was removed' if refused is None else f'it could not be removed ({refused.strerror})'}"
                )
            yield Verdict(path=path, nbytes=nbytes, why=why)


def purge_all(folder: Path, workspace: str | None) -> tuple[int, int]:
    """Removes the states of a workspace, or all, of every fingerprint, so that not even a crash brings them back; how many, and their bytes.

    Raises OSError where some could not be removed, after all that could.
    """
    states, n_removed, n_bytes, fault = StateFolder(folder), 0, 0, None
    for group in groups(states):
        owners = Owners(states, group)
        owners.load()
        workspaces = owners.workspaces() if workspace is None else [workspace]
        listed = set(keys_in(states, group)) if workspace is None else owners.keys(workspace)
        removed = remove_states(states, group, listed, durable=True)
        n_removed, n_bytes = n_removed + len(removed.keys), n_bytes + removed.nbytes
        if removed.fault is not None:
            fault = removed.fault
            continue
        for name in workspaces:
            owners.forget(name)
        sweep_states(states, group, now=time.time(), mine=False)  # half of a state reveals what it has read too
    if fault is not None:
        raise fault
    return n_removed, n_bytes


def _tier(states: StateFolder, group: str) -> TierOnDisk:
    owners, entries, damaged = Owners(states, group), [], []
    owners.load()
    for key, record, why in look_through(states, group):
        if record is not None:
            entries.append(as_entry(key, record, owners.of(key)))
        else:
            path = _path(states, group, key)
            damaged.append(Verdict(path=path, nbytes=_length(path), why=why))
    entries.sort(key=lambda entry: entry.used_at, reverse=True)
    return TierOnDisk(group=group, in_use=not is_idle(states, group), entries=entries, damaged=damaged)


def _check(file: int, header: Header) -> Record:
    check_whole(file, header)
    return as_record(file, header)


def _path(states: StateFolder, group: str, key: bytes) -> Path:
    return states.path / group / shard_of(key) / name_of(key)


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
