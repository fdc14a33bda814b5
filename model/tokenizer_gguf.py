"""The tokenizer in a GGUF file's metadata: llama.cpp's "llama" vocabulary as a sentencepiece model again, its "gpt2" as a tokenizer.json.

Which expressions split a text into words is not in the file, only the name that llama.cpp gave them (tokenizer.ggml.pre). Source: llama.cpp's
`src/llama-vocab.cpp`, and the tokenizer.json of each model. Knows: GGUF's keys. Does not know: GGUF's bytes, weights.
"""

import hashlib
import json
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from model.config import ConfigError, shown
from model.tokenizer import Tokenizer, Vocabulary
from model.tokenizer_hf import HFTokenizer
from model.tokenizer_proto import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece, write_model_proto
from model.tokenizer_spm import SentencePieceTokenizer

PREFIX = "tokenizer.ggml."
KINDS = {str: "a list of strings in UTF-8", Real: "a list of numbers", Integral: "a list of whole numbers"}
MAX_SCORE = 1e30  # within float32
ROLE_KEYS = {  # the later of two keys for a role is the older name
    "bos": ("bos_token_id",),
    "eos": ("eos_token_id",),
    "prefix": ("fim_pre_token_id", "prefix_token_id"),
    "middle": ("fim_mid_token_id", "middle_token_id"),
    "suffix": ("fim_suf_token_id", "suffix_token_id"),
}


class Words(NamedTuple):
    """How a byte-level vocabulary splits a text into words: by each expression in turn, and then by GPT-2's."""

    expressions: tuple[str, ...] = ()
    then_gpt2: bool = True
    whole_first: bool = False  # a word that is a token is not put together from merges


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {
    # state-spaces' models are converted with GPT-NeoX's vocabulary and the name "mpt".
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "phi-2", "jais", "gigachat", "mellum", "modern-bert"), Words()),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell"), Words((r"\p{N}",))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Words((LLAMA3,), then_gpt2=False, whole_first=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Words((LLAMA3,), then_gpt2=False)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Words((QWEN2,), then_gpt2=False)),
    "deepseek-coder": Words(DEEPSEEK_CODER, then_gpt2=False),
    "tekken": Words((TEKKEN,), then_gpt2=False, whole_first=True),
}


def tokenizer_from_gguf(fields: Mapping[str, Any], source: str) -> Tokenizer:
    """`fields` are the file's metadata by key: strings, numbers and sequences of them. Raises ConfigError, one line that begins with `source`."""
    kind = fields.get(f"{PREFIX}model")
    if kind == "llama":
        return spm_from_gguf(fields, source)
    if kind == "gpt2":
        return byte_level_from_gguf(fields, source)
    raise ConfigError(f"{source}: {PREFIX}model is {shown(kind)}, expected 'llama' or 'gpt2'")


def fields_of(vocabulary: Vocabulary, *, bos: int, eos: int) -> dict[str, Any]:
    """The metadata that `tokenizer_from_gguf` and llama.cpp read this vocabulary from."""
    values = {
        "model": "llama",
        "pre": "default",
        "tokens": [piece.decode() for piece in vocabulary.pieces],
        "scores": vocabulary.scores,
        "token_type": vocabulary.types,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "unknown_token_id": vocabulary.types.index(UNKNOWN),
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": vocabulary.add_space_prefix,
    }
    return {f"{PREFIX}{key}": value for key, value in values.items()}


