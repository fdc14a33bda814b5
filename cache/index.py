"""Where the file of a state lies, and what is in the files of a fingerprint: always read from the files themselves, never from a list that is believed.

    <states>/v1/<16 hex of the fingerprint>/<2 hex of the key>/<key>.safetensors

Knows: keys, folders, headers. Does not know: budgets, who may write, what a state is.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from cache.allowance import Record
from cache.folder import StateFolder, UnsafeFileError, fault, is_locked, open_file, sweep
from cache.owners import OWNERS
from cache.snapshot_file import DamageError, Header, read_header

SUFFIX = ".safetensors"
Seen = TypeVar("Seen")
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class DiskEntry:
    """One state on disk. `n_tokens` it has read; times in seconds since 1970; `uses` since this process started, and one before."""

    key: bytes
    kind: str
    n_tokens: int
    nbytes: int
    note: dict[str, Any]
    made_at: float
    used_at: float
    uses: int
    workspaces: tuple[str, ...]


class Found(NamedTuple):
    """A file of a fingerprint's folder: what it says about itself, or why it is not believed."""

    key: bytes
    record: Record | None
    why: str | None


class Removed(NamedTuple):
    """The states whose files are gone now, their bytes, those that were gone before, and what kept others from going."""

    keys: list[bytes]
    absent: list[bytes]
    nbytes: int
    fault: OSError | None


class IdleFile(NamedTuple):
    """A state that no daemon uses at present: of a model, precision or version that none runs."""

    used_at: float
    nbytes: int
    group: str
    key: bytes


def shard_of(key: bytes) -> str:
    return key.hex()[:2]


def name_of(key: bytes) -> str:
    return key.hex() + SUFFIX


def key_of(name: str) -> bytes | None:
    """The key that a file's name stands for; None for files of another kind."""
    text = name.removesuffix(SUFFIX)
    return bytes.fromhex(text) if text != name and len(text) == 64 and set(text) <= _HEX else None


def shards(states: StateFolder, group: str) -> list[str]:
    """The folders of states below a fingerprint's. Raises OSError."""
    return [name for name in states.names(group) if len(name) == 2 and set(name) <= _HEX]


def groups(states: StateFolder) -> list[str]:
    """The fingerprints' folders. Raises OSError."""
    return [name for name in states.names() if len(name) == 16 and set(name) <= _HEX]


def examine(states: StateFolder, group: str, key: bytes, look: Callable[[int, Header], Seen]) -> Seen:
    """What `look` makes of a state's open file and header, which belongs to this key and fingerprint.

    Raises DamageError for a file that is not what it should be, FileNotFoundError, and OSError for a fault that says nothing about the file.
    """
    try:
        with states.open(group, shard_of(key)) as folder, open_file(folder, name_of(key)) as file:
            header = read_header(file)
            if header.key != key:
                raise DamageError(f"it is the state {header.key.hex()[:16]}")
            if header.fingerprint[:16] != group:
                raise DamageError(f"it is of the model {header.fingerprint[:16]!r}")
            return look(file, header)
    except UnsafeFileError as error:
        raise DamageError(fault(error)) from None
    except OSError as error:
        if error.errno == errno.EIO:
            raise DamageError(fault(error)) from None
        raise


def as_record(file: int, header: Header) -> Record:
    """A state's record from its open file; the file's time is that of its last use."""
    used_at = os.fstat(file).st_mtime
    return Record(
        kind=header.kind,
        n_tokens=header.n_tokens,
        nbytes=header.nbytes,
        note=header.note,
        made_at=header.made_at,
        used_at=used_at,
        touched_at=used_at,
    )


def as_entry(key: bytes, record: Record, workspaces: tuple[str, ...]) -> DiskEntry:
    return DiskEntry(
        key=key,
        kind=record.kind,
        n_tokens=record.n_tokens,
        nbytes=record.nbytes,
        note=dict(record.note),
        made_at=record.made_at,
        used_at=record.used_at,
        uses=record.uses,
        workspaces=workspaces,
    )


def keys_in(states: StateFolder, group: str) -> Iterator[bytes]:
    """The states of a fingerprint by the names of their files, in their order. Raises OSError."""
    for shard in shards(states, group):
        for name in states.names(group, shard):
            key = key_of(name)
            if key is not None and shard_of(key) == shard:
                yield key


def look_through(states: StateFolder, group: str, look: Callable[[int, Header], Record] = as_record) -> Iterator[Found]:
    """All states of a fingerprint. Raises OSError for a fault that says nothing about a file."""
    for key in keys_in(states, group):
        try:
            yield Found(key=key, record=examine(states, group, key, look), why=None)
        except FileNotFoundError:
            continue  # evicted in the meantime
        except DamageError as error:
            yield Found(key=key, record=None, why=str(error))


def remove_states(states: StateFolder, group: str, keys: Iterable[bytes], *, durable: bool = False) -> Removed:
    """Removes states' files. `durable`: not even a crash brings them back."""
    removed, absent, n_bytes, refused = [], [], 0, None
    for key in keys:
        name = name_of(key)
        try:
            with states.open(group, shard_of(key)) as folder:
                size = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
                os.unlink(name, dir_fd=folder)
                if durable:
                    os.fsync(folder)
        except FileNotFoundError:
            absent.append(key)
        except OSError as error:
            refused = error
        else:
            removed.append(key)
            n_bytes += size
    return Removed(keys=removed, absent=absent, nbytes=n_bytes, fault=refused)


def sweep_states(states: StateFolder, group: str, *, now: float, mine: bool) -> None:
    """Removes what writers that are gone have left half written; `mine`: this process writes nothing here now. Raises OSError."""
    for names in ((), *((name,) for name in (OWNERS, *shards(states, group)))):
        with contextlib.suppress(FileNotFoundError), states.open(group, *names) as folder:
            sweep(folder, now=now, mine=mine)


def idle_files(states: StateFolder, *, but: str) -> list[IdleFile]:
    """The states of fingerprints that no daemon writes to, without those of `but`, the least lately used first. Raises OSError."""
    found = []
    for group in groups(states):
        if group == but or not is_idle(states, group):
            continue
        for shard in shards(states, group):
            with states.open(group, shard) as folder:
                for name in os.listdir(folder):
                    key = key_of(name)
                    if key is not None:
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        found.append(IdleFile(status.st_mtime, status.st_size, group, key))
    return sorted(found)


def is_idle(states: StateFolder, group: str) -> bool:
    """Whether no daemon writes to a fingerprint's folder. Raises OSError."""
    with states.open(group) as folder:
        return not is_locked(folder)
