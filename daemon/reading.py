"""What is read in the background: contexts, the prompts that a key had no time for, and new BASEs beside those that serve.

Called by the model's thread, one step at a time; a step is interrupted by a key (daemon/feeder.py) and goes on later. Knows: the engine, layouts. Does not
know: threads, queues, HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cache.chain import Chain, Slice
from cache.resume import Feeding, kept_length
from daemon.bases import Bases, Ground, grounds_of
from daemon.completion import Engine
from daemon.documents import Context, Piece
from daemon.feeder import Value
from daemon.layout import Base, Layout
from daemon.protocol import CompletionRequest, ContextStatus


@dataclass(eq=False)
class ContextJob:
    """A context that is being read, or has been. `readable` is how many slices of its chain a completion may build on."""

    layout: Layout
    feeding: Feeding | None = None  # None: not yet looked at, or done
    readable: int | None = 0  # None: all
    tokens_fed: int = 0
    tokens_reused: int = 0
    superseded: bool = False  # by a later context of its workspace: read no further unless someone asks for it
    settled: bool = False  # idleness asks for no compaction of it any more

    @property
    def context(self) -> Context:
        return self.layout.context

    @property
    def is_wanted(self) -> bool:
        return self.readable is not None and not self.superseded

    def status(self, *, compacting: bool) -> ContextStatus:
        fed = self.tokens_fed if self.feeding is None else self.feeding.tokens_fed
        reused = self.tokens_reused if self.feeding is None else self.feeding.tokens_reused
        return ContextStatus(
            id=self.context.id,
            state="ready" if self.readable is None else "feeding",
            n_documents=self.context.n_documents,
            tokens=self.layout.chain().n_tokens,
            tokens_fed=fed,
            tokens_reused=reused,
            left_out=list(self.context.left_out),
            hot_tokens=self.layout.hot_tokens,
            current=grounds_of(self.layout, path=None, readable=self.readable)[-1].current,
            compacting=compacting,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PromptJob:
    """The prompt of a request, read so that a later key finds all of its states."""

    request: CompletionRequest
    feeding: Feeding

    def is_of(self, request: CompletionRequest) -> bool:
        """Whether a request is for the same file in the same context."""
        return (request.path, request.context) == (self.request.path, self.request.context)


@dataclass(eq=False)
class AheadJob:
    """The file of a request, read to its end as it was saved."""

    request: CompletionRequest
    ground: Ground
    piece: Piece
    feeding: Feeding | None = None
    done: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        outlines = tuple((each.path, each.text) for each in self.request.related)
        return self.ground.chain.tip, self.request.path, self.piece.digest, outlines


@dataclass(eq=False)
class Compaction:
    """A new BASE on its way, beside the one that serves."""

    base: Base
    feeding: Feeding | None = field(default=None)


class Reader:
    """Steps of background reading, and what they leave behind: states in the store, and copies on disk."""

    def __init__(self, engine: Engine, bases: Bases) -> None:
        self.engine = engine
        self.bases = bases
        self.keeper = engine.keeper
        self._reading: ContextJob | None = None  # read last

    def missing(self, base: Base) -> int:
        return self.engine.missing(base.chain)

    def read_context(self, job: ContextJob) -> bool:
        """One step. True: the context is read."""
        if self._reading is not job:
            self._leave(self._reading)
            self._reading = job
        feeding = job.feeding
        if feeding is None:
            feeding = job.feeding = self.engine.resume(job.layout.chain())
        elif not feeding.ready:
            feeding.step()
            self._keep(job.layout.base, feeding)
        last = feeding.chain.slices[feeding.done - 1] if feeding.done else None
        if last is not None and (last.keep or feeding.ready):
            job.readable = feeding.done
        if not feeding.ready:
            return False
        job.tokens_fed, job.tokens_reused = feeding.tokens_fed, feeding.tokens_reused
        job.readable, job.feeding = None, None
        if self.keeper is not None:
            self.keeper.own(job.layout.base)
        return True

    def _leave(self, job: ContextJob | None) -> None:
        """Keeps how far a context was read before another's turn came: that one goes on from there where it begins the same, and this one later from
        wherever others have got to. Else whoever saves more often than a checkpoint is reached would have the first BASE begun again each time."""
        feeding = None if job is None else job.feeding
        if job is None or feeding is None or feeding.ready or not feeding.done:
            return
        if self.engine.store.put(feeding.chain, feeding.done, feeding.value, feeding.value.nbytes):
            job.feeding = None

    def forget(self) -> None:
        """What was being read."""
        self._reading = None

    def compact(self, compaction: Compaction) -> bool:
        """One step. True: the new BASE is read."""
        feeding = compaction.feeding
        if feeding is None:
            feeding = compaction.feeding = self.engine.resume(compaction.base.chain)
        elif not feeding.ready:
            feeding.step()
            self._keep(compaction.base, feeding)
        return feeding.ready

    def readable(self, layout: Layout) -> int | None:
        """How many slices of a layout's chain a kept state has read; None: all of them."""
        chain = layout.chain()
        length = kept_length(chain, self.engine.store)
        return None if length == len(chain.slices) else length

    def is_lost(self, job: ContextJob) -> bool:
        """Whether the state that completions in this context build on had to make room, in a store that keeps any at all."""
        return len(self.engine.store) > 0 and self.readable(job.layout) is not None

    def read_prompt(self, job: PromptJob) -> bool:
        if not job.feeding.ready:
            job.feeding.step()
        return job.feeding.ready

    def read_ahead(self, job: AheadJob) -> None:
        if job.feeding is None:
            chain = self.engine.prompter.whole_file(job.ground.chain, job.request, job.piece.text_ids)
            job.feeding = None if chain is None else self.engine.resume(chain)
        elif not job.feeding.ready:
            job.feeding.step()
        job.done = job.feeding is None or job.feeding.ready
        if job.done:
            job.feeding = None

    def relay(self, job: ContextJob) -> bool:
        """Lays a context out anew, if that makes it smaller: a compaction has given it a better BASE. True: it did."""
        layout = self.bases.layout(job.context, missing=self.missing)
        if layout.base.key == job.layout.base.key:
            return False
        job.layout, job.feeding, job.settled = layout, None, layout.is_compact
        job.readable = self.readable(layout)
        return True

    def persist(self, job: ContextJob, prompts: list[Chain]) -> None:
        """Offers what an idle daemon would be sorry to lose: the end of HOT, and the deepest state of each file that is being edited."""
        if self.keeper is None or job.readable is not None:
            return
        workspace = job.context.workspace
        ends = [
            (job.layout.chain(), f"{counted(len(job.layout.hot), 'changed file')}"),
            *((each, "") for each in prompts),
        ]
        for chain, about in ends:
            entry = self.engine.store.peek(chain.tip) if chain.slices else None
            if entry is not None and chain.slices[-1].kind != "base":
                self._offer(chain, entry.value, about or self.about(chain.slices), workspace=workspace)
        entry = self.engine.store.peek(job.layout.base.key)
        if entry is not None:
            self._offer_base(job.layout.base, len(job.layout.base.chain.slices), entry.value)

    def about(self, slices: Sequence[Slice]) -> str:
        """The path of the file that a chain ends in, for people."""
        header = next((part for part in slices if part.kind == "head"), None)
        text = self.engine.model.tokenizer.decode(header.tokens.tolist()) if header is not None else ""
        return text.strip().removeprefix("+++++ ")

    def _keep(self, base: Base, feeding: Feeding) -> None:
        """A state inside BASE, or at its end, goes to the disk as soon as it is there: it is what takes longest to make again."""
        part = feeding.chain.slices[feeding.done - 1]
        n_base = len(base.chain.slices)
        if self.keeper is None or not part.keep or part.kind != "base" or feeding.done > n_base:
            return
        self._offer_base(base, feeding.done, feeding.value)

    def _offer_base(self, base: Base, length: int, value: Value) -> None:
        """The state after the first `length` slices of a BASE. The one at its end says what BASE holds: from it the next daemon knows it."""
        if not base.manifest:
            return
        manifest = None
        if length == len(base.chain.slices):
            manifest = [[each.path, each.digest.hex(), each.n_tokens] for each in base.manifest]
        n_files = base.files_in(length)
        about = counted(n_files, "file") if manifest is not None else f"the first {counted(n_files, 'file')}"
        self._offer(base.chain.upto(length), value, about, workspace=base.workspace, manifest=manifest)

    def _offer(
        self,
        chain: Chain,
        value: Value,
        about: str,
        *,
        workspace: str | None,
        manifest: list[list[object]] | None = None,
    ) -> None:
        entry = self.engine.store.peek(chain.tip)
        note = {
            "about": about,
            "cost_tokens": chain.n_tokens if entry is None else entry.cost_tokens,
            "workspace": workspace,
            "model": self.engine.model.name,
            "tokens_per_s": round(self.engine.tokens_per_s, 1),
        }
        if manifest is not None:
            note["manifest"] = manifest
        if self.keeper is not None:
            self.keeper.offer(chain, value, note, workspace=workspace)


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
