"""Which of a few short branches is best, for models that do not know where a hole ends.

Where the first token is uncertain, the next likeliest ones are tried too, each from the same state. Whoever was trained to fill in has seen what follows
the hole; here that is asked afterwards: of each branch, how likely is the text that follows it? The score is the mean log-probability of the branch's
tokens plus the mean log-probability of the tokens of what follows, up to the first line with something in it: means, so that neither a branch's length
nor the line's decides.
Knows: the network, decoding, what is shown of a text. Does not know: requests, caches, HTTP.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache.lookup import Continuations
from daemon.protocol import CompletionRequest
from daemon.trim import Trim, first_line
from model.draft import ProposalsOf
from model.generate import Chooser, Generated, generate
from model.mixture import Gate
from model.network import Network
from model.sampling import likeliest, log_probabilities
from model.state import Mamba2State
from model.tokenizer import Tokenizer

MAX_BRANCHES = 3
CERTAIN = 0.5  # a first token that is likelier than that has no rivals
RIVAL = 0.1  # what a first token must have for a branch of its own
MAX_FOLLOWING_TOKENS = 24


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
    following: str  # what stands behind the hole, as `what_follows` gives it
    cancelled: Callable[[], bool]
    max_tokens: int
    deadline: float | None
    proposals_of: ProposalsOf | None = None  # drafts of what comes after some ids


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best branch and how many there were."""

    best: Generated
    n_branches: int


def rank(fork: Fork, first: Generated, *, took_s: float) -> Ranked:
    """`first` is the greedy branch, which took `took_s`. Others are tried while there is time for one more like it.

    A branch that time or a newer request cuts off is no candidate, so a slow machine shows the greedy one.
    """
    if first.stopped_by in ("cancelled", "time", "nothing"):
        return Ranked(first, 1)
    branches = [first]
    for token, probability in rivals(fork):
        if fork.cancelled() or (fork.deadline is not None and time.monotonic() + took_s > fork.deadline):
            break
        branch = branch_from(fork, token, probability)
        if branch.stopped_by not in ("cancelled", "time", "nothing"):
            branches.append(branch)
    by_text: dict[str, Generated] = {}
    for branch in branches:
        by_text.setdefault(fork.trim.shown(branch.text), branch)
    if len(by_text) == 1:
        return Ranked(first, len(branches))
    best = max(by_text, key=lambda text: score(fork, by_text[text], shown=text))
    return Ranked(by_text[best], len(branches))


def rivals(fork: Fork) -> list[tuple[int, float]]:
    """The tokens that could have come first instead of the likeliest one, and their probabilities."""
    chooser = Chooser(fork.tokenizer, fork.gate, fork.matches_of)
    ends_line = not fork.forced and fork.trim.stop(b"\n") is not None
    firsts = likeliest(chooser, fork.logits, fork.forced, ends_line=ends_line, n=MAX_BRANCHES)
    if not firsts or firsts[0][1] > CERTAIN:
        return []
    return [(token, probability) for token, probability in firsts[1:] if probability >= RIVAL]


def branch_from(fork: Fork, token: int, probability: float) -> Generated:
    """What is generated when `token` comes first."""
    nats = float(np.log(probability))
    piece = fork.tokenizer.pieces[token]
    if token == fork.tokenizer.control.eos:
        return Generated(ids=[], text=b"", stopped_by="eos", log_probability=nats)
    said = piece[len(fork.forced) :]  # of the first token, what was not typed already
    still_forced = fork.forced[len(piece) :]
    if not still_forced and (reason := fork.trim.stop(said)) is not None:
        return Generated(ids=[token], text=said, stopped_by=reason, log_probability=nats)
    logits, state = fork.network(torch.tensor([[token]]), fork.state)
    proposals_of = fork.proposals_of
    rest = generate(
        fork.network,
        fork.tokenizer,
        state,
        logits[0, -1],
        stop=lambda text: fork.trim.stop(said + text),
        cancelled=fork.cancelled,
        max_tokens=fork.max_tokens - 1,
        deadline=fork.deadline,
        forced=still_forced,
        gate=fork.gate,
        matches_of=lambda ids: fork.matches_of([token, *ids]),
        proposals_of=None if proposals_of is None else lambda ids: proposals_of([token, *ids]),
    )
    return Generated(
        ids=[token, *rest.ids],
        text=said + rest.text,
        stopped_by=rest.stopped_by,
        log_probability=nats + rest.log_probability,
        drafted=rest.drafted,
        accepted=rest.accepted,
    )


def score(fork: Fork, branch: Generated, *, shown: str) -> float:
    """Nats a token: of the branch as it was decoded, and of what follows once `shown` stands at the cursor."""
    n_said = len(branch.ids) + (branch.stopped_by == "eos")
    of_branch = branch.log_probability / max(1, n_said)
    following = fork.tokenizer.encode(fork.following)[:MAX_FOLLOWING_TOKENS]
    if not following:
        return of_branch
    before = ids_of_text(fork.tokenizer, branch.ids, fork.forced + shown.encode())
    rows = log_probabilities(fork.network, fork.state, fork.logits, [*before, *following])
    return of_branch + float(rows[len(before) :].mean())


def ids_of_text(tokenizer: Tokenizer, ids: Sequence[int], text: bytes) -> list[int]:
    """The first of `ids`, as far as `text`, with which they begin, goes; an end inside a token is encoded anew."""
    kept, length = [], 0
    for i in ids:
        if length + len(tokenizer.pieces[i]) > len(text):
            break
        kept.append(i)
        length += len(tokenizer.pieces[i])
    return [*kept, *tokenizer.encode(text[length:].decode("utf-8", "ignore"))]


def what_follows(request: CompletionRequest) -> str:
    """The text behind the hole: the rest of the cursor's line, else the lines below up to the first that is not blank."""
    if rest := request.rest_of_line.rstrip():
        return rest
    line = first_line(request.suffix)
    if not line:
        return ""
    return "\n" + request.suffix[: request.suffix.index(line)] + line
