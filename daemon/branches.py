"""Branches of a completion: what is said when, at one place of the likeliest text, another token comes than the likeliest.

A branch starts from the same state as the text that it leaves, so it costs the tokens up to its turn as one chunk and then what any decoding costs: drafts,
mixture, healed bytes and the rules of where to stop are the same.
Knows: the network, decoding. Does not know: which branch is best (daemon/rank.py), requests, caches, HTTP.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cache.lookup import Continuations
from daemon.trim import Trim
from model.draft import MAX_CHUNK, ProposalsOf
from model.generate import Chooser, Generated, cut_off, generate
from model.mixture import Gate
from model.network import Network
from model.sampling import likeliest, probable
from model.state import Mamba2State
from model.tokenizer import Tokenizer

N_FIRSTS = 3  # likeliest first tokens that are looked at for rivals
CERTAIN = 0.5  # a first token that is likelier than that has no rivals
RIVAL = 0.1  # what a first token must have for a branch of its own
FLOOR = 0.01  # what a text's beginning, up to its turn and with it, must have to be worth a branch
# By which a text was stopped that says nothing about what the model would have said, or that is given up.
UNFINISHED = ("cancelled", "time", "nothing", "unlikely")


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    """Where the branches start, and by which rules they grow. Nothing of it is written to."""

    network: Network
    tokenizer: Tokenizer
    gate: Gate | None
    state: Mamba2State
    logits: Tensor  # (V,), those after `state`
    forced: bytes
    matches_of: Callable[[Sequence[int]], tuple[Continuations, ...]]
    trim: Trim
    following: str  # what stands behind the hole, as rank.what_follows gives it; "": the model was told, and knows where the hole ends
    cancelled: Callable[[], bool]
    max_tokens: int
    deadline: float | None
    proposals_of: ProposalsOf | None = None  # drafts of what comes after some ids

    def has_time(self, took_s: float) -> bool:
        """Whether somebody still waits, and there is time for what takes `took_s`."""
        late = self.deadline is not None and time.monotonic() + took_s > self.deadline
        return not late and not self.cancelled()


class Turn(NamedTuple):
    """Where a branch leaves the likeliest text: behind its tokens `before`, with `token`."""

    before: tuple[int, ...]
    token: int
    nats: tuple[float, ...]  # natural logarithms of the probabilities of all these tokens, the last one's last

    @property
    def log_probability(self) -> float:
        return sum(self.nats)


def rivals(fork: Fork) -> list[Turn]:
    """The tokens that could have come first instead of the likeliest one, where that is uncertain."""
    chooser = Chooser(fork.tokenizer, fork.gate, fork.matches_of)
    ends_line = not fork.forced and fork.trim.stop(b"\n") is not None
    firsts = likeliest(chooser, fork.logits, fork.forced, ends_line=ends_line, n=N_FIRSTS)
    if not firsts or firsts[0][1] > CERTAIN:
        return []
    return [Turn((), token, (math.log(share),)) for token, share in firsts[1:] if share >= RIVAL]


def turns(fork: Fork, first: Generated, *, floor: float = FLOOR) -> list[Turn]:
    """All turns away from `first`, the greedy text, that are as probable as `floor` or more, the likeliest first.

    The probability is that of the text's beginning up to the turn and with it, so an uncertain token early in a text counts for more than one
    later on. Fewer where time or a newer request ends it.
    """
    said = [*first.ids, *([fork.tokenizer.control.eos] if first.stopped_by == "eos" else [])]
    chooser = Chooser(fork.tokenizer, fork.gate, fork.matches_of)
    found: list[Turn] = []
    text = b""
    for at, (token, logits) in enumerate(zip(said, _logits_before(fork, said), strict=False)):
        before, nats = said[:at], first.nats[:at]
        least = floor / math.exp(sum(nats))  # what a token must have here
        if least > 1:
            break
        forced = fork.forced[len(text) :]
        ends_line = not forced and fork.trim.stop(text[len(fork.forced) :] + b"\n") is not None
        shares = probable(chooser, logits, before, forced=forced, ends_line=ends_line, floor=least)
        found += [Turn(tuple(before), i, (*nats, math.log(share))) for i, share in shares if i != token]
        text += fork.tokenizer.pieces[token]
    return sorted(found, key=lambda turn: -turn.log_probability)


def branch_from(fork: Fork, turn: Turn, *, least_nats: float | None = None) -> Generated:
    """What is said from a turn on, decoded greedily to its end, with what comes before it; given up once it is less likely than `least_nats`."""
    pieces = fork.tokenizer.pieces
    before = b"".join(pieces[i] for i in turn.before)
    if turn.token == fork.tokenizer.control.eos:
        return _generated(turn, turn.before, before[len(fork.forced) :], stopped_by="eos")
    ids = [*turn.before, turn.token]
    whole = before + pieces[turn.token]
    said, still_forced = whole[len(fork.forced) :], fork.forced[len(whole) :]
    if not still_forced and (reason := fork.trim.stop(said)) is not None:
        return _generated(turn, ids, said, stopped_by=reason)
    logits, state = fork.network(torch.tensor([ids]), fork.state, last_only=True)
    proposals_of = fork.proposals_of
    rest = generate(
        fork.network,
        fork.tokenizer,
        state,
        logits[0, -1],
        stop=lambda text: fork.trim.stop(said + text),
        cancelled=fork.cancelled,
        max_tokens=fork.max_tokens - len(ids),
        deadline=fork.deadline,
        forced=still_forced,
        gate=fork.gate,
        matches_of=lambda more: fork.matches_of([*ids, *more]),
        proposals_of=None if proposals_of is None else lambda more: proposals_of([*ids, *more]),
        least_nats=None if least_nats is None else least_nats - turn.log_probability,
    )
    whole_branch = _generated(turn, [*ids, *rest.ids], said + rest.text, stopped_by=rest.stopped_by, more=rest.nats)
    return replace(whole_branch, drafted=rest.drafted, accepted=rest.accepted)


def _generated(
    turn: Turn, ids: Sequence[int], text: bytes, *, stopped_by: str, more: tuple[float, ...] = ()
) -> Generated:
    nats = (*turn.nats, *more)
    return Generated(list(ids), text, stopped_by, sum(nats), nats=nats)


def _logits_before(fork: Fork, said: Sequence[int]) -> Iterator[Tensor]:
    """(V,) for each of `said`: those that it was chosen from, in calls of at most MAX_CHUNK tokens, as long as somebody waits and there is time."""
    yield fork.logits
    state = fork.state
    for start in range(0, len(said) - 1, MAX_CHUNK):
        if cut_off(fork.cancelled, fork.deadline) is not None:
            return
        chunk = said[start : min(start + MAX_CHUNK, len(said) - 1)]
        rows, state = fork.network(torch.tensor([chunk]), state, into=state if start else None)
        yield from rows[0]
