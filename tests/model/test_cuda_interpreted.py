"""The CUDA path where there is no GPU: its tests run in Triton's interpreter, and its kernels go through the real compiler, for three kinds of card.

Triton must know that it is to interpret before it is imported, so the tests run in a process of their own. The compiler needs no GPU; it finds what the
interpreter takes and a card would not: shapes of matrix products, types, too much shared memory.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed (it is part of codestral-lsp[cuda])", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).parent
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}  # of one program, at most (CUDA's programming guide)


@pytest.mark.timeout(400)  # 25 s on a quiet machine, each
@pytest.mark.parametrize("name", ["test_kernels_cuda.py", "test_cuda_network.py"])
def test_in_the_interpreter(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(HERE / name)]
    run = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\d+ passed", run.stdout), run.stdout
    skipped = [line for line in run.stdout.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if not line.endswith("a graph needs a GPU")] == []


class Compiled(NamedTuple):
    """A kernel with the constants of Codestral's shape, as its launcher sets them."""

    name: str
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3


SHAPE = {"H": 128, "P": 64, "G": 8, "N": 128, "STATES": 128}
STEP = SHAPE | {"ROWS": 32}
KERNELS = [
    Compiled("conv_kernel", {"OFFSET": 8192, "CHANNELS": 10240, "K": 4, "TOKENS": 16, "WIDE": 128}),
    Compiled("scan_kernel", SHAPE | {"Q": 64, "ROWS": 32}, stages=2),
    Compiled("scan_kernel", SHAPE | {"Q": 64, "ROWS": 32, "N": 256, "STATES": 256}, warps=8, stages=2),
    Compiled("scan_kernel", SHAPE | {"Q": 64, "ROWS": 16, "P": 8, "N": 12, "STATES": 16}, stages=2),
    Compiled("step_kernel", STEP | {"K": 4, "WINDOW": 4}),
    Compiled("recurrence_kernel", STEP),
    Compiled(
        "gated_norm_kernel",
        {"CHANNELS": 1024, "CONV_CHANNELS": 1280, "K": 4, "SLIDE": True, "WIDE": 1024, "CONV_WIDE": 2048},
    ),
    Compiled("linear_kernel", {"N": 18560, "K": 4096, "ROWS": 16, "WIDE": 64, "DEEP": 128}),
    Compiled("linear_kernel", {"N": 4096, "K": 8192, "ROWS": 32, "WIDE": 32, "DEEP": 256}, stages=4),
    Compiled("add_norm_kernel", {"D": 4096, "ADD": True, "WIDE": 4096}, warps=8),
]
TYPES = {"where_ptr": "*i64", "lengths_ptr": "*i64", "layer": "i32", "n_tokens": "i32", "n_rows": "i32", "width": "i32"}
ACTIVATIONS = ("x_ptr", "matrix_ptr", "proj_ptr", "xbc_ptr", "y_ptr", "out_ptr", "added_ptr")


@pytest.mark.parametrize("card", [("bf16", 80), ("bf16", 90), ("fp32", 90)], ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: f"{kernel.name}-{kernel.constants.get('N', '')}")
def test_kernels_compile(
    kernel: Compiled, card: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import kernels_cuda, kernels_cuda_linear, kernels_cuda_step

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    activations, capability = card
    homes = (kernels_cuda, kernels_cuda_step, kernels_cuda_linear)
    function = next(found for home in homes if (found := getattr(home, kernel.name, None)) is not None)
    constants = {name: value for name, value in kernel.constants.items() if name in function.arg_names}
    if activations == "fp32" and "Q" in constants:
        constants["Q"] = 16  # as the launcher has it
    signature = {
        name: "constexpr"
        if name in constants
        else TYPES.get(name)
        or (f"*{activations}" if name in ACTIVATIONS else "*fp32" if name.endswith("_ptr") else "fp32")
        for name in function.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(function.arg_names)
        if name.endswith("_ptr") or name == "width"
    }
    source = ASTSource(function, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.metadata.shared <= SHARED_BYTES[capability]
    if constants.get("N") == 128:
        assert "ld.global.v4.b32" in compiled.asm["ptx"], "the state should be read 16 bytes at a time"


def test_the_benchmark_runs_to_its_end() -> None:
    """On a tiny model: its figures mean nothing here, but a card's minutes should not be lost to a mistake in the program."""
    command = [sys.executable, "-m", "benchmarks.gpu_speed", "--smoke"]
    run = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    assert {"matrix_share", "step_late_over_early", "curve"} <= figures.keys()
    for few in figures["few"].values():
        assert few["bandwidth_share"] > 0 and few["chunk_steps"].keys() >= {"2", "4"}
    assert [point["tokens"] for point in figures["curve"]] == [3, 6, 12]
