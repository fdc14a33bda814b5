"""What the commands do: ask the daemon and print.

Knows files, the daemon and the terminal; knows no LSP, and argument parsing is in `__main__`.

Raises ClickException with one line for whatever cannot be done.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from click import ClickException, UsageError
from click.exceptions import Exit

from context.ignore import why_secret
from context.listing import is_git_top
from context.repository import ReadError, find_root, read_document, read_repository
from daemon.protocol import CompletionResponse, Health, SocketError, socket_path
from lsp.client import DaemonError
from lsp.completion import relative_path, request_at
from lsp.launch import Daemon, LaunchError, connect, daemon_command, find
from lsp.launch import stop as stop_daemon
from lsp.session import plan_documents, window_size
from lsp.settings import AUTO, BUNDLED, MODEL_EXPECTED, Settings, WrongValue, is_hub_name, parse_model, read_settings

NEWS_S = 2.0  # how long one question after the context's status may wait; the progress line moves that often

INTERRUPTED = 130

_PLACE = re.compile(r"(?P<path>.+):(?P<line>[0-9]{1,9}):(?P<column>[0-9]{1,9})", re.DOTALL)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column count from 1."""

    path: Path
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading the repository has cost: 0 tokens when the daemon had read it before."""

    context: str | None = None
    tokens_fed: int = 0
    ms: float = 0.0


def parse_place(text: str) -> Place:
    """PATH:LINE:COLUMN. Raises UsageError."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text}: expected PATH:LINE:COLUMN")
    line, column = int(found["line"]), int(found["column"])
    if line < 1 or column < 1:
        raise UsageError(f"{text}: lines and columns count from 1")
    return Place(Path(found["path"]), line, column)


def settings_of(model: str | None, precision: str | None, *, idle_minutes: float | None = None) -> Settings:
    """The environment's settings and, before them, the options'. A path may be relative to the current folder.

    Raises UsageError.
    """
    settings, problems = read_settings(None, os.environ)
    for problem in problems:
        click.echo(problem, err=True)
    if idle_minutes is not None:
        settings = replace(settings, idle_minutes=idle_minutes)
    if precision is not None:
        settings = replace(settings, precision=precision)
    if model is None:
        return settings
    try:
        is_path = model not in ("", BUNDLED) and not _means_hub(model)
        return replace(settings, model=parse_model(os.path.abspath(os.path.expanduser(model)) if is_path else model))
    except (WrongValue, ValueError):
        raise UsageError(f"--model: expected {MODEL_EXPECTED}, found {model!r}") from None


def _means_hub(model: str) -> bool:
    """Whether an argument names a model of the hub: a folder here of such a name is meant only where none was pulled.

    Otherwise a workspace could put its own weights in the place of those asked for.
    """
    if not is_hub_name(model):
        return False
    if not os.path.exists(model):
        return True
    from huggingface_hub import constants  # 20 ms, for this rare case only

    folder = f"models--{model.partition('@')[0].replace('/', '--')}"
    return os.path.isdir(os.path.join(constants.HF_HUB_CACHE, folder))


def serve(settings: Settings) -> None:
    """Becomes the daemon: the same process, so that signals and the exit code are its own."""
    path = _answer(lambda: socket_path(settings.model, settings.precision))
    options = daemon_command(settings.model, path, precision=settings.precision, idle_minutes=settings.idle_minutes)
    command = [*options, "--foreground"]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise ClickException(f"{command[0]}: cannot be run ({error.strerror})") from None


def complete(place: Place, settings: Settings, *, as_json: bool) -> None:
    text = _answer(lambda: read_document(place.path))
    offset = offset_of(text, place)
    path = Path(os.path.realpath(place.path))
    if secret := why_secret(str(path), text):
        raise ClickException(f"{place.path}: is never sent to a model: {secret}")
    response, reading = _run(_complete(text, offset, path=path, settings=settings))
    suggestion = response.choices[0].message.content if response.choices else ""
    if as_json:
        _print_json(_as_object(suggestion, response, reading))
    elif not suggestion:
        click.echo(f"{place.path}:{place.line}:{place.column}: no suggestion", err=True)
    elif sys.stdout.isatty():
        click.echo(in_place(text, offset, suggestion))
    else:
        click.echo(suggestion)


def status(settings: Settings, *, as_json: bool) -> None:
    health = _run(find(settings.model, settings.precision))
    if as_json:
        _print_json({"running": health is not None, **({} if health is None else msgspec.to_builtins(health))})
    elif health is None:
        click.echo(_none_runs(settings))
    else:
        click.echo("\n".join(_lines(health)))


def stop(settings: Settings) -> None:
    was_there = _run(stop_daemon(settings.model, settings.precision))
    click.echo("stopped" if was_there else _none_runs(settings))


def _none_runs(settings: Settings) -> str:
    precision = "" if settings.precision == AUTO else f" in {settings.precision}"
    return f"no daemon runs for model {settings.model}{precision}"


