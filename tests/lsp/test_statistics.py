"""What is counted, where it lies, and that nothing a disk can do is more than a line in the log. Real SQLite files, real threads and processes."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from lsp import statistics_store
from lsp.counts import Count, Sums, Time, bucket_of, summaries
from lsp.statistics import Statistics
from lsp.statistics_store import Store

PATIENCE_S = 20.0
DAY = "2026-08-01"
NOON = time.mktime((2026, 8, 1, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "statistics.sqlite3"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Statistics]]:
    """A factory of windows that are closed in the end."""
    windows: list[Statistics] = []

    def make(**more: float) -> Statistics:
        options = {"flush_s": 0.01, "retry_s": 0.05, **more}
        windows.append(Statistics(path, now=lambda: NOON, **options))  # type: ignore[arg-type]
        return windows[-1]

    yield make
    for window in windows:
        window.close(PATIENCE_S)


def read(path: Path, since: date = date.min) -> Sums:
    with closing(Store(path)) as store:
        return store.read(since=since)


def counted(path: Path) -> dict[str, int]:
    return {name: n for (_, _, name), n in read(path).counts.items() if n}


def one(name: str = "shown", n: int = 1, *, day: str = DAY, language: str = "go") -> Sums:
    return Sums(counts={Count(day, language, name): n})


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)  # polling a thread's work


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# What is told of suggestions, in order (its id, what happened, characters inserted); and what that comes to.
FATES: list[tuple[list[tuple[str, str, int]], dict[str, int]]] = [
    ([], {}),
    ([("a", "shown", 9)], {"shown": 1, "shown_chars": 9}),
    ([("a", "shown", 9), ("a", "shown", 7)], {"shown": 1, "shown_chars": 9}),
    (
        [("a", "shown", 9), ("a", "accepted", 7)],
        {"shown": 1, "shown_chars": 9, "accepted": 1, "chars": 7, "keys": 1},
    ),
    ([("a", "accepted", 7)], {"shown": 1, "shown_chars": 7, "accepted": 1, "chars": 7, "keys": 1}),
    (
        [("a", "shown", 9), ("a", "accepted", 9), ("a", "accepted", 9), ("a", "rejected", 0), ("a", "word", 3)],
        {"shown": 1, "shown_chars": 9, "accepted": 1, "chars": 9, "keys": 1},
    ),
    (
        [("a", "shown", 9), ("a", "word", 3), ("a", "word", 2), ("a", "line", 4)],
        {"shown": 1, "shown_chars": 9, "partly": 1, "words": 2, "lines": 1, "chars": 9, "keys": 3},
    ),
    (
        [("a", "shown", 9), ("a", "word", 3), ("a", "accepted", 6)],
        {"shown": 1, "shown_chars": 9, "accepted": 1, "words": 1, "chars": 9, "keys": 2},
    ),
    (
        [("a", "shown", 9), ("a", "part", 3), ("a", "rejected", 0)],
        {"shown": 1, "shown_chars": 9, "partly": 1, "parts": 1, "chars": 3, "keys": 1},
    ),
    ([("a", "shown", 9), ("a", "rejected", 0), ("a", "rejected", 0)], {"shown": 1, "shown_chars": 9, "rejected": 1}),
    ([("a", "rejected", 0)], {}),
    (
        [("a", "shown", 9), ("a", "rejected", 0), ("a", "accepted", 9)],
        {"shown": 1, "shown_chars": 9, "accepted": 1, "chars": 9, "keys": 1},
    ),
    (
        [("a", "shown", 9), ("b", "shown", 5), ("b", "rejected", 0), ("a", "accepted", 9)],
        {"shown": 2, "shown_chars": 14, "accepted": 1, "rejected": 1, "chars": 9, "keys": 1},
    ),
]


@pytest.mark.parametrize(("told", "expected"), FATES)
def test_what_becomes_of_a_suggestion(
    path: Path, opened: Callable[..., Statistics], told: list[tuple[str, str, int]], expected: dict[str, int]
) -> None:
    window = opened()
    for name, what, n_chars in told:
        if what == "shown":
            window.note_shown(name, language="go", n_chars=n_chars)
        elif what == "accepted":
            window.note_accepted(name, language="go", n_chars=n_chars)
        elif what == "rejected":
            window.note_rejected(name, language="go")
        else:
            window.note_partly_accepted(name, language="go", n_chars=n_chars, part=what)  # type: ignore[arg-type]
    window.close(PATIENCE_S)
    assert counted(path) == expected
    assert path.exists() == bool(told and expected)


def test_days_languages_and_answers(path: Path, opened: Callable[..., Statistics]) -> None:
    window = opened()
    window.note_answered(language="go", source="model", ms=120.0, n_tokens_fed=40)
    window.note_answered(language="go", source="model", ms=120.0, n_tokens_fed=2)
    window.note_answered(language="go", source="typed", ms=0.2)
    window.note_looked_after(language="go", is_still_there=True)
    window.note_looked_after(language="go", is_still_there=False)
    window.note_shown("1", language="my secret password", n_chars=3)
    window.note_shown("2", language="c++", n_chars=3)
    window.close(PATIENCE_S)
    sums = read(path)
    assert sums.times == {
        Time(DAY, "go", "model", bucket_of(120.0)): 2,
        Time(DAY, "go", "typed", bucket_of(0.2)): 1,
    }
    by_language = summaries(sums, lambda key: key.language)
    assert sorted(by_language) == ["c++", "go", "other"]
    assert by_language["go"].counts == {"tokens_fed": 42, "looked_after": 2, "still_there": 1}
    assert by_language["go"].typed_share == 1 / 3
    assert by_language["go"].acceptance is None
    assert by_language["other"].percentile_ms("model", 50) is None
    assert {key.day for key in sums.counts} == {DAY}


def test_nothing_is_written_when_it_is_off(path: Path) -> None:
    window = Statistics(path, is_on=False, flush_s=0.01)
    window.note_shown("a", language="go", n_chars=1)
    window.note_accepted("a", language="go", n_chars=1)
    window.note_answered(language="go", source="model", ms=1.0)
    window.note_looked_after(language="go", is_still_there=True)
    window.close()
    assert not path.parent.exists()


def test_nothing_of_what_is_told_is_kept_but_numbers(path: Path, opened: Callable[..., Statistics]) -> None:
    window = opened()
    window.note_accepted("the-id-of-a-suggestion", language="go", n_chars=12)
    window.close(PATIENCE_S)
    content = path.read_bytes()
    assert b"the-id" not in content
    assert DAY.encode() in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_note_waits_for_nothing(path: Path, opened: Callable[..., Statistics]) -> None:
    """Another process holds the file for as long as it likes; then everything is there."""
    with closing(Store(path)) as store:
        store.add(one("keys", 0))
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        window = opened()
        slowest = 0.0
        for i in range(2000):
            started = time.perf_counter()
            window.note_shown(str(i), language="go", n_chars=1)
            slowest = max(slowest, time.perf_counter() - started)
        assert slowest < 1.0  # SQLite would wait for 5
        holder.execute("ROLLBACK")
    window.close(PATIENCE_S)
    assert counted(path) == {"shown": 2000, "shown_chars": 2000}


def test_what_cannot_be_written_is_one_line_and_is_written_later(
    path: Path, opened: Callable[..., Statistics], caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.write_text("a file where the folder should be")
    window = opened()
    for i in range(5):
        window.note_shown(str(i), language="go", n_chars=1)
        time.sleep(0.03)  # several attempts
    wait_until(lambda: bool(lines(caplog)), "the line")
    path.parent.unlink()
    wait_until(path.exists, "the file")
    window.close(PATIENCE_S)
    assert counted(path) == {"shown": 5, "shown_chars": 5}
    (line,) = lines(caplog)
    assert line == f"statistics: {path.parent}: File exists; nothing is counted as long as that is so"


def test_a_lock_that_stays_is_one_line(
    path: Path,
    opened: Callable[..., Statistics],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics_store, "BUSY_S", 0.05)
    with closing(Store(path)) as store:
        store.add(one("keys", 0))
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        window = opened()
        window.note_shown("a", language="go", n_chars=1)
        wait_until(lambda: bool(lines(caplog)), "the line")
        time.sleep(0.3)  # more attempts
        holder.execute("ROLLBACK")
    wait_until(lambda: bool(counted(path)), "the count")
    assert lines(caplog) == [f"statistics: {path}: database is locked; nothing is counted as long as that is so"]


def corrupted(path: Path) -> None:
    """A file that opens and whose tables are broken inside."""
    with closing(Store(path)) as store:
        store.add(Sums(counts={Count(DAY, f"language{i}", "shown"): 1 for i in range(3000)}))
    content = bytearray(path.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE counts (x)")
        other.execute("PRAGMA user_version = 1")


DAMAGES: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b"this is no database, and long enough to be looked at\n" * 100),
    lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000),
    corrupted,
    foreign,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=["text", "header", "pages", "foreign"])
def test_a_damaged_file_is_moved_aside(
    path: Path, opened: Callable[..., Statistics], caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    path.parent.mkdir()
    damage(path)
    before = path.read_bytes()
    window = opened()
    window.note_shown("a", language="language1500", n_chars=1)
    window.close(PATIENCE_S)
    assert counted(path) == {"shown": 1, "shown_chars": 1}
    (line,) = lines(caplog)
    assert line.startswith(f"statistics: {path}: ")
    assert line.endswith("; it is statistics.sqlite3.damaged now, and counting begins anew")
    assert path.with_name("statistics.sqlite3.damaged").stat().st_size == len(before)


def test_a_file_of_a_newer_version_is_left_alone(
    path: Path, opened: Callable[..., Statistics], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Store(path)) as store:
        store.add(one())
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 7")
    window = opened()
    window.note_shown("a", language="go", n_chars=1)
    window.close(PATIENCE_S)
    (line,) = lines(caplog)
    assert "made by a newer version (format 7, expected 1)" in line
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("SELECT sum(n) FROM counts").fetchone() == (1,)


def test_a_file_that_is_removed_while_windows_are_open_begins_anew(
    path: Path, opened: Callable[..., Statistics], caplog: pytest.LogCaptureFixture
) -> None:
    window = opened()
    window.note_shown("a", language="go", n_chars=1)
    wait_until(lambda: path.exists() and counted(path) == {"shown": 1, "shown_chars": 1}, "the first")
    for each in list(path.parent.iterdir()):
        each.unlink()
    window.note_shown("b", language="go", n_chars=5)
    window.close(PATIENCE_S)
    assert counted(path) == {"shown": 1, "shown_chars": 5}
    assert lines(caplog) == []


FULL = """
import resource, signal, sys, time, logging
from pathlib import Path
logging.basicConfig(level="WARNING")
sys.path.insert(0, sys.argv[2])
from lsp.statistics import Statistics
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
window = Statistics(Path(sys.argv[1]), flush_s=0.01, retry_s=0.05)
for i in range(2000):
    window.note_shown(str(i), language=f"language{i}", n_chars=1)
