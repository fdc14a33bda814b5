"""Weights in and out of a folder, and one clear line for every folder that is not a model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Mamba2Config as HfConfig

from model.checkpoint import load_model
from model.config import CheckpointError, ConfigError, Mamba2Config, config_from_hf, read_config
from model.network import Mamba2LM
from model.source import BUNDLED, open_source
from model.tokenizer_files import read_tokenizer
from model.torch_build import build_torch
from training.train import save

VOCAB = read_tokenizer(BUNDLED / "tokenizer.model").vocab_size
CONFIG = Mamba2Config(
    d_model=8, n_layers=2, vocab_size=VOCAB, d_state=4, head_dim=4, n_heads=4, n_groups=2, tie_embeddings=True
)
SHARD = "model.safetensors"

Make = Callable[..., Mamba2LM]
Damage = Callable[[Path], None]


def write_model(folder: Path, network: Mamba2LM, *, shard_bytes: int | None = None) -> Path:
    """One fp32 file, or what training writes: shards of `shard_bytes`, the matrices in fp16."""
    folder.mkdir()
    if shard_bytes is None:
        tensors = {
            n: t
            for n, t in network.state_dict().items()
            if not (network.config.tie_embeddings and n == "lm_head.weight")
        }
        save_file(tensors, folder / SHARD)
        (folder / "config.json").write_text(json.dumps(network.config.to_hf()))
    else:
        save(network, folder, shard_bytes=shard_bytes)
    shutil.copy(BUNDLED / "tokenizer.model", folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, random_network: Make) -> Path:
    """A sound model in one file, and the bundled gate."""
    made = write_model(tmp_path / "a-model", random_network(CONFIG))
    shutil.copy(BUNDLED / "gate.json", made)
    return made


def test_the_bundled_model_loads_and_reads(bundled) -> None:
    logits, state = bundled.network(torch.tensor([bundled.tokenizer.encode("def main():\n")]))
    assert bundled.name == "bundled"
    assert bundled.gate is not None
    assert logits.shape[-1] == bundled.config.vocab_size
    assert logits.isfinite().all()
    assert state.nbytes == bundled.config.state_bytes
    assert sum(file.stat().st_size for file in BUNDLED.glob("*.safetensors")) <= 32 << 20


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_bytes", [None, 1 << 30, 20_000, 1])
def test_round_trip(tmp_path: Path, random_network: Make, tied: bool, shard_bytes: int | None) -> None:
    network = random_network(replace(CONFIG, tie_embeddings=tied))
    made = write_model(tmp_path / "m", network, shard_bytes=shard_bytes)
    loaded = load_model(str(made), precision="fp32", backend="torch")
    assert (loaded.name, loaded.precision) == ("m", "fp32")
    assert loaded.config == network.config
    plain = build_torch(open_source(str(made)))
    found = plain.state_dict()
    assert found.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        exact = shard_bytes is None or tensor.dim() == 1
        expected = tensor if exact else tensor.half().float()
        assert torch.equal(found[name], expected), name
    assert (plain.lm_head.weight is plain.backbone.embeddings.weight) is tied
    ids = torch.arange(40)[None]
    for read, tolerance in ((plain, 1e-6), (loaded.network, 1e-5)):
        assert (read(ids)[0] - network(ids)[0]).abs().max() < (tolerance if shard_bytes is None else 0.05)


def test_a_tied_model_may_also_bring_its_head(tmp_path: Path, random_network: Make) -> None:
    made = write_model(tmp_path / "m", random_network(CONFIG))
    tensors = load_file(made / SHARD)
    save_file(tensors | {"lm_head.weight": tensors["backbone.embeddings.weight"].clone()}, made / SHARD)
    source = open_source(str(made))
    assert "lm_head.weight" not in source.names()
    assert build_torch(source).lm_head.weight.shape == (VOCAB, CONFIG.d_model)


def test_the_digest_changes_with_any_weight_and_nothing_else(folder: Path) -> None:
    before = load_model(str(folder)).digest
    assert load_model(str(folder)).digest == before
    tensors = load_file(folder / SHARD)
    tensors["backbone.layers.1.mixer.D"][3] += 1e-3
    save_file(tensors, folder / SHARD)
    assert load_model(str(folder)).digest != before


def test_no_gate_is_no_error(folder: Path) -> None:
    (folder / "gate.json").unlink()
    assert load_model(str(folder)).gate is None


def edit_json(name: str, change: Callable[[dict], object]) -> Damage:
    def apply(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        change(data)
        (folder / name).write_text(json.dumps(data))

    return apply


def edit_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / SHARD)
        change(tensors)
        save_file(tensors, folder / SHARD)

    return apply


def written(name: str, content: bytes) -> Damage:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return apply


def shortened(name: str, keep: Callable[[int], int]) -> Damage:
    return lambda folder: written(name, (folder / name).read_bytes()[: keep((folder / name).stat().st_size)])(folder)


def removed(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def index_of(names: object) -> Damage:
    return written("model.safetensors.index.json", json.dumps({"weight_map": names}).encode())


def two_shards_with_one_tensor(folder: Path) -> None:
    tensors = load_file(folder / SHARD)
    save_file({"backbone.norm_f.weight": tensors["backbone.norm_f.weight"]}, folder / "other.safetensors")
    index_of({"a": SHARD, "b": "other.safetensors"})(folder)


def small_vocabulary(folder: Path) -> None:
    edit_json("config.json", lambda c: c.update(vocab_size=100))(folder)
    edit_tensors(lambda t: t.update({EMBEDDINGS: t[EMBEDDINGS][:100].clone()}))(folder)


def add_folder(name: str) -> Damage:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return apply


EMBEDDINGS = "backbone.embeddings.weight"
NORM = "backbone.norm_f.weight"
CONV = "backbone.layers.0.mixer.conv1d.weight"
INDEX = "model.safetensors.index.json"

# What is done to a sound folder, and the words that the one line must have.
BAD = {
    "no weights": (removed(SHARD), [SHARD, "no such file", "expected"]),
    "weights are a folder": (add_folder(SHARD), [SHARD, "no such file"]),
    "empty weights": (written(SHARD, b""), [SHARD, "damaged or not a safetensors file"]),
    "garbage": (written(SHARD, b"\x80\x04garbage" * 40), [SHARD, "damaged or not a safetensors file"]),
    "a pickle": (written(SHARD, b"\x80\x02}q\x00."), [SHARD, "damaged or not a safetensors file"]),
    "one byte short": (shortened(SHARD, lambda size: size - 1), [SHARD, "damaged"]),
    "half": (shortened(SHARD, lambda size: size // 2), [SHARD, "damaged"]),
    "header only": (shortened(SHARD, lambda size: 100), [SHARD, "damaged"]),
    "wrong shape": (edit_tensors(lambda t: t.update({NORM: torch.ones(9)})), [SHARD, NORM, "(9,)", "expected (8,)"]),
    "missing tensor": (edit_tensors(lambda t: t.pop(CONV)), [CONV, "missing", "expected"]),
    "foreign tensor": (
        edit_tensors(lambda t: t.update({"model.embed.weight": torch.ones(1)})),
        [SHARD, "model.embed.weight"],
    ),
    "not a number": (edit_tensors(lambda t: t[NORM].__setitem__(2, float("nan"))), [SHARD, NORM, "not finite"]),
    "infinite": (edit_tensors(lambda t: t[CONV].__setitem__(2, float("-inf"))), [SHARD, CONV, "not finite"]),
    "whole numbers": (
        edit_tensors(lambda t: t.update({NORM: torch.ones(8, dtype=torch.int32)})),
        [SHARD, NORM, "I32", "expected F32, F16 or BF16"],
    ),
    "no config": (removed("config.json"), ["config.json", "no such file"]),
    "config is no JSON": (written("config.json", b"{model_type: mamba2"), ["config.json", "JSON"]),
    "config is no text": (written("config.json", b"\xff\xfe\x00"), ["config.json", "JSON"]),
    "config is a list": (written("config.json", b"[1]"), ["config.json", "expected a JSON object", "list"]),
    "another model": (
        edit_json("config.json", lambda c: c.update(model_type="llama")),
        ["config.json", "'llama'", "'mamba2'"],
    ),
    "no model type": (
        edit_json("config.json", lambda c: c.pop("model_type")),
        ["config.json", "model_type", "'mamba2'"],
    ),
    "no width": (edit_json("config.json", lambda c: c.pop("hidden_size")), ["config.json", "hidden_size", "positive"]),
    "negative layers": (
        edit_json("config.json", lambda c: c.update(num_hidden_layers=-1)),
        ["num_hidden_layers is -1"],
    ),
    "true heads": (edit_json("config.json", lambda c: c.update(num_heads=True)), ["num_heads is True"]),
    "text as a number": (edit_json("config.json", lambda c: c.update(state_size="4")), ["state_size is '4'"]),
    "groups do not divide": (edit_json("config.json", lambda c: c.update(n_groups=3)), ["4 heads", "n_groups 3"]),
    "biases": (edit_json("config.json", lambda c: c.update(use_bias=True)), ["use_bias"]),
    "another activation": (
        edit_json("config.json", lambda c: c.update(hidden_act="gelu")),
        ["hidden_act", "'gelu'", "'silu'"],
    ),
    "epsilon is text": (
        edit_json("config.json", lambda c: c.update(layer_norm_epsilon="x")),
        ["layer_norm_epsilon", "'x'"],
    ),
    "epsilon is nothing": (
        edit_json("config.json", lambda c: c.update(layer_norm_epsilon=None)),
        ["layer_norm_epsilon"],
    ),
    "one limit": (
        edit_json("config.json", lambda c: c.update(time_step_limit=[0.1])),
        ["time_step_limit", "two numbers"],
    ),
    "limits are text": (
        edit_json("config.json", lambda c: c.update(time_step_limit=["a", 1])),
        ["time_step_limit", "'a'"],
    ),
    "layers of another config": (
        edit_json("config.json", lambda c: c.update(num_hidden_layers=3)),
        ["layers.2", "missing"],
    ),
    "width of another config": (edit_json("config.json", lambda c: c.update(hidden_size=16)), [SHARD, "expected"]),
    "vocabulary too small": (
        small_vocabulary,
        ["tokenizer.model", str(VOCAB), "100"],
    ),
    "no tokenizer": (removed("tokenizer.model"), ["tokenizer.model", "no such file"]),
    "tokenizer is garbage": (
        written("tokenizer.model", b"garbage" * 9),
        ["tokenizer.model", "not a sentencepiece model"],
    ),
    "tokenizer is empty": (written("tokenizer.model", b""), ["tokenizer.model", "empty", "sentencepiece"]),
    "tokenizer is JSON": (
        written("tokenizer.model", b'{"model": {}}'),
        ["tokenizer.model", "not a sentencepiece model"],
    ),
    "half a tokenizer": (shortened("tokenizer.model", lambda size: size // 2), ["tokenizer.model"]),
    "index is no JSON": (written(INDEX, b"{"), [INDEX, "not an index"]),
    "index is a list": (written(INDEX, b"[]"), [INDEX, "not an index"]),
    "index without a map": (written(INDEX, b"{}"), [INDEX, "not an index"]),
    "index with a list": (index_of(["a"]), [INDEX, "not an index"]),
    "index with numbers": (index_of({"a": 1}), [INDEX, "plain file names"]),
    "index with lists": (index_of({"a": []}), [INDEX, "not an index"]),
    "index leaves the folder": (index_of({"a": "../x.safetensors"}), [INDEX, "outside its folder"]),
    "index names an absolute path": (index_of({"a": "/etc/passwd"}), [INDEX, "outside its folder"]),
    "index names the parent": (index_of({"a": ".."}), ["..", "no such file"]),
    "index names a missing shard": (
        index_of({"a": SHARD, "b": "gone.safetensors"}),
        ["gone.safetensors", "no such file"],
    ),
    "index names nothing": (index_of({}), ["missing"]),
    "a tensor in two shards": (two_shards_with_one_tensor, [NORM, "another shard"]),
    "gate is no JSON": (written("gate.json", b"nope"), ["gate.json", "not a gate table"]),
    "gate is a list": (written("gate.json", b"[]"), ["gate.json", "not a gate table"]),
    "gate without tables": (edit_json("gate.json", lambda g: g.pop("tables")), ["gate.json", "not a gate table"]),
    "gate without a source": (edit_json("gate.json", lambda g: g["tables"].pop("buffer")), ["gate.json", "buffer"]),
    "gate with a short table": (
        edit_json("gate.json", lambda g: g["tables"]["buffer"]["length"].pop()),
        ["buffer.length has 8", "expected 9"],
    ),
    "gate with a long table": (
        edit_json("gate.json", lambda g: g["tables"]["documents"]["count"].append(0.0)),
        ["documents.count has 7"],
    ),
    "gate with text": (
        edit_json("gate.json", lambda g: g["tables"]["buffer"].update(count="abcdef")),
        ["gate.json", "buffer.count"],
    ),
    "gate with nothing": (
        edit_json("gate.json", lambda g: g["tables"]["buffer"].update(count=[None] * 6)),
        ["gate.json", "buffer.count"],
    ),
    "gate with NaN": (
        edit_json("gate.json", lambda g: g["tables"]["buffer"]["count"].__setitem__(0, float("nan"))),
        ["buffer.count"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(folder: Path, name: str) -> None:
    damage, words = BAD[name]
    load_model(str(folder))
    damage(folder)
    with pytest.raises(ConfigError) as caught:
        load_model(str(folder))
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    assert [word for word in words if word not in line] == [], line


def test_the_weights_own_error_is_told_apart(folder: Path) -> None:
    removed(SHARD)(folder)
    with pytest.raises(CheckpointError):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["/no/such/folder", "bundle", ""])
def test_a_folder_that_is_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config.json|no such folder"):
        load_model(name)


CONFIGS = [
    CONFIG,
    replace(CONFIG, tie_embeddings=False, n_groups=1, norm_eps=1e-6),
    replace(CONFIG, dt_limit=(0.001, 0.1)),
    Mamba2Config(d_model=4096, n_layers=64, vocab_size=32768, n_heads=128, head_dim=64, n_groups=8),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_survives_the_way_through_transformers(tmp_path: Path, config: Mamba2Config) -> None:
    assert config_from_hf(config.to_hf()) == config
    HfConfig(**config.to_hf()).save_pretrained(tmp_path)  # writes infinity in its own way
    assert read_config(tmp_path / "config.json") == config


def test_codestral_mamba_has_the_shapes_of_its_weights() -> None:
    config = CONFIGS[-1]
    assert (config.d_inner, config.conv_dim, config.in_proj_dim) == (8192, 10240, 18560)
    assert config.state_bytes == 268_435_456 + 4 * 64 * 10240 * 3


def test_bare_infinity_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_hf() | {"time_step_limit": [0.0, float("inf")]}))
    assert "Infinity" in (tmp_path / "config.json").read_text()
    assert read_config(tmp_path / "config.json") == CONFIG
