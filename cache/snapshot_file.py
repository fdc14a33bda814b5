"""One state in one file: the safetensors format, with the tokens that the state has read and a digest of every byte.

Layout: 8 bytes of length, a JSON header, the tensors without gaps. The header's `__metadata__` says what the state is and has a BLAKE3 of each tensor
and one of the header itself, so it is believed before it is parsed, and no number in it is used before it is compared with the file's length. The key
is computed anew from the stored tokens. Knows: bytes, arrays, chains. Does not know: folders, budgets, what a state is.
"""

import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import blake3
import numpy as np

from cache.chain import Chain, Slice, next_key

FORMAT = "codestral-lsp-state-1"
MAX_HEADER_BYTES = 1 << 24
FIRST_READ_BYTES = 1 << 14  # most headers and their length in one read
PIECE_BYTES = 1 << 20  # hashed, checked and moved while it is in the processor's cache
ALIGNMENT = 64  # of the first tensor; the widest elements come first, so the others are aligned to theirs
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4", "U32": "<u4", "I16": "<i2", "U16": "<u2", "I8": "|i1", "U8": "|u1",
}  # fmt: skip
DTYPES = {name: np.dtype(code) for name, code in _DTYPES.items()}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_EXPONENTS = {
    2: (np.uint16, 0x7C00),
    4: (np.uint32, 0x7F800000),
    8: (np.uint64, 0x7FF0000000000000),
}  # all ones: NaN or infinite
_DIGEST = re.compile(rb'"header_blake3":"([0-9a-f]{64})"')
_NO_DIGEST = "0" * 64
_OF_CHAIN = ("chain.tokens", "chain.lengths", "chain.kinds", "chain.keep")


class DamageError(Exception):
    """A file that is not the snapshot it should be, or arrays that cannot be one. The text is one line and does not name the file."""


class Place(NamedTuple):
    """Where a tensor lies: `start` counts from the file's first byte."""

    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a snapshot says about itself. `nbytes` is the length of the file, `made_at` seconds since 1970."""

    fingerprint: str
    root: bytes
    key: bytes
    kind: str
    n_tokens: int
    made_at: float
    note: dict[str, Any]
    kinds: tuple[str, ...]
    places: dict[str, Place]
    digests: dict[str, bytes]
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state as it lay on disk: `arrays` by the names they were written under, `chain` the tokens they follow from."""

    chain: Chain
    arrays: dict[str, np.ndarray]
    note: dict[str, Any]
    nbytes: int


