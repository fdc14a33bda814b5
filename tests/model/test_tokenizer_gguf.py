"""GGUF's vocabularies: written from ours and read back they encode alike; words are split as each name says; wrong metadata is one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given

from model.config import ConfigError
from model.tokenizer_gguf import tokenizer_from_gguf
from model.tokenizer_json import bytes_alphabet
from model.tokenizer_proto import VERBATIM, Piece, read_fields, write_field, write_model_proto, write_varint
from tests.model.vocabularies import (
    CODESTRAL,
    any_text,
    bundled,
    codestral,
    gguf_bundled,
    gguf_codestral,
    gguf_neox,
    llama_fields,
    neox,
    neox_fields,
    source_files,
    vocabulary_of,
)

PAIRS = [(bundled, gguf_bundled), (codestral, gguf_codestral), (neox, gguf_neox)]
each_pair = pytest.mark.parametrize(("ours", "read_back"), PAIRS, ids=lambda make: make.__name__)


@each_pair
@given(text=any_text)
def test_a_round_trip_encodes_alike(ours, read_back, text: str) -> None:
    assert read_back().encode(text) == ours().encode(text)
    assert read_back().encode(text, dummy_prefix=True) == ours().encode(text, dummy_prefix=True)


@each_pair
def test_a_round_trip_encodes_files_alike(ours, read_back) -> None:
    for path, text in source_files().items():
        assert read_back().encode(text) == ours().encode(text), path
    assert read_back().pieces == ours().pieces
    assert read_back().control == ours().control


@pytest.mark.parametrize(("ours", "read_back"), PAIRS[:2], ids=lambda make: make.__name__)
def test_a_vocabulary_comes_back_the_same(ours, read_back) -> None:
    vocabulary, again = vocabulary_of(ours()), vocabulary_of(read_back())
    assert again == vocabulary
    assert {len(entries) for entries in vocabulary[:3]} == {ours().vocab_size}


def test_codestral_s_vocabulary() -> None:
    vocabulary = vocabulary_of(codestral())
    assert vocabulary.add_space_prefix is True
    assert vocabulary_of(bundled()).add_space_prefix is False
    assert [vocabulary.pieces[i] for i in (0, 1, 3, 781, 1027)] == [
        b"<unk>",
        b"<s>",
        b"[INST]",
        b"<0x0A>",
        "▁▁".encode(),
    ]
    assert [vocabulary.types[i] for i in (0, 1, 3, 750, 770, 781, 1027)] == [2, 3, 3, 3, 4, 6, 1]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(CODESTRAL))
    assert vocabulary.scores == [processor.get_score(i) for i in range(32768)]


def test_a_byte_level_vocabulary_is_not_of_that_kind() -> None:
    assert neox().vocabulary() is None


def word_fields(pre: str) -> dict[str, Any]:
    """A vocabulary of bytes and of pairs of like characters: what stays apart in it is apart because of `pre`."""
    letters = list(bytes_alphabet())
    pairs = ["11", "1111", "ĊĊ", "ĠĠ", "aa", "++", "+Ċ", "'s", "ĠĊ", "aĊ", "čĊ"]
    merges = ["1 1", "11 11", "Ċ Ċ", "Ġ Ġ", "a a", "+ +", "+ Ċ", "' s", "Ġ Ċ", "a Ċ", "č Ċ"]
    tokens = ["<|endoftext|>", *letters, *pairs]
    types = [3] + [1] * (len(tokens) - 1)
    values = {"model": "gpt2", "pre": pre, "tokens": tokens, "merges": merges, "token_type": types, "eos_token_id": 0}
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


# What each family does with a text; "|" stands where two tokens meet.
WORDS = [
    ("gpt-2", "11111", "1111|1"),
    ("mpt", "11111", "1111|1"),
    ("starcoder", "1111", "1|1|1|1"),
    ("refact", "1111", "1|1|1|1"),
    ("llama-bpe", "1111", "11|1|1"),
    ("qwen2", "1111", "1|1|1|1"),
    ("tekken", "1111", "1|1|1|1"),
    ("deepseek-coder", "1111", "1|1|1|1"),
    ("gpt-2", "a\n\na", "a|\n|\n|a"),
    ("llama-bpe", "a\n\na", "a|\n\n|a"),
    ("qwen2", "a\n\na", "a|\n\n|a"),
    ("deepseek-coder", "a\n\na", "a|\n|\n|a"),
    ("gpt-2", "++\n", "++|\n"),
    ("llama-bpe", "+\n", "+\n"),
    ("tekken", "+\n", "+\n"),
    ("deepseek-coder", "+\r\n", "+|\r|\n"),
    ("gpt-2", "a's", "a|'s"),
    ("gpt-2", "a   +", "a|  | |+"),
    ("gpt-2", "aa \n", "aa| \n"),
]


@pytest.mark.parametrize(("pre", "text", "expected"), WORDS)
def test_words(pre: str, text: str, expected: str) -> None:
    tokenizer = tokenizer_from_gguf(word_fields(pre), "words.gguf")
    assert "|".join(tokenizer.pieces[i].decode() for i in tokenizer.encode(text)) == expected


def llama(**changes: Any) -> dict[str, Any]:
    return {**llama_fields(bundled()), **{f"tokenizer.ggml.{key}": value for key, value in changes.items()}}


def changed(fields: dict[str, Any], key: str, change: Callable[[list], object]) -> dict[str, Any]:
    entries = list(fields[f"tokenizer.ggml.{key}"])
    change(entries)
    return fields | {f"tokenizer.ggml.{key}": entries}


def test_numbers_as_the_gguf_library_has_them() -> None:
    arrays = {"scores": np.float32, "token_type": np.int32}
    fields = llama()
    fields |= {f"tokenizer.ggml.{key}": np.array(fields[f"tokenizer.ggml.{key}"], kind) for key, kind in arrays.items()}
    fields["tokenizer.ggml.bos_token_id"] = np.uint32(1)
    assert tokenizer_from_gguf(fields, "x").encode("def f():\n") == bundled().encode("def f():\n")


def test_ids_that_the_file_gives_are_control_tokens_whatever_their_type() -> None:
    end, prefix = bundled().encode("self")[0], bundled().encode("return")[0]
    tokenizer = tokenizer_from_gguf(llama(eos_token_id=end, fim_pre_token_id=prefix), "x")
    assert (tokenizer.control.eos, tokenizer.control.prefix, tokenizer.control.suffix) == (end, prefix, 7)
    for text in ("self.x", "return self"):
        assert not {end, prefix} & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_without_ids_llama_cpp_s_hold() -> None:
    fields = {key: value for key, value in llama().items() if not key.endswith(("bos_token_id", "eos_token_id"))}
    assert tokenizer_from_gguf(fields, "x").control == bundled().control


def test_several_unknown_tokens() -> None:
    """Phi-3's file has 53."""
    fields = changed(llama(), "token_type", lambda types: types.__setitem__(slice(5000, 5003), [2] * 3))
    tokenizer = tokenizer_from_gguf(fields, "x")
    assert tokenizer.pieces[5000:5003] == [b"", b"", b""]
    text = "".join(source_files().values())[:20_000]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {5000, 5001, 5002} & set(tokenizer.encode(text))


