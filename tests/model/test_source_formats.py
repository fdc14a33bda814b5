"""The same weights in every format are the same model, and a folder or file that is none is one clear line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from benchmarks.random_checkpoint import RandomSource, mistral_params, write_folder, write_safetensors
from model.checkpoint import load_model
from model.config import CheckpointError, ConfigError, Mamba2Config, config_from_hf, config_from_mistral
from model.gguf_write import export_gguf
from model.layout import tensor_count, tensor_shapes
from model.source import BUNDLED, Source, open_source
from model.source_mistral import OWN_NAMES
from model.torch_build import build_torch

# What params.json cannot say is as in Codestral: states of 128, heads of 64, twice the width inside.
CONFIG = Mamba2Config(d_model=64, n_layers=2, vocab_size=8192, n_heads=2, n_groups=2)
EMBEDDING = "model.backbone.embedding.weight"
FORMATS = ("hf", "mistral", "gguf")


def write(path: Path, form: str, config: Mamba2Config = CONFIG, dtype: torch.dtype = torch.float32) -> Path:
    source = RandomSource(config, dtype=dtype)
    if form == "gguf":
        path = path.with_suffix(".gguf")
        export_gguf(source, path, kind="bf16" if dtype == torch.bfloat16 else "f32")
    else:
        write_folder(source, path, mistral=form == "mistral")
    return path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_is_the_same_model(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    config = replace(CONFIG, tie_embeddings=tied)
    made_up = RandomSource(config, dtype=dtype)
    ids = torch.arange(300, 330)[None]
    expected = build_torch(made_up)(ids)[0]
    assert expected.std() > 0.1
    for form in FORMATS:
        path = str(write(tmp_path / form, form, config, dtype))
        source = open_source(path)
        assert source.config == config
        assert source.names() == list(tensor_shapes(config)) == made_up.names()
        for name in source.names():
            want, found = made_up.read(name), source.read(name)
            # GGUF keeps what is no matrix in fp32, and A = -exp(A_log) is not taken back to the last bit.
            assert found.dtype == (torch.float32 if form == "gguf" and want.dim() != 2 else dtype)
            assert torch.allclose(found.float(), want.float(), rtol=1e-6 if name.endswith("A_log") else 0, atol=1e-7), (
                name
            )
        model = load_model(path, precision="fp32", backend="torch")
        assert (model.name, model.precision, model.gate) == (form, "fp32", None)
        assert (model.network(ids)[0] - expected).abs().max() < 2e-5
        assert model.tokenizer.encode("def f(x):\n") == load_model("bundled").tokenizer.encode("def f(x):\n")


def test_formats_differ_in_their_digest_and_not_in_their_place(tmp_path: Path) -> None:
    digests = {open_source(str(write(tmp_path / form, form))).digest for form in FORMATS}
    assert len(digests) == 3
    shutil.copytree(tmp_path / "hf", tmp_path / "moved")
    assert open_source(str(tmp_path / "moved")).digest == open_source(str(tmp_path / "hf")).digest


def test_progress_counts_bytes_up_to_the_whole(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    source = open_source(str(write(tmp_path / "m", "hf")))
    build_torch(source, progress=lambda done, total, what: said.append((done, total, what)))
    assert len(said) == tensor_count(CONFIG)
    assert said == sorted(said)
    assert said[-1] == (source.stored_bytes, source.stored_bytes, "reading the weights")


def test_reading_keeps_one_tensor_in_memory(tmp_path: Path) -> None:
    """In a process of its own: the largest it ever was, less what it was before, is the network and little more."""
    config = Mamba2Config(d_model=512, n_layers=12, vocab_size=32768, n_heads=16)
    path = write(tmp_path / "m", "hf", config, torch.bfloat16)
    program = """if True:
        import pathlib, re, sys, torch
        from model.source import open_source
        from model.torch_build import build_torch
        def mb(key): return int(re.search(key + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
        torch.set_num_threads(1)
        build_torch(open_source("bundled"))  # whatever torch imports late
        before = mb("VmRSS")
        network = build_torch(open_source(sys.argv[1]), dtype=torch.bfloat16)
        weights = sum(p.nbytes for p in network.parameters()) / 2**20
        print(mb("VmHWM") - before - weights, weights)
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the largest size of a process is read from /proc")
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    above, weights = map(float, done.stdout.split())
    assert weights > 100
    assert above < 50, f"{above:.0f} MiB above the weights, expected about the largest tensor: 32 MiB"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}, CONFIG),
        ({"norm_before_gate": True, "rescale_prenorm_residual": False}, CONFIG),
        ({"time_step_limit": [0.0, float("inf")]}, CONFIG),
        ({"time_step_limit": [0.0, {"__float__": "Infinity"}]}, CONFIG),
        ({"time_step_rank": 256, "time_step_min": 0.001, "intermediate_size": 8192, "torch_dtype": "bfloat16"}, CONFIG),
        ({"architectures": None, "use_cache": True, "transformers_version": "4.44.0.dev0"}, CONFIG),
    ],
)
def test_configs_that_say_wrong_or_useless_things(changed: dict, expected: Mamba2Config) -> None:
    text = json.dumps(CONFIG.to_hf() | changed)
    assert config_from_hf(json.loads(text)) == expected


