"""Which models are on this machine, what each needs at each precision, and what fits.

Knows the bundled folder, the hub's cache, the folder of quantised copies and the machine's memory. Reads configs, never
weights; does not know torch's tensors or the network.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from model.config import ConfigError, Mamba2Config
from model.digest import SEAL_SUFFIX, cache_folder
from model.hub import HF_CONFIG, MISTRAL_CONFIG, config_at, explain_absence, local_folder, parse_name, pulled
from model.layout import each_shape
from model.machine import available_bytes, n_cores, total_bytes, usable_bytes
from model.precision import PRECISIONS, choose_precision, weight_bytes
from model.progress import shown_bytes

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
MODEL_VARIABLE = "CODESTRAL_LSP_MODEL"
KERNELS = Path(__file__).parent / "_native.so"  # as in model/native.py, which would import torch
PROCESS_BYTES = 350_000_000  # Python, torch and the server, without a model
MAX_HEADER_BYTES = 1 << 24
EXPECTED = "expected bundled, a pulled name such as ORG/NAME, a folder with a model or a .gguf file"
SLICE_TOKENS = 256  # what the daemon feeds at once at most


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that is here. Bytes in memory are those of the whole daemon with one live state, kept states apart."""

    name: str
    kind: str  # "bundled" | "pulled" | "path"
    path: Path
    disk_bytes: int
    n_parameters: int
    memory_bytes: dict[str, int]  # by precision
    precision: str  # what "auto" chooses here


@dataclass(frozen=True, slots=True)
class Broken:
    """What was named and is no model that can run."""

    name: str
    reason: str  # one line, for people


@dataclass(frozen=True, slots=True)
class Copy:
    """Weights that were quantised once and kept. `model` is "" where the file does not say."""

    path: Path
    disk_bytes: int
    model: str
    precision: str


@dataclass(frozen=True, slots=True)
class Machine:
    memory_bytes: int
    available_bytes: int
    cores: int


class Listed(NamedTuple):
    """What `models` shows."""

    models: Sequence[Entry]
    broken: Sequence[Broken]
    copies: Sequence[Copy]


def entries(default: str = BUNDLED) -> tuple[list[Entry], list[Broken]]:
    """All models that can be named without a path, and the default where that is one, or why it is none.

    What else is in the hub's cache and no Mamba2 is left out.
    """
    found = [_entry(BUNDLED, "bundled", BUNDLED_FOLDER)]
    for snapshot in pulled():
        try:
            found.append(_entry(str(snapshot.name), "pulled", snapshot.folder))
        except ConfigError:  # a model of another kind: the cache is everybody's
            continue
    if any(entry.name == default for entry in found):
        return found, []
    try:
        return [*found, describe(default)], []
    except ConfigError as error:
        return found, [Broken(default, str(error))]


def describe(name: str) -> Entry:
    """One model by its name or path. Raises ConfigError."""
    kind, path = locate(name)
    if path.is_dir() and not any((path / config).exists() for config in (HF_CONFIG, MISTRAL_CONFIG)):
        raise ConfigError(f"{path}: no {HF_CONFIG} and no {MISTRAL_CONFIG} there, {EXPECTED}")
    return _entry(name, kind, path)


def locate(name: str) -> tuple[str, Path]:
    """What kind of name it is (see Entry) and where the model lies; the same as open_source, before torch is loaded.

    A pulled name goes before a folder of that name. Raises ConfigError where there is nothing.
    """
    if not name.strip():
        raise ConfigError(f"--model: is empty, {EXPECTED}")
    if name == BUNDLED:
        return "bundled", BUNDLED_FOLDER
    if (folder := local_folder(name)) is not None:
        return "pulled", folder
    try:
        path = Path(name).expanduser()
        is_there = path.exists()
    except (RuntimeError, ValueError, OSError) as error:  # no such user's home, a zero byte, too long a name
        raise ConfigError(f"{name[:80]}: no such folder or file ({error}), {EXPECTED}") from None
    if is_there:
        return "path", path
    raise ConfigError(
        explain_absence(name) if parse_name(name) is not None else f"{name}: no such folder or file, {EXPECTED}"
    )


def copies() -> list[Copy]:
    """The quantised copies that loading and `quantize` have kept."""
    folder = cache_folder() / "models"
    paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return [Copy(path, _disk_bytes(path), _model_of(path), path.stem.rpartition("-")[2]) for path in paths]


def copies_as_they_are() -> set[tuple[Path, int, int]]:
    """What changes when a copy is made or made again: path, inode and time."""
    found = set()
    for copy in copies():
        with suppress(OSError):  # removed by another process just now
            status = copy.path.stat()
            found.add((copy.path, status.st_ino, status.st_mtime_ns))
    return found


def copies_of(name: str, kept: Sequence[Copy]) -> list[Copy]:
    """Those of a model, by the name it was loaded under, its path, or the copy's own file name."""
    names = {name, Path(name).name, Path(name).stem, Path(os.path.abspath(os.path.expanduser(name))).name}
    return [copy for copy in kept if copy.path.name in names or (copy.model and copy.model in names)]


def remove(kept: Sequence[Copy]) -> None:
    """A daemon that runs on one keeps what it has mapped. Raises ConfigError."""
    for copy in kept:
        try:
            copy.path.unlink(missing_ok=True)
            copy.path.with_suffix(SEAL_SUFFIX).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{copy.path}: cannot be removed ({error.strerror})") from None


