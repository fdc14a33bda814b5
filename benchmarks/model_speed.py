"""How fast the model feeds and decodes on this CPU: ours against llama.cpp and transformers on the same weights, in one interleaved run.

    python benchmarks/model_speed.py [--shapes bundled,s,c8] [--precisions int4,int8,bf16] [--rounds 5] [--quick]

llama.cpp (`make peers`) runs as its own llama-bench at the best threads and settings found for each kind of work, we with --threads. Each round runs both,
in turning order; ratios are taken within a round (theirs / ours, so above 1 we are faster) and given as median [lowest..highest]. Every peer's loading is
outside of what is timed. Also measured: how near we are to the machine's own bandwidth and matrix product, what checking a draft costs, what Python costs,
and how long 256k tokens take. Prints tables, then one JSON line. --full-size adds the 7.3 billion parameters in each precision (benchmarks/full_size.py).
"""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import full_size, our_speed
from benchmarks.bench_models import FOLDER, SHAPES, BenchModel, bench_model
from benchmarks.peers import GGUF_KINDS, PeerError, Work, best_settings, llama_bench, load_transformers
from benchmarks.stats import Rounds, interleave, machine, nested, print_json, table
from model.checkpoint import load_model
from model.config import ConfigError
from model.machine import total_bytes
from model.network import Network
from model.precision import weight_bytes
from model.source import open_source

WORKS = (Work("decode", 32, 1), Work("feed", 8, 3), Work("feed", 16, 3), Work("feed", 32, 3), Work("feed", 512, 1))
SAMPLE_S = 0.3  # about how long the repetitions of one round take together
TRANSFORMERS_SHAPES = ("bundled", "s", "c8")
TRANSFORMERS_FEED = 2048
READ_TOKENS = 262_144


