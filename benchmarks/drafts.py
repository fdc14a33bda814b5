"""How many tokens a second drafts gain, and that they change nothing: the same completions with and without them.

    python benchmarks/drafts.py --corpus build/corpus [--packages httpie,luigi] [--holes 20] [--keys 4] [--shapes s,c8] [--precision int4]

Somebody types the rest of a line in held-out repositories that the bundled model has never seen: a completion at each of some holes and after each of the
next keys. Each is decoded `plain`, with drafts from the buffer and the other documents (`lookups`), and with the completion shown before the key as well
(`hint`, where it agrees with the key; an editor that shows it then need not ask at all). Everything that a token costs is timed: search, mixture,
choice, stop checks, the network. All of them must say the same. Processor time is counted, not time on the wall: with one thread they are the same on a
quiet machine, and on a busy one others hardly count.
A larger network of random weights says nothing that a lookup could know, so for --shapes what is said is replayed: the tokens are given, the drafts are
really made from the same buffers and documents, really read in chunks and judged against what is given, and only the choice of the next token from the
logits is left out (in `plain` too). Two givens: `bundled`, what the bundled model said, which its lookups helped to choose; `people`, what stood there.
Tokens are the bundled vocabulary's. Prints tables, then one JSON line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import torch

from benchmarks.bench_models import FOLDER, bench_model
from benchmarks.stats import Rounds, interleave, machine, print_json, table
from cache.lookup import Lookup
from daemon.completion import Engine
from daemon.matcher import Matcher
from daemon.prompt import Prompt
from daemon.trim import Trim
from model.checkpoint import load_model
from model.draft import Drafter, Pace, Reader
from model.generate import Generated, generate
from model.network import Network
from model.state import Mamba2State
from training.holes import Hole, read_repository, sample_holes

WAYS = ("plain", "lookups", "hint")
CONTEXT_TOKENS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One completion: where it starts, and what was shown before the last key as far as it agrees with it."""

    prompt: Prompt
    index: Lookup | None
    path: str | None
    trim: Trim
    state: Mamba2State
    logits: torch.Tensor
    hint: list[int]
    people: list[int]  # the tokens of what stood there, with the forced bytes
    max_tokens: int

    def matcher(self) -> Matcher:
        return Matcher(self.prompt.buffer, self.index, self.path)


class Given(NamedTuple):
    """What is said in a replay."""

    case: Case
    ids: list[int]


@dataclass(slots=True)
class Count:
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    last: list[Generated] = field(default_factory=list)


def main() -> int:
    args = parsed_arguments()
    os.environ["CODESTRAL_LSP_CACHE"] = str(FOLDER / "cache")  # not the user's own
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    engine = Engine(load_model("bundled"), store_budget_bytes=1 << 30)
    if not engine.model.network.any_cut:
        print("error: the bundled model does not run on the native kernels here, and drafts need them", file=sys.stderr)
        return 1
    cases = [case for package in args.packages for case in cases_of(engine, read_package(args, package), args)]
    figures, said = time_bundled(engine, cases, args)
    result: dict[str, object] = {"completions": len(cases), "threads": args.threads, "bundled": figures}
    for shape in args.shapes:
        network = load_model(bench_model(shape).name, precision=args.precision).network
        givens = {
            "bundled": [Given(case, made.ids) for case, made in zip(cases, said, strict=True)][: args.replayed],
            "people": [Given(case, case.people) for case in cases][: args.replayed],
        }
        result[f"{shape} {args.precision}"] = {
            name: time_replay(network, given, args, title=f"{shape} {args.precision}, given {name}")
            for name, given in givens.items()
        }
    print_json(result | {"machine": machine()})
    return 0


def parsed_arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--packages", type=names, default=["httpie"], help="of the corpus's test.jsonl")
    parser.add_argument("--holes", type=int, default=20, help="in each package")
    parser.add_argument("--keys", type=int, default=4, help="typed after each hole's first completion")
    parser.add_argument("--shapes", type=names, default=[], help="of benchmarks/bench_models.py")
    parser.add_argument("--precision", default="int4", help="of the shapes")
    parser.add_argument("--replayed", type=int, default=40, help="completions for each shape")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds to wait for quiet before each measurement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=3)
    return parser.parse_args()