def offset_of(text: str, place: Place) -> int:
    """The index into `text` before the column. Raises ClickException for a place beyond the end."""
    lines = text.split("\n")
    # As compilers count, the last line end starts no line; the cursor can stand there all the same.
    n_lines = max(1, len(lines) - (lines[-1] == ""))
    if place.line > len(lines):
        raise ClickException(
            f"{place.path}:{place.line}: beyond the end, the file has {n_lines} line{'s' * (n_lines != 1)}"
        )
    line = lines[place.line - 1]
    if place.column > len(line) + 1:
        where = f"{place.path}:{place.line}:{place.column}"
        raise ClickException(
            f"{where}: beyond the end, line {place.line} has {len(line)} characters, so columns 1 to {len(line) + 1}"
        )
    return sum(len(before) + 1 for before in lines[: place.line - 1]) + place.column - 1


def in_place(text: str, offset: int, suggestion: str) -> str:
    """The cursor's line with the suggestion dimmed in it, safe to show on a terminal."""
    line_start, line_end = text.rfind("\n", 0, offset) + 1, text.find("\n", offset)
    after = text[offset : line_end if line_end >= 0 else len(text)]
    return _harmless(text[line_start:offset]) + click.style(_harmless(suggestion), dim=True) + _harmless(after)


async def _complete(text: str, offset: int, *, path: Path, settings: Settings) -> tuple[CompletionResponse, Reading]:
    daemon = await connect(settings.model, precision=settings.precision, idle_minutes=settings.idle_minutes, say=_tell)
    try:
        root = find_root(path)
        if is_git_top(root):
            reading = await _feed(daemon, root, max_tokens=settings.context_max_tokens)
        else:
            reading = Reading()
            click.echo(f"{path}: not in a git repository, so the file itself is all the context", err=True)
        name = relative_path(path, root)
        request = request_at(
            text,
            offset,
            path=name,
            document=None,
            max_tokens=settings.max_tokens,
            budget_ms=None,
            size=window_size(daemon.health),
        )
        return await daemon.client.complete(msgspec.structs.replace(request, context=reading.context)), reading
    finally:
        await daemon.client.close()


async def _feed(daemon: Daemon, root: Path, *, max_tokens: int) -> Reading:
    """Waits until the repository's context is ready."""
    started = time.monotonic()
    _tell("reading the repository")
    documents = plan_documents(read_repository(root), daemon.health, max_tokens=max_tokens)
    status = await daemon.client.post_context(documents)
    while status.state != "ready":
        _tell(f"reading the repository: {status.tokens_fed + status.tokens_reused} of {status.tokens} tokens")
        status = await daemon.client.context_status(status.id, wait_s=NEWS_S)
    _tell("")
    return Reading(status.id, tokens_fed=status.tokens_fed, ms=1000 * (time.monotonic() - started))


def _tell(what: str) -> None:
    """One line on a terminal that is written over; nothing where a program reads."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}", nl=False, err=True)


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    return _answer(lambda: asyncio.run(work))


def _answer(work: Callable[[], _Result]) -> _Result:
    """The result; an error that is meant for people becomes a ClickException."""
    try:
        return work()
    except (DaemonError, LaunchError, SocketError, ReadError) as error:
        raise ClickException(str(error)) from None
    except KeyboardInterrupt:  # click would print an empty line
        raise Exit(INTERRUPTED) from None
    finally:
        _tell("")


def _as_object(suggestion: str, response: CompletionResponse, reading: Reading) -> dict[str, Any]:
    """What the command has cost as a whole, reading the repository included."""
    report = response.report
    ms = {name: float(value) for name, value in msgspec.to_builtins(report.ms).items()}
    for name in ("context", "total"):
        ms[name] += reading.ms
    return {
        "text": suggestion,
        "model": response.model,
        "context_tokens": report.context_tokens,
        "tokens_fed": report.tokens_fed + reading.tokens_fed,
        "tokens_reused": report.tokens_reused - reading.tokens_fed,
        "stopped_by": report.stopped_by,
        "ms": {name: round(value, 1) for name, value in ms.items()},
    }


def _lines(health: Health) -> list[str]:
    lines = [f"daemon   pid {health.pid}, version {health.version}, {health.state}, up {_span(health.uptime_s)}"]
    if health.model is not None:
        precision = f" in {health.model.precision}" if health.model.precision else ""
        lines.append(
            f"model    {health.model.id}{precision}, contexts of up to {health.model.max_context_tokens} tokens"
        )
    if health.error:
        lines.append(f"error    {health.error}")
    lines.append(f"contexts {health.contexts}")
    lines.append(f"store    {health.store_bytes / 1e6:.1f} of {health.store_budget_bytes / 1e6:.1f} MB")
    lines.append(f"idle     ends after {_span(health.idle_timeout_s)} without a request")
    return lines


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_json(value: dict[str, Any]) -> None:
    click.echo(msgspec.json.encode(value).decode())


def _harmless(text: str) -> str:
    """Text of a file or a model must not steer the terminal."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
