"""The peers: llama.cpp through its own llama-bench, and transformers, on the same weights as ours.

llama.cpp comes from `make peers`. It gets what makes it fastest on this machine: numbers of threads, micro-batches and weight layouts are tried for each
kind of work. Loading is outside of what it times. Knows: how to drive
others. Does not know: our network.
"""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

BUILD = Path(__file__).resolve().parent.parent / "build"
PROGRAMS = BUILD / "peers" / "bin"
LONG_TRY_S = 1.0
GGUF_KINDS = {"int4": "Q4_0", "int8": "Q8_0", "bf16": "BF16"}  # ours: theirs


class PeerError(Exception):
    """A peer is not there or failed. One line, for people."""


class Work(NamedTuple):
    """`n_tokens` fed at once from an empty state, or as many decoded one by one. `repetitions` are taken in one go; their median counts."""

    kind: str  # "feed" or "decode"
    n_tokens: int
    repetitions: int

    @property
    def name(self) -> str:
        return f"feed {self.n_tokens}" if self.kind == "feed" else "decode"

    def lasting(self, target_s: float, *, s_per_token: float) -> "Work":
        """With as many repetitions as take about `target_s`, 1 to 100."""
        return self._replace(repetitions=min(100, max(1, round(target_s / (s_per_token * self.n_tokens)))))


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    threads: int
    micro_batch: int = 512
    repack: bool = True

    @property
    def flags(self) -> list[str]:
        return ["-t", str(self.threads), "-ub", str(self.micro_batch), "--repack", str(int(self.repack))]


class LlamaRun(NamedTuple):
    """What one run of llama-bench told, and the peak memory of its process, 0 unless it was watched."""

    s_per_token: float
    peak_bytes: int


def program(name: str) -> Path:
    path = PROGRAMS / name
    if not path.exists():
        raise PeerError(f"{path}: no such file, expected llama.cpp; run `make peers` first")
    return path


def quantized_path(bf16: Path, kind: str, *, pure: bool = False) -> Path:
    """Where `bf16` (its name ends with BF16.gguf) lies in another of GGUF_KINDS: beside it."""
    return bf16.with_name(bf16.name.replace("BF16.gguf", f"{'pure-' if pure and kind != 'BF16' else ''}{kind}.gguf"))


def quantize(bf16: Path, out: Path, kind: str, *, pure: bool = False) -> None:
    """As llama-quantize does it unless told: in Q4_0 the output head stays more exact (Q6_K; ours is int8). `pure` makes the head Q4_0 too."""
    if kind == "BF16":
        return
    half = out.with_suffix(".part")
    run_program([str(program("llama-quantize")), *(["--pure"] if pure else []), str(bf16), str(half), kind])
    half.replace(out)


def llama_bench(
    gguf: Path,
    work: Work,
    settings: LlamaSettings,
    *,
    warm_up: bool = True,
    timeout_s: float | None = None,
    watch_memory: bool = False,
) -> LlamaRun:
    """Raises PeerError, also where the time is up."""
    n_prompt, n_generated = (work.n_tokens, 0) if work.kind == "feed" else (0, work.n_tokens)
    command = [str(program("llama-bench")), "-m", str(gguf), "-o", "jsonl", "-r", str(work.repetitions)]
    command += ["-p", str(n_prompt), "-n", str(n_generated), *settings.flags, *([] if warm_up else ["--no-warmup"])]
    out, peak_bytes = run_program(command, timeout_s=timeout_s, watch_memory=watch_memory)
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise PeerError(f"{' '.join(command)}: printed {len(lines)} results, expected one")
    return LlamaRun(statistics.median(lines[0]["samples_ns"]) / 1e9 / work.n_tokens, peak_bytes)


def best_settings(gguf: Path, work: Work, *, threads: Sequence[int], tries: int = 3) -> tuple[LlamaSettings, float]:
    """(the fastest found, its seconds a token). One setting after the other: the number of threads, for long feeds the micro-batch, and whether weights
    are laid out anew on loading."""
    choices: list[tuple[str, Sequence[int]]] = [("threads", threads)]
    if work.n_tokens > 64:
        choices.append(("micro_batch", (512, 256, 128, 64)))
    if not gguf.name.endswith("BF16.gguf"):
        choices.append(("repack", (True, False)))
    best, took = LlamaSettings(threads=max(threads)), 0.0
    for field, values in choices:
        candidates = [replace(best, **{field: value}) for value in values]
        times = [quickest(gguf, work, one, tries=tries) for one in candidates]
        took = min(times)
        best = candidates[times.index(took)]
    return best, took


def quickest(gguf: Path, work: Work, settings: LlamaSettings, *, tries: int) -> float:
    """Seconds a token in the best of `tries`, or of fewer where one takes long and so says more."""
    found = []
    for _ in range(tries):
        found.append(llama_bench(gguf, work, settings, warm_up=work.n_tokens <= 64).s_per_token)
        if found[-1] * work.n_tokens * work.repetitions > LONG_TRY_S:
            break
    return min(found)


def run_program(command: list[str], *, timeout_s: float | None = None, watch_memory: bool = False) -> tuple[str, int]:
    """(what it printed, its peak memory in bytes, 0 unless watched). OMP_* is kept from it: it has settings of its own.

    Nothing runs beside it unless a time limit or its memory is watched.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=environment)
        peak, end = 0, time.monotonic() + (timeout_s or float("inf"))
        late = False
        while watch_memory and process.poll() is None and not late:
            peak = max(peak, peak_of(process.pid))
            time.sleep(0.02)
            late = time.monotonic() > end
        try:
            process.wait(None if timeout_s is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            process.wait()
        out.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            last = (
                f"took more than {timeout_s:.1f} s" if late else (errors.read().strip().splitlines() or ["no word"])[-1]
            )
            raise PeerError(f"{' '.join(command)}: ended with {process.returncode}: {last}")
        return out.read(), peak


def peak_of(pid: int) -> int:
    """Bytes: the most that a running process held in memory so far. 0 where there is no /proc.

    What the kernel tells of a process that has ended (ru_maxrss) counts what its parent held when it forked.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return next((int(words[1]) * 1024 for words in map(str.split, lines) if words[0] == "VmHWM:"), 0)


@dataclass(frozen=True, slots=True)
class TransformersModel:
    """Hugging Face's own Mamba2 in bf16. `feed` and `decode` return seconds a token."""

    model: Callable[..., object]
    vocab_size: int

    def feed(self, n_tokens: int) -> float:
        ids = torch.randint(self.vocab_size, (1, n_tokens))
        started = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1)
        return (time.perf_counter() - started) / n_tokens

    def decode(self, n_tokens: int) -> float:
        cache = self.model(torch.randint(self.vocab_size, (1, 16)), use_cache=True).cache_params  # type: ignore[attr-defined]
        id_ = torch.randint(self.vocab_size, (1, 1))
        started = time.perf_counter()
        for _ in range(n_tokens):
            self.model(id_, use_cache=True, cache_params=cache)
        return (time.perf_counter() - started) / n_tokens


def load_transformers(folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> TransformersModel:
    """`folder` holds a checkpoint in Hugging Face's format. Runs on as many threads as torch is set to."""
    import transformers  # heavy, and only here

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    return TransformersModel(model, model.config.vocab_size)
