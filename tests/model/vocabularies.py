"""Tokenizers of every kind for the tests, each made once: real files where a package carries them, small trained ones where none does; and odd texts."""

import functools
import hashlib
import json
from pathlib import Path

import mistral_common
import tokenizers
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from model.tokenizer import Tokenizer, Vocabulary
from model.tokenizer_files import read_tokenizer
from model.tokenizer_gguf import fields_of, tokenizer_from_gguf
from model.tokenizer_hf import HFTokenizer

HOUSE = Path(__file__).parents[2]
CODESTRAL = Path(mistral_common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"

CODE = ["def ", "self", ".", "(", ")", ":", "    ", "\n", "\n\n", "return", " = ", "0x1F", "\t", "'", "#", "):\r\n"]
MARKS = ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "<0x0A>", "<0x41>", "<pad>"]
MARKS += ["<|endoftext|>", "<fim_prefix>", "[control_12]", "[REFERENCE_DOC_0]", "[IMG]"]
ODD = ["\u2581", "\x00", "\r\n", "\r", "\u00a0", "\ufeff", "\u200d", "é", "e\u0301", "ﬁ", "Ａ", "日本", "👩‍👩‍👧"]
ODD += ["\U0010ffff", "  ", "\x1b", "\x85", "\u2028", "Ġ", "Ċ", "ĠĠ", "☺", "\U00040000"]

pieces = st.lists(st.sampled_from(CODE + MARKS + ODD), max_size=25).map("".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
any_text = st.one_of(texts, pieces, st.tuples(pieces, texts, pieces).map("".join))


@functools.cache
def source_files() -> dict[str, str]:
    """This repository's own text files, by path."""
    names = [path for top in ("lsp", "context", "cache", "daemon", "model") for path in (HOUSE / top).rglob("*.py")]
    names += [HOUSE / name for name in ("README.md", "Makefile", "pyproject.toml", "ARCHITECTURE.md")]
    return {path.relative_to(HOUSE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(names)}


@functools.cache
def neox_json() -> str:
    """A tokenizer.json as GPT-NeoX's is, trained on this repository: NFC, words by GPT-2's expression, runs of spaces as added tokens, two of them special."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|padding|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(source_files().values(), trainer)
    runs = [tokenizers.AddedToken(" " * width, normalized=True) for width in range(24, 1, -1)]
    tokenizer.add_tokens([*runs, tokenizers.AddedToken("+++++", lstrip=True, rstrip=True)])
    return tokenizer.to_str()


@functools.cache
def llama_json() -> str:
    """Codestral's vocabulary as a tokenizer.json in Llama's form; merges as Hugging Face's conversion makes them, from all pairs of pieces."""
    vocabulary = codestral().vocabulary()
    assert vocabulary is not None
    names = [piece.decode() for piece in vocabulary.pieces]
    ids = {name: i for i, name in enumerate(names)}
    merges = []
    for i, name in enumerate(names):
        if vocabulary.types[i] == 1:
            splits = [(name[:at], name[at:]) for at in range(1, len(name))]
            pairs = [(a, b) for a, b in splits if a in ids and b in ids]
            merges += [
                (vocabulary.scores[i], pair) for pair in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            ]
    merges.sort(key=lambda merge: -merge[0])
    added = [
        {"id": i, "content": names[i], "special": kind != 4, "normalized": False}
        for i, kind in enumerate(vocabulary.types)
        if kind in (2, 3, 4)
    ]
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, mark]},
            "pre_tokenizer": None,
            "model": {
                "type": "BPE",
                "vocab": ids,
                "merges": [f"{a} {b}" for _, (a, b) in merges],
                "byte_fallback": True,
                "unk_token": "<unk>",
                "fuse_unk": True,
            },
        }
    )


@functools.cache
def bundled() -> Tokenizer:
    return read_tokenizer(HOUSE / "model" / "bundled" / "tokenizer.model")


@functools.cache
def codestral() -> Tokenizer:
    return read_tokenizer(CODESTRAL)


def from_json(text: str, **known: int) -> HFTokenizer:
    return HFTokenizer(json.loads(text), "tokenizer.json", digest=hashlib.blake2b(text.encode()).digest(), known=known)


@functools.cache
def neox() -> Tokenizer:
    return from_json(neox_json())


@functools.cache
def llama() -> Tokenizer:
    return from_json(llama_json())


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    vocabulary = tokenizer.vocabulary()
    assert vocabulary is not None
    return vocabulary


def llama_fields(tokenizer: Tokenizer) -> dict[str, object]:
    return fields_of(vocabulary_of(tokenizer), bos=tokenizer.control.bos, eos=tokenizer.control.eos)


@functools.cache
def gguf_codestral() -> Tokenizer:
    return tokenizer_from_gguf(llama_fields(codestral()), "codestral.gguf")


@functools.cache
def gguf_bundled() -> Tokenizer:
    return tokenizer_from_gguf(llama_fields(bundled()), "bundled.gguf")


@functools.cache
def neox_fields() -> dict[str, object]:
    """GPT-NeoX's form as llama.cpp's converter writes it: one list of names, special and other added tokens by their type."""
    data = json.loads(neox_json())
    names = {i: name for name, i in data["model"]["vocab"].items()}
    types = dict.fromkeys(names, 1)
    for token in data["added_tokens"]:
        names[token["id"]] = token["content"]
        types[token["id"]] = 3 if token["special"] else 4
    end = data["model"]["vocab"]["<|endoftext|>"]
    values = {
        "model": "gpt2",
        "pre": "mpt",
        "tokens": [names[i] for i in range(len(names))],
        "token_type": [types[i] for i in range(len(names))],
        "merges": [" ".join(pair) for pair in data["model"]["merges"]],
        "bos_token_id": end,
        "eos_token_id": end,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


@functools.cache
def gguf_neox() -> Tokenizer:
    return tokenizer_from_gguf(neox_fields(), "neox.gguf")


KINDS = (bundled, codestral, neox, llama, gguf_codestral, gguf_bundled, gguf_neox)