def test_padding_is_no_text() -> None:
    fields = neox_fields()
    n = len(fields["tokenizer.ggml.tokens"])
    fields = changed(fields, "tokens", lambda tokens: tokens.append(f"[PAD{n}]"))
    tokenizer = tokenizer_from_gguf(changed(fields, "token_type", lambda types: types.append(4)), "x")
    assert n not in tokenizer.encode(f"[PAD{n}]")
    assert n in tokenizer.unsaid


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["tokenizer.ggml.model", "None", "'llama' or 'gpt2'"]),
    (llama(model="bert"), ["tokenizer.ggml.model", "'bert'"]),
    (llama(tokens=None), ["tokenizer.ggml.tokens", "missing"]),
    (llama(tokens="abc"), ["tokenizer.ggml.tokens", "no list"]),
    (changed(llama(), "tokens", lambda tokens: tokens.__setitem__(7, 3)), ["tokens holds 3", "strings"]),
    (changed(llama(), "scores", lambda scores: scores.pop()), ["scores has 8191 entries", "8192"]),
    (changed(llama(), "token_type", lambda types: types.__setitem__(7, "x")), ["token_type holds 'x'"]),
    (changed(llama(), "tokens", lambda tokens: tokens.__setitem__(700, tokens[600])), ["not a sentencepiece model"]),
    (changed(llama(), "tokens", lambda tokens: tokens.__setitem__(700, "")), ["not a sentencepiece model"]),
    (changed(llama(), "tokens", lambda tokens: tokens.__setitem__(7, "\ud800")), ["tokens holds '\\ud800'", "UTF-8"]),
    (changed(llama(), "token_type", lambda types: types.__setitem__(7, -1)), ["-1", "from 1 to 6"]),
    (changed(llama(), "scores", lambda scores: scores.__setitem__(7, float("nan"))), ["nan", "finite"]),
    (changed(llama(), "scores", lambda scores: scores.__setitem__(7, 1e300)), ["1e+300", "finite"]),
    (llama(pre=["x"], model="gpt2"), ["tokenizer.ggml.pre is ['x']"]),
    (llama(tokens=["a"], scores=[0.0], token_type=[1]), ["bos_token_id is 1", "0 to 0"]),
    (llama(bos_token_id=8192), ["bos_token_id is 8192", "0 to 8191"]),
    (llama(eos_token_id="</s>"), ["eos_token_id is '</s>'"]),
    (llama(token_type=[1] * 8192), ["256 byte pieces"]),
    (neox_fields() | {"tokenizer.ggml.pre": "qwen35"}, ["tokenizer.ggml.pre is 'qwen35'", "starcoder"]),
    ({key: value for key, value in neox_fields().items() if key != "tokenizer.ggml.pre"}, ["pre is 'default'"]),
    (neox_fields() | {"tokenizer.ggml.merges": None}, ["merges is missing"]),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=[said[0] for _, said in REFUSED])
