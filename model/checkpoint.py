"""Reading a model from a folder: config.json, safetensors in Hugging Face names, tokenizer.model and, beside them, gate.json.

Every error is one line that names the file, the tensor and what was expected. No pickle is ever loaded. Knows: files of weights. Does not know: caches.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.config import ConfigError, Mamba2Config, read_config
from model.mixture import Gate, read_gate
from model.network import Mamba2LM
from model.tokenizer import Tokenizer

BUNDLED = Path(__file__).parent / "bundled"
INDEX = "model.safetensors.index.json"


class CheckpointError(ConfigError):
    """Weights are missing, damaged or not those of the config."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run. `digest` changes with any weight; `name` is what people call it."""

    name: str
    config: Mamba2Config
    network: Mamba2LM
    tokenizer: Tokenizer
    gate: Gate | None
    digest: bytes


def load_model(name: str) -> LoadedModel:
    """`name` is "bundled" or the path of a folder. Weights run in fp32. Raises ConfigError or CheckpointError, one line each."""
    folder = BUNDLED if name == "bundled" else Path(name).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder, expected 'bundled' or a folder with config.json and *.safetensors"
        )
    config = read_config(folder / "config.json")
    files = weight_files(folder)
    tokenizer = Tokenizer(folder / "tokenizer.model")
    if tokenizer.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{folder / 'tokenizer.model'}: {tokenizer.vocab_size} pieces, expected at most the model's vocab_size {config.vocab_size}"
        )
    with torch.device("meta"):
        network = Mamba2LM(config)
    network.load_state_dict(read_tensors(files, network, folder), strict=True, assign=True)
    if config.tie_embeddings:
        network.lm_head.weight = network.backbone.embeddings.weight
    network.requires_grad_(False).eval()
    gate = read_gate(folder / "gate.json") if (folder / "gate.json").exists() else None
    label = "bundled" if name == "bundled" else folder.resolve().name
    return LoadedModel(label, config, network, tokenizer, gate, digest_of([folder / "config.json", *files]))


def weight_files(folder: Path) -> list[Path]:
    """The shards that the index names, or the single model.safetensors."""
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
            raise CheckpointError(f"{index}: not an index of shards ({error!r})") from None
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise CheckpointError(f"{index}: names a file outside its folder, expected plain file names")
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file, expected the model's weights in safetensors format")
    return files


def read_tensors(files: list[Path], network: Mamba2LM, folder: Path) -> dict[str, Tensor]:
    """All of the network's tensors in fp32; each must be there once, in its shape, and finite."""
    expected = dict(network.state_dict())
    if network.config.tie_embeddings:
        expected.pop("lm_head.weight")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118, not a dict
                    if name == "lm_head.weight" and network.config.tie_embeddings:
                        continue
                    if name in found:
                        raise CheckpointError(f"{file}: tensor {name} is in another shard too, expected it once")
                    found[name] = checked(tensors.get_tensor(name), name, expected, file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from None
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise CheckpointError(
            f"{folder}: tensor {missing[0]} is missing ({len(missing)} in all), expected {len(expected)} tensors"
        )
    if network.config.tie_embeddings:
        found["lm_head.weight"] = found["backbone.embeddings.weight"]
    return found


def checked(tensor: Tensor, name: str, expected: dict[str, Tensor], file: Path) -> Tensor:
    if name not in expected:
        raise CheckpointError(f"{file}: tensor {name} is not part of a Mamba2 of this config")
    shape = tuple(expected[name].shape)
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{file}: tensor {name} has shape {tuple(tensor.shape)}, expected {shape}")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{file}: tensor {name} is {tensor.dtype}, expected floating point")
    tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{file}: tensor {name} has values that are not finite")
    return tensor


def digest_of(files: list[Path]) -> bytes:
    hasher = hashlib.blake2b(digest_size=32)
    for file in files:
        with file.open("rb") as data:
            hasher.update(file.name.encode())
            hasher.update(hashlib.file_digest(data, "blake2b").digest())
    return hasher.digest()