def read_package(args: argparse.Namespace, name: str) -> list[tuple[str, str]]:
    """(path, text) of its files. Ends the program, naming the packages there are, for one that is not there."""
    rows = [json.loads(line) for line in (args.corpus / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {row["package"]: row["files"] for row in rows}
    if name not in found:
        raise SystemExit(f"error: --packages has {name!r}, expected some of {', '.join(found)}")
    return list(dict(found[name]).items())


def cases_of(engine: Engine, files: list[tuple[str, str]], args: argparse.Namespace) -> list[Case]:
    holes = sample_holes(files, n_holes=args.holes, per_file=2, seed=args.seed)
    ground = read_repository(engine, files, holes, max_tokens=CONTEXT_TOKENS)
    cases = []
    for hole in holes:
        shown = ""
        for n_typed in range(min(args.keys + 1, len(hole.truth))):
            request = msgspec.structs.replace(hole.request, prompt=hole.request.prompt + hole.truth[:n_typed])
            typed = hole.truth[n_typed - 1 : n_typed] if n_typed else ""
            shown = shown[1:] if typed and shown.startswith(typed) else ""
            prompt = engine.plan(request, [ground]).prompt
            value = engine.read(prompt.chain)
            assert value is not None, "a prompt is never empty"
            case = Case(
                prompt=prompt,
                index=ground.index,
                path=request.path,
                trim=Trim(request),
                state=value.state,
                logits=value.logits,
                hint=continued(engine, prompt, shown),
                people=continued(engine, prompt, rest_of(hole, n_typed)),
                max_tokens=request.max_tokens,
            )
            cases.append(case)
            shown = case.trim.shown(decode(engine, case, "plain").text)
    return cases


def rest_of(hole: Hole, n_typed: int) -> str:
    return hole.truth[n_typed:].rstrip() + "\n"


def continued(engine: Engine, prompt: Prompt, text: str) -> list[int]:
    """The ids of a text at the cursor, with the bytes that healing took back; none of no text."""
    return engine.model.tokenizer.encode(prompt.forced.decode("utf-8", "ignore") + text) if text else []


def decode(engine: Engine, case: Case, way: str) -> Generated:
    matcher = case.matcher()
    return generate(
        engine.model.network,
        engine.model.tokenizer,
        case.state,
        case.logits,
        stop=case.trim.stop,
        cancelled=lambda: False,
        max_tokens=case.max_tokens,
        forced=case.prompt.forced,
        gate=engine.model.gate,
        matches_of=matcher,
        hint=case.hint if way == "hint" else (),
        proposals_of=None if way == "plain" else matcher.proposals,
    )


def time_bundled(engine: Engine, cases: Sequence[Case], args: argparse.Namespace) -> tuple[dict, list[Generated]]:
    counts = {way: Count() for way in WAYS}

    def contestant(way: str):
        def decode_all() -> float:
            started = time.process_time()
            made = [decode(engine, case, way) for case in cases]
            took = time.process_time() - started
            counts[way] = Count(
                sum(len(each.ids) for each in made),
                sum(each.drafted for each in made),
                sum(each.accepted for each in made),
                made,
            )
            return took

        return decode_all

    found = measured({way: contestant(way) for way in WAYS}, args)
    assert counts["plain"].last == counts["lookups"].last == counts["hint"].last, "drafts changed what is said"
    return shown(found, counts, title="bundled, decoded to the end"), counts["plain"].last


def time_replay(network: Network, given: Sequence[Given], args: argparse.Namespace, *, title: str) -> dict:
    counts = {way: Count() for way in WAYS}
    logits, state = network(torch.tensor([[1, 2, 3]]), last_only=True)
    tokenizer = load_model("bundled").tokenizer
    paces = {way: Pace() for way in WAYS}  # each learns from its own drafts alone

    def contestant(way: str):
        def replay_all() -> float:
            count = Count()
            started = time.process_time()
            for each in given:
                matcher = each.case.matcher()
                pace = paces[way]
                reader, drafter = Reader(network, state, logits[0, -1], pace=pace), None
                if way != "plain":
                    drafter = Drafter(
                        tokenizer,
                        pace,
                        stop=each.case.trim.stop,
                        forced=each.case.prompt.forced,
                        hint=each.case.hint if way == "hint" else (),
                        proposals_of=matcher.proposals,
                    )
                replay(reader, drafter, each, tokenizer.pieces)
                reader.close()
                count.tokens += len(each.ids)
                count.drafted += reader.drafted
                count.accepted += reader.accepted
            counts[way] = count
            return time.process_time() - started

        return replay_all

    found = measured({way: contestant(way) for way in WAYS}, args)
    return shown(found, counts, title=title)


def replay(reader: Reader, drafter: Drafter | None, given: Given, pieces: Sequence[bytes]) -> None:
    """Says what is given, as generate would."""
    text = b""
    for number, token in enumerate(given.ids, start=1):
        text += pieces[token]
        if reader.said(token) or number == len(given.ids):
            continue
        draft, kind = [], None
        if drafter is not None:
            room = given.case.max_tokens - number - 1
            draft, kind = drafter.best(given.ids[:number], text, again=reader.again, room=room, deadline=None)
        reader.read(token, draft, kind=kind)


def measured(contestants: dict, args: argparse.Namespace) -> Rounds:
    """After one round that does not count: in it the network's pace is learnt."""
    for contestant in contestants.values():
        contestant()
    return interleave(contestants, rounds=args.rounds, spare_rounds=2, patience_s=args.patience)


def shown(found: Rounds, counts: dict[str, Count], *, title: str) -> dict:
    rows, figures = [], {}
    for way in WAYS:
        count, seconds = counts[way], found.spread(way).median
        gain = found.ratio("plain", way)
        share = count.accepted / count.drafted if count.drafted else 0.0
        figures[way] = {
            "tokens": count.tokens,
            "tokens_per_s": count.tokens / seconds,
            "gain": [gain.median, gain.low, gain.high],
            "drafted": count.drafted,
            "accepted": count.accepted,
        }
        rows.append(
            (way, count.tokens, f"{count.tokens / seconds:.0f}", gain, count.drafted, count.accepted, f"{share:.0%}")
        )
    print(f"\n{title}\n")
    print(table(("way", "tokens", "tokens/s", "gain", "drafted", "accepted", "share right"), rows))
    return figures | {"noisy_rounds": found.noisy}


if __name__ == "__main__":
    sys.exit(main())
