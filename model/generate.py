"""Greedy decoding from a state: one token at a time, healed start, lookup mixture, stop conditions, a stop flag looked at each token.

Knows: the network, the tokenizer, the mixture. Does not know: requests, caches, where a suggestion should be cut for people (daemon/trim.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.mixture import Gate, Match, mix
from model.network import Network
from model.state import Mamba2State
from model.tokenizer import Tokenizer

# Ids generated so far -> one match for each source of the mixture.
MatchesOf = Callable[[Sequence[int]], Sequence[Match]]
StopCheck = Callable[[bytes], str | None]  # text generated so far -> why to stop, or None


@dataclass(frozen=True, slots=True)
class Generated:
    """`text` leaves out the forced bytes. `log_probability` is the natural logarithm under the distribution decoded from."""

    ids: list[int]
    text: bytes
    stopped_by: str  # "eos" | "max_tokens" | "time" | "cancelled" | "nothing" | what the stop check said
    log_probability: float


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
) -> Generated:
    """Decodes greedily from `logits` (V,), those after `state`. `deadline` is a time of time.monotonic(); neither argument is written to."""
    chooser = Chooser(tokenizer, gate, matches_of)
    ids: list[int] = []
    own: Mamba2State | None = None
    step = torch.empty(1, 1, dtype=torch.int64)
    text, log_probability, stopped_by = b"", 0.0, "max_tokens"
    while len(ids) < max_tokens:
        if cancelled():
            stopped_by = "cancelled"
            break
        if deadline is not None and time.monotonic() > deadline:
            stopped_by = "time"
            break
        # Where a line break would end the completion anyway, </s> and a line break say the same.
        ends_line = len(text) >= len(forced) and stop(text[len(forced) :] + b"\n") is not None
        best, probability = chooser.choose(logits, ids, forced[len(text) :], ends_line=ends_line)
        if best is None:
            stopped_by = "nothing"
            break
        log_probability += float(np.log(max(probability, 1e-30)))
        if best == tokenizer.control.eos:
            stopped_by = "eos"
            break
        ids.append(best)
        text += tokenizer.pieces[best]
        reason = stop(text[len(forced) :]) if len(text) >= len(forced) else None
        if reason is not None:
            stopped_by = reason
            break
        # The state that came in is somebody else's; those made on the way are ours to write over.
        step[0, 0] = best
        out, own = network(step, state if own is None else own, into=own)
        logits = out[0, -1]
    return Generated(ids=ids, text=text[len(forced) :], stopped_by=stopped_by, log_probability=log_probability)


class Chooser:
    """The next token: the likeliest under the mixture among those allowed."""

    def __init__(self, tokenizer: Tokenizer, gate: Gate | None, matches_of: MatchesOf | None) -> None:
        self.tokenizer = tokenizer
        self.gate = gate
        self.matches_of = matches_of

    def distribution(self, logits: Tensor, ids: Sequence[int]) -> np.ndarray:
        """(V,) probabilities of the token after `ids`; control tokens but </s> have none."""
        probabilities = torch.softmax(logits.float(), -1).numpy()
        probabilities[self.tokenizer.unsaid] = 0.0
        if self.gate is not None and self.matches_of is not None:
            probabilities = mix(probabilities, self.matches_of(ids), self.gate)
            probabilities[self.tokenizer.unsaid] = 0.0  # indexes hold text only; should one ever not, it is not said
        return probabilities

    def choose(
        self, logits: Tensor, ids: Sequence[int], forced: bytes, *, ends_line: bool = False
    ) -> tuple[int | None, float]:
        """The token and its probability; with `forced` bytes left, only tokens that extend them or are a prefix of them.

        `ends_line`: </s> counts as a line break.
        """
        probabilities = self.distribution(logits, ids)
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
