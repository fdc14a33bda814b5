"""The program that makes random models for benchmarks: its formats load, its values are as said, and nothing overflows over a long run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.random_checkpoint import CODESTRAL, SHAPES, RandomSource, main
from model.config import Mamba2Config
from model.layout import tensor_count
from model.source import open_source
from model.torch_build import build_torch

SMALL = Mamba2Config(d_model=128, n_layers=4, vocab_size=512, n_heads=4, n_groups=2)


@pytest.mark.parametrize(("form", "kind"), [("hf", "bf16"), ("gguf", "q8_0")])
def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, kind: str) -> None:
    out = tmp_path / ("m.gguf" if form == "gguf" else "m")
    main([str(out), "--shape", "bundled", "--format", form, "--kind", kind])
    said = json.loads(capsys.readouterr().out)
    source = open_source(str(out))
    assert source.config == SHAPES["bundled"]
    assert said["bytes"] >= source.stored_bytes
    assert source.tokenizer().vocab_size == source.config.vocab_size
    with pytest.raises(SystemExit, match="is there already"):
        main([str(out), "--shape", "bundled"])
    with pytest.raises(SystemExit, match="states of 128"):
        main([str(tmp_path / "n"), "--shape", "bundled", "--format", "mistral"])


def test_help_says_how_large_the_shapes_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "bundled: 5 M, 9.4 MB" in said and "codestral: 7285 M, 14.6 GB" in said


def test_shapes_are_those_of_the_models() -> None:
    assert SHAPES["codestral"] == CODESTRAL
    assert tensor_count(CODESTRAL) == 579
    assert RandomSource(CODESTRAL).stored_bytes == 14_570_807_296
    assert replace(SHAPES["bundled"]) == open_source("bundled").config


def test_values() -> None:
    source = RandomSource(SMALL, dtype=torch.float32)
    for name, spread in {
        "backbone.embeddings.weight": 1.0,
        "lm_head.weight": 128**-0.5,
        "backbone.layers.3.mixer.in_proj.weight": 128**-0.5,
        "backbone.layers.3.mixer.out_proj.weight": 256**-0.5,
        "backbone.layers.3.mixer.conv1d.weight": 0.5,
    }.items():
        values = source.read(name)
        assert values.std().item() == pytest.approx(spread, rel=0.03), name
        assert abs(values.mean().item()) < 0.03 * spread, name
        assert values.abs().max() < 4.5 * spread
    assert torch.equal(source.read("backbone.layers.0.mixer.D"), torch.ones(4))
    assert source.read("backbone.layers.0.mixer.A_log").exp().tolist() == pytest.approx([1, 6, 11, 16])
    assert source.read("backbone.layers.0.mixer.dt_bias").tolist() == pytest.approx([-3, -7 / 3, -5 / 3, -1])


def test_seeds_and_names_make_the_difference() -> None:
    one, same, other = RandomSource(SMALL), RandomSource(SMALL), RandomSource(SMALL, seed=1)
    first, second = "backbone.layers.0.mixer.in_proj.weight", "backbone.layers.1.mixer.in_proj.weight"
    same.read(second)  # order does not matter
    assert torch.equal(one.read(first), same.read(first))
    assert not torch.equal(one.read(first), other.read(first))
    assert not torch.equal(one.read(first), one.read(second))
    assert len({source.digest for source in (one, other, RandomSource(SMALL, dtype=torch.float32))}) == 3
    # A bf16 model is the fp32 one, rounded.
    assert torch.equal(RandomSource(SMALL, dtype=torch.float32).read(first).bfloat16(), one.read(first))


def test_a_long_run_stays_finite() -> None:
    network = build_torch(RandomSource(SMALL))
    ids = torch.randint(0, SMALL.vocab_size, (1, 256), generator=torch.Generator().manual_seed(0))
    state, sizes = None, []
    for _ in range(10):
        logits, state = network(ids, state, last_only=True)
        sizes.append(state.ssm.abs().max().item())
    assert logits.isfinite().all() and 0.1 < logits.std() < 10
    assert max(sizes[5:]) < 2 * max(sizes[:5])
