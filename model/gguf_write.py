"""Writing a model as llama.cpp reads it, tensor by tensor: matrices in the kind asked for, everything else in fp32, the tokenizer with it.

Through the gguf library's writer and quantisers, whose bits are llama.cpp's own. Knows: sources, GGUF. Does not know: commands, names of models.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    GGUFType,
    Keys,
    LlamaFileType,
    TokenType,
)
from gguf.gguf_writer import GGUFWriter
from gguf.quants import quantize
from torch import Tensor

from model.config import CheckpointError, ConfigError, Mamba2Config
from model.gguf_layout import ARCHITECTURE, CONTEXT_LENGTH, gguf_name, gguf_shape
from model.layout import tensor_shapes
from model.progress import Progress
from model.source import Source
from model.source_gguf import PIECE
from model.tensor_bytes import all_finite
from model.tokenizer import ControlIds, Vocabulary
from model.tokenizer_gguf import fields_of

KINDS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
PADDING_SCORE = -1e4

logging.getLogger("gguf.gguf_writer").setLevel(logging.ERROR)  # it tells of every key that it writes


def export_gguf(source: Source, out: Path, *, kind: str = "bf16", progress: Progress | None = None) -> list[str]:
    """Writes `out` whole or not at all, and returns what its user should know, a line each. One tensor is in memory at a time.

    `kind`: bf16, f16, f32, q8_0 or q4_0. Raises ConfigError, CheckpointError.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if source.config.dt_limit != (0.0, float("inf")):
        raise ConfigError(f"{source.path}: has a time_step_limit {source.config.dt_limit}, which GGUF has no key for")
    part = out.with_name(f"{out.name}.part")
    try:
        writer = GGUFWriter(part, ARCHITECTURE)
        notes = [*describe(writer, source, kind), *describe_tokenizer(writer, source)]
        write_tensors(writer, source, part, kind, progress)
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)
    return notes


def export_bytes(config: Mamba2Config, kind: str) -> int:
    """Bytes of all tensors in a file of this kind."""
    return sum(stored_bytes(shape, stored_kind(shape, kind)) for shape in tensor_shapes(config).values())


def describe(writer: GGUFWriter, source: Source, kind: str) -> list[str]:
    """The config. Returns notes."""
    c = source.config
    writer.add_type(GGUFType.MODEL)
    writer.add_name(source.name)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(c.d_model)
    writer.add_feed_forward_length(0)  # llama.cpp wants this and the next, and does not use them
    writer.add_head_count(0)
    writer.add_block_count(c.n_layers)
    writer.add_ssm_conv_kernel(c.d_conv)
    writer.add_ssm_inner_size(c.d_inner)
    writer.add_ssm_state_size(c.d_state)
    writer.add_ssm_time_step_rank(c.n_heads)
    writer.add_ssm_group_count(c.n_groups)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_vocab_size(c.vocab_size)
    writer.add_file_type(KINDS[kind][1])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    notes = []
    if c.d_inner != 2 * c.d_model:
        notes.append(
            f"llama.cpp reads only models that are twice as wide inside; this one has {c.d_inner} for {c.d_model}"
        )
    odd = sorted(
        name
        for name, shape in tensor_shapes(c).items()
        if len(shape) == 2 and stored_kind(shape, kind) != KINDS[kind][0]
    )
    if odd:
        notes.append(
            f"{len(odd)} matrices, the first of them {odd[0]}, are in f16: their rows are no multiple of {kind}'s blocks"
        )
    return notes


