"""Random weights of a real model's shape in any of the formats, written tensor by tensor about as fast as a disk takes them.

    python -m benchmarks.random_checkpoint build/c8.gguf --shape c8 --format gguf --kind q4_0
    python -m benchmarks.random_checkpoint build/codestral --shape codestral --format mistral

The values keep states and logits finite over any length: projections are normal with variance 1/columns, A is -1 to -16, steps are softplus of about
-3 to -1. The same seed gives the same bits, whatever the format, and a tensor's values depend on its name and not on what is read before.
Prints one JSON line. Knows: the formats' names (model/), shapes. Does not know: what is measured with it.
"""

import argparse
import json
import math
import shutil
import sys
import time
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.config import ConfigError, Mamba2Config
from model.gguf_write import KINDS, export_gguf
from model.layout import tensor_shapes
from model.mixture import Gate
from model.progress import shown_bytes
from model.source import BUNDLED, Source
from model.source_folder import own_name
from model.source_mistral import OWN_NAMES
from model.tokenizer import Tokenizer
from model.tokenizer_files import read_tokenizer

CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32768, n_heads=128, n_groups=8)
SHAPES = {
    "bundled": Mamba2Config(d_model=256, n_layers=6, vocab_size=8192, d_state=64, n_heads=8, tie_embeddings=True),
    "s": Mamba2Config(d_model=768, n_layers=24, vocab_size=32768, n_heads=24),
    "c8": replace(CODESTRAL, n_layers=8),
    "c64": CODESTRAL,
    "codestral": CODESTRAL,
}
STORED = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
LEVELS = 1 << 16  # a value is one of this many quantiles of the normal distribution
PIECE = 1 << 18  # values made at a time: indices and results stay in the processor's cache


@dataclass(slots=True)
class RandomSource:
    """A Source (model/source.py) that makes its tensors up when they are read."""

    config: Mamba2Config
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16
    name: str = "random"
    path: Path = field(default_factory=lambda: Path("random"))

    @property
    def digest(self) -> bytes:
        return zlib.crc32(repr((self.config, self.seed, self.dtype)).encode()).to_bytes(32, "big")

    @property
    def stored_bytes(self) -> int:
        return sum(math.prod(shape) for shape in tensor_shapes(self.config).values()) * self.dtype.itemsize

    def names(self) -> list[str]:
        return list(tensor_shapes(self.config))

    def read(self, name: str) -> Tensor:
        shape = tensor_shapes(self.config)[name]
        key = np.random.SFC64([self.seed, zlib.crc32(name.encode())])
        if name.endswith("A_log"):
            return torch.log(torch.linspace(1, 16, shape[0])).to(self.dtype)
        if name.endswith("dt_bias"):
            return torch.linspace(-3, -1, shape[0]).to(self.dtype)
        if name.endswith("conv1d.bias"):
            return torch.zeros(shape, dtype=self.dtype)
        if len(shape) == 1:  # norms and D
            return torch.ones(shape, dtype=self.dtype)
        spread = 1.0 if name.endswith("embeddings.weight") else shape[-1] ** -0.5
        return normal(key, shape, spread, self.dtype)

    def tokenizer(self) -> Tokenizer:
        tokenizer = read_tokenizer(BUNDLED / "tokenizer.model")
        if tokenizer.vocab_size > self.config.vocab_size:
            raise ConfigError(f"{self.name}: {self.config.vocab_size} tokens, fewer than the bundled tokenizer has")
        return tokenizer

    def gate(self) -> Gate | None:
        return None


