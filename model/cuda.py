"""A Mamba2 on a CUDA device: cuBLAS for the projections, Triton for everything between them, CUDA graphs for up to 256 tokens.

A layer of one token is five kernels: norm (with the residual sum), projection, step, gated norm, projection. Launched one by one from Python they would
take several times as long as the card needs to read the weights, so each size in SIZES is captured once, as a graph, and replayed. Fewer tokens are
padded to the next size. Padding stands behind the real tokens, which never see it: the kernels stop the recurrence at the real length and take the
convolution's window before it. Without a graph (no capture, a batch that was not warmed up, more tokens) the same padded call runs kernel by kernel, so a
graph changes no bit.

Knows: weights by Hugging Face's names, devices. Does not know: files, text. Importing it imports Triton, so it is imported only where a GPU is used.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import CheckpointError, Mamba2Config
from model.kernels_cuda import BLOCK, COMPILER, Recurrence, Taps, conv, scan
from model.kernels_cuda_linear import MOST_ROWS, linear
from model.kernels_cuda_step import MOST_TOKENS, add_norm, gated_norm, recur, step
from model.layout import EMBEDDINGS, FINAL_NORM, HEAD, tensor_shapes
from model.progress import Progress
from model.state import Mamba2State, zero_state

if TYPE_CHECKING:
    from model.source import (
        Source,
    )  # a hub and its libraries behind it, which the benchmark of a bare GPU machine can do without

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # tokens of a captured call; a slice of background reading has at most 256
BLOCK_TOKENS = 4096  # more are cut into such blocks: enough to fill the card, and memory stays flat
PROJECTIONS = ("cublas", "triton")
ADDRESSES = 4  # of the states: conv in, ssm in, conv out, ssm out

log = logging.getLogger(__name__)


class LayerWeights(NamedTuple):
    """Matrices in the network's dtype, all else fp32."""

    norm: Tensor  # (d_model)
    in_proj: Tensor  # (in_proj_dim, d_model)
    taps: Taps
    recurrence: Recurrence
    gate_norm: Tensor  # (d_inner)
    out_proj: Tensor  # (d_model, d_inner)


class Captured(NamedTuple):
    """A graph with its own memory: write `inputs`, replay, read `logits`."""

    graph: "torch.cuda.CUDAGraph"
    inputs: Tensor
    logits: Tensor


