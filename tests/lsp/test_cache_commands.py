"""`codestral-lsp cache`: what running daemons and the disk keep, shown once and removed everywhere. Stub daemons, and real states on a real disk tier."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lsp_place import GARBAGE, Place, answering

from cache.chain import Chain
from cache.disk import DiskTier
from daemon.protocol import CacheReport, DamagedState, KeptState, TierReport
from lsp.__main__ import run
from lsp.cache_commands import workspaces_of
from lsp.cache_tables import Held, StateRow, ls_lines, size, stats_lines
from tests.cache.disk_parts import make_arrays, make_chain

ELSEWHERE = "/home/me/elsewhere"


def disk(place: Place) -> dict[str, str]:
    """The environment that says where states lie."""
    return {"CODESTRAL_LSP_CACHE": str(place.root / "cache")}


def keep(place: Place, fingerprint: str, workspace: str, number: int = 0, **note: Any) -> str:
    """Writes a state as a daemon would, and returns its key."""
    root = Chain.start(fingerprint.encode())
    folder = place.root / "cache" / "states"
    tier = DiskTier(folder, fingerprint=root.root.hex(), root=root.root, budget_bytes=10**9)
    chain = root
    for part in make_chain(number).slices:
        chain = chain.extend(part.kind, [(part.tokens, part.keep)])
    assert tier.own(workspace, [chain.tip])
    assert tier.write(chain, len(chain.slices), make_arrays(number), {"about": "2 files", "cost_tokens": 20} | note)
    tier.close()
    return chain.tip.hex()


def files(place: Place) -> set[str]:
    """The keys of the states on disk."""
    return {path.stem for path in (place.root / "cache").rglob("*.safetensors")}


def state(key: str, tier: str, **changes: Any) -> KeptState:
    values = {
        "key": key,
        "tier": tier,
        "kind": "base",
        "tokens": 2000,
        "cost_tokens": 1500,
        "nbytes": 1_000_000,
        "uses": 3,
        "pinned": False,
        "about": "7 files",
        "workspaces": [ELSEWHERE],
        "age_s": 120.0,
    }
    return KeptState(**(values | changes))


def report(*states: KeptState, **changes: Any) -> str:
    """What a stub daemon says that it keeps."""
    tiers = [
        TierReport(
            tier=tier,
            states=sum(each.tier == tier for each in states),
            nbytes=sum(each.nbytes for each in states if each.tier == tier),
            budget_bytes=10_000_000,
            hits=9,
            misses=3,
            evictions=1,
        )
        for tier in ("memory", "disk")
    ]
    values = {"model": "stub", "tiers": tiers, "states": list(states), "tokens_per_s": 100.0, "folder": "/states"}
    return msgspec.json.encode(CacheReport(**(values | changes))).decode()


def start(place: Place, *models: str, **env: str) -> None:
    for model in models:
        done = place.run("complete", "b.py:2:5", "--model", model, **env)
        assert done.returncode == 0, done.stderr


def listed(place: Place, *arguments: str) -> list[dict[str, Any]]:
    done = place.run("cache", *arguments, "--json", **disk(place))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["models"]


def test_what_a_daemon_and_the_disk_both_name_is_shown_once(place: Place) -> None:
    shared, other = keep(place, "stub", ELSEWHERE), keep(place, "other", ELSEWHERE, model="org/m", tokens_per_s=10.0)
    kept = report(
        state(shared, "memory", pinned=True, nbytes=2_000_000),
        state(shared, "disk", uses=1, cost_tokens=9, age_s=60.0, about="2000 tokens"),
        state("aa" * 32, "memory", about="src/x.py", kind="head", cost_tokens=50),
    )
    start(place, "bundled", STUB_CACHE=kept)
    running, on_disk = listed(place, "ls")
    assert (running["model"], on_disk["model"]) == ("stub", "org/m")
    pid = json.loads(place.run("status", "--json").stdout)["pid"]
    assert (running["pid"], on_disk["pid"], running["folder"]) == (pid, None, "/states")
    assert [each["key"] for each in running["states"]] == [shared, "aa" * 32]
    assert running["states"][0] == {
        "key": shared,
        "kind": "base",
        "about": "7 files",
        "tokens": 2000,
        "cost_tokens": 1500,
        "recompute_s": 15.0,
        "nbytes": {"memory": 2_000_000, "disk": 1_000_000},
        "uses": 4,
        "pinned": True,
        "workspaces": [ELSEWHERE],
        "age_s": 60.0,
    }
    (only,) = on_disk["states"]
    assert (only["key"], only["recompute_s"], list(only["nbytes"])) == (other, 2.0, ["disk"])
    assert (on_disk["is_in_use"], only["workspaces"]) == (False, [ELSEWHERE])


def test_tables_for_people(place: Place) -> None:
    key = keep(place, "other", ELSEWHERE)
    start(place, "bundled", STUB_CACHE=report(state("aa" * 32, "memory"), not_persisting="no space left"))
    pid = json.loads(place.run("status", "--json").stdout)["pid"]
    done = place.run("cache", "ls", **disk(place))
    nbytes = size(next((place.root / "cache").rglob(f"{key}*")).stat().st_size)
    assert (done.returncode, done.stderr) == (0, "")
    assert [re.sub(r" [0-9]+ s /", " 0 s /", " ".join(line.split())) for line in done.stdout.splitlines()] == [
        f"stub, daemon with pid {pid}",
        "covers tokens memory disk to make again used age workspace",
        f"base 7 files 2000 1.0 MB - 15 s 3 2 min {ELSEWHERE}",
        "",
        "a model that is not noted, no daemon runs",
        "covers tokens memory disk to make again used age workspace",
        f"hot 2 files 28 - {nbytes} 20 tokens 1 0 s {ELSEWHERE}",
    ]
    done = place.run("cache", "stats", **disk(place))
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        f"stub, daemon with pid {pid}",
        "memory 1 state, 1.0 MB of 10.0 MB (10 %), found 9 of 12 times (75 %), 1 removed to make room",
        "disk 0 states, 0.0 kB of 10.0 MB (0 %), found 9 of 12 times (75 %), 1 removed to make room",
        "nothing is written to disk at present: no space left",
        "",
        "a model that is not noted, no daemon runs",
        f"disk 1 state, {nbytes}",
    ]


def test_stats_as_json_has_no_states(place: Place) -> None:
    keep(place, "other", ELSEWHERE)
    (model,) = listed(place, "stats")
    assert "states" not in model and model["tiers"][0]["states"] == 1


def test_one_model(place: Place) -> None:
    """A daemon's by its socket, on disk by what was noted. What is not noted may be another's, and that is said."""
    keys = [keep(place, name, ELSEWHERE, model=name) for name in ("bundled", "org/m")]
    keep(place, "third", ELSEWHERE)
    start(place, "bundled", "org/m", STUB_CACHE=report(state("aa" * 32, "memory")))
    done = place.run("cache", "ls", "--model", "org/m", "--json", **disk(place))
    running, on_disk = json.loads(done.stdout)["models"]
    assert (running["model"], on_disk["model"]) == ("org/m", "org/m")
    assert [each["key"] for each in on_disk["states"]] == keys[1:]
    assert done.stderr == "1 model on disk left out, not noted which; without --model they are shown\n"


def test_nothing(place: Place) -> None:
    for command in ("ls", "stats"):
        done = place.run("cache", command, **disk(place))
        assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is kept\n", "")
        assert listed(place, command) == []
    done = place.run("cache", "verify", **disk(place))
    assert done.stdout == "0 states on disk, 0.0 kB: all whole and right\n"
    assert not (place.root / "cache").exists()


def test_daemons_that_cannot_be_asked_are_named_and_the_others_shown(place: Place) -> None:
    start(place, "org/m", STUB_CACHE_FAILS="as ordered")
    start(place, "bundled", STUB_CACHE=report(state("aa" * 32, "memory")))
    pids = {event["model"]: event["pid"] for event in place.events("serving")}
    path = place.socket.parent / "other.sock"
    with socket.socket(socket.AF_UNIX) as killed:  # what a killed daemon leaves behind
        killed.bind(str(place.socket.parent / "killed-1234.sock"))
    with answering(path, GARBAGE):
        done = place.run("cache", "ls", "--json", **disk(place))
    assert [model["model"] for model in json.loads(done.stdout)["models"]] == ["stub"]
    assert sorted(done.stderr.splitlines()) == sorted(
        [
            f"{path} is in use by something that is not codestral-lsp",
            f"the daemon with pid {pids['org/m']}: as ordered",
        ]
    )


def test_damage(place: Place) -> None:
    keep(place, "other", ELSEWHERE)
    key = keep(place, "other", ELSEWHERE, 1)
    (path,) = (place.root / "cache").rglob(f"{key}*")
    path.write_bytes(path.read_bytes()[:-1])
    first, rest = place.run("cache", "ls", **disk(place)).stdout.split("  damaged: ")
    assert first.count("\n") == 3 and rest.startswith(f"{path}, ")
    done = place.run("cache", "verify", **disk(place))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith(": 1 damaged")
    assert done.stdout.splitlines()[1].startswith(f"  damaged: {path}, ")
    assert done.stderr == (
        "codestral-lsp: 1 damaged state; --remove removes what is damaged, it is made again when needed\n"
    )
    assert path.exists()
    done = place.run("cache", "verify", "--remove", "--json", **disk(place))
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (found["states"], found["removed"], found["damaged"][0]["path"]) == (2, 1, str(path))
    assert not path.exists() and len(files(place)) == 1


def test_purging_a_workspace(place: Place) -> None:
    """Every daemon, then the disk for what no daemon runs; a folder in a repository stands for all of it, and for repositories in it."""
    inner = place.repository / "vendor" / "lib"
    keep(place, "first", str(place.repository))
    keep(place, "second", str(inner), 1)
    stays = keep(place, "second", ELSEWHERE, 2)
    start(place, "bundled", "org/m", STUB_CACHE=report(state("aa" * 32, "memory"), state("bb" * 32, "disk")))
    nbytes = 2 * 2_000_000 + sum(
        path.stat().st_size for path in (place.root / "cache").rglob("*.safetensors") if path.stem != stays
    )
    (place.repository / "vendor").mkdir()
    done = place.run("cache", "purge", "--workspace", "vendor", **disk(place))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"removed 6 states of vendor, {size(nbytes)}\n"
    assert files(place) == {stays}
    asked = {(event["model"], event["workspace"]) for event in place.events("purge")}
    names = {str(place.repository), str(place.repository / "vendor"), str(inner)}
    assert asked == {(model, name) for model in ("bundled", "org/m") for name in names}
    done = place.run("cache", "purge", "--workspace", "vendor", **disk(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing of vendor was kept\n", "")


def test_purging_everything(place: Place) -> None:
    keep(place, "first", str(place.repository))
    keep(place, "second", ELSEWHERE)
    start(place, "bundled", STUB_CACHE=report(state("aa" * 32, "memory")))
    done = place.run("cache", "purge", "--all", "--json", **disk(place))
    found = json.loads(done.stdout)
    assert (found["states"], found["workspaces"], found["daemons"], done.stderr) == (3, None, 1, "")
    assert files(place) == set()
    assert [event["workspace"] for event in place.events("purge")] == [None]


def test_memory_that_cannot_be_purged_is_a_failure_and_the_disk_is_purged_all_the_same(place: Place) -> None:
    keep(place, "first", ELSEWHERE)
    start(place, "bundled")
    place.run("stop")
    with answering(place.socket, old_daemon()):
        done = place.run("cache", "purge", "--all", **disk(place))
    assert (done.returncode, files(place)) == (1, set())
    assert done.stderr == (
        "codestral-lsp: what this daemon has in its memory is still there: the daemon with pid 77 is of another version, 0.1; "
        "codestral-lsp stop --all ends it\n"
    )


def old_daemon() -> bytes:
    body = b'{"service": "codestral-lsp", "protocol": 1, "pid": 77, "version": "0.1"}'
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def test_an_unsafe_folder_of_states_is_one_line(place: Place) -> None:
    (place.root / "cache").mkdir()
    (place.root / "cache" / "states").symlink_to(place.root)
    for command in (["ls"], ["verify"], ["purge", "--all"]):
        done = place.run("cache", *command, **disk(place))
        said = f"{place.root}/cache/states is a link or a file, expected a folder of ours"
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            f"codestral-lsp: the states on disk: {said}\n",
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["purge"], "expected --workspace PATH, or --all for everything (see codestral-lsp cache purge --help)"),
        (
            ["purge", "--all", "--workspace", "."],
            "takes either --workspace PATH or --all (see codestral-lsp cache purge --help)",
        ),
        ([], "Missing command. (see codestral-lsp cache --help)"),
        (["lss"], "No such command 'lss'. Did you mean 'ls'? (see codestral-lsp cache --help)"),
        (["ls", "--precision", "int3"], None),
    ],
)
def test_what_is_asked_wrongly(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str | None) -> None:
    assert run(["cache", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said is None or err == f"codestral-lsp: {said}\n"


def test_which_workspaces_a_path_stands_for(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    (root / "repo" / ".git").mkdir(parents=True)
    (root / "repo" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (root / "repo" / "src").mkdir()
    (root / "link").symlink_to(root / "repo")
    known = [[str(root / "repo-2"), str(root / "repo" / "src" / "inner")], [str(root)], ["relative"], []]

    def check(path: Path, expected: set[str]) -> None:
        found = {os.path.relpath(name, root) for name in workspaces_of(path, known)}
        assert found == expected, path

    check(root / "repo", {"repo", "repo/src/inner", "."})
    check(root / "repo" / "src", {"repo", "repo/src", "repo/src/inner", "."})
    check(root / "link", {"link", "repo", "repo/src/inner", "."})
    check(root / "gone", {"gone", "."})
    check(root / "repo-2", {"repo-2", "."})


ROW = StateRow(
    key="aa",
    kind="head",
    about="a/very/long/path/that/goes/on/and/on/until/it/ends/in/name.py",
    tokens=10,
    cost_tokens=5,
    recompute_s=0.25,
    nbytes={"memory": 5},
    uses=1,
    pinned=True,
    workspaces=["/a", "/b\x1b[2J"],
    age_s=7200.0,
)


def test_a_row_is_safe_and_short() -> None:
    tiers = [TierReport(tier="memory", states=3, nbytes=15, budget_bytes=0, hits=0, misses=0, evictions=0)]
    held = Held(model="m\x1b", precision="int8", pid=7, tiers=tiers, states=[ROW])
    lines = ls_lines(held)
    assert lines[0] == "m\ufffd in int8, daemon with pid 7"
    assert lines[2].split("  ")[1:3] == ["head*", ".../that/goes/on/and/on/until/it/ends/in/name.py"]
    assert lines[2].endswith("250 ms     1  2.0 h  /a, /b\ufffd[2J")
    assert lines[3:] == ["  * in use by a document that is open", "  and 2 more, which take less to make again"]
    assert stats_lines(held)[1] == "  memory  3 states, 0.0 kB of 0.0 kB, found 0 of 0 times, 0 removed to make room"


def test_damage_and_daemons_without_a_name() -> None:
    damaged = [DamagedState(path="/x\n", nbytes=10, why="cut\x1b")]
    held = Held(model="", is_in_use=True, tiers=[], states=[], damaged=damaged)
    assert ls_lines(held) == [
        "a model that is not noted, in use by a daemon that was not asked",
        "  no state",
        "  damaged: /x\n, 0.0 kB: cut\ufffd",
    ]


@pytest.mark.parametrize(
    ("n_bytes", "said"), [(0, "0.0 kB"), (99_900, "99.9 kB"), (100_000, "0.1 MB"), (134_217_728, "134.2 MB"), (16 << 30, "17.2 GB")]
)  # fmt: skip
def test_sizes(n_bytes: int, said: str) -> None:
    assert size(n_bytes) == said


def test_no_torch_and_a_quick_start() -> None:
    code = "import sys, lsp.cache_commands; sys.exit(sum(name in sys.modules for name in ('torch', 'numpy', 'cache')))"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0
