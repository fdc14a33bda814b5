"""Drafts: tokens that may come next are fed as one chunk behind the token just said, so that the model checks all of them at the price of little more
than one step. What is said does not change: each token is still chosen from the model's own logits, and the first that differs from the draft ends it.

A recurrent state cannot be cut back to where a draft went wrong, and copying it costs as much as a step of a large model. So a chunk reads one state and
writes another: where the whole draft was right they change places, else the old one stays and the tokens that were right are fed again at the beginning of
the next chunk. Exact only on a network whose bits do not depend on how tokens are cut into calls (`Network.any_cut`); on others there are no drafts.
Prior art: prompt lookup decoding (Saxena, 2023), and replaying inputs in place of states (Wu et al., Snakes and Ladders, 2024).
Knows: the network, what its calls cost, how often drafts are right. Does not know: how tokens are chosen (model/generate.py), where drafts are found.
"""

import bisect
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.mixture import LENGTH_EDGES
from model.network import Network
from model.state import Mamba2State
from model.tokenizer import Tokenizer

MAX_CHUNK = 12  # tokens of a call: so many meet a block of weights while it is unpacked (model/cpp)
PRIOR_SLOPE = 0.15  # of a step, what one more token in a call costs, before it was measured
PRIOR_FIRST = {
    "hint": 0.8,
    "buffer": 0.7,
    "documents": 0.7,
}  # chance that the first token of a draft is right; hopeful, so that all are tried
PRIOR_LATER = 0.75  # that the next one is, once those before were: a draft that begins well mostly goes on well
PRIOR_WEIGHT = 2.0  # tokens that a prior counts for
MEMORY = 64.0  # tokens after which older ones hardly count
# Of the way back to its prior that an estimate goes each time it led to no draft: else it would never be put to the test again.
FORGETS = 1 / 512
SPEED_MEMORY = 0.1  # weight of the newest call
ODD = 1.5  # times what was expected: a call that took longer counts for no more, as on a busy machine
MARGIN = 0.15  # of a step that a draft must be expected to save: finding and judging it is work too


class Proposal(Protocol):
    """Tokens that may come next, made only when asked for. `length` of what they were found behind; 0: there are none."""

    @property
    def source(self) -> str: ...
    @property
    def length(self) -> int: ...
    def draft(self, n: int) -> np.ndarray: ...


ProposalsOf = Callable[[Sequence[int]], Sequence[Proposal]]  # ids generated so far -> one for each source
Kind = tuple[str, int]  # a source, and the bin of the match's length


@dataclass(slots=True, eq=False)
class Estimate:
    """How likely a token of one kind of draft is what the model says itself."""

    prior: float
    right: float
    weight: float = PRIOR_WEIGHT

    def learn(self, *, right: bool) -> None:
        self.weight = min(self.weight + 1, MEMORY)
        self.right += (float(right) - self.right) / self.weight

    def forget(self) -> None:
        self.right += (self.prior - self.right) * FORGETS


@dataclass(slots=True, eq=False)
class Pace:
    """What a network's calls cost and how often each kind of draft is right, as far as it was seen. It decides speed only, never what is said.

    For one thread at a time.
    """

    step_s: float | None = None  # a call with one token
    slope: float = PRIOR_SLOPE  # of that, what each further token adds
    estimates: dict[tuple[Kind, bool], Estimate] = field(default_factory=dict)
    # Storage for states that nobody holds any more. Fresh memory costs a large model's first step more than the step itself.
    spare: list[Mamba2State] = field(default_factory=list)

    def timed(self, n_tokens: int, seconds: float) -> None:
        """One call was measured."""
        if n_tokens == 1:
            known = self.step_s if self.step_s is not None else seconds
            self.step_s = known + SPEED_MEMORY * (min(seconds, ODD * known) - known)
        elif self.step_s is not None:
            slope = (seconds / self.step_s - 1) / (n_tokens - 1)
            self.slope += SPEED_MEMORY * (min(max(slope, 0.0), ODD * self.slope + 0.02) - self.slope)

    def seconds(self, n_tokens: int) -> float:
        """What a call with so many tokens is expected to take."""
        return (self.step_s or 0.0) * (1 + self.slope * (n_tokens - 1))

    def estimate(self, kind: Kind, *, first: bool) -> Estimate:
        """Of the first token of such a draft, or of those that follow right ones."""
        found = self.estimates.get((kind, first))
        if found is None:
            prior = PRIOR_FIRST.get(kind[0], 0.5) if first else PRIOR_LATER
            found = self.estimates[kind, first] = Estimate(prior, prior)
        return found

    def best_length(self, kind: Kind, *, again: int, room: int) -> tuple[int, float]:
        """How many tokens to draft, up to `room`, and what that is expected to save, in steps; 0 where nothing.

        `again`: tokens that are fed again with it in any case. Without a draft they and the token just said would be fed, and then one token a call.
        """
        if self.step_s is None:
            return 0, 0.0
        right, later = self.estimate(kind, first=True).right, self.estimate(kind, first=False).right
        best, most = 0, MARGIN
        expected, whole = 0.0, 1.0  # tokens accepted, and the chance that all of them are
        for n in range(1, room + 1):
            whole *= right if n == 1 else later
            expected += whole
            fed_again = (1 - whole) * (again + 1 + expected)  # with the next chunk, where this draft goes wrong
            saved = expected - self.slope * (n + fed_again)
            if saved > most:
                best, most = n, saved
            elif n > best + 1:
                break
        if not best:
            self.estimate(kind, first=True).forget()
            self.estimate(kind, first=False).forget()
            self.slope += (PRIOR_SLOPE - self.slope) * FORGETS
        return best, most


