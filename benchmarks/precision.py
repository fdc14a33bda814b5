"""What quantising costs in exactness: each precision against bf16 (and fp32, where that fits) on text that the model was not trained on.

    python benchmarks/precision.py [--model bundled] [--text FILE ...] [--tokens 24000] [--precisions fp32,bf16,int8,int4]

For every token of the text: the Kullback-Leibler divergence of the precision's prediction from the reference's, KL(reference || precision) in nats, and
whether both name the same most likely token. Without --text the packages that the corpus holds out are read (python -m training.corpus --out build/corpus),
the same number of tokens of each. One network is in memory at a time; the references' predictions lie in a scratch file. Prints a table, then one JSON line.
"""

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import BUILD
from benchmarks.stats import print_json, table
from model.checkpoint import load_model
from model.config import ConfigError, Mamba2Config
from model.fim import document_ids
from model.machine import total_bytes
from model.network import Network
from model.precision import PRECISIONS, check_precision, weight_bytes
from model.source import open_source
from model.tokenizer import Tokenizer

CORPUS = BUILD / "corpus" / "test.jsonl"
CHUNK = 256


class Distance(NamedTuple):
    """From one reference, over all tokens. Nats; shares from 0 to 1."""

    kl: float
    kl_worst: float  # of the hundredth part of the tokens that are worst
    top_1: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument(
        "--text", type=Path, nargs="+", help="files; unless told, the packages that the corpus holds out"
    )
    parser.add_argument("--tokens", type=int, default=24_000, help="of all texts together")
    parser.add_argument("--precisions", type=lambda text: text.split(","), help="unless told, all that fit into memory")
    parser.add_argument("--references", default="bf16,fp32", help="those that are among the precisions count")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--backend", choices=["auto", "native", "torch"], default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    try:
        source = open_source(args.model)
        wanted = [check_precision(name) for name in args.precisions or fitting(source.config)]
        references = [name for name in args.references.split(",") if name in wanted]
        streams = read_streams(args.text, source.tokenizer(), n_tokens=args.tokens)
        figures = measure(args.model, streams, wanted, references=references, backend=args.backend)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    n_tokens = sum(len(ids) - 1 for ids in streams)
    print(distance_table(args.model, n_tokens, figures, references))
    print_json({"model": args.model, "tokens": n_tokens, "precision": figures})
    return 0


def fitting(config: Mamba2Config) -> list[str]:
    """The precisions whose weights this machine's memory holds, with some to spare."""
    return [name for name in PRECISIONS if weight_bytes(config, name) < 0.8 * total_bytes()]


