"""What one GPU makes of Codestral's shape, against its own measured copy bandwidth and matrix peak; random weights made on the card. A few minutes.

    python -m benchmarks.gpu_speed [--out docs/gpu_speed] [--layers 64] [--tokens 262144]

Prints a table and, last, one JSON line. Ours: decode as a share of the bandwidth floor (weights and state once, at the speed of a copy), a chunk as a
multiple of a step, reading as a share of the matrix peak, and speed and memory against what was read before, with a picture where matplotlib is.
Then where the time goes, by kernel, and other tiles for the scan. `--smoke` runs a tiny model instead, on any machine, to see that the program works.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.plot import Line, Panel, draw
from model.config import Mamba2Config
from model.state import Mamba2State, zero_state

CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32768, n_groups=8)
TINY = Mamba2Config(d_model=32, n_layers=1, vocab_size=64, d_state=16, head_dim=16, n_heads=2)
CHUNKS = (2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Run:
    """What to measure, how often, and on what."""

    config: Mamba2Config
    device: str
    dtype: torch.dtype
    n_tokens: int  # read in all
    first: int  # tokens at the first point of the curve
    steps: int  # of one timing
    copy_bytes: int
    matrix: int  # side of the product that the peak is measured with
    sums: dict[str, Any] = field(default_factory=dict)

    @property
    def few(self) -> int:
        return max(1, self.steps // 5)

    def seconds(self, work: Callable[[], object], *, steps: int) -> float:
        """Median seconds of one call, over five timings of `steps` calls each."""
        work()
        times = []
        for _ in range(5 if self.device == "cuda" else 1):
            self.wait()
            start = time.perf_counter()
            for _ in range(steps):
                work()
            self.wait()
            times.append((time.perf_counter() - start) / steps)
        return statistics.median(times)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    args = arguments()
    if args.smoke and not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    if not args.smoke and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here, expected one (--smoke runs a tiny model anywhere)")
    from model.cuda import PROJECTIONS, CudaNetwork, random_tensors

    run = planned(args)
    ceilings(run)
    begun = time.perf_counter()
    generator = torch.Generator(run.device).manual_seed(0)
    tensors = dict(random_tensors(run.config, generator, dtype=run.dtype))
    networks = {
        kind: CudaNetwork(run.config, tensors, run.device, dtype=run.dtype, projections=kind) for kind in PROJECTIONS
    }
    del tensors
    run.wait()
    network = networks[PROJECTIONS[0]]
    run.sums.update({"make_s": time.perf_counter() - begun, "numerics": network.numerics})
    run.sums["weight_gb"] = network.weight_bytes / 1e9
    with torch.no_grad():
        run.sums["few"] = {kind: few_tokens(run, networks[kind], warm=not args.smoke) for kind in networks}
        curve = reading(run, network)
        state = zero_state(run.config, device=run.device)
        if run.device == "cuda":
            one, block = random_ids(run, 1), random_ids(run, 4096)
            run.sums["kernels_us"] = {
                f"step, {kind}": by_kernel(lambda kind=kind: networks[kind](one, state, into=state))
                for kind in networks
            }
            run.sums["kernels_us"]["block"] = by_kernel(lambda: network(block, state, last_only=True, into=state))
        run.sums["scan_us"] = scans(run, network, state)
    print(table(run))
    if args.out is not None and importlib.util.find_spec("matplotlib") is not None:
        picture(curve, args.out)
    print(json.dumps(rounded(run.sums | {"curve": curve})))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None, help="the picture, without its suffix")
    parser.add_argument("--layers", type=int, default=CODESTRAL.n_layers)
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


def planned(args: argparse.Namespace) -> Run:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.smoke:
        return Run(TINY, device, torch.float32, 12, first=3, steps=1, copy_bytes=1 << 20, matrix=64)
    config = replace(CODESTRAL, n_layers=args.layers)
    return Run(config, device, torch.bfloat16, args.tokens, first=4096, steps=50, copy_bytes=4 << 30, matrix=8192)


def ceilings(run: Run) -> None:
    """This card's own: bytes a second of a large copy (read and written), operations a second of a large product."""
    source = torch.zeros(run.copy_bytes, dtype=torch.uint8, device=run.device)
    target = torch.empty_like(source)
    run.sums["copy_tb_s"] = 2 * run.copy_bytes / run.seconds(lambda: target.copy_(source), steps=10) / 1e12
    side = run.matrix
    a, b = (torch.randn(side, side, device=run.device, dtype=run.dtype) for _ in range(2))
    out = torch.empty_like(a)
    run.sums["peak_tflop_s"] = 2 * side**3 / run.seconds(lambda: torch.mm(a, b, out=out), steps=10) / 1e12
    run.sums["card"] = torch.cuda.get_device_name() if run.device == "cuda" else "cpu"


