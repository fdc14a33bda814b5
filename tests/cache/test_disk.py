"""The disk tier where nothing is broken: what is kept is found again, by the next process too, within its budgets, the least worth going first."""

import stat
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from cache.disk import DiskTier
from cache.folder import TAG
from tests.cache.disk_parts import (
    FINGERPRINT,
    LOGGER,
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

HOUR = 3600.0


@pytest.fixture
def size(tmp_path: Path) -> int:
    """Bytes of one small state's file; that of another number is as long."""
    tier = make_tier(tmp_path / "of-one")
    put(tier, 0, cost_tokens=100)
    return tier.nbytes


def test_a_state_comes_back_here_and_in_the_next_process(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    chain = put(tier, cost_tokens=28, about="all")
    assert holds(tier) and (tier.hits, tier.misses) == (1, 0)
    tier.close()
    tier = make_tier(tmp_path)
    checked(tier)
    assert chain.tip in tier and len(tier) == 1 and holds(tier)
    found = tier.read(chain, len(chain.slices))
    assert found is not None and found.note == {"cost_tokens": 28, "about": "all"} == tier.note(chain.tip)
    assert found.chain.tip == chain.tip and found.nbytes == tier.nbytes
    stored = tier.read_chain(chain.tip)
    assert stored is not None and [part.key for part in stored.slices] == [part.key for part in chain.slices]
    [entry] = tier.entries()
    assert (entry.key, entry.kind, entry.n_tokens, entry.nbytes) == (chain.tip, "hot", 28, tier.nbytes)


def test_what_is_not_there_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tier = make_tier(tmp_path)
    chain = put(tier)
    other = make_chain(1)
    assert tier.read(chain, 1) is None and tier.read(other, 4) is None and (tier.hits, tier.misses) == (0, 2)
    assert tier.note(other.tip) is None and tier.read_chain(other.tip) is None and other.tip not in tier
    tier.touch(other.tip)
    assert tier.remove([other.tip]) == (0, 0)
    assert not caplog.records


def test_states_of_one_chain_lie_beside_each_other(tmp_path: Path) -> None:
    tier, chain = make_tier(tmp_path), make_chain()
    for length in range(1, 5):
        assert tier.write(chain, length, make_arrays(length), {})
    checked(tier)
    assert set(tier.keys(kind="base")) == {part.key for part in chain.slices[:2]} and len(tier.keys(kind="head")) == 0
    for length in range(1, 5):
        snapshot = tier.read(chain, length)
        assert snapshot is not None and snapshot.arrays["ssm"].tobytes() == make_arrays(length)["ssm"].tobytes()


def test_a_chain_from_another_root_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    tier = make_tier(tmp_path, root=bytes(32))
    with pytest.raises(ValueError, match="expected one from"):
        tier.write(make_chain(), 1, make_arrays(), {})


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    tier = make_tier(tmp_path / "deep" / "states")
    put(tier)
    assert tier.own("/home/a", [make_chain().tip])
    put(tier, 1)
    found = [tmp_path / "deep" / "states", *(tmp_path / "deep" / "states").rglob("*")]
    assert len(found) >= 9
    for path in found:
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert (tmp_path / "deep" / "states" / TAG).read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")


def test_the_last_used_comes_first_and_the_next_process_knows(tmp_path: Path) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, clock=clock)
    keys = []
    for number in range(3):
        clock.now += HOUR
        keys.append(put(tier, number).tip)
    clock.now += HOUR
    assert holds(tier, 1)
    clock.now += HOUR
    tier.touch(keys[0])
    order = [keys[0], keys[1], keys[2]]
    assert tier.keys() == order and [entry.uses for entry in tier.entries()] == [2, 2, 1]
    tier.close()
    assert make_tier(tmp_path, clock=clock).keys() == order


def test_the_least_worth_goes_when_there_is_no_room(tmp_path: Path, size: int) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, budget_bytes=3 * size, clock=clock)
    put(tier, 0, cost_tokens=900)  # dear
    put(tier, 1, cost_tokens=100)
    put(tier, 2, cost_tokens=200)
    for _ in range(4):
        tier.touch(make_chain(1).tip)  # cheap, but often used
    clock.now += HOUR
    put(tier, 3, cost_tokens=100)
    checked(tier)
    assert [holds(tier, number) for number in range(4)] == [True, True, False, True] and tier.evictions == 1


