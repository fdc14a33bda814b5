"""What the CUDA path compiles and launches, without a GPU: Triton's own road from a launcher to machine code, with a driver that only counts.

A CUDA graph must find every kernel compiled before it is captured, and its speed is in how few kernels a layer needs. Both are seen here.
"""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed (it is part of codestral-lsp[cuda])", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available():
    pytest.skip("needs Triton's compiler and no GPU", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from model import kernels_cuda, kernels_cuda_linear, kernels_cuda_step
from model.config import Mamba2Config
from model.cuda import SIZES, CudaNetwork, padded_size, random_tensors

CONFIG = Mamba2Config(d_model=64, n_layers=3, vocab_size=64, d_state=32, head_dim=32, n_heads=4, n_groups=2)


class Counter:
    """A driver for Triton: an H100 that takes every kernel and runs none."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.launched: list[str] = []
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (1, 1, 64, 0, 1024),
            get_device_properties=lambda _: {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32},
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        self.compiled.append(metadata.name)
        return lambda *_: self.launched.append(metadata.name)

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for module in (kernels_cuda, kernels_cuda_step, kernels_cuda_linear):
        for function in vars(module).values():
            if isinstance(function, JITFunction):
                function.device_caches.clear()  # what other tests compiled
    counter = Counter()
    monkeypatch.setattr(
        driver, "_active", counter
    )  # there is none here, and to go back to none is not in its interface
    return counter


# (tokens, projections, Triton kernels of a layer, in order)
STEP, FEW, MANY = ("step", "gated_norm"), ("conv", "recurrence", "gated_norm"), ("conv", "scan", "gated_norm")
CALLS = [
    (1, "cublas", STEP),
    (1, "triton", ("linear", *STEP, "linear")),
    (2, "cublas", FEW),
    (13, "cublas", FEW),
    (32, "triton", ("linear", *FEW, "linear")),
    (33, "triton", MANY),
    (300, "cublas", MANY),
]


def test_kernels_of_a_layer_and_when_they_are_compiled(counter: Counter) -> None:
    weights = dict(random_tensors(CONFIG, torch.Generator().manual_seed(0), dtype=torch.bfloat16))
    for n_tokens, projections, kernels in CALLS:
        network = CudaNetwork(CONFIG, weights, "cpu", projections=projections)
        network(torch.zeros(1, padded_size(n_tokens), dtype=torch.int64), last_only=True)  # as warm_up does
        counter.compiled.clear()
        counter.launched.clear()
        network(torch.zeros(1, n_tokens, dtype=torch.int64), last_only=True)
        head = ["linear_kernel"] if projections == "triton" else []  # of the last token alone
        layer = [f"{name}_kernel" for name in (*kernels, "add_norm")]
        assert counter.launched == ["add_norm_kernel", *CONFIG.n_layers * layer, *head]
        assert counter.compiled == [], "compiled again, by a layer's number or a length: a capture would fail"


def test_warming_up_leaves_nothing_to_compile(counter: Counter) -> None:
    weights = dict(random_tensors(CONFIG, torch.Generator().manual_seed(0), dtype=torch.bfloat16))
    network = CudaNetwork(CONFIG, weights, "cpu")
    network.warm_up()
    assert len(counter.compiled) == 8, (
        "two norms in two kinds each, step, conv, recurrence and scan: one of each for all sizes"
    )
    counter.compiled.clear()
    for n_tokens in (*SIZES, 3, 40, 300, 5000):
        network(torch.zeros(1, n_tokens, dtype=torch.int64), last_only=True)
    assert counter.compiled == []
