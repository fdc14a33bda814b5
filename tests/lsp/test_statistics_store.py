"""The file of the statistics: what is kept how long, what a reset leaves, and what is said of a file that is none."""

from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest

from lsp.counts import Count, Sums, Time
from lsp.statistics_store import KEPT_DAYS, Store, StoreError

DAY = "2026-08-01"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "statistics.sqlite3"


def read(path: Path, since: date = date.min) -> Sums:
    with closing(Store(path)) as store:
        return store.read(since=since)


def one(n: int = 1, *, day: str = DAY) -> Sums:
    return Sums(counts={Count(day, "go", "shown"): n})


def test_what_is_too_old_goes(path: Path) -> None:
    today = date(2026, 8, 1)
    oldest = today - timedelta(days=KEPT_DAYS)
    days = [day.isoformat() for day in (oldest - timedelta(days=1), oldest, today)]
    with closing(Store(path, today=lambda: oldest)) as store:
        for day in days:
            store.add(Sums(counts={Count(day, "go", "shown"): 1}, times={Time(day, "go", "model", 3): 1}))
    with closing(Store(path, today=lambda: today)) as store:
        store.add(one(day=days[2]))
        sums = store.read(since=date.min)
    assert sums.counts == {Count(days[1], "go", "shown"): 1, Count(days[2], "go", "shown"): 2}
    assert {key.day for key in sums.times} == {days[1], days[2]}
    assert read(path, since=today).counts == {Count(days[2], "go", "shown"): 2}


def test_reset(path: Path) -> None:
    with closing(Store(path)) as here, closing(Store(path)) as there:
        there.reset()
        assert not path.exists()
        here.add(one())
        there.reset()
        assert there.read(since=date.min) == Sums()
        here.add(one(n=5))
        assert there.read(since=date.min) == one(n=5)
    path.write_text("no database\n" * 100)
    with closing(Store(path)) as store:
        with pytest.raises(StoreError, match="file is not a database"):
            store.read(since=date.min)
        store.reset()
        assert store.read(since=date.min) == Sums()
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".damaged")] == []


def test_what_two_windows_find_damaged_is_moved_once(path: Path) -> None:
    """The second finds a good file in its place, and adds to it."""
    with closing(Store(path)) as first, closing(Store(path)) as second:
        first.add(one())
        second.add(one())
        first.close()
        second.close()
        path.write_bytes(b"no database\n" * 1000)
        assert (first.add(one()) or "").endswith("counting begins anew")
        assert second.add(one()) is None
        assert second._move_aside() is None
    assert read(path) == one(2)


def test_a_link_in_the_place_of_the_file_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("elsewhere")
    with closing(Store(path)) as store, pytest.raises(StoreError, match="Too many levels of symbolic links"):
        store.add(one())
    assert not (path.parent / "elsewhere").exists()
