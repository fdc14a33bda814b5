"""From bytes of a file to a tensor in memory of its own, and whether its values are finite, at the speed of the page cache.

Nothing is mapped: mapped pages count as resident memory, and a file that shrinks under a map kills the process. Knows: files, tensors. Does not
know: formats, names.
"""

import logging
import math
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.config import CheckpointError

HUGE_FROM_BYTES = 4 << 20  # two huge pages
CHUNK = 1 << 18  # values looked at together: they stay in the processor's cache

log = logging.getLogger(__name__)

# The bits of a number's exponent: all of them set means infinite or not a number. By bytes of a value: (numpy type, sign off, exponent).
EXPONENTS = {
    torch.float32: (np.int32, 0x7FFFFFFF, 0x7F800000),
    torch.bfloat16: (np.int16, 0x7FFF, 0x7F80),
    torch.float16: (np.int16, 0x7FFF, 0x7C00),
}


def new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor to be filled. Large ones ask for huge pages: most of the time of a read from the page cache goes into making small ones, 1.8 GB/s
    with them and 5.3 GB/s without."""
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes < HUGE_FROM_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them: small pages then
        log.info("no huge pages here")
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def read_tensor(path: Path, *, start: int, dtype: torch.dtype, shape: tuple[int, ...], name: str) -> Tensor:
    """The tensor `name` that is stored from byte `start` on, in memory of its own. Raises CheckpointError where the file ends early."""
    tensor = new_tensor(shape, dtype)
    read_into(path, tensor.reshape(-1).view(torch.uint8).numpy(), start, name)
    return tensor


def read_into(path: Path, out: np.ndarray, start: int, name: str) -> None:
    """Fills `out`, contiguous bytes, from byte `start` of the file on."""
    rest = out.data.cast("B")
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), start, len(rest), os.POSIX_FADV_SEQUENTIAL)
            while rest:
                n_read = file.readinto(rest)  # Linux reads at most 2 GiB at a time
                if not n_read:
                    raise CheckpointError(f"{path}: ends inside tensor {name}, expected {len(rest)} bytes more")
                rest = rest[n_read:]
    except OSError as error:
        raise CheckpointError(f"{path}: tensor {name} cannot be read ({error.strerror})") from None


def all_finite(tensor: Tensor) -> bool:
    """Whether no value of a contiguous fp32, fp16 or bf16 tensor is infinite or not a number.

    It masks the sign and takes the largest of the bits: 9 GB/s of bf16 on one core, where `isfinite` does 0.3.
    """
    kind, mask, limit = EXPONENTS[tensor.dtype]
    values = tensor.detach().reshape(-1).view(torch.int32 if kind is np.int32 else torch.int16).numpy()
    bits = np.empty(min(CHUNK, len(values)), kind)
    for at in range(0, len(values), CHUNK):
        chunk = values[at : at + CHUNK]
        if np.bitwise_and(chunk, mask, out=bits[: len(chunk)]).max() >= limit:
            return False
    return True


def check_finite(tensor: Tensor, *, path: Path, name: str) -> Tensor:
    """The tensor itself; raises CheckpointError where a value is not finite."""
    if not all_finite(tensor):
        raise CheckpointError(f"{path}: tensor {name} has values that are not finite")
    return tensor
