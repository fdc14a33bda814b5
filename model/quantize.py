"""The `quantize` command: makes a model's packed weights ahead of time, so that its first start is as fast as every other."""

from pathlib import Path

from model.build import KEEP_FROM_BYTES, kept_copy
from model.config import ConfigError
from model.progress import Progress
from model.source import open_source


class TooSmall(ConfigError):
    """No copy is kept of such a model, and none is needed."""


def quantize(name: str, precision: str, *, progress: Progress | None = None) -> Path:
    """The kept file of model `name` at "int8" or "int4", made if it is not there yet. Raises ConfigError."""
    if precision not in ("int8", "int4"):
        raise ConfigError(
            f"precision is {precision!r}, expected int8 or int4: the others are read from the checkpoint itself"
        )
    source = open_source(name)
    if source.stored_bytes < KEEP_FROM_BYTES:
        raise TooSmall(
            f"{source.path}: is so small ({source.stored_bytes / 1e6:.0f} MB) that it is quantised at every start, nothing is kept"
        )
    return kept_copy(source, precision, progress=progress)
