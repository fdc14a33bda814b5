"""How likely a text is to a model: the log-probability of each token, given all before it.

Knows the network and the tokenizer; does not know the command line. Memory does not grow with the length: tokens go through
in chunks, and of a chunk's logits one number a token is kept.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from model.build import automatic_precision, build_network
from model.config import ConfigError
from model.network import Network
from model.progress import Progress, ProgressLine
from model.score_input import check_ids, require_some
from model.source import Source, open_source
from model.tokenizer import Tokenizer

CHUNK_TOKENS = 512
MAX_EXPONENT = 700  # beyond it a perplexity is too large for a float


@dataclass(frozen=True, slots=True)
class Score:
    """`logprobs[i]` is the natural logarithm of the probability of token i + 1, given tokens 0 to i.

    `pieces[i]` are the bytes of text that token i stands for, b"" for a control token; None where no tokenizer tells.
    """

    ids: list[int]
    logprobs: list[float]
    pieces: list[bytes] | None
    seconds: float

    @property
    def n_bytes(self) -> int | None:
        """Of the scored tokens: all but the first."""
        return sum(map(len, self.pieces[1:])) if self.pieces is not None else None

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


class TokenRow(NamedTuple):
    position: int  # from 1
    id: int
    text: str | None  # in quotes and escaped, "" for a control token; None without a tokenizer
    logprob: float | None  # of the first token there is none


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
    text: str | None = None,
    ids: Sequence[int] | None = None,
    progress: ProgressLine,
) -> tuple[Score, str, str]:
    """A text, after the model's token for its beginning, or token ids as they are; also the model's name and precision.

    Raises ConfigError.
    """
    opened = open_source(name, progress)
    tokenizer = opened.tokenizer() if text is not None else _tokenizer_if_any(opened)
    chosen = precision if precision is not None else automatic_precision(opened.config)
    if text is not None:
        assert tokenizer is not None
        ids = [tokenizer.control.bos, *tokenizer.encode(text)]
    ids = list(ids or ())
    require_some(ids)
    check_ids(ids, opened.config.vocab_size)
    network = build_network(opened, chosen, progress=progress)
    started = time.monotonic()
    logprobs = score_ids(network, ids, progress=progress.count)
    seconds = time.monotonic() - started
    if tokenizer is not None and max(ids) >= tokenizer.vocab_size:  # a model may have ids that its tokenizer lacks
        tokenizer = None
    pieces = [tokenizer.pieces[token] for token in ids] if tokenizer is not None else None
    return Score(ids, logprobs, pieces, seconds), opened.name, chosen


def as_object(scored: Score, *, model: str, precision: str, with_tokens: bool = False) -> dict:
    """For --json. `token_logprobs` goes with `ids`, null first; `logprobs` is the same without that null."""
    found: dict[str, object] = {
        "model": model,
        "precision": precision,
        "n_tokens": len(scored.ids),
        "ids": scored.ids,
        "token_logprobs": [None, *scored.logprobs],
        "logprobs": scored.logprobs,
        "total_logprob": scored.total,
        "perplexity": scored.perplexity,
        "n_bytes": scored.n_bytes,
        "bits_per_byte": scored.bits_per_byte,
        "seconds": round(scored.seconds, 3),
    }
    if with_tokens:
        found["tokens"] = [
            {"position": row.position, "id": row.id, "text": row.text, "logprob": row.logprob} for row in rows(scored)
        ]
    return found


def as_lines(scored: Score, *, model: str, precision: str, is_automatic: bool = False) -> list[str]:
    """For people."""
    n_scored = len(scored.logprobs)
    chosen = " (auto; --precision fp32 measures the weights as they are stored)"
    lines = [
        f"model            {model}, {precision}{chosen if is_automatic and precision != 'fp32' else ''}",
        f"tokens           {len(scored.ids)}, of which {n_scored} {'is' if n_scored == 1 else 'are'} scored: all but the first",
        f"log-probability  {scored.total:.4f} in all (natural logarithm)",
        f"a token          {scored.total / n_scored:.4f} on average, perplexity {_shown(scored.perplexity)}",
    ]
    if scored.bits_per_byte is not None:
        lines.append(
            f"bits per byte    {scored.bits_per_byte:.4f} over the {scored.n_bytes} bytes of the scored tokens"
        )
    lines.append(f"time             {scored.seconds:.2f} s, {n_scored / max(scored.seconds, 1e-9):.0f} tokens/s")
    return lines


def token_lines(scored: Score) -> Iterator[str]:
    """For people: a line for each token, its text last, in quotes and escaped so that it cannot steer a terminal."""
    width = max(8, len(str(len(scored.ids))))
    yield f"{'position':>{width}} {'id':>7} {'log-prob.':>11}  text"
    for row in rows(scored):
        logprob = "-" if row.logprob is None else f"{row.logprob:.4f}"
        yield f"{row.position:>{width}} {row.id:>7} {logprob:>11}  {row.text or '-'}"


def rows(scored: Score) -> Iterator[TokenRow]:
    for i, token in enumerate(scored.ids):
        text = None if scored.pieces is None else _quoted(scored.pieces[i])
        yield TokenRow(i + 1, token, text, scored.logprobs[i - 1] if i else None)


def _quoted(piece: bytes) -> str:
    """As Python writes it: text where the bytes are some, `b'...'` where a character is in several tokens, "" for none."""
    if not piece:
        return ""
    try:
        return repr(piece.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(piece)


def _shown(perplexity: float | None) -> str:
    if perplexity is None:
        return f"above 1e{MAX_EXPONENT / math.log(10):.0f}"
    return f"{perplexity:.4f}" if perplexity < 1e6 else f"{perplexity:.4e}"


def _tokenizer_if_any(source: Source) -> Tokenizer | None:
    """Ids can be scored without one; then nobody knows how many bytes they are."""
    try:
        return source.tokenizer()
    except ConfigError:
        return None


def _exp(value: float) -> float | None:
    """None beyond what a float holds, which JSON could not hold either."""
    return math.exp(value) if value < MAX_EXPONENT else None
