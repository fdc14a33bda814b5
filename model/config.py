"""The shape of a Mamba2 model.

Knows: the numbers of a Hugging Face `Mamba2ForCausalLM` config. Does not know: tensors, files of weights.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path


class ConfigError(Exception):
    """A model's config is missing, malformed or describes something this program cannot run. One line, for people."""


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
        raise ConfigError(f"{source}: model_type is {data.get('model_type')!r}, expected 'mamba2'")
    if data.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ConfigError(f"{source}: hidden_act is {data['hidden_act']!r}, expected 'silu'")
    if data.get("use_bias", False) or not data.get("use_conv_bias", True):
        raise ConfigError(
            f"{source}: expected use_bias false and use_conv_bias true (the layout of every known Mamba2)"
        )

    def number(key: str) -> int:
        value = data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{source}: {key} is {value!r}, expected a positive whole number")
        return value

    def real(key: str, value: object) -> float:
        if isinstance(value, dict):  # transformers 5 writes infinity as {"__float__": "Infinity"}
            value = value.get("__float__")
        try:
            found = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = math.nan
        if math.isnan(found) or found < 0:
            raise ConfigError(f"{source}: {key} has {value!r}, expected a number of at least 0")
        return found

    limit = data.get("time_step_limit", (0.0, float("inf")))
    if not isinstance(limit, (list, tuple)) or len(limit) != 2:
        raise ConfigError(f"{source}: time_step_limit is {limit!r}, expected two numbers")
    config = Mamba2Config(
        d_model=number("hidden_size"),
        n_layers=number("num_hidden_layers"),
        vocab_size=number("vocab_size"),
        d_state=number("state_size"),
        d_conv=number("conv_kernel"),
        head_dim=number("head_dim"),
        n_heads=number("num_heads"),
        n_groups=number("n_groups"),
        norm_eps=real("layer_norm_epsilon", data.get("layer_norm_epsilon", 1e-5)),
        tie_embeddings=bool(data.get("tie_word_embeddings", False)),
        dt_limit=(real("time_step_limit", limit[0]), real("time_step_limit", limit[1])),
    )
    if config.n_heads % config.n_groups:
        raise ConfigError(f"{source}: num_heads {config.n_heads} is no multiple of n_groups {config.n_groups}")
    return config


def read_config(path: Path) -> Mamba2Config:
    """Reads a `config.json`; Python's parser takes the bare `Infinity` that some of these files have."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected the model's config.json") from None
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return config_from_hf(data, source=str(path))
