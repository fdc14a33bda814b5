"""Whose states are whose: noted before they are written, whatever breaks, and purged for good; for one model and for all without a model."""

import json
import os
from pathlib import Path

import pytest

from cache.owners import OWNERS, file_name
from cache.tiers import all_tiers, purge_all, verify
from tests.cache.disk_parts import (
    FINGERPRINT,
    ROOT,
    Clock,
    checked,
    file_of,
    holds,
    make_arrays,
    make_chain,
    make_tier,
    put,
)

KEYS = [make_chain(number).tip for number in range(6)]
WORKSPACES = ["/home/a", "/home/b c/ä", "/home/with\nbreak", "/home/\udcff", "/home/" + "x" * 5000]


def owner_file(folder: Path, workspace: str, fingerprint: str = FINGERPRINT) -> Path:
    return folder / "v1" / fingerprint[:16] / OWNERS / file_name(workspace)


def filled(folder: Path, **settings: object):
    """States 0 and 1 are a's, 1 and 2 b's, 3 nobody's."""
    tier = make_tier(folder, **settings)
    assert tier.own("/home/a", KEYS[:2]) and tier.own("/home/b", KEYS[1:3])
    for number in range(4):
        put(tier, number, cost_tokens=100)
    return tier


def kept(tier) -> list[int]:
    return [number for number in range(6) if holds(tier, number)]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("workspace", "left"), [("/home/a", [2, 3]), ("/home/b", [0, 3]), ("/home/c", [0, 1, 2, 3]), (None, [])]
)
def test_a_purge_removes_what_is_the_workspace_s(
    workspace: str | None, left: list[int], restarted: bool, tmp_path: Path
) -> None:
    tier = filled(tmp_path)
    size = tier.nbytes // 4
    if restarted:
        tier.close()
        tier = make_tier(tmp_path)
    assert tier.purge(workspace) == (4 - len(left), (4 - len(left)) * size)
    assert kept(tier) == left
    checked(tier)
    gone = [path for path in ("/home/a", "/home/b") if workspace in (None, path)]
    assert [path for path in ("/home/a", "/home/b") if not owner_file(tmp_path, path).exists()] == gone
    tier.close()
    assert kept(make_tier(tmp_path)) == left


