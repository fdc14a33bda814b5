"""How many tokens an edit of a file makes the model read again, by the order of the files and by where checkpoints stand among them.

    python benchmarks/placement.py [--repository FOLDER ...] [--checkpoints 16]

Made-up repositories (170 files, 256k tokens, edits by Zipf's law, 20 seeds) and real ones by their git history: weights are counted over the commits before
a split, what is edited comes from the commits behind it, so no rule has seen what it is asked. Events are runs of 1, 3 and 10 edits that are gathered before
anything is read again: the first of the edited files decides. A table in tokens, then one JSON line with 4, 8, 16 and 32 checkpoints.
Knows: git's command line, `cache.placement`. Reads no file's content.
"""

import argparse
import bisect
import itertools
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.stats import nested, print_json, table
from cache.placement import GATHERED_EDITS, place

CHECKPOINTS = (4, 8, 16, 32)
MIN_GAP_TOKENS = 512
BYTES_PER_TOKEN = 3.0
MAX_TOKENS = 262_144
MAX_FILE_BYTES = 100_000  # what is larger is data, or made by a machine
SPLIT = 0.7  # of the commits count, what comes behind them is asked
HORIZON_EDITS = 600
EVENT_EDITS = (1, 3, 10)
MIN_COMMITS = 20
N_SEEDS = 20

Rule = Callable[[Sequence[int], Sequence[float], int], list[int]]  # (sizes, weights, checkpoints) -> numbers of files


class Repository(NamedTuple):
    """Files by path, and what happens to them: how often each was edited, when last, and which are edited then, in order of time."""

    name: str
    n_tokens: list[int]
    weights: list[float]
    last_edits: list[int]  # the higher the later; -1: none
    edits: list[int]


class Cost(NamedTuple):
    """Mean tokens per event: what has to be read again wherever checkpoints stand, and the way from the checkpoint before it."""

    unavoidable: float
    loss: float