class Draft:
    """A snapshot that is about to be written. `nbytes`: how long its file will be, known before a byte is hashed."""

    def __init__(
        self,
        chain: Chain,
        arrays: Mapping[str, np.ndarray],
        *,
        fingerprint: str,
        made_at: float,
        note: Mapping[str, Any],
    ) -> None:
        """Raises DamageError for arrays of another type than DTYPES, or a note that is too long."""
        if reserved := [name for name in arrays if name in _OF_CHAIN or name == "__metadata__"]:
            raise DamageError(f"an array is called {reserved[0]!r}, expected another name")
        kinds = tuple(dict.fromkeys(part.kind for part in chain.slices))
        tensors = {name: np.asarray(array) for name, array in arrays.items()} | _chain_arrays(chain, kinds)
        for name, tensor in tensors.items():
            if tensor.dtype not in NAMES:
                raise DamageError(f"array {name!r} is of type {tensor.dtype}, expected one of {', '.join(DTYPES)}")
        self._tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])))
        self._metadata = {
            "header_blake3": _NO_DIGEST,
            "format": FORMAT,
            "fingerprint": fingerprint,
            "root": chain.root.hex(),
            "key": chain.tip.hex(),
            "kind": chain.slices[-1].kind,
            "n_tokens": str(chain.n_tokens),
            "made_at": repr(float(made_at)),
            "kinds": json.dumps(kinds),
            "note": json.dumps(dict(note), allow_nan=False),
        }
        self._start = len(self._header(dict.fromkeys(self._tensors, _NO_DIGEST)))
        if self._start > MAX_HEADER_BYTES:
            raise DamageError(
                f"a header of {self._start} bytes, expected at most {MAX_HEADER_BYTES}: the note is too long"
            )
        self.nbytes = self._start + sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, file: int) -> None:
        """Writes all of it to an empty file, from the caller's own memory. Raises OSError, and DamageError for NaN and infinite numbers."""
        digests, offset = {}, self._start
        for name, tensor in self._tensors.items():
            hasher, data = blake3.blake3(), np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                _check_finite(piece, tensor.dtype, name)
                hasher.update(piece)
                _pwrite_all(file, piece, offset + start)
            offset += len(data)
            digests[name] = hasher.hexdigest()
        _pwrite_all(file, memoryview(self._header(digests)), 0)  # last: without it nothing here is a snapshot

    def _header(self, digests: Mapping[str, str]) -> bytes:
        """The length, the JSON and its padding; equally long whatever the digests are."""
        metadata = self._metadata | {f"blake3 {name}": digest for name, digest in digests.items()}
        entries, end = {}, 0
        for name, tensor in self._tensors.items():
            offsets = [end, end := end + tensor.nbytes]
            entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        text = json.dumps({"__metadata__": metadata} | entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        whole = len(text).to_bytes(8, "little") + text
        return whole.replace(_NO_DIGEST.encode(), blake3.blake3(whole).hexdigest().encode(), 1)


def read_header(file: int) -> Header:
    """The header of an open file, checked against its digest and the file's length. Raises DamageError, OSError."""
    size = os.fstat(file).st_size
    start = os.pread(file, FIRST_READ_BYTES, 0)
    length = int.from_bytes(start[:8], "little")
    if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise DamageError(f"a header of {length} bytes in a file of {size}")
    if len(start) < 8 + length:
        start = bytes(_pread_all(file, 8 + length, 0))
    raw = start[: 8 + length]
    found = _DIGEST.search(raw)
    if found is None or blake3.blake3(raw.replace(found[1], _NO_DIGEST.encode(), 1)).hexdigest() != found[1].decode():
        raise DamageError("its header is not what was written")
    try:
        return _parse(json.loads(raw[8:]), first=8 + length, size=size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamageError(f"its header cannot be read ({type(error).__name__}: {error})") from None


def read_chain(file: int, header: Header) -> Chain:
    """The slices that the state has read, their keys computed anew from the tokens. Raises DamageError, OSError."""
    tokens, lengths, kinds, keep = (_read_tensor(file, header, name) for name in _OF_CHAIN)
    shapes = {array.shape for array in (lengths, kinds, keep)}
    if (
        tokens.dtype not in (np.uint16, np.int32)
        or lengths.dtype != np.int32
        or {kinds.dtype, keep.dtype} != {np.dtype(np.uint8)}
    ):
        raise DamageError("its tokens are of another type than they were written in")
    if (
        tokens.ndim != 1
        or shapes != {(len(lengths),)}
        or not len(lengths)
        or lengths.min() < 1
        or kinds.max() >= len(header.kinds)
    ):
        raise DamageError("its slices do not fit together")
    if lengths.sum(dtype=np.int64) != len(tokens) or len(tokens) != header.n_tokens:
        raise DamageError(f"{len(tokens)} tokens, expected {header.n_tokens}")
    ids = tokens.astype(np.int32)
    ids.flags.writeable = False
    slices, key, end = [], header.root, 0
    for length, kind, kept in zip(lengths.tolist(), kinds.tolist(), keep.tolist(), strict=True):
        part, end = ids[end : end + length], end + length
        key = next_key(key, header.kinds[kind], part)
        slices.append(Slice(kind=header.kinds[kind], tokens=part, keep=bool(kept), key=key, end=end))
    if key != header.key or slices[-1].kind != header.kind:
        raise DamageError("its tokens give another key than its own")
    return Chain(root=header.root, slices=tuple(slices))


def read_arrays(file: int, header: Header) -> dict[str, np.ndarray]:
    """The caller's arrays, every byte compared with its digest, no number NaN or infinite. Raises DamageError, OSError."""
    if hasattr(os, "posix_fadvise"):  # the disk reads on while what it has read is hashed
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
    return {name: _read_tensor(file, header, name) for name in header.places if name not in _OF_CHAIN}


def check_whole(file: int, header: Header) -> None:
    """Everything that reading would check, one array in memory at a time. Raises DamageError, OSError."""
    read_chain(file, header)
    for name in header.places:
        _read_tensor(file, header, name)


def _chain_arrays(chain: Chain, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    if len(kinds) > 256:
        raise DamageError(f"{len(kinds)} kinds of slices, expected at most 256")
    tokens = np.concatenate([part.tokens for part in chain.slices])
    narrow = tokens.min() >= 0 and tokens.max() < 1 << 16
    values = (
        tokens.astype(np.uint16 if narrow else np.int32),
        np.array([len(part.tokens) for part in chain.slices], np.int32),
        np.array([kinds.index(part.kind) for part in chain.slices], np.uint8),
        np.array([part.keep for part in chain.slices], np.uint8),
    )
    return dict(zip(_OF_CHAIN, values, strict=True))


def _parse(header: dict[str, Any], *, first: int, size: int) -> Header:
    """What the JSON says, every number in its bounds; `first` is the byte where tensors begin. Raises what looking up and converting raises."""
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise DamageError(f"it is of format {metadata['format']!r}, expected {FORMAT!r}")
    places = dict(_places(header, first=first, size=size))
    if missing := [name for name in _OF_CHAIN if name not in places]:
        raise DamageError(f"it has no {missing[0]}")
    note, kinds = json.loads(metadata["note"]), json.loads(metadata["kinds"])
    if not isinstance(note, dict) or not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise DamageError("its note or its kinds are of another type than they were written in")
    made_at = float(metadata["made_at"])
    if not math.isfinite(made_at):
        raise DamageError(f"it was made at {made_at}")
    return Header(
        fingerprint=metadata["fingerprint"],
        root=bytes.fromhex(metadata["root"]),
        key=bytes.fromhex(metadata["key"]),
        kind=metadata["kind"],
        n_tokens=int(metadata["n_tokens"]),
        made_at=made_at,
        note=note,
        kinds=tuple(kinds),
        places=places,
        digests={name: bytes.fromhex(metadata[f"blake3 {name}"]) for name in places},
        nbytes=size,
    )


def _places(header: dict[str, Any], *, first: int, size: int) -> Iterator[tuple[str, Place]]:
    """The tensors in the order of their bytes, which fill the file without overlap, gap or missing end."""
    end = first
    for name, value in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, stop) = DTYPES[value["dtype"]], tuple(value["shape"]), value["data_offsets"]
        if not all(type(number) is int and 0 <= number <= size for number in (*shape, begin, stop)) or len(shape) > 32:
            raise DamageError(f"tensor {name!r} has shape {shape} at {begin}:{stop} in a file of {size} bytes")
        nbytes = dtype.itemsize * math.prod(shape)
        if first + begin != end or stop - begin != nbytes:
            raise DamageError(
                f"tensor {name!r} of {nbytes} bytes lies at {begin}:{stop}, expected it from {end - first} on"
            )
        yield name, Place(dtype=dtype, shape=shape, start=end, nbytes=nbytes)
        end += nbytes
    if end != size:
        raise DamageError(f"it has {size} bytes, expected {end}")


def _read_tensor(file: int, header: Header, name: str) -> np.ndarray:
    place, hasher = header.places[name], blake3.blake3()
    array = np.empty(place.shape, place.dtype)
    data = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        _fill(file, piece, place.start + start)
        hasher.update(piece)
        _check_finite(piece, place.dtype, name)
    if hasher.digest() != header.digests[name]:
        raise DamageError(f"the bytes of {name} are not what was written")
    return array


def _check_finite(piece: memoryview, dtype: np.dtype, name: str) -> None:
    """On the bits, which is faster than on the numbers, above all for halves."""
    if dtype.kind == "f":
        bits, exponent = _EXPONENTS[dtype.itemsize]
        if (np.frombuffer(piece, bits) & bits(exponent) == bits(exponent)).any():
            raise DamageError(f"array {name!r} has a number that is NaN or infinite")


def _pwrite_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        n = os.pwrite(file, data, offset)
        data, offset = data[n:], offset + n


def _fill(file: int, data: memoryview, offset: int) -> None:
    """Into the caller's own memory; os.preadv would do the same, but not on every system."""
    os.lseek(file, offset, os.SEEK_SET)
    stream = io.FileIO(file, closefd=False)
    while data:
        n = stream.readinto(data)
        if not n:
            raise DamageError(f"it ends at byte {os.lseek(file, 0, os.SEEK_CUR)}")
        data = data[n:]


def _pread_all(file: int, n_bytes: int, offset: int) -> bytearray:
    data = bytearray(n_bytes)
    _fill(file, memoryview(data), offset)
    return data
