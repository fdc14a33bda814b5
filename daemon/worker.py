"""The one thread that owns the model: newest keystroke first, background reading in the gaps, never longer than one piece of a slice at a time.

Knows: the engine, queues, cancel flags, whose turn it is. Does not know: HTTP. Every job's future is resolved exactly once.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from daemon.bases import Bases
from daemon.completion import Completion, Engine
from daemon.contexts import Contexts
from daemon.feeder import Interrupted
from daemon.inventory import purge, report
from daemon.live import LiveDocuments
from daemon.protocol import BackgroundReading, CacheReport, CompletionRequest, ContextStatus, Document, PurgeReport
from daemon.reading import Compaction, ContextJob, Reader
from daemon.upcoming import Upcoming

IDLE_COMPACTION_S = 60.0
IDLE_COMPACTION_TOKENS = 2048  # of change: for less, half of a BASE is not read again
IDLE_COMPACTION_READ_S = 120.0  # a compaction that nothing but idleness asks for may take so long
PERSIST_S = 30.0  # of idleness, before what may be needed after a restart is written
STOP_PERSIST_S = 5.0  # that a daemon which ends spends on writing
T = TypeVar("T")
log = logging.getLogger("codestral_lsp.worker")


@dataclass(eq=False)
class CompletionJob:
    """One request. Setting `cancel` stops it before its next token or slice."""

    request: CompletionRequest
    started: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    future: "Future[Completion]" = field(default_factory=Future)


class Worker(threading.Thread):
    """Call `submit`, `add_context` and `context` from any thread; everything else happens on this one."""

    def __init__(self, engine: Engine, *, max_context_tokens: int) -> None:
        super().__init__(name="model", daemon=True)
        self.engine = engine
        self.max_context_tokens = max_context_tokens
        self.keeper = keeper = engine.keeper
        stored = keeper.bases if keeper is not None else lambda: ()
        self.bases = Bases(engine.prompter.root, engine.prompter.documents, stored=stored)
        self.reader = Reader(engine, self.bases)
        self._wake = threading.Condition()
        self._jobs: list[CompletionJob] = []  # the newest is last
        self._running: CompletionJob | None = None
        self._latest: dict[str, CompletionJob] = {}  # by document
        self.contexts = Contexts()
        self.live = LiveDocuments(engine.store)
        self.upcoming = Upcoming(self.reader, self.contexts, self.live, self._wake)
        self._calls: list[Callable[[], None]] = []  # to be done on this thread, between two steps
        self._used_at = time.monotonic()
        self._persisted = True  # nothing has happened since what matters was offered to the disk
        self._stopping = False
        engine.feeder.interrupted = lambda: bool(self._jobs or self._calls or self._stopping)
        if keeper is not None:
            keeper.busy = lambda: bool(self._jobs or self._running)

    @property
    def busy(self) -> bool:
        """Whether anything is queued or being read."""
        with self._wake:
            return bool(self._jobs or self._background_work())

    @property
    def reading(self) -> BackgroundReading | None:
        """The context that is being read; None when none is."""
        with self._wake:
            job = self.contexts.next()
            status = None if job is None else job.status(compacting=False)
        if status is None:
            return None
        return BackgroundReading(
            context=status.id,
            tokens=status.tokens,
            tokens_done=status.tokens_fed + status.tokens_reused,
            tokens_per_s=self.engine.tokens_per_s,
        )

    def submit(self, request: CompletionRequest) -> CompletionJob:
        """Queues a completion; an older one for the same document is cancelled. Raises UnknownContext."""
        job = CompletionJob(request)
        with self._wake:
            if self._stopping:  # nobody will look at it any more
                job.future.cancel()
                return job
            if request.context is not None:
                self.contexts.used(request.context)
            if request.document is not None:
                older = self._latest.get(request.document)
                if older is not None:
                    older.cancel.set()
                    self._answer_waiting(older)
                self._latest[request.document] = job
            self._jobs.append(job)
            self._wake.notify()
        return job

    def _answer_waiting(self, cancelled: CompletionJob) -> None:
        """One that has not begun is answered at once: behind a newer one it would wait for that one's end. One that runs ends by itself."""
        if cancelled in self._jobs:
            self._jobs.remove(cancelled)
            if cancelled.future.set_running_or_notify_cancel():
                cancelled.future.set_result(self.engine.unasked(cancelled.started))

    def add_context(
        self,
        documents: Sequence[Document],
        *,
        workspace: str | None = None,
        on: str | None = None,
        removed: Sequence[str] = (),
    ) -> ContextStatus:
        """Tokenises and lays out on the calling thread, then queues the reading. What is kept is not fed again, whatever it was read for.

        Raises UnknownContext for an unknown `on`.
        """
        made = self.engine.prompter.documents
        if on is None:
            context = made.context(documents, max_tokens=self.max_context_tokens, workspace=workspace)
        else:
            with self._wake:
                older = self.contexts.job(on).context
            context = made.changed(older, documents, removed, max_tokens=self.max_context_tokens)
        with self._wake:
            known = self.contexts.get(context.id)
        layout = known.layout if known is not None else self.bases.layout(context, missing=self.reader.missing)
        with self._wake:
            is_due = layout.is_due and not self.contexts.is_compacting(context)
        compaction = Compaction(self.bases.compacted(layout)) if is_due else None
        readable = self.reader.readable(layout)
        with self._wake:
            job = self.contexts.get(context.id) or ContextJob(layout)
            if job.feeding is None:
                job.readable = readable
                if readable is None:
                    job.tokens_fed, job.tokens_reused = 0, layout.chain().n_tokens
            self.contexts.put(job, compaction)
            if job.readable is None:
                self.upcoming.read_under(job)
            self._used_at, self._persisted = time.monotonic(), False
            self._wake.notify()
        return self.context(context.id)

    def context(self, context_id: str) -> ContextStatus:
        """Raises UnknownContext."""
        with self._wake:
            return self.contexts.status(context_id)

    def report(self) -> CacheReport:
        return self._call(lambda: report(self.engine, self.contexts, self.reader))

    def purge(self, workspace: str | None) -> PurgeReport:
        """Removes what was derived from a workspace, or everything, from memory and disk."""

        def work() -> PurgeReport:
            with self._wake:
                self.upcoming.forget()
                self.live.forget()
                return purge(self.engine, self.contexts, self.reader, workspace)

        return self._call(work)

    def _call(self, work: Callable[[], T]) -> T:
        """Has something done on the model's thread, between two steps, and waits for it."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        with self._wake:
            if self._stopping:
                raise RuntimeError("the model's thread has ended")
            self._calls.append(run)
            self._wake.notify()
        return done.result()

    def stop(self) -> None:
        """Cancels what is running and ends the thread."""
        with self._wake:
            self._stopping = True
            for job in self._jobs:
                job.cancel.set()
            if self._running is not None:
                self._running.cancel.set()
            self._wake.notify()

    def run(self) -> None:
        # A decaying state is full of numbers too small to matter, which cost a hundred times as much as others on x86. This
        # holds for the thread that says so and those that it starts.
        torch.set_flush_denormal(True)
        while self._wait():
            self.step()
        if self.keeper is not None:
            self._persist()
            self.keeper.close(STOP_PERSIST_S)

    def _wait(self) -> bool:
        """Until there is something to do. False: the thread shall end."""
        with self._wake:
            while not (self._stopping or self._jobs or self._calls or self._background()):
                self._wake.wait(self._patience())
            if self._stopping:
                for job in self._jobs:
                    job.future.cancel()
                for run in self._calls:
                    run()
        return not self._stopping

    def step(self) -> bool:
        """Does the one thing whose turn it is: a completion, else a call, else a piece of background work. False: there was nothing to do."""
        with self._wake:
            calls, self._calls = self._calls, []
            job = self._running = self._jobs.pop() if self._jobs else None
            background = None if job or calls else self._background()
        for run in calls:
            run()
        try:
            if job is not None:
                self._complete(job)
            elif background is not None:
                background()
        except Interrupted:  # a keystroke came; the slice goes on afterwards from where it was left
            pass
        except Exception:
            # A request's own failure is in its future; this is a step of background work, given up so that the daemon lives on.
            log.exception("background reading failed and was given up")
            with self._wake:
                self._give_up(background)
        self._running = None
        return bool(job or calls or background)

    def _background(self) -> Callable[[], None] | None:
        """The step of background work whose turn it is."""
        work = self._background_work()
        if work is not None:
            return work
        idle_s = time.monotonic() - self._used_at
        if idle_s >= PERSIST_S and not self._persisted and self.keeper is not None:
            return self._persist
        if idle_s >= IDLE_COMPACTION_S and self._changed() is not None:
            return self._plan_compaction
        return None

    def _background_work(self) -> Callable[[], None] | None:
        """Reading that is under way or waits, what is needed first."""
        if self.contexts.next() is not None:
            return self._read_context
        return self.upcoming.next() or (self._compact if self.contexts.compaction is not None else None)

    def _patience(self) -> float | None:
        """How long nothing can become due."""
        idle_s = time.monotonic() - self._used_at
        waits = [PERSIST_S - idle_s] if not self._persisted and self.keeper is not None else []
        if self._changed() is not None:
            waits.append(IDLE_COMPACTION_S - idle_s)
        return max(0.05, min(waits)) if waits else None

    def _changed(self) -> ContextJob | None:
        """A context that a compaction would make smaller, in a time that an idle machine may be asked for."""
        jobs = (job for job in self.contexts.newest() if job.readable is None)
        return next((job for job in jobs if not job.settled and job.layout.overlay >= IDLE_COMPACTION_TOKENS), None)

    def _complete(self, job: CompletionJob) -> None:
        request = job.request
        self._used_at, self._persisted = time.monotonic(), False
        try:
            if not job.future.set_running_or_notify_cancel():
                return
            if job.cancel.is_set():  # its client has gone before its turn came
                job.future.set_result(self.engine.unasked(job.started))
                return
            grounds = self.upcoming.grounds(request)
            pending = self.upcoming.is_pending(request)
            result = self.engine.complete(
                request, grounds, cancelled=job.cancel.is_set, started=job.started, head_pending=pending
            )
            self.live.note(request, result)
            self._read_again_if_evicted(request.context)
            self.upcoming.note(request, result, grounds[0])
            job.future.set_result(result)
        except Exception as error:
            log.exception("a completion failed")
            job.future.set_exception(error)
        finally:
            with self._wake:
                if request.document is not None and self._latest.get(request.document) is job:
                    del self._latest[request.document]

    def _read_again_if_evicted(self, context_id: str | None) -> None:
        """A context whose last state had to make room is read again in the background, unless the store is too small to keep any."""
        job = self.contexts.get(context_id)
        if job is not None and job.readable is None and self.reader.is_lost(job):
            job.readable = self.reader.readable(job.layout)

    def _read_context(self) -> None:
        job = self.contexts.next()
        if job is not None and self.reader.read_context(job):
            with self._wake:
                self.upcoming.read_under(job)

    def _plan_compaction(self) -> None:
        """On a thread of its own: the index of a large BASE takes longer to make than a key may wait."""
        job = self._changed()
        if job is None:
            return
        job.settled = True
        layout = job.layout

        def plan() -> None:
            compaction = Compaction(self.bases.compacted(layout))
            seconds = self.engine.missing(compaction.base.chain) / self.engine.tokens_per_s
            with self._wake:
                # Meanwhile it may have been changed, or purged.
                is_wanted = self.contexts.get(job.context.id) is job and job.layout is layout
                if is_wanted and seconds <= IDLE_COMPACTION_READ_S and self.contexts.compaction is None:
                    self.contexts.compaction = compaction
                    self._wake.notify()

        threading.Thread(target=plan, name="compaction", daemon=True).start()

    def _compact(self) -> None:
        compaction = self.contexts.compaction
        if compaction is None or not self.reader.compact(compaction):
            return
        self.bases.add(compaction.base)
        with self._wake:
            if self.contexts.compaction is compaction:
                self.contexts.compaction = None
            for job in self.contexts.newest():
                if job.context.workspace == compaction.base.workspace and self.reader.relay(job):
                    self.upcoming.read_under(job)

    def _persist(self) -> None:
        self._persisted = True
        for job in self.contexts.newest():
            asked = ((self.contexts.get(context), head) for context, head in self.live.heads())
            workspace = job.context.workspace
            heads = [head for other, head in asked if other is not None and other.context.workspace == workspace]
            self.reader.persist(job, heads)  # under its own workspace: what is purged there must be all of it

    def _give_up(self, step: Callable[[], None] | None) -> None:
        job = self.contexts.next()
        if step == self._read_context and job is not None:
            self.contexts.drop(job.context.id)
        elif step == self._compact:
            self.contexts.compaction = None
        else:
            self.upcoming.forget()
