"""The header of a safetensors file, read strictly: every offset, type and length is checked before a byte of weights is read.

The library maps the whole file, whose pages then count as this process's memory; its rules are kept here, and a test compares the two on damaged
files. Format: 8 bytes of length, a JSON object {name: {dtype, shape, data_offsets}}, the tensors without gaps. Does not know: models.
"""

import json
import math
from pathlib import Path

from model.config import CheckpointError, shown
from model.layout import Found

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
DAMAGED = "damaged or not a safetensors file"


def read_header(path: Path) -> dict[str, Found]:
    """The file's tensors by name, in the order of their bytes. Raises CheckpointError, one line."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(
                    f"{path}: {DAMAGED} (a header of {length} bytes in a file of {size}), expected the weights as safetensors"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: {DAMAGED} ({error.strerror})") from None
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_name_twice) if text[:1] == b"{" else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {DAMAGED} (header: {error})") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: {DAMAGED} (its header is no JSON object)")
    check_metadata(header.pop("__metadata__", {}), path)
    found = {name: entry(path, name, value, first=8 + length) for name, value in header.items()}
    return without_gaps(path, found, first=8 + length, size=size)


def no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = dict(pairs)
    if len(names) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"has {shown(twice)} twice, expected it once")
    return names


def check_metadata(metadata: object, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: {DAMAGED} (__metadata__ is {shown(metadata)}, expected texts)")


def entry(path: Path, name: str, value: object, *, first: int) -> Found:
    """One tensor; `first` is the byte of the file where tensors begin."""
    if isinstance(value, dict) and value.keys() == {"dtype", "shape", "data_offsets"}:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if isinstance(dtype, str) and whole(shape) and whole(offsets) and len(offsets) == 2:
            width = DTYPE_BYTES.get(dtype)
            if width is None:
                raise CheckpointError(
                    f"{path}: tensor {shown(name)} is stored as {shown(dtype)}, expected F32, F16 or BF16"
                )
            n_bytes = width * math.prod(shape)
            if offsets[1] - offsets[0] != n_bytes:
                raise CheckpointError(
                    f"{path}: {DAMAGED} (tensor {shown(name)} has {offsets[1] - offsets[0]} bytes, expected {shown(n_bytes)})"
                )
            return Found(path, dtype, tuple(shape), first + offsets[0], n_bytes)
    raise CheckpointError(
        f"{path}: {DAMAGED} (tensor {shown(name)} is {shown(value)}, expected dtype, shape and data_offsets)"
    )


def whole(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 for value in values
    )


def without_gaps(path: Path, found: dict[str, Found], *, first: int, size: int) -> dict[str, Found]:
    """The tensors in the order of their bytes, where they fill the file without overlap, gap or missing end."""
    end = first
    ordered = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].nbytes)))
    for name, tensor in ordered.items():
        if tensor.start != end:
            raise CheckpointError(
                f"{path}: {DAMAGED} (tensor {shown(name)} begins at byte {tensor.start}, expected {end})"
            )
        end += tensor.nbytes
    if end != size:
        raise CheckpointError(f"{path}: {DAMAGED} (has {size} bytes, expected {end})")
    return ordered
