"""The whole of Codestral Mamba on this machine: random weights of its 7.3 billion parameters in Mistral's format, loaded in each precision.

    python benchmarks/full_size.py [--precisions bf16,int8,int4] [--threads N] [--quick] [--keep]

Each load is a process of its own, so that its peak of memory is its own. int8 and int4 are loaded twice: the first quantises and keeps the file, the second
finds it. The weights lie in build/bench/c64 (14.6 GB, deleted at the end unless they were there before or --keep), the kept files beside them (12 GB).
Prints a table, then one JSON line.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.peers import BUILD, PeerError
from benchmarks.stats import print_json, table
from model.config import ConfigError

FEEDS = (1, 8, 32, 512, 4096)
CHUNK = 512  # longer feeds go in pieces, as the daemon's do
BENCH = BUILD / "bench"
CACHE = BENCH / "full-size-cache"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", default="bf16,int8,int4")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", default="c64", help="another shape, to try this program")
    parser.add_argument("--quick", action="store_true", help="no feed of more than 32 tokens, 2 repetitions")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print_json(measure(*args.worker, threads=args.threads, quick=args.quick))
        return 0
    chosen = args.precisions.split(",")
    try:
        figures = run(chosen, shape=args.shape, threads=args.threads, quick=args.quick, keep=args.keep)
    except (PeerError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(full_table(figures))
    print_json({"full_size": figures})
    return 0


def run(precisions: list[str], *, shape: str, threads: int, quick: bool, keep: bool) -> dict[str, dict]:
    """The figures of each precision. What was made for it is deleted whatever happens."""
    from benchmarks.bench_models import bench_model  # not needed by the workers

    BENCH.mkdir(parents=True, exist_ok=True)
    was_there = (BENCH / shape).exists()
    needed, free = (12e9 if was_there else 27e9), shutil.disk_usage(BENCH).free
    if free < needed:
        raise PeerError(f"{BENCH}: {free / 1e9:.0f} GB free, expected {needed / 1e9:.0f} GB for the full size")
    shutil.rmtree(CACHE, ignore_errors=True)
    try:
        started = time.monotonic()
        model = bench_model(shape).name
        if not was_there:
            print(f"wrote random weights of {shape} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return {precision: both_loads(model, precision, threads=threads, quick=quick) for precision in precisions}
    finally:
        shutil.rmtree(CACHE, ignore_errors=True)
        if not was_there and not keep:
            shutil.rmtree(BENCH / shape, ignore_errors=True)


def both_loads(model: str, precision: str, *, threads: int, quick: bool) -> dict:
    """The figures of the second load, with what the first cost."""
    first = worker(model, precision, threads=threads, quick=True)
    second = worker(model, precision, threads=threads, quick=quick)
    print(f"{precision}: {json.dumps(second)}", file=sys.stderr, flush=True)
    return second | {"first_load_s": first["load_s"], "first_peak_gb": first["load_peak_gb"]}


def worker(model: str, precision: str, *, threads: int, quick: bool) -> dict:
    command = [
        sys.executable,
        __file__,
        "--worker",
        model,
        precision,
        "--threads",
        str(threads),
        *(["--quick"] if quick else []),
    ]
    environment = os.environ | {"CODESTRAL_LSP_CACHE": str(CACHE), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: str, precision: str, *, threads: int, quick: bool) -> dict:
    """In this process: loads the model, then times it. Memory is in GB of 10^9 bytes."""
    from benchmarks.our_speed import decode, read_s
    from model.checkpoint import load_model

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    started = time.monotonic()
    network = load_model(model, precision=precision).network
    load_s, load_peak, resident = time.monotonic() - started, peak_bytes(), peak_bytes("VmRSS")
    repetitions = 1 if quick else 3
    decode_s = min(decode(network, 8) for _ in range(repetitions))
    feeds = {
        n: min(read_s(network, n, chunk=CHUNK) for _ in range(1 if n > 512 else repetitions)) / n
        for n in FEEDS
        if n <= 32 or not quick
    }
    return {
        "load_s": load_s,
        "load_peak_gb": load_peak / 1e9,
        "resident_gb": resident / 1e9,
        "peak_gb": peak_bytes() / 1e9,
        "weights_gb": network.weight_bytes / 1e9,
        "decode_tokens_s": 1 / decode_s,
        "feed_tokens_s": {str(n): 1 / took for n, took in feeds.items()},
    }


def peak_bytes(line: str = "VmHWM") -> int:
    """Most memory that this process ever held in RAM, mapped files included, as the kernel says it, or what getrusage says where there is no /proc.

    "VmRSS" is what it holds now.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = next(words for words in map(str.split, status.read_text().splitlines()) if words[0] == f"{line}:")
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, as macOS counts


def full_table(figures: dict[str, dict]) -> str:
    feeds = sorted({int(n) for row in figures.values() for n in row["feed_tokens_s"]})
    head = [
        "precision",
        "weights GB",
        "first load s",
        "load s",
        "loaded GB",
        "peak GB, first",
        "peak GB",
        "decode tokens/s",
    ]
    rows = [
        [
            precision,
            f"{row['weights_gb']:.2f}",
            f"{row['first_load_s']:.0f}",
            f"{row['load_s']:.1f}",
            f"{row['resident_gb']:.2f}",
            f"{row['first_peak_gb']:.2f}",
            f"{row['peak_gb']:.2f}",
            f"{row['decode_tokens_s']:.2f}",
            *(f"{row['feed_tokens_s'][str(n)]:.1f}" if str(n) in row["feed_tokens_s"] else "-" for n in feeds),
        ]
        for precision, row in figures.items()
    ]
    return table([*head, *(f"feed {n} tokens/s" for n in feeds)], rows)


if __name__ == "__main__":
    sys.exit(main())
