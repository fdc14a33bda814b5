"""llama.cpp's format: one GGUF file with weights, config and tokenizer, plain or quantised.

Quantised tensors come back in fp32, a piece at a time, through the gguf library. Knows: GGUF. Does not know: how a network is built.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from model.config import CheckpointError, Mamba2Config
from model.digest import digest_of
from model.gguf_header import read_gguf_header
from model.gguf_layout import config_from_gguf, gguf_name, gguf_shape, without_ones
from model.layout import Found, check_layout, each_shape, tensor_count, tensor_shapes
from model.mixture import Gate
from model.progress import Progress
from model.tensor_bytes import check_finite, new_tensor, read_into, read_tensor
from model.tokenizer import Tokenizer
from model.tokenizer_files import fitted
from model.tokenizer_gguf import tokenizer_from_gguf

PIECE = (
    1 << 16
)  # quantised values handled at a time; the library slows down three times where its copies leave the processor's cache
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(slots=True)
class GgufSource:
    """A Source (model/source.py). `found` has the tensors by the file's own names."""

    name: str
    path: Path
    config: Mamba2Config
    fields: Mapping[str, object]
    found: Mapping[str, Found]
    progress: Progress | None = None
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    _digest: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._shapes = tensor_shapes(self.config)

    @property
    def digest(self) -> bytes:
        if self._digest is None:
            try:
                self._digest = digest_of([self.path], self.progress)
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be read ({error})") from None
        return self._digest

    @property
    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.found.values())

    def names(self) -> list[str]:
        return list(self._shapes)

    def read(self, name: str) -> Tensor:
        own = gguf_name(name)
        values = read_values(self.found[own], own).reshape(self._shapes[name])
        return log_of(values, self.path, own) if name.endswith(".A_log") else values

    def tokenizer(self) -> Tokenizer:
        return fitted(tokenizer_from_gguf(self.fields, str(self.path)), self.config, str(self.path))

    def gate(self) -> Gate | None:
        return None


def open_gguf(path: Path, name: str, progress: Progress | None = None) -> GgufSource:
    """Reads the header and checks that its tensors are those of its config. Raises ConfigError or CheckpointError."""
    header = read_gguf_header(path)
    config = config_from_gguf(header.fields, header.found, path)
    expected = ((gguf_name(own), without_ones(gguf_shape(own, shape, config))) for own, shape in each_shape(config))
    found = {own: tensor._replace(shape=without_ones(tensor.shape)) for own, tensor in header.found.items()}
    check_layout(expected, found, n_tensors=tensor_count(config), where=path)
    return GgufSource(name, path, config, header.fields, header.found, progress)


def read_values(tensor: Found, name: str) -> Tensor:
    """The finite values of one tensor, in fp32 where they are quantised."""
    if tensor.dtype in PLAIN:
        values = read_tensor(tensor.path, start=tensor.start, dtype=PLAIN[tensor.dtype], shape=tensor.shape, name=name)
        return check_finite(values, path=tensor.path, name=name)
    kind = GGMLQuantizationType[tensor.dtype]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    values = new_tensor((math.prod(tensor.shape),), torch.float32)
    raw = np.empty(PIECE // block * block_bytes, np.uint8)
    for at in range(0, len(values), PIECE):
        piece = values[at : at + PIECE]
        stored = raw[: len(piece) // block * block_bytes]
        read_into(tensor.path, stored, tensor.start + at // block * block_bytes, name)
        try:
            with np.errstate(all="ignore"):  # what is not finite is an error two lines on
                piece.numpy()[:] = dequantize(stored.reshape(1, -1), kind)[0]
        except NotImplementedError:
            raise CheckpointError(
                f"{tensor.path}: tensor {name} is stored as {tensor.dtype}, expected F32, F16, BF16 or a quantised type that the gguf library reads"
            ) from None
        check_finite(piece, path=tensor.path, name=name)
    return values


def log_of(a: Tensor, path: Path, name: str) -> Tensor:
    """A_log of A = -exp(A_log)."""
    a = a.float()
    if not bool((a < 0).all()):
        raise CheckpointError(
            f"{path}: tensor {name} has the value {a.max():.6g}, expected negative numbers (-exp(A_log))"
        )
    return torch.log(-a)
