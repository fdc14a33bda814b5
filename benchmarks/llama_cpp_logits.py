"""Asks llama.cpp for the logits that tests/model/test_gguf_llama_cpp.py compares ours with, and writes them down.

    python -m benchmarks.llama_cpp_logits build/peers/bin/llama-logits tests/model/data/llama_cpp_logits.json

The weights are random and made again from their seed, so that only logits are kept. `make peers` builds the program. Needed again only when the model
below changes. Knows: the little model, the program's output. Does not know: our own network.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch

from benchmarks.random_checkpoint import RandomSource
from model.config import Mamba2Config
from model.gguf_write import export_gguf

# Codestral's traits in little: two groups, an untied head, twice the width inside. Rows of 256 and 512: every quantised kind has whole blocks.
CONFIG = Mamba2Config(d_model=256, n_layers=3, vocab_size=64, d_state=64, n_heads=8, n_groups=2)
SEED = 7
IDS = [1, 17, 4, 63, 9, 9, 30, 0, 22, 51, 8, 41, 13, 2, 60, 35, 5, 5, 5, 48, 27, 19, 56, 3]
KINDS = ("f32", "bf16", "q8_0", "q4_0")


def write_model(path: Path, kind: str) -> None:
    """The model as a GGUF file; the same values whatever the kind."""
    export_gguf(RandomSource(CONFIG, SEED, torch.float32), path, kind=kind)


def ask(program: Path, model: Path) -> list[list[float]]:
    """(tokens, vocabulary) logits, to 6 digits."""
    command = [program, model, *map(str, IDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [[float(f"{value:.6g}") for value in row] for row in json.loads(done.stdout)["logits"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="llama-logits, which `make peers` builds")
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", default="ggml 0.25.3, from the source package of llama-cpp-python 0.3.36")
    args = parser.parse_args()
    logits = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            write_model(Path(folder) / f"{kind}.gguf", kind)
            logits[kind] = ask(args.program, Path(folder) / f"{kind}.gguf")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f' "{kind}": {json.dumps(rows, separators=(",", ":"))}' for kind, rows in logits.items())
    said = json.dumps(f"llama.cpp ({args.version})")
    args.out.write_text(f'{{"said_by": {said}, "ids": {IDS}, "logits": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(json.dumps({"out": str(args.out), "bytes": args.out.stat().st_size}))


if __name__ == "__main__":
    main()
