"""What an edit costs when a repository is read in one order or another: tokens to be fed again, on real histories.

    python benchmarks/reading_order.py [GIT_FOLDER ...] [--ahead 100] [--splits 4] [--budget 262144]

At each of `--splits` commits in a repository's past, its files are planned as they were then, with weights from the history up to then; the next `--ahead`
commits say what was edited. An edit of a file makes the model read that file and everything behind it again; a commit, from the first of its files in the
order. Orders: `name` (by kind, folder and name, as before there were weights), `prior` (by kind, then weight / size without git), `history` (the same with
git: what plan_base does), `oracle` (with the edits that then came), `free` (history, kinds mixed). Prints a table, then one JSON line.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.stats import print_json, table
from context.history import edit_weights, prior_weight
from context.kinds import Kind, kind_of
from context.plan import Plan, estimate_tokens, plan_base
from context.repository import SourceFile, read_repository

BYTES_PER_TOKEN = 3.5
ORDERS = ("name", "prior", "history", "oracle", "free")
KIND_RANK = {Kind.DATA: 0, Kind.PROSE: 0, Kind.ROOT_README: 0, Kind.TEST: 1, Kind.SOURCE: 2}


class Moment(NamedTuple):
    """A repository at one commit, and what the following commits touched of it, the next one first."""

    files: tuple[SourceFile, ...]
    weights: Mapping[str, float]
    edits: list[list[str]]


class Cost(NamedTuple):
    """Means over the edits and over the commits that came."""

    per_edit: float
    per_commit: float
    n_edits: int
    n_commits: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).resolve().parent.parent])
    parser.add_argument("--ahead", type=int, default=100, help="commits whose edits are counted after each split")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--budget", type=int, default=1 << 18, help="tokens")
    args = parser.parse_args()
    rows, figures = [], {}
    for folder in args.folders:
        where = folder.resolve()
        name = where.parent.name if where.name in ("repo", ".git") else where.name
        moments = read_moments(folder, ahead=args.ahead, splits=args.splits)
        costs = {order: measure(moments, order=order, budget=args.budget) for order in ORDERS}
        total = sum(plan(moment, "name", args.budget).estimated_tokens for moment in moments) / max(1, len(moments))
        figures[name] = {
            "tokens": round(total),
            **{order: {key: round(value) for key, value in cost._asdict().items()} for order, cost in costs.items()},
        }
        whole = costs["name"]
        rows.append(
            [name, f"{total:,.0f}", f"{whole.n_edits}", *(f"{costs[order].per_edit:,.0f}" for order in ORDERS)]
            + [f"{costs[order].per_commit:,.0f}" for order in ("name", "history")]
        )
    head = ["repository", "tokens", "edits", *ORDERS, "commit: name", "commit: history"]
    print(table(head, rows))
    print_json(
        {"bytes_per_token": BYTES_PER_TOKEN, "ahead": args.ahead, "splits": args.splits, "repositories": figures}
    )
    return 0


def read_moments(git_folder: Path, *, ahead: int, splits: int) -> list[Moment]:
    """The repository at `splits` commits, each `ahead` before the one after it; a short history is cut into equal parts."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder).resolve() / "clone"
        run(["git", "clone", "-q", "--shared", "--no-checkout", str(git_folder), str(clone)])
        commits = run(["git", "-C", str(clone), "rev-list", "--no-merges", "HEAD"]).split()
        ahead = min(ahead, len(commits) // (splits + 1))
        moments = []
        for n in range(1, splits + 1):
            then, later = commits[min(n * ahead, len(commits) - 1)], commits[(n - 1) * ahead]
            run(["git", "-C", str(clone), "checkout", "-q", "--force", "--detach", then])
            files = read_repository(clone).files
            sizes = {file.path: len(file.text.encode()) for file in files}
            names = [
                "log",
                "--name-only",
                "--no-renames",
                "--no-merges",
                "--reverse",
                "--format=%x00",
                f"{then}..{later}",
            ]
            touched = run(["git", "-C", str(clone), "-c", "core.quotepath=off", *names]).split("\0")[1:]
            edits = [commit.split("\n") for commit in touched]
            moments.append(Moment(files, edit_weights(clone, sizes, sizes=sizes), edits))
        return moments


def measure(moments: Sequence[Moment], *, order: str, budget: int) -> Cost:
    edits = commits = edit_tokens = commit_tokens = 0
    for moment in moments:
        behind, total = {}, 0
        for file in reversed(plan(moment, order, budget).files):
            total += estimate_tokens(file, bytes_per_token=BYTES_PER_TOKEN)
            behind[file.path] = total
        for names in moment.edits:
            costs = [behind[name] for name in names if name in behind]
            edits += len(costs)
            edit_tokens += sum(costs)
            commits += bool(costs)
            commit_tokens += max(costs, default=0)
    return Cost(edit_tokens / max(1, edits), commit_tokens / max(1, commits), edits, commits)


def plan(moment: Moment, order: str, budget: int) -> Plan:
    """All orders are of the same files and outlines, those of the plan."""
    weights = moment.weights
    if order in ("prior", "name"):
        weights = {file.path: prior_weight(file.path, len(file.text.encode())) for file in moment.files}
    if order == "oracle":
        weights = {file.path: 1e-9 for file in moment.files}
        for name in (name for names in moment.edits for name in names if name in weights):
            weights[name] += 1
    made = plan_base(moment.files, budget_tokens=budget, bytes_per_token=BYTES_PER_TOKEN, weights=weights)
    if order == "name":
        files = sorted(
            made.files, key=lambda file: (KIND_RANK[kind_of(file.path)], file.path.split("/")[:-1], file.path)
        )
    elif order == "free":
        cost = {file.path: estimate_tokens(file, bytes_per_token=BYTES_PER_TOKEN) for file in made.files}
        files = sorted(made.files, key=lambda file: (made.weights[file.path] / cost[file.path], file.path))
    else:
        return made
    return Plan(tuple(files), made.left_out, made.estimated_tokens, made.weights, made.outlined)


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


if __name__ == "__main__":
    raise SystemExit(main())
