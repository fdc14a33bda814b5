"""The digest of a model's files: what tells its states apart from another model's. Hashed once, then remembered by the files' identity.

Hashing 14.6 GB takes seconds; a start must not. Remembered in one small file a model: a damaged or foreign one is ignored, and made again.
Knows: files. Does not know: formats of weights.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs
from blake3 import blake3

from model.config import ConfigError
from model.progress import Progress

VERSION = 1
SETTLED_S = 2.0  # a file younger than the clock of some file systems is exact could change again without a new time
READ_BYTES = 1 << 22
SEAL_SUFFIX = ".blake3"  # of the file beside a quantised copy that says what its digest was (model/packed_file.py)
CACHE_VARIABLE = "CODESTRAL_LSP_CACHE"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where everything derived is kept; not made here."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("codestral-lsp")


def made_folder(name: str) -> Path:
    """The folder of that name for something that has to be kept, made where it is not there. Raises ConfigError."""
    folder = cache_folder() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error.strerror}), expected a place to keep files in; {CACHE_VARIABLE} names another"
        ) from None
    return folder


def digest_of(files: Sequence[Path], progress: Progress | None = None) -> bytes:
    """32 bytes over the files' names and contents, in this order. Raises OSError where one cannot be read."""
    before = [identity(file) for file in files]
    paths = json.dumps([entry["path"] for entry in before])
    kept = cache_folder() / "digests" / f"{blake3(paths.encode()).hexdigest()[:32]}.json"
    known = remembered(kept, before)
    if known is not None:
        return known
    digest = hashed(files, sum(entry["size"] for entry in before), progress)
    newest = max(entry["mtime_ns"] for entry in before)
    if [identity(file) for file in files] == before and time.time() - newest / 1e9 >= SETTLED_S:
        remember(kept, before, digest)
    return digest


def identity(file: Path) -> dict:
    """What changes when somebody writes to the file, puts another in its place or sets its time back."""
    real = file.resolve(strict=True)
    status = real.stat()
    return {
        "path": str(real),
        "name": file.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
        "device": status.st_dev,
    }


def hashed(files: Sequence[Path], n_bytes: int, progress: Progress | None) -> bytes:
    whole, done = blake3(), 0
    buffer = bytearray(READ_BYTES)
    for file in files:
        one = blake3()
        with file.open("rb", buffering=0) as data:
            while n_read := data.readinto(buffer):
                one.update(memoryview(buffer)[:n_read])
                done += n_read
                if progress is not None:
                    progress(done, n_bytes, "checking the weights")
        whole.update(file.name.encode() + b"\0" + one.digest())
    return whole.digest()


def remembered(kept: Path, files: list[dict]) -> bytes | None:
    try:
        data = json.loads(kept.read_text(encoding="utf-8"))
        if data["version"] == VERSION and data["files"] == files:
            digest = bytes.fromhex(data["digest"])
            return digest if len(digest) == 32 else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.info("%s: not a remembered digest (%s), hashing again", kept, error)
    return None


def remember(kept: Path, files: list[dict], digest: bytes) -> None:
    """Writes the file whole or not at all, readable for its owner only."""
    try:
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False, encoding="utf-8") as file:
            json.dump({"version": VERSION, "files": files, "digest": digest.hex()}, file)
        os.replace(file.name, kept)
    except OSError as error:  # a full or read-only disk costs the next start some seconds, not this one its model
        log.warning(
            "%s: cannot be written (%s), so the weights are checked again at every start; %s names another place",
            kept.parent,
            error.strerror,
            CACHE_VARIABLE,
        )
