"""A model ready to run: weights, tokenizer and gate from whatever format they are in.

Knows: which parts make a model. Does not know: formats (model/source.py), how a network is built (model/build.py).
"""

from dataclasses import dataclass

from model.build import automatic_precision, build_network
from model.config import Mamba2Config
from model.mixture import Gate
from model.network import Network
from model.progress import Progress
from model.source import open_source
from model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`digest` changes with any stored weight, `precision` is what they were made into; `name` is what people call the model."""

    name: str
    config: Mamba2Config
    network: Network
    tokenizer: Tokenizer
    gate: Gate | None
    digest: bytes
    precision: str


def load_model(
    name: str, *, precision: str | None = None, backend: str = "auto", progress: Progress | None = None
) -> LoadedModel:
    """`name` as in model.source.open_source; `backend` as in model.build. `precision` None is what fits this machine's memory.

    Raises ConfigError or CheckpointError, one line each; whatever is small is read before the weights are.
    """
    source = open_source(name, progress)
    tokenizer, gate = source.tokenizer(), source.gate()
    chosen = precision if precision is not None else automatic_precision(source.config)
    network = build_network(source, chosen, backend=backend, progress=progress)
    return LoadedModel(source.name, source.config, network, tokenizer, gate, source.digest, chosen)
