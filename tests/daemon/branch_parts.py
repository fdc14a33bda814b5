"""Parts of the tests of branches: a network that says what it is told, with Codestral's vocabulary, and forks on it. Does not know: cases."""

from dataclasses import dataclass, replace
from pathlib import Path

import mistral_common
import numpy as np
import torch

from cache.lookup import NOTHING
from daemon.branches import Fork
from daemon.protocol import CompletionRequest
from daemon.rank import what_follows
from daemon.trim import Trim
from model.config import Mamba2Config
from model.generate import Generated, generate
from model.tokenizer_files import read_tokenizer

V3 = read_tokenizer(Path(mistral_common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3")
CONFIG = Mamba2Config(d_model=16, n_layers=2, vocab_size=V3.vocab_size, d_state=8, head_dim=8, n_heads=4)


@dataclass
class Scripted:
    """A network that says what it is told: after the token `i`, `says[i]` gives tokens and their probabilities."""

    says: dict[int, dict[int, float]]
    config: Mamba2Config = CONFIG
    numerics: str = "scripted"
    weight_bytes: int = 0
    any_cut: bool = False
    calls: int = 0

    def logits(self, i: int) -> torch.Tensor:
        row = torch.full((V3.vocab_size,), -30.0)
        for token, probability in self.says.get(i, {V3.newline: 1.0}).items():
            row[token] = np.log(probability)
        return row

    def __call__(self, ids, state=None, *, last_only=False, into=None):
        self.calls += 1
        rows = torch.stack([self.logits(int(i)) for i in ids[0]])[None]
        return (rows[:, -1:] if last_only else rows), state


def token(text: str) -> int:
    (i,) = V3.encode(text)
    return i


X, Y, Z, W = (token(letter) for letter in "xyzw")
NEWLINE, EOS = V3.newline, V3.control.eos


def fork_of(network: Scripted, first: dict[int, float], *, request: CompletionRequest | None = None, **changes) -> Fork:
    wanted = request or CompletionRequest(prompt="", suffix="w\n")
    network.says[-1] = first
    made = Fork(
        network=network,  # type: ignore[arg-type]
        tokenizer=V3,
        gate=None,
        state=None,  # type: ignore[arg-type]
        logits=network.logits(-1),
        forced=b"",
        matches_of=lambda _: (NOTHING, NOTHING),
        trim=Trim(wanted, open_ended=True),
        following=what_follows(wanted),
        cancelled=lambda: False,
        max_tokens=8,
        deadline=None,
    )
    return replace(made, **changes)


def greedy(fork: Fork) -> Generated:
    return generate(
        fork.network,
        V3,
        fork.state,
        fork.logits,
        stop=fork.trim.stop,
        cancelled=fork.cancelled,
        max_tokens=fork.max_tokens,
        deadline=fork.deadline,
        forced=fork.forced,
    )
