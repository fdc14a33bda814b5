"""Between the model's states and the disk: what is written, when, and what a daemon that starts again finds.

Writing happens on a thread of its own, one state at a time, and only while no completion runs. Knows: values, the disk tier. Does not know: requests, how
files are made safe.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.chain import Chain
from cache.disk import DiskTier
from daemon.feeder import Value
from daemon.layout import Base, Listed
from model.config import Mamba2Config
from model.snapshot import SnapshotError, from_arrays, to_arrays

PENDING_BYTES = 64 << 20  # of states that wait to be written; at least two states may wait
YIELD_S = 0.02
BASES = 8  # on disk that are looked at for a context, the last used first
log = logging.getLogger("codestral_lsp.cache")


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    chain: Chain
    value: Value
    note: Mapping[str, Any]
    workspace: str | None


class Keeper:
    """The shelf of a StateStore (cache/store.py), and the road to the disk. `busy` says whether a completion is running."""

    def __init__(
        self,
        tier: DiskTier,
        folder: Path,
        *,
        config: Mamba2Config,
        snapshot_format: str,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tier = tier
        self.folder = folder
        self.config = config
        self.snapshot_format = snapshot_format
        self.busy = busy
        self._pending: deque[_Pending] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._bases: dict[bytes, Base] = {}
        self._thread = threading.Thread(target=self._write_all, name="keeper", daemon=True)
        self._thread.start()

    def __contains__(self, key: bytes) -> bool:
        return key in self.tier

    def load(self, chain: Chain, length: int) -> tuple[Value, int] | None:
        """The value after the first `length` slices; None where it is not there any more or not what it should be."""
        snapshot = self.tier.read(chain, length)
        if snapshot is None:
            return None
        try:
            state, logits = from_arrays(snapshot.arrays, self.config)
        except SnapshotError as error:
            log.warning("%s: %s; it is removed", chain.slices[length - 1].key.hex(), error)
            self.tier.remove([chain.slices[length - 1].key])
            return None
        value = Value(state, logits)
        return value, value.nbytes

    def offer(self, chain: Chain, value: Value, note: Mapping[str, Any], *, workspace: str | None) -> bool:
        """Queues the state at the end of `chain` for the disk, unless it is there or too much waits already. Never waits."""
        key = chain.tip
        if key in self.tier:
            if workspace is not None:
                self.tier.own(workspace, [key])
            return True
        with self._wake:
            waiting = sum(each.value.nbytes for each in self._pending)
            if self._stopping or waiting + value.nbytes > max(PENDING_BYTES, 2 * value.nbytes):
                return False
            if all(each.chain.tip != key for each in self._pending):
                self._pending.append(_Pending(chain, value, note, workspace))
                self._wake.notify_all()
        return True

    def own(self, base: Base) -> None:
        """Notes that a workspace builds on the states of a BASE that lie on disk."""
        if base.workspace is not None:
            self.tier.own(base.workspace, [part.key for part in base.chain.slices if part.key in self.tier])

    def bases(self) -> Iterable[Base]:
        """The BASEs on disk, the last used first. Their tokens are read once."""
        n_found = 0
        for key in self.tier.keys(kind="base"):
            base = self._bases.get(key) or self._read_base(key)
            if base is not None:
                self._bases[key] = base
                n_found += 1
                yield base
            if n_found == BASES:
                return

    def _read_base(self, key: bytes) -> Base | None:
        note = self.tier.note(key)
        chain = self.tier.read_chain(key) if note is not None and "manifest" in note else None
        if note is None or chain is None:  # gone, or a checkpoint inside a BASE
            return None
        manifest = tuple(Listed(path, bytes.fromhex(digest), n_tokens) for path, digest, n_tokens in note["manifest"])
        return Base(manifest, chain, note.get("workspace"))

    def forget(self) -> None:
        """What is known of the BASEs on disk, and what waits to be written."""
        with self._wake:
            self._pending.clear()
        self._bases.clear()

    def wait(self, timeout_s: float) -> bool:
        """Until everything offered is written; False when that took longer."""
        deadline = time.monotonic() + timeout_s
        with self._wake:
            while self._pending:
                if not self._wake.wait(max(0.0, deadline - time.monotonic())):
                    return False
        return True

    def close(self, timeout_s: float) -> None:
        """Writes what waits, for at most so long."""
        self.wait(timeout_s)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        self.tier.close()

    def _write_all(self) -> None:
        while True:
            with self._wake:
                while not self._pending and not self._stopping:
                    self._wake.wait()
                if self._stopping:
                    return
                pending = self._pending[0]
            while self.busy() and not self._stopping:
                time.sleep(YIELD_S)
            try:
                self._write(pending)
            except Exception:  # a fault of ours must not end the thread; the state stays where it was, in memory
                log.exception("a state was not written")
            with self._wake:
                if self._pending and self._pending[0] is pending:
                    self._pending.popleft()
                self._wake.notify_all()

    def _write(self, pending: _Pending) -> None:
        key = pending.chain.tip
        if pending.workspace is not None:
            self.tier.own(pending.workspace, [key])
        arrays = to_arrays(pending.value.state, pending.value.logits, self.snapshot_format)
        self.tier.write(pending.chain, len(pending.chain.slices), arrays, pending.note)
