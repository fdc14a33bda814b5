"""One hole, asked in one way: how good the answer is and what it costs; and how fast this machine feeds and decodes.

Knows: the engine. Does not know: which ways of asking are compared, processes, files.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch

from cache.chain import SLICE_TOKENS, as_tokens
from daemon.bases import Ground
from daemon.completion import Engine
from daemon.feeder import Value
from daemon.matcher import Matcher
from daemon.prompt import Prompt
from daemon.protocol import CompletionRequest
from model.generate import Chooser
from model.sampling import next_logits

SPEED_ROUNDS = 5
SPEED_S = 10.0  # a slow machine is measured in fewer rounds
DECODED_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Outcome:
    """`moved`: for a cursor that is somewhere new. `key`: for one more character typed there."""

    exact: bool
    similarity: float
    log_probability: (
        float | None
    )  # nats a token of the truth, its line's end included; None where typed bytes are no whole characters
    moved_tokens: int
    moved_ms: float
    key_tokens: int
    key_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A context that has been read. The state is held here, since a small store drops it for a hole's many."""

    ground: Ground
    value: Value | None  # None: there was nothing to read

    @property
    def n_tokens(self) -> int:
        return self.ground.chain.n_tokens

    def restore(self, engine: Engine) -> None:
        """Makes the state the most recently used one of the engine's store; nothing is fed."""
        if self.value is not None:
            engine.store.put(self.ground.chain, len(self.ground.chain.slices), self.value, self.value.nbytes)


def measure(engine: Engine, reading: Reading, request: CompletionRequest, truth: str) -> Outcome:
    """Answers `request` as the daemon would without a time limit and with the file's head read, then feeds what one more typed character would."""
    reading.restore(engine)
    read_head(engine, reading.ground, request)
    made = engine.complete(request, [reading.ground], cancelled=lambda: False, started=time.monotonic())
    prompt, value = fed(engine, reading.ground, request)
    matcher = Matcher(prompt.buffer, reading.ground.index, request.path)
    log_probability = None
    if value is not None:
        log_probability = truth_log_probability(engine, prompt, value, matcher=matcher, truth=truth)
    typed = msgspec.structs.replace(request, prompt=request.prompt + truth[0])
    feeding = engine.resume(engine.plan(typed, [reading.ground]).prompt.chain)
    key_tokens, started = feeding.tokens_missing, time.monotonic()
    while not feeding.ready:
        feeding.step()
    key_ms = 1000 * (time.monotonic() - started)
    return Outcome(
        exact=made.text == truth.rstrip(),
        similarity=edit_similarity(made.text, truth.rstrip()),
        log_probability=log_probability,
        moved_tokens=made.report.tokens_fed,
        moved_ms=made.report.ms.feed + made.report.ms.decode,
        key_tokens=key_tokens,
        key_ms=key_ms + made.report.ms.decode,
    )


def read_head(engine: Engine, ground: Ground, request: CompletionRequest) -> None:
    """Feeds the file up to the windows, as it has been read when a cursor moves in it."""
    prompt = engine.prompter.completion(ground.chain, request)
    engine.read(prompt.chain.upto(prompt.head_end))


def fed(engine: Engine, ground: Ground, request: CompletionRequest) -> tuple[Prompt, Value | None]:
    """The prompt of a request and its state, which is kept if the request has just been answered."""
    prompt = engine.plan(request, [ground]).prompt
    return prompt, engine.read(prompt.chain)


def truth_log_probability(
    engine: Engine, prompt: Prompt, value: Value, *, matcher: Matcher, truth: str
) -> float | None:
    """Mean natural logarithm of the truth's tokens and its line's end, under the distribution that is decoded from."""
    tokenizer = engine.model.tokenizer
    try:
        text = (prompt.forced + truth.rstrip().encode()).decode()
    except UnicodeDecodeError:
        return None
    ids = [*tokenizer.encode(text), tokenizer.newline]
    rows = next_logits(engine.model.network, value.state, value.logits, ids)
    chooser = Chooser(tokenizer, engine.model.gate, matcher)
    total = 0.0
    for n, i in enumerate(ids):
        probabilities = chooser.distribution(rows[n], ids[:n])
        p = float(probabilities[i])
        if n == len(ids) - 1:  # where </s> says the same
            p += float(probabilities[tokenizer.control.eos])
        total += math.log(max(p, 1e-30))
    return total / len(ids)


def feed_speed(engine: Engine, ids: Sequence[int]) -> float:
    """Tokens a second, median over slices of the longest kind that a keystroke may wait for. `ids` is any text's."""
    text = np.resize(np.array(ids or [engine.model.tokenizer.newline]), SLICE_TOKENS)
    value = engine.feed(as_tokens(text), None)  # the first call also pays for what is set up once
    speeds, began = [], time.monotonic()
    while len(speeds) < SPEED_ROUNDS and (not speeds or time.monotonic() - began < SPEED_S):
        started = time.monotonic()
        value = engine.feed(as_tokens(text), value)
        speeds.append(SLICE_TOKENS / (time.monotonic() - started))
    return float(np.median(speeds))


@torch.no_grad()
def decode_speed(engine: Engine, ids: Sequence[int]) -> float:
    """Tokens a second, median over single steps, the choice of the token included. `ids` is any text's, not empty."""
    value = engine.feed(as_tokens(ids[:SLICE_TOKENS]), None)
    chooser = Chooser(engine.model.tokenizer, None, None)
    state, logits = value.state, value.logits
    speeds, began = [], time.monotonic()
    while len(speeds) < DECODED_TOKENS and (not speeds or time.monotonic() - began < SPEED_S):
        started = time.monotonic()
        best, _ = chooser.choose(logits, [], b"")
        assert best is not None, "without forced bytes there always is a best token"
        out, state = engine.model.network(torch.tensor([[best]]), state)
        logits = out[0, -1]
        speeds.append(1 / max(1e-9, time.monotonic() - started))
    return float(np.median(speeds))


def edit_similarity(a: str, b: str) -> float:
    """1 - Levenshtein distance / the longer length; 1 for two empty texts."""
    if not a and not b:
        return 1.0
    previous = list(range(len(b) + 1))
    for i, character in enumerate(a, start=1):
        current = [i]
        for j, other in enumerate(b, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (character != other)))
        previous = current
    return 1.0 - previous[-1] / max(len(a), len(b))


def read_ground(engine: Engine, ground: Ground) -> Reading:
    """Feeds all of it, in the calling thread."""
    return Reading(ground, engine.read(ground.chain))
