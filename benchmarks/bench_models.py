"""The models that the benchmarks run: one checkpoint for each shape, for us and for transformers, and the same weights as GGUF for llama.cpp.

Everything lies in build/bench/ and is made when it is missing; random weights do for speed. Knows: shapes, folders. Does not know: what is measured.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks import random_checkpoint
from benchmarks.peers import BUILD, GGUF_KINDS, quantize, quantized_path
from model.export import export
from model.source import BUNDLED

FOLDER = BUILD / "bench"
SHAPES = {
    "bundled": "the bundled model",
    "s": "d_model 768, 24 layers",
    "c8": "Codestral's width, 8 layers",
    "c64": "Codestral, all 64 layers",
}
FULL_SIZE = "c64"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """`name` is what load_model takes, `folder` where it lies: in Hugging Face's format, but the full size, which is in Mistral's."""

    shape: str
    name: str
    folder: Path

    def gguf(self, precision: str, *, pure: bool = False) -> Path:
        """The same weights for llama.cpp in its counterpart of `precision`, made unless it is there; the BF16 file it is made from is needed once."""
        bf16 = FOLDER / f"{self.shape}-BF16.gguf"
        out = quantized_path(bf16, GGUF_KINDS[precision], pure=pure)
        if not out.exists():
            if not bf16.exists():
                half = bf16.with_name(f"{self.shape}-BF16.part.gguf")  # export asks for the name's end
                half.unlink(missing_ok=True)
                export(self.name, half, "bf16")
                half.replace(bf16)
            quantize(bf16, out, GGUF_KINDS[precision], pure=pure)
        return out


def bench_model(shape: str) -> BenchModel:
    """The checkpoint of one of SHAPES, made unless it is there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if shape == "bundled":
        return BenchModel(shape, "bundled", BUNDLED)
    folder = FOLDER / shape
    if not folder.exists():
        half = FOLDER / f"{shape}.part"
        shutil.rmtree(half, ignore_errors=True)
        source = random_checkpoint.RandomSource(random_checkpoint.SHAPES[shape], name=f"random-{shape}")
        random_checkpoint.write_folder(source, half, mistral=shape == FULL_SIZE)
        half.replace(folder)
    return BenchModel(shape, str(folder), folder)
