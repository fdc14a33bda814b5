"""The states on disk of all models, for `codestral-lsp cache`: in a process of its own, which loads no model and no torch.

    python -I -m daemon.cache_command ls
    python -I -m daemon.cache_command verify [--remove]
    python -I -m daemon.cache_command purge --workspace PATH... | --all

Prints JSON: a list of ModelOnDisk, a VerifyReport or a PurgeReport of daemon/protocol.py. Where the disk refuses, one line on stderr and status 1.
Knows: the disk tier, what daemons note beside a state. Does not know: running daemons, terminals.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Ctrl-C has nothing to clear up: a purge that was cut short is a purge of less.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import msgspec

from cache import tiers
from daemon.budgets import STATES
from daemon.kept import kept, noted
from daemon.protocol import DamagedState, ModelOnDisk, PurgeReport, VerifyReport
from model.digest import cache_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m daemon.cache_command",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls", allow_abbrev=False)
    commands.add_parser("verify", allow_abbrev=False).add_argument("--remove", action="store_true")
    what = commands.add_parser("purge", allow_abbrev=False).add_mutually_exclusive_group(required=True)
    what.add_argument("--workspace", action="append", help="absolute path; may be given more than once")
    what.add_argument("--all", action="store_true")
    args = parser.parse_args(arguments)
    folder = cache_folder() / STATES
    try:
        if args.command == "ls":
            answer: object = on_disk(folder)
        elif args.command == "verify":
            answer = verified(folder, remove=args.remove)
        else:
            answer = purged(folder, None if args.all else args.workspace)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"{where}{error.strerror or error}\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0


def on_disk(folder: Path) -> list[ModelOnDisk]:
    """All states, by model, from the headers of their files. Nothing is changed. Raises OSError."""
    now = time.time()
    return [
        ModelOnDisk(
            in_use=tier.in_use,
            model=noted(tier.entries, "model", ""),
            tokens_per_s=noted(tier.entries, "tokens_per_s", 0.0),
            states=[kept(entry, now=now) for entry in tier.entries],
            damaged=[damaged(verdict) for verdict in tier.damaged],
        )
        for tier in tiers.all_tiers(folder)
        if tier.entries or tier.damaged
    ]


def verified(folder: Path, *, remove: bool) -> VerifyReport:
    """Reads every byte of every state. Raises OSError."""
    verdicts = list(tiers.verify(folder, remove=remove))
    bad = [verdict for verdict in verdicts if verdict.why is not None]
    return VerifyReport(
        states=len(verdicts),
        nbytes=sum(verdict.nbytes for verdict in verdicts),
        damaged=[damaged(verdict) for verdict in bad],
        removed=sum(not os.path.lexists(verdict.path) for verdict in bad),
    )


def purged(folder: Path, workspaces: Sequence[str] | None) -> PurgeReport:
    """Removes the states of some workspaces, or all (None). Raises OSError, after all that could be removed."""
    states = nbytes = 0
    fault: OSError | None = None
    for workspace in [None] if workspaces is None else workspaces:
        try:
            removed = tiers.purge_all(folder, workspace)
        except OSError as error:
            fault = error
        else:
            states, nbytes = states + removed[0], nbytes + removed[1]
    if fault is not None:
        raise fault
    return PurgeReport(states=states, nbytes=nbytes)


def damaged(verdict: tiers.Verdict) -> DamagedState:
    return DamagedState(path=str(verdict.path), nbytes=verdict.nbytes, why=verdict.why or "")


if __name__ == "__main__":
    sys.exit(main())