class CudaNetwork:
    """See model.network.Network. Tensors by Hugging Face's names, on any device; matrices run in `dtype`, bf16 or fp32.

    `projections` of few tokens: "cublas", or "triton", where a token's bits are the same alone and in a chunk (model/kernels_cuda_linear.py).
    Logits come back on the device of the ids, states on the network's.
    """

    def __init__(
        self,
        config: Mamba2Config,
        tensors: Mapping[str, Tensor],
        device: torch.device | str,
        *,
        dtype: torch.dtype = torch.bfloat16,
        batches: tuple[int, ...] = (1,),
        projections: str = "cublas",
    ) -> None:
        """`batches`: the numbers of sequences that `warm_up` captures graphs for. Raises CheckpointError for a tensor that is missing or has another shape."""
        self.config = config
        self.any_cut = False  # products of few rows and of many come from different kernels
        self.device = torch.device(device)
        self.dtype = dtype
        self.batches = batches
        assert projections in PROJECTIONS, projections
        self.projections = projections
        self._graphs: dict[tuple[int, int], Captured] = {}
        for name, shape in tensor_shapes(config).items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise CheckpointError(f"tensor {name}: found {found}, expected shape {shape}")

        def matrix(name: str) -> Tensor:
            return tensors[name].to(self.device, dtype).contiguous()

        self.embeddings = matrix(EMBEDDINGS)
        self.layers = [layer_weights(tensors, i, matrix, self.device) for i in range(config.n_layers)]
        self.norm_f = tensors[FINAL_NORM].to(self.device, torch.float32).contiguous()
        self.head = self.embeddings if config.tie_embeddings else matrix(HEAD)

    @property
    def numerics(self) -> str:
        """Bits depend on the card, on cuBLAS's and Triton's choices for it, and on how tokens are padded and cut."""
        card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "interpreter"
        return (
            f"{COMPILER} torch {torch.__version__} cuda {torch.version.cuda} {card} {self.dtype} {self.projections} "
            f"block {BLOCK} few {MOST_TOKENS} sizes {SIZES} cut {BLOCK_TOKENS}"
        )

    @property
    def weight_bytes(self) -> int:
        """All but the embedding table, of which a step reads one row; a tied head is read whole."""
        tensors = [self.head, self.norm_f]
        for layer in self.layers:
            tensors += [layer.norm, layer.in_proj, *layer.taps, *layer.recurrence, layer.gate_norm, layer.out_proj]
        return sum(tensor.nbytes for tensor in tensors)

    @torch.no_grad()
    def __call__(
        self,
        ids: Tensor,
        state: Mamba2State | None = None,
        *,
        last_only: bool = False,
        into: Mamba2State | None = None,
    ) -> tuple[Tensor, Mamba2State]:
        """See Network. Raises IndexError for an id on the CPU that is no token; on the device nobody looks."""
        batch, n_tokens = ids.shape
        if ids.device.type == "cpu" and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocab_size:
            raise IndexError(f"token ids from {ids.min()} to {ids.max()}, expected 0 to {self.config.vocab_size - 1}")
        with self._current_device():
            before = self._brought(state, batch)
            after = into if into is not None and is_usable(into, before) else empty_like(before)
            parts = []
            for start in range(0, n_tokens, BLOCK_TOKENS):
                piece = ids[:, start : start + BLOCK_TOKENS]
                logits = self._run(piece, before, after, last_only=last_only)
                if not last_only or start + piece.shape[1] == n_tokens:
                    parts.append(logits)
                before = after
            logits = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            return logits.to(ids.device), after

    def warm_up(self, progress: Progress | None = None) -> None:
        """Compiles every kernel and captures every graph, so that no keystroke waits for either. On a CPU it only runs each size once."""
        sizes = [(batch, size) for batch in self.batches for size in SIZES]
        for done, (batch, size) in enumerate(sizes):
            if progress is not None:
                progress(done * self.weight_bytes, len(sizes) * self.weight_bytes, "preparing the GPU")
            ids = torch.zeros(batch, size, dtype=torch.int64)
            self(ids, last_only=True)  # the kernels must be compiled and loaded before anything is captured
            if self.device.type == "cuda" and (batch, size) not in self._graphs:
                try:
                    with self._current_device():
                        self._graphs[batch, size] = self._capture(batch, size)
                except RuntimeError as error:
                    log.warning("no CUDA graph for %d x %d tokens, they run kernel by kernel: %s", batch, size, error)

    @torch.no_grad()
    def _capture(self, batch: int, size: int) -> Captured:
        inputs = self._inputs(batch, size)
        scratch = zero_state(self.config, batch=batch, device=self.device)
        write_inputs(inputs, torch.zeros(batch, size, dtype=torch.int64), scratch, scratch)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values())).graph.pool() if self._graphs else None
        # Other threads of the daemon may use CUDA meanwhile; only this one's calls belong to the graph.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = self._forward(inputs, batch, last_only=not keeps_all_logits(size))
        return Captured(graph, inputs, logits)

    def _run(self, ids: Tensor, before: Mamba2State, after: Mamba2State, *, last_only: bool) -> Tensor:
        """One piece of at most BLOCK_TOKENS: its logits, (B, 1, V) or (B, T, V)."""
        batch, n_tokens = ids.shape
        size = padded_size(n_tokens)
        all_logits = keeps_all_logits(size) or not last_only
        captured = self._graphs.get((batch, size)) if all_logits == keeps_all_logits(size) else None
        inputs = captured.inputs if captured is not None else self._inputs(batch, size)
        write_inputs(inputs, ids, before, after)
        if captured is not None:
            captured.graph.replay()
            logits = captured.logits
        else:
            logits = self._forward(inputs, batch, last_only=not all_logits)
        if all_logits:
            logits = logits[:, n_tokens - 1 : n_tokens] if last_only else logits[:, :n_tokens]
        return logits.clone() if captured is not None else logits  # the next replay writes over the graph's own

    def _forward(self, inputs: Tensor, batch: int, *, last_only: bool) -> Tensor:
        """The whole network over `inputs` (see write_inputs); nothing here depends on a value, so it can be captured."""
        config = self.config
        where, lengths = inputs[:ADDRESSES], inputs[ADDRESSES : ADDRESSES + batch]
        ids = inputs[ADDRESSES + batch :].view(batch, -1)
        size = ids.shape[1]
        residual = F.embedding(ids, self.embeddings).float()
        norms = [*(layer.norm for layer in self.layers[1:]), self.norm_f]
        hidden = torch.empty(residual.shape, dtype=self.dtype, device=residual.device)
        add_norm(residual, None, self.layers[0].norm, hidden, eps=config.norm_eps)
        for i, (layer, norm) in enumerate(zip(self.layers, norms, strict=True)):
            proj = self._project(hidden, layer.in_proj)
            if size == 1:
                y = step(proj, where, layer.taps, layer.recurrence, i, config)
            else:
                xbc = conv(proj, where, lengths, layer.taps, i, config)
                run = recur if size <= MOST_TOKENS else scan
                y = run(xbc, proj, where, lengths, layer.recurrence, i, config)
            y = gated_norm(y, proj, where, layer.gate_norm, i, config)
            add_norm(residual, self._project(y, layer.out_proj), norm, hidden, eps=config.norm_eps)
        if last_only:
            hidden = hidden[torch.arange(batch, device=hidden.device), lengths - 1][:, None]
        return self._project(hidden, self.head).float()

    def _project(self, x: Tensor, weight: Tensor) -> Tensor:
        few = x.shape[0] * x.shape[1] <= MOST_ROWS
        return linear(x, weight) if few and self.projections == "triton" else F.linear(x, weight)

    def _inputs(self, batch: int, size: int) -> Tensor:
        return torch.zeros(ADDRESSES + batch + batch * size, dtype=torch.int64, device=self.device)

    def _brought(self, state: Mamba2State | None, batch: int) -> Mamba2State:
        """A state on this device whose rows lie one after the other; a copy only where it is neither."""
        if state is None:
            return zero_state(self.config, batch=batch, device=self.device)
        assert state.ssm.shape[1] == batch, f"a state of {state.ssm.shape[1]} sequences for {batch}"
        return Mamba2State(*(tensor.to(self.device, torch.float32).contiguous() for tensor in state))

    def _current_device(self) -> contextlib.AbstractContextManager:
        """Triton launches on the current device, whatever its arguments say."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()


def padded_size(n_tokens: int) -> int:
    """The size of the call that `n_tokens` run in."""
    return next((size for size in SIZES if size >= n_tokens), n_tokens)


def keeps_all_logits(size: int) -> bool:
    """The head's weights are read once either way; for few tokens one graph then serves both kinds of call."""
    return size <= MOST_TOKENS