_paces: weakref.WeakKeyDictionary[Network, Pace] = weakref.WeakKeyDictionary()


def pace_of(network: Network) -> Pace:
    """What was learnt of this network since it was loaded."""
    found = _paces.get(network)
    if found is None:
        found = _paces[network] = Pace()
    return found


class Reader:
    """Reads the tokens that are said, and behind them drafts. The state that it starts from is never written to."""

    def __init__(self, network: Network, state: Mamba2State, logits: Tensor, *, pace: Pace | None) -> None:
        """`logits` (V,) are those after `state`. `pace` None: calls are not timed."""
        self.logits = logits  # (V,): after all that was said
        self.drafted = 0
        self.accepted = 0
        self._network = network
        self._pace = pace
        self._state = state  # the last one that is known to be right
        self._is_ours = False
        self._other: Mamba2State | None = None  # storage; with a chunk that is not settled, the state after all of it
        self._chunk: list[int] = []  # tokens read since `_state`, the draft at the end
        self._right = 0  # of those, how many are known to be right
        self._rows: Tensor | None = None  # (n, V) the logits after each of them
        self._kind: Kind | None = None
        self._draft_at = 0  # where in the chunk the draft begins

    @property
    def again(self) -> int:
        """Tokens that the next call will have to read again. To be asked after `said` was false."""
        return 0 if self._right == len(self._chunk) else self._right

    def said(self, token: int) -> bool:
        """Whether `token`, which was just chosen, had been drafted: then `logits` are those after it. Else `read` has to follow."""
        if self._right == len(self._chunk):
            return False
        right = self._chunk[self._right] == token
        if self._pace is not None and self._kind is not None:
            self._pace.estimate(self._kind, first=self._right == self._draft_at).learn(right=right)
        self._kind = self._kind if right else None
        if right:
            assert self._rows is not None
            self.logits = self._rows[self._right]
            self._right += 1
            self.accepted += 1
        return right

    def read(self, token: int, draft: Sequence[int] = (), *, kind: Kind | None = None) -> None:
        """Reads `token` and behind it a `draft` of this kind, which together with `again` make up at most MAX_CHUNK tokens."""
        again = self._settle()
        ids = [*again, token, *draft]
        # Without a draft nothing of it can turn out wrong, so a state of ours is written over at once.
        into = self._state if not draft and self._is_ours else self._other
        if into is None and self._pace is not None and self._pace.spare:
            into = self._pace.spare.pop()
        started = time.perf_counter()
        out, after = self._network(torch.tensor([ids]), self._state, last_only=not draft, into=into)
        if self._pace is not None:
            self._pace.timed(len(ids), time.perf_counter() - started)
        if not draft:
            if not self._is_ours:
                self._other = None
            self._state, self._is_ours = after, True
            self.logits = out[0, -1]
            return
        self._other, self._rows, self._kind = after, out[0], kind
        self._chunk, self._right = ids, len(again) + 1
        self._draft_at = self._right
        self.logits = out[0, len(again)]
        self.drafted += len(draft)

    def close(self) -> None:
        """Ends the reading; whoever reads next may write over what this reader wrote."""
        if self._pace is not None:
            ours = [self._state if self._is_ours else None, self._other]
            self._pace.spare = [*(state for state in ours if state is not None), *self._pace.spare][:2]
        self._is_ours, self._other, self._pace = False, None, None

    def _settle(self) -> list[int]:
        """Ends the last chunk; the tokens of it that must be read again."""
        again = self._chunk[: self.again]
        if self._chunk and not again:  # all of it was right
            assert self._other is not None
            self._state, self._other = self._other, self._state if self._is_ours else None
            self._is_ours = True
        self._chunk, self._right, self._rows = [], 0, None
        return again


