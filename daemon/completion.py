"""From a request to its text, on the model thread: nearest state, feed the rest, decode, trim.

Knows: the model, the store, prompts. Does not know: HTTP, threads, queues.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.chain import SLICE_TOKENS, Chain
from cache.lookup import NOTHING, Continuations, DocumentIndex, buffer_continuations
from cache.resume import Feeding, resume
from cache.store import StateStore
from daemon.feeder import Feeder, Interrupted, Value
from daemon.profile import Profile, strategy_of
from daemon.prompt import LINE_GRID, Context, Prompt, Prompter
from daemon.protocol import CompletionRequest, Report, Timings
from daemon.rank import Fork, rank, what_follows
from daemon.trim import Shown, Trim
from model.checkpoint import LoadedModel
from model.fim import layout_of
from model.generate import Generated, generate

FORMAT_VERSION = b"state-1"
STARTING_TOKENS_PER_S = 2000.0  # fed, before anything was measured
CUT_OFF = ("cancelled", "time")  # what stopped the model before it had said all
FEED_SHARE = 0.5  # of a keystroke's time budget that feeding may take


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """What of a context can be read from now on: its chain up to where it has been fed, and the lookup index of all of it."""

    chain: Chain
    index: DocumentIndex | None
    ready: bool


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    generated: Generated
    prompt_tokens: int
    report: Report
    has_head: bool  # False: the file above the window could not be fed in time


class Engine:
    """The model, its store of states and what both cost. Used by one thread only."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        store_budget_bytes: int,
        strategy: str | None = None,
        profile: Profile | None = None,
    ) -> None:
        """`strategy` None: the profile's, else the model's default. Raises StrategyError for one that the model has no control tokens for."""
        self.model = model
        self.profile = profile
        self.layout = layout_of(model.tokenizer, strategy or strategy_of(model, profile))
        self.store = StateStore(store_budget_bytes)
        numerics = model.network.numerics.encode()
        root = Chain.start(FORMAT_VERSION, model.digest, numerics, model.tokenizer.digest, self.layout.version)
        self.prompter = Prompter(model.tokenizer, root, self.layout)
        known = profile is not None and profile.is_of(model)
        speed = profile.feed_tokens_per_s if profile is not None and known else STARTING_TOKENS_PER_S
        self.feeder = Feeder(model.network, tokens_per_s=speed)
        self.feed = self.feeder.feed

    @property
    def tokens_fed(self) -> int:
        """Since the start."""
        return self.feeder.tokens_fed

    @property
    def tokens_per_s(self) -> float:
        return self.feeder.tokens_per_s

    def complete(
        self,
        request: CompletionRequest,
        base: Base,
        *,
        cancelled: Callable[[], bool],
        started: float,
        head_pending: bool = False,
    ) -> Completion:
        """`started` is when the request arrived (time.monotonic()). Never raises on a cancelled request: it answers with what there is.

        `head_pending`: the head of this file is being read in the background, so nothing of it needs to be fed now.
        """
        prompt, feeding, has_head = self.plan(request, base, head_pending=head_pending)
        fed_at = time.monotonic()
        self._feed_rest(feeding, cancelled)
        self.store.touch(base.chain.tip)  # the state of the repository must not age while completions build on it
        decode_at = time.monotonic()
        generated = Generated([], b"", "cancelled", 0.0)
        trim = Trim(request, open_ended=not self.layout.knows_its_end, fenced=self.layout.is_fenced)
        if feeding.ready:
            value = feeding.value
            generated = self.decode(request, base, prompt, value, trim=trim, cancelled=cancelled, started=started)
        done = time.monotonic()
        ms = Timings(
            context=1000 * (fed_at - started),
            feed=1000 * (decode_at - fed_at),
            decode=1000 * (done - decode_at),
            total=1000 * (done - started),
        )
        made = Shown("") if generated.stopped_by == "cancelled" else trim.outcome(generated.text)
        report = Report(
            context_tokens=base_tokens(prompt.chain),
            tokens_fed=feeding.tokens_fed,
            tokens_reused=feeding.tokens_reused,
            segment=feeding.resumed_kind,
            context_ready=base.ready,
            stopped_by=generated.stopped_by,
            ms=ms,
            empty_because=None if generated.stopped_by in CUT_OFF else made.empty_because,
        )
        return Completion(made.text, generated, prompt.chain.n_tokens, report, has_head)

    def _feed_rest(self, feeding: Feeding, cancelled: Callable[[], bool]) -> None:
        """Until the chain's end, or until nobody waits for it any more."""
        background, self.feeder.interrupted = self.feeder.interrupted, cancelled
        try:
            while not feeding.ready and not cancelled():
                feeding.step()
        except Interrupted:
            return  # `cancelled` said so
        finally:
            self.feeder.interrupted = background

    def plan(
        self, request: CompletionRequest, base: Base, *, head_pending: bool = False
    ) -> tuple[Prompt, Feeding, bool]:
        """The best prompt that can be fed in time: all of it; without the head of the file; without the repository.

        The last value says whether it is one with the head.
        """
        speed = self.tokens_per_s / 1000
        limit = None if request.budget_ms is None else max(SLICE_TOKENS, FEED_SHARE * request.budget_ms * speed)
        root = self.prompter.root
        for chain, has_head in ((base.chain, True), (base.chain, False), (root, True), (root, False)):
            prompt = self.prompter.completion(chain, request, with_head=has_head)
            feeding = resume(prompt.chain, self.store, self.feed)
            patience = LINE_GRID * 2 if has_head and head_pending and limit is not None else limit
            if patience is None or feeding.tokens_missing <= patience:
                break
        return prompt, feeding, has_head

    def decode(
        self,
        request: CompletionRequest,
        base: Base,
        prompt: Prompt,
        value: Value,
        *,
        trim: Trim,
        cancelled: Callable[[], bool],
        started: float,
    ) -> Generated:
        deadline = None if request.budget_ms is None else started + request.budget_ms / 1000
        decode_at = time.monotonic()
        matches_of = Matcher(prompt.buffer, base.index, request.path)
        generated = generate(
            self.model.network,
            self.model.tokenizer,
            value.state,
            value.logits,
            stop=trim.stop,
            cancelled=cancelled,
            max_tokens=request.max_tokens,
            deadline=deadline,
            forced=prompt.forced,
            gate=self.model.gate,
            matches_of=matches_of,
        )
        if self.layout.knows_its_end:
            return generated
        fork = Fork(
            network=self.model.network,
            tokenizer=self.model.tokenizer,
            gate=self.model.gate,
            state=value.state,
            logits=value.logits,
            forced=prompt.forced,
            matches_of=matches_of,
            trim=trim,
            following=what_follows(request),
            cancelled=cancelled,
            max_tokens=request.max_tokens,
            deadline=deadline,
        )
        return rank(fork, generated, took_s=time.monotonic() - decode_at).best


