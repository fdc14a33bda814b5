"""A state on disk as people are told of it, by a daemon and by the command line alike. Imports no torch.

Knows: the disk tier's entries, what daemons note beside a state. Does not know: who asks.
"""

from collections.abc import Sequence
from typing import Any

from cache.index import DiskEntry
from daemon.protocol import KeptState

MOST = 1e15  # of anything that is counted


def kept(entry: DiskEntry, *, now: float) -> KeptState:
    return KeptState(
        key=entry.key.hex(),
        tier="disk",
        kind=entry.kind,
        tokens=entry.n_tokens,
        cost_tokens=int(noted([entry], "cost_tokens", float(entry.n_tokens))),
        nbytes=entry.nbytes,
        uses=entry.uses,
        pinned=False,
        about=noted([entry], "about", ""),
        workspaces=list(entry.workspaces),
        age_s=max(0.0, now - entry.used_at),
    )


def noted(entries: Sequence[DiskEntry], name: str, default: Any) -> Any:
    """What the last used of them has noted under a name: text or a number, as the default is. Notes are JSON of whatever version wrote them."""
    for entry in entries:
        value = entry.note.get(name)
        if isinstance(default, str) and isinstance(value, str):
            return value
        if isinstance(default, float) and isinstance(value, int | float) and 0 <= value < MOST:
            return float(value)
    return default