def spm_from_gguf(fields: Mapping[str, Any], source: str) -> Tokenizer:
    """sentencepiece's own model again: with byte fallback, merging by score."""
    tokens = checked_list(fields, "tokens", str, source)
    scores = [float(score) for score in checked_list(fields, "scores", Real, source, size=len(tokens))]
    types = [int(kind) for kind in checked_list(fields, "token_type", Integral, source, size=len(tokens))]
    wrong = [kind for kind in types if not NORMAL <= kind <= BYTE] or [s for s in scores if not abs(s) < MAX_SCORE]
    if wrong:
        raise ConfigError(
            f"{source}: a token has the type or score {wrong[0]}, expected types from 1 to 6 and finite scores"
        )
    ends = {f"{PREFIX}bos_token_id": 1, f"{PREFIX}eos_token_id": 2}  # llama.cpp's, where the keys are missing
    known = known_ids(ends | dict(fields), len(tokens), source)
    for i in known.values():
        types[i] = CONTROL
    unknown = types.index(UNKNOWN) if UNKNOWN in types else 0
    # The library wants exactly one unknown token; what else the file calls so no text may become.
    types = [UNUSED if kind == UNKNOWN and i != unknown else kind for i, kind in enumerate(types)]
    types[unknown] = UNKNOWN
    pieces = [Piece(*entry) for entry in zip(tokens, scores, types, strict=True)]
    add_space = bool(fields.get(f"{PREFIX}add_space_prefix", True))
    data = write_model_proto(pieces, bos=tokens[known["bos"]], eos=tokens[known["eos"]], add_dummy_prefix=add_space)
    return SentencePieceTokenizer(data, source, known=known)


def byte_level_from_gguf(fields: Mapping[str, Any], source: str) -> Tokenizer:
    pre = fields.get(f"{PREFIX}pre", "default")
    if not isinstance(pre, str) or pre not in WORDS:
        raise ConfigError(f"{source}: {PREFIX}pre is {shown(pre)}, expected one of {' '.join(WORDS)}")
    words = WORDS[pre]
    tokens = checked_list(fields, "tokens", str, source)
    merges = checked_list(fields, "merges", str, source)
    types = checked_list(fields, "token_type", Integral, source, size=len(tokens))
    splitters = [
        {"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False} for e in words.expressions
    ]
    splitters.append({"type": "ByteLevel", "trim_offsets": True, "use_regex": words.then_gpt2})
    data = {
        "added_tokens": [
            {"id": i, "content": token, "special": kind != USER_DEFINED or token == f"[PAD{i}]", "normalized": False}
            for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind != NORMAL
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": list(merges),
            "ignore_merges": words.whole_first,
        },
    }
    digest = hashlib.blake2b(json.dumps(data).encode(), digest_size=16).digest()
    return HFTokenizer(data, source, digest=digest, known=known_ids(fields, len(tokens), source))


def known_ids(fields: Mapping[str, Any], n_tokens: int, source: str) -> dict[str, int]:
    """Ids of control tokens that the file gives, by the names of ControlIds' fields."""
    found = {}
    for role, keys in ROLE_KEYS.items():
        key = next((key for key in keys if f"{PREFIX}{key}" in fields), None)
        if key is None:
            continue
        value = fields[f"{PREFIX}{key}"]
        if not isinstance(value, Integral) or not 0 <= int(value) < n_tokens:
            raise ConfigError(f"{source}: {PREFIX}{key} is {shown(value)}, expected a number from 0 to {n_tokens - 1}")
        found[role] = int(value)
    return found


def checked_list(fields: Mapping[str, Any], key: str, kind: type, source: str, *, size: int | None = None) -> list[Any]:
    """A list of the metadata whose entries are all of one kind."""
    value = fields.get(f"{PREFIX}{key}")
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        raise ConfigError(f"{source}: {PREFIX}{key} is missing or no list, expected {KINDS[kind]}")
    entries = list(value)
    wrong = next((entry for entry in entries if not isinstance(entry, kind) or not is_text(entry)), None)
    if wrong is not None:
        raise ConfigError(f"{source}: {PREFIX}{key} holds {shown(wrong)}, expected {KINDS[kind]}")
    if size is not None and len(entries) != size:
        raise ConfigError(f"{source}: {PREFIX}{key} has {len(entries)} entries, expected {size}, as many as tokens")
    return entries


def is_text(entry: object) -> bool:
    """False for a string that has no UTF-8."""
    return not isinstance(entry, str) or entry.isascii() or entry == entry.encode(errors="replace").decode()
