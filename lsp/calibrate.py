"""The command `calibrate`: cuts holes in the user's repository, has them asked in every way, and shows what came of it.

Knows the repository, the process that measures and the terminal; knows no model. What is measured and how the best is chosen is in daemon/calibrate.py;
its process is started like the daemon's and told on stdin what to ask, one JSON line each.

Raises ClickException with one line for whatever cannot be done. Ctrl-C ends both processes, and nothing is kept.
"""

import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import click
import msgspec
from click import ClickException
from click.exceptions import Exit

from context.listing import is_git_top, tracked_files
from context.plan import plan_base
from context.repository import ReadError, find_root, read_repository
from daemon.protocol import (
    CalibrationFailure,
    CalibrationHole,
    CalibrationProgress,
    CalibrationReset,
    CalibrationResult,
    CalibrationRow,
    CalibrationStart,
    Document,
    SocketError,
    WindowSizes,
)
from lsp.documents import encodable
from lsp.fleet import sockets_of, stop_all
from lsp.holes import WINDOWS, Hole, cut_holes, requests_for
from lsp.launch import LaunchError
from lsp.settings import Settings
from lsp.terminal import counted

INTERRUPTED = 130
MAX_CONTEXT_TOKENS = 65_536
BYTES_PER_TOKEN = 2.9  # an estimate for planning; the daemon counts
SPARSE_S = 10.0  # between two lines of progress where no terminal rewrites one
News = CalibrationProgress | CalibrationResult | CalibrationFailure


def calibrate(place: Path, settings: Settings, *, n_holes: int, seed: int, as_json: bool) -> None:
    """Measures, keeps the profile, and prints what was found; daemons that run with the old profile are ended."""
    try:
        if not place.exists():
            raise ClickException(f"{place}: no such file or folder")
        root = find_root(place)
        if not is_git_top(root):
            raise ClickException(f"{place}: not in a git repository, expected one: holes are cut in tracked files")
        documents, holes = job_of(root, n_holes=n_holes, seed=seed)
        n_files = len({hole.path for hole in holes})
        click.echo(f"{root}: {counted(len(holes), 'hole')} in {counted(n_files, 'file')}", err=True)
        result = run(command_of(settings), documents, holes)
        n_stopped = asyncio.run(stop_all(sockets_of(settings.model))) if result.profile else 0
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None
    except (ReadError, LaunchError, SocketError) as error:
        raise ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        click.echo("\n".join(report_of(result)))
    if n_stopped:
        click.echo(f"{counted(n_stopped, 'running daemon')} of this model stopped: the next one uses this", err=True)
    elif not result.profile:
        click.echo(
            "nothing was kept: a profile that the model had before stays, and so does a running daemon", err=True
        )


def reset(settings: Settings, *, as_json: bool) -> None:
    """Removes the model's profile and ends the daemons that run with it."""
    try:
        done = _told([*command_of(settings), "--reset"])
        n_stopped = asyncio.run(stop_all(sockets_of(settings.model))) if done.was_there else 0
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None
    except (LaunchError, SocketError) as error:
        raise ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.encode(done).decode())
    elif done.was_there:
        click.echo(f"{done.profile}: removed, model {done.model} is asked in its default way again")
    else:
        click.echo(f"model {done.model} has no profile")
    if n_stopped:
        click.echo(f"{counted(n_stopped, 'running daemon')} of this model stopped", err=True)


def _told(command: Sequence[str]) -> CalibrationReset:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", check=False)
    try:
        news = msgspec.json.decode(done.stdout, type=CalibrationReset | CalibrationFailure)
    except msgspec.DecodeError:
        lines = done.stderr.decode("utf-8", "replace").strip().split("\n")
        raise ClickException(f"the process that removes it ended with status {done.returncode}: {lines[-1]}") from None
    if isinstance(news, CalibrationFailure):
        raise ClickException(news.message)
    return news


def command_of(settings: Settings) -> list[str]:
    """`-I`, as for the daemon: neither the environment nor the current folder decides what is run."""
    program = [sys.executable, "-I", "-m", "daemon.calibrate"]
    return [*program, "--model", settings.model, "--precision", settings.precision]


def job_of(root: Path, *, n_holes: int, seed: int) -> tuple[list[Document], list[Hole]]:
    """The context, without any file that has a hole, and the holes. Raises ReadError or ClickException."""
    files = read_repository(root).files
    tracked = tracked_files(root)
    if tracked is None:
        raise ClickException(f"{root}: git does not list its files, expected a repository that git can read")
    holes = cut_holes([file for file in files if file.path in tracked], n_holes=n_holes, seed=seed)
    if not holes:
        raise ClickException(f"{root}: no tracked file is long enough for a hole, expected some of 10 lines and more")
    holed = {hole.path for hole in holes}
    others = [file for file in files if file.path not in holed]
    plan = plan_base(others, budget_tokens=MAX_CONTEXT_TOKENS, bytes_per_token=BYTES_PER_TOKEN)
    return [Document(path=encodable(file.path), text=file.text) for file in plan.files], holes


