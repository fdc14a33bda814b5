"""What `codestral-lsp complete` says in a repository that the model has never seen, on the command line as a user would ask.

    python benchmarks/held_out.py --corpus build/corpus [--package httpie] [--holes 24]

Writes a held-out package of the corpus to a scratch folder with one hole in each of some files, the rest of a line, and asks the installed program at each
of them. Prints what was suggested and what stood there, then one JSON line. Needs the corpus (python -m training.corpus --out build/corpus).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.holes import Hole, edit_similarity, sample_holes

SCRIPT = Path(sys.executable).with_name("codestral-lsp")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--package", default="httpie")
    parser.add_argument("--holes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    rows = [json.loads(line) for line in (args.corpus / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [row for row in rows if row["package"] == args.package]
    if not found:
        parser.error(f"--package is {args.package}, expected one of {', '.join(row['package'] for row in rows)}")
    files = dict(found[0]["files"])
    holes = sample_holes(list(files.items()), n_holes=args.holes, per_file=1, seed=args.seed)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-held-") as folder:
        root = Path(folder)
        write_repository(root / "repository", files, holes)
        (root / "run").mkdir(mode=0o700)
        environment = os.environ | {"XDG_RUNTIME_DIR": str(root / "run"), "XDG_STATE_HOME": str(root / "state")}
        try:
            answers = [ask(root / "repository", hole, environment) for hole in holes]
        finally:
            subprocess.run([str(SCRIPT), "stop"], env=environment, stdout=subprocess.DEVNULL, check=False)
    exact = sum(answer["text"].rstrip() == hole.truth.rstrip() for hole, answer in zip(holes, answers, strict=True))
    similar = [
        edit_similarity(answer["text"].rstrip(), hole.truth.rstrip())
        for hole, answer in zip(holes, answers, strict=True)
    ]
    result = {
        "package": args.package,
        "holes": len(holes),
        "shown": sum(bool(answer["text"]) for answer in answers),
        "exact": exact,
        "edit_similarity": round(sum(similar) / len(similar), 3),
        "context_tokens": answers[0]["context_tokens"],
        "median_ms": sorted(answer["ms"]["total"] for answer in answers[1:])[len(answers) // 2 - 1],
    }
    print(json.dumps(result))
    return 0


def write_repository(root: Path, files: dict[str, str], holes: list[Hole]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    for hole in holes:
        text = hole.request.head + hole.request.prompt + hole.following
        (root / str(hole.request.path)).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)


def ask(root: Path, hole: Hole, environment: dict[str, str]) -> dict:
    above = hole.request.head + hole.request.prompt
    line, column = above.count("\n") + 1, len(above.rpartition("\n")[2]) + 1
    place = f"{root / str(hole.request.path)}:{line}:{column}"
    done = subprocess.run([str(SCRIPT), "complete", place, "--json"], env=environment, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    start = above.rpartition("\n")[2].strip()
    mark = "=" if answer["text"].rstrip() == hole.truth.rstrip() else " "
    print(f"{mark} {start[-60:]}[{answer['text']}]\n      really: {hole.truth.rstrip()}", flush=True)
    return answer


if __name__ == "__main__":
    sys.exit(main())
