"""Text to token ids and back, byte-exact, through sentencepiece.

Control tokens are control symbols of the sentencepiece model: no text encodes to them. A newline is always a token of its own, so lines can be
encoded one by one. Knows: bytes and ids. Does not know: the order in which a model wants to be asked (see fim).
"""

import bisect
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from model.config import ConfigError

SPACE = "\u2581"  # sentencepiece's mark for a space; a literal one in a text must not become a space


@dataclass(frozen=True, slots=True)
class ControlIds:
    bos: int
    eos: int
    inst: int
    end_inst: int
    prefix: int
    middle: int
    suffix: int


class Tokenizer:
    """A sentencepiece model without a dummy prefix and with byte fallback."""

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            if not data:
                raise ConfigError(f"{path}: is empty, expected a sentencepiece model")
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file, expected a sentencepiece model") from None
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{path}: not a sentencepiece model ({str(error).splitlines()[0]})") from None
        self.digest = hashlib.blake2b(data, digest_size=16).digest()
        self.vocab_size = self.processor.vocab_size()
        self.control = self._control_ids(path)
        self.newline = self.processor.piece_to_id("\n")
        self.pieces = [self._piece_bytes(i) for i in range(self.vocab_size)]  # b"" for control tokens
        unsaid = [i for i, piece in enumerate(self.pieces) if not piece and i != self.control.eos]
        self.unsaid = np.array(unsaid, dtype=np.int64)  # control tokens but </s>: none of them is ever generated
        self._sorted = sorted((piece, i) for i, piece in enumerate(self.pieces) if piece)
        self._sorted_bytes = [piece for piece, _ in self._sorted]
        self._byte_ids = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
        if self.processor.encode("a") == self.processor.encode(" a"):
            raise ConfigError(
                f"{path}: adds a space before every text, expected a model trained with add_dummy_prefix=false"
            )

    def encode(self, text: str) -> list[int]:
        """Token ids; never a control token. `decode(encode(text)) == text` for every text without lone surrogates."""
        if SPACE not in text:
            return self.processor.encode(text)
        ids: list[int] = []
        for number, part in enumerate(text.split(SPACE)):
            if number:
                ids += [self._byte_ids[byte] for byte in SPACE.encode()]
            ids += self.processor.encode(part)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of these ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    def extensions(self, start: bytes) -> tuple[list[int], list[int]]:
        """Ids of the tokens that begin with `start`, and of those that are a proper, non-empty prefix of it."""
        low = bisect.bisect_left(self._sorted_bytes, start)
        high = low
        while high < len(self._sorted) and self._sorted_bytes[high].startswith(start):
            high += 1
        longer = [i for _, i in self._sorted[low:high]]
        shorter = [i for length in range(1, len(start)) for i in self._exact(start[:length])]
        return longer, shorter

    @functools.lru_cache(maxsize=4096)  # noqa: B019, one tokenizer lives as long as the process
    def extends(self, start: bytes) -> bool:
        """Whether some token is longer than `start` and begins with it."""
        at = bisect.bisect_right(self._sorted_bytes, start)
        return at < len(self._sorted_bytes) and self._sorted_bytes[at].startswith(start)

    def _exact(self, piece: bytes) -> list[int]:
        at = bisect.bisect_left(self._sorted_bytes, piece)
        found = []
        while at < len(self._sorted) and self._sorted_bytes[at] == piece:
            found.append(self._sorted[at][1])
            at += 1
        return found

    def _piece_bytes(self, i: int) -> bytes:
        if self.processor.is_control(i) or self.processor.is_unknown(i) or self.processor.is_unused(i):
            return b""
        piece = self.processor.id_to_piece(i)
        if self.processor.is_byte(i):
            return bytes([int(piece[3:-1], 16)])
        return piece.replace(SPACE, " ").encode()

    def _control_ids(self, path: Path) -> ControlIds:
        def control(piece: str) -> int:
            i = self.processor.piece_to_id(piece)
            if i == self.processor.unk_id() or not self.processor.is_control(i):
                raise ConfigError(f"{path}: {piece} is no control token of this model, expected one")
            return i

        return ControlIds(
            bos=self.processor.bos_id(),
            eos=self.processor.eos_id(),
            inst=control("[INST]"),
            end_inst=control("[/INST]"),
            prefix=control("[PREFIX]"),
            middle=control("[MIDDLE]"),
            suffix=control("[SUFFIX]"),
        )
