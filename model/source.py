"""Where weights come from: one interface to every format, one tensor in memory at a time.

Knows: which name or path is of which format. Does not know: what is inside (source_hf, source_mistral, source_gguf), what is built from it.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from model.config import ConfigError, Mamba2Config
from model.hub import explain_absence, local_folder, parse_name
from model.mixture import Gate
from model.progress import Progress
from model.source_folder import pickles
from model.source_hf import CONFIG as HF_CONFIG
from model.source_hf import has_weights as has_hf_weights
from model.source_hf import open_hf
from model.source_mistral import CONFIG as MISTRAL_CONFIG
from model.source_mistral import has_weights as has_mistral_weights
from model.source_mistral import open_mistral
from model.tokenizer import Tokenizer

BUNDLED = Path(__file__).parent / "bundled"
EXPECTED = "expected 'bundled', a folder with a model (config.json or params.json and *.safetensors), a .gguf file or a name on the hub"


class Source(Protocol):
    """A model as it lies on disk. Opened: its config and its tensors' names, shapes and places are checked. Values are, when they are read."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def path(self) -> Path:
        """The folder or the file."""
        ...

    @property
    def config(self) -> Mamba2Config: ...

    @property
    def digest(self) -> bytes:
        """32 bytes that change with any weight and with the config. Hashed once, then remembered (model/digest.py)."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tensors in the files."""
        ...

    def names(self) -> list[str]:
        """Hugging Face's names of all tensors, in reading order; without `lm_head.weight` where that is the embeddings."""
        ...

    def read(self, name: str) -> Tensor:
        """One tensor in memory of its own, in fp32, fp16 or bf16 as stored; quantised ones in fp32.

        Raises CheckpointError where the file ends early or a value is not finite.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """Raises ConfigError where there is none."""
        ...

    def gate(self) -> Gate | None:
        """The fitted weights of the lookup mixture, where the model brings some."""
        ...


def open_source(name: str, progress: Progress | None = None) -> Source:
    """`name` is "bundled", a folder, a .gguf file or a hub name that was pulled. `progress` hears of the hashing. Raises ConfigError, one line.

    A pulled name goes before a folder of that name: a workspace must not be able to put its own weights in its place.
    """
    if name == "bundled":
        return open_folder(BUNDLED, "bundled", progress)
    pulled = local_folder(name)
    if pulled is not None:
        return open_folder(pulled, name, progress)
    path = Path(name).expanduser()
    if not name or not path.exists():
        if parse_name(name) is not None:
            raise ConfigError(explain_absence(name))
        raise ConfigError(f"{name or path}: no such folder or file, {EXPECTED}")
    if path.is_dir():
        return open_folder(path, path.resolve().name, progress)
    return open_file(path, progress)


def open_folder(folder: Path, name: str, progress: Progress | None) -> Source:
    """Mistral's format goes first where both are whole: its config cannot be wrong about what it does not say."""
    if has_mistral_weights(folder):
        return open_mistral(folder, name, progress)
    if (folder / HF_CONFIG).exists() or has_hf_weights(folder):
        return open_hf(folder, name, progress)
    if (folder / MISTRAL_CONFIG).exists():
        return open_mistral(folder, name, progress)
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    hint = f"; name the file itself, such as {folder / ggufs[0]}" if ggufs else ""
    raise ConfigError(f"{folder}: no {HF_CONFIG} and no {MISTRAL_CONFIG} there, {EXPECTED}{hint}{pickles(folder)}")


def open_file(path: Path, progress: Progress | None) -> Source:
    if path.suffix == ".safetensors":
        raise ConfigError(f"{path}: is one file of a model, expected its folder: {path.parent}")
    from model.source_gguf import open_gguf  # its library takes longer to import than a small model to load

    return open_gguf(path, path.stem, progress)
