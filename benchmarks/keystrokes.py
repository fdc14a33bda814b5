"""Typing through the real language server over stdio, at several sizes of context, beside llama.cpp's server under the same events.

    python benchmarks/keystrokes.py                        0 to 256k tokens, llama-server at 16k and 64k (about 13 minutes of two cores)
    python benchmarks/keystrokes.py --quick --no-peers     0 and 4k tokens, one round (a minute)
    python benchmarks/keystrokes.py --shape s --tokens 16384 --rounds 1 --restarts 1      a model of a realistic size, random weights

A workspace is made of real code found on this machine; a file that it lacks the middle of is typed there, key by key, with corrections, moves, other files,
undo, paste, saves and restarts of the daemon. Every size plays the same events, one after the other: event by event the sizes and the peers take turns, and
whoever waits is stopped where it stands. llama-server (`make peers`) gets the same weights (Q8_0 beside our int8), the same token ids and the same number of
tokens to generate: with its defaults, with the best flags found, and driven as well as its interface allows. Prints a table for each size, then one JSON line.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_models import FULL_SIZE, SHAPES, BenchModel, bench_model
from benchmarks.daemon_process import DaemonError
from benchmarks.editor_client import ServerError
from benchmarks.editor_replay import Replay, Sample
from benchmarks.keystroke_figures import as_json, event_table, peer_ratios, ratio_table
from benchmarks.llama_server import SETUPS, LlamaServer, PeerSample, setups_of
from benchmarks.peers import PROGRAMS, PeerError
from benchmarks.plot import short
from benchmarks.prompt_reader import PromptReader
from benchmarks.scratch_workspace import Code, WorkspaceError, cut_to, find_code, make_place
from benchmarks.stats import machine, print_json
from benchmarks.typing_script import Event, Script, write_script

TOKENS = (0, 4_096, 16_384, 65_536, 262_144)
PEER_TOKENS = (16_384, 65_536)
ROUNDS, PEER_ROUNDS, RESTARTS = 5, 3, 2
PRECISION = "int8"
ROOM_TOKENS = 65_536  # beside the repository's, for documents that are saved into it


@dataclass(slots=True, eq=False)
class Contest:
    """One size of context: our server, the peers beside it, and what both took."""

    n_tokens: int
    replay: Replay
    peers: list[LlamaServer]
    samples: list[Sample] = field(default_factory=list)
    peer_samples: dict[str, list[PeerSample]] = field(default_factory=dict)
    read_s: float = 0.0
    peer_read_s: dict[str, float] = field(default_factory=dict)


def main() -> int:
    args = arguments()
    try:
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-keys-", ignore_cleanup_errors=True) as folder:
            contests, script = asyncio.run(run(args, Path(folder)))
    except (ServerError, DaemonError, PeerError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    samples = {contest.n_tokens: contest.samples for contest in contests}
    peers = {contest.n_tokens: contest.peer_samples for contest in contests if contest.peer_samples}
    for contest in contests:
        print(f"\n{short(contest.n_tokens)} tokens of context; read in {contest.read_s:.1f} s\n")
        print(event_table(contest.samples, contest.peer_samples))
    if peers:
        print("\nllama.cpp / ours, by medians\n")
        print(ratio_table(peer_ratios(samples, peers)))
    found = as_json(samples, peers)
    found |= {
        "read_s": {short(contest.n_tokens): contest.read_s for contest in contests},
        "peer_read_s": {short(contest.n_tokens): contest.peer_read_s for contest in contests if contest.peers},
        "peer_flags": {
            setup.name: " ".join(setup.flags) for setup in setups_of(args.setups, n_documents=len(script.opened))
        },
        "script": {
            "seed": args.seed,
            "rounds": args.rounds,
            "peer_rounds": args.peer_rounds,
            "events": len(script.events),
        },
        "shape": args.shape,
        "threads": args.threads,
        "machine": machine(),
    }
    print_json(found)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=sizes, default=None, help="of context, such as 0,4096,262144")
    parser.add_argument(
        "--peer-tokens", type=sizes, default=PEER_TOKENS, help="those sizes at which llama-server plays too"
    )
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--setups", type=names, default=SETUPS, help="of llama-server: some of " + ",".join(SETUPS))
    parser.add_argument(
        "--rounds", type=int, default=None, help=f"of the script ({ROUNDS}); each holds every kind of event"
    )
    parser.add_argument("--peer-rounds", type=int, default=PEER_ROUNDS, help="of these, that llama-server plays")
    parser.add_argument("--restarts", type=int, default=None, help=f"rounds that end with restarts ({RESTARTS})")
    parser.add_argument("--shape", choices=[shape for shape in SHAPES if shape != FULL_SIZE], default="bundled")
    parser.add_argument("--threads", type=int, default=None, help="of our daemon; as shipped it leaves one core free")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="0 and 4k tokens, peers at 4k, one round")
    args = parser.parse_args()
    if args.quick:
        args.tokens, args.rounds, args.restarts = args.tokens or (0, 4_096), args.rounds or 1, args.restarts or 1
        args.peer_tokens = args.tokens
    args.tokens, args.rounds = args.tokens or TOKENS, args.rounds or ROUNDS
    args.restarts = min(RESTARTS, args.rounds) if args.restarts is None else args.restarts
    if args.no_peers or not (PROGRAMS / "llama-server").exists():
        if not args.no_peers:
            print("no llama-server here (`make peers`): without peers", file=sys.stderr)
        args.peer_tokens = ()
    return args


def sizes(text: str) -> tuple[int, ...]:
    found = tuple(int(word) for word in text.split(","))
    if any(n < 0 for n in found):
        raise argparse.ArgumentTypeError(f"{text}: expected numbers of tokens from 0 on")
    return found


def names(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not set(found) <= set(SETUPS):
        raise argparse.ArgumentTypeError(f"{text}: expected some of {', '.join(SETUPS)}")
    return found


async def run(args: argparse.Namespace, folder: Path) -> tuple[list[Contest], Script]:
    model = bench_model(args.shape)
    reader = PromptReader.of_model(model.name)
    code = find_code(args.seed)
    script = write_script(code.held_out, other=code.other, seed=args.seed, rounds=args.rounds, restarts=args.restarts)
    contests: list[Contest] = []
    async with contextlib.AsyncExitStack() as stack:
        for n_tokens in args.tokens:
            contest = make_contest(n_tokens, args=args, folder=folder, code=code, model=model, reader=reader)
            await stack.enter_async_context(running(contest, script))
            contests.append(contest)
        for number, event in enumerate(script.events):
            for contest in contests:
                await take_turn(contest, event, with_peers=event.round < args.peer_rounds)
            if number + 1 == len(script.events) or script.events[number + 1].round != event.round:
                print(f"round {event.round + 1} of {args.rounds}: {number + 1} events", file=sys.stderr, flush=True)
    return contests, script


def make_contest(
    n_tokens: int, *, args: argparse.Namespace, folder: Path, code: Code, model: BenchModel, reader: PromptReader
) -> Contest:
    files = cut_to(code, n_tokens, reader.tokenizer) if n_tokens else []
    place = make_place(folder / short(n_tokens), files)
    options = {"model": model.name, "precision": PRECISION, "context_max_tokens": n_tokens and n_tokens + ROOM_TOKENS}
    replay = Replay(place, options=options, threads=args.threads, reader=reader)
    if n_tokens not in args.peer_tokens or not n_tokens:
        return Contest(n_tokens, replay, [])
    peers = [
        LlamaServer(
            setup,
            gguf=model.gguf(PRECISION),
            folder=place.root / "llama",
            reader=reader,
            files=sorted(files),
            n_tokens=n_tokens,
        )
        for setup in setups_of(args.setups, n_documents=len(code.held_out))
    ]
    return Contest(n_tokens, replay, peers, peer_samples={peer.setup.name: [] for peer in peers})


@asynccontextmanager
async def running(contest: Contest, script: Script) -> AsyncIterator[None]:
    """Everything of one size, started and in the end closed; ours stopped where it stands."""
    started: list[LlamaServer] = []
    try:
        contest.read_s = await contest.replay.start(script)
        contest.replay.freeze(True)
        for peer in contest.peers:
            started.append(peer)
            contest.peer_read_s[peer.setup.name] = await asyncio.to_thread(peer.start, script)
        took = ", ".join(f"llama.cpp {name} {seconds:.1f} s" for name, seconds in contest.peer_read_s.items())
        print(f"{short(contest.n_tokens)} tokens read: ours {contest.read_s:.1f} s {took}", file=sys.stderr, flush=True)
        yield
    finally:
        for peer in started:
            await asyncio.to_thread(peer.close)
        await contest.replay.close()


async def take_turn(contest: Contest, event: Event, *, with_peers: bool) -> None:
    """Ours first, since it says how many tokens the peers shall generate: those of the answer and one for its end, never more than ours generated."""
    replay = contest.replay
    replay.freeze(False)
    try:
        sample = await replay.play(event)
    finally:
        replay.freeze(True)
    contest.samples.append(sample)
    n_predict = 1 + replay.reader.n_text(sample.text)
    turned = contest.peers if len(contest.samples) % 2 else contest.peers[::-1]
    for peer in turned if with_peers else ():
        played = await asyncio.to_thread(peer.play, event, n_predict=n_predict)
        contest.peer_samples[peer.setup.name].append(played)


if __name__ == "__main__":
    sys.exit(main())
