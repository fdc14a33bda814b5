"""A workspace to measure in: real code found on this machine, cut to so many tokens, in a git repository of its own; and a home that is nobody's.

The code is the standard library of the Python that runs this; it is copied to a scratch folder and never kept. Knows: files, tokens, git. Does not know:
servers, scripts.
"""

import os
import random
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.typing_script import HeldOut, hold_out
from context.ignore import why_never_read
from model.fim import document_ids
from model.tokenizer import Tokenizer

LEFT_OUT_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
PLANNED_BYTES_PER_TOKEN = 2.9  # by which the client estimates before a token is counted
PLANNED_TOKENS = 262_000.0  # of its estimate, that it sends at most
LINES_DIFFER = 0.95  # the part of a file with as many tokens as wanted is not quite the same part of its lines
HELD_OUT_BYTES = (14_000, 40_000)  # of a file that is typed: long enough to have a far away
OTHER_CHARS = (3_000, 8_000)  # of the repository file that is saved again
N_HELD_OUT = 3
HOLE_CHARS = 3_000


class WorkspaceError(Exception):
    """There is not enough code on this machine. One line, for people."""


@dataclass(frozen=True, slots=True)
class Code:
    """What a workspace is made of: `other` stands first in `files`, so it is in every workspace that holds anything."""

    held_out: tuple[HeldOut, ...]
    files: tuple[tuple[str, str], ...]  # paths and texts, in the order in which they are taken

    @property
    def other(self) -> tuple[str, str]:
        return self.files[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Folders that the processes of one run share, and the environment that keeps them there. `root` is short: a socket lies below it."""

    root: Path

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("CODESTRAL_", "XDG_", "OMP_"))
        }
        return kept | {
            "HOME": str(self.root / "home"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
        }


def find_code(seed: int) -> Code:
    """Raises WorkspaceError."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [path for path in sorted(library.rglob("*.py")) if LEFT_OUT_FOLDERS.isdisjoint(path.parts)]
    texts = {path.relative_to(library).as_posix(): text for path in found if (text := usable(path))}
    paths = list(texts)
    random.Random(seed).shuffle(paths)
    low, high = HELD_OUT_BYTES
    typed = [path for path in paths if low <= len(texts[path]) <= high][:N_HELD_OUT]
    rest = [path for path in paths if path not in typed]
    low, high = OTHER_CHARS
    other = next((path for path in rest if low <= len(texts[path]) <= high), None)
    if len(typed) < N_HELD_OUT or other is None:
        raise WorkspaceError(f"{library}: {len(texts)} files of code, expected Python's whole standard library")
    ordered = [other, *(path for path in rest if path != other)]
    held_out = tuple(hold_out(path, texts[path], hole_chars=HOLE_CHARS) for path in typed)
    return Code(held_out, tuple((path, texts[path]) for path in ordered))


def usable(path: Path) -> str | None:
    """The text of a file of plain code. ASCII only, so that an offset is a position in every encoding an editor may speak."""
    data = path.read_bytes()
    if not 200 < len(data) < 150_000 or not data.isascii() or b"\r" in data or b"\f" in data:
        return None
    text = data.decode("ascii")
    return None if why_never_read(path.name, text) else text


def cut_to(
    code: Code, n_tokens: int, tokenizer: Tokenizer, *, most_planned: float = PLANNED_TOKENS
) -> list[tuple[str, str]]:
    """The first files, up to `n_tokens`; the last one is cut at a line. A larger number gives the files of a smaller one and more.

    Where the client's own estimate would exceed `most_planned` tokens there are fewer, since it would leave files out. Raises WorkspaceError where all the
    code is not enough.
    """
    chosen: list[tuple[str, str]] = []
    left, left_planned = float(n_tokens), most_planned
    for path, text in code.files:
        taken, planned = len(document_ids(tokenizer, path, text)), planned_tokens(path, text)
        share = min(left / taken, left_planned / planned)
        if share < 1:
            lines = text.splitlines(keepends=True)
            part = "".join(lines[: int(len(lines) * share * LINES_DIFFER)])
            if len(part) > 200 or (not chosen and n_tokens):
                chosen.append((path, part or text))
            return chosen
        chosen.append((path, text))
        left -= taken
        left_planned -= planned
    raise WorkspaceError(f"{n_tokens} tokens wanted, but all code of this Python has {n_tokens - left:.0f}")


def planned_tokens(path: str, text: str) -> float:
    """What the client takes a file for."""
    return (len(text) + len(path) + 10) / PLANNED_BYTES_PER_TOKEN


def make_place(root: Path, files: Sequence[tuple[str, str]]) -> Place:
    """The repository with one commit, and empty folders for everything else."""
    place = Place(root)
    for name in ("repository", "run", "home", "state", "cache"):
        (root / name).mkdir(mode=0o700, parents=True)
    write_files(place.repository, dict(files))
    git = ["git", "-C", str(place.repository), "-c", "user.name=nobody", "-c", "user.email=nobody@example.invalid"]
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--allow-empty", "--message", "all of it"],
    ):
        subprocess.run([*git, *words], env=place.environment, check=True)
    return place


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