def random_ids(run: Run, n_tokens: int) -> Tensor:
    return torch.randint(run.config.vocab_size, (1, n_tokens), device=run.device)


def few_tokens(run: Run, network: Any, *, warm: bool) -> dict[str, Any]:
    """One token after another, in place: on the card alone, and as a caller on the CPU sees it, who picks each token. Then chunks, in steps."""
    begun = time.perf_counter()
    if warm:
        network.warm_up()
    run.wait()
    warm_up_s = time.perf_counter() - begun
    state = zero_state(run.config, device=run.device)

    def steps(token: Tensor) -> Callable[[], None]:
        def work() -> None:
            nonlocal token
            logits, _ = network(token, state, into=state)
            token = logits[:, -1].argmax(-1, keepdim=True)

        return work

    floor = (run.sums["weight_gb"] + 2 * run.config.state_bytes / 1e9) / 1e3 / run.sums["copy_tb_s"]
    step = run.seconds(steps(random_ids(run, 1)), steps=run.steps)
    from_cpu = run.seconds(steps(torch.zeros(1, 1, dtype=torch.int64)), steps=run.steps)
    chunks = {}
    for size in CHUNKS if run.device == "cuda" else CHUNKS[:2]:
        ids = random_ids(run, size)
        took = run.seconds(lambda ids=ids: network(ids, state, last_only=True, into=state), steps=run.few)
        chunks[str(size)] = 1e3 * took
    return {
        "warm_up_s": warm_up_s,
        "graphs": len(network._graphs),
        "floor_ms": 1e3 * floor,
        "step_ms": 1e3 * step,
        "bandwidth_share": floor / step,
        "step_from_cpu_ms": 1e3 * from_cpu,
        "chunk_ms": chunks,
        "chunk_steps": {size: ms / 1e3 / step for size, ms in chunks.items()},
    }