CODESTRAL = {
    "dim": 4096,
    "n_layers": 64,
    "vocab_size": 32768,
    "n_groups": 8,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 1,
    "tie_embeddings": False,
    "model_type": "mamba",
}


def test_codestrals_own_params() -> None:
    config = config_from_mistral(CODESTRAL)
    assert mistral_params(config) == CODESTRAL
    shapes = tensor_shapes(config)
    assert len(shapes) == tensor_count(config) == 579
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 7_285_403_648
    assert shapes["backbone.layers.63.mixer.in_proj.weight"] == (18560, 4096)
    assert config_from_mistral(CODESTRAL | {"vocab_size": 32001, "pad_vocab_size_multiple": 16}).vocab_size == 32016


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_type": "transformer"}, ["model_type is 'transformer'", "'mamba'"]),
        ({"model_type": None}, ["model_type is None"]),
        ({"dim": None}, ["dim is None", "positive"]),
        ({"dim": 4000.0}, ["dim is 4000.0"]),
        ({"dim": 4001}, ["dim is 4001", "multiple of 32"]),
        ({"n_layers": 0}, ["n_layers is 0"]),
        ({"vocab_size": "many"}, ["vocab_size is 'many'"]),
        ({"n_groups": 3}, ["128 heads", "n_groups 3"]),
        ({"rms_norm": False}, ["rms_norm is False", "true"]),
        ({"residual_in_fp32": 1}, ["residual_in_fp32 is 1"]),
        ({"tie_embeddings": "no"}, ["tie_embeddings is 'no'"]),
        ({"pad_vocab_size_multiple": 0}, ["pad_vocab_size_multiple is 0"]),
        ({"dim": 1 << 40}, ["below"]),
        ({"n_layers": 10**4000}, ["has the number", "1000", "letters"]),
    ],
)
def test_params_that_are_no_mamba(changed: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_mistral(CODESTRAL | changed, source="params.json")
    line = str(caught.value)
    assert line.startswith("params.json: ") and "\n" not in line and len(line) < 300
    assert [word for word in words if word not in line] == [], line


Damage = Callable[[Path], object]


def renamed(change: Callable[[str], str], *, file: str = "consolidated.safetensors") -> Damage:
    def apply(folder: Path) -> None:
        tensors = {change(name): tensor for name, tensor in load_file(folder / file).items()}
        save_file(tensors, folder / file)

    return apply


def edit_params(**changed: object) -> Damage:
    return lambda folder: (folder / "params.json").write_text(json.dumps(mistral_params(CONFIG) | changed))


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def only(name: str, content: bytes = b"\x80\x02}q\x00.") -> Damage:
    def apply(folder: Path) -> None:
        emptied(folder)
        (folder / name).write_bytes(content)

    return apply


def with_pickle(folder: Path) -> None:
    (folder / "consolidated.safetensors").rename(folder / "consolidated.00.pth")


def another_shard(folder: Path) -> None:
    """An index whose second shard is of a wider model."""
    emptied(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    for number, config in enumerate((CONFIG, replace(CONFIG, d_model=96, n_heads=3, n_groups=3))):
        write_safetensors(RandomSource(config, dtype=torch.float32), folder / "all", own_names={})
        whole = load_file(folder / "all")
        (folder / "all").unlink()
        half = {name: tensor for name, tensor in whole.items() if ("layers.0." in name) == (number == 1)}
        save_file(half, folder / f"{number}.safetensors")
    mapped = {name: f"{int('layers.0.' in name)}.safetensors" for name in whole}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))


