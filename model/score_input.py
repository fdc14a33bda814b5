"""What `score` is given: token ids in the forms that people and programs write them, and text from a file or standard input.

Knows files and messages. Does not know torch, so that a wrong argument is noticed before that has loaded.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from model.config import ConfigError

MAX_DIGITS = 10
EXPECTED = "expected whole numbers such as 1,2,3"
STDIN = "standard input"  # what messages call it


def parse_ids(text: str) -> list[int]:
    """`1,2,3`, also with white space; a JSON list; or the JSON object that `score --json` prints. Raises ConfigError."""
    if text.strip()[:1] in ("[", "{"):
        return _ids_of_json(text)
    words = [word for part in text.split(",") for word in part.split() or [""]]
    if words == [""]:
        raise ConfigError(f"--ids: no ids, {EXPECTED}")
    for position, word in enumerate(words, 1):
        if not (word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS):
            raise ConfigError(f"--ids: {word[:40]!r} is no token id (position {position}), {EXPECTED}")
    return [int(word) for word in words]


def require_some(ids: Sequence[int]) -> None:
    """Raises ConfigError where no token follows another one."""
    if len(ids) < 2:
        raise ConfigError(
            f"nothing to score: {len(ids)} token{'s' * (len(ids) != 1)}, expected at least two, since the first is only read"
        )


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises ConfigError."""
    for position, token in enumerate(ids, 1):
        if not 0 <= token < vocab_size:
            raise ConfigError(
                f"token id {token} at position {position}: expected 0 to {vocab_size - 1}, the vocabulary"
            )


def read_text(path: str, stdin: BinaryIO) -> str:
    """A file, or standard input for "-"; line ends stay as they are. Raises ConfigError."""
    if path == "-":
        data = stdin.read()
    else:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}), expected a text file or -") from None
    where = STDIN if path == "-" else path
    if not data:
        raise ConfigError(f"{where}: is empty, nothing to score")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ConfigError(
            f"{where}: not UTF-8 (byte 0x{byte:02x} at offset {error.start}), expected UTF-8 text"
        ) from None


def _ids_of_json(text: str) -> list[int]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ConfigError(f"--ids: no JSON ({reason}), {EXPECTED}, or a JSON list of them") from None
    ids = value.get("ids") if isinstance(value, dict) else value
    if not isinstance(ids, list):
        raise ConfigError("--ids: the JSON object has no list 'ids', expected what score --json prints")
    for position, token in enumerate(ids, 1):
        if type(token) is not int or not 0 <= token < 10**MAX_DIGITS:  # True is an int too
            raise ConfigError(f"--ids: {json.dumps(token)[:40]} is no token id (position {position}), {EXPECTED}")
    if not ids:
        raise ConfigError(f"--ids: no ids, {EXPECTED}")
    return ids