def test_entries_say_whose_they_are(tmp_path: Path) -> None:
    tier = filled(tmp_path)
    expected = {KEYS[0]: ("/home/a",), KEYS[1]: ("/home/a", "/home/b"), KEYS[2]: ("/home/b",), KEYS[3]: ()}
    assert {entry.key: entry.workspaces for entry in tier.entries()} == expected
    [found] = all_tiers(tmp_path)
    assert {entry.key: entry.workspaces for entry in found.entries} == expected and found.in_use
    tier.close()
    assert {entry.key: entry.workspaces for entry in make_tier(tmp_path).entries()} == expected


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_any_path_is_a_workspace(workspace: str, tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    assert tier.own(workspace, KEYS[:1])
    put(tier)
    tier.close()
    tier = make_tier(tmp_path)
    assert tier.entries()[0].workspaces == (workspace,)
    assert tier.purge(workspace)[0] == 1 and len(tier) == 0


def test_what_is_noted_is_noted_once(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    for _ in range(3):
        assert tier.own("/home/a", [*KEYS, *KEYS])
    lines = owner_file(tmp_path, "/home/a").read_text().split("\n")
    assert json.loads(lines[0]) == "/home/a" and lines[1:] == [*(key.hex() for key in KEYS), ""]


@pytest.mark.parametrize("lost", [1, 2, 60, 64, 65, 66, 100])
def test_a_torn_end_does_no_harm(lost: int, tmp_path: Path) -> None:
    """Of two keys the end is cut off, as by a crash: what comes after is whole."""
    tier = make_tier(tmp_path)
    assert tier.own("/home/a", KEYS[:2])
    path = owner_file(tmp_path, "/home/a")
    os.truncate(path, path.stat().st_size - lost)
    assert tier.own("/home/a", KEYS[:3])
    for number in range(3):
        put(tier, number)
    tier.close()
    tier = make_tier(tmp_path)
    assert tier.purge("/home/a")[0] == 3


@pytest.mark.parametrize("length", range(len('"/home/a"\n')))
def test_a_torn_first_line_does_no_harm(length: int, tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    assert tier.own("/home/a", [])
    os.truncate(owner_file(tmp_path, "/home/a"), length)
    tier.close()
    tier = make_tier(tmp_path)
    assert tier.own("/home/a", KEYS[:1])
    put(tier)
    tier.close()
    assert make_tier(tmp_path).purge("/home/a")[0] == 1


def test_a_state_whose_workspace_cannot_be_noted_is_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, clock=clock)
    assert tier.own("/home/a", KEYS[:1])
    path = owner_file(tmp_path, "/home/a")
    path.unlink()
    path.mkdir()
    assert not tier.own("/home/a", KEYS[1:2]) and len(caplog.records) == 1
    clock.now += 10_000
    assert not tier.write(make_chain(1), 4, make_arrays(1), {}) and len(tier) == 0
    path.rmdir()
    assert tier.own("/home/a", KEYS[1:2])
    put(tier, 1)


def test_owners_of_what_is_gone_are_left_out_at_the_next_start(tmp_path: Path) -> None:
    tier = filled(tmp_path)
    assert tier.own("/home/a", [bytes([number]) * 32 for number in range(50)])
    tier.close()
    before = owner_file(tmp_path, "/home/b").stat().st_ino
    tier = make_tier(tmp_path)
    lines = owner_file(tmp_path, "/home/a").read_text().splitlines()
    assert json.loads(lines[0]) == "/home/a" and set(lines[1:]) == {key.hex() for key in KEYS[:2]}
    assert owner_file(tmp_path, "/home/b").stat().st_ino == before  # nothing to gain
    assert tier.own("/home/a", KEYS[:5])
    tier.close()
    assert make_tier(tmp_path).purge("/home/a")[0] == 4


def test_two_processes_note_in_one_file(tmp_path: Path) -> None:
    first, second = make_tier(tmp_path), make_tier(tmp_path)
    assert first.own("/home/a", KEYS[:2]) and second.own("/home/a", KEYS[1:4]) and first.own("/home/a", KEYS[3:5])
    for number in range(6):
        put(first, number)
    assert first.purge("/home/a")[0] == 5 and kept(second) == [5]
    assert second.own("/home/a", KEYS[5:])  # its file was removed: it is noted anew
    assert first.purge("/home/a")[0] == 1


def test_all_models_without_a_model(tmp_path: Path) -> None:
    other = make_tier(tmp_path, fingerprint="cd" * 32)
    assert other.own("/home/a", KEYS[:1])
    put(other, 0), put(other, 4)
    other.close()
    tier = filled(tmp_path)
    assert [(found.group, found.in_use, len(found.entries)) for found in all_tiers(tmp_path)] == [
        (FINGERPRINT[:16], True, 4),
        ("cd" * 8, False, 2),
    ]
    assert sum(found.nbytes for found in all_tiers(tmp_path)) == tier.nbytes + other.nbytes
    assert len(list(verify(tmp_path))) == 6 and all(verdict.why is None for verdict in verify(tmp_path))
    assert purge_all(tmp_path, "/home/a")[0] == 3
    assert kept(tier) == [2, 3]
    assert tier.purge("/home/a") == (0, 0)
    half = file_of(tmp_path, KEYS[2]).parent / ".x.0.tmp"
    half.write_bytes(b"half a state")
    assert purge_all(tmp_path, None)[0] == 3 and not half.exists()
    assert kept(tier) == [] and all(found.entries == [] for found in all_tiers(tmp_path))
    assert not list(tmp_path.glob("v1/*/owners/*"))


def test_verify_names_the_damaged_and_removes_them_on_request(tmp_path: Path) -> None:
    tier = filled(tmp_path)
    tier.close()
    bad = [file_of(tmp_path, KEYS[1]), file_of(tmp_path, KEYS[2])]
    data = bytearray(bad[0].read_bytes())
    data[-1] ^= 1  # in a tensor: the header is right
    bad[0].write_bytes(data)
    bad[1].write_bytes(b"")
    [found] = all_tiers(tmp_path)
    assert len(found.entries) == 3 and [verdict.path for verdict in found.damaged] == [bad[1]]
    for remove in (False, True):
        verdicts = list(verify(tmp_path, remove=remove))
        assert {verdict.path for verdict in verdicts if verdict.why} == set(bad) and len(verdicts) == 4
        assert all(("removed" in verdict.why) == remove for verdict in verdicts if verdict.why)
    assert [verdict.why for verdict in verify(tmp_path)] == [None, None]
    assert kept(make_tier(tmp_path)) == [0, 3]


def test_nothing_there_is_nothing(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert all_tiers(nowhere) == [] and list(verify(nowhere)) == [] and purge_all(nowhere, None) == (0, 0)
    assert not nowhere.exists()


def test_a_folder_that_is_not_safe_is_an_error_in_one_line(tmp_path: Path) -> None:
    put(make_tier(tmp_path / "states"))
    (tmp_path / "link").symlink_to("states")
    for look in (all_tiers, lambda folder: list(verify(folder)), lambda folder: purge_all(folder, None)):
        with pytest.raises(OSError, match="expected a folder of ours"):
            look(tmp_path / "link")
    assert make_tier(tmp_path / "states", root=ROOT.root).keys() == [KEYS[0]]
