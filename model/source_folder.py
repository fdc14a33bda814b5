"""A model in a folder: Hugging Face's `Mamba2ForCausalLM` or Mistral's own format, in safetensors. What is alike in the two.

Knows: safetensors, names of tensors, what lies beside the weights. Does not know: how a network is built, where folders come from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from model.config import CheckpointError, Mamba2Config, shown
from model.digest import digest_of
from model.layout import HEAD, Found, check_layout, each_shape, tensor_count, tensor_shapes
from model.mixture import Gate, read_gate
from model.progress import Progress
from model.safetensors_header import read_header
from model.tensor_bytes import check_finite, read_tensor
from model.tokenizer import Tokenizer
from model.tokenizer_files import load_tokenizer

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(slots=True)
class FolderSource:
    """A Source (model/source.py) whose tensors are safetensors. `found` has them by Hugging Face name, in reading order."""

    name: str
    path: Path
    config: Mamba2Config
    config_file: Path
    found: Mapping[str, Found]
    progress: Progress | None = None
    _digest: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> bytes:
        if self._digest is None:
            self._digest = self._hash()
        return self._digest

    def _hash(self) -> bytes:
        files = dict.fromkeys(tensor.path for tensor in self.found.values())
        try:
            return digest_of([self.config_file, *sorted(files)], self.progress)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error})") from None

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.found.values())

    def names(self) -> list[str]:
        return list(self.found)

    def read(self, name: str) -> Tensor:
        tensor = self.found[name]
        values = read_tensor(tensor.path, start=tensor.start, dtype=DTYPES[tensor.dtype], shape=tensor.shape, name=name)
        return check_finite(values, path=tensor.path, name=name)

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path, self.config)

    def gate(self) -> Gate | None:
        file = self.path / "gate.json"
        return read_gate(file) if file.exists() else None


def tensors_of(files: Sequence[Path], folder: Path) -> dict[str, Found]:
    """All tensors of these files by their own names, each once. Raises CheckpointError."""
    found: dict[str, Found] = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file}: no such file, expected the model's weights in safetensors format{pickles(folder)}"
            )
        for name, tensor in read_header(file).items():
            if name in found:
                raise CheckpointError(
                    f"{file}: tensor {shown(name)} is in another shard too ({found[name].path.name}), expected it once"
                )
            found[name] = tensor
    return found


def checked(
    config: Mamba2Config, found: Mapping[str, Found], own_names: Mapping[str, str], *, where: Path
) -> dict[str, Found]:
    """`found` by Hugging Face name in reading order, where it is the whole of a model of this config and nothing else.

    `own_names`: the file's name of each Hugging Face name that it calls otherwise. Raises CheckpointError.
    """
    rest = dict(found)
    if config.tie_embeddings:  # some programs write the head of a tied model too
        rest.pop(own_name(HEAD, own_names), None)
    expected = ((own_name(name, own_names), shape) for name, shape in each_shape(config))
    check_layout(expected, rest, n_tensors=tensor_count(config), where=where)
    ordered = {name: rest[own_name(name, own_names)] for name in tensor_shapes(config)}
    for name, tensor in ordered.items():
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"{tensor.path}: tensor {name} is stored as {tensor.dtype}, expected F32, F16 or BF16"
            )
    return ordered


def own_name(name: str, prefixes: Mapping[str, str]) -> str:
    """`name` with the first of the prefixes that it has exchanged."""
    for prefix, own in prefixes.items():
        if name.startswith(prefix):
            return own + name[len(prefix) :]
    return name


def pickles(folder: Path) -> str:
    """What to add to a message where weights are missing and a pickle lies there."""
    names = sorted(file.name for file in folder.glob("*") if file.suffix in PICKLES)
    return f" ({names[0]} could run code when it is read, so it never is)" if names else ""
