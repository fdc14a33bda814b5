"""Getting a model, against a hub of our own: the program as a process; what it says, asks for and leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import save

from model import hub as names
from model.__main__ import run
from model.config import Mamba2Config

sys.path.insert(0, str(Path(__file__).parent))
from fake_hub import COMMIT, FakeHub, serving

REPO = "some-org/Tiny-Mamba"
CONFIG = Mamba2Config(d_model=32, n_layers=2, vocab_size=8192, d_state=16, head_dim=16, n_heads=4, n_groups=2)
BUNDLED = Path(names.__file__).parent / "bundled"
PATIENCE_S = 60
MISTRAL = {"dim": 256, "n_layers": 1, "vocab_size": 8192, "n_groups": 8, "model_type": "mamba"}


@dataclass
class Place:
    """A hub and an empty cache, for this process and for others."""

    hub: FakeHub
    root: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def cache(self) -> Path:
        return self.root / "hf" / "hub" / f"models--{self.hub.repo.replace('/', '--')}"

    @property
    def weights_partial(self) -> Path:
        return self.cache / "blobs" / f"{self.hub.digest('model.safetensors')}.incomplete"

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """In this process, which has torch in memory already: exit code, stdout, stderr."""
        code = run(arguments)
        return code, *self.capsys.readouterr()

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "CODESTRAL_", "XDG_"))
        }
        clean |= {
            "HF_HOME": str(self.root / "hf"),
            "HF_ENDPOINT": self.hub.url,
            "HOME": str(self.root),
            "NO_PROXY": "*",
        }
        command = [sys.executable, "-I", "-m", "model", *arguments]
        return subprocess.Popen(command, env=clean | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_alone(self, *arguments: str, **env: str) -> tuple[int, str, str]:
        """In a process of its own, as people run it."""
        process = self.start(*arguments, **env)
        said, complained = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said, complained


@pytest.fixture(scope="module")
def weights(random_network) -> bytes:
    return save({name: tensor.contiguous() for name, tensor in random_network(CONFIG).state_dict().items()})


@pytest.fixture
def place(
    tmp_path: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    """A hub with a tiny random model in Hugging Face's format, and things that are not wanted."""
    files = {
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "config.json": json.dumps(CONFIG.to_hf()).encode(),
        "model.safetensors": weights,
        "pytorch_model.bin": b"\x80\x04" * 9000,
        "tokenizer.model": (BUNDLED / "tokenizer.model").read_bytes(),
        "original/model.safetensors": weights,
    }
    with serving(FakeHub(REPO, files)) as hub:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "cache"))
        yield Place(hub, tmp_path, capsys)


def test_a_pulled_model_is_whole_and_runs(place: Place) -> None:
    code, said, complained = place.run_alone("pull", REPO)
    assert code == 0, complained
    folder = Path(said.strip())
    assert folder == place.cache / "snapshots" / COMMIT
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.model"]
    assert all((folder / name).read_bytes() == place.hub.files[name] for name in ("config.json", "model.safetensors"))
    assert (place.cache / "refs" / "main").read_text() == COMMIT
    assert not list(place.cache.rglob("*.incomplete"))
    lines = complained.splitlines()
    assert lines[:2] == [f"{REPO} at {COMMIT[:12]}", "licence  apache-2.0"]
    assert re.fullmatch(r"files    [0-9.]+ MB in 3: config.json, tokenizer.model, model.safetensors", lines[2])
    assert re.fullmatch(
        rf"{REPO} runs here in [a-z0-9]+, [0-9]+ MB of .* available \(fits: fp32, bf16, int8, int4\)", lines[-1]
    )
    assert not [line for line in place.hub.asked if ".bin" in line or "README" in line or "original" in line]
    # The licence was known before any file was asked for.
    assert place.hub.asked[0].startswith(f"GET /api/models/{REPO}")

    assert names.local_folder(REPO) == folder
    from model.checkpoint import load_model

    loaded = load_model(REPO, precision="fp32")
    assert (loaded.name, loaded.config.d_model) == (REPO, CONFIG.d_model)