def read_streams(files: Sequence[Path] | None, tokenizer: Tokenizer, *, n_tokens: int) -> list[list[int]]:
    """Streams of token ids, each from its own beginning, as the daemon would feed a repository: one of all files, or one for each held-out package."""
    if files:
        texts = [[(str(path), path.read_text(encoding="utf-8")) for path in files]]
    elif CORPUS.exists():
        texts = [json.loads(line)["files"] for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    else:
        raise ConfigError(f"{CORPUS}: no such file, expected held-out text; name some with --text, or make the corpus")
    streams = []
    for documents in texts:
        ids = [tokenizer.control.bos]
        for path, text in documents:
            ids += document_ids(tokenizer, path, text)
            if len(ids) > n_tokens // len(texts):
                break
        streams.append(ids[: n_tokens // len(texts) + 1])
    return streams


def measure(
    model: str, streams: list[list[int]], precisions: Sequence[str], *, references: Sequence[str], backend: str
) -> dict[str, dict]:
    """For each precision its nats a token, the bytes of its weights and its Distance from each reference but itself."""
    n_tokens = sum(len(ids) - 1 for ids in streams)
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(dir=BUILD if BUILD.exists() else None) as folder:
        kept: dict[str, np.memmap] = {}
        for precision in [*references, *(name for name in precisions if name not in references)]:
            network = load_model(model, precision=precision, backend=backend).network
            figures[precision] = {"weight_bytes": network.weight_bytes}
            chunks = predictions(network, streams)
            if precision in references:
                shape = (n_tokens, network.config.vocab_size)
                kept[precision] = np.memmap(Path(folder) / precision, dtype=np.float32, mode="w+", shape=shape)
                fill(kept[precision], chunks)
            else:
                figures[precision] |= compare(chunks, streams, kept)
        for precision in references:
            others = {name: log_p for name, log_p in kept.items() if name != precision}
            figures[precision] |= compare(replayed(kept[precision], streams), streams, others)
    return {precision: figures[precision] for precision in precisions}


def predictions(network: Network, streams: list[list[int]]) -> Iterator[Tensor]:
    """log p (T, vocab) of chunk after chunk, the state passed on within a stream."""
    for ids in streams:
        state = None
        for start in range(0, len(ids) - 1, CHUNK):
            chunk = torch.tensor([ids[start : min(start + CHUNK, len(ids) - 1)]])
            logits, state = network(chunk, state)
            yield F.log_softmax(logits[0], dim=-1)


def fill(kept: np.memmap, chunks: Iterator[Tensor]) -> None:
    row = 0
    for log_p in chunks:
        kept[row : row + len(log_p)] = log_p.numpy()
        row += len(log_p)


def replayed(kept: np.memmap, streams: list[list[int]]) -> Iterator[Tensor]:
    """What was kept, in the chunks in which it came."""
    row = 0
    for ids in streams:
        for start in range(0, len(ids) - 1, CHUNK):
            n_rows = min(CHUNK, len(ids) - 1 - start)
            yield torch.from_numpy(np.array(kept[row : row + n_rows]))
            row += n_rows


def compare(chunks: Iterator[Tensor], streams: list[list[int]], references: dict[str, np.memmap]) -> dict:
    """{"nats": mean of -log p of the text, "from": {reference: Distance}}."""
    targets = torch.tensor([id_ for ids in streams for id_ in ids[1:]])
    nats, row = 0.0, 0
    kls: dict[str, list[Tensor]] = {name: [] for name in references}
    same = dict.fromkeys(references, 0)
    for log_q in chunks:
        rows = slice(row, row + len(log_q))
        nats += F.nll_loss(log_q, targets[rows], reduction="sum").item()
        for name, reference in references.items():
            log_p = torch.from_numpy(np.array(reference[rows]))
            kls[name].append((log_p.exp() * (log_p - log_q)).sum(-1))
            same[name] += int((log_p.argmax(-1) == log_q.argmax(-1)).sum())
        row = rows.stop
    assert row == len(targets)
    return {
        "nats": nats / row,
        "from": {name: distance(torch.cat(kls[name]), same[name])._asdict() for name in references},
    }


def distance(kl: Tensor, n_same: int) -> Distance:
    """`kl` of each prediction; `n_same` of them have the reference's most likely token."""
    worst = kl.topk(max(1, math.ceil(len(kl) / 100))).values
    return Distance(kl=kl.mean().item(), kl_worst=worst.mean().item(), top_1=n_same / len(kl))


def distance_table(model: str, n_tokens: int, figures: dict[str, dict], references: Sequence[str]) -> str:
    head = [f"{model}, {n_tokens} tokens", "weights MB", "nats a token"]
    for reference in references:
        head += [f"KL to {reference}", "worst 1 %", "same top 1"]
    rows = []
    for precision, row in figures.items():
        cells: list[object] = [precision, f"{row['weight_bytes'] / 1e6:.0f}", f"{row['nats']:.4f}"]
        for reference in references:
            found = row["from"].get(reference)
            cells += (
                ["-"] * 3
                if found is None
                else [f"{found['kl']:.5f}", f"{found['kl_worst']:.4f}", f"{100 * found['top_1']:.2f} %"]
            )
        rows.append(cells)
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
