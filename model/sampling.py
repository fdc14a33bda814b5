"""Probabilities of tokens that are not decoded: the likeliest first ones, and those of a given text.

Knows: the network and the mixture's chooser. Does not know: requests, what the figures are for.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.generate import Chooser
from model.network import Network
from model.state import Mamba2State


def likeliest(chooser: Chooser, logits: Tensor, forced: bytes, *, ends_line: bool, n: int) -> list[tuple[int, float]]:
    """The `n` likeliest next tokens and their probabilities, by the rules of Chooser.choose, which takes the first of them.

    With `forced` bytes only tokens that agree with them count, and their probabilities add up to 1. Fewer than `n` where fewer are possible.
    """
    allowed, probabilities = _weighed(chooser, logits, [], forced=forced, ends_line=ends_line)
    return _ordered(allowed, probabilities, n=n)


def probable(
    chooser: Chooser, logits: Tensor, ids: Sequence[int], *, forced: bytes, ends_line: bool, floor: float
) -> list[tuple[int, float]]:
    """All tokens that come after `ids` with a probability of `floor` or more, the likeliest first, by the same rules."""
    allowed, probabilities = _weighed(chooser, logits, ids, forced=forced, ends_line=ends_line)
    return _ordered(allowed[probabilities[allowed] >= floor], probabilities, n=None)


def _weighed(
    chooser: Chooser, logits: Tensor, ids: Sequence[int], *, forced: bytes, ends_line: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may come after `ids`, and (V,) probabilities."""
    tokenizer = chooser.tokenizer
    probabilities = chooser.distribution(logits, ids)
    if ends_line:
        eos = tokenizer.control.eos
        probabilities[tokenizer.newline] += probabilities[eos]
        probabilities[eos] = 0.0
    if not forced:
        return np.arange(len(probabilities)), probabilities
    longer, shorter = tokenizer.extensions(forced)
    allowed = np.array(longer + shorter, dtype=np.int64)
    return allowed, probabilities / max(float(probabilities[allowed].sum()), 1e-30)


def _ordered(allowed: np.ndarray, probabilities: np.ndarray, *, n: int | None) -> list[tuple[int, float]]:
    """The first `n` of `allowed` that are possible, the likeliest first, the first of equals first."""
    order = allowed[np.argsort(-probabilities[allowed], kind="stable")[:n]]
    return [(int(i), float(probabilities[i])) for i in order if probabilities[i] > 0]


@torch.no_grad()
def next_logits(network: Network, state: Mamba2State, logits: Tensor, ids: Sequence[int]) -> Tensor:
    """(n, V) fp32: row i predicts ids[i], n >= 1. `logits` (V,) are those after `state`; neither is written to. One pass over the n - 1 first ids."""
    if len(ids) == 1:
        return logits[None].float()
    batch = torch.tensor([list(ids[:-1])], device=logits.device)
    rows, _ = network(batch, state)
    return torch.cat([logits[None], rows[0]]).float()


def log_probabilities(network: Network, state: Mamba2State, logits: Tensor, ids: Sequence[int]) -> np.ndarray:
    """(n,) natural logarithms: the model's own probability of each of `ids`, one after the other, without any mixture."""
    rows = torch.log_softmax(next_logits(network, state, logits, ids), -1)
    return rows[torch.arange(len(ids)), torch.tensor(list(ids))].cpu().numpy()
