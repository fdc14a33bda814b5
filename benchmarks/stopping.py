"""Where suggestions should stop: how often they are right by how sure the model is, line by line, and behind indentation that was typed.

    python benchmarks/stopping.py --corpus build/corpus [--packages httpie,luigi] [--holes 60]

Holes in held-out repositories that the bundled model has never seen, asked as the product asks.
1. The rest of a line: how many answers are exactly what stood there, and how many begin with the right word, of those above each confidence and below.
2. Some lines at the start of a block or inside one, 1 to 6 of them cut out: of each line that is shown, the first, the second and so on, how often it is the
   line that stood there. `all`: 6 lines whatever they are, up to the model's own end; `rules`: cut by the rules of text (daemon/block.py); `sure`: and where
   the model is unsure (daemon/certainty.py); then the same for other thresholds.
3. One line on a line that has nothing but the indentation an editor put there: with that indentation fed and healed, and asked from column 0 on. Inside a
   block, where the line that stood there has this indentation, and at a block's end, where it has less, so that nothing is the best answer.
Prints tables, then one JSON line.
"""

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import torch

from benchmarks.stats import print_json, table
from context.window import split
from daemon.bases import Ground
from daemon.certainty import LATER_CONFIDENCE, LINE_CONFIDENCE, Line, Said, n_bytes
from daemon.completion import Engine
from daemon.protocol import CompletionRequest
from daemon.trim import Trim, repetition
from model.checkpoint import load_model
from training.holes import Files, Hole, read_repository, sample_holes

MAX_LINES = 6
MAX_TOKENS = 128
SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
GRID = [(line, so_far) for line in (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95) for so_far in (0.0, 0.6, 0.7, 0.8)]
WORD = re.compile(r"\s*(\w+|[^\w\s]+)")


@dataclass(frozen=True, slots=True)
class Answered:
    """One hole of several lines: what stood there, what was said, and what is left of it by the rules of text."""

    truth: list[str]
    said: list[str]  # every line that the model said, white space at the end left out
    lines: list[Line]  # of what the rules leave, how sure the model is of each
    n_left: int  # lines that the rules leave


