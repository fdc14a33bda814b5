"""sentencepiece's model file as bytes: the few fields of its protobuf message that we read, and those that make one.

Written by hand, since the format is a list of (field number, value) and four numbers of it are all we need; Google's protobuf package would be 2 MB more to
install for them and would fix the version of the classes that sentencepiece generated. Source: sentencepiece's `sentencepiece_model.proto`. Knows: the wire
format. Does not know: what pieces mean to a tokenizer.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from model.config import ConfigError

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # the wire types
UNIGRAM, BPE = 1, 2  # TrainerSpec.model_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = (
    1,
    2,
    3,
    4,
    5,
    6,
)  # SentencePiece.type; GGUF's numbers are the same

PIECES, TRAINER_SPEC, NORMALIZER_SPEC = 1, 2, 3  # the fields of ModelProto
PIECE, SCORE, TYPE = 1, 2, 3  # of SentencePiece
MODEL_TYPE, BYTE_FALLBACK, UNK_PIECE, BOS_PIECE, EOS_PIECE = 3, 35, 45, 46, 47  # of TrainerSpec
CHARSMAP, ADD_DUMMY_PREFIX, REMOVE_EXTRA_WHITESPACES, ESCAPE_WHITESPACES = 2, 3, 4, 5  # of NormalizerSpec

Field = tuple[int, int | bytes]


class Piece(NamedTuple):
    text: str
    score: float
    type: int


class ModelProto(NamedTuple):
    """What a model file says besides what the sentencepiece library tells."""

    pieces: list[bytes]  # each to be read with `read_piece`: nothing but an export needs them
    model_type: int
    add_dummy_prefix: bool


def read_model_proto(data: bytes, source: str) -> ModelProto:
    """Raises ConfigError for bytes that are no such message, or cut short."""
    try:
        pieces: list[bytes] = []
        trainer: dict[int, int | bytes] = {}
        normalizer: dict[int, int | bytes] = {}
        for number, value in read_fields(data):
            if number == PIECES and isinstance(value, bytes):
                pieces.append(value)
            elif number == TRAINER_SPEC and isinstance(value, bytes):
                trainer |= dict(read_fields(value))
            elif number == NORMALIZER_SPEC and isinstance(value, bytes):
                normalizer |= dict(read_fields(value))
    except (IndexError, ValueError) as error:
        raise ConfigError(f"{source}: not a sentencepiece model ({error})") from None
    model_type = trainer.get(MODEL_TYPE, UNIGRAM)
    if model_type not in (UNIGRAM, BPE):
        raise ConfigError(
            f"{source}: a sentencepiece model of type {model_type!r}, expected {UNIGRAM} (unigram) or {BPE} (BPE)"
        )
    return ModelProto(pieces, int(model_type), bool(normalizer.get(ADD_DUMMY_PREFIX, True)))


def write_model_proto(pieces: list[Piece], *, bos: str, eos: str, add_dummy_prefix: bool) -> bytes:
    """A BPE model with byte fallback and no normalisation but the space before a text, for the sentencepiece library."""
    unknown = next((piece.text for piece in pieces if piece.type == UNKNOWN), "<unk>")
    trainer = {MODEL_TYPE: BPE, BYTE_FALLBACK: 1, UNK_PIECE: unknown, BOS_PIECE: bos, EOS_PIECE: eos}
    normalizer = {ADD_DUMMY_PREFIX: int(add_dummy_prefix), REMOVE_EXTRA_WHITESPACES: 0, ESCAPE_WHITESPACES: 1}
    lists = [
        write_field(PIECES, write_fields({PIECE: piece.text, SCORE: piece.score, TYPE: piece.type})) for piece in pieces
    ]
    specs = [
        write_field(TRAINER_SPEC, write_fields(trainer)),
        write_field(NORMALIZER_SPEC, write_fields(normalizer)),
    ]
    return b"".join([*lists, *specs])


def read_fields(data: bytes) -> Iterator[Field]:
    """(field number, value) of each field of a message: an int for a varint, bytes for all else. Raises ValueError or IndexError where it is none."""
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = read_varint(data, at)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if kind == FOUR_BYTES else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > end:
            raise ValueError(f"cut short at byte {end}, where {size} bytes from byte {at} on are announced")
        yield number, data[at : at + size]
        at += size


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at byte `at`, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits before byte {at}")


def read_piece(data: bytes) -> Piece:
    """A piece that the sentencepiece library has read as well, so its fields have the right types."""
    fields = dict(read_fields(data))
    text, score, kind = fields.get(PIECE, b""), fields.get(SCORE, bytes(4)), fields.get(TYPE, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece whose fields have other types")
    return Piece(text.decode(), struct.unpack("<f", score)[0], kind)


def write_fields(fields: Mapping[int, int | float | str]) -> bytes:
    return b"".join(write_field(number, value) for number, value in fields.items())


def write_field(number: int, value: int | float | str | bytes) -> bytes:
    """One field: ints as varints, floats in four bytes."""
    if isinstance(value, int):
        return write_varint(number << 3 | VARINT) + write_varint(value)
    if isinstance(value, float):
        return write_varint(number << 3 | FOUR_BYTES) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return write_varint(number << 3 | BYTES) + write_varint(len(data)) + data


def write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# Appended to a model, this switches off whatever would change a text before it is split.
VERBATIM = write_field(
    NORMALIZER_SPEC,
    write_fields({CHARSMAP: "", ADD_DUMMY_PREFIX: 0, REMOVE_EXTRA_WHITESPACES: 0, ESCAPE_WHITESPACES: 1}),
)
