"""The model commands: `codestral-lsp pull|models|quantize|export|score|bench` end up here, in a process of their own.

    python -I -m model COMMAND ...

Knows arguments, exit codes and the terminal; what a command does is in its own file, imported when it runs: `--help` must
not wait for torch. Exit codes as the program's (lsp/__main__.py): 0 it worked, 1 it failed, 2 it was asked wrongly, 130
interrupted. Whatever goes wrong is one line on stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import click

from model.config import ConfigError
from model.progress import ProgressLine, shown_bytes

PROGRAM = "codestral-lsp"
BUNDLED = "bundled"
PRECISION_NAMES = ("auto", "fp32", "bf16", "int8", "int4")
EXPORT_KINDS = ("f32", "f16", "bf16", "q8_0", "q4_0")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        return program.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False) or 0
    except (click.exceptions.Abort, KeyboardInterrupt):  # Ctrl-C
        return 130
    except click.UsageError as error:
        _complain(f"{error.format_message()} (see {error.ctx.command_path if error.ctx else PROGRAM} --help)")
        return 2
    except (click.ClickException, ConfigError) as error:
        _complain(error.format_message() if isinstance(error, click.ClickException) else str(error))
        return 1
    except Exception as error:  # a fault of ours, or no memory left: still one line, and a way to see the rest
        if os.environ.get("CODESTRAL_LSP_LOG", "").lower() == "debug":
            raise
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            _complain("not enough memory for this model at this precision; codestral-lsp models says what fits")
        else:
            _complain(f"internal error: {type(error).__name__}: {error} (CODESTRAL_LSP_LOG=debug shows where)")
        return 1


def _complain(message: str) -> None:
    click.echo(f"{PROGRAM}: {_harmless(' '.join(message.split()))}", err=True)


def _harmless(text: str) -> str:
    """What a hub or a file says must not steer the terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


_Command = Callable[..., None]


def _model(command: _Command) -> _Command:
    return click.option(
        "--model",
        metavar="NAME|PATH",
        default=BUNDLED,
        envvar="CODESTRAL_LSP_MODEL",
        show_default=True,
        help="bundled, a pulled name, a folder or a .gguf file (also CODESTRAL_LSP_MODEL).",
    )(command)


def _precision(command: _Command) -> _Command:
    return click.option(
        "--precision",
        type=click.Choice(PRECISION_NAMES),
        default="auto",
        envvar="CODESTRAL_LSP_PRECISION",
        show_default=True,
        help="Of the weights; auto is by this machine's memory (also CODESTRAL_LSP_PRECISION).",
    )(command)


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def program() -> None:
    """Models: what is here, where to get them, how good and how fast they are."""


@program.command()
@click.argument("name", metavar="ORG/NAME")
@click.option("--revision", metavar="REVISION", help="A branch, tag or commit instead of main.")
def pull(name: str, revision: str | None) -> None:
    """Download a model from the hub, or go on where a download stopped.

    The licence is shown first. Files go to the hub's own cache (HF_HOME), are checked against their checksums, and are
    never pickles. HF_TOKEN, HF_ENDPOINT, HTTPS_PROXY and HF_HUB_OFFLINE have a say.
    """
    from model.hub import config_at, find, parse_name, pulled
    from model.pull import ask, fetch, is_offline

    wanted = parse_name(f"{name}@{revision}" if revision is not None else name)
    if wanted is None:
        raise click.UsageError(f"{name}: expected the name of a model on the hub, ORG/NAME")
    if is_offline():
        snapshot = find(wanted)
        if snapshot is None:
            here = ", ".join(str(snapshot.name) for snapshot in pulled()) or "nothing"
            raise ConfigError(f"{wanted}: is not here, and HF_HUB_OFFLINE is set; here is: {here}")
        if snapshot.missing:
            raise ConfigError(f"{wanted}: is here without {', '.join(snapshot.missing)}, and HF_HUB_OFFLINE is set")
        click.echo("offline (HF_HUB_OFFLINE): nothing is downloaded, this is what is here", err=True)
        folder = snapshot.folder
    else:
        offer = ask(wanted)
        click.echo(f"{wanted} at {offer.commit[:12]}", err=True)
        click.echo(_harmless(f"licence  {offer.licence}{', gated' if offer.is_gated else ''}"), err=True)
        here = f", {shown_bytes(offer.n_bytes_here)} of them here already" if offer.n_bytes_here else ""
        names = ", ".join(file.path for file in offer.files)
        click.echo(_harmless(f"files    {shown_bytes(offer.n_bytes)} in {len(offer.files)}: {names}{here}"), err=True)
        with ProgressLine() as progress:
            folder = fetch(offer, check_config=config_at, progress=progress)
    from model import library  # takes longer to import than to see that a name is wrong

    click.echo(f"{wanted} {library.fit_line(library.describe(str(wanted)), library.machine())}", err=True)
    click.echo(folder)