def run(command: Sequence[str], documents: list[Document], holes: Sequence[Hole]) -> CalibrationResult:
    """Starts the process, tells it what to ask and follows it to its result. It does not outlive this one."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd="/")
        except OSError as error:
            raise ClickException(f"{command[0]}: cannot be run ({error.strerror})") from None
        assert process.stdin is not None and process.stdout is not None
        # In a thread: the process may say why it ends before it has read everything.
        threading.Thread(target=tell, args=(process.stdin, documents, holes), daemon=True).start()
        try:
            for news in listen(process.stdout):
                if isinstance(news, CalibrationResult):
                    return news
                if isinstance(news, CalibrationFailure):
                    raise ClickException(news.message)
            errors.seek(0)
            lines = [line.strip() for line in errors.read().decode("utf-8", "replace").split("\n") if line.strip()]
            last_words = lines[-1] if lines else "it left no message"
            raise ClickException(f"the measuring process ended with status {process.wait()}: {last_words}")
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()


def tell(stdin: IO[bytes], documents: list[Document], holes: Sequence[Hole]) -> None:
    windows = [WindowSizes(step=size.step, suffix_chars=size.suffix_chars) for size in WINDOWS]
    try:
        with stdin:
            stdin.write(msgspec.json.encode(CalibrationStart(windows=windows, documents=documents)) + b"\n")
            for hole in holes:
                line = CalibrationHole(truth=hole.truth, where=hole.where, requests=requests_for(hole))
                stdin.write(msgspec.json.encode(line) + b"\n")
    except BrokenPipeError:  # it has ended, and its output says why
        return


def listen(stdout: IO[bytes]) -> Iterator[CalibrationResult | CalibrationFailure]:
    """Shows progress; gives the last word, if there is one."""
    progress = Progress()
    try:
        for line in stdout:
            try:
                news = msgspec.json.decode(line, type=News)
            except msgspec.DecodeError as error:
                raise ClickException(f"the measuring process said what is no news ({error}): {line[:60]!r}") from None
            if isinstance(news, CalibrationProgress):
                progress.show(news)
            else:
                progress.end()
                yield news
    finally:
        progress.end()


class Progress:
    """One line on a terminal that is written over; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said, self._said_at = "", 0.0
        self._started: float | None = None  # of the part that is counted

    def show(self, news: CalibrationProgress) -> None:
        now = time.monotonic()
        line = news.what
        if news.total:
            self._started = self._started or now
            line += f": {news.done} of {news.total}"
            if news.done:
                line += f", {(now - self._started) / news.done * (news.total - news.done):.0f} s left"
        if self._is_terminal:
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif news.what != self._said or now - self._said_at > SPARSE_S:
            click.echo(line, err=True)
            self._said, self._said_at = news.what, now

    def end(self) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def report_of(result: CalibrationResult) -> list[str]:
    """For people. `±` is one standard error."""
    heads = ("", "strategy", "window", "exact line", "similarity", "gain", "nats/token", "key", "move")
    rows = [heads, *(cells_of(row, result) for row in result.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    is_default = (result.strategy, result.window) == (result.default_strategy, result.default_window)
    kept = ["nothing was kept"]
    if result.profile:
        kept = [
            f"kept: {result.strategy} with window {name_of(result.window)}{', the default' if is_default else ''}; "
            "the profile is the model's, for every repository",
            f"profile: {result.profile}",
        ]
    return [
        f"model {result.model} ({result.precision}) on this machine: "
        f"feeds {result.feed_tokens_per_s:,.0f} and decodes {result.decode_tokens_per_s:,.0f} tokens a second",
        f"{counted(result.n_holes, 'hole')}, {result.context_tokens:,} tokens of other files as context; ± is one standard error",
        "",
        *table,
        "window A+B: characters above+below the cursor's line; nats/token: log-probability of the true rest, nearer 0 is better; "
        "key, move: what one more typed character costs, and a cursor somewhere new",
        "",
        *kept,
        *(f"- {note}" for note in result.notes),
    ]


def cells_of(row: CalibrationRow, result: CalibrationResult) -> tuple[str, ...]:
    is_kept = (row.strategy, row.window) == (result.strategy, result.window)
    is_default = (row.strategy, row.window) == (result.default_strategy, result.default_window)
    return (
        "*" if is_kept else " ",
        row.strategy,
        name_of(row.window),
        f"{100 * row.exact:.0f} % ± {100 * row.exact_error:.0f}",
        with_error(row.similarity, row.similarity_error),
        "(default)" if is_default else with_error(row.gain, row.gain_error, sign="+"),
        "-" if row.log_probability is None else f"{row.log_probability:.2f}",
        f"{row.tokens_per_key:.1f} tokens, {row.ms_per_key:.0f} ms",
        f"{row.tokens_per_move:.0f} tokens, {row.ms_per_move:.0f} ms",
    )


def with_error(value: float, error: float | None, *, sign: str = "") -> str:
    return f"{value:{sign}.3f}" + ("" if error is None else f" ± {error:.3f}")


def name_of(window: WindowSizes) -> str:
    """Characters above and below the cursor's line."""
    return f"{window.step}+{window.suffix_chars}"