def test_what_was_just_used_goes_last(tmp_path: Path, size: int) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, budget_bytes=2 * size, clock=clock)
    put(tier, 0, cost_tokens=900)
    clock.now += HOUR
    put(tier, 1, cost_tokens=1)
    put(tier, 2, cost_tokens=100)
    assert [holds(tier, number) for number in range(3)] == [False, True, True]
    put(tier, 3, cost_tokens=100)  # all were just used: then worth decides
    assert [holds(tier, number) for number in range(4)] == [False, False, True, True]
    checked(tier)


def test_age_makes_the_dear_cheap(tmp_path: Path, size: int) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, budget_bytes=2 * size, clock=clock)
    put(tier, 0, cost_tokens=900)
    clock.now += 100 * HOUR
    put(tier, 1, cost_tokens=100)
    clock.now += HOUR
    put(tier, 2, cost_tokens=100)
    assert [holds(tier, number) for number in range(3)] == [False, True, True]


def test_a_budget_smaller_than_one_state(tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    tier = make_tier(tmp_path, budget_bytes=size - 1)
    for _ in range(3):
        assert not tier.write(make_chain(), 4, make_arrays(), {"cost_tokens": 100})
    assert len(tier) == 0 and not holds(tier)
    assert [record.name for record in caplog.records] == [LOGGER]
    assert tier.why_not_writing is not None and "more than" in tier.why_not_writing
    checked(tier)


def test_a_smaller_budget_than_last_time(tmp_path: Path, size: int) -> None:
    tier = make_tier(tmp_path)
    for number in range(5):
        put(tier, number, cost_tokens=100 + number)
    tier.close()
    tier = make_tier(tmp_path, budget_bytes=2 * size)
    checked(tier)
    assert [holds(tier, number) for number in range(5)] == [False, False, False, True, True]
    tier.close()
    assert len(make_tier(tmp_path, budget_bytes=0)) == 0


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free_sizes", "share", "kept"), [(100, 0.1, 5), (36, 0.1, 3), (16, 0.1, 1), (2, 0.1, 0), (8, 0.5, 4)]
)
def test_a_share_of_the_free_space(
    free_sizes: int, share: float, kept: int, tmp_path: Path, size: int, monkeypatch
) -> None:
    """`free_sizes`: free at first, in states; what is written takes from it."""
    tier = make_tier(tmp_path, max_free_share=share)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(0, 0, free_sizes * size - tier.nbytes))
    for number in range(5):
        tier.write(make_chain(number), 4, make_arrays(number), {"cost_tokens": 100})
    assert len(tier) == kept
    checked(tier)


def test_what_is_written_in_a_day_is_capped(tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    settings = {"daily_write_bytes": 2 * size, "clock": clock}
    tier = make_tier(tmp_path, **settings)

    def try_to_write(number: int) -> bool:
        return tier.write(make_chain(number), 4, make_arrays(number), {"cost_tokens": 100})

    assert [try_to_write(number) for number in range(4)] == [True, True, False, False]
    assert tier.why_not_writing is not None and "24 hours" in tier.why_not_writing and len(caplog.records) == 1
    tier.close()
    tier = make_tier(tmp_path, **settings)
    assert not try_to_write(4)  # to be started again gives no more
    clock.now -= 30 * 24 * HOUR
    assert not try_to_write(4)  # nor does a clock that is set back
    clock.now += 25 * HOUR
    assert try_to_write(4) and tier.why_not_writing is None


def test_a_clock_that_is_set_back_breaks_nothing(tmp_path: Path, size: int) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, budget_bytes=2 * size, clock=clock)
    put(tier, 0, cost_tokens=900)
    clock.now -= 1000 * HOUR
    put(tier, 1, cost_tokens=100)
    clock.now += HOUR
    assert holds(tier, 1)
    clock.now += HOUR
    put(tier, 2, cost_tokens=200)  # the first counts as used when the clock was set back, not in the future for ever
    clock.now += HOUR
    assert len(tier) == 2 and holds(tier, 2)
    tier.close()
    clock.now -= 1000 * HOUR
    tier = make_tier(tmp_path, budget_bytes=2 * size, clock=clock)
    checked(tier)
    put(tier, 3, cost_tokens=100)
    assert len(tier) == 2
    checked(tier)


