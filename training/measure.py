"""How well a network predicts a stream of tokens, read as the product reads it: from nothing, the state passed on.

Knows: the network and token ids. Does not know: files, tokenizers, prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from model.network import Mamba2LM

BLOCK_TOKENS = 1024


@torch.no_grad()
def stream_nats(network: Mamba2LM, ids: Sequence[int] | np.ndarray, *, device: str = "cpu") -> float:
    """The sum of -log p over all of `ids` but the first."""
    tokens = torch.as_tensor(np.asarray(ids, dtype=np.int64), device=device)
    state, nats = None, 0.0
    for start in range(0, len(tokens) - 1, BLOCK_TOKENS):
        block = tokens[None, start : start + BLOCK_TOKENS + 1]
        logits, state = network(block[:, :-1], state)
        nats += F.cross_entropy(logits[0], block[0, 1:], reduction="sum").item()
    return nats
