"""What the daemon holds in memory against the size of the context and the number of open files: flat but for the budget of kept states.

    python benchmarks/memory_curve.py [--plot docs/memory] [--tokens 1024,4096,16384,65536,262144] [--files 1,2,4,8,16,32,64]

For each size of context a daemon of its own reads it and answers one file; then, at one size, one file after the other is opened and asked about. Memory is
what /proc tells: VmRSS, held now, and VmHWM, held at most. Prints a table, then one JSON line; with --plot also a picture.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_models import FULL_SIZE, SHAPES, bench_model
from benchmarks.daemon_process import DaemonError, DaemonProcess
from benchmarks.plot import Line, Panel, draw, short
from benchmarks.prompt_reader import PromptReader, request_of
from benchmarks.scratch_workspace import Code, WorkspaceError, cut_to, find_code, make_place
from benchmarks.stats import machine, print_json, table
from benchmarks.unix_http import HttpError

TOKENS = [1 << n for n in (10, 12, 14, 16, 18)]
FILES = [1 << n for n in range(7)]
FILES_AT_TOKENS = 16_384
CURSORS = 3  # in each open file: places that are asked about


class Memory(NamedTuple):
    """Bytes. `states` are the kept ones, which have a budget."""

    rss: int
    peak: int
    states: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=numbers, default=TOKENS, help="of context")
    parser.add_argument("--files", type=numbers, default=FILES, help="open")
    parser.add_argument(
        "--files-at", type=int, default=FILES_AT_TOKENS, help="tokens of context while files are opened"
    )
    parser.add_argument("--shape", choices=[shape for shape in SHAPES if shape != FULL_SIZE], default="bundled")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=None, help="of the daemon; as shipped it leaves one core free")
    parser.add_argument("--plot", type=Path, help="where to write the pictures, without .png")
    args = parser.parse_args()
    code = find_code(1)
    try:
        by_tokens = {n: curve(args, code, n_tokens=n, files=[1])[1] for n in args.tokens}
        by_files = curve(args, code, n_tokens=args.files_at, files=args.files)
    except (DaemonError, HttpError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(memory_table("tokens of context", by_tokens))
    print(f"\nat {short(args.files_at)} tokens of context\n")
    print(memory_table("open files", by_files))
    if args.plot:
        for path in draw(panels(by_tokens, by_files), x_label="tokens of context", ticks=args.tokens, out=args.plot):
            print(f"wrote {path}")
    print_json(as_json(by_tokens, by_files) | {"shape": args.shape, "machine": machine()})
    return 0


def numbers(text: str) -> list[int]:
    found = sorted({int(word) for word in text.split(",")})
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers from 1 on")
    return found


def curve(args: argparse.Namespace, code: Code, *, n_tokens: int, files: Sequence[int]) -> dict[int, Memory]:
    """{open files: memory} of one daemon that has read `n_tokens`."""
    model = bench_model(args.shape)
    tokenizer = PromptReader.of_model(model.name).tokenizer
    chosen = cut_to(code, n_tokens, tokenizer, most_planned=math.inf)
    found: dict[int, Memory] = {}
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-mem-") as folder:
        place = make_place(Path(folder), chosen)
        daemon = DaemonProcess(place, model=model.name, precision=args.precision, threads=args.threads)
        try:
            daemon.start()
            context = daemon.post(chosen)
            daemon.read(context)
            for n_open in range(1, max(files) + 1):
                path, text = code.files[-n_open]  # the last ones: in no context but the largest
                for place_in in range(1, CURSORS + 1):
                    cursor = text.rfind("\n", 0, len(text) * place_in // (CURSORS + 1)) + 1
                    daemon.complete(request_of(text, cursor, path), context)
                if n_open in files:
                    held = daemon.memory()
                    found[n_open] = Memory(held["VmRSS"], held["VmHWM"], int(daemon.health()["store_bytes"]))
        finally:
            daemon.stop()
    return found


def memory_table(what: str, found: dict[int, Memory]) -> str:
    head = [what, "RSS MB", "most MB", "of it states MB", "RSS without states MB"]
    rows = [
        [short(n), *(f"{value / 1e6:.0f}" for value in (*memory, memory.rss - memory.states))]
        for n, memory in found.items()
    ]
    return table(head, rows)


def panels(by_tokens: dict[int, Memory], by_files: dict[int, Memory]) -> list[Panel]:
    def lines(found: dict[int, Memory]) -> list[Line]:
        return [
            Line("most held", list(found), [memory.peak / 1e6 for memory in found.values()]),
            Line("held", list(found), [memory.rss / 1e6 for memory in found.values()]),
            Line("held, without kept states", list(found), [(m.rss - m.states) / 1e6 for m in found.values()]),
        ]

    return [
        Panel("The daemon's memory", "MB", lines(by_tokens)),
        Panel("The daemon's memory", "MB", lines(by_files), x_label="open files", ticks=list(by_files)),
    ]


def as_json(by_tokens: dict[int, Memory], by_files: dict[int, Memory]) -> dict:
    def megabytes(found: dict[int, Memory]) -> dict[str, dict[str, float]]:
        return {
            str(n): {"rss_mb": m.rss / 1e6, "peak_mb": m.peak / 1e6, "states_mb": m.states / 1e6}
            for n, m in found.items()
        }

    without = [m.rss - m.states for m in (*by_tokens.values(), *by_files.values())]
    return {
        "memory_by_tokens": megabytes(by_tokens),
        "memory_by_files": megabytes(by_files),
        "rss_without_states_ratio": max(without) / min(without),
    }


if __name__ == "__main__":
    sys.exit(main())