def test_what_is_refused(fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        tokenizer_from_gguf(fields, "a.gguf")
    line = str(error.value)
    assert line.startswith("a.gguf: ") and "\n" not in line
    assert [part for part in said if part not in line] == []


def test_the_wire_format() -> None:
    """Against the bytes that protobuf's documentation gives, and back."""
    assert write_field(1, 150) == b"\x08\x96\x01"
    assert write_field(2, "testing") == b"\x12\x07testing"
    assert write_varint(1 << 63) == b"\x80" * 9 + b"\x01"
    made = b"".join([write_field(1, 150), write_field(2, "testing"), write_field(3, 1.5), write_field(20, b"\xff")])
    assert list(read_fields(made)) == [(1, 150), (2, b"testing"), (3, b"\x00\x00\xc0\x3f"), (20, b"\xff")]
    assert VERBATIM == b"\x1a\x08\x12\x00\x18\x00\x20\x00\x28\x01"


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x07test", b"\x0b", b"\xff" * 12, b"\x1d\x00"])
def test_no_message(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(read_fields(data))


def test_the_library_reads_what_is_written() -> None:
    pieces = [Piece("<unk>", 0.0, 2), Piece("<s>", 0.0, 3), Piece("</s>", 0.0, 3)]
    pieces += [Piece(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [Piece("a", -1.0, 1), Piece("b", -2.0, 1), Piece("ab", -0.5, 1), Piece("\u2581", -3.0, 1)]
    data = write_model_proto(pieces, bos="<s>", eos="</s>", add_dummy_prefix=True)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert processor.encode("abc") == [262, 261, 3 + ord("c")]
    assert (processor.bos_id(), processor.eos_id(), processor.unk_id()) == (1, 2, 0)
