"""From a source of weights to a network that runs: which backend, which precision, packed now or before.

Knows: sources, packing, backends. Does not know: formats of files, tokenizers.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from model import native
from model.config import ConfigError, Mamba2Config
from model.digest import cache_folder, made_folder
from model.layout import EMBEDDINGS, HEAD, tensor_shapes
from model.machine import usable_bytes
from model.native import NativeLM
from model.network import Mamba2LM, Network
from model.packed import PackedMatrix, pack
from model.packed_file import FORMAT, TABLES, PackedFile, is_projection, is_sealed, kind_of, map_packed, seal
from model.packed_linear import pack_network, round_network
from model.precision import check_precision, choose_precision
from model.progress import Progress
from model.source import Source
from model.torch_build import build_torch

BACKENDS = ("auto", "native", "torch")
CUDA_PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
log = logging.getLogger(__name__)
KEEP_FROM_BYTES = 256 << 20  # smaller models are packed faster than a file of theirs is found


def build_network(
    source: Source, precision: str, *, backend: str = "auto", progress: Progress | None = None
) -> Network:
    """Loads one tensor at a time: memory stays at what the precision needs and the largest tensor. Raises ConfigError.

    "auto" is the native kernels where they can run the model's shape, and torch elsewhere.
    """
    check_precision(precision)
    if backend not in BACKENDS:
        raise ConfigError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend == "auto" and has_gpu():
        if precision not in CUDA_PRECISIONS:
            raise ConfigError(f"precision is {precision!r}, expected {' or '.join(CUDA_PRECISIONS)} on a GPU")
        from model.cuda import build_cuda  # imports Triton

        return build_cuda(source, dtype=CUDA_PRECISIONS[precision], progress=progress)
    reason = native.why_not(source.config)
    if backend == "native" and reason is not None:
        raise ConfigError(f"{source.path}: the native kernels cannot run this model: {reason}")
    if backend == "torch" or reason is not None:
        return build_with_torch(source, precision, progress=progress)
    return NativeLM(source.config, packed_tensors(source, precision, progress=progress), precision=precision)


def automatic_precision(config: Mamba2Config) -> str:
    """What a model runs at on this machine where nobody says otherwise."""
    if has_gpu():
        return "bf16"
    return choose_precision(config, usable_bytes(), kernels=native.why_not(config) is None)


def has_gpu() -> bool:
    """Whether models run on a GPU: it is NVIDIA's, and Triton is there, as it is with every CUDA build of torch for Linux."""
    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def build_with_torch(source: Source, precision: str, *, progress: Progress | None) -> Mamba2LM:
    """The fallback: fp32 and bf16 as plain weights, int8 and int4 as the packed ones of the kernels."""
    if precision == "fp32":
        return build_torch(source, progress=progress)
    if precision == "bf16":
        return round_network(build_torch(source, dtype=torch.bfloat16, progress=progress))
    return torch_network(source.config, packed_tensors(source, precision, progress=progress), precision)


def packed_tensors(source: Source, precision: str, *, progress: Progress | None) -> dict[str, Tensor | PackedMatrix]:
    """All tensors by Hugging Face name, projections packed; int8 and int4 of a large model from the file that is kept of them, made if need be."""
    shapes = shapes_of(source.config)
    if precision in ("int8", "int4") and source.stored_bytes >= KEEP_FROM_BYTES:
        return map_packed(kept_copy(source, precision, progress=progress), shapes, precision=precision)
    tensors: dict[str, Tensor | PackedMatrix] = {}
    for name, tensor in _read(source, shapes, what=f"loading in {precision}", progress=progress):
        tensors[name] = _packed(name, tensor, precision)
    return tensors


def kept_copy(source: Source, precision: str, *, progress: Progress | None) -> Path:
    """The packed file of a model: the one that is there if it is still what was written, else made now."""
    path = kept_path(source, precision)
    if path.exists() and not is_sealed(path, progress):
        log.warning("%s: is not what was written there, so it is made again", path)
        path.unlink()
    if not path.exists():
        made_folder(path.parent.name)
        write_packed(source, path, precision, progress=progress)
        seal(path, progress)
    return path


def write_packed(source: Source, path: Path, precision: str, *, progress: Progress | None) -> None:
    """Quantises a model into a packed file; nothing is left behind when that fails or is interrupted."""
    shapes = shapes_of(source.config)
    about = {"model": source.name, "digest": source.digest.hex()}
    table = table_of(source.read(EMBEDDINGS), precision).dtype
    file = PackedFile(path, shapes, precision=precision, table=table, metadata=about)
    try:
        for name, tensor in _read(source, shapes, what=f"quantising to {precision}", progress=progress):
            file.write(name, _packed(name, tensor, precision))
    except BaseException:
        file.abandon()
        raise
    file.finish()


def kept_path(source: Source, precision: str) -> Path:
    """Where the packed weights of a model are kept: by what the weights are, not by where they lie."""
    return cache_folder() / "models" / f"{source.digest.hex()[:32]}-{FORMAT}-{precision}.safetensors"


def shapes_of(config: Mamba2Config) -> dict[str, tuple[int, ...]]:
    """Of every tensor a network is built from; a tied head is one of them, packed on its own."""
    return tensor_shapes(config) | {HEAD: (config.vocab_size, config.d_model)}


def torch_network(config: Mamba2Config, tensors: Mapping[str, Tensor | PackedMatrix], precision: str) -> Mamba2LM:
    """Packed projections in torch, everything else in fp32."""
    with torch.device("meta"):
        network = Mamba2LM(config)
    plain = {name: value.float() for name, value in tensors.items() if isinstance(value, Tensor)}
    matrices = {name: value for name, value in tensors.items() if isinstance(value, PackedMatrix)}
    network.load_state_dict(plain, strict=False, assign=True)
    return pack_network(network, matrices, precision).requires_grad_(False).eval()


def _packed(name: str, tensor: Tensor, precision: str) -> Tensor | PackedMatrix:
    if is_projection(name):
        return pack(tensor, kind_of(name, precision))
    return table_of(tensor, precision) if name == EMBEDDINGS else tensor.float()


def table_of(embeddings: Tensor, precision: str) -> Tensor:
    """The embedding table as it is kept: as stored where that is two bytes a value; the same whether it comes from a file of ours or not."""
    if precision == "fp32":
        return embeddings.float()
    return embeddings if embeddings.dtype in TABLES else embeddings.bfloat16()


def _read(
    source: Source, shapes: dict[str, tuple[int, ...]], *, what: str, progress: Progress | None
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) one by one; a tied head is the embedding table again."""
    available = set(source.names())
    done = 0
    for name in shapes:
        tensor = source.read(name if name in available else EMBEDDINGS)
        done += tensor.nbytes
        yield name, tensor
        if progress is not None:
            progress(min(done, source.stored_bytes), source.stored_bytes, what)
