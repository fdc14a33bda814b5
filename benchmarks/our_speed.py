"""Our own network on a stopwatch: feeding, decoding, checking a draft, and how near that is to what the machine can do.

The ceilings are measured here too, in the same process, on the same threads and, for memory, on the very buffers that hold the weights: what a machine
gives depends on where pages lie. Knows: the network. Does not know: peers, files.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.peers import Work
from benchmarks.stats import interleave, median_s
from model.config import Mamba2Config
from model.network import Network
from model.state import Mamba2State

DRAFT_TOKENS = 8
CEILING_SHAPE = (2048, 4096, 4096)  # large enough that one product runs at the machine's full speed


class Shares(NamedTuple):
    """How much of what the machine can do is reached, 0 to 1; None where the network cannot tell."""

    bandwidth: float | None  # of a decoding step
    matrix: float  # of feeding 512 tokens
    verify: float  # a chunk of DRAFT_TOKENS with all its logits, in single steps
    overhead_ms: float | None  # of a step outside the kernels: Python, torch, ctypes
    read_gb_s: float | None
    ceiling_gflop_s: float


def seconds_per_token(network: Network, work: Work) -> float:
    """As llama-bench does it: from a state that has read next to nothing, only the last token's logits, the median of the repetitions."""
    once = feed if work.kind == "feed" else decode
    return statistics.median(once(network, work.n_tokens) for _ in range(work.repetitions))


def feed(network: Network, n_tokens: int) -> float:
    """Seconds a token for `n_tokens` in one call."""
    ids, state, room = random_ids(network.config, n_tokens), read_one(network), read_one(network)
    started = time.perf_counter()
    network(ids, state, last_only=True, into=room)
    return (time.perf_counter() - started) / n_tokens


def decode(network: Network, n_tokens: int) -> float:
    """Seconds a token, one after the other; the state goes in and comes out in the same storage."""
    ids, state = random_ids(network.config, n_tokens), read_one(network)
    started = time.perf_counter()
    for i in range(n_tokens):
        _, state = network(ids[:, i : i + 1], state, last_only=True, into=state)
    return (time.perf_counter() - started) / n_tokens


def read_one(network: Network) -> Mamba2State:
    """The state after one token, laid out in memory as this network likes it."""
    return network(random_ids(network.config, 1), None, last_only=True)[1]


def read_s(network: Network, n_tokens: int, *, chunk: int = 512) -> float:
    """Seconds for `n_tokens` in chunks, the state passed on: how a repository is read."""
    ids = random_ids(network.config, n_tokens)
    state = read_one(network)
    started = time.perf_counter()
    for start in range(0, n_tokens, chunk):
        _, state = network(ids[:, start : start + chunk], state, last_only=True, into=state)
    return time.perf_counter() - started


def shares(network: Network, precision: str, *, rounds: int, spare_rounds: int, patience_s: float) -> Shares:
    """Everything about one network that needs no peer. Each figure is taken within a round, beside its ceiling, and the median of the rounds counts."""
    moved = network.weight_bytes + 2 * network.config.state_bytes
    flop = matrix_flop(network.config, 512)
    contestants: dict[str, Callable[[], float]] = {
        "step": lambda: decode(network, 32),
        "draft": lambda: verify(network),
        "chunk": lambda: 512 * feed(network, 512),
        "chunk at the ceiling": lambda: flop / matrix_flop_s(precision),
    }
    if hasattr(network, "read_weights"):
        contestants["step at the bandwidth"] = lambda: moved / read_bandwidth(network)
        contestants["outside"] = lambda: step_overhead_s(network, 32)
    found = interleave(contestants, rounds=rounds, spare_rounds=spare_rounds, patience_s=patience_s)
    native = "outside" in contestants
    return Shares(
        bandwidth=found.ratio("step at the bandwidth", "step").median if native else None,
        matrix=found.ratio("chunk at the ceiling", "chunk").median,
        verify=found.ratio("draft", "step").median,
        overhead_ms=1e3 * found.spread("outside").median if native else None,
        read_gb_s=moved / found.spread("step at the bandwidth").median / 1e9 if native else None,
        ceiling_gflop_s=flop / found.spread("chunk at the ceiling").median / 1e9,
    )


def read_bandwidth(network: Network) -> float:
    """Bytes a second at which a native network's own threads read its own weights."""
    read = network.read_weights  # type: ignore[attr-defined]
    return read() / median_s(read, repetitions=3)


def step_overhead_s(network: Network, n_steps: int) -> float:
    """Of one decoding step of a native network, what passes outside the kernels."""
    ids, state = random_ids(network.config, 1), read_one(network)
    outside = []
    for _ in range(n_steps):
        started = time.perf_counter()
        _, state = network(ids, state, last_only=True, into=state)
        outside.append(time.perf_counter() - started - network.last_call_s)  # type: ignore[attr-defined]
    return statistics.median(outside)


def verify(network: Network) -> float:
    """Seconds for a draft of DRAFT_TOKENS, the logits of all of them asked for."""
    ids, state, room = random_ids(network.config, DRAFT_TOKENS), read_one(network), read_one(network)
    return median_s(lambda: network(ids, state, into=room), repetitions=5)


def matrix_flop(config: Mamba2Config, n_tokens: int) -> float:
    """Multiplications and additions of the projections for all tokens and of the head for the last."""
    layer = config.in_proj_dim * config.d_model + config.d_model * config.d_inner
    return 2.0 * (n_tokens * config.n_layers * layer + config.vocab_size * config.d_model)


def matrix_flop_s(precision: str) -> float:
    """What a large product reaches on this machine at the precision in which `precision` multiplies: int8 for int8 and int4."""
    m, k, n = CEILING_SHAPE
    if precision in ("int8", "int4"):
        left = torch.randint(-127, 127, (m, k), dtype=torch.int8)
        right = torch.randint(-127, 127, (k, n), dtype=torch.int8)
        took = median_s(lambda: torch.ops.aten._int_mm(left, right), repetitions=3)
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        took = median_s(lambda: left @ right, repetitions=3)
    return 2.0 * m * k * n / took


def random_ids(config: Mamba2Config, n_tokens: int) -> torch.Tensor:
    return torch.randint(config.vocab_size, (1, n_tokens))
