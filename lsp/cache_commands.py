"""The commands `cache ls|stats|verify|purge`: what is kept of repositories, in memory and on disk, and removing it.

Asks every daemon that runs, and for the disk a process of its own (daemon/cache_command.py), which reads what no daemon runs for. What a daemon and the
disk both name is shown once. Knows the daemons, that process and the terminal; knows no model and no file of a state.

Raises ClickException with one line for whatever cannot be done.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import msgspec
from click import ClickException, UsageError

from context.repository import find_root
from daemon.protocol import (
    PROTOCOL_VERSION,
    CacheReport,
    Health,
    KeptState,
    ModelOnDisk,
    PurgeReport,
    TierReport,
    VerifyReport,
)
from lsp.cache_tables import Held, StateRow, damaged_lines, ls_lines, size, stats_lines
from lsp.client import Client, DaemonError
from lsp.commands import print_json, run, settings_of
from lsp.fleet import Found, all_sockets, look, sockets_of
from lsp.terminal import counted, tell

PROGRAM = "daemon.cache_command"

_Answer = TypeVar("_Answer")
_Result = TypeVar("_Result")


class Unasked(NamedTuple):
    """A daemon that could not be asked, in one line. `keeps`: it may have states in its memory all the same."""

    line: str
    keeps: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    held: list[Held]
    unasked: list[Unasked]
    unnamed: int  # models on disk left out, since one was asked for and they do not say which they are


def ls(model: str | None, precision: str | None, *, as_json: bool) -> None:
    """Every state: what it covers, how large it is and what it would take to have it again."""
    found = run(lambda: _inventory(model, precision))
    _warn(found)
    if as_json:
        print_json({"models": found.held})
    elif found.held:
        click.echo("\n\n".join("\n".join(ls_lines(held)) for held in found.held))
    else:
        click.echo("nothing is kept")


def stats(model: str | None, precision: str | None, *, as_json: bool) -> None:
    """How full memory and disk are, and how often a state was found there."""
    found = run(lambda: _inventory(model, precision))
    _warn(found)
    if as_json:
        models = [msgspec.to_builtins(held) for held in found.held]
        print_json({"models": [{name: each[name] for name in each if name != "states"} for each in models]})
    elif found.held:
        click.echo("\n\n".join("\n".join(stats_lines(held)) for held in found.held))
    else:
        click.echo("nothing is kept")


def verify(*, remove: bool, as_json: bool) -> None:
    """Every byte of every state on disk. Damage that stays is a failure."""
    tell("reading all states on disk")
    report = run(lambda: _on_disk(["verify", *(["--remove"] if remove else [])], VerifyReport))
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        click.echo(f"{counted(report.states, 'state')} on disk, {size(report.nbytes)}: {_verdict(report)}")
        for line in damaged_lines(report.damaged):
            click.echo(line)
    left = len(report.damaged) - report.removed
    if left and remove:
        raise ClickException(f"{counted(left, 'damaged state')} could not be removed")
    if left:
        raise ClickException(
            f"{counted(left, 'damaged state')}; --remove removes what is damaged, it is made again when needed"
        )


def purge(workspace: Path | None, *, everything: bool, as_json: bool) -> None:
    """Removes what was derived from a workspace, or everything: from the daemons that run first, then what is left on disk."""
    if (workspace is None) != everything:
        what = (
            "takes either --workspace PATH or --all"
            if everything
            else "expected --workspace PATH, or --all for everything"
        )
        raise UsageError(what)
    found = run(lambda: _inventory(None, None))
    names = (
        None if workspace is None else workspaces_of(workspace, (s.workspaces for h in found.held for s in h.states))
    )
    (answers, unasked), on_disk = run(lambda: _purge(names))
    total = PurgeReport(
        states=on_disk.states + sum(answer.states for answer in answers),
        nbytes=on_disk.nbytes + sum(answer.nbytes for answer in answers),
    )
    if as_json:
        print_json({**msgspec.to_builtins(total), "workspaces": names, "daemons": len(answers)})
    else:
        of = "" if workspace is None else f" of {workspace}"
        removed = f"removed {counted(total.states, 'state')}{of}, {size(total.nbytes)}"
        click.echo(removed if total.states else f"nothing{of} was kept")
    if left := [each.line for each in unasked if each.keeps]:
        raise ClickException(f"what this daemon has in its memory is still there: {'; '.join(left)}")


def workspaces_of(path: Path, known: Iterable[Sequence[str]]) -> list[str]:
    """The workspaces whose states have read something of `path`: itself, the repository around it, and those known that hold it or lie in it.

    It need not exist any more.
    """
    here = os.path.realpath(path)
    names = {os.path.abspath(path), here, str(find_root(path))}
    for name in {name for names_of_state in known for name in names_of_state}:
        if os.path.isabs(name) and os.path.commonpath([here, name]) in (here, os.path.normpath(name)):
            names.add(name)
    return sorted(names)


async def _inventory(model: str | None, precision: str | None) -> Inventory:
    """Of all models, or of one, or of one precision of one."""
    settings = settings_of(model, precision)
    is_one = model is not None or precision is not None
    sockets = sockets_of(settings.model, precision) if is_one else all_sockets()
    (answers, unasked), on_disk = await asyncio.gather(
        _ask_all(sockets, lambda c: c.cache()), _on_disk(["ls"], list[ModelOnDisk])
    )
    held = [_of_daemon(health, report) for health, report in answers]
    shown = {state.key for each in held for state in each.states if "disk" in state.nbytes}
    left = [each for each in on_disk if not any(state.key in shown for state in each.states)]
    if is_one:
        unnamed = sum(not each.model for each in left)
        left = [each for each in left if each.model == settings.model]
    else:
        unnamed = 0
    return Inventory([*held, *map(_of_disk, left)], unasked, unnamed)


async def _purge(names: list[str] | None) -> tuple[tuple[list[PurgeReport], list[Unasked]], PurgeReport]:
    async def one(client: Client) -> PurgeReport:
        reports = [await client.purge(name) for name in ([None] if names is None else names)]
        return PurgeReport(states=sum(each.states for each in reports), nbytes=sum(each.nbytes for each in reports))

    answers, unasked = await _ask_all(all_sockets(), one)
    options = ["--all"] if names is None else [f"--workspace={name}" for name in names]
    return ([report for _, report in answers], unasked), await _on_disk(["purge", *options], PurgeReport)


async def _ask_all(
    sockets: Sequence[Path], question: Callable[[Client], Awaitable[_Answer]]
) -> tuple[list[tuple[Health, _Answer]], list[Unasked]]:
    """What the daemons that are ready answer, all asked at the same time."""
    asked = await asyncio.gather(*(_ask(found, question) for found in await look(sockets)))
    return [each for each in asked if not isinstance(each, Unasked)], [
        each for each in asked if isinstance(each, Unasked)
    ]


async def _ask(found: Found, question: Callable[[Client], Awaitable[_Answer]]) -> tuple[Health, _Answer] | Unasked:
    health = found.health
    if health is None:
        return Unasked(f"{found.socket} {found.problem}", keeps=False)
    name = f"the daemon with pid {health.pid}"
    if health.protocol != PROTOCOL_VERSION:
        return Unasked(f"{name} is of another version, {health.version}; codestral-lsp stop --all ends it", keeps=True)
    if health.state != "ready":
        return Unasked(f"{name} is {health.state} and keeps nothing yet", keeps=False)
    client = Client(found.socket)
    try:
        return health, await question(client)
    except DaemonError as error:
        return Unasked(f"{name}: {error.message}", keeps=error.type != "unreachable")
    finally:
        await client.close()


async def _on_disk(arguments: Sequence[str], kind: type[_Result]) -> _Result:
    """`-I`, as for the daemon: neither the environment nor the current folder decides what is run."""
    command = [sys.executable, "-I", "-m", PROGRAM, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/"
    )
    output, errors = await process.communicate()
    if process.returncode == 0:
        return msgspec.json.decode(output, type=kind)
    lines = errors.decode("utf-8", "replace").strip().splitlines() or [f"it ended with status {process.returncode}"]
    raise ClickException(f"the states on disk: {lines[-1]}")


def _of_daemon(health: Health, report: CacheReport) -> Held:
    """A state that lies in memory and on disk is one row."""
    rows: dict[str, StateRow] = {}
    for state in sorted(report.states, key=lambda state: state.tier != "memory"):
        rows[state.key] = _row(state, report.tokens_per_s, rows.get(state.key))
    return Held(
        model=report.model,
        pid=health.pid,
        precision=health.model.precision if health.model is not None else None,
        tiers=report.tiers,
        states=list(rows.values()),
        folder=report.folder,
        not_persisting=report.not_persisting,
    )


def _of_disk(found: ModelOnDisk) -> Held:
    rows = [_row(state, found.tokens_per_s, None) for state in found.states]
    nbytes = sum(state.nbytes for state in found.states) + sum(each.nbytes for each in found.damaged)
    tier = TierReport(tier="disk", states=len(rows), nbytes=nbytes, budget_bytes=0, hits=0, misses=0, evictions=0)
    rows.sort(key=lambda row: -row.cost_tokens)
    return Held(model=found.model, is_in_use=found.in_use, tiers=[tier], states=rows, damaged=found.damaged)


def _row(state: KeptState, tokens_per_s: float, before: StateRow | None) -> StateRow:
    """`before`: the same state as memory keeps it."""
    nbytes = {state.tier: state.nbytes} | ({} if before is None else before.nbytes)
    cost_tokens = state.cost_tokens if before is None else before.cost_tokens
    return StateRow(
        key=state.key,
        kind=state.kind,
        about=state.about if before is None or not before.about else before.about,
        tokens=state.tokens,
        cost_tokens=cost_tokens,
        recompute_s=cost_tokens / tokens_per_s if tokens_per_s > 0 else None,
        nbytes=nbytes,
        uses=state.uses + (0 if before is None else before.uses),
        pinned=state.pinned or (before is not None and before.pinned),
        workspaces=sorted({*state.workspaces, *([] if before is None else before.workspaces)}),
        age_s=state.age_s if before is None else min(state.age_s, before.age_s),
    )


def _verdict(report: VerifyReport) -> str:
    if not report.damaged:
        return "all whole and right"
    removed = f", {report.removed} removed" if report.removed else ""
    return f"{len(report.damaged)} damaged{removed}"


def _warn(found: Inventory) -> None:
    for each in found.unasked:
        click.echo(each.line, err=True)
    if found.unnamed:
        click.echo(
            f"{counted(found.unnamed, 'model')} on disk left out, not noted which; without --model they are shown",
            err=True,
        )
