"""The `export` command: a model as a GGUF file, for llama.cpp and whatever else reads that. Knows: names of models, disks. See gguf_write."""

import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.config import ConfigError, Mamba2Config
from model.layout import Found, tensor_shapes
from model.progress import Progress, shown_bytes

SPARE_BYTES = 64 << 20  # for the vocabulary and the file system's own needs
DEFAULT_KINDS = {"F16": "f16", "BF16": "bf16", "F32": "f32"}  # by what the model stores; quantised ones come as bf16
# What holds every value of a stored type, so that nothing is rounded.
EXACT_KINDS = {"F16": ("f16", "f32"), "BF16": ("bf16", "f32"), "F32": ("f32",)}


@dataclass(frozen=True, slots=True)
class Exported:
    path: Path
    n_bytes: int
    kind: str
    notes: tuple[str, ...]  # what the user should know, a line each


def check_out(out: Path) -> Path:
    """The new file to write, `~` resolved; looks at nothing but names and folders. Raises ConfigError."""
    out = out.expanduser()
    if out.suffix != ".gguf":
        raise ConfigError(f"{out}: expected a name that ends in .gguf")
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected the name of a new file")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder, expected one to write {out.name} to")
    return out


def export(name: str, out: Path, kind: str | None = None, progress: Progress | None = None) -> Exported:
    """Writes model `name` to the new file `out` in `kind` (model.gguf_write.KINDS), by default the one that rounds nothing.

    Raises ConfigError, one line, before anything is written where it can.
    """
    from model.gguf_write import KINDS, export_bytes, export_gguf  # with torch, which a wrong name need not wait for
    from model.source import open_source

    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    out = check_out(out)
    source = open_source(name)
    stored = stored_values(getattr(source, "found", {}), source.config)
    chosen = kind if kind is not None else default_kind(stored)
    needed, free = export_bytes(source.config, chosen), shutil.disk_usage(out.parent).free
    if needed + SPARE_BYTES > free:
        raise ConfigError(
            f"{out}: takes {shown_bytes(needed)} and {shown_bytes(SPARE_BYTES)} have to stay free, the disk of "
            f"{out.parent} has {shown_bytes(free)} free"
        )
    notes = export_gguf(source, out, kind=chosen, progress=progress)
    return Exported(out, out.stat().st_size, chosen, (*notes, *rounding(stored, chosen)))


def stored_values(found: Mapping[str, Found], config: Mamba2Config) -> Counter[str]:
    """How many values of matrices a model stores in each type (F32, F16, BF16, or a quantised one), by either name."""
    from model.gguf_layout import gguf_name  # with numpy

    counts: Counter[str] = Counter()
    for name, shape in tensor_shapes(config).items():
        tensor = found.get(name, found.get(gguf_name(name)))
        if len(shape) == 2 and tensor is not None:
            counts[tensor.dtype] += math.prod(shape)
    return counts


def default_kind(stored: Counter[str]) -> str:
    """Of the type that most values are stored in."""
    return DEFAULT_KINDS.get(stored.most_common(1)[0][0], "bf16") if stored else "bf16"


def rounding(stored: Counter[str], kind: str) -> list[str]:
    """A note where values of matrices do not stay what they are."""
    lossy = [dtype for dtype, _ in stored.most_common() if kind not in EXACT_KINDS.get(dtype, ("f32",))]
    if not lossy:
        return []
    exact = next(name for name in ("f16", "bf16", "f32") if all(name in EXACT_KINDS.get(d, ("f32",)) for d in stored))
    return [
        f"the matrices are rounded: they are stored in {', '.join(lossy)} and written in {kind}; --kind {exact} rounds nothing"
    ]
