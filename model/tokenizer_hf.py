"""Tokenizers that Hugging Face's `tokenizers` library runs: tokenizer.json, and GGUF's byte-level vocabularies in its form.

Knows: the library. Does not know: what in a tokenizer.json would lose text (tokenizer_json), GGUF's keys.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from model.config import ConfigError, shown
from model.tokenizer import Tokenizer, find_control_ids
from model.tokenizer_json import Part, reduce_json


class HFTokenizer(Tokenizer):
    """A tokenizer.json, parsed and reduced to what loses nothing."""

    def __init__(self, data: Part, source: str, *, digest: bytes, known: Mapping[str, int]) -> None:
        """`known`: ids of control tokens by the names of ControlIds' fields. Raises ConfigError, one line that begins with `source`."""
        reduced = reduce_json(data, known, source)
        self._marks_spaces = reduced.marks_spaces
        try:
            self._backend = tokenizers.Tokenizer.from_str(json.dumps(reduced.parts))
        except Exception as error:  # the library raises no other class
            raise ConfigError(
                f"{source}: not a tokenizer that the tokenizers library knows ({shown(str(error))})"
            ) from None
        super().__init__(
            reduced.pieces,
            control=find_control_ids(reduced.control.get, known=known, source=source),
            digest=digest,
            lines_stand_alone=reduced.lines_stand_alone,
            source=source,
        )

    @property
    def marks_spaces(self) -> bool:
        return self._marks_spaces

    def _encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids


def read_hf_tokenizer(data: bytes, path: Path) -> HFTokenizer:
    """`data` is the content of `path`; tokenizer_config.json beside it names bos and eos, where it is there. Raises ConfigError, one line."""
    parts = parsed(data, path)
    config_path = path.with_name("tokenizer_config.json")
    names = parsed(config_path.read_bytes(), config_path) if config_path.is_file() else {}
    added = parts.get("added_tokens")
    entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    ids = {entry["content"]: entry.get("id") for entry in entries if isinstance(entry.get("content"), str)}
    known = {}
    for role in ("bos", "eos"):
        name = names.get(f"{role}_token")
        name = name.get("content") if isinstance(name, dict) else name
        if isinstance(name, str) and isinstance(ids.get(name), int):
            known[role] = ids[name]
    return HFTokenizer(parts, str(path), digest=hashlib.blake2b(data, digest_size=16).digest(), known=known)


def parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(parts, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(parts).__name__}")
    return parts
