"""How kept states are shown to people: tables of what is where, shares of budgets, damage.

Knows the values that are shown; asks no daemon and reads no file.
"""

from collections.abc import Sequence

import msgspec

from daemon.protocol import DamagedState, TierReport
from lsp.terminal import counted, harmless, span

HEAD = ("", "covers", "tokens", "memory", "disk", "to make again", "used", "age", "workspace")
LEFT = (0, 1, 8)  # columns that start at the left; numbers end at the right
ABOUT_SHOWN = 48  # characters of a path; its end says more than its beginning
PINNED = "* in use by a document that is open"


class StateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One state, wherever it lies: `nbytes` by "memory" and "disk". `recompute_s` None: nobody has noted how fast the model reads."""

    key: str
    kind: str
    about: str
    tokens: int
    cost_tokens: int
    recompute_s: float | None
    nbytes: dict[str, int]
    uses: int
    pinned: bool
    workspaces: list[str]
    age_s: float


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for one model in one precision. `pid` None: no daemon was asked, and memory, budgets and hits are not known."""

    model: str  # "" where that was not noted
    precision: str | None = None
    pid: int | None = None
    is_in_use: bool = True  # by some daemon
    folder: str = ""
    not_persisting: str | None = None
    tiers: list[TierReport]
    states: list[StateRow]
    damaged: list[DamagedState] = []


def ls_lines(held: Held) -> list[str]:
    """Its name, and a line for each state."""
    rows = [_cells(row) for row in held.states]
    lines = [title(held)]
    if rows:
        widths = [max(len(row[i]) for row in (HEAD, *rows)) for i in range(len(HEAD))]
        for row in (HEAD, *rows):
            cells = [c.ljust(w) if i in LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  " + "  ".join(cells).rstrip())
    else:
        lines.append("  no state")
    if any(row.pinned for row in held.states):
        lines.append("  " + PINNED)
    n_more = sum(tier.states for tier in held.tiers) - sum(len(row.nbytes) for row in held.states)
    if n_more > 0:
        lines.append(f"  and {n_more} more, which take less to make again")
    return lines + damaged_lines(held.damaged)


def stats_lines(held: Held) -> list[str]:
    """Its name, and a line for memory and for disk."""
    lines = [title(held)]
    for tier in held.tiers:
        parts = [counted(tier.states, "state")]
        if held.pid is None:
            parts.append(size(tier.nbytes))
        else:
            share = f" ({100 * tier.nbytes / tier.budget_bytes:.0f} %)" if tier.budget_bytes else ""
            asked = tier.hits + tier.misses
            rate = f" ({100 * tier.hits / asked:.0f} %)" if asked else ""
            parts.append(f"{size(tier.nbytes)} of {size(tier.budget_bytes)}{share}")
            parts.append(f"found {tier.hits} of {counted(asked, 'time')}{rate}")
            parts.append(f"{tier.evictions} removed to make room")
        lines.append(f"  {tier.tier:<6}  {', '.join(parts)}")
    if held.not_persisting:
        lines.append(f"  nothing is written to disk at present: {harmless(held.not_persisting)}")
    return lines + damaged_lines(held.damaged)


def title(held: Held) -> str:
    name = harmless(held.model) or "a model that is not noted"
    precision = f" in {held.precision}" if held.precision else ""
    if held.pid is not None:
        return f"{name}{precision}, daemon with pid {held.pid}"
    return f"{name}{precision}, {'in use by a daemon that was not asked' if held.is_in_use else 'no daemon runs'}"


def damaged_lines(damaged: Sequence[DamagedState]) -> list[str]:
    return [f"  damaged: {harmless(each.path)}, {size(each.nbytes)}: {harmless(each.why)}" for each in damaged]


def size(n_bytes: int) -> str:
    """4.2 MB, 1.3 GB."""
    if n_bytes < 100_000:
        return f"{n_bytes / 1e3:.1f} kB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"


def _cells(row: StateRow) -> tuple[str, ...]:
    about = harmless(row.about) or f"{row.tokens} tokens"
    return (
        row.kind + "*" * row.pinned,
        about if len(about) <= ABOUT_SHOWN else f"...{about[3 - ABOUT_SHOWN :]}",
        str(row.tokens),
        *(size(row.nbytes[tier]) if tier in row.nbytes else "-" for tier in ("memory", "disk")),
        _time(row.recompute_s) if row.recompute_s is not None else counted(row.cost_tokens, "token"),
        str(row.uses),
        span(row.age_s),
        ", ".join(map(harmless, row.workspaces)),
    )


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else span(seconds)
