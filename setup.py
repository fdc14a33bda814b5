"""Builds model/_native.so: the CPU kernels for every instruction set of this architecture in one shared library, chosen at run time.

It links nothing of Python or torch. Without a C++ compiler the package installs all the same and runs on torch alone.
"""

import platform

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"]
X86 = {
    "avx512bf16": [*AVX512, "-mavx512bf16"],
    "avx512vnni": AVX512,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx2": AVX2,
}
ARM = {"neon": ["-march=armv8.2-a+dotprod+fp16"] if platform.system() == "Linux" else []}
VARIANTS = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}
# GCC warns of its own intrinsics.
FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fvisibility=hidden",
    "-pthread",
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
]


class BuildKernels(build_ext):
    """Each variant has flags of its own; one that the compiler does not know is left out."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        macros: list[tuple[str, str | None]] = []
        objects = []
        for name, flags in VARIANTS.get(platform.machine(), {}).items():
            try:
                objects += self._compile([f"model/cpp/variant_{name}.cpp"], FLAGS + flags, [])
                macros.append((f"CSL_HAVE_{name.upper()}", None))
            except CompileError as error:
                self.announce(f"kernels for {name} are left out: {error}", level=3)
        common = ["model/cpp/engine.cpp", "model/cpp/team.cpp", "model/cpp/variant_portable.cpp"]
        objects = self._compile(common, FLAGS, macros) + objects
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=["-pthread"], target_lang="c++"
        )

    def _compile(self, sources: list[str], flags: list[str], macros: list[tuple[str, str | None]]) -> list[str]:
        return self.compiler.compile(sources, output_dir=self.build_temp, macros=macros, extra_postargs=flags)


setup(
    ext_modules=[Extension("model._native", sources=["model/cpp/engine.cpp"], optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