def write_inputs(inputs: Tensor, ids: Tensor, before: Mamba2State, after: Mamba2State) -> None:
    """Fills `inputs` int64 (4 + B + B size): the states' addresses, the real length of each sequence, and the ids (B, T), padded to `size` tokens.

    Nobody waits for the copies: CUDA has taken what lies in plain memory before the call returns. Padding is token 0, or for ids on the device whatever
    the last call left there: nobody reads it.
    """
    batch, n_tokens = ids.shape
    addresses = [tensor.data_ptr() for tensor in (*before, *after)]
    head = torch.tensor([*addresses, *[n_tokens] * batch], dtype=torch.int64)
    size = (len(inputs) - len(head)) // batch
    if ids.device.type == "cpu":
        inputs.copy_(torch.cat([head, F.pad(ids, (0, size - n_tokens)).flatten()]), non_blocking=True)
    else:
        inputs[: len(head)].copy_(head, non_blocking=True)
        inputs[len(head) :].view(batch, size)[:, :n_tokens].copy_(ids)


def is_usable(into: Mamba2State, like: Mamba2State) -> bool:
    """Whether the kernels can write to it: same shape and device, fp32, no gaps."""
    return all(
        one.shape == other.shape and one.device == other.device and one.dtype == other.dtype and one.is_contiguous()
        for one, other in zip(into, like, strict=True)
    )