@program.command()
@_json
def models(as_json: bool) -> None:
    """List the models that are here, their sizes, and what fits this machine."""
    from model import library

    default = library.default_model()
    found, kept, here = library.entries(default), library.copies(), library.machine()
    if as_json:
        click.echo(json.dumps(library.as_object(found, kept, here, default)))
    else:
        click.echo("\n".join(library.as_table(found, kept, here, default)))


@program.command()
@_model
@click.option("--precision", type=click.Choice(("int8", "int4")), required=True, help="Of the copy.")
def quantize(model: str, precision: str) -> None:
    """Make the copy in int8 or int4 that is kept of a large model now, instead of when it is first loaded."""
    from model.quantize import quantize as make

    with ProgressLine() as progress:
        path = make(model, precision, progress=progress)
    click.echo(path)


@program.command()
@_model
@click.option("--gguf", "out", metavar="OUT", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--kind",
    type=click.Choice(EXPORT_KINDS, case_sensitive=False),
    default="bf16",
    show_default=True,
    help="Of the matrices.",
)
def export(model: str, out: Path, kind: str) -> None:
    """Write a model as a GGUF file, for llama.cpp and its like."""
    from model.export import export as write

    with ProgressLine() as progress:
        written = write(model, out, kind, progress)
    for note in written.notes:
        click.echo(note, err=True)
    click.echo(f"{written.path}: {shown_bytes(written.n_bytes)}", err=True)
    click.echo(written.path)


@program.command()
@click.argument("file", metavar="[FILE]", required=False)
@_model
@_precision
@click.option(
    "--ids", metavar="1,2,3", help="Token ids instead of a file; they need no tokenizer. - reads them from stdin."
)
@click.option("--threads", type=click.IntRange(min=1), help="The default leaves one core to others.")
@_json
def score(file: str | None, model: str, precision: str, ids: str | None, threads: int | None, as_json: bool) -> None:
    """Say how likely a text is to a model, token by token.

    FILE is UTF-8 text, - is stdin. The model reads it after its token for the beginning, so every token of the text is
    scored; --ids are read as they are, and all but the first are scored. Bits per byte: minus the sum of the
    log-probabilities, in bits, over the bytes of the scored tokens.
    """
    from model import score as scoring

    if (file is None) == (ids is None):
        raise click.UsageError("expected either FILE or --ids")
    stdin = sys.stdin.buffer
    wanted = None if ids is None else scoring.parse_ids(stdin.read().decode("ascii", "replace") if ids == "-" else ids)
    text = None if file is None else scoring.read_bytes(file, stdin)
    _prepare_torch(threads)
    with ProgressLine() as progress:
        scored, name, used = scoring.score(
            model, precision=_choice(precision), text=text, ids=wanted, source=file or "", progress=progress
        )
    if as_json:
        click.echo(json.dumps(scoring.as_object(scored, model=name, precision=used), allow_nan=False))
    else:
        click.echo("\n".join(scoring.as_lines(scored, model=name, precision=used)))


@program.command()
@_model
@_precision
@click.option(
    "--threads", type=click.IntRange(min=1), help="The default leaves one core to others, as the daemon does."
)
@_json
def bench(model: str, precision: str, threads: int | None, as_json: bool) -> None:
    """Measure how fast this machine feeds and decodes, and how near that is to what it can do at all."""
    from model import bench as benching

    n_threads = _prepare_torch(threads)
    with ProgressLine() as progress:
        measured = benching.bench(model, precision=_choice(precision), n_threads=n_threads, progress=progress)
    if as_json:
        click.echo(json.dumps(benching.as_object(measured), allow_nan=False))
    else:
        click.echo("\n".join(benching.as_table(measured)))


def _choice(precision: str) -> str | None:
    return None if precision == "auto" else precision


def _prepare_torch(threads: int | None) -> int:
    """As the daemon runs it; the number of threads."""
    import torch

    from model.machine import default_threads

    n_threads = threads or default_threads()
    torch.set_num_threads(n_threads)
    torch.set_flush_denormal(True)
    return n_threads


if __name__ == "__main__":
    if not sys.flags.isolated:  # the user's PYTHONPATH and current folder have no say in what is imported
        os.execv(sys.executable, [sys.executable, "-I", "-m", "model", *sys.argv[1:]])
    main()
