"""Hugging Face's tokenizer.json, checked and reduced to what cannot change a text.

The copy for the `tokenizers` library has no Unicode normalisation, no space before the text, no trimming, and no control tokens: they are taken out of the
vocabulary and the merges, so that no text has a way to one, whatever it spells. Byte pairs over bytes (GPT-NeoX's kind) and over characters with a token for
each byte to fall back on (Llama's kind) can be reduced so; all else is refused. Knows: the file's parts. Does not know: where it lies, GGUF's keys.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from model.config import ConfigError, shown
from model.tokenizer import CONTROL_NAMES, SPACE

Part = Mapping[str, Any]  # an object of the JSON file

WELL_KNOWN = {name for names in CONTROL_NAMES.values() for name in names}
MAX_ID = 1 << 22  # no vocabulary comes near; one wrong number must not fill the memory
# Normalizers that change how a text is written: without them a text in the usual form becomes the same tokens, and any other survives.
LEFT_OUT = ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Strip")
WORD_SPLITTERS = ("ByteLevel", "Split", "Digits", "Punctuation", "Metaspace")
BYTE_NAMES = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}


class Reduced(NamedTuple):
    """A tokenizer.json without loss: `parts` for the library, and what its tokens stand for."""

    parts: dict[str, Any]
    pieces: list[bytes]  # by id; b"" for a control token and for an id that no token has
    control: dict[str, int]
    marks_spaces: bool
    lines_stand_alone: bool


class Added(NamedTuple):
    """A token that the library looks for before it splits a text, or a control token."""

    id: int
    content: str
    is_control: bool
    single_word: bool
    normalized: bool


def reduce_json(data: Part, known: Mapping[str, int], source: str) -> Reduced:
    """`known` are ids of control tokens that something other than their name tells. Raises ConfigError, one line, for what would lose text."""
    model = checked_model(data.get("model"), source)
    vocab: Mapping[str, int] = model["vocab"]
    added = added_tokens(data.get("added_tokens") or [], vocab, source)
    normalizer = checked_normalizer(data.get("normalizer"), source)
    splitter = checked_splitter(data.get("pre_tokenizer"), source)
    kinds = [part["type"] for part in (*normalizer, *splitter)]
    is_byte_level, marks_spaces = "ByteLevel" in kinds, "Replace" in kinds or "Metaspace" in kinds
    if is_byte_level == bool(model.get("byte_fallback")) or (is_byte_level and marks_spaces):
        raise ConfigError(
            f"{source}: {' '.join(kinds) or 'no pre-tokenizer'}, byte_fallback {bool(model.get('byte_fallback'))}: "
            "expected either ByteLevel or byte_fallback, so that any text survives"
        )

    ids = {**vocab, **{token.content: token.id for token in added}}
    unknown = {i for content, i in ids.items() if content == model.get("unk_token")}
    hidden = {token.id for token in added if token.is_control} | set(known.values()) | unknown
    texts = [
        token for token in added if token.id not in hidden and not reads_otherwise(token.content, vocab, is_byte_level)
    ]
    looked_for = {token.content for token in texts}
    pieces = [b""] * (max(ids.values(), default=-1) + 1)
    for content, i in ids.items():
        if i not in hidden:
            pieces[i] = piece_bytes(content, is_byte_level and content not in looked_for, marks_spaces=marks_spaces)
    control = {content: i for content, i in ids.items() if i in hidden}
    parts = {
        "version": "1.0",
        "added_tokens": [as_json(token) for token in texts],
        "normalizer": sequence(normalizer, "normalizers"),
        "pre_tokenizer": sequence(splitter, "pretokenizers"),
        "model": reduced_model(model, ids, hidden=hidden, is_byte_level=is_byte_level),
    }
    splits_words = bool(set(kinds) - {"Replace", "Metaspace"})
    alone = not splits_words and all(piece == b"\n" for piece in pieces if b"\n" in piece)
    return Reduced(parts, pieces, control, marks_spaces, alone)


def checked_model(model: Any, source: str) -> Part:
    """The model part, where it is byte pairs in a form that loses nothing."""
    if not isinstance(model, Mapping):
        raise ConfigError(f"{source}: has no model, expected a tokenizer.json")
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise ConfigError(f"{source}: its model is {shown(kind)}, expected 'BPE'")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ConfigError(f"{source}: {key} is {shown(model[key])}, expected none: it would be lost")
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, Mapping) or not isinstance(merges, list):
        raise ConfigError(f"{source}: its model lacks vocab or merges, expected an object and a list")
    for content, i in vocab.items():
        check_id(i, content, source)
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise ConfigError(f"{source}: merges has {shown(pair)}, expected pairs of names")
    return {**model, "merges": pairs}


def check_id(i: Any, content: Any, source: str) -> None:
    if type(i) is not int or not 0 <= i < MAX_ID or not isinstance(content, str):
        raise ConfigError(
            f"{source}: token {shown(content)} has the id {shown(i)}, expected a number from 0 to {MAX_ID - 1}"
        )


def added_tokens(entries: Any, vocab: Mapping[str, int], source: str) -> list[Added]:
    tokens = []
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: added_tokens is {shown(entries)}, expected a list")
    for entry in entries:
        if not isinstance(entry, Mapping) or not {"id", "content"} <= entry.keys():
            raise ConfigError(f"{source}: added_tokens has {shown(entry)}, expected objects with id and content")
        i, content = entry["id"], entry["content"]
        check_id(i, content, source)
        if vocab.get(content, i) != i:
            raise ConfigError(f"{source}: token {shown(content)} has the ids {vocab[content]} and {i}, expected one")
        is_control = bool(entry.get("special")) or content in WELL_KNOWN
        single, normalized = bool(entry.get("single_word")), bool(entry.get("normalized", True))
        tokens.append(Added(i, content, is_control, single, normalized))
    return tokens


def parts_of(part: Any, key: str, source: str) -> list[Part]:
    """A part and, of a Sequence, the parts in it."""
    if part is None:
        return []
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise ConfigError(f"{source}: {key} has {shown(part)}, expected objects with a type")
    if part["type"] != "Sequence":
        return [part]
    if not isinstance(part.get(key), list):
        raise ConfigError(f"{source}: a Sequence without {key}, expected a list of them")
    return [inner for outer in part[key] for inner in parts_of(outer, key, source)]


def sequence(parts: list[Part], key: str) -> Part | None:
    return {"type": "Sequence", key: parts} if parts else None


def checked_normalizer(normalizer: Any, source: str) -> list[Part]:
    """Of all normalizers the one that marks spaces; those of LEFT_OUT are left out."""
    kept = []
    for part in parts_of(normalizer, "normalizers", source):
        if part["type"] == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE:
            kept.append(part)
        elif part["type"] not in LEFT_OUT:
            raise ConfigError(
                f"{source}: normalizer {shown(dict(part))} changes texts, expected one that can be left out or none"
            )
    return kept


def checked_splitter(splitter: Any, source: str) -> list[Part]:
    """The pre-tokenizers, none of which adds or removes a character."""
    kept = []
    for part in parts_of(splitter, "pretokenizers", source):
        kind = part["type"]
        if (
            kind not in WORD_SPLITTERS
            or part.get("behavior") in ("Removed", "removed")
            or part.get("replacement", SPACE) != SPACE
        ):
            raise ConfigError(
                f"{source}: pre-tokenizer {shown(dict(part))} loses text, expected one of {' '.join(WORD_SPLITTERS)}"
            )
        if kind == "ByteLevel":
            part = {**part, "add_prefix_space": False}
        elif kind == "Metaspace":
            part = {"type": kind, "replacement": SPACE, "prepend_scheme": "never", "split": part.get("split", True)}
        kept.append(part)
    return kept


def reduced_model(model: Part, ids: Mapping[str, int], *, hidden: set[int], is_byte_level: bool) -> Part:
    """The model without these tokens, and without merges that need or make one of them, or that make the name of a byte's token out of text."""
    words = {content for content, i in model["vocab"].items() if i not in hidden}
    names = {} if is_byte_level else BYTE_NAMES
    merges = [(a, b) for a, b in model["merges"] if a in words and b in words and a + b in words and a + b not in names]
    return {
        "type": "BPE",
        "vocab": {content: i for content, i in ids.items() if i not in hidden},
        "merges": merges,
        "byte_fallback": not is_byte_level,
        "fuse_unk": False,
        # Whole words before merges, which Llama 3 asks for; with byte fallback "<0x41>" would be such a word.
        "ignore_merges": is_byte_level and bool(model.get("ignore_merges")),
    }


