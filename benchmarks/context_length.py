"""What reading 1k to 256k tokens costs in time and in memory: ours, llama.cpp and transformers, with the bundled model's weights.

    python benchmarks/context_length.py [--lengths 1024,4096,16384,65536,262144] [--limit-s 900] [--plot docs/context-length]

Each measurement is a process of its own, so that its peak of memory (all of it, the interpreter and its libraries included) is its own; one that takes more
than the limit or more memory than there is ends its engine's line. Ours reads in chunks as the daemon does; transformers reads in one piece, since it cannot
go on from a state with more than one token. Prints a table, then one JSON line; with --plot also PNG and SVG.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.full_size import peak_bytes
from benchmarks.peers import GGUF_KINDS, LlamaSettings, PeerError, Work, llama_bench, load_transformers
from benchmarks.plot import Line, Panel, draw, short
from benchmarks.stats import machine, print_json, table
from model.machine import total_bytes

LENGTHS = [1 << n for n in (10, 12, 14, 16, 18)]
ENGINES = ("ours", "llama.cpp", "transformers")
MEMORY_SHARE = 0.85  # of the machine's memory that one process may take


class Cost(NamedTuple):
    seconds: float
    peak_bytes: int


class Stopped(Exception):
    """An engine that cannot go on. In few words, for a picture."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=LENGTHS)
    parser.add_argument("--precision", choices=list(GGUF_KINDS), default="bf16", help="of ours and of llama.cpp")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--limit-s", type=float, default=900, help="for one measurement")
    parser.add_argument("--plot", type=Path, help="where to write the pictures, without .png")
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        engine, n_tokens = args.worker[0], int(args.worker[1])
        print_json(work(engine, n_tokens, precision=args.precision, threads=args.threads)._asdict())
        return 0
    costs: dict[str, dict[int, Cost]] = {}
    stopped: dict[str, str] = {}
    for engine in ENGINES:
        costs[engine] = {}
        for n_tokens in args.lengths:
            try:
                costs[engine][n_tokens] = measure(engine, n_tokens, args=args)
            except (Stopped, PeerError) as reason:
                stopped[engine] = str(reason)
                print(f"{engine} stops before {n_tokens} tokens: {reason}", file=sys.stderr, flush=True)
                break
    print(cost_table(costs, args.lengths))
    if args.plot:
        for path in draw(panels(costs, stopped), x_label="tokens read", ticks=args.lengths, out=args.plot):
            print(f"wrote {path}")
    print_json(as_json(costs, stopped) | {"machine": machine() | {"threads": args.threads}})
    return 0


def measure(engine: str, n_tokens: int, *, args: argparse.Namespace) -> Cost:
    """In a process of its own. Raises Stopped or PeerError."""
    if engine == "llama.cpp":
        from benchmarks.bench_models import bench_model  # the export it needs is nothing to the workers

        gguf = bench_model("bundled").gguf(args.precision)
        settings = LlamaSettings(threads=args.threads)
        run = llama_bench(
            gguf, Work("feed", n_tokens, 1), settings, warm_up=False, timeout_s=args.limit_s, watch_memory=True
        )
        return Cost(run.s_per_token * n_tokens, run.peak_bytes)
    command = [sys.executable, __file__, "--worker", engine, str(n_tokens)]
    command += ["--precision", args.precision, "--threads", str(args.threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise Stopped(f"over {args.limit_s:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        out_of_memory = "alloc" in last or "MemoryError" in last or done.returncode < 0
        raise Stopped("out of memory" if out_of_memory else last)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def work(engine: str, n_tokens: int, *, precision: str, threads: int) -> Cost:
    """Reads `n_tokens` in this process, which was started for nothing else. Loading is not timed, a first small chunk warms up."""
    limit = int(MEMORY_SHARE * total_bytes())
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    if engine == "ours":
        from benchmarks.our_speed import read_s
        from model.checkpoint import load_model

        network = load_model("bundled", precision=precision).network
        read_s(network, 64)
        return Cost(read_s(network, n_tokens), peak_bytes())
    from model.source import BUNDLED

    peer = load_transformers(BUNDLED)
    peer.feed(64)
    return Cost(peer.feed(n_tokens) * n_tokens, peak_bytes())


def cost_table(costs: dict[str, dict[int, Cost]], lengths: Sequence[int]) -> str:
    head = ["tokens read"]
    for engine in costs:
        head += [f"{engine}, s", "tokens/s", "peak MB"]
    rows = []
    for n_tokens in lengths:
        row: list[object] = [short(n_tokens)]
        for found in costs.values():
            cost = found.get(n_tokens)
            if cost is None:
                row += ["-", "-", "-"]
            else:
                row += [f"{cost.seconds:.2f}", f"{n_tokens / cost.seconds:.0f}", f"{cost.peak_bytes / 1e6:.0f}"]
        rows.append(row)
    return table(head, rows)


def panels(costs: dict[str, dict[int, Cost]], stopped: dict[str, str]) -> list[Panel]:
    def lines(value) -> list[Line]:
        return [
            Line(engine, list(found), [value(cost) for cost in found.values()], stopped.get(engine, ""))
            for engine, found in costs.items()
        ]

    return [
        Panel("Time to read", "seconds", lines(lambda cost: cost.seconds)),
        Panel("Peak memory of the process", "MB", lines(lambda cost: cost.peak_bytes / 1e6)),
    ]


def as_json(costs: dict[str, dict[int, Cost]], stopped: dict[str, str]) -> dict:
    return {
        "context_length": {
            engine: {str(n): {"s": cost.seconds, "peak_mb": cost.peak_bytes / 1e6} for n, cost in found.items()}
            for engine, found in costs.items()
        },
        "stopped": stopped,
    }


if __name__ == "__main__":
    sys.exit(main())
