"""A Mamba2 on the CPU kernels of model/cpp: one call runs the whole model over a block of tokens.

Knows: ctypes, packed weights. Does not know: files, text. Results do not depend on the number of threads, nor on how tokens are cut into calls: a
token stepped alone and a token fed in a chunk give the same bits.
"""

import ctypes
import functools
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.blocks import ROWS, padded
from model.config import Mamba2Config
from model.packed import PackedMatrix
from model.state import Mamba2State

LIBRARY = Path(__file__).parent / "_native.so"
ABI = 3  # CSL_ABI of model/cpp/csl.h
PHASES = ("norm", "in_proj", "conv", "scan", "gate", "out_proj", "head")
KINDS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
EMBEDDINGS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 4}
_Pointer = ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("data", _Pointer),
        ("scales", _Pointer),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        ("in_proj", _Matrix),
        ("out_proj", _Matrix),
        *((name, _Pointer) for name in ("norm", "conv_weight", "conv_bias", "dt_bias", "A", "D", "gate_norm")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                "d_model",
                "n_layers",
                "vocab",
                "d_state",
                "d_conv",
                "head_dim",
                "n_heads",
                "n_groups",
            )
        ),
        *((name, ctypes.c_float) for name in ("eps", "dt_min", "dt_max")),
        ("embedding_kind", ctypes.c_int32),
        ("embeddings", _Pointer),
        ("norm_f", _Pointer),
        ("head", _Matrix),
        ("layers", ctypes.POINTER(_Layer)),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None where they were not built or are of another version."""
    try:
        lib = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    lib.csl_abi.restype = ctypes.c_int32
    if lib.csl_abi() != ABI:
        return None
    i32, pointer = ctypes.c_int32, _Pointer
    lib.csl_isa.restype = ctypes.c_char_p
    lib.csl_isa.argtypes = [i32]
    lib.csl_create.restype = pointer
    lib.csl_create.argtypes = [ctypes.POINTER(_Model), ctypes.c_char_p, i32]
    lib.csl_destroy.argtypes = [pointer]
    lib.csl_destroy.restype = None
    lib.csl_forward.restype = i32
    lib.csl_forward.argtypes = [pointer, pointer, i32, i32, pointer, pointer, pointer, pointer, pointer, i32]
    lib.csl_profile.argtypes = [pointer, ctypes.POINTER(ctypes.c_double)]
    lib.csl_profile.restype = None
    lib.csl_read.restype = ctypes.c_double
    lib.csl_read.argtypes = [pointer, ctypes.POINTER(pointer), ctypes.POINTER(ctypes.c_size_t), i32]
    return lib


def instruction_sets() -> list[str]:
    """Those that this build knows and this machine has, the fastest first; empty without kernels."""
    lib = library()
    if lib is None:
        return []
    names = iter(functools.partial(lambda counter: lib.csl_isa(next(counter)), iter(range(100))), None)
    return [name.decode() for name in names]


def why_not(config: Mamba2Config) -> str | None:
    """Why the kernels cannot run a model of this shape, or None. They work on sixteen lanes at a time."""
    if library() is None:
        return "the kernels were not built when the package was installed (no C++ compiler)"
    widths = {
        "d_model": config.d_model,
        "head_dim": config.head_dim,
        "d_state": config.d_state,
        "d_inner / n_groups": config.d_inner // config.n_groups,
    }
    for name, width in widths.items():
        if width % ROWS:
            return f"{name} is {width}, expected a multiple of {ROWS}"
    return None if config.d_conv <= 8 else f"d_conv is {config.d_conv}, expected at most 8"


class NativeLM:
    """The Network of model/network.py. `tensors` are named as in a Hugging Face checkpoint, projections and the head packed, the rest fp32.

    The embedding table may be fp32, bf16 or fp16. Raises ValueError for an instruction set that cannot run here.
    """

    def __init__(
        self,
        config: Mamba2Config,
        tensors: Mapping[str, Tensor | PackedMatrix],
        *,
        precision: str,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        lib = library()
        assert lib is not None and why_not(config) is None, why_not(config)
        self.config = config
        self.any_cut = True
        self.precision = precision
        self.threads = threads or torch.get_num_threads()
        self.isa = isa or instruction_sets()[0]
        self.last_call_s = 0.0  # spent inside the kernels by the last call
        self._lib = lib
        self._held: list[object] = []  # what the kernels point at
        self._matrices: list[PackedMatrix] = []
        self._logits_width = padded(config.vocab_size, ROWS)
        self._model = self._describe(tensors)
        self._engine = lib.csl_create(ctypes.byref(self._model), self.isa.encode(), self.threads)
        if not self._engine:
            raise ValueError(f"instruction set is {isa!r}, expected one of {', '.join(instruction_sets())}")
        weakref.finalize(self, lib.csl_destroy, self._engine)

    @property
    def numerics(self) -> str:
        """Neither the threads nor the cutting into calls change a bit."""
        return f"native {ABI} {self.isa} {self.precision}"

    @property
    def weight_bytes(self) -> int:
        return sum(matrix.nbytes for matrix in self._matrices)

    def __call__(
        self,
        ids: Tensor,
        state: Mamba2State | None = None,
        *,
        last_only: bool = False,
        into: Mamba2State | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """See model.network.Network. Raises ValueError for an id outside the vocabulary."""
        batch, n_tokens = ids.shape
        assert n_tokens >= 1
        ids = ids.to(torch.int64).contiguous()
        conv_in, ssm_in = (None, None) if state is None else (state.conv.contiguous(), lanes(state.ssm))
        conv, ssm = self._storage(batch, into)
        n_logits = 1 if last_only else n_tokens
        logits = torch.empty(batch, n_logits, self._logits_width)
        started = time.perf_counter()
        failed = self._lib.csl_forward(
            self._engine,
            ids.data_ptr(),
            batch,
            n_tokens,
            None if conv_in is None else conv_in.data_ptr(),
            None if ssm_in is None else ssm_in.data_ptr(),
            conv.data_ptr(),
            ssm.data_ptr(),
            logits.data_ptr(),
            n_logits,
        )
        self.last_call_s = time.perf_counter() - started
        if failed:
            raise ValueError(f"token ids up to {int(ids.max())}, expected 0 to {self.config.vocab_size - 1}")
        if self._logits_width != self.config.vocab_size:
            logits = logits[..., : self.config.vocab_size]
        return logits, Mamba2State(conv, ssm.transpose(-1, -2))

    def profile(self) -> dict[str, float]:
        """Seconds of each phase of the last call, as thread 0 saw them."""
        seconds = (ctypes.c_double * len(PHASES))()
        self._lib.csl_profile(self._engine, seconds)
        return dict(zip(PHASES, seconds, strict=True))

    def read_weights(self) -> int:
        """Reads every weight of a decoding step once, with the threads of the model, and returns how many bytes that were: the bandwidth to compare with."""
        tensors = [tensor for matrix in self._matrices for tensor in (matrix.data, matrix.scales) if tensor is not None]
        pointers = (_Pointer * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
        sizes = (ctypes.c_size_t * len(tensors))(*(tensor.nbytes for tensor in tensors))
        self._lib.csl_read(self._engine, pointers, sizes, len(tensors))
        return sum(tensor.nbytes for tensor in tensors)

    def _storage(self, batch: int, into: Mamba2State | None) -> tuple[Tensor, Tensor]:
        """Room for the next state: conv (L, B, C, K-1) and ssm (L, B, H, N, P)."""
        c = self.config
        conv_shape = (c.n_layers, batch, c.conv_dim, c.d_conv - 1)
        ssm_shape = (c.n_layers, batch, c.n_heads, c.d_state, c.head_dim)
        if into is not None:
            conv, ssm = into.conv, into.ssm.transpose(-1, -2)
            if conv.shape == conv_shape and ssm.shape == ssm_shape and conv.is_contiguous() and ssm.is_contiguous():
                return conv, ssm
        return torch.empty(conv_shape), torch.empty(ssm_shape)

    def _describe(self, tensors: Mapping[str, Tensor | PackedMatrix]) -> _Model:
        c = self.config
        embeddings = plain(tensors, "backbone.embeddings.weight").contiguous()
        layers = (_Layer * c.n_layers)(*(self._layer(tensors, f"backbone.layers.{i}.") for i in range(c.n_layers)))
        self._held += [embeddings, layers]
        return _Model(
            d_model=c.d_model,
            n_layers=c.n_layers,
            vocab=c.vocab_size,
            d_state=c.d_state,
            d_conv=c.d_conv,
            head_dim=c.head_dim,
            n_heads=c.n_heads,
            n_groups=c.n_groups,
            eps=c.norm_eps,
            dt_min=c.dt_limit[0],
            dt_max=c.dt_limit[1],
            embedding_kind=EMBEDDINGS[embeddings.dtype],
            embeddings=embeddings.data_ptr(),
            norm_f=self._floats(plain(tensors, "backbone.norm_f.weight")),
            head=self._matrix(tensors["lm_head.weight"]),
            layers=layers,
        )

    def _layer(self, tensors: Mapping[str, Tensor | PackedMatrix], prefix: str) -> _Layer:
        def tensor(name: str) -> Tensor:
            return plain(tensors, prefix + name).float()

        return _Layer(
            in_proj=self._matrix(tensors[f"{prefix}mixer.in_proj.weight"]),
            out_proj=self._matrix(tensors[f"{prefix}mixer.out_proj.weight"]),
            norm=self._floats(tensor("norm.weight")),
            conv_weight=self._floats(tensor("mixer.conv1d.weight")[:, 0].T),
            conv_bias=self._floats(tensor("mixer.conv1d.bias")),
            dt_bias=self._floats(tensor("mixer.dt_bias")),
            A=self._floats(-torch.exp(tensor("mixer.A_log"))),
            D=self._floats(tensor("mixer.D")),
            gate_norm=self._floats(tensor("mixer.norm.weight")),
        )

    def _matrix(self, matrix: Tensor | PackedMatrix) -> _Matrix:
        assert isinstance(matrix, PackedMatrix)
        self._matrices.append(matrix)
        scales = None if matrix.scales is None else matrix.scales.data_ptr()
        return _Matrix(KINDS[matrix.kind], matrix.rows, matrix.cols, 0, matrix.data.data_ptr(), scales)

    def _floats(self, tensor: Tensor) -> int:
        """The address of a flat fp32 copy with room for whole vectors behind it."""
        flat = torch.zeros(padded(tensor.numel(), ROWS))
        flat[: tensor.numel()] = tensor.float().reshape(-1)
        self._held.append(flat)
        return flat.data_ptr()


def plain(tensors: Mapping[str, Tensor | PackedMatrix], name: str) -> Tensor:
    tensor = tensors[name]
    assert isinstance(tensor, Tensor), name
    return tensor


def lanes(ssm: Tensor) -> Tensor:
    """(L, B, H, P, N) as the kernels keep it, (L, B, H, N, P): a view of a state that they made, a copy of any other."""
    return ssm.transpose(-1, -2).contiguous()