def empty_like(state: Mamba2State) -> Mamba2State:
    return Mamba2State(*(torch.empty_like(tensor) for tensor in state))


def layer_weights(
    tensors: Mapping[str, Tensor], layer: int, matrix: Callable[[str], Tensor], device: torch.device
) -> LayerWeights:
    """One layer as the kernels want it: A is minus the exponential of the stored logarithm, taps are (channels, K)."""
    start = f"backbone.layers.{layer}"

    def small(name: str) -> Tensor:
        return tensors[f"{start}.{name}"].to(device, torch.float32).contiguous()

    return LayerWeights(
        norm=small("norm.weight"),
        in_proj=matrix(f"{start}.mixer.in_proj.weight"),
        taps=Taps(small("mixer.conv1d.weight")[:, 0].contiguous(), small("mixer.conv1d.bias")),
        recurrence=Recurrence(-torch.exp(small("mixer.A_log")), small("mixer.dt_bias"), small("mixer.D")),
        gate_norm=small("mixer.norm.weight"),
        out_proj=matrix(f"{start}.mixer.out_proj.weight"),
    )


def build_cuda(
    source: "Source",
    *,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress | None = None,
    warm: bool = True,
) -> CudaNetwork:
    """Tensor by tensor from the source to the device: the host never holds more than one. `warm`: compile and capture too.

    Raises ConfigError where a file or a value is wrong.
    """
    tensors: dict[str, Tensor] = {}
    done, total = 0, source.stored_bytes
    for name in source.names():
        tensor = source.read(name)
        done += tensor.nbytes
        tensors[name] = tensor.to(device, dtype if tensor.dim() == 2 else torch.float32)
        if progress is not None:
            progress(min(done, total), total, "loading onto the GPU")
    network = CudaNetwork(source.config, tensors, device, dtype=dtype)
    if warm:
        network.warm_up(progress)
    return network


def random_on_device(
    config: Mamba2Config,
    device: torch.device | str,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    batches: tuple[int, ...] = (1,),
    projections: str = "cublas",
) -> CudaNetwork:
    """Random weights made on the device, of a trained model's scale: steps of 0.002 to 0.1, A from 1 to 16, activations near 1."""
    device = torch.device(device)
    generator = torch.Generator(device).manual_seed(seed)
    tensors = dict(random_tensors(config, generator, dtype=dtype))
    return CudaNetwork(config, tensors, device, dtype=dtype, batches=batches, projections=projections)


def random_tensors(
    config: Mamba2Config, generator: torch.Generator, *, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    for name, shape in tensor_shapes(config).items():
        kind = dtype if len(shape) == 2 else torch.float32
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=kind)
        if name.endswith("A_log"):
            noise = torch.log(torch.linspace(1, 16, len(noise), device=noise.device))
        elif name.endswith("dt_bias"):
            noise -= 4
        elif name.endswith("conv1d.weight"):
            noise *= 0.5
        elif noise.dim() == 1:
            noise = 0.1 * noise + (0 if name.endswith("bias") else 1)
        else:
            noise *= shape[-1] ** -0.5
        yield name, noise
