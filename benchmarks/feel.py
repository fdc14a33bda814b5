"""How suggestions feel: a typist types real code through the real language server, and every key and every answer is looked at as it stands on the screen.

    python benchmarks/feel.py                       this repository and an installed package, 6 files each, at a typist's pace (about 7 minutes)
    python benchmarks/feel.py --quick               one round of 3 files without waiting (half a minute)
    python benchmarks/feel.py --show --rounds 1     and the replay of the first file, key by key, on the terminal

The bundled model reads the project first. Then, in one file after the other, a function's body, some lines or what stands in brackets is typed that was cut
out before anything was read: with wrong keys and Backspace, brackets and quotes that close themselves, Enter that indents, looks elsewhere, Esc, and
suggestions that are taken whole or by the word where they are what was to be typed. Every second file is typed in an editor that tells the server
nothing and cancels nothing. What must never be seen is counted: text that is replaced while it agrees with what is typed, text for an older state,
brackets that stand there twice, suggestions that come back after Esc. Ends with a table, then one JSON line; status 1 where a goal is missed and
`--strict` is given.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.daemon_process import DaemonError, DaemonProcess
from benchmarks.editor_client import ServerError
from benchmarks.feel_figures import failures, figure_table, figures
from benchmarks.feel_holes import Project, projects_of
from benchmarks.feel_picture import as_svg, in_terminal, write_trace
from benchmarks.feel_replay import STYLES, Played, Window
from benchmarks.feel_superseded import superseded
from benchmarks.feel_typist import keys_alone
from benchmarks.prompt_reader import PromptReader
from benchmarks.scratch_workspace import Code, WorkspaceError, cut_to, make_place
from benchmarks.stats import machine, print_json
from benchmarks.unix_http import HttpError
from lsp.launch import stop_at

ROUNDS, FILES, TOKENS, MOST_CHARS = 2, 6, 32_768, 400
QUICK_FILES, QUICK_TOKENS, QUICK_CHARS = 3, 8_192, 160
ROOM_TOKENS = 8_192
MODEL, PRECISION = "bundled", "int8"
REPETITIONS = 3


def main() -> int:
    args = arguments()
    try:
        projects = projects_of(
            args.sources, rounds=args.rounds, holes=args.files, most_chars=args.most_chars, seed=args.seed
        )
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-feel-", ignore_cleanup_errors=True) as folder:
            played, popups = asyncio.run(play_all(projects, args=args, folder=Path(folder)))
            place = make_place(Path(folder) / "superseded", ())
            ended = superseded(place, model=MODEL, precision=PRECISION, repetitions=1 if args.quick else REPETITIONS)
    except (ServerError, DaemonError, HttpError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    alone = {each.hole.path: keys_alone(each.hole, seed=args.seed) for each in played}
    found = figures(played, alone, ended)
    missed = failures(found) + [f"popup: {text}" for text in popups]
    tell(played, args=args)
    print(figure_table(found))
    for each in played:
        for problem in each.problems:
            print(f"{problem.kind}: {each.hole.path} ({each.style.name} editor): {problem.detail}", file=sys.stderr)
    print_json(
        found
        | {
            "missed": missed,
            "projects": [project.name for project in projects],
            "seed": args.seed,
            "pace": args.pace,
            "tokens": args.tokens,
            "machine": machine(),
        }
    )
    return 1 if missed and args.strict else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=None, help=f"projects, one after the other ({ROUNDS})")
    parser.add_argument("--files", type=count, default=None, help=f"that are typed in each ({FILES})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=count, default=None, help=f"of a project that are read ({TOKENS})")
    parser.add_argument("--most-chars", type=count, default=None, help=f"typed in a file ({MOST_CHARS})")
    parser.add_argument("--pace", type=float, default=None, help="1: a typist's, 0.5: twice as fast, 0: no waiting")
    parser.add_argument(
        "--sources", type=Path, nargs="*", default=[], help="folders of code, instead of the usual ones"
    )
    parser.add_argument("--quick", action="store_true", help=f"one round of {QUICK_FILES} short holes, pace 0")
    parser.add_argument("--strict", action="store_true", help="status 1 where a goal is missed")
    parser.add_argument("--show", action="store_true", help="the first file's replay, key by key")
    parser.add_argument("--picture", type=Path, help="the same as an SVG")
    parser.add_argument("--keep-trace", type=Path, help="all keys, lines and suggestions as JSON lines")
    args = parser.parse_args()
    usual = (1, QUICK_FILES, QUICK_TOKENS, QUICK_CHARS, 0.0) if args.quick else (ROUNDS, FILES, TOKENS, MOST_CHARS, 1.0)
    for name, value in zip(("rounds", "files", "tokens", "most_chars", "pace"), usual, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 on")
    return int(text)


async def play_all(
    projects: list[Project], *, args: argparse.Namespace, folder: Path
) -> tuple[list[Played], list[str]]:
    """The replays, and what the server would have opened windows for."""
    reader = PromptReader.of_model(MODEL)
    played: list[Played] = []
    popups: list[str] = []
    for number, project in enumerate(projects):
        files = cut_to(Code((), project.files), args.tokens, reader.tokenizer) if args.tokens else []
        place = make_place(folder / str(number), files)
        options = {"model": MODEL, "precision": PRECISION, "context_max_tokens": args.tokens + ROOM_TOKENS}
        window = await Window.open(place, options, pace=args.pace)
        try:
            for turn, hole in enumerate(project.holes):
                style = STYLES[turn % len(STYLES)]
                played.append(await window.play(hole, style=style, seed=args.seed))
                last = played[-1]
                words = f"{project.name}/{hole.path}: {last.n_keys} keys in {last.seconds:.1f} s"
                print(f"{words}, {len(last.problems)} problems", file=sys.stderr, flush=True)
        finally:
            await window.client.close()
            await stop_at(DaemonProcess(place, model=MODEL, precision=PRECISION, threads=None).socket)
        popups += window.client.popups
    return played, popups


def tell(played: list[Played], *, args: argparse.Namespace) -> None:
    """Whatever else was asked for."""
    if args.show:
        print(in_terminal(played[0], colour=sys.stdout.isatty()), end="\n\n")
    if args.picture is not None:
        args.picture.write_text(as_svg(played[0]), encoding="utf-8")
    if args.keep_trace is not None:
        write_trace(args.keep_trace, played)


if __name__ == "__main__":
    sys.exit(main())
