"""The `export` command: a model as a GGUF file, for llama.cpp and whatever else reads that. Knows: names of models, disks. See gguf_write."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from model.config import ConfigError
from model.gguf_write import KINDS, export_bytes, export_gguf
from model.progress import Progress
from model.source import open_source

SPARE_BYTES = 64 << 20  # for the vocabulary and the file system's own needs


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    n_bytes: int
    notes: tuple[str, ...]  # what the user should know, a line each


def export(name: str, out: Path, kind: str = "bf16", progress: Progress | None = None) -> Exported:
    """Writes model `name` to the new file `out` in `kind` (model.gguf_write.KINDS). Raises ConfigError, one line, before anything is written where it can."""
    out = out.expanduser()
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected the name of a new file")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder, expected one to write {out.name} to")
    source = open_source(name)
    needed, free = export_bytes(source.config, kind) + SPARE_BYTES, shutil.disk_usage(out.parent).free
    if needed > free:
        raise ConfigError(f"{out}: needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free")
    notes = export_gguf(source, out, kind=kind, progress=progress)
    return Exported(out, out.stat().st_size, tuple(notes))