def test_writing_what_is_there_costs_nothing_and_what_is_gone_is_written_again(tmp_path: Path) -> None:
    tier, folder = make_tier(tmp_path), tmp_path
    chain = put(tier)
    path = file_of(folder, chain.tip)
    before = path.stat().st_ino
    put(tier)
    assert path.stat().st_ino == before and tier.entries()[0].uses == 2
    path.unlink()
    put(tier)
    assert holds(tier)
    checked(tier)


def test_states_are_removed(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    sizes = [(put(tier, number), tier.nbytes)[1] for number in range(3)]
    keys = [make_chain(number).tip for number in range(3)]
    assert tier.remove(keys[:2]) == (2, sizes[1])
    assert tier.remove(keys[:2]) == (0, 0)
    checked(tier)
    assert [holds(tier, number) for number in range(3)] == [False, False, True]


def test_what_no_daemon_runs_any_more_goes_first(tmp_path: Path, size: int) -> None:
    idle = DiskTier(tmp_path, fingerprint="cd" * 32, root=ROOT.root, budget_bytes=10**9)
    used = DiskTier(tmp_path, fingerprint="ef" * 32, root=ROOT.root, budget_bytes=10**9)
    for tier in (idle, used):
        put(tier, 0, cost_tokens=100)
        put(tier, 1, cost_tokens=100)
    idle.close()
    tier = make_tier(tmp_path, budget_bytes=3 * size)
    put(tier, 0, cost_tokens=100)
    put(tier, 1, cost_tokens=100)
    assert len(tier) == 2 and tier.evictions == 0
    assert len(list((tmp_path / "v1" / ("cd" * 8)).glob("??/*.safetensors"))) == 1
    put(tier, 2, cost_tokens=100)
    assert len(tier) == 3 and not list((tmp_path / "v1" / ("cd" * 8)).glob("??/*.safetensors"))
    assert holds(used, 0) and holds(used, 1)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    put(tier)
    tier.close()
    base = tmp_path / "v1" / FINGERPRINT[:16]
    strangers = [
        base / "README",
        base / "ab" / "x.safetensors",
        base / "xyz" / ("ab" * 32 + ".safetensors"),
        base / "cd" / ("AB" * 32 + ".safetensors"),
    ]
    strangers.append(base / "00" / ("ab" * 32 + ".safetensors"))  # a key's file in another key's folder
    for path in strangers:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(b"mine")
    tier = make_tier(tmp_path)
    assert len(tier) == 1 and holds(tier)
    assert all(path.read_bytes() == b"mine" for path in strangers)


def test_a_thousand_headers_are_read_in_a_second(tmp_path: Path, monkeypatch) -> None:
    """A bound in processor time; benchmarks/disk_tier.py has the figure."""
    tier = make_tier(tmp_path)
    with monkeypatch.context() as quick:
        quick.setattr("os.fsync", lambda _: None)
        for number in range(1000):
            put(tier, number)
    tier.close()
    start = time.process_time()
    tier = make_tier(tmp_path)
    assert time.process_time() - start < 1
    assert len(tier) == 1000 and holds(tier, 999)
    checked(tier)


def test_reading_and_evicting_at_once(tmp_path: Path, size: int) -> None:
    tier = make_tier(tmp_path, budget_bytes=4 * size)
    stop, wrong, n_read = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            for number in range(8):
                try:
                    n_read[0] += holds(tier, number)
                except BaseException as error:
                    wrong.append(error)
                    return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60):
        put(tier, number % 8, cost_tokens=100)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and n_read[0] > 0 and tier.evictions > 10
    checked(tier)