def reads_otherwise(content: str, vocab: Mapping[str, int], is_byte_level: bool) -> bool:
    """Whether a token of the vocabulary stands for other text than its name, so that the library must not look for its name in a text."""
    if is_byte_level:
        return content in vocab and from_bytes_alphabet(content) != content.encode()
    return content in BYTE_NAMES or not content


def as_json(token: Added) -> Part:
    """Without lstrip and rstrip, which swallow white space."""
    return {
        "id": token.id,
        "content": token.content,
        "single_word": token.single_word,
        "lstrip": False,
        "rstrip": False,
        "normalized": token.normalized,
        "special": False,
    }


def piece_bytes(content: str, in_bytes_alphabet: bool, *, marks_spaces: bool) -> bytes:
    """What a token's name stands for."""
    if in_bytes_alphabet:
        return from_bytes_alphabet(content)
    if marks_spaces:
        return BYTE_NAMES.get(content) or content.replace(SPACE, " ").encode()
    return BYTE_NAMES.get(content) or content.encode()


def bytes_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: itself where it is a visible character of Latin-1, one from U+0100 on where not."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


ALPHABET = bytes_alphabet()


def from_bytes_alphabet(content: str) -> bytes:
    """The bytes of a name in GPT-2's letters; one with other letters in it is taken as text, as the library's decoder does."""
    try:
        return bytes([ALPHABET[letter] for letter in content])
    except KeyError:
        return content.encode()
