"""The pause: one file that all windows look at, whatever has become of it."""

import json
import logging
import os
import stat
import time
from pathlib import Path

import pytest

from lsp.__main__ import run
from lsp.pause import Pause, Paused, PauseError


class Clock:
    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pause.json"


def test_all_windows_pause_and_begin_again_by_themselves(path: Path) -> None:
    clock = Clock()
    windows = [Pause(path, now=clock) for _ in range(3)]
    assert [window.paused() for window in windows] == [None] * 3
    until = clock.s + 600
    assert windows[0].begin(10) == Paused(until)
    assert [window.paused() for window in windows] == [Paused(until)] * 3
    clock.s += 599.9
    assert [window.paused() for window in windows] == [Paused(until)] * 3
    clock.s += 0.1
    assert [window.paused() for window in windows] == [None] * 3
    assert not windows[1].end()


def test_a_pause_without_an_end_and_one_in_place_of_another(path: Path) -> None:
    clock = Clock()
    here, there = Pause(path, now=clock), Pause(path, now=clock)
    here.begin()
    assert there.paused() == Paused(None)
    there.begin(1)
    assert here.paused() == Paused(clock.s + 60)
    there.begin(2)  # as long a file, in the same second
    assert here.paused() == Paused(clock.s + 120)
    assert there.end()
    assert here.paused() is None
    assert not here.end()


def test_only_its_owner_may_read_it_and_no_scraps_are_left(path: Path) -> None:
    Pause(path).begin(5)
    Pause(path).begin()
    assert [entry.name for entry in path.parent.iterdir()] == ["pause.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_look_at_what_has_not_changed_is_one_stat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Pause(path)
    window.begin()
    assert window.paused() is not None
    looks: list[object] = []
    real_stat = os.stat

    def counting(*arguments: object, **more: object) -> os.stat_result:
        looks.append(arguments)
        return real_stat(*arguments, **more)  # type: ignore[arg-type]

    def refused(*_: object, **__: object) -> int:
        raise AssertionError("the file was opened")

    monkeypatch.setattr(os, "stat", counting)
    monkeypatch.setattr(os, "open", refused)
    assert [window.paused() for _ in range(100)] == [Paused(None)] * 100
    assert len(looks) == 100


FAR = 1_800_000_000 + 60 * 60 * 24 * 7 + 1
DAMAGED: list[tuple[bytes, str]] = [
    (b"", "truncated"),
    (b"{}", "missing required field `until`"),
    (b'{"until": 1', "truncated"),
    (b'{"until": "soon"}', "Expected `float | null`"),
    (b'{"until": null, "reason": 1}', "unknown field `reason`"),
    (b"\xff\xfe\x00", "malformed"),
    (b'{"until": NaN}', "malformed"),
    (json.dumps({"until": FAR}).encode(), "too far away"),
    (b" " * 5000 + b'{"until": null}', "truncated"),
]


@pytest.mark.parametrize(("content", "why"), DAMAGED, ids=lambda value: repr(value)[:30])
def test_a_damaged_file_is_no_pause_and_one_line(
    path: Path, caplog: pytest.LogCaptureFixture, content: bytes, why: str
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    window = Pause(path, now=Clock())
    with caplog.at_level(logging.DEBUG):
        assert [window.paused() for _ in range(5)] == [None] * 5
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()
    window.begin()
    assert window.paused() == Paused(None)


def test_what_is_no_file_is_no_pause_and_is_not_opened(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    (path.parent / "other.json").write_text('{"until": null}')
    path.symlink_to("other.json")
    assert Pause(path).paused() is None
    path.unlink()
    os.mkfifo(path)
    assert Pause(path).paused() is None
    path.unlink()
    path.mkdir()
    assert Pause(path).paused() is None
    assert [record.getMessage().count("it is no regular file") for record in caplog.records] == [1, 1, 1]
    with pytest.raises(PauseError, match="cannot be ended"):
        Pause(path).end()
    with pytest.raises(PauseError, match="cannot be written"):
        Pause(path).begin()
    assert [entry.name for entry in path.parent.iterdir() if entry.name != "other.json"] == ["pause.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    window = Pause(tmp_path / "state" / "pause.json")
    assert window.paused() is None
    with pytest.raises(PauseError, match=r"state/pause\.json: the pause cannot be written \("):
        window.begin()


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 7 * 24 * 60 + 1])
def test_how_long_a_pause_may_be(path: Path, minutes: float) -> None:
    with pytest.raises(PauseError, match="expected more than 0 and up to 10080"):
        Pause(path).begin(minutes)
    assert not path.exists()


def test_words() -> None:
    year, month, day = time.localtime()[:3]
    noon = time.mktime((year, month, day, 12, 5, 0, 0, 0, -1))
    assert Paused(None).words() == "paused"
    assert Paused(noon).words() == "paused until 12:05"
    other = time.mktime((year, month, day + 2, 12, 5, 0, 0, 0, -1))
    assert Paused(other).words() == f"paused until {time.strftime('%a', time.localtime(other))} 12:05"


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def said(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        return (code, *capsys.readouterr())

    assert said("resume") == (0, "nothing was paused\n", "")
    assert said("pause") == (0, "paused; codestral-lsp resume ends that\n", "")
    assert Pause().paused() == Paused(None)
    code, out, err = said("pause", "--minutes", "0.5")
    assert (code, err) == (0, "")
    assert out.startswith("paused until ")
    assert out.endswith("; codestral-lsp resume ends that\n")
    paused = Pause().paused()
    assert paused is not None
    assert paused.until == pytest.approx(time.time() + 30, abs=20)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert said("status") == (0, f"no daemon runs\nsuggestions are {out}", "")
    assert json.loads(said("status", "--json")[1])["paused"] == {"until": paused.until}
    assert said("resume") == (0, "suggestions come again\n", "")
    assert Pause().paused() is None
    range_help = "0.0 is not in the range 0<x<=10080."
    assert said("pause", "--minutes", "0") == (
        2,
        "",
        f"codestral-lsp: Invalid value for '--minutes': {range_help} (see codestral-lsp pause --help)\n",
    )
