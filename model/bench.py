"""How fast this machine runs a model, beside what it can do at all: the memory it reads and the matrices it multiplies.

Knows the network, torch and the clock; does not know the command line, and compares with no other program (benchmarks/).

Ceilings and model are measured in turns within one run, since the machine may be shared; every figure is a median.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.build import automatic_precision, build_network
from model.config import Mamba2Config
from model.network import Network
from model.precision import head_kind
from model.progress import ProgressLine, shown_bytes, shown_seconds
from model.source import open_source
from model.state import Mamba2State

CHUNKS = (1, 8, 32, 512)  # tokens fed at once
DECODED = 8  # tokens decoded in a row, at the least
ROUNDS = 5
MIN_SAMPLE_S = 0.05  # of one measurement: shorter ones are repeated within it
WARM_S = 2.0  # a first call of this length says enough of the ones to come
MATRIX = (512, 2048, 2048)  # rows, outputs, inputs of the product that the ceiling is taken from
DEVICE_MATRIX = (8192, 8192, 8192)  # the same on a GPU, where the other would be over before it has begun
MAX_BUFFER_BYTES = 1 << 30
REPOSITORY_TOKENS = 100_000  # what people are told the time for
KEY_FED, KEY_DECODED = 4, 10  # tokens of a typed key: about as many of the line are new, and are suggested
LONG_S = 20.0  # from here on people are told how long it will take


@dataclass(frozen=True, slots=True)
class Ceilings:
    read_bytes_per_s: float
    flop_per_s: float
    matrix_kind: str  # what was multiplied: "fp32", "bf16" or "int8"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of step. Shares are of the ceilings, 0 to 1; more where a ceiling was measured in a bad moment."""

    what: str  # "feed" | "decode"
    n_tokens: int  # of one step
    ms: float  # for one step
    bandwidth_share: float
    matrix_share: float

    @property
    def tokens_per_s(self) -> float:
        return 1000 * self.n_tokens / self.ms


@dataclass(frozen=True, slots=True)
class Measured:
    model: str
    precision: str
    numerics: str  # what ran it
    n_threads: int
    rounds: int
    weight_bytes: int  # read by one step
    state_bytes: int
    ceilings: Ceilings
    rows: tuple[Row, ...]


@dataclass(slots=True)
class _Timed:
    """Work that is measured once a round; `loops` times in a row, so that the clock can tell."""

    work: Callable[[], object]
    loops: int = 1
    seconds: list[float] = field(default_factory=list)

    def warm_up(self) -> float:
        once = _seconds(self.work)
        if once < WARM_S:  # the first call may have paid for what the others find done
            once = _seconds(self.work)
        self.loops = max(1, math.ceil(MIN_SAMPLE_S / once)) if once < MIN_SAMPLE_S else 1
        return once * self.loops

    def measure(self) -> None:
        started = time.perf_counter()
        for _ in range(self.loops):
            self.work()
        self.seconds.append((time.perf_counter() - started) / self.loops)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def bench(
    name: str, *, precision: str | None, n_threads: int, progress: ProgressLine, rounds: int = ROUNDS
) -> Measured:
    """Loads and measures a model. torch is set to `n_threads` already. Raises ConfigError."""
    source = open_source(name, progress)
    chosen = precision if precision is not None else automatic_precision(source.config)
    network = build_network(source, chosen, progress=progress)
    with torch.no_grad():
        return measure(
            network, name=source.name, precision=chosen, n_threads=n_threads, progress=progress, rounds=rounds
        )


def measure(
    network: Network, *, name: str, precision: str, n_threads: int, progress: ProgressLine, rounds: int = ROUNDS
) -> Measured:
    config = network.config
    device = _start(network).conv.device
    reader, n_read = _reader(network, device)
    multiplier, n_flop, kind = _multiplier(precision, device)
    steps = {("decode", 1): _Timed(_decoder(network))}
    steps |= {("feed", n_tokens): _Timed(_feeder(network, n_tokens)) for n_tokens in CHUNKS}
    reading, multiplying = _Timed(reader), _Timed(multiplier)
    timed = [reading, multiplying, *steps.values()]
    round_s = 0.0
    for number, one in enumerate(timed):
        progress.count(number, len(timed), "warming up")
        round_s += one.warm_up()
    left = f", {shown_seconds(rounds * round_s)} in all" if rounds * round_s > LONG_S else ""
    for number in range(rounds):
        progress.say(f"measuring, round {number + 1} of {rounds}{left}")
        for one in timed:
            one.measure()
    ceilings = Ceilings(n_read / reading.median_s, n_flop / multiplying.median_s, kind)
    rows = []
    for (what, n_tokens), one in steps.items():
        seconds = one.median_s / (DECODED if what == "decode" else 1)
        moved = network.weight_bytes + 2 * config.state_bytes
        rows.append(
            Row(
                what,
                n_tokens,
                1000 * seconds,
                bandwidth_share=moved / seconds / ceilings.read_bytes_per_s,
                matrix_share=_flop(config, n_tokens) / seconds / ceilings.flop_per_s,
            )
        )
    return Measured(
        model=name,
        precision=precision,
        numerics=network.numerics,
        n_threads=n_threads,
        rounds=rounds,
        weight_bytes=network.weight_bytes,
        state_bytes=config.state_bytes,
        ceilings=ceilings,
        rows=tuple(rows),
    )


