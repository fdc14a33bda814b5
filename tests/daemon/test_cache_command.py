"""The program that looks at the states on disk without a model: real states of two models and two workspaces, listed, verified and purged."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cache.chain import Chain
from cache.disk import DiskTier
from cache.index import name_of, shard_of
from daemon.budgets import STATES
from daemon.protocol import DamagedState, KeptState, ModelOnDisk, PurgeReport, VerifyReport
from tests.cache.disk_parts import make_arrays, make_chain

HERE, THERE = "/home/me/here", "/home/me/there"
PROGRAM = [sys.executable, "-I", "-m", "daemon.cache_command"]


def keep(
    folder: Path, model: str, workspace: str, *, numbers: range, close: bool = True, note: Mapping[str, Any] = {}
) -> DiskTier:
    """States of a model, as its daemon would write them for a workspace."""
    root = Chain.start(model.encode())
    tier = DiskTier(folder / STATES, fingerprint=root.root.hex(), root=root.root, budget_bytes=1_000_000_000)
    for number in numbers:
        chain = chain_of(model, number)
        assert tier.own(workspace, [chain.tip])
        assert tier.write(chain, len(chain.slices), make_arrays(number), note)
    if close:
        tier.close()
    return tier


def chain_of(model: str, number: int) -> Chain:
    chain = Chain.start(model.encode())
    for part in make_chain(number).slices:
        chain = chain.extend(part.kind, [(part.tokens, part.keep)])
    return chain


def file_of(folder: Path, model: str, number: int) -> Path:
    root, key = Chain.start(model.encode()).root, chain_of(model, number).tip
    return folder / STATES / "v1" / root.hex()[:16] / shard_of(key) / name_of(key)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CODESTRAL_LSP_CACHE": str(folder)}
    return subprocess.run([*PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)


def asked(folder: Path, *arguments: str) -> Any:
    done = run(folder, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_everything_is_listed_with_what_was_noted(tmp_path: Path) -> None:
    about = {"about": "3 files", "cost_tokens": 21, "model": "org/m", "tokens_per_s": 70.5}
    keep(tmp_path, "first", HERE, numbers=range(2), note=about)
    held = keep(tmp_path, "second", THERE, numbers=range(1), close=False)
    found = {each["model"]: each for each in asked(tmp_path, "ls")}
    held.close()
    assert set(found) == {"org/m", ""}
    first, second = found["org/m"], found[""]
    assert (first["in_use"], first["tokens_per_s"], len(first["states"])) == (False, 70.5, 2)
    assert (second["in_use"], second["tokens_per_s"], len(second["states"])) == (True, 0.0, 1)
    state = next(each for each in first["states"] if each["key"] == chain_of("first", 0).tip.hex())
    nbytes = file_of(tmp_path, "first", 0).stat().st_size
    age_s = state.pop("age_s")
    assert 0 <= age_s < 600
    assert state == {
        "key": chain_of("first", 0).tip.hex(),
        "tier": "disk",
        "kind": "hot",
        "tokens": 28,
        "cost_tokens": 21,
        "nbytes": nbytes,
        "uses": 1,
        "pinned": False,
        "about": "3 files",
        "workspaces": [HERE],
    }
    assert second["states"][0]["cost_tokens"] == 28  # not noted: all that it has read


def test_the_answers_are_those_of_the_protocol(tmp_path: Path) -> None:
    keep(tmp_path, "first", HERE, numbers=range(1))
    file_of(tmp_path, "first", 0).write_bytes(b"nonsense")
    (model,) = asked(tmp_path, "ls")
    verified = asked(tmp_path, "verify")
    fields = {kind: set(kind.__struct_fields__) for kind in (ModelOnDisk, DamagedState, VerifyReport, PurgeReport)}
    assert (set(model), set(model["damaged"][0])) == (fields[ModelOnDisk], fields[DamagedState])
    assert set(verified) == fields[VerifyReport]
    assert set(asked(tmp_path, "purge", "--all")) == fields[PurgeReport]
    keep(tmp_path, "first", HERE, numbers=range(1))
    assert set(asked(tmp_path, "ls")[0]["states"][0]) == set(KeptState.__struct_fields__)


@pytest.mark.parametrize(
    "note",
    [
        {"cost_tokens": "many", "about": 3, "model": None, "tokens_per_s": "fast"},
        {"cost_tokens": 10**400},
        {"cost_tokens": -1, "tokens_per_s": -1.0},
        {},
    ],
    ids=["other types", "too large a number", "too small a number", "nothing"],
)
def test_a_note_of_another_version_is_no_trouble(tmp_path: Path, note: dict[str, Any]) -> None:
    keep(tmp_path, "first", HERE, numbers=range(1), note=note)
    (model,) = asked(tmp_path, "ls")
    (state,) = model["states"]
    assert (model["model"], model["tokens_per_s"], state["cost_tokens"], state["about"]) == ("", 0.0, 28, "")


def test_damage_is_found_named_and_removed_on_request(tmp_path: Path) -> None:
    keep(tmp_path, "first", HERE, numbers=range(3))
    flipped, cut = file_of(tmp_path, "first", 0), file_of(tmp_path, "first", 1)
    flipped.write_bytes(flipped.read_bytes()[:-1] + bytes([flipped.read_bytes()[-1] ^ 1]))
    cut.write_bytes(cut.read_bytes()[:-1])
    (model,) = asked(tmp_path, "ls")  # which reads headers only
    assert ([each["path"] for each in model["damaged"]], len(model["states"])) == ([str(cut)], 2)
    report = asked(tmp_path, "verify")
    assert (report["states"], report["removed"]) == (3, 0)
    assert report["nbytes"] == sum(file_of(tmp_path, "first", n).stat().st_size for n in range(3))
    assert {each["path"] for each in report["damaged"]} == {str(flipped), str(cut)}
    assert all(each["why"] and "\n" not in each["why"] for each in report["damaged"])
    report = asked(tmp_path, "verify", "--remove")
    assert (len(report["damaged"]), report["removed"]) == (2, 2)
    assert not flipped.exists() and not cut.exists() and file_of(tmp_path, "first", 2).exists()
    assert asked(tmp_path, "verify")["damaged"] == []


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--workspace", HERE], {("first", 1), ("second", 1)}),
        (["--workspace", HERE, "--workspace", THERE], set()),
        (["--workspace", "/home/me"], {("first", 0), ("first", 1), ("second", 0), ("second", 1)}),
        (["--all"], set()),
    ],
)
def test_purging(tmp_path: Path, arguments: list[str], left: set[tuple[str, int]]) -> None:
    files = {}
    for model in ("first", "second"):
        keep(tmp_path, model, HERE, numbers=range(1))
        keep(tmp_path, model, THERE, numbers=range(1, 2))
        files |= {(model, number): file_of(tmp_path, model, number) for number in range(2)}
    nbytes = {name: file.stat().st_size for name, file in files.items()}
    gone = files.keys() - left
    report = asked(tmp_path, "purge", *arguments)
    assert report == {"states": len(gone), "nbytes": sum(nbytes[name] for name in gone)}
    assert {name for name, file in files.items() if file.exists()} == left
    assert asked(tmp_path, "purge", *arguments) == {"states": 0, "nbytes": 0}
    words = [word.encode() for word in (HERE, THERE) if word in arguments or "--all" in arguments]
    texts = [file.read_bytes() for file in (tmp_path / STATES).rglob("*") if file.is_file()]
    assert not any(json.dumps(word.decode()).encode() in text for word in words for text in texts)


def test_a_running_daemon_notices(tmp_path: Path) -> None:
    tier = keep(tmp_path, "first", HERE, numbers=range(2), close=False)
    assert asked(tmp_path, "purge", "--workspace", HERE)["states"] == 2
    chain = chain_of("first", 0)
    assert tier.read(chain, len(chain.slices)) is None
    tier.close()


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    assert asked(tmp_path, "ls") == []
    assert asked(tmp_path, "verify") == {"states": 0, "nbytes": 0, "damaged": [], "removed": 0}
    assert asked(tmp_path, "purge", "--all") == {"states": 0, "nbytes": 0}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["ls"], ["verify"], ["purge", "--all"]], ids=" ".join)
def test_an_unsafe_folder_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / STATES).symlink_to(tmp_path / "elsewhere")
    done = run(tmp_path, *arguments)
    expected = f"{tmp_path / STATES} is a link or a file, expected a folder of ours\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_it_loads_no_torch(tmp_path: Path) -> None:
    keep(tmp_path, "first", HERE, numbers=range(1))
    code = (
        "import sys; from daemon.cache_command import main; "
        "code = main(['ls']) + main(['verify']) + main(['purge', '--all']); "
        "sys.exit(code or int(any(name in sys.modules for name in ('torch', 'transformers', 'uvicorn'))))"
    )
    environment = os.environ | {"CODESTRAL_LSP_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-I", "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
