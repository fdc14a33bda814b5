"""The program `codestral-lsp`: arguments, exit codes and nothing else.

What the commands do is in `commands`, imported when one runs.

Exit codes: 0 it worked, 1 it failed, 2 it was asked wrongly, 130 interrupted. Whatever goes wrong is one line on stderr;
a reader that goes away (`| head -1`) is no reason for one, and click sees to that.
"""

import os
import signal

if __name__ == "__main__":
    # Until the imports are done, Ctrl-C ends the process at once: an exception in the middle of one would be a traceback. The console script has held it
    # back until here (codestral_lsp_entry.py).
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import click

PROGRAM = "codestral-lsp"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        return program.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0
    except click.exceptions.Abort:  # Ctrl-C
        return 130
    except click.UsageError as error:
        _complain(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else PROGRAM} --help)")
        return 2
    except click.ClickException as error:
        _complain(error.format_message())
        return 1
    except Exception as error:  # a fault of ours: still one line, and a way to see the rest
        if os.environ.get("CODESTRAL_LSP_LOG", "").lower() == "debug":
            raise
        _complain(f"internal error: {type(error).__name__}: {error} (CODESTRAL_LSP_LOG=debug shows where)")
        return 1


def _complain(message: str) -> None:
    click.echo(f"{PROGRAM}: {' '.join(message.split())}", err=True)


def _show_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if not is_wanted:
        return
    try:
        click.echo(f"{PROGRAM} {metadata.version(PROGRAM)}")
    except metadata.PackageNotFoundError:
        raise click.ClickException("is not installed as a package, so it has no version") from None
    context.exit()


_model = click.option(
    "--model",
    metavar="NAME|PATH",
    help="The model: bundled (the default), a pulled ORG/NAME, a folder or a .gguf file (also CODESTRAL_LSP_MODEL).",
)
_precision = click.option(
    "--precision",
    type=click.Choice(("auto", "fp32", "bf16", "int8", "int4")),
    help="Of the model's weights; auto (the default) is by this machine's memory (also CODESTRAL_LSP_PRECISION).",
)
_idle_minutes = click.option(
    "--idle-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="The daemon ends after so many minutes without a request; the default is 30 (also CODESTRAL_LSP_IDLE_MINUTES).",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--stdio", is_flag=True, help="Serve an editor: LSP on stdin and stdout.")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print the version."
)
@click.option("--model", hidden=True)
@click.option("--precision", hidden=True)
@click.pass_context
def program(context: click.Context, stdio: bool, model: str | None, precision: str | None) -> None:
    """Code completion that has read your repository.

    Editors start it with --stdio; the commands are for people and scripts.
    """
    for name, value in (("model", model), ("precision", precision)):
        if value is not None and stdio:
            raise click.UsageError(
                f"--stdio takes no --{name}: an editor sets it as {name!r} in initializationOptions, "
                f"or in the environment as CODESTRAL_LSP_{name.upper()}"
            )
        if value is not None:
            raise click.UsageError(f"--{name} stands behind a command, as in codestral-lsp status --{name} {value}")
    if context.invoked_subcommand is not None:
        if stdio:
            raise click.UsageError("--stdio stands alone, without a command")
        return
    if not stdio:
        raise click.UsageError("expected --stdio or a command")
    from lsp.log import log_to_stderr
    from lsp.server import run_stdio

    log_to_stderr()
    run_stdio()


@program.command()
@_model
@_precision
@_idle_minutes
def serve(model: str | None, precision: str | None, idle_minutes: float | None) -> None:
    """Run the daemon in the foreground. Editors and `complete` find it."""
    from lsp import commands

    commands.serve(commands.settings_of(model, precision, idle_minutes=idle_minutes))


@program.command()
@click.argument("place", metavar="PATH:LINE:COLUMN")
@_json
@_model
@_precision
@_idle_minutes
def complete(place: str, as_json: bool, model: str | None, precision: str | None, idle_minutes: float | None) -> None:
    """Complete the code before LINE:COLUMN of a file, with its repository as context.

    Lines and columns count from 1, columns in characters, as compilers print them; one past a line's last character is
    its end. The daemon is started if need be.
    """
    from lsp import commands

    where = commands.parse_place(place)
    settings = commands.settings_of(model, precision, idle_minutes=idle_minutes)
    commands.complete(where, settings, as_json=as_json)


@program.command()
@_json
@_model
@_precision
def status(as_json: bool, model: str | None, precision: str | None) -> None:
    """Say which daemons run, what they hold and what they are reading.

    All of yours, or with --model those of one model.
    """
    from lsp import commands

    commands.status(model, precision, as_json=as_json)


@program.command()
@_model
@_precision
@click.option("--all", "stop_everything", is_flag=True, help="All of your daemons, of whatever model.")
def stop(model: str | None, precision: str | None, stop_everything: bool) -> None:
    """End the daemon of a model and wait until it is gone.

    Without --precision those in every precision.
    """
    from lsp import commands

    commands.stop(model, precision, stop_everything=stop_everything)