def as_object(measured: Measured) -> dict:
    """For --json."""
    rows = {row: _row_object(row) for row in measured.rows}
    return {
        "model": measured.model,
        "precision": measured.precision,
        "numerics": measured.numerics,
        "threads": measured.n_threads,
        "rounds": measured.rounds,
        "weight_bytes": measured.weight_bytes,
        "state_bytes": measured.state_bytes,
        "read_bytes_per_s": round(measured.ceilings.read_bytes_per_s),
        "matrix_flop_per_s": round(measured.ceilings.flop_per_s),
        "matrix_kind": measured.ceilings.matrix_kind,
        "decode": next(value for row, value in rows.items() if row.what == "decode"),
        "read_100000_tokens_s": round(read_s(measured, REPOSITORY_TOKENS), 3),
        "typed_key_ms": round(key_ms(measured), 3),
        "feed": {str(row.n_tokens): value for row, value in rows.items() if row.what == "feed"},
    }


def as_table(measured: Measured) -> Iterator[str]:
    """For people."""
    ceilings = measured.ceilings
    yield f"model     {measured.model}, {measured.precision}, {measured.numerics}"
    yield (
        f"machine   {measured.n_threads} thread{'s' * (measured.n_threads != 1)}, reads "
        f"{ceilings.read_bytes_per_s / 1e9:.1f} GB/s, multiplies {ceilings.flop_per_s / 1e9:.0f} GFLOP/s in "
        f"{ceilings.matrix_kind}"
    )
    yield f"a step    reads {shown_bytes(measured.weight_bytes)} of weights, moves 2 x {shown_bytes(measured.state_bytes)} of state"
    yield ""
    yield f"{'':<14}{'ms':>10}{'tokens/s':>12}{'of bandwidth':>15}{'of matrix':>12}"
    for row in measured.rows:
        what = "decode 1" if row.what == "decode" else f"feed {row.n_tokens}"
        shares = f"{row.bandwidth_share:>14.0%} {row.matrix_share:>11.0%}"
        yield f"{what:<14}{row.ms:>10.2f}{row.tokens_per_s:>12.0f} {shares}"
    yield ""
    yield (
        f"medians of {measured.rounds} rounds. of bandwidth: weights once and the state twice, against plain reading "
        f"{'of those weights' if measured.numerics.startswith('native') else 'of as many bytes'}; of matrix: the "
        "projections and the head for one token, against one large product"
    )
    yield ""
    yield f"a repository of {REPOSITORY_TOKENS:,} tokens is read in about {shown_seconds(read_s(measured, REPOSITORY_TOKENS))}, once"
    yield (
        f"a typed key takes about {key_ms(measured):.0f} ms until its suggestion is whole: {KEY_FED} tokens fed, "
        f"{KEY_DECODED} decoded"
    )


def read_s(measured: Measured, n_tokens: int) -> float:
    """Seconds to read so many tokens, in chunks of the largest size that was measured."""
    widest = max(_feeds(measured), key=lambda row: row.n_tokens)
    return n_tokens / widest.tokens_per_s


def key_ms(measured: Measured) -> float:
    """Milliseconds of a completion whose context has been read: a few tokens fed at once, then a short suggestion."""
    decode = next(row for row in measured.rows if row.what == "decode")
    return _feed_ms(measured, KEY_FED) + KEY_DECODED * decode.ms