class AnyLines:
    """Stands in for Trim where no rule shall cut: so many lines, or the model's own end."""

    def __init__(self, request: CompletionRequest) -> None:
        self.request = request

    def stop(self, text: bytes) -> str | None:
        if text.strip().count(b"\n") >= MAX_LINES:
            return "lines"
        return "repetition" if repetition(text.decode("utf-8", "ignore")) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--packages", default="httpie,luigi,ipython,networkx,moto")
    parser.add_argument("--holes", type=int, default=60, help="of each kind in each package")
    parser.add_argument("--context-tokens", type=int, default=32_768)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    engine = Engine(load_model("bundled"), store_budget_bytes=1 << 30)
    rows = [json.loads(line) for line in (args.corpus / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = args.packages.split(",")
    if unknown := set(wanted) - {row["package"] for row in rows}:
        parser.error(
            f"--packages has {', '.join(sorted(unknown))}, expected some of {', '.join(r['package'] for r in rows)}"
        )
    singles: list[Single | None] = []
    several: list[Answered] = []
    typed: list[Typed] = []
    started = time.monotonic()
    for row in rows:
        if row["package"] not in wanted:
            continue
        files = row["files"]
        lines = sample_holes(files, n_holes=args.holes, per_file=4, seed=args.seed)
        blocks = block_holes(files, n_holes=args.holes, per_file=4, seed=args.seed)
        ends = end_holes(files, [hole.request.path for hole in blocks])
        ground = read_repository(engine, files, [*lines, *blocks], max_tokens=args.context_tokens)
        singles += [single(engine, hole, ground) for hole in lines]
        several += [answered(engine, hole, ground) for hole in blocks]
        typed += [behind_indent(engine, hole, ground) for hole in [*blocks, *ends] if hole.request.indent]
        print(f"{row['package']}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    figures = {"one_line": by_confidence(singles), "several": by_line(several), "typed_indentation": of_typed(typed)}
    print_json(figures)
    return 0


def block_holes(files: Files, *, n_holes: int, per_file: int, seed: int) -> list[Hole]:
    """1 to MAX_LINES lines, cut out behind a line that opens a block, or inside a block with its indentation typed; both in turn."""
    rng = random.Random(seed)
    order = [(path, text) for path, text in files if len(text) > 1000]
    rng.shuffle(order)
    holes: list[Hole] = []
    for path, text in order:
        lines = text.split("\n")
        places = list(block_places(lines))
        for number in sorted(rng.sample(places, min(per_file, len(places)))):
            holes.append(
                block_hole(path, lines, number, n_lines=rng.randint(1, MAX_LINES), is_start=len(holes) % 2 == 0)
            )
            if len(holes) == n_holes:
                return holes
    return holes


def block_places(lines: Sequence[str]) -> Iterator[int]:
    """Lines that begin a block's body."""
    for number in range(len(lines) // 20 + 1, len(lines) - 1):
        above, line = lines[number - 1], lines[number]
        if (
            above.endswith(":")
            and not above.lstrip().startswith("#")
            and line.strip()
            and columns(line) > columns(above)
        ):
            yield number


def block_hole(path: str, lines: Sequence[str], number: int, *, n_lines: int, is_start: bool) -> Hole:
    """`number`: the first line of a body. Where it is long enough and no start is wanted, the hole begins some lines further down."""
    indent = lines[number][: columns(lines[number])]
    end = number
    while end < len(lines) and (not lines[end].strip() or columns(lines[end]) >= len(indent)):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    if not is_start:
        inside = [n for n in range(number + 1, end) if lines[n].strip() and columns(lines[n]) == len(indent)]
        number = inside[len(inside) // 2] if inside else number
    last = min(end, number + n_lines)
    while not lines[last - 1].strip():
        last -= 1
    truth, above, below = lines[number:last], "\n".join(lines[:number]), "\n" + "\n".join(lines[last:])
    at_end = is_start
    before = above if at_end else above + "\n"
    window = split(before + below, len(before))
    request = CompletionRequest(
        prompt=window.prefix,
        suffix=window.suffix,
        head=window.head,
        path=path,
        indent="" if at_end else indent,
        max_tokens=MAX_TOKENS,
        max_lines=MAX_LINES,
        may_replace=True,
    )
    return Hole(request, "\n".join(truth), below)


def end_holes(files: Files, paths: Sequence[str | None]) -> list[Hole]:
    """In each of these files the line behind a block that is indented less is cut out, and the block's indentation typed there."""
    holes = []
    for path, text in files:
        lines = text.split("\n")
        ends = [
            number
            for number in range(len(lines) // 20 + 1, len(lines))
            if 0 < columns(lines[number]) < columns(lines[number - 1])
            and lines[number - 1].strip()
            and lines[number].strip()
        ]
        for number in ends[:: max(1, len(ends) // 4)] if path in paths else ():
            above, below = "\n".join(lines[:number]) + "\n", "\n" + "\n".join(lines[number + 1 :])
            window = split(above + below, len(above))
            indent = lines[number - 1][: columns(lines[number - 1])]
            request = CompletionRequest(
                prompt=window.prefix, suffix=window.suffix, head=window.head, path=path, indent=indent
            )
            holes.append(Hole(request, lines[number], below))
    return holes


def columns(line: str) -> int:
    return len(line) - len(line.lstrip())


class Single(NamedTuple):
    """An answer that is shown: how sure the model is of it, and how much of it is right."""

    confidence: float
    is_right: bool
    word_is_right: bool


def single(engine: Engine, hole: Hole, ground: Ground) -> Single | None:
    """The rest of a line; None where nothing is shown."""
    made = engine.complete(hole.request, [ground], cancelled=lambda: False, started=time.monotonic())
    if not made.text:
        return None
    words = [match and match[1] for match in (WORD.match(made.text), WORD.match(hole.truth))]
    return Single(made.report.confidence, made.text.rstrip() == hole.truth.rstrip(), words[0] == words[1])


def answered(engine: Engine, hole: Hole, ground: Ground) -> Answered:
    """Decoded without any rule; the rules are applied afterwards, so that all of them see the same text."""
    prompt = engine.prompt(hole.request, ground)
    value = engine.read(prompt.chain)
    assert value is not None, "a prompt is never empty"
    any_lines = AnyLines(hole.request)
    (generated,) = engine.decode(
        hole.request,
        ground,
        prompt,
        value,
        trim=any_lines,  # type: ignore[arg-type]
        cancelled=lambda: False,
        started=time.monotonic(),
    )
    text = generated.text
    shown = Trim(hole.request).outcome(text, is_cut=generated.stopped_by == "max_tokens")
    said = Said(generated, pieces=engine.model.tokenizer.pieces, n_forced=len(prompt.forced))
    lines = said.lines(n_bytes(text, shown.upto)) if shown.text else []
    every = [line.rstrip() for line in text.decode("utf-8", "ignore").split("\n") if line.strip()]
    truth = [line.rstrip() for line in hole.truth.split("\n") if line.strip()]
    return Answered(truth, every[:MAX_LINES], lines, len(lines))


class Typed(NamedTuple):
    """One line asked in both ways: whether it is shown, and whether it is right."""

    fed: tuple[bool, bool]
    from_column_0: tuple[bool, bool]
    is_end: bool  # of a block: the line that stood there is indented less


def behind_indent(engine: Engine, hole: Hole, ground: Ground) -> Typed:
    """The first line: with the indentation fed, and asked from column 0."""
    truth = hole.truth.split("\n")[0].rstrip()
    request = msgspec.structs.replace(hole.request, max_lines=1)
    fed = msgspec.structs.replace(request, prompt=request.prompt + request.indent, indent="")
    one, other = (
        engine.complete(each, [ground], cancelled=lambda: False, started=time.monotonic()).text.rstrip()
        for each in (fed, request)
    )
    right = [request.indent + text == truth for text in (one, other)]
    return Typed((bool(one), right[0]), (bool(other), right[1]), columns(truth) < len(request.indent))


def by_confidence(singles: Sequence[Single | None]) -> dict:
    shown = [each for each in singles if each is not None]
    rows: list[list[float]] = []
    for share in (0.0, *SHARES):
        row = [share]
        for part in (
            [each for each in shown if each.confidence >= share],
            [each for each in shown if each.confidence < share],
        ):
            row += [len(part), mean([each.is_right for each in part]), mean([each.word_is_right for each in part])]
        rows.append(row)
    print(f"\nThe rest of a line, {len(singles)} holes, {len(shown)} answers: right by confidence\n")
    head = ("confidence", "at least", "line right", "word right", "below", "line right", "word right")
    print(table(head, [[f"{c:.2f}", int(n), pc(r), pc(w), int(m), pc(s), pc(v)] for c, n, r, w, m, s, v in rows]))
    return {"holes": len(singles), "shown": len(shown), "rows": rows}


def by_line(several: Sequence[Answered]) -> dict:
    ways = {
        "all": lambda each: len(each.said),
        "rules": lambda each: each.n_left,
        "sure": lambda each: sure_lines(each.lines, LINE_CONFIDENCE, LATER_CONFIDENCE),
    }
    figures: dict = {"holes": len(several)}
    print(f"\nSeveral lines, {len(several)} holes: of the lines that are shown, how many stood there\n")
    rows = []
    for name, count in ways.items():
        figures[name] = counts(several, [count(each) for each in several])
        rows.append([name, *(f"{right}/{shown} {pc(right / max(1, shown))}" for right, shown in figures[name])])
    print(table(("", *(f"line {n + 1}" for n in range(MAX_LINES))), rows))
    print("\nLater lines by what is asked of a line and of all up to it: shown, right, of them\n")
    grid = []
    for line, so_far in GRID:
        later = counts(several, [sure_lines(each.lines, line, so_far) for each in several])[1:]
        right, shown = sum(r for r, _ in later), sum(s for _, s in later)
        grid.append([line, so_far, shown, right, round(right / max(1, shown), 4)])
    print(table(("line", "so far", "shown", "right", "share"), [[*row[:4], pc(row[4])] for row in grid]))
    return figures | {"grid": grid}


def counts(several: Sequence[Answered], n_shown: Sequence[int]) -> list[tuple[int, int]]:
    """For each line: how often it is right, and how often it is shown."""
    found = []
    for n in range(MAX_LINES):
        pairs = [
            (each.said[n], each.truth[n] if n < len(each.truth) else None)
            for each, k in zip(several, n_shown, strict=True)
            if n < min(k, len(each.said))
        ]
        found.append((sum(a == b for a, b in pairs), len(pairs)))
    return found


def sure_lines(lines: Sequence[Line], line: float, so_far: float) -> int:
    """How many lines are left when each after the first needs so much confidence, and all up to it."""
    return next(
        (n for n, each in enumerate(lines) if n and (each.confidence < line or each.so_far < so_far)), len(lines)
    )


def of_typed(typed: Sequence[Typed]) -> dict:
    figures: dict = {}
    print("\nBehind typed indentation\n")
    rows = []
    for name, part in (("inside", [t for t in typed if not t.is_end]), ("end", [t for t in typed if t.is_end])):
        figures[name] = {"holes": len(part)}
        for way in ("fed", "from_column_0"):
            shown, right = (sum(getattr(each, way)[n] for each in part) for n in (0, 1))
            figures[name][way] = {"shown": shown, "right": right}
            rows.append([f"{name}, {way.replace('_', ' ')}", len(part), shown, right])
    print(table(("", "holes", "shown", "right"), rows))
    return figures


def mean(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))


def pc(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