def normal(key: np.random.SFC64, shape: tuple[int, ...], spread: float, dtype: torch.dtype) -> Tensor:
    """Values of mean 0 and standard deviation `spread`: 16 random bits pick a quantile, which costs a tenth of what `randn` does."""
    middles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    table = (torch.special.ndtri(middles) * spread).to(dtype)
    bits = torch.int32 if dtype.itemsize == 4 else torch.int16
    quantiles = table.view(bits).numpy()
    out = np.empty(math.prod(shape), quantiles.dtype)
    for at in range(0, len(out), PIECE):
        piece = out[at : at + PIECE]
        picks = key.random_raw(-(-len(piece) // 4)).view(np.uint16)[: len(piece)]
        np.take(quantiles, picks, out=piece, mode="wrap")  # "raise" would buffer
    return torch.from_numpy(out).view(dtype).view(shape)


def write_folder(source: RandomSource, folder: Path, *, mistral: bool) -> int:
    """Config, weights in one file and the bundled tokenizer where it fits. Returns the bytes of the weights."""
    folder.mkdir(parents=True)
    c = source.config
    if mistral:
        config = mistral_params(c)
        (folder / "params.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    else:
        (folder / "config.json").write_text(json.dumps(c.to_hf(), indent=1), encoding="utf-8")
    if c.vocab_size >= read_tokenizer(BUNDLED / "tokenizer.model").vocab_size:
        shutil.copy(BUNDLED / "tokenizer.model", folder / ("tokenizer.model.v3" if mistral else "tokenizer.model"))
    weights = folder / ("consolidated.safetensors" if mistral else "model.safetensors")
    return write_safetensors(source, weights, own_names=OWN_NAMES if mistral else {})


def mistral_params(config: Mamba2Config) -> dict:
    """Raises ConfigError where params.json cannot say what the model is."""
    c = config
    if (c.d_state, c.d_conv, c.head_dim, c.d_inner) != (128, 4, 64, 2 * c.d_model):
        raise ConfigError(
            "Mistral's params.json knows only states of 128, heads of 64 and twice the width inside, expected --format hf or gguf"
        )
    return {
        "dim": c.d_model,
        "n_layers": c.n_layers,
        "vocab_size": c.vocab_size,
        "n_groups": c.n_groups,
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": c.tie_embeddings,
        "model_type": "mamba",
    }


def write_safetensors(source: Source, path: Path, *, own_names: dict[str, str]) -> int:
    """Streams the tensors; their dtype is the first one's. Returns the file's bytes."""
    shapes = tensor_shapes(source.config)
    dtype = source.read(source.names()[-1]).dtype
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[own_name(name, own_names)] = {
            "dtype": STORED[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            source.read(name).reshape(-1).view(torch.uint8).numpy().tofile(file)
    return path.stat().st_size


def size_of(config: Mamba2Config) -> str:
    n_bytes = RandomSource(config).stored_bytes
    return f"{n_bytes / 2e6:.0f} M, {shown_bytes(n_bytes)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a new folder, or with --format gguf a new file")
    sizes = "; ".join(f"{name}: {size_of(config)}" for name, config in SHAPES.items())
    parser.add_argument("--shape", choices=SHAPES, required=True, help=f"parameters, and bytes in bf16: {sizes}")
    parser.add_argument("--format", choices=("mistral", "hf", "gguf"), default="mistral")
    parser.add_argument("--kind", choices=KINDS, default="bf16", help="of the matrices of a GGUF file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.out.exists():
        raise SystemExit(f"{args.out}: is there already, expected a new name")
    source = RandomSource(SHAPES[args.shape], args.seed, name=f"random-{args.shape}")
    start = time.perf_counter()
    try:
        if args.format == "gguf":
            args.out.parent.mkdir(parents=True, exist_ok=True)
            for note in export_gguf(source, args.out, kind=args.kind):
                print(note, file=sys.stderr)
            n_bytes = args.out.stat().st_size
        else:
            n_bytes = write_folder(source, args.out, mistral=args.format == "mistral")
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    seconds = time.perf_counter() - start
    print(json.dumps({"out": str(args.out), "bytes": n_bytes, "s": seconds, "gb_per_s": n_bytes / seconds / 1e9}))


if __name__ == "__main__":
    main()