class Hint:
    """A text that may be said again, from the same place on: a Proposal as long as what was said agrees with it."""

    source = "hint"

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        """`ids` stand for the forced bytes too. An id that is not of text ends it."""
        self.length = 0
        self._at = 0
        self._ids: list[int] = []
        self._starts: dict[int, int] = {}  # bytes before a token of it -> its number
        self._text = b""
        for i in speakable(tokenizer, ids):
            self._starts[len(self._text)] = len(self._ids)
            self._ids.append(i)
            self._text += tokenizer.pieces[i]

    def follow(self, text: bytes) -> None:
        """`text` is what was said so far, with the forced bytes. If in other tokens than the hint's, there is no draft until their borders meet again."""
        at = self._starts.get(len(text)) if self._text.startswith(text) else None
        self._at = len(self._ids) if at is None else at
        self.length = len(self._ids) - self._at

    def draft(self, n: int) -> np.ndarray:
        """Up to `n` tokens after what was said, int32."""
        return np.array(self._ids[self._at : self._at + n], np.int32)


class Drafter:
    """Chooses among all sources the draft that is expected to save most, and how much of it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        pace: Pace,
        *,
        stop: Callable[[bytes], str | None],
        forced: bytes,
        hint: Sequence[int],
        proposals_of: ProposalsOf | None,
    ) -> None:
        """`hint`: what was said here before, forced bytes included; `stop`: generate's."""
        self._tokenizer = tokenizer
        self._pace = pace
        self._stop = stop
        self._n_forced = len(forced)
        self._hint = Hint(tokenizer, hint) if len(hint) else None
        self._proposals_of = proposals_of

    def best(
        self, ids: Sequence[int], text: bytes, *, again: int, room: int, deadline: float | None
    ) -> tuple[list[int], Kind | None]:
        """The draft to read behind the last of `ids`, which are `text`, and its kind; empty where none is worth it.

        `again`: tokens that the call has to read again; `room`: tokens that may still be said; `deadline`: a time of time.monotonic().
        """
        room = min(room, MAX_CHUNK - 1 - again)
        if room <= 0:
            return [], None
        best, kind, n, most = None, None, 0, 0.0
        for proposal in self._proposals(ids, text):
            if not proposal.length:
                continue
            its_kind = proposal.source, bisect.bisect_right(LENGTH_EDGES, proposal.length)
            its_n, saved = self._pace.best_length(its_kind, again=again, room=room)
            if its_n and saved > most:
                best, kind, n, most = proposal, its_kind, its_n, saved
        late = deadline is not None and time.monotonic() + self._pace.seconds(again + 1 + n) > deadline
        if best is None or late:
            return [], None
        draft = self._up_to_stop(speakable(self._tokenizer, best.draft(n)), text)
        return draft, kind

    def _proposals(self, ids: Sequence[int], text: bytes) -> list[Proposal]:
        found: list[Proposal] = []
        if self._hint is not None:
            self._hint.follow(text)
            found.append(self._hint)
        if self._proposals_of is not None:
            found += self._proposals_of(ids)
        return found

    def _up_to_stop(self, draft: list[int], text: bytes) -> list[int]:
        """Without the line break that would end it all, and what follows: once that is said, nothing is read any more."""
        said = text
        for number, i in enumerate(draft):
            piece = self._tokenizer.pieces[i]
            said += piece
            if b"\n" in piece and len(said) >= self._n_forced and self._stop(said[self._n_forced :]) is not None:
                return draft[:number]
        return draft


def speakable(tokenizer: Tokenizer, ids: Iterable[int]) -> list[int]:
    """The first of `ids`, up to one that is no token of text: a draft with a control token in it would never be right from there on."""
    found: list[int] = []
    for i in ids:
        if not (0 <= i < len(tokenizer.pieces) and tokenizer.pieces[i]):
            break
        found.append(int(i))
    return found
