"""From a request to its text, on the model thread: nearest state, feed the rest, decode, trim.

Knows: the model, the store, prompts. Does not know: HTTP, threads, queues.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from cache.chain import SLICE_TOKENS, Chain
from cache.resume import Feeding, kept_length, resume
from cache.store import StateStore
from daemon.bases import Ground
from daemon.branches import Fork
from daemon.certainty import Sure, sure
from daemon.feeder import Feeder, Interrupted, Value
from daemon.hints import Hints
from daemon.keeper import Keeper
from daemon.matcher import Matcher
from daemon.profile import Profile, strategy_of
from daemon.prompt import LINE_GRID, Prompt, Prompter
from daemon.protocol import CompletionRequest, Report, Timings
from daemon.rank import alternatives, rank, what_follows
from daemon.trim import Shown, Trim
from model.checkpoint import LoadedModel
from model.fim import layout_of
from model.generate import Generated, generate

FORMAT_VERSION = b"state-1"
STARTING_TOKENS_PER_S = 2000.0  # fed, before anything was measured
CUT_OFF = ("cancelled", "time")  # what stopped the model before it had said all
FEED_SHARE = 0.5  # of a keystroke's time budget that feeding may take
QUICK_MS = 60.0  # of feeding that a key waits for, rather than be answered from an older state that has everything
PENDING_TOKENS = 16  # that are fed for a key while its file is being read in the background anyway


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a completion feeds, and what it stands on. `is_best`: nothing had to be left out for lack of time."""

    ground: Ground
    prompt: Prompt
    has_head: bool
    is_best: bool


@dataclass(frozen=True, slots=True)
class Other:
    """A further answer, which is shown differently from all likelier ones."""

    shown: Shown
    stopped_by: str  # as in Report


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    generated: Generated
    prompt_tokens: int
    report: Report
    plan: Plan
    others: tuple[Other, ...] = ()  # where the request wants several, the likeliest first
    replaces: int = 0  # characters right of the cursor that the text stands in place of


