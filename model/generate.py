"""Greedy decoding from a state: one token at a time, healed start, lookup mixture, stop conditions, a stop flag looked at each token.

Drafts (model/draft.py) let one call of the network serve several tokens. They change nothing else: each token is chosen here as without them.
Knows: the network, the tokenizer, the mixture. Does not know: requests, caches, where a suggestion should be cut for people (daemon/trim.py).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from model.draft import Drafter, Pace, ProposalsOf, Reader, pace_of
from model.mixture import Gate, Match, mix
from model.network import Network
from model.state import Mamba2State
from model.tokenizer import Tokenizer

# Ids generated so far -> one match for each source of the mixture.
MatchesOf = Callable[[Sequence[int]], Sequence[Match]]
FEW = 32  # tokens that lookups found: up to so many are weighed one by one
StopCheck = Callable[[bytes], str | None]  # text generated so far -> why to stop, or None


@dataclass(frozen=True, slots=True)
class Generated:
    """`text` leaves out the forced bytes. `log_probability` is the natural logarithm under the distribution decoded from."""

    ids: list[int]
    text: bytes
    stopped_by: str  # "eos" | "max_tokens" | "time" | "cancelled" | "nothing" | "unlikely" | what the stop check said
    log_probability: float
    drafted: int = field(
        default=0, compare=False
    )  # tokens that were read before it was known whether they would be said
    accepted: int = field(default=0, compare=False)  # of those, the ones that were
    # Of `log_probability`, the share of each token; also of the </s> that ended it. If there are fewer than tokens, they belong to the last ones.
    nats: tuple[float, ...] = field(default=(), compare=False)


@torch.no_grad()
def generate(
    network: Network,
    tokenizer: Tokenizer,
    state: Mamba2State,
    logits: Tensor,
    *,
    stop: StopCheck,
    cancelled: Callable[[], bool],
    max_tokens: int,
    deadline: float | None = None,
    forced: bytes = b"",
    gate: Gate | None = None,
    matches_of: MatchesOf | None = None,
    hint: Sequence[int] = (),
    proposals_of: ProposalsOf | None = None,
    least_nats: float | None = None,
) -> Generated:
    """Decodes greedily from `logits` (V,), those after `state`. `deadline` is a time of time.monotonic(); neither argument is written to.

    `hint` are the ids, for the forced bytes too, of what may be said again, such as the completion shown before the last key; `proposals_of` proposes
    drafts from elsewhere. Both are worth something only on a network with `any_cut`, and change nothing but speed. A text with a lower log-probability than
    `least_nats` is given up.
    """
    chooser = Chooser(tokenizer, gate, matches_of)
    pace = pace_of(network) if network.any_cut else None
    reader = Reader(network, state, logits, pace=pace)
    drafter = _drafter(tokenizer, pace, stop=stop, forced=forced, hint=hint, proposals_of=proposals_of)
    ids, nats, text, stopped_by = list[int](), list[float](), b"", "max_tokens"
    while len(ids) < max_tokens:
        if (reason := cut_off(cancelled, deadline)) is not None:
            stopped_by = reason
            break
        # Where a line break would end it anyway, </s> and a line break say the same.
        ends_line = len(text) >= len(forced) and stop(text[len(forced) :] + b"\n") is not None
        best, probability = chooser.choose(reader.logits, ids, forced[len(text) :], ends_line=ends_line)
        if best is None:
            stopped_by = "nothing"
            break
        nats.append(math.log(max(probability, 1e-30)))
        if least_nats is not None and sum(nats) < least_nats:
            stopped_by = "unlikely"
            break
        was_drafted = reader.said(best)
        if best == tokenizer.control.eos:
            stopped_by = "eos"
            break
        ids.append(best)
        text += tokenizer.pieces[best]
        if len(text) >= len(forced) and (reason := stop(text[len(forced) :])) is not None:
            stopped_by = reason
            break
        if was_drafted or len(ids) == max_tokens:
            continue
        draft, kind = [], None
        if drafter is not None:
            draft, kind = drafter.best(ids, text, again=reader.again, room=max_tokens - len(ids) - 1, deadline=deadline)
        reader.read(best, draft, kind=kind)
    reader.close()
    said = text[len(forced) :]
    return Generated(ids, said, stopped_by, sum(nats), reader.drafted, reader.accepted, tuple(nats))


def _drafter(
    tokenizer: Tokenizer,
    pace: Pace | None,
    *,
    stop: StopCheck,
    forced: bytes,
    hint: Sequence[int],
    proposals_of: ProposalsOf | None,
) -> Drafter | None:
    """None where no draft is worth it, or none is to be had."""
    if pace is None or not (len(hint) or proposals_of is not None):
        return None
    return Drafter(tokenizer, pace, stop=stop, forced=forced, hint=hint, proposals_of=proposals_of)


def cut_off(cancelled: Callable[[], bool], deadline: float | None) -> str | None:
    """Why decoding ends here whatever was said, or None."""
    if cancelled():
        return "cancelled"
    return "time" if deadline is not None and time.monotonic() > deadline else None


class Chooser:
    """The next token: the likeliest under the mixture among those allowed."""

    def __init__(self, tokenizer: Tokenizer, gate: Gate | None, matches_of: MatchesOf | None) -> None:
        self.tokenizer = tokenizer
        self.gate = gate
        self.matches_of = matches_of
        self._unsaid = frozenset(tokenizer.unsaid.tolist())

    def distribution(self, logits: Tensor, ids: Sequence[int]) -> np.ndarray:
        """(V,) probabilities of the token after `ids`; control tokens but </s> have none."""
        probabilities = self._of_model(logits)
        if self.gate is not None and self.matches_of is not None:
            probabilities = self._mixed(probabilities, self.matches_of(ids), self.gate)
        return probabilities

    def choose(
        self, logits: Tensor, ids: Sequence[int], forced: bytes, *, ends_line: bool = False
    ) -> tuple[int | None, float]:
        """The token and its probability; with `forced` bytes left, only tokens that extend them or are a prefix of them.

        `ends_line`: </s> counts as a line break.
        """
        probabilities = self._of_model(logits)
        if self.gate is not None and self.matches_of is not None:
            matches = self.matches_of(ids)
            if not forced and sum(len(match.tokens) for match in matches) <= FEW:
                return self._choose_among_few(probabilities, matches, self.gate, ends_line=ends_line)
            probabilities = self._mixed(probabilities, matches, self.gate)
        if ends_line:
            eos = self.tokenizer.control.eos
            probabilities[self.tokenizer.newline] += probabilities[eos]
            probabilities[eos] = 0.0
        if not forced:
            best = int(probabilities.argmax())
            return best, float(probabilities[best])
        longer, shorter = self.tokenizer.extensions(forced)
        allowed = np.array(longer + shorter, dtype=np.int64)
        if not len(allowed):
            return None, 0.0
        best = int(allowed[probabilities[allowed].argmax()])
        return best, float(probabilities[best] / max(probabilities[allowed].sum(), 1e-30))

    def _of_model(self, logits: Tensor) -> np.ndarray:
        probabilities = torch.softmax(logits.float(), -1).numpy()
        probabilities[self.tokenizer.unsaid] = 0.0
        return probabilities

    def _mixed(self, probabilities: np.ndarray, matches: Sequence[Match], gate: Gate) -> np.ndarray:
        mixed = mix(probabilities, matches, gate)
        mixed[self.tokenizer.unsaid] = 0.0  # indexes hold text only; should one ever not, it is not said
        return mixed

    def _choose_among_few(
        self, probabilities: np.ndarray, matches: Sequence[Match], gate: Gate, *, ends_line: bool
    ) -> tuple[int, float]:
        """What the whole mixture would choose, without making it: only the model's favourite and the tokens that were found can be the likeliest.

        The arithmetic of each is that of model.mixture.mix, in the same order, so the bits are the same.
        """
        weights = gate.weights(probabilities, matches).tolist()
        eos, newline = self.tokenizer.control.eos, self.tokenizer.newline
        found = {int(probabilities.argmax())}.union(*(match.tokens.tolist() for match in matches if match.length))
        if ends_line:
            found |= {eos, newline}
        values = {i: float(probabilities[i]) * weights[0] for i in found}
        for weight, match in zip(weights[1:], matches, strict=True):
            if match.length:
                shares = weight * match.counts / match.counts.sum()
                for i, share in zip(match.tokens.tolist(), shares.tolist(), strict=True):
                    values[i] += share
        for i in self._unsaid & values.keys():
            values[i] = 0.0
        if ends_line:
            values[newline] += values[eos]
            values[eos] = 0.0
        best = max(values, key=lambda i: (values[i], -i))
        return best, values[best]