def even_by_tokens(n_tokens: Sequence[int], weights: Sequence[float], n_checkpoints: int) -> list[int]:
    """After the document in which a multiple of total / n_checkpoints lies: how BASE has been cut so far."""
    step = max(1, sum(n_tokens) // n_checkpoints)
    ends = list(itertools.accumulate(n_tokens))
    crossed = [i for i, end in enumerate(ends) if end // step > (end - n_tokens[i]) // step]
    return sorted({*crossed, len(ends) - 1})


def even_by_documents(n_tokens: Sequence[int], weights: Sequence[float], n_checkpoints: int) -> list[int]:
    n = min(len(n_tokens), n_checkpoints)
    return [(i + 1) * len(n_tokens) // n - 1 for i in range(n)]


def placed(*n_edits: float) -> Rule:
    return lambda n_tokens, weights, n: place(n_tokens, weights, n, min_gap_tokens=MIN_GAP_TOKENS, n_edits=n_edits)


RULES: Mapping[str, Rule] = {
    "even by tokens": even_by_tokens,
    "even by files": even_by_documents,
    "placed for 1 edit": placed(1.0),
    "placed for 10": placed(10.0),
    "placed": placed(*GATHERED_EDITS),
}


def orders(repository: Repository) -> dict[str, list[int]]:
    """Files' numbers in reading order."""
    numbers = range(len(repository.n_tokens))
    mean = sum(repository.weights) / len(repository.weights)
    smoothed = [weight + 0.1 * mean for weight in repository.weights]
    return {
        "by path": list(numbers),
        "stable first": sorted(numbers, key=lambda i: smoothed[i]),
        "last edited last": sorted(numbers, key=lambda i: repository.last_edits[i]),
        "edits / size": sorted(numbers, key=lambda i: smoothed[i] / max(1, repository.n_tokens[i])),
    }


def cost(repository: Repository, order: list[int], kept: list[int], *, n_edits: int) -> Cost:
    n_tokens = [repository.n_tokens[i] for i in order]
    place_of = {number: i for i, number in enumerate(order)}
    starts = list(itertools.accumulate(n_tokens, initial=0))
    checkpoints = [0, *(starts[number + 1] for number in kept)]
    unavoidable, loss = [], []
    for first in range(0, len(repository.edits) - n_edits + 1, n_edits):
        start = starts[min(place_of[number] for number in repository.edits[first : first + n_edits])]
        unavoidable.append(starts[-1] - start)
        loss.append(start - checkpoints[bisect.bisect_right(checkpoints, start) - 1])
    return Cost(statistics.fmean(unavoidable), statistics.fmean(loss))


def made_up(seed: int, *, n_files: int = 170, total: int = 256_000, n_events: int = 2000) -> Repository:
    """Sizes log-normal, edits Zipf with exponent 1.1 over files in random order; paths say nothing about either. 500 edits have been counted."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0, 1, n_files)
    n_tokens = np.maximum(1, sizes / sizes.sum() * total).astype(int)
    shares = rng.permutation(1 / np.arange(1, n_files + 1) ** 1.1)
    shares /= shares.sum()
    drawn = rng.choice(n_files, 500 + n_events, p=shares).tolist()
    return with_history("made up", n_tokens.tolist(), drawn[:500], drawn[500:])


def from_git(folder: Path) -> Repository:
    """Raises ValueError with one line for what is no repository, or has no history to learn from."""
    log = git(folder, "log", "--first-parent", "-m", "--no-renames", "--format=%x01%H", "--name-only")
    commits = [[line for line in commit.splitlines() if line] for commit in reversed(log.split("\x01")[1:])]
    if len(commits) < MIN_COMMITS:
        raise ValueError(f"{folder}: {len(commits)} commits, expected at least {MIN_COMMITS}")
    split = int(len(commits) * SPLIT)
    sizes = file_sizes(folder, commits[split - 1][0])
    total = sum(sizes.values())
    for path in sorted(sizes, key=lambda path: (sizes[path], path), reverse=True):
        if total <= MAX_TOKENS:
            break
        total -= sizes.pop(path)
    paths = sorted(sizes)
    number = {path: i for i, path in enumerate(paths)}

    def edits(some: list[list[str]]) -> list[int]:
        return [number[path] for _, *changed in some for path in changed if path in number]

    later = edits(commits[split:])[:HORIZON_EDITS]
    if len(later) < max(EVENT_EDITS):
        raise ValueError(f"{folder}: {len(later)} edits of files that were there, expected at least {max(EVENT_EDITS)}")
    return with_history(folder.absolute().name, [sizes[path] for path in paths], edits(commits[:split]), later)


def with_history(name: str, n_tokens: list[int], before: list[int], later: list[int]) -> Repository:
    last = dict(zip(before, itertools.count(), strict=False))
    counts = Counter(before)
    numbers = range(len(n_tokens))
    return Repository(name, n_tokens, [float(counts[i]) for i in numbers], [last.get(i, -1) for i in numbers], later)


def file_sizes(folder: Path, commit: str) -> dict[str, int]:
    """Tokens, about, of the text files of one commit, by path."""
    text = {line.partition(":")[2] for line in git(folder, "grep", "-I", "-l", "-e", "", commit).splitlines()}
    sizes = {}
    for line in git(folder, "ls-tree", "-r", "-l", commit).splitlines():
        about, _, path = line.partition("\t")
        size = about.split()[3]
        if path in text and size.isdecimal() and int(size) <= MAX_FILE_BYTES:
            sizes[path] = max(1, round(int(size) / BYTES_PER_TOKEN))
    return sizes


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "core.quotePath=off", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise ValueError(f"{folder}: git {arguments[0]}: {last}, expected a repository with a history")
    return done.stdout


def measure(repositories: Sequence[Repository]) -> dict[tuple[str, str, str, str], Cost]:
    """(edits gathered, order, rule, checkpoints) -> the mean over repositories of one kind."""
    found: dict[tuple[str, str, str, str], list[Cost]] = {}
    for repository in repositories:
        for order_name, order in orders(repository).items():
            n_tokens = [repository.n_tokens[i] for i in order]
            weights = [repository.weights[i] for i in order]
            for (rule_name, rule), n in itertools.product(RULES.items(), CHECKPOINTS):
                kept = rule(n_tokens, weights, n)
                for n_edits in EVENT_EDITS:
                    key = str(n_edits), order_name, rule_name, str(n)
                    found.setdefault(key, []).append(cost(repository, order, kept, n_edits=n_edits))
    return {
        key: Cost(*(statistics.fmean(column) for column in zip(*costs, strict=True))) for key, costs in found.items()
    }


def rows(costs: Mapping[tuple[str, str, str, str], Cost], n_checkpoints: int) -> list[list[str]]:
    """For each order and rule: what must be read again and what is read beside it, by the edits gathered."""
    pairs = list(dict.fromkeys((order, rule) for _, order, rule, _ in costs))
    made = []
    for order, rule in pairs:
        found = [costs[str(n_edits), order, rule, str(n_checkpoints)] for n_edits in EVENT_EDITS]
        made.append([order, rule, *(f"{each.unavoidable:,.0f} + {each.loss:,.0f}" for each in found)])
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--repository", type=Path, nargs="*", default=[Path(__file__).parents[1]], help="with a git history"
    )
    parser.add_argument("--checkpoints", type=int, choices=CHECKPOINTS, default=16, help="of the table")
    args = parser.parse_args(arguments)
    kinds: dict[str, list[Repository]] = {"made up": [made_up(seed) for seed in range(N_SEEDS)]}
    for folder in args.repository:
        try:
            repository = from_git(folder)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        name = repository.name if repository.name not in kinds else f"{repository.name} ({len(kinds)})"
        kinds[name] = [repository]
    figures: dict[tuple[str, ...], object] = {}
    for name, repositories in kinds.items():
        first, costs = repositories[0], measure(repositories)
        sizes = f"{len(first.n_tokens)} files, {sum(first.n_tokens):,} tokens, {len(first.edits):,} edits"
        print(f"\n{name}: {sizes}, {args.checkpoints} checkpoints\n")
        print(
            table(
                ["order", "checkpoints", *(f"{n} edit{'s' * (n > 1)}" for n in EVENT_EDITS)],
                rows(costs, args.checkpoints),
            )
        )
        figures |= {(name, *key, part): getattr(found, part) for key, found in costs.items() for part in Cost._fields}
    print_json(nested(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