@program.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, max=7 * 24 * 60, min_open=True),
    help="After which suggestions come again by themselves; without it, not before `resume`.",
)
def pause(minutes: float | None) -> None:
    """Suggest nothing in any of your editor windows, from now on."""
    from lsp import pause as pausing

    try:
        paused = pausing.Pause().begin(minutes)
    except pausing.PauseError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{paused.words()}; codestral-lsp resume ends that")


@program.command()
def resume() -> None:
    """Suggest again, after `pause`."""
    from lsp import pause as pausing

    try:
        click.echo("suggestions come again" if pausing.Pause().end() else "nothing was paused")
    except pausing.PauseError as error:
        raise click.ClickException(str(error)) from None


@program.command("stats")
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True, help="How far to look back.")
@click.option("--reset", is_flag=True, help="Forget all counts instead.")
@_json
def statistics(days: int, reset: bool, as_json: bool) -> None:
    """Say how often suggestions were shown and taken, what that has saved, and how long answers took.

    All of it was counted on this machine, and is sent nowhere.
    """
    from lsp import stats_command

    if reset:
        stats_command.reset(as_json=as_json)
    else:
        stats_command.stats(days=days, as_json=as_json)


@program.command()
@click.argument("path", default=".", type=click.Path(path_type=Path))
@_model
@_precision
@click.option("--holes", type=click.IntRange(1, 1000), default=40, show_default=True, help="To cut and fill.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which holes: the same seed cuts the same ones.")
@click.option(
    "--reset", is_flag=True, help="Remove the model's profile instead, so that it is asked in its default way."
)
@_json
def calibrate(
    path: Path, model: str | None, precision: str | None, holes: int, seed: int, reset: bool, as_json: bool
) -> None:
    """Find the best way of asking the model, on your own repository, and keep it.

    Cuts holes in tracked files of the git repository around PATH, fills them in every way the model can be asked, measures
    this machine's speed, and keeps the best as the model's profile, which the daemon reads when it starts. There is one
    profile for each model, not for each repository: the last calibration holds everywhere. Of fewer than 20 holes nothing
    is kept.
    """
    from lsp import calibrate as calibration
    from lsp.commands import settings_of

    settings = settings_of(model, precision)
    if reset:
        calibration.reset(settings, as_json=as_json)
    else:
        calibration.calibrate(path, settings, n_holes=holes, seed=seed, as_json=as_json)


@program.group(no_args_is_help=False)
def cache() -> None:
    """What is kept of repositories, in memory and on disk, so that it need not be read again."""


@cache.command()
@_json
@_model
@_precision
def ls(as_json: bool, model: str | None, precision: str | None) -> None:
    """List every kept state: what it covers, its size, and how long it would take to make it again.

    Of all models, whether a daemon runs for them or not, or with --model of one.
    """
    from lsp import cache_commands

    cache_commands.ls(model, precision, as_json=as_json)


@cache.command()
@_json
@_model
@_precision
def stats(as_json: bool, model: str | None, precision: str | None) -> None:
    """Say how full memory and disk are, and how often a state was found there."""
    from lsp import cache_commands

    cache_commands.stats(model, precision, as_json=as_json)


@cache.command()
@click.option("--remove", is_flag=True, help="Remove what is damaged.")
@_json
def verify(remove: bool, as_json: bool) -> None:
    """Read every byte of every state on disk and compare it with what was written.

    Exits with 1 where damage stays.
    """
    from lsp import cache_commands

    cache_commands.verify(remove=remove, as_json=as_json)


@cache.command()
@click.option(
    "--workspace",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="What was derived from this folder, or from a repository that holds it or lies in it.",
)
@click.option("--all", "everything", is_flag=True, help="Everything.")
@_json
def purge(workspace: Path | None, everything: bool, as_json: bool) -> None:
    """Remove what is kept, from daemons that run and from disk. It is read again when it is needed."""
    from lsp import cache_commands

    cache_commands.purge(workspace, everything=everything, as_json=as_json)


class _ModelCommand(click.Command):
    """A command about models themselves, in a process that may import them: this one becomes `python -m model`.

    All arguments are handed on as they are, --help too; exit codes and Ctrl-C are then that process's own.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> NoReturn:
        os.execv(sys.executable, [sys.executable, "-I", "-m", "model", str(self.name), *ctx.args])


# One line for each in this program's own help. model/__main__.py has the rest, and a test sees that both say the same.
MODEL_COMMANDS = {
    "pull": "Download a model from the hub, or go on where a download stopped.",
    "models": "List the models that are here, their sizes, and what fits this machine.",
    "quantize": "Make the copy in int8 or int4 that is kept of a large model now, instead of when it is first loaded.",
    "export": "Write a model as a GGUF file, for llama.cpp and its like.",
    "score": "Say how likely a text is to a model, token by token.",
    "bench": "Measure how fast this machine feeds and decodes, and how near that is to what it can do at all.",
}
for _name, _help in MODEL_COMMANDS.items():
    program.add_command(_ModelCommand(_name, help=_help))


if __name__ == "__main__":
    if not sys.flags.isolated:  # the user's PYTHONPATH and current folder have no say in what is imported
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        os.execv(sys.executable, [sys.executable, "-I", "-m", "lsp", *sys.argv[1:]])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
