"""The packed layout and its quantisation, and the file that keeps it."""

from pathlib import Path

import pytest
import torch

from model.build import kept_copy, shapes_of
from model.config import ConfigError, Mamba2Config
from model.packed import PackedMatrix, pack, quantise_activations, quantise_int4, quantise_int8, unpack
from model.packed_file import PackedFile, is_projection, is_sealed, kind_of, map_packed, seal
from model.source import open_source

CONFIG = Mamba2Config(d_model=48, n_layers=2, vocab_size=40, n_heads=4, head_dim=16, d_state=16, n_groups=2)


def weight(rows: int, cols: int) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(rows * cols))


@pytest.mark.parametrize(("rows", "cols"), [(16, 64), (1, 1), (17, 65), (48, 192), (5, 640)])
def test_fp32_and_bf16_come_back_as_they_were(rows: int, cols: int) -> None:
    w = weight(rows, cols)
    assert torch.equal(unpack(pack(w, "fp32")), w)
    assert torch.equal(unpack(pack(w, "bf16")), w.bfloat16())


# Root mean square of the error, relative to the weights': uniform steps of max / 127 and max / 8 over groups of 64 normal values give about these.
@pytest.mark.parametrize(("kind", "error"), [("int8", 0.007), ("int4", 0.105)])
@pytest.mark.parametrize(("rows", "cols"), [(16, 64), (17, 65), (320, 1088)])
def test_quantised_weights_are_near(kind: str, error: float, rows: int, cols: int) -> None:
    w = weight(rows, cols)
    found = unpack(pack(w, kind))
    assert found.shape == w.shape
    assert ((found - w).square().mean() / w.square().mean()).sqrt() < error


def test_the_drawn_layout() -> None:
    """The picture in model/cpp/csl.h, byte for byte."""
    w = torch.zeros(16, 64)
    w[3, 5], w[3, 1] = -8.0, 7.0  # of a group whose scale is 1
    four = pack(w, "int4")
    lines = four.data.view(8, 16, 4)
    assert lines[0, 3].tolist() == [0x88, 8 + 7 | 0 << 4, 0x88, 0x88]  # inputs 1 (low) and 5 (high) share a byte
    assert set(lines[1:].flatten().tolist()) == {0x88}
    assert four.scales is not None and four.scales.shape == (1, 1, 16) and four.scales[0, 0, 3] == 1
    w[2, 9] = 127.0
    eight = pack(w, "int8").data.view(16, 16, 4)
    assert eight[2, 2].tolist() == [128, 255, 128, 128]
    assert pack(w, "bf16").data.view(torch.bfloat16).view(32, 16, 2)[4, 2].tolist() == [0.0, 127.0]
    assert pack(w, "fp32").data.view(torch.float32).view(64, 16)[9, 2] == 127.0


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e4, -3.0])
def test_groups_of_one_value(value: float) -> None:
    groups = torch.full((2, 64), value)
    for quantise in (quantise_int8, quantise_int4):
        numbers, scale = quantise(groups)
        back = numbers * scale.float()[:, None]
        assert torch.isfinite(back).all()
        assert (back - groups).abs().max() <= 1e-3 * abs(value) + 1e-7


def test_int4_chooses_the_scale_with_the_least_error() -> None:
    groups = torch.randn(500, 64, generator=torch.Generator().manual_seed(1))
    numbers, scale = quantise_int4(groups)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    plain = (largest / -8).half().float()
    naive = (groups / plain).round().clamp(-8, 7) * plain
    assert (numbers * scale.float()[:, None] - groups).square().mean() < 0.97 * (naive - groups).square().mean()


def test_activations() -> None:
    x = torch.randn(7, 100)
    x[2, :64] = 0
    found = quantise_activations(x)
    assert found.shape == x.shape and (found[2, :64] == 0).all()
    assert (found - x).abs().max() <= x.abs().max() / 254 + 1e-6


def tensors(precision: str) -> dict[str, torch.Tensor | PackedMatrix]:
    made: dict[str, torch.Tensor | PackedMatrix] = {}
    for name, shape in shapes_of(CONFIG).items():
        value = torch.randn(shape)
        if is_projection(name):
            made[name] = pack(value, kind_of(name, precision))
        else:
            made[name] = value.bfloat16() if name == "backbone.embeddings.weight" else value
    return made


def write(path: Path, precision: str) -> dict[str, torch.Tensor | PackedMatrix]:
    made = tensors(precision)
    file = PackedFile(path, shapes_of(CONFIG), precision=precision, metadata={"model": "m"})
    for name in reversed(list(made)):  # in any order
        file.write(name, made[name])
    file.finish()
    return made


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_is_kept_comes_back(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "models" / "m.safetensors"
    made = write(path, precision)
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o600
    found = map_packed(path, shapes_of(CONFIG), precision=precision)
    assert list(found) == list(made)
    for name, value in made.items():
        other = found[name]
        if isinstance(value, PackedMatrix):
            assert isinstance(other, PackedMatrix) and value.scales is not None and other.scales is not None
            assert value[:3] == other[:3]
            assert torch.equal(value.data, other.data) and torch.equal(value.scales, other.scales)
            assert other.data.data_ptr() % 64 == 0
        else:
            assert isinstance(other, torch.Tensor) and torch.equal(value, other)


def test_a_file_that_is_not_this_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, "int4")
    shapes = shapes_of(CONFIG)
    good = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"m\.safetensors: holds other tensors than this model in int8; remove this file"
    ):
        map_packed(path, shapes, precision="int8")
    for damaged in (good[:-64], good[:40], b"\0" * 100, b"", good.replace(b"norm_f", b"norm_g", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"m\.safetensors: .*remove this file, it is made again"):
            map_packed(path, shapes, precision="int4")


def test_a_seal_is_broken_by_any_change(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, "int8")
    assert not is_sealed(path, None)
    seal(path, None)
    assert is_sealed(path, None)
    good = path.read_bytes()
    for damaged in (good[:-1], good[:5000] + bytes([good[5000] ^ 1]) + good[5001:]):
        path.write_bytes(damaged)
        assert not is_sealed(path, None)
    path.write_bytes(good)
    assert is_sealed(path, None)


@pytest.mark.parametrize("damage", ["cut", "flipped", "unsealed"])
def test_a_damaged_copy_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path))
    monkeypatch.setattr("model.build.KEEP_FROM_BYTES", 1)
    source = open_source("bundled")
    path = kept_copy(source, "int4", progress=None)
    good = path.read_bytes()
    assert kept_copy(source, "int4", progress=None) == path and not caplog.records
    if damage == "unsealed":
        path.with_suffix(".blake3").unlink()
    else:
        path.write_bytes(good[:100_000] if damage == "cut" else good[:70_000] + b"\0" * 64 + good[70_064:])
    assert kept_copy(source, "int4", progress=None) == path
    assert path.read_bytes() == good
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: is not what was written there, so it is made again"
    ]


def test_an_interrupted_file_leaves_nothing(tmp_path: Path) -> None:
    file = PackedFile(tmp_path / "m.safetensors", shapes_of(CONFIG), precision="int4", metadata={})
    file.abandon()
    assert list(tmp_path.iterdir()) == []
