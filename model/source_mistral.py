"""Mistral's format: params.json, consolidated.safetensors, tokenizer.model.v3. Knows: names of that format; see source_folder.

The weights are a state dict of mamba_ssm's `MambaLMHeadModel` inside a wrapper called `model`, hence the names.
"""

from pathlib import Path

from model.config import config_from_mistral, read_json_object
from model.layout import EMBEDDINGS, HEAD
from model.progress import Progress
from model.source_folder import FolderSource, checked, tensors_of

CONFIG, WEIGHTS = "params.json", "consolidated.safetensors"
# Mistral's prefix of a name for Hugging Face's, the longer ones first.
OWN_NAMES = {EMBEDDINGS: "model.backbone.embedding.weight", "backbone.": "model.backbone.", HEAD: f"model.{HEAD}"}


def has_weights(folder: Path) -> bool:
    return (folder / CONFIG).exists() and (folder / WEIGHTS).exists()


def open_mistral(folder: Path, name: str, progress: Progress | None = None) -> FolderSource:
    """Reads params.json and the header of the weights, and checks one against the other. Raises ConfigError or CheckpointError."""
    params = folder / CONFIG
    config = config_from_mistral(read_json_object(params), source=str(params))
    found = tensors_of([folder / WEIGHTS], folder)
    ordered = checked(config, found, OWN_NAMES, where=folder / WEIGHTS)
    return FolderSource(name, folder, config, params, ordered, progress)