def copy_line(copy: Copy) -> str:
    return f"{shown_bytes(copy.disk_bytes):>8}  {copy.model or 'unknown'} in {copy.precision}: {copy.path.name}"


def machine() -> Machine:
    return Machine(total_bytes(), available_bytes(), n_cores())


def memory_needed(config: Mamba2Config, precision: str) -> int:
    """Bytes of a daemon with this model: weights, one live state and the state it is made from, one slice's activations."""
    widest = 2 * config.in_proj_dim + 2 * config.d_inner + 3 * config.d_model
    activations = 4 * (SLICE_TOKENS * widest + 2 * config.vocab_size)
    return weight_bytes(config, precision) + 2 * config.state_bytes + activations + PROCESS_BYTES


def n_parameters(config: Mamba2Config) -> int:
    one, two = (
        sum(math.prod(shape) for _, shape in each_shape(replace(config, n_layers=n_layers))) for n_layers in (1, 2)
    )
    return one + (config.n_layers - 1) * (two - one)  # all layers are alike, and a config may claim a billion of them


def as_object(listed: Listed, here: Machine, default: str) -> dict:
    """For --json."""
    return {
        "default": default,
        "machine": {
            "memory_bytes": here.memory_bytes,
            "available_bytes": here.available_bytes,
            "cores": here.cores,
        },
        "models": [
            {
                "name": entry.name,
                "kind": entry.kind,
                "path": str(entry.path),
                "is_default": entry.name == default,
                "n_parameters": entry.n_parameters,
                "disk_bytes": entry.disk_bytes,
                "precision": entry.precision,
                "memory_bytes": entry.memory_bytes,
                "fits": {name: n_bytes <= here.available_bytes for name, n_bytes in entry.memory_bytes.items()},
            }
            for entry in listed.models
        ],
        "broken": [
            {"name": broken.name, "reason": broken.reason, "is_default": broken.name == default}
            for broken in listed.broken
        ],
        "quantised": [copy_object(copy) for copy in listed.copies],
    }


def copy_object(copy: Copy) -> dict:
    return {
        "path": str(copy.path),
        "disk_bytes": copy.disk_bytes,
        "model": copy.model or None,
        "precision": copy.precision,
    }


def as_table(listed: Listed, here: Machine, default: str) -> Iterator[str]:
    """Lines for people; a size in brackets does not fit the memory that is available now."""
    rows = [["", "model", "parameters", "on disk", *PRECISIONS, "auto"]]
    for entry in listed.models:
        sizes = [entry.memory_bytes[precision] for precision in PRECISIONS]
        memory = [shown_bytes(size) if size <= here.available_bytes else f"({shown_bytes(size)})" for size in sizes]
        mark = "*" if entry.name == default else ""
        rows.append(
            [mark, entry.name, _count(entry.n_parameters), shown_bytes(entry.disk_bytes), *memory, entry.precision]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        yield "  ".join(cells).rstrip()
    for broken in listed.broken:
        yield f"{'*' if broken.name == default else ' '}  {broken.name}  broken: {broken.reason}"
    yield ""
    yield f"* default ({MODEL_VARIABLE} or --model names another)"
    yield "fp32 ... int4: memory of a daemon with one state; in brackets where it is more than is available"
    yield (
        f"this machine: {shown_bytes(here.memory_bytes)} of memory, {shown_bytes(here.available_bytes)} available, "
        f"{here.cores} core{'s' * (here.cores != 1)}"
    )
    if listed.copies:
        total = sum(copy.disk_bytes for copy in listed.copies)
        yield (
            f"quantised copies: {shown_bytes(total)} in {listed.copies[0].path.parent}; codestral-lsp models "
            "--remove-copies [NAME] removes them, and they are made again when they are needed"
        )
        yield from (f"  {copy_line(copy)}" for copy in listed.copies)


def fit_line(entry: Entry, here: Machine) -> str:
    """What a model will do on this machine, in one sentence."""
    needed = entry.memory_bytes[entry.precision]
    fitting = [name for name in PRECISIONS if entry.memory_bytes[name] <= here.available_bytes]
    if entry.precision in fitting:
        return (
            f"runs here in {entry.precision}, {shown_bytes(needed)} of {shown_bytes(here.available_bytes)} available "
            f"(fits: {', '.join(fitting)})"
        )
    smallest = f", which fits in {fitting[-1]} at most" if fitting else ""
    return (
        f"needs {shown_bytes(needed)} in {entry.precision}, more than the {shown_bytes(here.available_bytes)} available"
        f"{smallest}"
    )


def _entry(name: str, kind: str, path: Path) -> Entry:
    if path.is_file():
        from model.source import open_source  # a .gguf file says what it is in its own header

        config = open_source(str(path)).config
    else:
        config = config_at(path)
    memory = {precision: memory_needed(config, precision) for precision in PRECISIONS}
    chosen = choose_precision(config, usable_bytes(), kernels=KERNELS.exists())
    return Entry(name, kind, path, _disk_bytes(path), n_parameters(config), memory, chosen)


def _model_of(path: Path) -> str:
    """What the header of a safetensors file says: 8 bytes of its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
        return str(header["__metadata__"]["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _disk_bytes(path: Path) -> int:
    """Of a file or of everything below a folder; a link counts as what it leads to."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _count(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"


def default_model() -> str:
    """What runs when nobody says otherwise."""
    return os.environ.get(MODEL_VARIABLE) or BUNDLED