def test_what_is_here_is_not_downloaded_again(place: Place) -> None:
    assert place.run("pull", REPO)[0] == 0
    place.hub.asked.clear()
    code, _, complained = place.run("pull", REPO)
    assert code == 0 and "of them here already" in complained
    assert place.hub.paths_asked("GET /store") == [] and len(place.hub.asked) == 1


def wait_for_bytes(path: Path, n_bytes: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (path.exists() and path.stat().st_size >= n_bytes):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)  # for another process to have received so much


def test_an_interrupted_download_is_gone_on_with(place: Place) -> None:
    place.hub.stall_after = 1_600_000
    process = place.start("pull", REPO)
    wait_for_bytes(place.weights_partial, 1_000_000, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert names.missing_files(place.cache / "snapshots" / COMMIT) == ("model.safetensors",)
    assert not (place.cache / "refs").exists()
    had = place.weights_partial.stat().st_size
    assert 1_000_000 <= had <= 1_600_000

    place.hub.stall_after = None
    place.hub.asked.clear()
    code, said, complained = place.run("pull", REPO)
    assert code == 0, complained
    assert place.hub.paths_asked("GET /store") == [f"GET /store/{place.hub.digest('model.safetensors')} bytes={had}-"]
    assert (Path(said.strip()) / "model.safetensors").read_bytes() == place.hub.files["model.safetensors"]


def test_a_connection_that_breaks_is_opened_again(place: Place) -> None:
    place.hub.cut_after = 1_600_000
    code, said, complained = place.run("pull", REPO)
    assert code == 0, complained
    asked = [line for line in place.hub.paths_asked("GET /store") if place.hub.digest("model.safetensors") in line]
    assert len(asked) == 2 and re.search(r"bytes=[1-9][0-9]*-$", asked[1])
    assert (Path(said.strip()) / "model.safetensors").read_bytes() == place.hub.files["model.safetensors"]


@pytest.mark.parametrize("left", [b"x" * 50_000, b"x" * 9_000_000], ids=["of another file", "too long"])
@pytest.mark.parametrize("ignore_range", [False, True])
def test_what_another_has_left_is_not_believed(place: Place, left: bytes, ignore_range: bool) -> None:
    place.hub.ignore_range = ignore_range
    place.weights_partial.parent.mkdir(parents=True)
    place.weights_partial.write_bytes(left)
    code, _, complained = place.run("pull", REPO)
    if code:  # a wrong beginning is only seen at the end; then the next pull starts anew
        assert "expected" in complained.splitlines()[-1] and len(left) < 100_000 and not ignore_range
        code, _, complained = place.run("pull", REPO)
    assert code == 0, complained
    assert (place.cache / "snapshots" / COMMIT / "model.safetensors").read_bytes() == place.hub.files[
        "model.safetensors"
    ]


Change = Callable[[Place], object]


def broken(**changes: object) -> Change:
    def change(place: Place) -> None:
        for name, value in changes.items():
            setattr(place.hub, name, value)

    return change


def without(*paths: str) -> Change:
    return lambda place: [place.hub.files.pop(path) for path in paths]


def with_file(path: str, data: bytes) -> Change:
    return lambda place: place.hub.files.update({path: data})


DIGEST = "[0-9a-f]{64}"
# What is wrong, what is asked, the one line that is said; HUB stands for its address.
BAD: dict[str, tuple[Change, list[str], str]] = {
    "a wrong byte": (
        broken(spoil=True),
        [REPO],
        rf"tokenizer.model: came as 123134 bytes with digest {DIGEST}, expected 123134 bytes with {DIGEST}; "
        "it has been removed, pull again",
    ),
    "a wrong size": (
        broken(shorten=True),
        [REPO],
        rf"tokenizer.model: came as 123133 bytes with digest {DIGEST}, expected 123134 bytes with {DIGEST}; .*",
    ),
    "gated": (
        broken(refuse={"/resolve/": (403, "GatedRepo")}),
        [REPO],
        f"{REPO}: is gated: ask for access on HUB/{REPO}, then set HF_TOKEN to a token of yours",
    ),
    "forbidden": (
        broken(refuse={"/store/": (403, "")}),
        [REPO],
        f"{REPO}: tokenizer.model: access was refused .*may your HF_TOKEN read it.*",
    ),
    "no token": (
        broken(refuse={"/api/": (401, "")}),
        [REPO],
        f"{REPO}: is not on HUB, or private: then HF_TOKEN must hold a token that may read it",
    ),
    "no such model": (broken(), ["some-org/nothing"], "some-org/nothing: is not on HUB"),
    "no such revision": (broken(), [REPO, "--revision", "v9"], f"{REPO}@v9: has no revision v9"),
    "a file gone": (
        broken(refuse={"/store/": (404, "")}),
        [REPO],
        f"{REPO}: tokenizer.model: is not on HUB",
    ),
    "a hub that fails": (broken(refuse={"/api/": (500, "")}), [REPO], f"{REPO}: HUB answered with status 500"),
    "pickles only": (
        without("model.safetensors"),
        [REPO],
        f"{REPO}: is no model that runs here: expected model.safetensors; this one has its weights as pickles, "
        "which could run code and are never loaded",
    ),
    "no tokenizer": (
        without("tokenizer.model"),
        [REPO],
        f"{REPO}: is no model that runs here: expected tokenizer.model.v3 or tokenizer.json; .*",
    ),
    "a transformer": (
        with_file("config.json", b'{"model_type": "mistral"}'),
        [REPO],
        r".*/config.json: model_type is 'mistral', expected 'mamba2'",
    ),
    "no name": (broken(), ["tiny"], r"tiny: expected the name of a model on the hub, ORG/NAME \(see .* pull --help\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_goes_wrong_is_one_line(place: Place, case: str) -> None:
    change, arguments, expected = BAD[case]
    change(place)
    code, said, complained = place.run("pull", *arguments)
    line = complained.splitlines()[-1]
    assert (code, said) == (2 if case == "no name" else 1, "")
    assert re.fullmatch(f"codestral-lsp: {expected}".replace("HUB", re.escape(place.hub.url)), line), line
    assert "Traceback" not in complained
    if case == "a transformer":
        assert not place.hub.paths_asked("GET /store")
    if case.startswith("a wrong"):
        assert [path.stat().st_size for path in place.cache.rglob("*.incomplete")] == [0]


def test_no_network_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here, nowhere = place.hub.url, "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    code, _, complained = place.run("pull", REPO)
    assert code == 1
    assert re.fullmatch(
        rf"codestral-lsp: {REPO}: {nowhere} cannot be reached \(.*\); HF_ENDPOINT .* HTTPS_PROXY .* --model PATH\n",
        complained,
    )
    monkeypatch.setattr(constants, "ENDPOINT", here)
    assert place.run("pull", REPO)[0] == 0
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    code, _, complained = place.run("pull", REPO)
    assert code == 1 and complained.endswith(f"; a complete copy is here: {place.cache / 'snapshots' / COMMIT}\n")


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://host", "https://"])
def test_an_endpoint_that_is_no_address(place: Place, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    code, _, complained = place.run("pull", REPO)
    assert code == 1 and complained.startswith(f"codestral-lsp: HF_ENDPOINT: {endpoint!r} is no address of a hub")
    assert complained.count("\n") == 1


def test_a_proxy_is_used(place: Place) -> None:
    """The name cannot be resolved, and need not be: the proxy, here the hub itself, is asked."""
    _, _, complained = place.run_alone(
        "pull", REPO, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=place.hub.url, NO_PROXY="", no_proxy=""
    )
    assert "hub.invalid" in place.hub.hosts_asked, complained
    assert complained.startswith(f"{REPO} at {COMMIT[:12]}\n")


def test_offline_says_what_is_here(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = f"codestral-lsp: {REPO}: is not here, and HF_HUB_OFFLINE is set; here is: nothing\n"
    assert place.run_alone("pull", REPO, HF_HUB_OFFLINE="1") == (1, "", absent)
    assert place.run("pull", REPO)[0] == 0
    place.hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, said, complained = place.run("pull", REPO)
    assert (code, said) == (0, f"{place.cache / 'snapshots' / COMMIT}\n")
    assert complained.startswith("offline (HF_HUB_OFFLINE): nothing is downloaded, this is what is here\n")
    code, _, complained = place.run("pull", "other/model")
    assert complained == f"codestral-lsp: other/model: is not here, and HF_HUB_OFFLINE is set; here is: {REPO}\n"
    (place.cache / "snapshots" / COMMIT / "model.safetensors").unlink()
    code, _, complained = place.run("pull", REPO)
    assert complained == f"codestral-lsp: {REPO}: is here without model.safetensors, and HF_HUB_OFFLINE is set\n"
    assert place.hub.asked == []


def test_a_small_disk_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.pull.SPARE_BYTES", 1 << 60)
    code, _, complained = place.run("pull", REPO)
    expected = (
        rf"codestral-lsp: {REPO}: needs 2.3 MB on the disk of .*, which has .* free \(HF_HOME names another place\)"
    )
    assert code == 1 and re.fullmatch(expected, complained.splitlines()[-1])
    assert not place.hub.paths_asked("GET /store")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_one_line(place: Place) -> None:
    blobs = place.cache / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{place.hub.digest('tokenizer.model')}.incomplete").symlink_to("/dev/full")
    code, _, complained = place.run("pull", REPO)
    line = complained.splitlines()[-1]
    assert code == 1
    assert (
        line
        == f"codestral-lsp: {REPO}: tokenizer.model: the disk is full, and what has come so far is kept; pull again to go on"
    )


def test_two_pulls_do_not_mix(place: Place) -> None:
    place.hub.stall_after = 1_600_000
    first = place.start("pull", REPO)
    wait_for_bytes(place.weights_partial, 1_000_000, first)
    code, _, complained = place.run("pull", REPO)
    first.send_signal(signal.SIGINT)
    first.wait(PATIENCE_S)
    assert (code, complained.splitlines()[-1]) == (
        1,
        "codestral-lsp: model.safetensors: another pull is downloading it",
    )


def test_a_revision_is_a_model_of_its_own(place: Place) -> None:
    assert place.run("pull", REPO, "--revision", "v2")[0] == 0
    folder = place.cache / "snapshots" / COMMIT
    assert names.local_folder(f"{REPO}@v2") == names.local_folder(f"{REPO}@{COMMIT}") == folder
    assert names.local_folder(REPO) == folder  # the only one there is
    assert names.local_folder(f"{REPO}@main") is None
    assert [str(snapshot.name) for snapshot in names.pulled()] == [f"{REPO}@v2"]
    assert names.explain_absence(f"{REPO}@v3") == (
        f"{REPO}@v3: is not on this machine; codestral-lsp pull {REPO} --revision v3 downloads it"
    )


def test_mistrals_format_goes_first(place: Place) -> None:
    weights = os.urandom(50_000)
    place.hub.files |= {
        "params.json": json.dumps(MISTRAL).encode(),
        "consolidated.safetensors": weights,
        "tokenizer.model.v3": (BUNDLED / "tokenizer.model").read_bytes(),
    }
    code, said, complained = place.run("pull", REPO)
    assert code == 0, complained
    folder = Path(said.strip())
    assert sorted(path.name for path in folder.iterdir()) == [
        "consolidated.safetensors",
        "params.json",
        "tokenizer.model.v3",
    ]
    assert names.local_folder(REPO) == folder


def test_half_a_model_is_none(place: Place) -> None:
    """Others write to the hub's cache too, and blobs are removed: only what is whole counts, the newest of the rest else."""
    assert place.run("pull", REPO)[0] == 0
    newer = place.cache / "snapshots" / ("f" * 40)
    newer.mkdir()
    (newer / "config.json").write_text("{}")
    (place.cache / "refs" / "main").write_text("f" * 40)
    assert names.local_folder(REPO) == place.cache / "snapshots" / COMMIT
    assert names.local_folder(f"{REPO}@main") is None
    assert names.explain_absence(f"{REPO}@main") == (
        f"{REPO}@main: is here only in part (model.safetensors, tokenizer.model.v3 missing); "
        f"codestral-lsp pull {REPO} --revision main goes on with it"
    )
    shutil.rmtree(place.cache / "blobs")
    assert names.local_folder(REPO) is None and names.pulled() == []
