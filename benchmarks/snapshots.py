"""What rounding a stored state costs in exactness, bytes and time: each format of model/snapshot.py on text that the model was not trained on.

    python benchmarks/snapshots.py [--model bundled] [--text FILE ...] [--points 40] [--roundings 1,4,16] [--precisions fp32,int8]

At each of `--points` places of the text the state is rounded and restored, and the next tokens are predicted from it and from the state that never was:
KL(unrounded || restored) in nats, the mean and that of the worst hundredth part, and how often both name the same most likely token. Rounded 4 times
means: rounded, 256 tokens fed, rounded again, and so on, the fourth time at the place itself. `one bit` is for comparison: the numbers of the state moved
by one unit of their last fp32 place, up, down or not at all. In int8 and int4 a network rounds its activations too, so that a small change of its input moves
some of them by a whole step. Without --text the packages that the corpus holds out are read (python -m training.corpus --out build/corpus). The times are
of rounding into arrays and of restoring, on one core, without a disk; those of Codestral's shape are of random numbers. Prints a table for each of the
precisions and one of costs, then one JSON line.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.precision import Distance, distance, read_streams
from benchmarks.stats import machine, median_s, print_json, table
from model.checkpoint import load_model
from model.config import ConfigError, Mamba2Config
from model.network import Network
from model.snapshot import SNAPSHOT_FORMATS, from_arrays, snapshot_bytes, to_arrays
from model.source import open_source
from model.state import Mamba2State

GAP = 256  # tokens between two roundings
APART = 512  # tokens between two places
EXACT, ONE_BIT = "fp32", "one bit"
FORMATS = (ONE_BIT, *SNAPSHOT_FORMATS)
CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32_768, n_groups=8)


class Place(NamedTuple):
    """Where a state is rounded: after the first `end` ids of a stream."""

    ids: list[int]
    end: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument(
        "--text", type=Path, nargs="+", help="files; unless told, the packages that the corpus holds out"
    )
    parser.add_argument("--points", type=int, default=40, help="of all texts together")
    parser.add_argument("--roundings", type=lambda text: [int(each) for each in text.split(",")], default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=64, help="predictions from each restored state")
    parser.add_argument(
        "--precisions", type=lambda text: text.split(","), default=["fp32", "int8"], help="of the weights"
    )
    parser.add_argument("--backend", choices=["auto", "native", "torch"], default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    before = max(args.roundings) * GAP
    distances: dict[str, dict[str, dict[int, Distance]]] = {}
    try:
        source = open_source(args.model)
        streams = read_streams(args.text, source.tokenizer(), n_tokens=4 * (before + APART * args.points))
        places = spread_places(streams, before=before, n=args.points, steps=args.steps)
        for precision in args.precisions:
            network = load_model(args.model, precision=precision, backend=args.backend).network
            distances[precision] = measure(network, places, roundings=args.roundings, steps=args.steps)
            print(
                distance_table(f"{args.model} in {precision}, {len(places)} places", distances[precision]), flush=True
            )
            print()
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sizes = {args.model: source.config, "Codestral's shape": CODESTRAL}
    costs = {name: {format: cost_of(config, format) for format in SNAPSHOT_FORMATS} for name, config in sizes.items()}
    print(cost_table(costs))
    about = {"model": args.model, "places": len(places), "steps": args.steps, "distance": as_json(distances)}
    print_json(about | {"cost": costs, "machine": machine() | {"threads": args.threads}})
    return 0


def spread_places(streams: list[list[int]], *, before: int, n: int, steps: int) -> list[Place]:
    """`n` places, taken from the streams in turn, each with `before` tokens above it and `steps` below. Raises ConfigError where there is no room."""
    in_turn = [
        Place(ids, end)
        for end in range(before, max(map(len, streams)), APART)
        for ids in streams
        if end + steps <= len(ids)
    ]
    if len(in_turn) < n:
        raise ConfigError(f"the text has room for {len(in_turn)} places, expected {n}: more text, or fewer --points")
    return in_turn[:n]


def measure(
    network: Network, places: Sequence[Place], *, roundings: Sequence[int], steps: int
) -> dict[str, dict[int, Distance]]:
    """{format: {times rounded: Distance}} of FORMATS; fp32, which rounds nothing, and one bit once only."""
    ways = [(format, n) for format in FORMATS for n in roundings if n == 1 or format not in (EXACT, ONE_BIT)]
    kls: dict[tuple[str, int], list[Tensor]] = {way: [] for way in ways}
    same: dict[tuple[str, int], list[Tensor]] = {way: [] for way in ways}
    for done, (place, states) in enumerate(followed(network, places, back=max(roundings) - 1)):
        show_progress(done, len(places))
        expected = predictions(network, *states[-1], place=place, steps=steps)
        for format, n in ways:
            restored = rounded(network, states[-n], place, format=format, n=n)
            found = predictions(network, *restored, place=place, steps=steps)
            kls[format, n].append((expected.exp() * (expected - found)).sum(-1))
            same[format, n].append(expected.argmax(-1) == found.argmax(-1))
    show_progress(len(places), len(places))
    figures: dict[str, dict[int, Distance]] = {}
    for format, n in ways:
        figures.setdefault(format, {})[n] = distance(torch.cat(kls[format, n]), int(torch.cat(same[format, n]).sum()))
    return figures


Reached = tuple[Mamba2State, Tensor]  # a state and the logits (V,) after it


def followed(network: Network, places: Sequence[Place], *, back: int) -> Iterator[tuple[Place, list[Reached]]]:
    """Each place with the unrounded states at it, last, and at the `back` places GAP tokens apart before it. A stream is read once."""
    streams = {id(place.ids): place.ids for place in places}
    for ids in streams.values():
        ends = {place.end: place for place in places if place.ids is ids}
        states: list[Reached] = []
        reached: Reached | None = None
        for start in range(0, max(ends), GAP):
            reached = fed(network, ids[start : start + GAP], None if reached is None else reached[0])
            states = [*states[-back:], reached] if back else [reached]
            if start + GAP in ends:
                yield ends[start + GAP], states


def rounded(network: Network, reached: Reached, place: Place, *, format: str, n: int) -> Reached:
    """The state at the place, rounded for the n-th time; `reached` is the unrounded one where it is rounded first."""
    for start in range(place.end - (n - 1) * GAP, place.end + 1, GAP):
        reached = (
            one_bit_off(*reached) if format == ONE_BIT else from_arrays(to_arrays(*reached, format), network.config)
        )
        if start < place.end:
            reached = fed(network, place.ids[start : start + GAP], reached[0])
    return reached


def one_bit_off(state: Mamba2State, logits: Tensor) -> Reached:
    """Each number of the recurrent state one unit in its last place up, one down, or as it was."""
    memory = state.ssm.transpose(-1, -2).contiguous()  # as the native kernels keep it
    steps = torch.randint(-1, 2, memory.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    moved = (memory.view(torch.int32) + steps * (memory != 0)).view(torch.float32)
    return Mamba2State(state.conv, moved.transpose(-1, -2)), logits


def fed(network: Network, ids: list[int], state: Mamba2State | None) -> Reached:
    logits, state = network(torch.tensor([ids]), state, last_only=True)
    return state, logits[0, -1]


def predictions(network: Network, state: Mamba2State, logits: Tensor, *, place: Place, steps: int) -> Tensor:
    """log p (steps, V): the first from the logits that are kept with the state."""
    following = place.ids[place.end : place.end + steps - 1]
    rows, _ = network(torch.tensor([following]), state)
    return F.log_softmax(torch.cat([logits[None], rows[0]]).double(), dim=-1)


def cost_of(config: Mamba2Config, format: str) -> dict[str, float]:
    """Bytes of a snapshot, and seconds to make one and to restore it."""
    c, generator = config, torch.Generator().manual_seed(0)
    ssm = torch.empty(c.n_layers, 1, c.n_heads, c.d_state, c.head_dim).normal_(generator=generator)
    conv = torch.randn(c.n_layers, 1, c.conv_dim, c.d_conv - 1, generator=generator)
    state = Mamba2State(conv, ssm.transpose(-1, -2))  # as the native kernels keep it
    logits = torch.randn(c.vocab_size, generator=generator)
    arrays = to_arrays(state, logits, format)
    return {
        "bytes": snapshot_bytes(c, format),
        "round_s": median_s(lambda: to_arrays(state, logits, format), repetitions=5),
        "restore_s": median_s(lambda: from_arrays(arrays, c), repetitions=5),
    }


def as_json(distances: dict[str, dict[str, dict[int, Distance]]]) -> dict[str, object]:
    return {
        precision: {format: {str(n): each._asdict() for n, each in row.items()} for format, row in figures.items()}
        for precision, figures in distances.items()
    }


def distance_table(title: str, figures: dict[str, dict[int, Distance]]) -> str:
    rows = [
        [f"{format}, {n} x", f"{found.kl:.2e}", f"{found.kl_worst:.2e}", f"{100 * found.top_1:.2f} %"]
        for format, row in figures.items()
        for n, found in row.items()
    ]
    return table([title, "KL", "worst 1 %", "same top 1"], rows)


def cost_table(costs: dict[str, dict[str, dict[str, float]]]) -> str:
    rows = [
        [
            f"{name}, {format}",
            f"{cost['bytes'] / 1e6:.1f}",
            f"{1000 * cost['round_s']:.1f}",
            f"{1000 * cost['restore_s']:.1f}",
        ]
        for name, row in costs.items()
        for format, cost in row.items()
    ]
    return table(["a snapshot", "MB", "rounding, ms", "restoring, ms"], rows)


def show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} places", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