def _feed_ms(measured: Measured, n_tokens: int) -> float:
    """Of a chunk of a size between two that were measured: on the line between them."""
    rows = sorted(_feeds(measured), key=lambda row: row.n_tokens)
    below = next((row for row in reversed(rows) if row.n_tokens <= n_tokens), rows[0])
    above = next((row for row in rows if row.n_tokens >= n_tokens), rows[-1])
    if below.n_tokens == above.n_tokens:
        return below.ms * n_tokens / below.n_tokens
    share = (n_tokens - below.n_tokens) / (above.n_tokens - below.n_tokens)
    return below.ms + share * (above.ms - below.ms)


def _feeds(measured: Measured) -> list[Row]:
    return [row for row in measured.rows if row.what == "feed"]


def _row_object(row: Row) -> dict[str, float | int]:
    return {
        "n_tokens": row.n_tokens,
        "ms": round(row.ms, 4),
        "tokens_per_s": round(row.tokens_per_s, 2),
        "bandwidth_share": round(row.bandwidth_share, 4),
        "matrix_share": round(row.matrix_share, 4),
    }


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return max(time.perf_counter() - started, 1e-9)


def _reader(network: Network, device: torch.device) -> tuple[Callable[[], object], int]:
    """What reads the weights of one step and does nothing else, and how many bytes that is.

    The native network streams over its own buffers; elsewhere torch sums a buffer as large as the weights, so that a
    model that fits a cache is compared with that cache.
    """
    read_weights = getattr(network, "read_weights", None)
    if read_weights is not None:
        return read_weights, int(read_weights())
    n_bytes = max(1 << 16, min(MAX_BUFFER_BYTES, network.weight_bytes))
    buffer = torch.ones(n_bytes // 4, device=device)
    return lambda: _finished(buffer.sum()), buffer.nbytes


def _multiplier(precision: str, device: torch.device) -> tuple[Callable[[], object], int, str]:
    """A large product in the arithmetic of the precision, its operations, and its name.

    Integers for int8 and int4, as the kernels multiply; fp32 where torch has no such product.
    """
    rows, outputs, inputs = shape = MATRIX if device.type == "cpu" else DEVICE_MATRIX
    n_flop = 2 * math.prod(shape)
    if head_kind(precision) == "int8":
        left = torch.randint(-100, 100, (rows, inputs), dtype=torch.int8, device=device)
        right = torch.randint(-100, 100, (outputs, inputs), dtype=torch.int8, device=device).T
        multiply = torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
        with contextlib.suppress(RuntimeError, NotImplementedError):
            multiply(left, right)
            return lambda: _finished(multiply(left, right)), n_flop, "int8"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    name = "bf16" if precision == "bf16" else "fp32"
    return lambda: _finished(torch.nn.functional.linear(hidden, weight)), n_flop, name


def _finished(result: Tensor) -> Tensor:
    """The clock must not stop before the device has."""
    if result.is_cuda:
        torch.cuda.synchronize()
    return result


def _ids(config: Mamba2Config, n_tokens: int) -> Tensor:
    """The same random ids every time."""
    return torch.randint(config.vocab_size, (1, n_tokens), generator=torch.Generator().manual_seed(0))


def _feeder(network: Network, n_tokens: int) -> Callable[[], object]:
    """One chunk after a state that stays as it is, as the daemon feeds: logits of the last token only."""
    ids, state = _ids(network.config, n_tokens), _start(network)
    room: Mamba2State | None = None

    def feed() -> Tensor:
        nonlocal room
        logits, room = network(ids, state, last_only=True, into=room)
        return _finished(logits)

    return feed


def _decoder(network: Network) -> Callable[[], object]:
    """DECODED tokens, each the likeliest after the one before."""
    first = _start(network)

    def decode() -> Tensor:
        ids, state, room = _ids(network.config, 1), first, None
        for _ in range(DECODED):
            logits, following = network(ids, state, last_only=True, into=room)
            # The state before may be written over, but for the first, which the next round starts from.
            state, room = following, state if state is not first else None
            ids = logits[:, -1].argmax(-1, keepdim=True)
        return _finished(ids)

    return decode


def _start(network: Network) -> Mamba2State:
    """The state after a few tokens: what real steps start from, and of the layout that the network makes."""
    return network(_ids(network.config, 16))[1]


def _flop(config: Mamba2Config, n_tokens: int) -> int:
    """Multiplications and additions of the projections for all tokens and of the head for one; the scan is left out."""
    c = config
    layer = c.d_model * (c.in_proj_dim + c.d_inner)
    return 2 * (n_tokens * c.n_layers * layer + c.vocab_size * c.d_model)
