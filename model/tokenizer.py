"""Text to token ids and back, byte for byte: what every tokenizer here can do, and what the two kinds of it share.

`decode(encode(text)) == text` for every text, no text is ever a control token, and control tokens are never said. What a model's own tokenizer does besides
is left out: the space before a text, Unicode normalisation, trimming. Knows: bytes and ids. Does not know: files (see tokenizer_files), which library splits
the text (tokenizer_spm, tokenizer_hf), the order in which a model wants to be asked (fim).
"""

import bisect
import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from model.config import ConfigError

SPACE = "\u2581"  # sentencepiece's mark for a space; a literal one in a text must not become a space
BLOCK_CHARS = 2048  # texts are split into blocks of lines from this size on: both libraries need more than linear time for one long text
# The bytes of UTF-8. The others are in no text, and GPT-NeoX's vocabulary has no tokens for them.
UTF8_BYTES = [*range(0xC0), *range(0xC2, 0xF5)]
EMPTY_PLANES = re.compile("[\U00040000-\U000bffff]")
BYTES_OF_EMPTY_PLANES = {0xF1, 0xF2}  # with which those characters begin

# What models call their control tokens; the first name that a vocabulary has wins, and bos may be the same token as eos.
CONTROL_NAMES: dict[str, tuple[str, ...]] = {
    "bos": ("<s>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>", "<|startoftext|>"),
    "eos": ("</s>", "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "<|eos|>"),
    "inst": ("[INST]",),
    "end_inst": ("[/INST]",),
    "prefix": ("[PREFIX]", "<fim_prefix>", "<|fim_prefix|>", "<fim-prefix>", "<｜fim▁begin｜>", "▁<PRE>", "<PRE>"),
    "middle": ("[MIDDLE]", "<fim_middle>", "<|fim_middle|>", "<fim-middle>", "<｜fim▁end｜>", "▁<MID>", "<MID>"),
    "suffix": ("[SUFFIX]", "<fim_suffix>", "<|fim_suffix|>", "<fim-suffix>", "<｜fim▁hole｜>", "▁<SUF>", "<SUF>"),
}


@dataclass(frozen=True, slots=True)
class ControlIds:
    """Ids of the control tokens that prompts are made of; None where the vocabulary has no such token."""

    bos: int
    eos: int
    inst: int | None
    end_inst: int | None
    prefix: int | None
    middle: int | None
    suffix: int | None


class Vocabulary(NamedTuple):
    """A vocabulary as GGUF's tokenizer model "llama" stores it: one entry a token in each list."""

    pieces: list[bytes]  # with the space mark, "<0x0A>" for a byte, the name for a control token
    scores: list[float]  # the higher, the earlier two neighbours merge
    types: list[int]  # 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    add_space_prefix: bool  # whether the model's makers put a space before every text; `encode` does so on request only


class Tokenizer(ABC):
    """A vocabulary and its ways.

    `pieces[i]` are the bytes that token i stands for, b"" for a control token; `unsaid` are the ids never to be generated: all tokens without bytes but
    eos, and rows of the model that no token has. `newline` is the token of a lone "\\n". `digest` changes with the vocabulary.

    `lines_stand_alone`: no token holds a newline beside other bytes, and lines can be encoded one by one with the result of the whole text. True of the
    bundled vocabulary and of Codestral's, whose newline is the byte token 781. Byte-level vocabularies such as GPT-NeoX's have tokens like "\\n\\n": there
    text in pieces comes back the same, but in other tokens than the whole text's where a line break meets white space.

    The one text that does not survive: StarCoder's vocabulary has no token for the byte 0xF1, so there the characters of planes 4 to 11, none of which
    Unicode has ever assigned, become U+FFFD.
    """

    def __init__(
        self, pieces: list[bytes], *, control: ControlIds, digest: bytes, lines_stand_alone: bool, source: str
    ) -> None:
        """To be called when `_encode` works. Raises ConfigError, one line that begins with `source`."""
        self.pieces = pieces
        self.control = control
        self.digest = digest
        self.lines_stand_alone = lines_stand_alone
        self.vocab_size = len(pieces)
        self.unsaid = self._unsaid()
        order = sorted((i for i, piece in enumerate(pieces) if piece), key=pieces.__getitem__)
        self._order = np.array(order, dtype=np.int32)  # ids by their bytes; tuples would cost 100 bytes a token
        self._sorted = [pieces[i] for i in order]
        of_byte = {piece[0]: i for i, piece in enumerate(pieces) if len(piece) == 1}
        missing = [byte for byte in UTF8_BYTES if byte not in of_byte]
        self._lacks_planes = bool(missing) and set(missing) <= BYTES_OF_EMPTY_PLANES
        if missing and not self._lacks_planes:
            raise ConfigError(
                f"{source}: has no token for the byte 0x{missing[0]:02X}, expected one for each that text has"
            )
        self._space_mark_ids = [of_byte[byte] for byte in SPACE.encode()]
        self.newline = self._one_token("\n", source)
        self._one_token(" ", source)  # which is not the token of its byte where spaces are marked

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Ids of a text without lone surrogates, and without the space mark where the vocabulary writes spaces so."""

    @property
    @abstractmethod
    def marks_spaces(self) -> bool:
        """Whether the vocabulary writes a space as U+2581."""

    def vocabulary(self) -> Vocabulary | None:
        """What GGUF's tokenizer model "llama" needs; None where the vocabulary is of another kind."""
        return None

    def padded(self, n_rows: int) -> Self:
        """This tokenizer for a model with so many rows of logits: a row that no token has stands for nothing and is never said.

        Models are padded to round sizes (GPT-NeoX's 50,277 tokens to 50,288), and no training has pushed those rows down. `vocab_size` stays as it is.
        """
        padded = copy.copy(self)
        padded.pieces = self.pieces + [b""] * (n_rows - len(self.pieces))
        padded.unsaid = padded._unsaid()
        return padded

    def encode(self, text: str, *, dummy_prefix: bool = False) -> list[int]:
        """Token ids; never a control token. `decode(encode(text)) == text` for every text.

        `dummy_prefix` puts the space before the text that sentencepiece puts there by default, so that a first word is the same token as in the middle of a
        line: Mistral's own chat and fill-in encodings have it at the start of each text that follows a control token, our prompts do not. Raises
        UnicodeEncodeError for lone surrogates, which have no bytes.
        """
        if self._lacks_planes:
            text = EMPTY_PLANES.sub("\ufffd", text)
        text.encode()  # for its error alone: the libraries' errors name neither the character nor its place
        if dummy_prefix and text:
            text = f" {text}"
        if not self.marks_spaces or SPACE not in text:
            return self._encode_blocks(text)
        ids: list[int] = []
        for number, part in enumerate(text.split(SPACE)):
            if number:
                ids += self._space_mark_ids
            ids += self._encode_blocks(part)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of these ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    def extensions(self, start: bytes) -> tuple[list[int], list[int]]:
        """Ids of the tokens that begin with `start`, and of those that are a proper, non-empty prefix of it."""
        longer = self._between(start, after_all_with(start))
        shorter = [i for length in range(1, len(start)) for i in self._between(start[:length], start[:length] + b"\0")]
        return longer, shorter

    def extends(self, start: bytes) -> bool:
        """Whether some token is longer than `start` and begins with it."""
        at = bisect.bisect_right(self._sorted, start)
        return at < len(self._sorted) and self._sorted[at].startswith(start)

    def _between(self, low: bytes, high: bytes | None) -> list[int]:
        """Ids of the tokens from `low` on and before `high`, in the order of their bytes."""
        start = bisect.bisect_left(self._sorted, low)
        end = len(self._sorted) if high is None else bisect.bisect_left(self._sorted, high, start)
        return self._order[start:end].tolist()

    def _one_token(self, text: str, source: str) -> int:
        ids = self._encode(text)
        if len(ids) != 1 or self.pieces[ids[0]] != text.encode():
            raise ConfigError(f"{source}: {text!r} is the tokens {ids} to it, expected one token that stands for it")
        return ids[0]

    def _unsaid(self) -> np.ndarray:
        ids = [i for i, piece in enumerate(self.pieces) if not piece and i != self.control.eos]
        return np.array(ids, dtype=np.int64)

    def _encode_blocks(self, text: str) -> list[int]:
        if len(text) <= BLOCK_CHARS or not self.lines_stand_alone:
            return self._encode(text)
        ids: list[int] = []
        start = 0
        while start < len(text):
            end = text.find("\n", start + BLOCK_CHARS) + 1 or len(text)
            ids += self._encode(text[start:end])
            start = end
        return ids


def after_all_with(start: bytes) -> bytes | None:
    """The least bytes that sort after everything that begins with `start`; None where nothing does."""
    rest = start.rstrip(b"\xff")
    return rest[:-1] + bytes([rest[-1] + 1]) if rest else None


def find_control_ids(find: Callable[[str], int | None], *, known: Mapping[str, int], source: str) -> ControlIds:
    """The ids in `known` (by the names of ControlIds' fields), and for the rest those of well-known names.

    `find` gives the id of the control token of a name. A vocabulary without a token for the beginning uses the one for the end, as GPT-NeoX does: in
    training it stands between any two texts. Raises ConfigError where there is no eos.
    """

    def first(role: str) -> int | None:
        if role in known:
            return known[role]
        return next((i for i in map(find, CONTROL_NAMES[role]) if i is not None), None)

    eos, bos = first("eos"), first("bos")
    if eos is None:
        raise ConfigError(
            f"{source}: has no control token that ends a text, expected one of {' '.join(CONTROL_NAMES['eos'])}"
        )
    return ControlIds(
        bos=eos if bos is None else bos,
        eos=eos,
        inst=first("inst"),
        end_inst=first("end_inst"),
        prefix=first("prefix"),
        middle=first("middle"),
        suffix=first("suffix"),
    )
