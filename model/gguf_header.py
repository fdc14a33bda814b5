"""The header of a GGUF file, read strictly: metadata as plain Python values, and where each tensor lies.

The gguf library says what the types are and how wide they are. Its own reader is not used: it maps the file, needs a second for a vocabulary of
32,768, and a damaged count keeps it busy without end; a test compares the two on sound files. Format: ggml/docs/gguf.md. Does not know: models.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType, Keys

from model.config import CheckpointError, shown
from model.layout import Found

MAX_HEADER_BYTES = 64 << 20  # the largest vocabularies with their merges take about 10 MB
MAX_DIMS = 4
VERSIONS = (2, 3)
DAMAGED = "damaged or not a GGUF file"
SCALARS: dict[int, str] = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
}


class GgufHeader(NamedTuple):
    """`fields` has the metadata by key, `found` the tensors by the file's own names; dtypes are ggml's names, shapes have the rows first."""

    fields: dict[str, object]
    found: dict[str, Found]


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises CheckpointError, one line."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return parse(Cursor(path, file, size), size)
    except OSError as error:
        raise CheckpointError(f"{path}: {DAMAGED} ({error.strerror})") from None


class Cursor:
    """Reads forward, and never more than the file has or a header may have."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.at = path, file, 0
        self.end = min(size, MAX_HEADER_BYTES)

    def bytes(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > self.end - self.at:
            raise self.error(
                f"{what} takes {shown(n_bytes)} bytes from byte {self.at} on, the header ends before {self.end}"
            )
        data = self.file.read(n_bytes)
        if len(data) < n_bytes:
            raise self.error(f"it ends inside {what}")
        self.at += n_bytes
        return data

    def u32(self, what: str) -> int:
        return struct.unpack("<I", self.bytes(4, what))[0]

    def u64(self, what: str) -> int:
        return struct.unpack("<Q", self.bytes(8, what))[0]

    def text(self, what: str) -> str:
        data = self.bytes(self.u64(what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"{what} is {shown(data)}, expected UTF-8") from None

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {DAMAGED} ({what})")


def parse(cursor: Cursor, size: int) -> GgufHeader:
    magic = cursor.bytes(4, "its first word")
    if magic != b"GGUF":
        raise cursor.error(f"begins with {shown(magic)}, expected b'GGUF'")
    version = cursor.u32("its version")
    if version not in VERSIONS:
        order = ", or a big-endian file" if version & 0xFFFF == 0 else ""
        raise CheckpointError(f"{cursor.path}: is GGUF version {version}{order}, expected 2 or 3, little-endian")
    n_tensors, n_fields = cursor.u64("the number of tensors"), cursor.u64("the number of fields")
    fields: dict[str, object] = {}
    for _ in range(n_fields):
        key = cursor.text("a key")
        if key in fields:
            raise cursor.error(f"has the key {shown(key)} twice, expected it once")
        fields[key] = read_value(cursor, cursor.u32(f"the type of {shown(key)}"), key)
    found: dict[str, Found] = {}
    for _ in range(n_tensors):
        name = cursor.text("a tensor's name")
        if name in found:
            raise cursor.error(f"has the tensor {shown(name)} twice, expected it once")
        found[name] = read_tensor_info(cursor, name)
    return GgufHeader(fields, placed(cursor, fields, found, size))


def read_value(cursor: Cursor, number: int, key: str) -> object:
    """A number, a truth, a text, or a list of one of these."""
    what = f"the value of {shown(key)}"
    if number in SCALARS:
        return read_scalars(cursor, number, 1, what)[0]
    if number == GGUFValueType.STRING:
        return cursor.text(what)
    if number != GGUFValueType.ARRAY:
        raise cursor.error(f"{what} is of type {number}, expected one of 0 to 12")
    item, count = cursor.u32(what), cursor.u64(what)
    if item in SCALARS:
        return read_scalars(cursor, item, count, what)
    if item != GGUFValueType.STRING:
        raise cursor.error(f"{what} is a list of type {item}, expected numbers or texts")
    if 8 * count > cursor.end - cursor.at:  # each text has a length of 8 bytes before it
        raise cursor.error(f"{what} has {shown(count)} entries, more than the header has room for")
    return [cursor.text(what) for _ in range(count)]


def read_scalars(cursor: Cursor, number: int, count: int, what: str) -> list:
    dtype = np.dtype(SCALARS[number])
    return np.frombuffer(cursor.bytes(count * dtype.itemsize, what), dtype).tolist()


def read_tensor_info(cursor: Cursor, name: str) -> Found:
    """`start` still counts from where tensors begin."""
    what = f"tensor {shown(name)}"
    n_dims = cursor.u32(what)
    if not 1 <= n_dims <= MAX_DIMS:
        raise cursor.error(f"{what} has {n_dims} dimensions, expected 1 to {MAX_DIMS}")
    dims = [cursor.u64(what) for _ in range(n_dims)]  # the innermost first
    number, offset = cursor.u32(what), cursor.u64(what)
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise CheckpointError(
            f"{cursor.path}: {what} is of type {number}, which the gguf library does not know"
        ) from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if min(dims) < 1 or dims[0] % block:
        raise cursor.error(f"{what} has {shown(dims)} values, expected rows of a multiple of {block} for {kind.name}")
    n_bytes = math.prod(dims) // block * block_bytes
    return Found(cursor.path, kind.name, tuple(reversed(dims)), offset, n_bytes)


def placed(cursor: Cursor, fields: dict[str, object], found: dict[str, Found], size: int) -> dict[str, Found]:
    """The tensors with `start` counted from the file's first byte, in the order of their bytes, none over another's."""
    alignment = fields.get(Keys.General.ALIGNMENT, GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.error(f"{Keys.General.ALIGNMENT} is {shown(alignment)}, expected a power of two")
    first = -(-cursor.at // alignment) * alignment
    end, ordered = first, {}
    for name, tensor in sorted(found.items(), key=lambda item: item[1].start):
        start = first + tensor.start
        if start % alignment or start < end:
            raise cursor.error(
                f"tensor {shown(name)} begins at byte {shown(start)}, expected a multiple of {alignment} from {end} on"
            )
        end = start + tensor.nbytes
        if end > size:
            raise CheckpointError(
                f"{cursor.path}: tensor {shown(name)} ends at byte {shown(end)}, expected at most the file's {size} bytes: "
                "the file is cut short or damaged"
            )
        ordered[name] = tensor._replace(start=start)
    return ordered