class Engine:
    """The model, its store of states and what both cost. Used by one thread only."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        store_budget_bytes: int,
        strategy: str | None = None,
        profile: Profile | None = None,
        keeper_of: Callable[[Chain], Keeper | None] = lambda root: None,
    ) -> None:
        """`strategy` None: the profile's, else the model's default. `keeper_of` opens the disk tier of the chains that begin with a root.

        Raises StrategyError for a strategy that the model has no control tokens for.
        """
        self.model = model
        self.profile = profile
        self.layout = layout_of(model.tokenizer, strategy or strategy_of(model, profile))
        numerics = model.network.numerics.encode()
        root = Chain.start(FORMAT_VERSION, model.digest, numerics, model.tokenizer.digest, self.layout.version)
        self.keeper = keeper_of(root)
        self.store = StateStore(store_budget_bytes, shelf=self.keeper)
        self.merges = model.network.any_cut
        self.prompter = Prompter(model.tokenizer, root, self.layout, any_cut=self.merges)
        self.hints = Hints(model.tokenizer)
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
        grounds: Sequence[Ground],
        *,
        cancelled: Callable[[], bool],
        started: float,
        head_pending: bool = False,
    ) -> Completion:
        """`started` is when the request arrived (time.monotonic()). Never raises on a cancelled request: it answers with what there is.

        `grounds`: what the completion may stand on, the best first, at least one. `head_pending`: the head of this file is being read in the
        background, so nothing of it needs to be fed now.
        """
        plan = self.plan(request, grounds, head_pending=head_pending)
        ground, prompt = plan.ground, plan.prompt
        feeding = self.resume(prompt.chain)
        fed_at = time.monotonic()
        self._feed_rest(feeding, cancelled)
        self.store.touch(ground.chain.tip)  # the state of the repository must not age while completions build on it
        decode_at = time.monotonic()
        generated, others = Generated([], b"", "cancelled", 0.0), []
        trim = Trim(request, open_ended=not self.layout.knows_its_end, fenced=self.layout.is_fenced)
        if feeding.ready:
            value = feeding.value
            generated, *others = self.decode(
                request, ground, prompt, value, trim=trim, cancelled=cancelled, started=started
            )
        done = time.monotonic()
        ms = Timings(
            context=1000 * (fed_at - started),
            feed=1000 * (decode_at - fed_at),
            decode=1000 * (done - decode_at),
            total=1000 * (done - started),
        )
        pieces = self.model.tokenizer.pieces
        made = Sure(Shown(""))
        if generated.stopped_by != "cancelled":
            made = sure(trim, generated, pieces=pieces, forced=prompt.forced)
        report = Report(
            context_tokens=ground.chain.n_tokens - self.prompter.root.n_tokens,
            tokens_fed=feeding.tokens_fed,
            tokens_reused=feeding.tokens_reused,
            segment=prompt.segment(feeding.resumed),
            context_ready=ground.ready,
            current=ground.current,
            drafted=generated.drafted,
            accepted=generated.accepted,
            stopped_by=generated.stopped_by,
            ms=ms,
            empty_because=None if generated.stopped_by in CUT_OFF else made.shown.empty_because,
            confidence=made.confidence,
        )
        answers = tuple(
            Other(sure(trim, other, pieces=pieces, forced=prompt.forced).shown, other.stopped_by) for other in others
        )
        return Completion(
            made.shown.text, generated, prompt.chain.n_tokens, report, plan, answers, replaces=made.shown.replaces
        )

    def unasked(self, started: float) -> Completion:
        """The answer to a request that a newer one, or its client's leaving, has ended before anything was done for it. Any thread may ask."""
        root = self.prompter.root
        ground = Ground(root, ready=False, current=0.0)
        prompt = Prompt(root, line_start=0, head_end=0, forced=b"", buffer=np.empty(0, np.int32))
        waited_ms = 1000 * (time.monotonic() - started)
        report = Report(
            context_tokens=0,
            tokens_fed=0,
            tokens_reused=0,
            segment="root",
            context_ready=False,
            current=0.0,
            stopped_by="cancelled",
            ms=Timings(context=waited_ms, total=waited_ms),
        )
        plan = Plan(ground, prompt, has_head=False, is_best=False)
        return Completion("", Generated([], b"", "cancelled", 0.0), 0, report, plan)

    def prompt(self, request: CompletionRequest, ground: Ground, *, with_head: bool = True) -> Prompt:
        if ground.related is not None:
            request = msgspec.structs.replace(request, related=list(ground.related))
        return self.prompter.completion(ground.chain, request, with_head=with_head)

    def resume(self, chain: Chain) -> Feeding:
        """A chain on its way to its state, from the deepest one that is kept."""
        return resume(chain, self.store, self.feed, merge=self.merges)

    def missing(self, chain: Chain) -> int:
        """How many tokens must be fed to have the state at the end of a chain. Loads nothing."""
        length = kept_length(chain, self.store)
        return chain.n_tokens - (chain.slices[length - 1].end if length else 0)

    def read(self, chain: Chain) -> Value | None:
        """The state at the end of a chain, fed as far as it is not kept; None: the chain is empty."""
        feeding = self.resume(chain)
        while not feeding.ready:
            feeding.step()
        return feeding.value

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

    def plan(self, request: CompletionRequest, grounds: Sequence[Ground], *, head_pending: bool = False) -> Plan:
        """The best prompt that can be fed in time.

        First the whole prompt, on the best of the grounds that costs at most QUICK_MS of feeding more than the cheapest of them: an older one that has
        everything beats waiting. If that is more than the share of the request's budget that feeding may take: without what stands right before the
        windows; without the repository.
        """
        speed = self.tokens_per_s / 1000
        nothing = Ground(self.prompter.root, ready=False, current=0.0)
        whole = [(ground, True) for ground in grounds]
        some = [(nothing, True)] if len(grounds[0].chain.slices) > len(nothing.chain.slices) else []
        options = [*whole, *((ground, False) for ground in grounds), *some, (nothing, False)]
        plans = (
            Plan(ground, self.prompt(request, ground, with_head=has_head), has_head, number == 0)
            for number, (ground, has_head) in enumerate(options)
        )
        first = next(plans)
        if request.budget_ms is None:
            return first
        limit = max(SLICE_TOKENS, FEED_SHARE * request.budget_ms * speed)
        quick = PENDING_TOKENS if head_pending else max(4 * LINE_GRID, QUICK_MS * speed)
        seen = [(first, self.missing(first.prompt.chain))]
        if seen[0][1] <= min(quick, limit):
            return first
        seen += [(plan, self.missing(plan.prompt.chain)) for plan in plans]
        full = [(plan, missing) for plan, missing in seen if plan.has_head and plan.ground.ready]
        cheapest = 0 if head_pending else min((missing for _, missing in full), default=0)
        for plan, missing in full:
            if missing <= min(cheapest + quick, limit):
                return plan
        # What is being read in the background already is not fed for this key as well.
        patient = [(plan, missing) for plan, missing in seen if not (head_pending and plan.has_head)]
        in_time = next((plan for plan, missing in patient if missing <= limit), None)
        # Where not even the windows can be fed in time, the repository is not given up for nothing: they cost the same behind it.
        return in_time or min(patient, key=lambda each: each[1])[0]

    def decode(
        self,
        request: CompletionRequest,
        ground: Ground,
        prompt: Prompt,
        value: Value,
        *,
        trim: Trim,
        cancelled: Callable[[], bool],
        started: float,
    ) -> list[Generated]:
        """As many as the request wants, if there are so many that are shown differently; at least one."""
        deadline = None if request.budget_ms is None else started + request.budget_ms / 1000
        decode_at = time.monotonic()
        matches_of = Matcher(prompt.buffer, ground.index, request.path)
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
            proposals_of=matches_of.proposals,
            hint=self.hints.of(request, prompt.forced),
        )
        self.hints.note(request, generated.text)
        if self.layout.knows_its_end and request.n < 2:
            return [generated]
        fork = Fork(
            network=self.model.network,
            tokenizer=self.model.tokenizer,
            gate=self.model.gate,
            state=value.state,
            logits=value.logits,
            forced=prompt.forced,
            matches_of=matches_of,
            proposals_of=matches_of.proposals,
            trim=trim,
            following="" if self.layout.knows_its_end else what_follows(request),
            cancelled=cancelled,
            max_tokens=request.max_tokens,
            deadline=deadline,
        )
        took_s = time.monotonic() - decode_at
        if request.n > 1:
            return alternatives(fork, generated, n=request.n, took_s=took_s)
        return [rank(fork, generated, took_s=took_s).best]