give_up = time.monotonic() + 20
while not window._writer._has_complained and time.monotonic() < give_up:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
window.close(20)
"""


@pytest.mark.parametrize("n_bytes", [0, 20_000])
def test_a_disk_that_is_full_for_a_while(path: Path, n_bytes: int) -> None:
    """A limit on the size of files stands in for it: the writes fail in the same places."""
    house = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-c", FULL, str(path), house, str(n_bytes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "statistics: " in line
    assert sum(read(path).counts.values()) == 4000


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from lsp.statistics import Statistics
window = Statistics(Path(sys.argv[1]), flush_s=0.002)
for i in range(300):
    window.note_accepted(str(i), language="go", n_chars=3)
    window.note_answered(language="go", source="model", ms=i + 1.0)
window.close(60)
"""


def test_windows_of_several_processes_add_up(path: Path) -> None:
    """They also make the file at the same moment."""
    command = [sys.executable, "-I", "-c", WRITER, str(path), str(Path(__file__).parents[2])]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [writer.communicate(timeout=100)[1] for writer in writers]
    assert said == [""] * 4
    sums = read(path)
    assert sum(n for key, n in sums.counts.items() if key.name == "accepted") == 1200
    assert sum(n for key, n in sums.counts.items() if key.name == "chars") == 3600
    assert sum(sums.times.values()) == 1200


def test_no_thread_is_left_and_none_is_started_for_nothing(path: Path) -> None:
    def threads() -> int:
        return sum(thread.name == "codestral-lsp-statistics" for thread in threading.enumerate())

    n_before = threads()
    window = Statistics(path, flush_s=0.01)
    assert threads() == n_before
    window.note_shown("a", language="go", n_chars=1)
    assert threads() == n_before + 1
    window.close(PATIENCE_S)
    assert threads() == n_before
    window.note_shown("b", language="go", n_chars=1)
    assert threads() == n_before
    assert counted(path) == {"shown": 1, "shown_chars": 1}
    assert os.listdir(path.parent) == [path.name]  # SQLite's own files are gone with the last who uses them
