"""`codestral-lsp stats`: what people and programs read of what was counted."""

import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from lsp.__main__ import run
from lsp.counts import Count, Sums, Time, bucket_of
from lsp.statistics_store import Store, statistics_path
from lsp.stats_command import BAR_WIDTH, day_lines, table_lines

TODAY = date(2026, 8, 1)
NOTHING = "nothing was counted in the last 30 days; an editor with codestral-lsp that shows suggestions changes that\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return statistics_path()


def keep(sums: Sums, path: Path) -> None:
    with closing(Store(path)) as store:
        store.add(sums)


def of(day: date, language: str, times: dict[str, list[float]] | None = None, **numbers: int) -> Iterator[Sums]:
    for name, n in numbers.items():
        yield Sums(counts={Count(day.isoformat(), language, name): n})
    for source, values in (times or {}).items():
        for ms in values:
            yield Sums(times={Time(day.isoformat(), language, source, bucket_of(ms)): 1})  # type: ignore[arg-type]


def together(*parts: Iterator[Sums]) -> Sums:
    whole = Sums()
    for part in parts:
        for sums in part:
            whole.add(sums)
    return whole


def example(today: date = TODAY) -> Sums:
    return together(
        of(
            today,
            "python",
            {"model": [180.0] * 19 + [420.0] * 2, "typed": [0.2] * 60},
            shown=100,
            accepted=40,
            partly=5,
            rejected=7,
            chars=1300,
            keys=66,
            tokens_fed=4321,
        ),
        of(today - timedelta(days=1), "go", {"model": [15.0]}, shown=10, accepted=10, chars=100, keys=10),
        of(today - timedelta(days=13), "go", shown=1),
        of(today - timedelta(days=20), "rust", shown=4, looked_after=8, still_there=6),
    )


TABLE = """\
the last 30 days, on this machine
          shown   accepted  in part  characters saved  model p50 / p95  typed through p50 / p95
  python    100  40 (40 %)        5              1234     180 / 430 ms           0.19 / 0.19 ms
  go         11  10 (91 %)        0                90       14 / 14 ms                        -
  rust        4    0 (0 %)        0                 0                -                        -
  all       115  50 (43 %)        5              1324     180 / 430 ms           0.19 / 0.19 ms
  rejected 7, still there after a while 75 %, answered without the model 73 %, 4321 tokens read for it
"""


def test_the_table() -> None:
    assert "\n".join(table_lines(example(), days=30)) + "\n" == TABLE


def test_one_language_needs_no_sum_and_what_is_not_known_is_not_said() -> None:
    lines = table_lines(together(of(TODAY, "go", shown=2)), days=1)
    assert [line.split()[0] for line in lines] == ["today,", "shown", "go", "rejected"]
    assert lines[-1] == "  rejected 0, 0 tokens read for it"


def test_a_name_from_an_editor_cannot_steer_the_terminal() -> None:
    lines = table_lines(together(of(TODAY, "\x1b[2J", shown=2)), days=30)
    assert "\x1b" not in "".join(lines)


DAYS = """\
accepted █ of what was shown ░
  2026-07-19  ░  0 of 1
  2026-07-20
  2026-07-21
  2026-07-22
  2026-07-23
  2026-07-24
  2026-07-25
  2026-07-26
  2026-07-27
  2026-07-28
  2026-07-29
  2026-07-30
  2026-07-31  ███  10 of 10
  2026-08-01  ████████████░░░░░░░░░░░░░░░░░░  40 of 100
"""


def test_the_bars() -> None:
    assert "\n".join(day_lines(example(), today=TODAY, is_unicode=True)) + "\n" == DAYS
    ascii_lines = DAYS.replace("█", "#").replace("░", "-")
    assert "\n".join(day_lines(example(), today=TODAY, is_unicode=False)) + "\n" == ascii_lines


@pytest.mark.parametrize(
    ("shown", "accepted", "bar"),
    [
        (1000, 1, "█" + "░" * (BAR_WIDTH - 1)),
        (1000, 999, "█" * (BAR_WIDTH - 1) + "░"),
        (1000, 0, "░" * BAR_WIDTH),
        (1000, 1000, "█" * BAR_WIDTH),
        (10, 12, "█" * BAR_WIDTH),  # shown on the day before
    ],
)
def test_a_little_is_not_drawn_as_nothing(shown: int, accepted: int, bar: str) -> None:
    lines = day_lines(together(of(TODAY, "go", shown=shown, accepted=accepted)), today=TODAY, is_unicode=True)
    assert lines[-1].split()[1] == bar


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["stats", *arguments])
    return (code, *capsys.readouterr())


