"""How likely a text is to a model: the log-probability of each token, given all before it.

Knows the network and the tokenizer; does not know the command line. Memory does not grow with the length: tokens go through
in chunks, and of a chunk's logits one number a token is kept.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from model.build import automatic_precision, build_network
from model.config import ConfigError
from model.network import Network
from model.progress import Progress, ProgressLine
from model.source import Source, open_source
from model.tokenizer import Tokenizer

CHUNK_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Score:
    """`logprobs[i]` is the natural logarithm of the probability of token i + 1, given tokens 0 to i.

    `n_bytes` counts the bytes of text that the scored tokens stand for: all but the first, control tokens as none.
    None where there is no tokenizer to tell.
    """

    ids: list[int]
    logprobs: list[float]
    n_bytes: int | None
    seconds: float

    @property
    def total(self) -> float:
        return math.fsum(self.logprobs)

    @property
    def perplexity(self) -> float | None:
        """exp of the mean negative log-probability of a token; None without any."""
        return _exp(-self.total / len(self.logprobs)) if self.logprobs else None

    @property
    def bits_per_byte(self) -> float | None:
        """Minus the sum of `logprobs`, in bits, over `n_bytes`: comparable between vocabularies."""
        return -self.total / math.log(2) / self.n_bytes if self.n_bytes else None


def score_ids(
    network: Network, ids: Sequence[int], *, chunk: int = CHUNK_TOKENS, progress: Progress | None = None
) -> list[float]:
    """The log-probability of each of `ids` after the first; `chunk` changes no more than rounding."""
    tokens = torch.tensor(ids, dtype=torch.int64)
    logprobs: list[float] = []
    state = None
    with torch.no_grad():
        # The last token is nobody's context, so it is not fed.
        for start in range(0, len(ids) - 1, chunk):
            fed = tokens[start : min(start + chunk, len(ids) - 1)]
            logits, state = network(fed[None], state, into=state)
            following = tokens[start + 1 : start + 1 + len(fed), None].to(logits.device)
            chosen = torch.log_softmax(logits[0].float(), -1).gather(1, following)
            logprobs += chosen[:, 0].tolist()
            if progress is not None:
                progress(len(logprobs), len(ids) - 1, "scoring")
    return logprobs


def score(
    name: str,
    *,
    precision: str | None,
    text: bytes | None = None,
    ids: Sequence[int] | None = None,
    source: str = "",
    progress: ProgressLine,
) -> tuple[Score, str, str]:
    """A text, after the model's token for its beginning, or token ids as they are; also the model's name and precision.

    `source` is what messages call the text. Raises ConfigError.
    """
    opened = open_source(name, progress)
    tokenizer = opened.tokenizer() if text is not None else _tokenizer_if_any(opened)
    chosen = precision if precision is not None else automatic_precision(opened.config)
    if text is not None:
        assert tokenizer is not None
        ids = [tokenizer.control.bos, *tokenizer.encode(decoded(text, source))]
    ids = list(ids or ())
    check_ids(ids, opened.config.vocab_size)
    network = build_network(opened, chosen, progress=progress)
    started = time.monotonic()
    logprobs = score_ids(network, ids, progress=progress.count)
    seconds = time.monotonic() - started
    if tokenizer is not None and max(ids) >= tokenizer.vocab_size:  # a model may have ids that its tokenizer lacks
        tokenizer = None
    n_bytes = sum(len(tokenizer.pieces[token]) for token in ids[1:]) if tokenizer is not None else None
    return Score(ids, logprobs, n_bytes, seconds), opened.name, chosen


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises ConfigError."""
    if not ids:
        raise ConfigError("--ids: no ids, expected at least one")
    for position, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise ConfigError(
                f"token id {token} at position {position}: expected 0 to {vocab_size - 1}, the vocabulary"
            )


def read_bytes(path: str, stdin: BinaryIO) -> bytes:
    """A file, or standard input for "-". Raises ConfigError."""
    if path == "-":
        return stdin.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}), expected a text file or -") from None


def decoded(text: bytes, source: str) -> str:
    """Line ends stay as they are. Raises ConfigError."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = text[error.start]
        raise ConfigError(
            f"{source}: not UTF-8 (byte 0x{byte:02x} at offset {error.start}), expected UTF-8 text"
        ) from None


def parse_ids(text: str) -> list[int]:
    """`1,2,3`, also with white space. Raises ConfigError."""
    words = text.replace(",", " ").split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 10):
            raise ConfigError(f"--ids: {word!r} is no token id, expected whole numbers such as 1,2,3")
    if not words:
        raise ConfigError("--ids: no ids, expected whole numbers such as 1,2,3")
    return [int(word) for word in words]


def as_object(scored: Score, *, model: str, precision: str) -> dict:
    """For --json."""
    return {
        "model": model,
        "precision": precision,
        "n_tokens": len(scored.ids),
        "ids": scored.ids,
        "logprobs": scored.logprobs,
        "total_logprob": scored.total,
        "perplexity": scored.perplexity,
        "n_bytes": scored.n_bytes,
        "bits_per_byte": scored.bits_per_byte,
        "seconds": round(scored.seconds, 3),
    }


def as_lines(scored: Score, *, model: str, precision: str) -> list[str]:
    """For people."""
    n_scored = len(scored.logprobs)
    lines = [
        f"model            {model}, {precision}",
        f"tokens           {len(scored.ids)}, of which {n_scored} are scored: all but the first",
        f"log-probability  {scored.total:.4f} in all (natural logarithm)",
    ]
    if scored.perplexity is not None:
        mean = scored.total / n_scored
        lines.append(f"a token          {mean:.4f} on average, perplexity {scored.perplexity:.4f}")
    if scored.bits_per_byte is not None:
        lines.append(
            f"bits per byte    {scored.bits_per_byte:.4f} over the {scored.n_bytes} bytes of the scored tokens"
        )
    lines.append(f"time             {scored.seconds:.2f} s, {n_scored / max(scored.seconds, 1e-9):.0f} tokens/s")
    return lines


def _tokenizer_if_any(source: Source) -> Tokenizer | None:
    """Ids can be scored without one; then nobody knows how many bytes they are."""
    try:
        return source.tokenizer()
    except ConfigError:
        return None


def _exp(value: float) -> float | None:
    """None beyond what a float holds, which JSON could not hold either."""
    return math.exp(value) if value < 700 else None
