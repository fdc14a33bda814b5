"""What `calibrate` found out about a model on this machine, kept as CACHE/profiles/<digest of the weights>.json.

A file that is damaged or asks for what cannot be is one line in the log and no profile: the defaults always work.
Knows: the file. Does not know: how the figures are measured (daemon/calibrate.py).
"""

import contextlib
import logging
import os
import tempfile
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec

from daemon.protocol import WindowSizes
from model.checkpoint import LoadedModel
from model.digest import cache_folder
from model.fim import default_strategy, possible_strategies

FORMAT = 1
MAX_BYTES = 65_536
log = logging.getLogger("codestral_lsp.profile")

Speed = Annotated[float, msgspec.Meta(gt=0)]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """`strategy` and `window` hold for the weights; the speeds for the backend, precision and threads that `numerics` names."""

    strategy: str
    window: WindowSizes
    feed_tokens_per_s: Speed
    decode_tokens_per_s: Speed
    numerics: str
    model: str  # its name, for people
    date: date
    n_holes: int
    format: int = FORMAT

    def is_of(self, model: LoadedModel) -> bool:
        """Whether the speeds were measured the way in which `model` runs now."""
        return self.numerics == model.network.numerics


class ProfileError(Exception):
    """A profile cannot be kept. One line, for people."""


def read_profile(digest: bytes) -> Profile | None:
    """The profile of the model with these weights; None where there is none that can be used."""
    path = profile_path(digest)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        profile = msgspec.json.decode(content, type=Profile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("%s: is not used (%s), expected what `codestral-lsp calibrate` writes", path, error)
        return None
    if profile.format != FORMAT:
        log.warning("%s: is not used, it has format %d, expected %d", path, profile.format, FORMAT)
        return None
    return profile


def write_profile(digest: bytes, profile: Profile) -> Path:
    """Keeps `profile`, whole or not at all, in a file that only its owner can read. Raises ProfileError."""
    path = profile_path(digest)
    name = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written ({error.strerror}), expected a folder of your own") from None
    finally:
        if name is not None:
            with contextlib.suppress(FileNotFoundError):  # it is the profile now
                os.unlink(name)
    return path


def remove_profile(digest: bytes) -> bool:
    """Whether there was one. Raises ProfileError."""
    path = profile_path(digest)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ProfileError(f"{path}: cannot be removed ({error.strerror}), expected a file of your own") from None
    return True


def strategy_of(model: LoadedModel, profile: Profile | None) -> str:
    """The profile's strategy; where there is none, or one that the model has no control tokens for, the model's default."""
    default = default_strategy(model.tokenizer.control, name=model.name)
    if profile is None:
        return default
    possible = possible_strategies(model.tokenizer.control)
    if profile.strategy not in possible:
        log.warning(
            "the profile of model %s wants strategy %r, possible are %s: %s is used",
            model.name,
            profile.strategy,
            ", ".join(possible),
            default,
        )
        return default
    return profile.strategy


def profile_path(digest: bytes) -> Path:
    return cache_folder() / "profiles" / f"{digest.hex()}.json"
