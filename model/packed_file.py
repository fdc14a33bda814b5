"""Packed weights on disk: written once, tensor by tensor, and mapped into memory from then on, so that a large quantised model is there at once.

A safetensors file whose data starts at a cache line, in the cache folder. Knows: files, memory maps. Does not know: how weights are packed.
"""

import contextlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.blocks import GROUP, ROWS, padded
from model.config import ConfigError
from model.digest import SEAL_SUFFIX, digest_of
from model.layout import EMBEDDINGS
from model.packed import PackedMatrix
from model.precision import head_kind
from model.progress import Progress
from model.safetensors_header import read_header

FORMAT = "packed-1"  # of the layout; in the names of the files
DTYPES = {"U8": torch.uint8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
CODES = {dtype: code for code, dtype in DTYPES.items()}
ALIGNMENT = 64
TABLES = (torch.bfloat16, torch.float16)
MADV_POPULATE_READ = 22  # of Linux 5.14; Python has no name for it


def is_projection(name: str) -> bool:
    return name == "lm_head.weight" or name.endswith(("in_proj.weight", "out_proj.weight"))


def kind_of(name: str, precision: str) -> str:
    """The precision of one projection."""
    return head_kind(precision) if name == "lm_head.weight" else precision


class PackedFile:
    """A file being written: every tensor's place follows from the names and shapes, so they may come in any order."""

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        precision: str,
        table: torch.dtype = torch.bfloat16,
        metadata: dict,
    ) -> None:
        """`table` is the dtype of the embedding table, bf16 or fp16. The metadata's values are text."""
        self.path, self.precision = path, precision
        self._entries = entries_of(shapes, precision, table)
        header: dict[str, object] = {"__metadata__": metadata}
        places: dict[str, int] = {}
        at = 0
        # Whole blocks first: they are multiples of a cache line, and each then starts at one.
        for name, (dtype, shape) in sorted(self._entries.items(), key=lambda entry: _order(entry[0])):
            size = _nbytes(dtype, shape)
            header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
            places[name] = at
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        start = 8 + len(text)
        self._offsets = {name: start + place for name, place in places.items()}
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False)  # noqa: SIM115
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._file.truncate(start + at)

    def write(self, name: str, value: Tensor | PackedMatrix) -> None:
        if isinstance(value, PackedMatrix):
            self._write(name, value.data)
            if value.scales is not None:
                self._write(f"{name}.scales", value.scales)
        else:
            self._write(name, value)

    def finish(self) -> None:
        """The file takes its name only now that all of it is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._file.name, self.path)

    def abandon(self) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def _write(self, name: str, tensor: Tensor) -> None:
        dtype, shape = self._entries[name]
        tensor = tensor.to(dtype).contiguous()
        assert tensor.numel() * tensor.element_size() == _nbytes(dtype, shape), name
        self._file.seek(self._offsets[name])
        self._file.write(tensor.view(torch.uint8).view(-1).numpy().data)


def seal(path: Path, progress: Progress | None) -> None:
    """Writes down, beside a finished file, the digest of its bytes."""
    _seal_of(path).write_text(digest_of([path], progress).hex() + "\n", encoding="ascii")


def is_sealed(path: Path, progress: Progress | None) -> bool:
    """Whether a file is still what was sealed. Its bytes are hashed only where somebody touched it since (model/digest.py)."""
    try:
        return _seal_of(path).read_text(encoding="ascii").strip() == digest_of([path], progress).hex()
    except (OSError, ValueError):
        return False


def entries_of(
    shapes: Mapping[str, tuple[int, ...]], precision: str, table: torch.dtype
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What a packed file of these tensors holds: projections as bytes and scales, the embedding table in `table`, the rest in fp32."""
    entries: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if not is_projection(name):
            entries[name] = (table if name == EMBEDDINGS else torch.float32, shape)
            continue
        blocks, width = padded(shape[0], ROWS) // ROWS, padded(shape[1], GROUP)
        bits = 8 if kind_of(name, precision) == "int8" else 4
        entries[name] = (torch.uint8, (blocks * ROWS * width * bits // 8,))
        entries[f"{name}.scales"] = (torch.float16, (blocks, width // GROUP, ROWS))
    return entries


def map_packed(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, precision: str
) -> dict[str, Tensor | PackedMatrix]:
    """The tensors of a packed file, mapped, not read. Raises ConfigError for a file that is not this model's at this precision."""
    try:
        header = read_header(path)
    except ConfigError as error:
        raise ConfigError(f"{error}; remove this file, it is made again") from None
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # private: torch wants memory it could write to
    with contextlib.suppress(OSError):  # an older kernel: pages then come as they are first used
        memory.madvise(MADV_POPULATE_READ)
    table = DTYPES.get(header[EMBEDDINGS].dtype) if EMBEDDINGS in header else None
    wanted = entries_of(shapes, precision, table or torch.bfloat16)
    if table not in TABLES or {n: (e.dtype, e.shape) for n, e in header.items()} != {
        n: (CODES[dtype], shape) for n, (dtype, shape) in wanted.items()
    }:
        raise ConfigError(
            f"{path}: holds other tensors than this model in {precision}; remove this file, it is made again"
        )
    found: dict[str, Tensor] = {}
    for name, (dtype, shape) in wanted.items():
        entry = header[name]
        count = entry.nbytes // dtype.itemsize
        found[name] = torch.frombuffer(memory, dtype=dtype, count=count, offset=entry.start).view(shape)
    packed: dict[str, Tensor | PackedMatrix] = {}
    for name, shape in shapes.items():
        if is_projection(name):
            packed[name] = PackedMatrix(
                kind_of(name, precision), shape[0], shape[1], found[name], found[f"{name}.scales"]
            )
        else:
            packed[name] = found[name]
    return packed


def _seal_of(path: Path) -> Path:
    return path.with_suffix(SEAL_SUFFIX)


def _order(name: str) -> tuple[int, str]:
    return (0 if is_projection(name) else 1 if name.endswith(".scales") else 2, name)


def _nbytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    n = dtype.itemsize
    for size in shape:
        n *= size
    return n
