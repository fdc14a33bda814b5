"""Tokenizers that sentencepiece runs: the bundled model's and Codestral's `tokenizer.model.v3`.

The dummy prefix (the space that sentencepiece puts before every text) and all normalisation are switched off in the model itself, by four fields appended
to the file's bytes: protobuf merges a message that comes twice, field by field, and the later one wins. With Codestral's file that gives exactly the ids of
mistral-common's detour (encode "☺" + text, drop two ids), as no piece but "☺" itself holds that character, and costs nothing. Knows: sentencepiece's model
file. Does not know: GGUF's keys.
"""

import hashlib
from collections.abc import Mapping

import sentencepiece

from model.config import ConfigError, shown
from model.tokenizer import SPACE, Tokenizer, Vocabulary, find_control_ids
from model.tokenizer_proto import BPE, VERBATIM, read_model_proto, read_piece


class SentencePieceTokenizer(Tokenizer):
    """A sentencepiece model with byte fallback, read from a file or made from GGUF's fields."""

    def __init__(self, data: bytes, source: str, *, known: Mapping[str, int] | None = None) -> None:
        """`data` is a serialised ModelProto, `known` overrides control ids found by name. Raises ConfigError, one line that begins with `source`."""
        if not data:
            raise ConfigError(f"{source}: is empty, expected a sentencepiece model")
        self._proto = read_model_proto(data, source)
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=data + VERBATIM)
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"{source}: not a sentencepiece model ({shown(str(error))})") from None
        names = [self.processor.id_to_piece(i) for i in range(self.processor.vocab_size())]
        control = {name: i for i, name in enumerate(names) if self.processor.is_control(i)}
        ends = {"bos": self.processor.bos_id(), "eos": self.processor.eos_id()}
        known = {role: i for role, i in ends.items() if i >= 0} | dict(known or {})
        super().__init__(
            [self._piece_bytes(i) for i in range(len(names))],
            control=find_control_ids(control.get, known=known, source=source),
            digest=hashlib.blake2b(data, digest_size=16).digest(),
            lines_stand_alone=all(piece == "\n" or "\n" not in piece for piece in names),
            source=source,
        )

    @property
    def marks_spaces(self) -> bool:
        return True

    def vocabulary(self) -> Vocabulary | None:
        """None for a unigram model: GGUF's "llama" merges by score."""
        if self._proto.model_type != BPE:
            return None
        pieces = [read_piece(data) for data in self._proto.pieces]
        return Vocabulary(
            pieces=[piece.text.encode() for piece in pieces],
            scores=[piece.score for piece in pieces],
            types=[piece.type for piece in pieces],
            add_space_prefix=self._proto.add_dummy_prefix,
        )

    def _encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def _piece_bytes(self, i: int) -> bytes:
        if self.processor.is_control(i) or self.processor.is_unknown(i) or self.processor.is_unused(i):
            return b""
        piece = self.processor.id_to_piece(i)
        if self.processor.is_byte(i):
            return bytes([int(piece[3:-1], 16)])
        return piece.replace(SPACE, " ").encode()
