"""Trains the bundled model: on a GPU when there is one, on this CPU otherwise.

    python -m training.train --corpus build/corpus --tokenizer build/tokenizer.model --out build/model --minutes 60

Each row of the batch is an endless stream of repositories; the recurrent state is passed from one sequence to the next, so the model learns to live
with a state that has read far more than one sequence. Matrices of the layers are trained by Muon (Jordan et al., 2024; torch.optim.Muon), the rest by
AdamW. Prints one line every few steps; ends with validation on the `fit` packages in bits per byte and writes safetensors in Hugging Face names.
"""

import argparse
import itertools
import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file

from model.config import Mamba2Config
from model.fim import HEADER_MARK
from model.network import Mamba2LM
from model.state import Mamba2State, zero_state
from training.head_loss import HeadLoss
from training.measure import stream_nats
from training.packing import Layout, batches, stream


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(
        True
    )  # without it a step took three times as long once the decays had been learnt (docs/log.md)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    layout = layout_of(processor)
    repositories = load(args.corpus / "train.jsonl", processor, args.out.with_suffix(".train.npz"))
    n_tokens = sum(len(ids) for files in repositories for ids in files)
    config = Mamba2Config(
        d_model=args.d_model,
        n_layers=args.layers,
        vocab_size=processor.vocab_size(),
        d_state=args.d_state,
        head_dim=64,
        n_heads=2 * args.d_model // 64,
        tie_embeddings=True,
    )
    model = Mamba2LM(config)
    init_weights(model)
    model.to(device)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"{n_parameters / 1e6:.2f}M parameters, {n_tokens / 1e6:.1f}M tokens of corpus, {device}", flush=True)
    streams = row_streams(repositories, layout, rows=args.batch, seed=args.seed)
    history = fit(model, batches(streams, args.seq), args, device)
    validation = load(args.corpus / "fit.jsonl", processor, None)
    command = f"python -m training.train {' '.join(sys.argv[1:])}"
    history |= {"parameters": n_parameters, "torch": torch.__version__, "command": command}
    history |= {"bits_per_byte_fit": bits_per_byte(model, validation, processor, device)}
    print(json.dumps(history))
    args.out.mkdir(parents=True, exist_ok=True)
    save(model, args.out)
    (args.out / "training.json").write_text(json.dumps(history | vars(args), default=str, indent=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=None, help="stop after so many steps instead of --minutes")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--d-state", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="rows, each a stream of its own")
    parser.add_argument("--seq", type=int, default=512, help="tokens of one sequence; the state goes on to the next")
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW, peak")
    parser.add_argument("--lr-matrix", type=float, default=8e-3, help="Muon, peak (scaled to AdamW's update size)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    return parser.parse_args()


def layout_of(processor: sentencepiece.SentencePieceProcessor) -> Layout:
    piece = processor.piece_to_id
    return Layout(
        bos=processor.bos_id(),
        eos=processor.eos_id(),
        prefix=piece("[PREFIX]"),
        suffix=piece("[SUFFIX]"),
        newline=piece("\n"),
    )


def load(path: Path, processor: sentencepiece.SentencePieceProcessor, cache: Path | None) -> list[list[np.ndarray]]:
    """Token ids of each file of each repository, header line included."""
    if cache is not None and cache.exists():
        with np.load(cache) as arrays:
            files = np.split(arrays["ids"], arrays["ends"][:-1])
            counts = arrays["counts"]
        starts = np.concatenate([[0], np.cumsum(counts)])
        return [files[a:b] for a, b in itertools.pairwise(starts)]
    repositories = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            texts = [f"{HEADER_MARK}{name}\n{text.removesuffix(chr(10))}\n" for name, text in json.loads(line)["files"]]
            repositories.append([np.array(ids, dtype=np.uint16) for ids in processor.encode(texts, num_threads=2)])
    if cache is not None:
        flat = [ids for files in repositories for ids in files]
        cache.parent.mkdir(parents=True, exist_ok=True)
        ends = np.cumsum([len(ids) for ids in flat])
        np.savez(cache, ids=np.concatenate(flat), ends=ends, counts=[len(files) for files in repositories])
    return repositories


def row_streams(repositories: list[list[np.ndarray]], layout: Layout, *, rows: int, seed: int) -> list:
    """Deals the repositories over the rows, the largest first, each to the row that has least."""
    dealt: list[list[list[np.ndarray]]] = [[] for _ in range(rows)]
    sizes = [0] * rows
    for files in sorted(repositories, key=lambda files: -sum(map(len, files))):
        parts = [files[i::4] for i in range(4)] if sum(map(len, files)) > 1_000_000 else [files]
        for part in parts:
            row = sizes.index(min(sizes))
            dealt[row].append(part)
            sizes[row] += sum(map(len, part))
    if not all(dealt):
        raise SystemExit(
            f"{len(repositories)} packages for {rows} rows of a batch, expected at least as many (see --batch)"
        )
    return [stream(part, layout, rng=random.Random(seed * 1000 + row)) for row, part in enumerate(dealt)]


def init_weights(model: Mamba2LM) -> None:
    """Initial values of Mamba2's reference code: dt log-uniform in [0.001, 0.1], A uniform in [1, 16]."""
    for name, parameter in model.named_parameters():
        if name.endswith(("in_proj.weight", "out_proj.weight", "embeddings.weight")):
            torch.nn.init.normal_(parameter, std=0.02)
        elif name.endswith("conv1d.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith("conv1d.bias"):
            torch.nn.init.zeros_(parameter)
        elif name.endswith("dt_bias"):
            dt = torch.exp(torch.rand_like(parameter) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            parameter.data.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        elif name.endswith("A_log"):
            parameter.data.copy_(torch.log(torch.rand_like(parameter) * 15 + 1))
    for layer in model.backbone.layers:
        layer.mixer.out_proj.weight.data /= math.sqrt(2 * len(model.backbone.layers))


def optimizers(model: Mamba2LM, args: argparse.Namespace, *, fused: bool = True) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if name.endswith(("in_proj.weight", "out_proj.weight"))]
    chosen = {id(p) for p in matrices}
    embeddings = [model.backbone.embeddings.weight]
    rest = [p for p in model.parameters() if id(p) not in chosen and p is not embeddings[0]]
    groups = [{"params": embeddings, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return [
        torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.97), fused=fused),
        torch.optim.Muon(matrices, lr=args.lr_matrix, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    ]


def schedule(done: float) -> float:
    """Share of the peak rate at the share `done` of the run: a short warm-up, a plateau, a linear decay from half-way on."""
    return min(1.0, done / 0.02 + 0.02, max(0.01, (1 - done) / 0.5))


def fit(model: Mamba2LM, data, args: argparse.Namespace, device: str) -> dict:
    if args.no_compile:
        torch.compiler.set_stance("force_eager")  # for training/head_loss.py as well
    backbone = torch.compile(model.backbone, dynamic=False)
    opts = optimizers(model, args)
    peaks = [[group["lr"] for group in opt.param_groups] for opt in opts]
    # Compiling is not training: the clock starts when the compiled step has run once.
    state, started, smooth, step = zero_state(model.config, batch=args.batch, device=device), 0.0, None, 0
    while True:
        elapsed = time.monotonic() - started if started else 0.0
        done = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        if done >= 1:
            break
        for opt, rates in zip(opts, peaks, strict=True):
            for group, peak in zip(opt.param_groups, rates, strict=True):
                group["lr"] = peak * schedule(done)
        block = torch.from_numpy(next(data)).to(device)
        with torch.autocast(device, torch.bfloat16):
            hidden, state = backbone(block[:, :-1], state)
            loss = HeadLoss.apply(hidden.flatten(0, 1), model.lm_head.weight, block[:, 1:].flatten(), 1024)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        state = Mamba2State(*(t.detach() for t in state))
        step += 1
        started = started or time.monotonic()
        smooth = loss.item() if smooth is None else 0.97 * smooth + 0.03 * loss.item()
        if step % 20 == 0 or step == 1:
            speed = (step - 1) * args.batch * args.seq / max(1e-9, time.monotonic() - started)
            print(
                f"step {step}  {step * args.batch * args.seq / 1e6:.2f}M tokens  loss {smooth:.3f}  {speed:.0f} tokens/s",
                flush=True,
            )
    return {
        "steps": step,
        "tokens": step * args.batch * args.seq,
        "loss": smooth,
        "seconds": round(time.monotonic() - started),
    }


def bits_per_byte(
    model: Mamba2LM, repositories: list[list[np.ndarray]], processor, device: str, *, budget: int = 60_000
) -> float:
    """Over up to `budget` tokens of each repository."""
    nats, n_bytes = 0.0, 0
    for files in repositories:
        ids = np.concatenate([[processor.bos_id()], *files]).astype(np.int64)[: budget + 1]
        nats += stream_nats(model, ids, device=device)
        n_bytes += len(processor.decode(ids[1:].tolist()).encode())
    return nats / math.log(2) / n_bytes


def save(model: Mamba2LM, folder: Path, *, shard_bytes: int = 8 << 20) -> None:
    """fp16 matrices, fp32 for the few small tensors that the recurrence is sensitive to; shards with an index, as Hugging Face writes them."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_embeddings:
            continue
        small = name.endswith(("A_log", "dt_bias", ".D")) or tensor.dim() == 1
        tensors[name] = tensor.detach().cpu().to(torch.float32 if small else torch.float16).contiguous()
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    index = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
