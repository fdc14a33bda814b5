"""What is typed: regions of real code, cut out of the files of a project that lies on this machine, and the project around them.

A project is this repository, an installed package that it depends on, or a folder that is named. Its files go to a scratch workspace as they are; those that
are typed in lie there without their hole, so nothing that is read holds what is typed. Knows: files, chance. Does not know: servers, keys.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.feel_editor import LANGUAGES, Language
from benchmarks.scratch_workspace import LEFT_OUT_FOLDERS, WorkspaceError
from context.ignore import why_never_read

OWN = Path(__file__).resolve().parent.parent
OWN_FOLDERS = ("lsp", "context", "daemon", "cache", "model")
INSTALLED = ("starlette", "pygls", "httpx", "uvicorn", "anyio", "click", "pathspec")
FILE_BYTES = (1_500, 60_000)
LEAST_CHARS = 40
_BODY = re.compile(r"^[ \t]*(?:async )?(?:def|func|fn|function)\b.*[:{]$")
_INSIDE = re.compile(r"\(([^()\n]{12,80})\)")


@dataclass(frozen=True, slots=True)
class Hole:
    """`before` + `after` is what the editor opens, `truth` what is typed between them. `kind`: "body" of a function, "lines", or "inside" of brackets."""

    path: str
    before: str
    truth: str
    after: str
    language: Language
    kind: str

    @property
    def opened(self) -> str:
        return self.before + self.after


@dataclass(frozen=True, slots=True)
class Project:
    """`files`: paths and texts, those with a hole among them as they are opened."""

    name: str
    files: tuple[tuple[str, str], ...]
    holes: tuple[Hole, ...]


def projects_of(sources: Sequence[Path], *, rounds: int, holes: int, most_chars: int, seed: int) -> list[Project]:
    """One for each round, with so many holes of up to `most_chars` characters. Without sources: this repository, then installed packages.

    Raises WorkspaceError for a folder without enough code.
    """
    folders = list(sources) or [OWN, *filter(None, map(folder_of, INSTALLED))]
    return [
        project_of(folders[number % len(folders)], n_holes=holes, most_chars=most_chars, seed=seed + number)
        for number in range(rounds)
    ]


def folder_of(package: str) -> Path | None:
    """Where an installed package lies."""
    found = find_spec(package)
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def project_of(folder: Path, *, n_holes: int, most_chars: int, seed: int) -> Project:
    """Raises WorkspaceError."""
    chance = random.Random(seed)
    tops = [folder / name for name in OWN_FOLDERS] if folder == OWN else [folder]
    found = sorted(path for top in tops for path in top.rglob("*") if path.suffix in LANGUAGES and path.is_file())
    found = [path for path in found if LEFT_OUT_FOLDERS.isdisjoint(path.relative_to(folder).parts)]
    texts = {path.relative_to(folder).as_posix(): text for path in found if (text := readable(path))}
    paths = list(texts)
    chance.shuffle(paths)
    holes: list[Hole] = []
    for path in paths:
        if len(holes) == n_holes:
            break
        if (hole := cut(path, texts[path], most_chars=most_chars, chance=chance)) is not None:
            holes.append(hole)
    if len(holes) < n_holes:
        raise WorkspaceError(f"{folder}: {len(holes)} files of code to type in, expected {n_holes}")
    opened = {hole.path: hole.opened for hole in holes}
    first = [path for path in paths if path in opened]  # they are in every workspace, however small
    ordered = first + [path for path in paths if path not in opened]
    return Project(folder.name, tuple((path, opened.get(path, texts[path])) for path in ordered), tuple(holes))


def readable(path: Path) -> str | None:
    """The text of a file of plain code whose lines end with \\n."""
    data = path.read_bytes()
    if not FILE_BYTES[0] <= len(data) <= FILE_BYTES[1] or b"\r" in data or b"\f" in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if why_never_read(path.name, text) else text


def cut(path: str, text: str, *, most_chars: int, chance: random.Random) -> Hole | None:
    """A hole of one of three kinds, None where the file has no place for one."""
    kinds = ["body", "lines", "inside"]
    chance.shuffle(kinds)
    if chance.random() < 0.5:  # brackets with something in them are in every file, bodies are what people type
        kinds.remove("inside")
        kinds.append("inside")
    language = LANGUAGES[Path(path).suffix]
    for kind in kinds:
        spans = {"body": bodies, "lines": lines, "inside": insides}[kind](text, most_chars)
        if spans:
            start, end = chance.choice(spans)
            return Hole(path, text[:start], text[start:end], text[end:], language, kind)
    return None


def bodies(text: str, most_chars: int) -> list[tuple[int, int]]:
    """From the end of a function's first line to the end of its last, both without the line's end."""
    found = []
    starts = _starts(text)
    rows = text.split("\n")
    for row, line in enumerate(rows[:-1]):
        if not _BODY.match(line):
            continue
        depth, last = _indent(line), row
        while last + 1 < len(rows) and (not rows[last + 1].strip() or _indent(rows[last + 1]) > depth):
            last += 1
        while last > row and not rows[last].strip():
            last -= 1
        start, end = starts[row] + len(line), starts[last] + len(rows[last])
        if LEAST_CHARS <= end - start <= most_chars:
            found.append((start, end))
    return found


def lines(text: str, most_chars: int) -> list[tuple[int, int]]:
    """A few lines from the file's second half on, from the end of the line before."""
    starts, rows, found = _starts(text), text.split("\n"), []
    for row in range(len(rows) // 2, len(rows) - 1):
        if not rows[row].strip():
            continue
        last = row
        while last + 2 < len(rows) and starts[last + 1] + len(rows[last + 1]) - starts[row] < most_chars:
            last += 1
        while last > row and not rows[last].strip():
            last -= 1
        start, end = starts[row] - 1, starts[last] + len(rows[last])
        if LEAST_CHARS <= end - start <= most_chars:
            found.append((start, end))
    return found


def insides(text: str, most_chars: int) -> list[tuple[int, int]]:
    """What stands between two brackets on one line, which stay."""
    spans = (match.span(1) for match in _INSIDE.finditer(text, len(text) // 4))
    return [span for span in spans if span[1] - span[0] <= most_chars]


def _starts(text: str) -> list[int]:
    """The offset of each line."""
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
