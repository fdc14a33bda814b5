"""A daemon that has restarted: seconds to its first answer that knows the repository, from disk and by reading all of it again; and what a state takes.

    python benchmarks/restart.py [--tokens 262144] [--rounds 3] [--shape bundled]

The daemon reads a repository of real code, is stopped and started again; then what it has kept on disk is removed and it is started once more. The clock runs
from the process's start; the answer counts from which on the state has read the repository. Prints a table, then one JSON line.
"""

import argparse
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from msgspec import structs

from benchmarks.bench_models import FULL_SIZE, SHAPES, bench_model
from benchmarks.daemon_process import DaemonError, DaemonProcess
from benchmarks.prompt_reader import PromptReader, request_of
from benchmarks.scratch_workspace import WorkspaceError, cut_to, find_code, make_place
from benchmarks.stats import Spread, machine, print_json, spread, table
from benchmarks.unix_http import HttpError
from daemon.protocol import CompletionRequest

ANSWER_S, POLL_S = 900.0, 0.01
BUDGET_MS = 1500  # of an answer, as the language server has it
HAS_CONTEXT = 0.99  # of the repository's tokens, which an answer's state must have read


class Start(NamedTuple):
    """Seconds from the process's start: to its being ready, to any answer, to one that knows the repository. `fed`: all tokens fed by then."""

    ready_s: float
    any_s: float
    known_s: float
    fed: int
    segment: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=[shape for shape in SHAPES if shape != FULL_SIZE], default="bundled")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=None, help="of the daemon; as shipped it leaves one core free")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-restart-") as folder:
            found = measure(args, Path(folder))
    except (DaemonError, HttpError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_json(found | {"shape": args.shape, "threads": args.threads, "machine": machine()})
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = bench_model(args.shape)
    code = find_code(1)
    files = cut_to(code, args.tokens, PromptReader.of_model(model.name).tokenizer, most_planned=math.inf)
    place = make_place(folder, files)
    hole = code.held_out[0]
    request = structs.replace(request_of(hole.opened, len(hole.before), hole.path), budget_ms=BUDGET_MS)
    daemon = DaemonProcess(place, model=model.name, precision=args.precision, threads=args.threads)
    starts: dict[str, list[Start]] = {"from disk": [], "read again": []}
    kept: dict[str, Any] | None = None
    n_tokens = 0
    try:
        daemon.start()  # the first of all prepares the weights and imports from a cold disk, which no later one does
        n_tokens = daemon.read(daemon.post(files))["tokens"]
        daemon.complete(request, None)
        for _ in range(args.rounds):
            kept = daemon.wait_written() or kept
            for kind, found in starts.items():
                daemon.stop()
                if kind == "read again":
                    forget(daemon, kept)
                found.append(first_answer(daemon, files, request, n_tokens))
    finally:
        daemon.stop()
    print(start_table(starts, n_tokens))
    sizes = state_bytes(kept)
    for line in sizes["text"]:
        print(line)
    again, disk = (spread([start.known_s for start in starts[kind]]) for kind in ("read again", "from disk"))
    return {
        "context_tokens": n_tokens,
        "restart_from_disk_s": disk,
        "restart_read_again_s": again,
        "restart_ratio": again.median / disk.median,
        "answer_after_ready_s": spread([start.known_s - start.ready_s for start in starts["from disk"]]),
        "fed_from_disk": max(start.fed for start in starts["from disk"]),
        "state_bytes": sizes["bytes"],
    }


def first_answer(daemon: DaemonProcess, files: list, request: CompletionRequest, n_tokens: int) -> Start:
    """Starts the daemon and asks until the answer knows the repository. Raises DaemonError."""
    started = time.perf_counter()
    ready_s = daemon.start()
    context = daemon.post(files)
    any_s = None
    while True:
        report = daemon.complete(request, context)
        now = time.perf_counter() - started
        any_s = any_s or now
        if report["context_tokens"] >= HAS_CONTEXT * n_tokens:
            return Start(ready_s, any_s, now, int(daemon.health()["tokens_fed"]), report["segment"])
        if now > ANSWER_S:
            raise DaemonError(f"{daemon.socket}: no answer knows the repository after {ANSWER_S:g} s")
        time.sleep(POLL_S)


def forget(daemon: DaemonProcess, kept: dict[str, Any] | None) -> None:
    """Removes what a stopped daemon has kept on disk; the prepared weights stay."""
    if kept is not None and kept["folder"]:
        shutil.rmtree(kept["folder"], ignore_errors=True)


def state_bytes(kept: dict[str, Any] | None) -> dict[str, Any]:
    """Of one state in each tier: the mean; and how many there are."""
    found: dict[str, Any] = {"bytes": {}, "text": []}
    if kept is None:
        found["text"].append("this daemon keeps nothing on disk, or does not tell")
        return found
    for tier in kept["tiers"]:
        if tier["states"]:
            each = tier["nbytes"] / tier["states"]
            found["bytes"][tier["tier"]] = {"a_state": each, "states": tier["states"], "all": tier["nbytes"]}
            found["text"].append(
                f"{tier['tier']}: {tier['states']} states, {tier['nbytes'] / 1e6:.1f} MB, {each / 1e6:.2f} MB each"
            )
    return found


def start_table(starts: dict[str, list[Start]], n_tokens: int) -> str:
    head = [
        f"restart, {n_tokens} tokens",
        "ready s",
        "first answer s",
        "answer that knows the repository s",
        "tokens fed",
        "resumed at",
    ]
    rows = []
    for kind, found in starts.items():
        cells: list[Spread] = [spread(list(times)) for times in zip(*(start[:3] for start in found), strict=True)]
        rows.append([kind, *cells, max(start.fed for start in found), found[-1].segment])
    return table(head, rows)


if __name__ == "__main__":
    sys.exit(main())
