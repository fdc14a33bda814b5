"""The one thread that owns the model: newest keystroke first, background feeding in the gaps, never longer than one slice at a time.

Knows: the engine, queues, cancel flags. Does not know: HTTP. Every job's future is resolved exactly once.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from cache.resume import Feeding, resume
from daemon.completion import Base, Completion, Engine, base_of
from daemon.feeder import Interrupted
from daemon.prompt import Context
from daemon.protocol import BackgroundReading, CompletionRequest, ContextStatus, Document

MAX_CONTEXTS = 16  # remembered; the least recently asked for is forgotten first
log = logging.getLogger("codestral_lsp.worker")


@dataclass(eq=False)
class CompletionJob:
    """One request. Setting `cancel` stops it before its next token or slice."""

    request: CompletionRequest
    started: float = field(default_factory=time.monotonic)
    cancel: threading.Event = field(default_factory=threading.Event)
    future: "Future[Completion]" = field(default_factory=Future)


@dataclass(eq=False)
class ContextJob:
    """A context that is being read, or has been. `readable` is how many of its slices a completion may build on."""

    context: Context
    feeding: Feeding | None  # None: not yet looked at, or done
    readable: int | None = 0  # None: all
    tokens_fed: int = 0
    tokens_reused: int = 0

    def status(self) -> ContextStatus:
        fed = self.tokens_fed if self.feeding is None else self.feeding.tokens_fed
        reused = self.tokens_reused if self.feeding is None else self.feeding.tokens_reused
        return ContextStatus(
            id=self.context.id,
            state="ready" if self.readable is None else "feeding",
            n_documents=self.context.n_documents,
            tokens=self.context.n_tokens,
            tokens_fed=fed,
            tokens_reused=reused,
            left_out=list(self.context.left_out),
        )


@dataclass(frozen=True, slots=True, eq=False)
class HeadJob:
    """The prompt of a request, read in the background."""

    request: CompletionRequest
    feeding: Feeding

    def is_of(self, request: CompletionRequest) -> bool:
        """Whether a request is for the same file in the same context."""
        return (request.path, request.context) == (self.request.path, self.request.context)


class UnknownContext(Exception):
    """A context that this daemon does not know, for instance since it was restarted."""


class Worker(threading.Thread):
    """Call `submit`, `add_context` and `context` from any thread; everything else happens on this one."""

    def __init__(self, engine: Engine, *, max_context_tokens: int) -> None:
        super().__init__(name="model", daemon=True)
        self.engine = engine
        self.max_context_tokens = max_context_tokens
        self._wake = threading.Condition()
        self._jobs: list[CompletionJob] = []  # the newest is last
        self._running: CompletionJob | None = None
        self._latest: dict[str, CompletionJob] = {}  # by document
        self._contexts: OrderedDict[str, ContextJob] = OrderedDict()
        self._head: HeadJob | None = None  # of the newest file whose head was too long to be fed in time
        self._stopping = False
        engine.feeder.interrupted = lambda: bool(self._jobs or self._stopping)

    @property
    def busy(self) -> bool:
        """Whether anything is queued or being read."""
        with self._wake:
            return bool(self._jobs or self._head or self._next_context())

    @property
    def n_contexts(self) -> int:
        return len(self._contexts)

    @property
    def reading(self) -> BackgroundReading | None:
        """The context that is being read; None when none is."""
        with self._wake:
            job = self._next_context()
            status = None if job is None else job.status()
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
                if request.context not in self._contexts:
                    raise UnknownContext(request.context)
                self._contexts.move_to_end(request.context)
            if request.document is not None:
                older = self._latest.get(request.document)
                if older is not None:
                    older.cancel.set()
                self._latest[request.document] = job
            self._jobs.append(job)
            self._wake.notify()
        return job

    def add_context(self, documents: Sequence[Document]) -> ContextStatus:
        """Tokenises on the calling thread, then queues the feeding. Asking again for the same documents feeds nothing that is still kept."""
        context = self.engine.prompter.context(documents, max_tokens=self.max_context_tokens)
        with self._wake:
            known = self._contexts.get(context.id)
            if known is None:
                self._contexts[context.id] = ContextJob(context, feeding=None)
            elif known.readable is None and context.chain.tip in self.engine.store:
                self._contexts[context.id] = ContextJob(
                    context, feeding=None, readable=None, tokens_reused=context.n_tokens
                )
            self._contexts.move_to_end(context.id)
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
            self._wake.notify()
        return self.context(context.id)

    def context(self, context_id: str) -> ContextStatus:
        """Raises UnknownContext."""
        with self._wake:
            if context_id not in self._contexts:
                raise UnknownContext(context_id)
            return self._contexts[context_id].status()

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
        while True:
            with self._wake:
                while not (self._stopping or self._jobs or self._head or self._next_context()):
                    self._wake.wait()
                if self._stopping:
                    for job in self._jobs:
                        job.future.cancel()
                    return
                job = self._running = self._jobs.pop() if self._jobs else None
                background = None if job else self._next_context()
            try:
                if job is not None:
                    self._complete(job)
                elif background is not None:
                    self._read(background)
                else:
                    self._read_head()
            except Interrupted:  # a keystroke came; the slice goes on afterwards from where it was left
                continue
            except Exception:
                # A request's own failure is in its future; this is a slice of background work, given up so that the daemon lives on.
                log.exception("background reading failed and was given up")
                with self._wake:
                    self._give_up(background)

    def _complete(self, job: CompletionJob) -> None:
        try:
            if not job.future.set_running_or_notify_cancel():
                return
            base = self._base(job.request)
            pending = self._head is not None and self._head.is_of(job.request)
            result = self.engine.complete(
                job.request, base, cancelled=job.cancel.is_set, started=job.started, head_pending=pending
            )
            self._read_again_if_evicted(job.request.context)
            if not result.has_head:
                self._queue_head(job.request, base)
            job.future.set_result(result)
        except Exception as error:
            log.exception("a completion failed")
            job.future.set_exception(error)
        finally:
            with self._wake:
                if job.request.document is not None and self._latest.get(job.request.document) is job:
                    del self._latest[job.request.document]

    def _base(self, request: CompletionRequest) -> Base:
        """The part of the request's context that has been read by now."""
        job = self._contexts.get(request.context) if request.context is not None else None
        root = self.engine.prompter.root
        return base_of(job.context if job else None, root, job.readable if job else None)

    def _read_again_if_evicted(self, context_id: str | None) -> None:
        """A context whose last state had to make room is read again in the background, unless the store is too small to keep any."""
        job = self._contexts.get(context_id) if context_id is not None else None
        if (
            job is not None
            and job.readable is None
            and len(self.engine.store)
            and job.context.chain.tip not in self.engine.store
        ):
            job.readable = 0

    def _queue_head(self, request: CompletionRequest, base: Base) -> None:
        """Reads the whole prompt in the background, so that a later key finds all of its states."""
        if len(self.engine.store):  # one too small to keep anything would gain nothing
            prompt = self.engine.prompter.completion(base.chain, request)
            self._head = HeadJob(request, resume(prompt.chain, self.engine.store, self.engine.feed))

    def _read(self, job: ContextJob) -> None:
        """One slice of a context."""
        feeding = job.feeding
        if feeding is None:
            feeding = resume(job.context.chain, self.engine.store, self.engine.feed)
        elif not feeding.ready:
            feeding.step()
        job.feeding = feeding
        last = feeding.chain.slices[feeding.done - 1] if feeding.done else None
        if last is not None and (last.keep or feeding.ready):
            job.readable = feeding.done
        if feeding.ready:
            job.tokens_fed, job.tokens_reused = feeding.tokens_fed, feeding.tokens_reused
            job.readable, job.feeding = None, None

    def _read_head(self) -> None:
        assert self._head is not None
        if not self._head.feeding.ready:
            self._head.feeding.step()
        if self._head.feeding.ready:
            self._head = None

    def _next_context(self) -> ContextJob | None:
        """The context asked for last of those not read yet."""
        return next((job for job in reversed(self._contexts.values()) if job.readable is not None), None)

    def _give_up(self, job: ContextJob | None) -> None:
        if job is not None:
            self._contexts.pop(job.context.id, None)
        else:
            self._head = None