@dataclass(frozen=True, slots=True)
class Options:
    rounds: int
    spare_rounds: int
    patience_s: float
    threads: int
    backend: str
    quick: bool
    pure: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, by (shape, precision, work) or (shape, precision); the JSON line is made of it."""

    ours_ms: dict[tuple[str, ...], float] = field(default_factory=dict)
    theirs_ms: dict[tuple[str, ...], float] = field(default_factory=dict)
    feed: dict[tuple[str, ...], float] = field(default_factory=dict)
    decode: dict[tuple[str, ...], float] = field(default_factory=dict)
    ranges: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)
    shares: dict[tuple[str, ...], our_speed.Shares] = field(default_factory=dict)
    transformers: dict[tuple[str, ...], float] = field(default_factory=dict)
    settings: dict[tuple[str, ...], str] = field(default_factory=dict)
    noisy_rounds: dict[tuple[str, ...], int] = field(default_factory=dict)


def main() -> int:
    args = parsed_arguments()
    options = Options(
        rounds=args.rounds or (2 if args.quick else 7),
        spare_rounds=0 if args.quick else 5,
        patience_s=0 if args.quick else 20,
        threads=args.threads,
        backend=args.backend,
        quick=args.quick,
        pure=args.pure,
    )
    os.environ["CODESTRAL_LSP_CACHE"] = str(FOLDER / "cache")  # not the user's own
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    figures = Figures()
    try:
        for shape in args.shapes:
            measure_shape(bench_model(shape), args.precisions, figures, options)
        read_256k_s = None if args.quick or "bundled" not in args.shapes else read_repository(options)
    except (PeerError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(share_table(figures))
    result = as_json(figures, options) | {"read_256k_s": read_256k_s}
    if args.full_size:
        full = full_size.run(args.precisions, shape="c64", threads=options.threads, quick=args.quick, keep=args.keep)
        print("\n" + full_size.full_table(full))
        result["full_size"] = full
    print_json(result)
    return 0


def parsed_arguments() -> argparse.Namespace:
    def names(known: Sequence[str]):
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if wrong := [name for name in chosen if name not in known]:
                raise argparse.ArgumentTypeError(f"{wrong[0]!r}, expected some of {', '.join(known)}")
            return chosen

        return parse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = "; ".join(f"{name}: {what}" for name, what in SHAPES.items())
    parser.add_argument("--shapes", type=names(list(SHAPES)), default=["bundled", "s", "c8"], help=shapes)
    parser.add_argument("--precisions", type=names(list(GGUF_KINDS)), default=list(GGUF_KINDS))
    parser.add_argument("--rounds", type=int, help="7 unless told; at least 5 for figures to be published")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="ours; llama.cpp gets 1 to this many")
    parser.add_argument("--backend", choices=["auto", "native", "torch"], default="auto")
    parser.add_argument("--pure", action="store_true", help="llama.cpp's output head in Q4_0 too (its default: Q6_K)")
    parser.add_argument("--quick", action="store_true", help="2 rounds, no waiting for quiet, no 256k tokens")
    parser.add_argument(
        "--full-size", action="store_true", help="also load and time 7.3 billion parameters (27 GB of disk)"
    )
    parser.add_argument("--keep", action="store_true", help="keep what --full-size made")
    return parser.parse_args()


def measure_shape(model: BenchModel, precisions: Sequence[str], figures: Figures, options: Options) -> None:
    config = open_source(model.name).config
    for precision in precisions:
        if 2.2 * weight_bytes(config, precision) > total_bytes():
            print(f"{model.shape} {precision}: left out, two of it do not fit into this machine's memory")
            continue
        network = load_model(model.name, precision=precision, backend=options.backend).network
        against_llama(model, precision, network, figures, options)
        figures.shares[model.shape, precision] = our_speed.shares(
            network,
            precision,
            rounds=options.rounds,
            spare_rounds=options.spare_rounds,
            patience_s=options.patience_s,
        )
        if precision == "bf16" and model.shape in TRANSFORMERS_SHAPES:
            against_transformers(model, network, figures, options)
        del network
        gc.collect()
    print(speed_table(figures, model.shape, precisions) + "\n", flush=True)


def against_llama(model: BenchModel, precision: str, network: Network, figures: Figures, options: Options) -> None:
    gguf = model.gguf(precision, pure=options.pure)
    for kind in WORKS:
        threads, tries = range(1, options.threads + 1), 1 if options.quick else 3
        settings, s_per_token = best_settings(gguf, kind, threads=threads, tries=tries)
        work = kind.lasting(SAMPLE_S, s_per_token=s_per_token)
        found = interleave(
            {
                "ours": lambda work=work: our_speed.seconds_per_token(network, work),
                "theirs": lambda work=work, settings=settings: llama_bench(gguf, work, settings).s_per_token,
            },
            rounds=options.rounds,
            spare_rounds=options.spare_rounds,
            patience_s=options.patience_s,
        )
        keep(figures, (model.shape, precision, work.name), found)
        figures.settings[model.shape, precision, work.name] = " ".join(settings.flags)
        told = f"{model.shape} {precision} {work.name}: ratio {found.ratio('theirs', 'ours')}, llama.cpp {' '.join(settings.flags)}"
        print(told, file=sys.stderr, flush=True)


def keep(figures: Figures, key: tuple[str, str, str], found: Rounds) -> None:
    shape, precision, work = key
    ratio = found.ratio("theirs", "ours")
    figures.ours_ms[key] = 1e3 * found.spread("ours").median
    figures.theirs_ms[key] = 1e3 * found.spread("theirs").median
    figures.ranges[key] = (ratio.low, ratio.high)
    figures.noisy_rounds[key] = found.noisy
    if work == "decode":
        figures.decode[shape, precision] = ratio.median
    else:
        figures.feed[shape, precision, work.removeprefix("feed ")] = ratio.median


def against_transformers(model: BenchModel, network: Network, figures: Figures, options: Options) -> None:
    """Feeding 2,048 tokens and decoding, both in bf16; fewer rounds, since a round takes it long."""
    peer = load_transformers(model.folder)
    n_feed = 256 if options.quick else TRANSFORMERS_FEED
    for name, ours, theirs in (
        ("feed", lambda: our_speed.read_s(network, n_feed) / n_feed, lambda: peer.feed(n_feed)),
        ("decode", lambda: our_speed.decode(network, 32), lambda: peer.decode(8)),
    ):
        found = interleave(
            {"ours": ours, "theirs": theirs},
            rounds=min(options.rounds, 5),
            spare_rounds=min(options.spare_rounds, 2),
            patience_s=options.patience_s,
        )
        ratio = found.ratio("theirs", "ours")
        figures.transformers[model.shape, name] = ratio.median
        both = " and ".join(f"{1e3 * found.spread(who).median:.2f}" for who in ("ours", "theirs"))
        what = f"feed {n_feed}" if name == "feed" else name
        print(f"{model.shape} bf16 {what}: {both} ms a token (ours, transformers), ratio {ratio}", flush=True)


def read_repository(options: Options) -> float:
    """Seconds in which the bundled model, as it comes, reads 256k tokens."""
    loaded = load_model("bundled", backend=options.backend)
    took = our_speed.read_s(loaded.network, READ_TOKENS)
    print(f"bundled model ({loaded.precision}): {READ_TOKENS} tokens read in {took:.1f} s\n", flush=True)
    return took


def speed_table(figures: Figures, shape: str, precisions: Sequence[str]) -> str:
    head = [f"{shape}, ms a token"]
    for precision in precisions:
        head += [precision, f"llama.cpp {GGUF_KINDS[precision]}", "ratio"]
    rows = []
    for work in WORKS:
        row: list[object] = [work.name]
        for precision in precisions:
            key = (shape, precision, work.name)
            if key not in figures.ours_ms:
                row += ["-", "-", "-"]
                continue
            median = (
                figures.decode[key[:2]] if work.kind == "decode" else figures.feed[shape, precision, str(work.n_tokens)]
            )
            low, high = figures.ranges[key]
            mark = "*" if figures.noisy_rounds[key] else ""
            row += [
                f"{figures.ours_ms[key]:.3f}",
                f"{figures.theirs_ms[key]:.3f}",
                f"{median:.2f} [{low:.2f}..{high:.2f}]{mark}",
            ]
        rows.append(row)
    note = "\n(* some rounds were disturbed by other processes)" if any(figures.noisy_rounds.values()) else ""
    return table(head, rows) + note


def share_table(figures: Figures) -> str:
    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.0f} %"

    head = [
        "model",
        "of read bandwidth, decoding",
        "GB/s",
        "of matrix ceiling, 512 tokens",
        "GFLOP/s",
        "draft of 8, in steps",
    ]
    rows = []
    for (shape, precision), s in figures.shares.items():
        gb_s = "-" if s.read_gb_s is None else f"{s.read_gb_s:.0f}"
        overhead = "-" if s.overhead_ms is None else f"{s.overhead_ms:.3f}"
        row = [f"{shape} {precision}", percent(s.bandwidth), gb_s, percent(s.matrix), f"{s.ceiling_gflop_s:.0f}"]
        rows.append([*row, f"{s.verify:.2f}", overhead])
    return table([*head, "outside the kernels, ms a step"], rows)


def as_json(figures: Figures, options: Options) -> dict:
    shares = figures.shares
    return {
        "machine": machine() | {"threads": options.threads},
        "rounds": options.rounds,
        "feed_ratio": nested(figures.feed),
        "decode_ratio": nested(figures.decode),
        "ratio_range": nested(figures.ranges),
        "ours_ms": nested(figures.ours_ms),
        "llama_cpp_ms": nested(figures.theirs_ms),
        "llama_cpp_settings": nested(figures.settings),
        "noisy_rounds": sum(figures.noisy_rounds.values()),
        "bandwidth_share": nested({key: s.bandwidth for key, s in shares.items()}),
        "matrix_share": nested({key: s.matrix for key, s in shares.items()}),
        "verify_8": nested({key: s.verify for key, s in shares.items()}),
        "overhead_ms": nested({key: s.overhead_ms for key, s in shares.items()}),
        "hf_ratio": nested(figures.transformers),
    }


if __name__ == "__main__":
    sys.exit(main())