def reading(run: Run, network: Callable) -> list[dict]:
    """All tokens in one call; then again, doubling from `first`, with steps in between: what a token costs, fed and stepped, and the memory."""
    network(
        random_ids(run, min(4096, run.n_tokens)), last_only=True
    )  # the first call of a size chooses cuBLAS's kernels
    ids = random_ids(run, run.n_tokens)
    run.wait()
    start = time.perf_counter()
    network(ids, last_only=True)
    run.wait()
    seconds = time.perf_counter() - start
    run.sums.update({"tokens": run.n_tokens, "read_s": seconds, "read_tokens_s": run.n_tokens / seconds})
    run.sums["matrix_share"] = 2 * projections(run.config) * run.n_tokens / seconds / 1e12 / run.sums["peak_tflop_s"]
    state, curve, read, until = zero_state(run.config, device=run.device), [], 0, run.first
    while until <= run.n_tokens:
        run.wait()
        start = time.perf_counter()
        network(ids[:, read:until], state, last_only=True, into=state)
        run.wait()
        fed = (time.perf_counter() - start) / (until - read)
        step = run.seconds(lambda: network(ids[:, :1], state, into=state), steps=run.few)
        memory = torch.cuda.memory_allocated() / 1e9 if run.device == "cuda" else 0.0
        curve.append({"tokens": until, "feed_ms": 1e3 * fed, "step_ms": 1e3 * step, "memory_gb": memory})
        read, until = until, 2 * until
    run.sums["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9 if run.device == "cuda" else 0.0
    run.sums["step_late_over_early"] = curve[-1]["step_ms"] / curve[0]["step_ms"]
    run.sums["feed_late_over_early"] = curve[-1]["feed_ms"] / curve[0]["feed_ms"]
    return curve


def picture(curve: list[dict], out: Path) -> None:
    at = [point["tokens"] for point in curve]
    lines = [
        Line("a step", at, [point["step_ms"] for point in curve]),
        Line("a token fed", at, [point["feed_ms"] for point in curve]),
    ]
    draw([Panel("One GPU, 7B in bf16", "ms", lines)], x_label="tokens read before", ticks=at, out=out)


def projections(config: Mamba2Config) -> int:
    """Weights that each token is multiplied with while it is read: all projections, and not the head."""
    return config.n_layers * config.d_model * (config.in_proj_dim + config.d_inner)


def by_kernel(work: Callable[[], object], *, most: int = 12) -> dict[str, float]:
    """Microseconds of a call by kernel, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    events = sorted(found.key_averages(), key=lambda event: -event.device_time_total)
    return {f"{event.count} x {event.key[:60]}": event.device_time_total for event in events[:most]}


def scans(run: Run, network: Any, state: Mamba2State) -> dict[str, float]:
    """Microseconds of one layer's scan over a block, by tiles: which should be the default on this card."""
    from model.kernels_cuda import ScanTiles, scan

    c, n_tokens = run.config, 4096 if run.device == "cuda" else 8
    proj = torch.randn(1, n_tokens, c.in_proj_dim, device=run.device, dtype=run.dtype)
    xbc = torch.randn(1, n_tokens, c.conv_dim, device=run.device, dtype=run.dtype)
    where = torch.tensor([tensor.data_ptr() for tensor in (*state, *state)], device=run.device)
    lengths = torch.full((1,), n_tokens, device=run.device)
    found = {}
    tried = [
        ScanTiles(*tile) for tile in ((64, 32, 4, 2), (64, 64, 4, 2), (64, 64, 8, 2), (64, 32, 4, 3), (128, 64, 8, 2))
    ]
    for tiles in tried if run.device == "cuda" else [ScanTiles(16, 16)]:
        rest = (network.layers[0].recurrence, 0, c)
        try:
            took = run.seconds(lambda t=tiles, r=rest: scan(xbc, proj, where, lengths, *r, tiles=t), steps=run.few)
        except Exception as error:  # a tile too large for this card is a result, too
            print(f"{tiles}: {error}".splitlines()[0], file=sys.stderr)
            continue
        found[f"{tiles.block} tokens, {tiles.rows} rows, {tiles.warps} warps, {tiles.stages} stages"] = 1e6 * took
    return found


def table(run: Run) -> str:
    s = run.sums
    rows = [
        ("card", s["card"], ""),
        ("copy", f"{s['copy_tb_s']:.2f} TB/s", ""),
        ("bf16 matrix peak", f"{s['peak_tflop_s']:.0f} TFLOP/s", ""),
        ("weights", f"{s['weight_gb']:.2f} GB", f"made in {s['make_s']:.0f} s"),
    ]
    for kind, few in s["few"].items():
        share = f"{few['bandwidth_share']:.0%} of the floor of {few['floor_ms']:.2f} ms (>= 80 %)"
        rows += [
            (f"{kind}: warm-up", f"{few['warm_up_s']:.1f} s", f"{few['graphs']} graphs"),
            (f"{kind}: step", f"{few['step_ms']:.2f} ms", share),
            (f"{kind}: step, tokens picked on the CPU", f"{few['step_from_cpu_ms']:.2f} ms", ""),
        ]
        for size, ms in few["chunk_ms"].items():
            goal = " (<= 1.3)" if size == "16" else ""
            rows.append((f"{kind}: chunk of {size}", f"{ms:.2f} ms", f"{few['chunk_steps'][size]:.2f} steps{goal}"))
    rows += [
        (f"reading {s['tokens']} tokens", f"{s['read_s']:.2f} s", f"{s['matrix_share']:.0%} of the peak (>= 45 %)"),
        ("late over early", f"{s['step_late_over_early']:.2f} a step", f"{s['feed_late_over_early']:.2f} a token fed"),
        ("memory at its peak", f"{s['peak_memory_gb']:.2f} GB", ""),
        *((f"scan, {tiles}", f"{us:.0f} us", "a layer") for tiles, us in s["scan_us"].items()),
    ]
    for kind, kernels in s.get("kernels_us", {}).items():
        rows += [(f"{kind}: {name}", f"{us:.0f} us", "") for name, us in kernels.items()]
    wide = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{wide}}  {value:>14}  {note}".rstrip() for name, value, note in rows)


def rounded(value: Any) -> Any:
    """Four digits are more than was measured."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