def test_nothing_counted_is_one_line(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(capsys) == (0, NOTHING, "")
    assert not path.exists()
    keep(together(of(date.today() - timedelta(days=30), "go", shown=1)), path)
    assert said(capsys) == (0, NOTHING, "")
    assert said(capsys, "--days", "31")[1].startswith("the last 31 days, on this machine\n")
    monkeypatch.setenv("CODESTRAL_LSP_STATISTICS", "false")
    assert said(capsys) == (0, "nothing is counted: the setting `statistics` is off\n", "")


def test_the_command_prints_table_and_bars(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(example(date.today()), path)
    code, out, err = said(capsys)
    assert (code, err) == (0, "")
    assert out.startswith(TABLE)
    assert out.count("\n") == TABLE.count("\n") + DAYS.count("\n")


def test_a_terminal_without_blocks_gets_letters(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(example(date.today()), path)
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert run(["stats"]) == 0
    out.flush()
    assert b"############------------------  40 of 100" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_json_is_one_object(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    today = date.today()
    keep(example(today), path)
    code, out, err = said(capsys, "--json", "--days", "14")
    assert (code, err, out.count("\n")) == (0, "", 1)
    value = json.loads(out)
    assert (value["days"], value["since"]) == (14, (today - timedelta(days=13)).isoformat())
    assert sorted(value["languages"]) == ["go", "python"]
    assert sorted(value["by_day"]) == [(today - timedelta(days=ago)).isoformat() for ago in (13, 1, 0)]
    python: dict[str, Any] = value["languages"]["python"]
    assert python["ms"].pop("model") == {"p50": pytest.approx(180, rel=0.05), "p95": pytest.approx(420, rel=0.05)}
    assert python.pop("ms") == {"typed": {"p50": pytest.approx(0.2, rel=0.05), "p95": pytest.approx(0.2, rel=0.05)}}
    assert {name: number for name, number in python.items() if number} == {
        "shown": 100,
        "accepted": 40,
        "partly": 5,
        "rejected": 7,
        "chars": 1300,
        "keys": 66,
        "tokens_fed": 4321,
        "acceptance": 0.4,
        "chars_saved": 1234,
        "answered_without_model": pytest.approx(60 / 81, abs=1e-4),
    }
    assert value["all"]["shown"] == 111
    assert value["languages"]["go"]["ms"]["typed"] == {"p50": None, "p95": None}


def test_json_of_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(said(capsys, "--json")[1])
    assert (value["languages"], value["by_day"], value["all"]["shown"], value["all"]["acceptance"]) == ({}, {}, 0, None)


def test_reset(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--reset") == (0, "all counts are forgotten\n", "")
    keep(example(), path)
    assert said(capsys, "--reset") == (0, "all counts are forgotten\n", "")
    assert said(capsys) == (0, NOTHING, "")
    assert said(capsys, "--reset", "--json") == (0, '{"reset":true}\n', "")


def test_what_cannot_be_read_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("no database\n" * 100)
    hint = "`codestral-lsp stats --reset` begins anew"
    assert said(capsys) == (1, "", f"codestral-lsp: {path}: file is not a database; {hint}\n")
    assert said(capsys, "--reset") == (0, "all counts are forgotten\n", "")
    assert said(capsys) == (0, NOTHING, "")
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 9")
    made = "made by a newer version (format 9, expected 1)"
    assert said(capsys) == (1, "", f"codestral-lsp: {path}: {made}\n")
    assert said(capsys, "--reset") == (1, "", f"codestral-lsp: {path}: {made}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--days", "0"), "Invalid value for '--days': 0 is not in the range 1<=x<=400."),
        (("--days", "x"), "Invalid value for '--days': 'x' is not a valid integer range."),
        (("today",), "Got unexpected extra argument (today)"),
    ],
)
def test_wrong_arguments(path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str) -> None:
    assert said(capsys, *arguments) == (2, "", f"codestral-lsp: {line} (see codestral-lsp stats --help)\n")