class Matcher:
    """Matches of the buffer's text and what was generated since, in the buffer itself and in the context's other documents."""

    def __init__(self, buffer: np.ndarray, index: DocumentIndex | None, path: str | None) -> None:
        self.text = np.concatenate([buffer, np.empty(256, np.int32)])
        self.start = len(buffer)
        self.index = index
        self.path = path

    def __call__(self, ids: Sequence[int]) -> tuple[Continuations, Continuations]:
        end = self.start + len(ids)
        if end > len(self.text):
            self.text = np.concatenate([self.text, np.empty(len(self.text), np.int32)])
        self.text[self.start : end] = ids
        text = self.text[:end]
        documents = NOTHING if self.index is None else self.index.continuations(text, without=self.path)
        return buffer_continuations(text, known=self.start), documents


def base_of(context: Context | None, root: Chain, fed_slices: int | None) -> Base:
    """`fed_slices`: how much of the context has been fed and kept; None means all."""
    if context is None:
        return Base(root, None, ready=True)
    if fed_slices is None:
        return Base(context.chain, context.index, ready=True)
    known = max(fed_slices, len(root.slices))
    return Base(Chain(root=context.chain.root, slices=context.chain.slices[:known]), context.index, ready=False)


def base_tokens(chain: Chain) -> int:
    return sum(len(part.tokens) for part in chain.slices if part.kind == "base")
