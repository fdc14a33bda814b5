"""The model commands: `codestral-lsp pull|models|quantize|export|score|bench` end up here, in a process of their own.

    python -I -m model COMMAND ...

Knows arguments, exit codes and the terminal; what a command does is in its own file, imported when it runs: `--help` must
not wait for torch. Exit codes as the program's (lsp/__main__.py): 0 it worked, 1 it failed, 2 it was asked wrongly, 130
interrupted. Whatever goes wrong is one line on stderr.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

# Ctrl-C while modules load has nothing to clear up and nothing to say. Where it is ignored, it stays so.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

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
    except OSError as error:  # a disk or a file, mostly: what it says is enough
        if os.environ.get("CODESTRAL_LSP_LOG", "").lower() == "debug":
            raise
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error} ({type(error).__name__}; CODESTRAL_LSP_LOG=debug shows where)")
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
        help="Of the weights; auto is by this machine's memory, mostly int8; fp32 runs them as they are stored (also "
        "CODESTRAL_LSP_PRECISION).",
    )(command)


_threads = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="At most one a core; the default leaves one core to others, as the daemon does.",
)
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
        with _work() as progress:
            folder = fetch(offer, check_config=config_at, progress=progress)
    from model import library  # takes longer to import than to see that a name is wrong

    click.echo(f"{wanted} {library.fit_line(library.describe(str(wanted)), library.machine())}", err=True)
    click.echo(folder)


@program.command()
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1)
@click.option(
    "--remove-copies",
    is_flag=True,
    help="Delete the quantised copies, those of the named models or all, and list them.",
)
@_json
def models(names: tuple[str, ...], remove_copies: bool, as_json: bool) -> None:
    """List the models that are here, their sizes, and what fits this machine.

    With names or paths only those. The quantised copies that were kept of large models are listed too; removing them
    costs no more than the time to make them again.
    """
    from model import library

    kept = library.copies()
    if names:
        of_names = {name: library.copies_of(name, kept) for name in names}
        kept = [copy for copy in kept if any(copy in some for some in of_names.values())]
        if remove_copies and (without := [name for name, some in of_names.items() if not some]):
            raise ConfigError(f"{without[0]}: no quantised copy of it is kept, codestral-lsp models lists them")
    if remove_copies:
        library.remove(kept)
        if as_json:
            click.echo(json.dumps({"removed": [library.copy_object(copy) for copy in kept]}))
        else:
            click.echo("\n".join([f"removed {library.copy_line(copy)}" for copy in kept] or ["no quantised copies"]))
        return
    default, here = library.default_model(), library.machine()
    found, broken = ([library.describe(name) for name in names], []) if names else library.entries(default)
    listed = library.Listed(found, broken, kept)
    if as_json:
        click.echo(json.dumps(library.as_object(listed, here, default)))
    else:
        click.echo("\n".join(library.as_table(listed, here, default)))


@program.command()
@_model
@click.option("--precision", type=click.Choice(("int8", "int4")), required=True, help="Of the copy.")
def quantize(model: str, precision: str) -> None:
    """Make the copy in int8 or int4 that is kept of a large model now, instead of when it is first loaded.

    Small models are quantised at every start: nothing is kept of them, and there is nothing to do.
    """
    from model import library

    library.locate(model)
    from model.quantize import TooSmall
    from model.quantize import quantize as make

    before = library.copies_as_they_are()
    try:
        with _work() as progress:
            path = make(model, precision, progress=progress)
    except TooSmall as error:
        click.echo(str(error), err=True)
        return
    if library.copies_as_they_are() == before:
        click.echo(f"is there already, {shown_bytes(path.stat().st_size)}", err=True)
    _tell_of_copies(before)
    click.echo(path)


@program.command()
@_model
@click.option(
    "--gguf", "out", metavar="OUT.gguf", type=click.Path(path_type=Path), required=True, help="The new file to write."
)
@click.option(
    "--kind",
    type=click.Choice(EXPORT_KINDS, case_sensitive=False),
    help="Of the matrices; by default f16, bf16 or f32 as the model stores them, bf16 where it is quantised.",
)
def export(model: str, out: Path, kind: str | None) -> None:
    """Write a model as a GGUF file, for llama.cpp and its like."""
    from model import library
    from model.export import check_out
    from model.export import export as write

    check_out(out)
    library.locate(model)
    with _work() as progress:
        written = write(model, out, kind, progress)
    for note in written.notes:
        click.echo(note, err=True)
    click.echo(f"{shown_bytes(written.n_bytes)} in {written.kind}", err=True)
    click.echo(written.path)


@program.command()
@click.argument("file", metavar="[FILE]", required=False)
@_model
@_precision
@click.option(
    "--ids",
    metavar="1,2,3",
    help="Token ids instead of a file, also as a JSON list; they need no tokenizer. - reads them from stdin, where they "
    "may also be what score --json has printed.",
)
@click.option("--tokens", "with_tokens", is_flag=True, help="Print a line for each token before the totals.")
@_threads
@_json
def score(
    file: str | None,
    model: str,
    precision: str,
    ids: str | None,
    with_tokens: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Say how likely a text is to a model, token by token.

    FILE is UTF-8 text, - is stdin, and so is no FILE in a pipe. The model reads it after its token for the beginning, so
    every token of the text is scored; --ids are read as they are, and all but the first are scored. Bits per byte: minus
    the sum of the log-probabilities, in bits, over the bytes of the scored tokens.

    The daemon's precision is used, which is auto's and mostly int8; --precision fp32 measures the weights as they are
    stored. In JSON, token_logprobs has one entry for each of ids, null for the first; logprobs leaves that null out.
    """
    from model import library
    from model.score_input import parse_ids, read_text, require_some

    if file is not None and ids is not None:
        raise click.UsageError("expected either FILE or --ids, found both")
    if file is None and ids is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError("expected FILE (- is stdin) or --ids")
    library.locate(model)
    text = wanted = None
    if ids is not None:
        wanted = parse_ids(sys.stdin.buffer.read().decode("utf-8", "replace") if ids == "-" else ids)
        require_some(wanted)
    else:
        text = read_text(file or "-", sys.stdin.buffer)
    from model import score as scoring

    _prepare_torch(threads)
    before = library.copies_as_they_are()
    with _work() as progress:
        scored, name, used = scoring.score(
            model, precision=_choice(precision), text=text, ids=wanted, progress=progress
        )
    _tell_of_copies(before)
    if as_json:
        found = scoring.as_object(scored, model=name, precision=used, with_tokens=with_tokens)
        click.echo(json.dumps(found, allow_nan=False))
        return
    for line in scoring.token_lines(scored) if with_tokens else ():
        click.echo(line)
    lines = scoring.as_lines(scored, model=name, precision=used, is_automatic=precision == "auto")
    click.echo("\n".join(["", *lines] if with_tokens else lines))


