"""The shape of a Mamba2 model.

Knows: the numbers of a Hugging Face `Mamba2ForCausalLM` config and of Mistral's params.json. Does not know: tensors, files of weights.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class ConfigError(Exception):
    """A model's config is missing, malformed or describes something this program cannot run. One line, for people."""


class CheckpointError(ConfigError):
    """Weights are missing, damaged or not those of the config. One line that names the file, the tensor and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2Config:
    """Letters in brackets are those of the Mamba2 paper (Dao and Gu, 2024, arXiv 2405.21060)."""

    d_model: int  # width of the residual stream (D)
    n_layers: int
    vocab_size: int
    d_state: int = 128  # state dimension (N)
    d_conv: int = 4  # width of the causal convolution
    head_dim: int = 64  # channels of one head (P)
    n_heads: int = 128  # heads (H); n_heads * head_dim is the inner width
    n_groups: int = 1  # groups that share B and C (G)
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    scan_chunk: int = 64  # tokens of one block of the chunked scan (Q); any value gives the same mathematics
    dt_limit: tuple[float, float] = (0.0, float("inf"))

    @property
    def d_inner(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, B and C side by side."""
        return self.d_inner + 2 * self.n_groups * self.d_state

    @property
    def in_proj_dim(self) -> int:
        """Rows of the input projection, in the order z, x, B, C, dt."""
        return self.d_inner + self.conv_dim + self.n_heads

    @property
    def state_bytes(self) -> int:
        """Bytes of one fp32 state of one sequence."""
        return 4 * self.n_layers * (self.d_inner * self.d_state + self.conv_dim * (self.d_conv - 1))

    def to_hf(self) -> dict:
        """This config in the keys of Hugging Face's `Mamba2Config`."""
        limit = {} if self.dt_limit == (0.0, float("inf")) else {"time_step_limit": list(self.dt_limit)}
        return limit | {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "vocab_size": self.vocab_size,
            "state_size": self.d_state,
            "conv_kernel": self.d_conv,
            "head_dim": self.head_dim,
            "num_heads": self.n_heads,
            "n_groups": self.n_groups,
            "expand": self.d_inner // self.d_model,
            "layer_norm_epsilon": self.norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "use_bias": False,
            "use_conv_bias": True,
            "rms_norm": True,
            "residual_in_fp32": True,
            "chunk_size": 256,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }


def config_from_hf(data: dict, *, source: str = "config.json") -> Mamba2Config:
    """Reads a Hugging Face config; `norm_before_gate` is ignored as the reference code ignores it.

    Raises ConfigError naming `source`, the key and what was expected.
    """
    if data.get("model_type") != "mamba2":
        raise ConfigError(f"{source}: model_type is {shown(data.get('model_type'))}, expected 'mamba2'")
    if data.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConfigError(f"{source}: hidden_act is {shown(data['hidden_act'])}, expected 'silu'")
    if data.get("use_bias", False) or not data.get("use_conv_bias", True):
        raise ConfigError(
            f"{source}: expected use_bias false and use_conv_bias true (the layout of every known Mamba2)"
        )

    tied = data.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ConfigError(f"{source}: tie_word_embeddings is {shown(tied)}, expected true or false")
    limit = data.get("time_step_limit", (0.0, float("inf")))
    if not isinstance(limit, (list, tuple)) or len(limit) != 2:
        raise ConfigError(f"{source}: time_step_limit is {shown(limit)}, expected two numbers")
    config = Mamba2Config(
        d_model=whole_number(data, "hidden_size", source),
        n_layers=whole_number(data, "num_hidden_layers", source),
        vocab_size=whole_number(data, "vocab_size", source),
        d_state=whole_number(data, "state_size", source),
        d_conv=whole_number(data, "conv_kernel", source),
        head_dim=whole_number(data, "head_dim", source),
        n_heads=whole_number(data, "num_heads", source),
        n_groups=whole_number(data, "n_groups", source),
        norm_eps=real_number(data.get("layer_norm_epsilon", 1e-5), "layer_norm_epsilon", source),
        tie_embeddings=tied,
        dt_limit=(
            real_number(limit[0], "time_step_limit", source),
            real_number(limit[1], "time_step_limit", source),
        ),
    )
    return sound(config, source)


def config_from_mistral(data: dict, *, source: str = "params.json") -> Mamba2Config:
    """Reads Mistral's params.json. What it does not say is what its maker's program takes for granted (mamba_ssm's `Mamba2`): a state of 128,
    a convolution of 4, twice the width inside, heads of 64, an epsilon of 1e-5.

    Raises ConfigError naming `source`, the key and what was expected.
    """
    if data.get("model_type") != "mamba":
        raise ConfigError(f"{source}: model_type is {shown(data.get('model_type'))}, expected 'mamba'")
    for key, expected in (("rms_norm", True), ("residual_in_fp32", True)):
        if data.get(key, expected) is not expected:
            raise ConfigError(f"{source}: {key} is {shown(data[key])}, expected {json.dumps(expected)}")
    tied = data.get("tie_embeddings", False)
    if not isinstance(tied, bool):
        raise ConfigError(f"{source}: tie_embeddings is {shown(tied)}, expected true or false")
    multiple = whole_number({"pad_vocab_size_multiple": 1} | data, "pad_vocab_size_multiple", source)
    d_model = whole_number(data, "dim", source)
    if 2 * d_model % 64:
        raise ConfigError(f"{source}: dim is {shown(d_model)}, expected a multiple of 32 (heads of 64 channels)")
    config = Mamba2Config(
        d_model=d_model,
        n_layers=whole_number(data, "n_layers", source),
        vocab_size=-(-whole_number(data, "vocab_size", source) // multiple) * multiple,
        n_heads=2 * d_model // 64,
        n_groups=whole_number(data, "n_groups", source),
        tie_embeddings=tied,
    )
    return sound(config, source)


def sound(config: Mamba2Config, source: str) -> Mamba2Config:
    """The config, where its heads divide into its groups and its numbers are those of a model that could exist."""
    if config.n_heads % config.n_groups:
        raise ConfigError(f"{source}: {config.n_heads} heads are no multiple of n_groups {config.n_groups}")
    largest = max(config.d_model, config.n_layers, config.vocab_size, config.in_proj_dim, config.d_conv)
    if largest >= 1 << 31:
        raise ConfigError(f"{source}: has the number {shown(largest)}, expected numbers below {1 << 31}")
    return config


def read_json_object(path: Path) -> dict:
    """The object in a JSON file; Python's parser takes the bare `Infinity` that some configs have. Raises ConfigError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected the model's {path.name}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def read_config(path: Path) -> Mamba2Config:
    """Reads a Hugging Face `config.json`."""
    return config_from_hf(read_json_object(path), source=str(path))


def whole_number(data: Mapping[str, object], key: str, source: str) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{source}: {key} is {shown(value)}, expected a positive whole number")
    return value


def real_number(value: object, key: str, source: str) -> float:
    found = value
    if isinstance(found, dict):  # transformers 5 writes infinity as {"__float__": "Infinity"}
        found = found.get("__float__")
    try:
        number = float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or number < 0:
        raise ConfigError(f"{source}: {key} has {shown(value)}, expected a number of at least 0")
    return number


def shown(value: object) -> str:
    """A foreign value as part of a message: one line of plain letters, however long or odd the value is."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, lists a thousand deep
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} letters)"
