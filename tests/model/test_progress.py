"""The progress line: what is shown when, on a terminal and elsewhere, by a clock of our own."""

import io

import pytest

from model.progress import ProgressLine, shown_bytes, shown_seconds

WIPE = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_on_a_terminal_one_line_is_rewritten() -> None:
    stream, clock = Terminal(), Clock()
    with ProgressLine(stream, clock=clock) as progress:
        for clock.now, done in ((0.0, 500), (0.05, 600), (2.0, 1500), (2.01, 2000), (4.0, 4500)):
            progress(done, 4500, "file")
        progress.say("done")
    assert stream.getvalue().split(WIPE)[1:] == [
        "file: 500 B of 4.5 kB, 11 %",
        "file: 1.5 kB of 4.5 kB, 33 %, 500 B/s, 6 s left",  # what was there before counts for no speed
        "file: 4.5 kB of 4.5 kB, 100 %, 1.0 kB/s, 0 s left",
        "done",
        "",
    ]


def test_elsewhere_lines_are_few() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressLine(stream, clock=clock) as progress:
        for clock.now, done, what in (
            (0.0, 0, "a"),
            (1.0, 5, "a"),
            (3.0, 6, "b"),
            (20.0, 7, "b"),
            (40.0, 9, "b"),
            (41.0, 10, "c"),
        ):
            progress.count(done, 10, what)
    assert stream.getvalue() == "b: 6 of 10, 60 %\nb: 9 of 10, 90 %, 0/s, 12 s left\n"


def test_a_total_that_is_not_known() -> None:
    stream = Terminal()
    ProgressLine(stream)(1500, 0, "file")
    assert stream.getvalue() == f"{WIPE}file: 1.5 kB"


SIZES = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_960, "100 kB"), (999_600, "1.0 MB"),
         (14_570_807_296, "14.6 GB"), (2e12, "2.0 TB")]  # fmt: skip
SPANS = [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]


@pytest.mark.parametrize(("n_bytes", "shown"), SIZES)
def test_bytes(n_bytes: float, shown: str) -> None:
    assert shown_bytes(n_bytes) == shown


@pytest.mark.parametrize(("seconds", "shown"), SPANS)
def test_seconds(seconds: float, shown: str) -> None:
    assert shown_seconds(seconds) == shown
