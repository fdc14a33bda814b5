"""The disk tier and other processes: killed while they write, beside us on the same store, purging what we are writing."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.folder import LEFTOVER_S
from cache.snapshot_file import Draft
from cache.tiers import purge_all
from tests.cache.disk_parts import FINGERPRINT, checked, file_of, holds, make_arrays, make_chain, make_tier, put

# Writes states one after the other for ever, some of them evicted again; says when it begins.
WRITER = """
import itertools, sys
from pathlib import Path
from tests.cache.disk_parts import *
tier = make_tier(Path(sys.argv[1]), budget_bytes=3_000_000, daily_write_bytes=10**12)
print("writing", flush=True)
for number in itertools.count(int(sys.argv[2])):
    number %= 12
    tier.own("/home/a", [make_chain(number).tip])
    tier.write(make_chain(number), 4, make_arrays(number, n_bytes=400_000), {"cost_tokens": 100})
    assert tier.why_not_writing is None, tier.why_not_writing
    if number % 3 == 0:
        tier.remove(tier.keys()[-1:])
"""
N_BYTES = 400_000


def start(program: str, *arguments: object) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("**/*.tmp"))


def test_whatever_is_there_after_a_kill_is_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed at any moment, again and again: the next process finds whole states only, sweeps the half ones, and goes on."""
    moments, n_found, n_half, round_ = random.Random(5), 0, 0, 0
    while round_ < 12 or (
        round_ < 100 and not (n_half and n_found)
    ):  # a slow machine may take longer to be caught at it
        round_ += 1
        process = start(WRITER, tmp_path, round_)
        time.sleep(moments.uniform(0, 0.08))
        kill(process)
        n_half += len(leftovers(tmp_path))
        tier = make_tier(tmp_path, budget_bytes=3_000_000)
        checked(tier)
        found = [number for number in range(12) if holds(tier, number, n_bytes=N_BYTES)]
        assert len(found) == len(tier)
        n_found += len(found)
        for entry in tier.entries():
            assert entry.workspaces == ("/home/a",)
        tier.close()
    assert not caplog.records
    assert n_found and n_half  # some were killed in the middle of a write


def test_who_comes_second_reads_and_takes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = start(WRITER, tmp_path, 0)
    try:
        tier = make_tier(tmp_path)
        assert tier.why_not_writing is not None and "another daemon writes" in tier.why_not_writing
        deadline, seen = time.monotonic() + 30, set()
        while len(seen) < 6 and time.monotonic() < deadline:
            seen |= {number for number in range(12) if holds(tier, number, n_bytes=N_BYTES)}
            assert not tier.write(make_chain(20), 4, make_arrays(20), {})
        assert len(seen) >= 6  # written by the other after our index was made, and read while it evicts
        assert [record.getMessage() for record in caplog.records] == [tier.why_not_writing]
    finally:
        kill(process)
    put(tier, 20)
    assert tier.why_not_writing is None and holds(tier, 20)
    checked(tier)


def test_two_in_turn_find_what_the_other_wrote(tmp_path: Path) -> None:
    first, second = make_tier(tmp_path), make_tier(tmp_path)
    put(first, 0)
    assert make_chain(0).tip in second and holds(second, 0) and len(second) == 1
    assert not second.write(make_chain(1), 4, make_arrays(1), {})
    first.close()
    put(second, 1)
    checked(second)
    assert holds(first, 1) and not first.write(make_chain(2), 4, make_arrays(2), {})
    first.remove([make_chain(0).tip])
    assert make_chain(0).tip in second and not holds(second, 0) and make_chain(0).tip not in second
    checked(second)


def test_halves_of_who_still_lives_stay(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    chain = put(tier)
    tier.close()
    shard = file_of(tmp_path, chain.tip).parent
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        names = {
            f".a.{living.pid}.tmp": True,
            f".old.{living.pid}.tmp": False,
            f".b.{dead.pid}.tmp": False,
            f".c.{os.getpid()}.tmp": False,
            ".d.99999999999999999999.tmp": False,
            ".e.x.tmp": False,
        }
        for name in names:
            (shard / name).write_bytes(b"half")
        old = time.time() - LEFTOVER_S - 10
        os.utime(shard / f".old.{living.pid}.tmp", (old, old))
        tier = make_tier(tmp_path)
        assert {name: (shard / name).exists() for name in names} == names
        assert living.stdin is not None
        living.stdin.close()
    assert holds(tier)


def test_what_another_process_purges_while_it_is_written_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    tier = make_tier(tmp_path)
    chain = make_chain()
    assert tier.own("/home/a", [chain.tip])
    write = Draft.write

    def purged_meanwhile(draft: Draft, file: int) -> None:
        assert purge_all(tmp_path, "/home/a") == (0, 0)
        write(draft, file)

    with monkeypatch.context() as slow:
        slow.setattr(Draft, "write", purged_meanwhile)
        assert not tier.write(chain, 4, make_arrays(), {})
    assert not holds(tier) and not file_of(tmp_path, chain.tip).exists()
    checked(tier)
    assert tier.own("/home/a", [chain.tip])
    put(tier)
    assert purge_all(tmp_path, "/home/a")[0] == 1 and not holds(tier)


@pytest.mark.parametrize("workspace", ["/home/a", None])
def test_what_is_purged_while_it_is_written_is_not_kept(workspace: str | None, tmp_path: Path, monkeypatch) -> None:
    tier = make_tier(tmp_path)
    chain = make_chain()
    write = Draft.write

    def purged_meanwhile(draft: Draft, file: int) -> None:
        tier.purge(workspace)
        write(draft, file)

    if workspace is not None:
        assert tier.own(workspace, [chain.tip])
    with monkeypatch.context() as slow:
        slow.setattr(Draft, "write", purged_meanwhile)
        assert not tier.write(chain, 4, make_arrays(), {})
    assert not holds(tier)
    checked(tier)
    if workspace is not None:
        assert not tier.write(chain, 4, make_arrays(), {})  # nobody's, so the next purge would miss it
        assert tier.own(workspace, [chain.tip])
    put(tier)


def test_what_another_process_purged_takes_no_room(tmp_path: Path) -> None:
    put(make_tier(tmp_path / "of-one"))
    size = make_tier(tmp_path / "of-one").nbytes
    tier = make_tier(tmp_path / "states", budget_bytes=3 * size)
    for round_ in range(3):
        for number in range(3):
            put(tier, 3 * round_ + number)
        assert purge_all(tmp_path / "states", None)[0] == 3
    for number in range(10, 13):
        put(tier, number)
    assert [holds(tier, number) for number in range(10, 13)] == [True, True, True]
    checked(tier)


def test_the_lock_lies_where_the_states_do(tmp_path: Path) -> None:
    make_tier(tmp_path)
    assert (tmp_path / "v1" / FINGERPRINT[:16] / ".lock").stat().st_size == 0