def stale_index(folder: Path) -> None:
    """An index that was written for other shards than those that lie there."""
    emptied(folder)
    write_folder(RandomSource(CONFIG), folder / "x", mistral=False)
    for file in (folder / "x").iterdir():
        file.rename(folder / file.name)
    (folder / "x").rmdir()
    mapped = dict.fromkeys(tensor_shapes(CONFIG), "model.safetensors") | {"backbone.extra": "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))


# What is done to a sound folder in Mistral's format, and the words that the one line must have.
MISTRAL = "consolidated.safetensors"
BAD = {
    "Hugging Face's names": (renamed(lambda n: n.removeprefix("model.")), [MISTRAL, EMBEDDING, "missing", "backbone."]),
    "its name of one tensor": (
        renamed(lambda n: n.replace("embedding.", "embeddings.")),
        [MISTRAL, EMBEDDING, "missing", "model.backbone.embeddings.weight"],
    ),
    "more layers": (edit_params(n_layers=3), [MISTRAL, "model.backbone.layers.2.norm.weight", "expected 30"]),
    "fewer layers": (edit_params(n_layers=1), [MISTRAL, "model.backbone.layers.1.", "not part"]),
    "a billion layers": (edit_params(n_layers=10**9), [MISTRAL, "layers.2.norm.weight", "missing"]),
    "another width": (edit_params(dim=128), [MISTRAL, EMBEDDING, "(8192, 64)", "expected (8192, 128)"]),
    "another grouping": (edit_params(n_groups=1), [MISTRAL, "in_proj", "expected (514, 64)"]),
    "tied, with a gap": (renamed(lambda n: n.replace("norm_f", "norm_g")), ["norm_f.weight", "missing", "norm_g"]),
    "a transformer": (edit_params(model_type="transformer"), ["params.json", "'transformer'", "'mamba'"]),
    "no params": (lambda f: (f / "params.json").unlink(), ["no config.json and no params.json"]),
    "a pickle": (with_pickle, [MISTRAL, "no such file", "consolidated.00.pth", "could run code"]),
    "only a pickle": (only("pytorch_model.bin"), ["pytorch_model.bin", "could run code"]),
    "only a GGUF": (only("m.gguf", b"GGUF"), ["m.gguf", "name the file itself"]),
    "only weights": (only("model.safetensors"), ["config.json", "no such file"]),
    "nothing": (emptied, ["no config.json"]),
    "a transformer's config": (
        only("config.json", b'{"model_type": "llama", "hidden_size": 64}'),
        ["config.json", "'llama'", "'mamba2'"],
    ),
    "shards of two models": (another_shard, ["1.safetensors", "layers.0.norm.weight", "(96,)", "expected (64,)"]),
    "an index of other shards": (stale_index, ["index.json", "backbone.extra", "in none of its files"]),
    "the tokenizer is missing": (
        lambda f: (f / "tokenizer.model.v3").unlink(),
        ["tokenizer.model", "no such file"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_one_line(tmp_path: Path, name: str) -> None:
    damage, words = BAD[name]
    folder = write(tmp_path / "m", "mistral")
    damage(folder)
    with pytest.raises(ConfigError) as caught:
        load_model(str(folder), precision="fp32")
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line and len(line) < 600
    assert [word for word in words if word not in line] == [], line


def test_what_a_name_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some").mkdir()
    write(tmp_path / "some" / "model", "hf")
    rows = {
        "some/model": "model",
        "./some/model": "model",
        str(tmp_path / "some" / "model"): "model",
        str(BUNDLED): "bundled",
        "bundled": "bundled",
    }
    for name, expected in rows.items():
        assert open_source(name).name == expected, name
    for name, words in {
        "some/other": "codestral-lsp pull some/other",
        "some/model/model.safetensors": "expected its folder",
        "other": "no such folder or file",
        "~/nothing-of-this-name": "no such folder or file",
        "some/model/config.json": "begins with",
    }.items():
        with pytest.raises(ConfigError, match=words):
            open_source(name)


def test_a_pulled_name_goes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace with a folder of the model's name must not bring its own weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, commit = tmp_path / "hub" / "models--org--m", "0123456789" * 4
    pulled = write(repository / "snapshots" / commit, "mistral")
    (tmp_path / "org").mkdir()
    write(tmp_path / "org" / "m", "hf", replace(CONFIG, n_layers=1))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    source = open_source("org/m")
    assert (source.name, source.path.resolve(), source.config) == ("org/m", pulled.resolve(), CONFIG)
    assert open_source("./org/m").config.n_layers == 1
    (pulled / "consolidated.safetensors").unlink()
    assert open_source("org/m").config.n_layers == 1


def test_both_formats_in_one_folder_are_read_as_mistrals(tmp_path: Path) -> None:
    write(tmp_path / "a", "mistral")
    write(tmp_path / "b", "hf")
    for file in (tmp_path / "b").iterdir():
        shutil.move(file, tmp_path / "a" / file.name)
    source: Source = open_source(str(tmp_path / "a"))
    (tmp_path / "a" / "params.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"params\.json"):
        open_source(str(tmp_path / "a"))
    (tmp_path / "a" / "params.json").unlink()
    assert open_source(str(tmp_path / "a")).config == source.config


def test_the_names_of_the_makers_own_program_are_read_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", "hf")
    expected = open_source(str(folder)).read("backbone.embeddings.weight")
    renamed(lambda name: name.replace("embeddings", "embedding"), file="model.safetensors")(folder)
    assert torch.equal(open_source(str(folder)).read("backbone.embeddings.weight"), expected)


def test_values_are_checked_when_they_are_read(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for value in (float("nan"), float("inf"), float("-inf")):
            folder = tmp_path / f"{dtype}-{value}"
            write_folder(RandomSource(CONFIG, dtype=dtype), folder, mistral=True)
            tensors = load_file(folder / MISTRAL)
            tensors[OWN_NAMES["lm_head.weight"]][8191, 63] = value
            save_file(tensors, folder / MISTRAL)
            source = open_source(str(folder))
            assert source.read("backbone.embeddings.weight").isfinite().all()
            with pytest.raises(CheckpointError, match=r"consolidated.*lm_head\.weight has values that are not finite"):
                source.read("lm_head.weight")


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "m", "mistral")))
    weights = tmp_path / "m" / MISTRAL
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends inside tensor lm_head"):
        source.read("lm_head.weight")
