"""The NEON kernels on a machine that is no ARM: cross-compiled and run under an emulator, where both are installed.

On Debian: g++-aarch64-linux-gnu and qemu-user-static.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CPP = Path(__file__).parent.parent.parent / "model" / "cpp"
COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")


@pytest.mark.skipif(COMPILER is None or EMULATOR is None, reason="no cross compiler and emulator for aarch64 here")
def test_neon_agrees_with_portable_and_with_itself(tmp_path: Path) -> None:
    assert COMPILER is not None and EMULATOR is not None
    flags = [COMPILER, "-std=c++17", f"-I{CPP}", "-Wno-uninitialized", "-c"]
    neon = tmp_path / "neon.o"
    subprocess.run(
        [*flags, "-O3", "-march=armv8.2-a+dotprod+fp16", CPP / "variant_neon.cpp", "-o", neon], check=True, timeout=100
    )
    objects = [neon]
    for source in (
        CPP / "engine.cpp",
        CPP / "team.cpp",
        CPP / "variant_portable.cpp",
        Path(__file__).parent / "cpp" / "compare_isas.cpp",
    ):
        objects.append(tmp_path / f"{source.stem}.o")
        subprocess.run([*flags, "-O1", "-DCSL_HAVE_NEON", source, "-o", objects[-1]], check=True, timeout=100)
    program = tmp_path / "compare_isas"
    subprocess.run([COMPILER, "-static", *objects, "-pthread", "-o", program], check=True, timeout=100)
    lines = subprocess.run([EMULATOR, program], check=True, capture_output=True, text=True, timeout=100).stdout.split(
        "\n"
    )
    found = [line.split() for line in lines if line]
    assert [(kind, isa) for kind, isa, *_ in found] == [(str(k), isa) for k in range(4) for isa in ("neon", "portable")]
    for kind, _, same, difference in found:
        # In bf16 an activation that stands just between two values may be rounded the other way.
        assert same == "1" and float(difference) < (1e-2 if kind == "1" else 1e-5)
