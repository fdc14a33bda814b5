"""Which models are here and what fits: sizes against arithmetic and against what is on the disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from model import library
from model.__main__ import run
from model.config import ConfigError, Mamba2Config
from model.library import Broken, Copy, Entry, Listed, Machine
from model.machine import available_bytes, n_cores, total_bytes, usable_bytes
from model.precision import PRECISIONS, choose_precision, weight_bytes

CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32768, n_heads=128, n_groups=8)
TINY = Mamba2Config(d_model=32, n_layers=2, vocab_size=64, d_state=16, head_dim=16, n_heads=4, n_groups=2)
GB = 1_000_000_000


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def put_in_cache(root: Path, repo: str, config: dict, *, weights: bytes = b"x" * 1000) -> Path:
    """A model as a pull leaves it: blobs, and links to them."""
    cache, commit = root / "hub" / f"models--{repo.replace('/', '--')}", "a" * 40
    (cache / "blobs").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    folder = cache / "snapshots" / commit
    folder.mkdir(parents=True)
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": weights, "tokenizer.json": b"{}"}
    for name, data in files.items():
        (cache / "blobs" / name).write_bytes(data)
        (folder / name).symlink_to(Path("..") / ".." / "blobs" / name)
    return folder


def test_codestral_has_its_published_size() -> None:
    assert library.n_parameters(CODESTRAL) == 7_285_403_648


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 5])
def test_parameters_are_those_of_the_network(random_network, tied: bool, n_layers: int) -> None:
    config = replace(TINY, tie_embeddings=tied, n_layers=n_layers)
    assert library.n_parameters(config) == sum(p.numel() for p in random_network(config).parameters())


def test_a_config_that_claims_a_billion_layers_costs_no_time() -> None:
    assert library.n_parameters(replace(TINY, n_layers=10**9)) > 10**12


@pytest.mark.parametrize(
    ("precision", "least", "most"), [("fp32", 29, 31), ("bf16", 15, 16), ("int8", 8, 9), ("int4", 4.5, 5.5)]
)
def test_memory_is_weights_states_and_a_process(precision: str, least: float, most: float) -> None:
    """GB for Codestral; research/performance.md has 14.84, 7.9 and 4.2 GB for what a step moves alone."""
    needed = library.memory_needed(CODESTRAL, precision)
    assert least * GB < needed < most * GB
    beside = needed - weight_bytes(CODESTRAL, precision) - 2 * CODESTRAL.state_bytes
    assert 0 < beside - library.PROCESS_BYTES < 200_000_000


def test_what_is_here_and_what_is_left_out(own_caches: Path) -> None:
    folder = put_in_cache(own_caches, "some-org/Tiny", TINY.to_hf())
    put_in_cache(own_caches, "some-org/Transformer", {"model_type": "llama"})
    put_in_cache(own_caches, "some-org/Broken", {"model_type": "mamba2"})
    half = put_in_cache(own_caches, "some-org/Half", TINY.to_hf())
    (half / "model.safetensors").unlink()
    (bundled, tiny), broken = library.entries()
    assert broken == []
    assert (bundled.name, bundled.kind, bundled.path) == ("bundled", "bundled", library.BUNDLED_FOLDER)
    assert (tiny.name, tiny.kind, tiny.path) == ("some-org/Tiny", "pulled", folder)
    assert tiny.disk_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert tiny.n_parameters == library.n_parameters(TINY)
    assert list(tiny.memory_bytes) == list(PRECISIONS) and tiny.precision == choose_precision(
        TINY, usable_bytes(), kernels=library.KERNELS.exists()
    )
    assert library.describe("some-org/Tiny") == tiny
    assert [entry.kind for entry in library.entries(str(folder))[0]] == ["bundled", "pulled", "path"]
    no_such_user = "~no-such-user/m.gguf"
    for name, said in {
        "some-org/Half": "is here only in part", str(own_caches / "nothing"): "no such folder or file, expected bundled",
        "some-org/Absent": "is not on this machine", "": "--model: is empty, expected", no_such_user: "no such folder or file",
        "a\0b": "no such folder or file", str(own_caches): "no config.json and no params.json there",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            library.describe(name)
        (_, _), [wrong] = library.entries(name)
        assert wrong.name == name and said in wrong.reason and "\n" not in wrong.reason


def test_copies_are_listed(own_caches: Path) -> None:
    assert library.copies() == []
    kept = own_caches / "cache" / "models"
    kept.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"model": "some-org/Tiny"}}).encode()
    (kept / "0123-int4.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x" * 77)
    (kept / "0123-int8.safetensors").write_bytes(b"\xff" * 12)
    (kept / "0123-int8.safetensors.part").write_bytes(b"x")
    assert library.copies() == [
        Copy(kept / "0123-int4.safetensors", 8 + len(header) + 77, "some-org/Tiny", "int4"),
        Copy(kept / "0123-int8.safetensors", 12, "", "int8"),
    ]


ENTRY = Entry(
    "some-org/Codestral", "pulled", Path("/m"), 14 * GB, 7_285_403_648,
    {"fp32": 30 * GB, "bf16": 15 * GB, "int8": 8 * GB, "int4": 5 * GB}, "int8",
)  # fmt: skip
SMALL = Entry("bundled", "bundled", Path("/b"), 9_500_000, 4_700_000, dict.fromkeys(PRECISIONS, 370_000_000), "bf16")

FITS = [
    (12 * GB, "runs here in int8, 8.0 GB of 12.0 GB available (fits: int8, int4)"),
    (40 * GB, "runs here in int8, 8.0 GB of 40.0 GB available (fits: fp32, bf16, int8, int4)"),
    (6 * GB, "needs 8.0 GB in int8, more than the 6.0 GB available, which fits in int4 at most"),
    (GB, "needs 8.0 GB in int8, more than the 1.0 GB available"),
]


@pytest.mark.parametrize(("available", "said"), FITS)
def test_what_fits_is_said_in_one_line(available: int, said: str) -> None:
    assert library.fit_line(ENTRY, Machine(64 * GB, available, 2)) == said


def test_the_table() -> None:
    kept = [Copy(Path("/c/models/01-int4.safetensors"), 4_200_000_000, "some-org/Codestral", "int4")]
    listed = Listed([SMALL, ENTRY], [Broken("/nope", "/nope: no such folder")], kept)
    lines = list(library.as_table(listed, Machine(16 * GB, 12 * GB, 1), "some-org/Codestral"))
    assert lines[3] == "   /nope  broken: /nope: no such folder"
    assert list(library.as_table(listed, Machine(16 * GB, 12 * GB, 1), "/nope"))[3].startswith("*  /nope  broken: ")
    assert lines[:3] == [
        "   model               parameters  on disk       fp32       bf16    int8    int4  auto",
        "   bundled                  4.7 M   9.5 MB     370 MB     370 MB  370 MB  370 MB  bf16",
        "*  some-org/Codestral      7.29 B  14.0 GB  (30.0 GB)  (15.0 GB)  8.0 GB  5.0 GB  int8",
    ]
    assert "this machine: 16.0 GB of memory, 12.0 GB available, 1 core" in lines
    assert lines[-2:] == [
        "quantised copies: 4.2 GB in /c/models; codestral-lsp models --remove-copies [NAME] removes them, and they are made "
        "again when they are needed",
        "    4.2 GB  some-org/Codestral in int4: 01-int4.safetensors",
    ]


def test_models_as_people_and_programs_see_them(
    own_caches: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_cache(own_caches, "some-org/Tiny", TINY.to_hf())
    monkeypatch.setenv("CODESTRAL_LSP_MODEL", "some-org/Tiny")
    assert run(["models"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("   bundled") and table[2].startswith("*  some-org/Tiny")
    assert run(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["default"] == "some-org/Tiny"
    assert [(model["name"], model["is_default"]) for model in found["models"]] == [
        ("bundled", False),
        ("some-org/Tiny", True),
    ]
    assert found["models"][0]["fits"] == dict.fromkeys(PRECISIONS, True)
    assert found["machine"]["cores"] == n_cores()
    assert set(found["models"][0]) == {
        "name", "kind", "path", "is_default", "n_parameters", "disk_bytes", "precision", "memory_bytes", "fits",
    }  # fmt: skip


def test_a_default_that_is_none_hides_nothing(
    own_caches: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put_in_cache(own_caches, "some-org/Tiny", TINY.to_hf())
    monkeypatch.setenv("CODESTRAL_LSP_MODEL", "/nope")
    assert run(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in found["models"]] == ["bundled", "some-org/Tiny"]
    [broken] = found["broken"]
    assert (broken["name"], broken["is_default"]) == ("/nope", True) and broken["reason"].startswith("/nope: no such")
    assert run(["models", str(folder), "bundled", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(model["name"], model["kind"]) for model in found["models"]] == [
        (str(folder), "path"),
        ("bundled", "bundled"),
    ]
    assert found["broken"] == []
    assert run(["models", "bundled", "/nope"]) == 1
    said, complained = capsys.readouterr()
    assert said == "" and complained.startswith("codestral-lsp: /nope: no such folder or file, expected ")


def test_copies_are_removed(own_caches: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = own_caches / "cache" / "models"
    kept.mkdir(parents=True)

    def put(file: str, model: str) -> Path:
        header = json.dumps({"__metadata__": {"model": model}}).encode()
        (kept / file).write_bytes(len(header).to_bytes(8, "little") + header)
        (kept / file).with_suffix(".blake3").write_text("seal")
        return kept / file

    org, folder = put("01-int4.safetensors", "some-org/Tiny"), put("02-int8.safetensors", "m")
    gguf, damaged = put("03-int8.safetensors", "q"), kept / "04-int8.safetensors"
    damaged.write_bytes(b"x")
    everything = {org, folder, gguf, damaged}
    assert run(["models", "--remove-copies", "some-org/Other"]) == 1
    assert "some-org/Other: no quantised copy of it" in capsys.readouterr().err
    assert set(kept.glob("*.safetensors")) == everything
    for name, removed in {"some-org/Tiny": org, "/somewhere/m": folder, "q.gguf": gguf}.items():
        assert run(["models", name, "--remove-copies"]) == 0
        assert capsys.readouterr().out.endswith(f": {removed.name}\n")
        everything.remove(removed)
        assert set(kept.glob("*.safetensors")) == everything
    assert run(["models", "--remove-copies", "--json"]) == 0
    assert [copy["path"] for copy in json.loads(capsys.readouterr().out)["removed"]] == [str(damaged)]
    assert run(["models", "--remove-copies"]) == 0
    assert (capsys.readouterr().out, list(kept.iterdir())) == ("no quantised copies\n", [])


V2 = {"proc/self/cgroup": "0::/user/app\n"}
V1 = {"proc/self/cgroup": "5:cpu:/\n4:memory:/app\n"}
MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    4000 kB\nHugePages_Total: 0\n"}
# Files below a root, bytes available.
MEMORY: dict[str, tuple[dict[str, str], int]] = {
    "no groups": (MEMINFO, 4_096_000),
    "an old kernel": ({"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 100 kB\n"}, 102_400),
    "no limit": (MEMINFO | V2 | {"sys/fs/cgroup/user/app/memory.max": "max\n"}, 4_096_000),
    "a limit": (
        MEMINFO | V2 | {"sys/fs/cgroup/user/app/memory.max": "3000\n", "sys/fs/cgroup/user/app/memory.current": "1000\n"},
        2000,
    ),
    "file pages do not count": (
        MEMINFO | V2 | {
            "sys/fs/cgroup/user/app/memory.max": "3000", "sys/fs/cgroup/user/app/memory.current": "1000",
            "sys/fs/cgroup/user/app/memory.stat": "anon 100\ninactive_file 900\n",
        },
        2900,
    ),
    "the group above": (MEMINFO | V2 | {"sys/fs/cgroup/user/memory.max": "500", "sys/fs/cgroup/user/memory.current": "100"}, 400),
    "a container": (MEMINFO | V2 | {"sys/fs/cgroup/memory.max": "700", "sys/fs/cgroup/memory.current": "100"}, 600),
    "version 1": (
        MEMINFO | V1 | {
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "3000", "sys/fs/cgroup/memory/app/memory.usage_in_bytes": "1000",
        },
        2000,
    ),
    "version 1 without a limit": (
        MEMINFO | V1 | {"sys/fs/cgroup/memory/app/memory.limit_in_bytes": "9223372036854771712"}, 4_096_000,
    ),
    "over the limit": (MEMINFO | V2 | {"sys/fs/cgroup/memory.max": "700", "sys/fs/cgroup/memory.current": "900"}, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", MEMORY)
def test_available_memory(case: str, tmp_path: Path) -> None:
    files, expected = MEMORY[case]
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path / "root") == expected


def test_this_machine_has_some() -> None:
    assert 0 < available_bytes() <= total_bytes()
    assert n_cores() >= 1