def describe_tokenizer(writer: GGUFWriter, source: Source) -> list[str]:
    """The vocabulary, where llama.cpp's "llama" tokenizer can say it. Returns notes."""
    try:
        tokenizer = source.tokenizer()
    except ConfigError as error:
        writer.add_tokenizer_model("no_vocab")
        return [f"the file has no tokenizer: {error}"]
    vocabulary = tokenizer.vocabulary()
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
        return ["the file has no tokenizer: the model's own is no sentencepiece model"]
    add_vocabulary(writer, vocabulary, tokenizer.control, source.config.vocab_size)
    return []


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary, control: ControlIds, vocab_size: int) -> None:
    """As many tokens as the model has rows: llama.cpp takes the number from this list."""
    padding = range(len(vocabulary.pieces), vocab_size)
    padded = Vocabulary(
        pieces=[*vocabulary.pieces, *(b"[PAD%d]" % i for i in padding)],
        scores=[*vocabulary.scores, *(PADDING_SCORE for _ in padding)],
        types=[*map(reachable, vocabulary.pieces, vocabulary.types), *(int(TokenType.UNUSED) for _ in padding)],
        add_space_prefix=vocabulary.add_space_prefix,
    )
    fields = fields_of(padded, bos=control.bos, eos=control.eos)
    # llama-server asks for a fill-in only where it knows these.
    fill_in = {
        Keys.Tokenizer.FIM_PRE_ID: control.prefix,
        Keys.Tokenizer.FIM_SUF_ID: control.suffix,
        Keys.Tokenizer.FIM_MID_ID: control.middle,
    }
    for key, value in (fields | fill_in).items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)


def reachable(piece: bytes, kind: int) -> int:
    """The type of a piece that llama.cpp finds only where sentencepiece does.

    That turns spaces into its mark before it looks for pieces, so a user-defined piece with a plain space is never found.
    """
    return int(TokenType.NORMAL) if kind == TokenType.USER_DEFINED and b" " in piece else kind


def write_tensors(writer: GGUFWriter, source: Source, part: Path, kind: str, progress: Progress | None) -> None:
    shapes = tensor_shapes(source.config)
    for name, shape in shapes.items():
        stored = stored_kind(shape, kind)
        own_shape = gguf_shape(name, shape, source.config)
        writer.add_tensor_info(
            gguf_name(name), own_shape, np.dtype(np.float32), stored_bytes(shape, stored), raw_dtype=stored
        )
    try:
        writer.write_header_to_file(part)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, n_bytes = 0, source.stored_bytes
        for name, shape in shapes.items():
            tensor = source.read(name)
            values = -torch.exp(tensor.float()) if name.endswith(".A_log") else tensor
            writer.write_tensor_data(encoded(values, stored_kind(shape, kind), source.path, name))
            done += tensor.nbytes
            if progress is not None:
                progress(min(done, n_bytes), n_bytes, f"writing {kind}")
    finally:
        writer.close()


def stored_kind(shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    """Matrices as asked, in f16 where a row is no whole number of blocks; llama.cpp wants everything else in fp32."""
    if len(shape) != 2:
        return GGMLQuantizationType.F32
    wanted = KINDS[kind][0]
    return GGMLQuantizationType.F16 if shape[1] % GGML_QUANT_SIZES[wanted][0] else wanted


def stored_bytes(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * block_bytes


def encoded(tensor: Tensor, kind: GGMLQuantizationType, path: Path, name: str) -> np.ndarray:
    """The tensor's bytes in the file. A piece at a time: the library's quantisers hold several copies of what they are given."""
    values = tensor.reshape(-1)
    if kind is GGMLQuantizationType.F32:
        return values.float().numpy()
    if kind is GGMLQuantizationType.BF16:
        return values.bfloat16().view(torch.int16).numpy()
    if kind is GGMLQuantizationType.F16:
        half = values.half()
        if not all_finite(half):
            raise CheckpointError(
                f"{path}: tensor {name} has values beyond 65504, too large for f16, expected kind bf16"
            )
        return half.numpy()
    return np.concatenate(list(quantised(values, kind)))


def quantised(values: Tensor, kind: GGMLQuantizationType) -> Iterable[np.ndarray]:
    for piece in values.split(PIECE):
        yield quantize(piece.float().numpy().reshape(1, -1), kind)[0]