@program.command()
@_model
@_precision
@_threads
@_json
def bench(model: str, precision: str, threads: int | None, as_json: bool) -> None:
    """Measure how fast this machine feeds and decodes, and how near that is to what it can do at all.

    feed N is N tokens of a known text at once, as a repository and a typed line are read: the state before them is kept,
    and the logits of the last token are computed. decode 1 is a token of a suggestion: its state is written over the one
    before, and the likeliest token is chosen and goes in next. feed 1 is therefore a decode step that keeps its state.
    """
    from model import library

    library.locate(model)
    from model import bench as benching

    n_threads = _prepare_torch(threads)
    before = library.copies_as_they_are()
    with _work() as progress:
        measured = benching.bench(model, precision=_choice(precision), n_threads=n_threads, progress=progress)
    _tell_of_copies(before)
    if as_json:
        click.echo(json.dumps(benching.as_object(measured), allow_nan=False))
    else:
        click.echo("\n".join(benching.as_table(measured)))


@contextmanager
def _work() -> Iterator[ProgressLine]:
    """The part of a command after its imports: shows progress, and Ctrl-C lets it clear up after itself."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with ProgressLine() as progress:
        yield progress


def _tell_of_copies(before: set[tuple[Path, int, int]]) -> None:
    """Hundreds of megabytes are not to appear in silence."""
    from model import library

    for path in sorted(path for path, *_ in library.copies_as_they_are() - before):
        click.echo(
            f"kept for the next start: {shown_bytes(path.stat().st_size)} at {path} (codestral-lsp models --remove-copies "
            "removes it)",
            err=True,
        )


def _choice(precision: str) -> str | None:
    return None if precision == "auto" else precision


def _prepare_torch(threads: int | None) -> int:
    """As the daemon runs it; the number of threads."""
    import torch

    from model.machine import default_threads, n_cores

    n_threads = min(threads or default_threads(), n_cores())
    if threads is not None and threads > n_threads:
        click.echo(f"--threads {threads}: more than the cores here, using {n_threads}", err=True)
    torch.set_num_threads(n_threads)
    torch.set_flush_denormal(True)
    return n_threads


if __name__ == "__main__":
    if not sys.flags.isolated:  # the user's PYTHONPATH and current folder have no say in what is imported
        os.execv(sys.executable, [sys.executable, "-I", "-m", "model", *sys.argv[1:]])
    main()
