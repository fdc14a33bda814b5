"""Hugging Face's format: config.json, then model.safetensors or the shards of an index. Knows: file names of that format; see source_folder."""

import json
from collections.abc import Mapping
from pathlib import Path

from model.config import CheckpointError, read_config, shown
from model.layout import EMBEDDINGS, Found
from model.progress import Progress
from model.source_folder import FolderSource, checked, tensors_of

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# The maker's own program says "embedding"; transformers takes both.
OLD_EMBEDDINGS = "backbone.embedding.weight"


def has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() or (folder / INDEX).exists()


def open_hf(folder: Path, name: str, progress: Progress | None = None) -> FolderSource:
    """Reads the config and the headers of the weights, and checks one against the other. Raises ConfigError or CheckpointError."""
    config = read_config(folder / CONFIG)
    mapped = read_index(folder / INDEX) if (folder / INDEX).exists() else None
    files = [folder / WEIGHTS] if mapped is None else [folder / file for file in sorted(set(mapped.values()))]
    found = tensors_of(files, folder)
    own_names = {EMBEDDINGS: OLD_EMBEDDINGS} if OLD_EMBEDDINGS in found else {}
    ordered = checked(config, found, own_names, where=files[0] if len(files) == 1 else folder)
    if mapped is not None:
        check_index(folder / INDEX, mapped, found)
    return FolderSource(name, folder, config, folder / CONFIG, ordered, progress)


def read_index(index: Path) -> dict[str, str]:
    """The file of each tensor: plain names in the index's own folder. Raises CheckpointError."""
    try:
        mapped = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = dict(mapped.items())
        names = set(pairs.values())
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error!r})") from None
    for file in names:
        if not isinstance(file, str) or Path(file).name != file or "\0" in file or not file.isprintable():
            raise CheckpointError(
                f"{index}: names the file {shown(file)}, outside its folder or none, expected plain file names"
            )
    return pairs


def check_index(index: Path, mapped: Mapping[str, str], found: Mapping[str, Found]) -> None:
    """Raises CheckpointError where the shards are not those that the index was written for."""
    for name, file in mapped.items():
        if name not in found or found[name].path.name != file:
            there = f"is in {found[name].path.name}" if name in found else "is in none of its files"
            raise CheckpointError(f"{index}: tensor {shown(name)} {there}, expected it in {file}")
