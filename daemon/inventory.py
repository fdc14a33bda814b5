"""What a daemon keeps, for people, and removing it. Runs on the model's thread. Knows: the worker's parts. Does not know: HTTP."""

import time
from collections.abc import Iterable

from cache.chain import Slice
from cache.disk import DiskTier
from cache.store import Entry, StateStore
from daemon.completion import Engine
from daemon.contexts import Contexts
from daemon.kept import kept
from daemon.layout import Base
from daemon.protocol import CacheReport, KeptState, PurgeReport, TierReport
from daemon.reading import Reader, counted

MAX_STATES = 2000  # that are listed, those that took longest to make first


def report(engine: Engine, contexts: Contexts, reader: Reader) -> CacheReport:
    """Everything in memory, and on disk what belongs to this model."""
    store, keeper = engine.store, engine.keeper
    states = _in_memory(store.entries(), engine, reader, contexts)
    tiers = [_tier("memory", store)]
    if keeper is not None:
        now = time.time()
        tiers.append(_tier("disk", keeper.tier))
        states += [kept(entry, now=now) for entry in keeper.tier.entries()]
    states.sort(key=lambda each: -each.cost_tokens)
    return CacheReport(
        model=engine.model.name,
        tiers=tiers,
        states=states[:MAX_STATES],
        tokens_per_s=engine.tokens_per_s,
        folder="" if keeper is None else str(keeper.folder),
        not_persisting=None if keeper is None else keeper.tier.why_not_writing,
    )


def purge(engine: Engine, contexts: Contexts, reader: Reader, workspace: str | None) -> PurgeReport:
    """Removes what was derived from a workspace, or everything. From memory all goes, if the workspace is known at all: a state says nothing of who else
    it was made for, and what is another workspace's is read again from disk."""
    if workspace is not None and not is_known(contexts, reader, workspace):
        n_states, nbytes = (0, 0) if engine.keeper is None else engine.keeper.tier.purge(workspace)
        return PurgeReport(states=n_states, nbytes=nbytes)
    n_states, nbytes = engine.store.drop([entry.key for entry in engine.store.entries()])
    for job in contexts.all():
        if workspace is None or job.context.workspace == workspace:
            contexts.drop(job.context.id)
        else:
            job.feeding, job.readable = None, 0
    contexts.compaction = None
    engine.prompter.forget()
    engine.hints.forget()
    engine.feeder.forget()
    reader.forget()
    reader.bases.forget()
    if engine.keeper is not None:
        engine.keeper.forget()
        on_disk, bytes_on_disk = engine.keeper.tier.purge(workspace)
        n_states, nbytes = n_states + on_disk, nbytes + bytes_on_disk
    return PurgeReport(states=n_states, nbytes=nbytes)


def is_known(contexts: Contexts, reader: Reader, workspace: str) -> bool:
    """Whether anything was read for a workspace, in this daemon's life or before."""
    has_context = any(job.context.workspace == workspace for job in contexts.all())
    return has_context or any(base.workspace == workspace for base in reader.bases.known())


def _in_memory(entries: Iterable[Entry], engine: Engine, reader: Reader, contexts: Contexts) -> list[KeptState]:
    now = time.monotonic()
    bases = [job.layout.base for job in contexts.all()]
    owners = _owners(contexts)
    return [
        KeptState(
            key=entry.key.hex(),
            tier="memory",
            kind=entry.slices[-1].kind,
            tokens=entry.n_tokens,
            cost_tokens=entry.cost_tokens,
            nbytes=entry.nbytes,
            uses=entry.uses,
            pinned=engine.store.pinned(entry.key),
            about=_about(entry.slices, bases, reader),
            workspaces=sorted(owners.get(_first_key(entry.slices), ())),
            age_s=now - entry.made_at,
        )
        for entry in entries
    ]


def _tier(name: str, tier: StateStore | DiskTier) -> TierReport:
    return TierReport(
        tier=name,
        states=len(tier),
        nbytes=tier.nbytes,
        budget_bytes=tier.budget_bytes,
        hits=tier.hits,
        misses=tier.misses,
        evictions=tier.evictions,
    )


def _about(slices: tuple[Slice, ...], bases: list[Base], reader: Reader) -> str:
    """The file in which a state stands; of a state inside BASE, how many files it has read."""
    if slices[-1].kind not in ("base", "hot", "root"):
        return reader.about(slices)
    base = next((base for base in bases if _first_key(base.chain.slices) == _first_key(slices)), None)
    if base is None:
        return f"{slices[-1].end} tokens"
    is_base = slices[-1].kind == "base"
    n_files = base.files_in(len(slices)) if is_base else len(base.manifest)
    return counted(n_files, "file") if is_base else f"{counted(n_files, 'file')} and what has changed since"


def _owners(contexts: Contexts) -> dict[bytes, set[str]]:
    """Workspaces by the key of the first slice of what they have read."""
    owners: dict[bytes, set[str]] = {}
    for job in contexts.all():
        if job.context.workspace is not None:
            owners.setdefault(_first_key(job.layout.chain().slices), set()).add(job.context.workspace)
    return owners


def _first_key(slices: tuple[Slice, ...]) -> bytes:
    """Of the first slice after the root, where chains of different contexts part; empty where there is none."""
    return next((part.key for part in slices if part.kind != "root"), b"")
