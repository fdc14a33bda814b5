"""The status bar: each row is what happens at which second, and all that is told of it."""

from pathlib import Path
from typing import Any

import pytest

from lsp.pause import Paused
from lsp.session import Progress
from lsp.status import READING_S, THINKING_S, Focus, Status

A, B = Path("/home/me/a"), Path("/home/me/b")
IN_A, IN_B, ALONE = Focus("file:///a.py", A), Focus("file:///b.py", B), Focus("file:///c.py", None)
OFF = Focus("file:///big.py", A, "over 1 MB")

READING = Progress("reading")
READY = Progress("ready", 100, 100)
FAILED = Progress("failed", message="/home/me/a: not permitted")

Event = tuple[float, str, tuple[Any, ...]]


def feeding(done: int, total: int = 100) -> Progress:
    return Progress("feeding", done, total)


def told(*events: Event) -> list[str]:
    """`state message` of each thing told, in order. The clock rings when the status asks for it."""
    seconds = 0.0
    status, news = Status(now=lambda: seconds), []

    def say(value: dict[str, Any] | None) -> None:
        if value is not None:
            news.append(value)

    for at, name, arguments in events:
        while (wait_s := status.next_look_s) is not None and seconds + wait_s <= at:
            seconds += wait_s
            say(status.tick())
        seconds = at
        say(getattr(status, name)(*arguments))
    return [f"{value['codestral']['state']}: {value['message']}" for value in news]


ROWS: list[tuple[list[Event], list[str]]] = [
    ([(0, "tick", ())], ["ready: ready"]),
    ([(0, "tick", ()), (1, "tick", ()), (2, "daemon", ("ready",))], ["ready: ready"]),
    (
        [(0, "daemon", ("starting",)), (1, "daemon", ("loading",)), (2, "daemon", ("ready",))],
        ["starting: starting the daemon", "loading: loading the model", "ready: ready"],
    ),
    # A request is worth a word only when it lasts, and never stays behind.
    ([(0, "begun", (1,)), (0.29, "answered", (1,)), (9, "tick", ())], ["ready: ready"]),
    (
        [(0, "begun", (1,)), (0.5, "answered", (1,)), (9, "tick", ())],
        ["ready: ready", "thinking: thinking", "ready: ready"],
    ),
    (
        [(0, "begun", (1,)), (0.2, "begun", (2,)), (0.25, "dropped", (1,)), (0.45, "answered", (2,)), (9, "tick", ())],
        ["ready: ready"],
    ),
    (
        [(0, "begun", (1,)), (0.2, "begun", (2,)), (0.25, "dropped", (1,)), (0.6, "dropped", (2,)), (9, "tick", ())],
        ["ready: ready", "thinking: thinking", "ready: ready"],
    ),
    ([(0, "begun", (1,)), (0.1, "failed", (1, "no luck")), (9, "tick", ())], ["ready: ready", "error: no luck"]),
    ([(0, "answered", (7,)), (0, "dropped", (8,)), (0, "failed", (9, "x"))], ["ready: ready", "error: x"]),
    # The next success clears an error; what was given up is none.
    (
        [(0, "failed", (1, "no luck")), (1, "dropped", (2,)), (2, "begun", (3,)), (2.9, "answered", (3,))],
        ["error: no luck", "ready: ready"],
    ),
    (
        [(0, "daemon_failed", ("no memory",)), (1, "workspace", (A, READING)), (2, "daemon", ("starting",))],
        ["error: no memory", "starting: starting the daemon"],
    ),
    ([(0, "daemon_failed", ("no memory",)), (1, "answered", (1,))], ["error: no memory", "ready: ready"]),
    (
        [(0, "daemon_failed", ("no memory",)), (1, "workspace", (A, feeding(0)))],
        ["error: no memory", "reading: reading a: 0 %"],
    ),
    (
        [(0, "workspace", (A, FAILED)), (1, "answered", (1,)), (2, "workspace", (A, READY))],
        ["error: /home/me/a: not permitted", "ready: ready"],
    ),
    # Reading.
    (
        [
            (0, "workspace", (A, READING)),
            (1, "workspace", (A, feeding(0))),
            (2, "workspace", (A, feeding(379, 1000))),
            (3, "workspace", (A, feeding(1000, 1000))),
            (4, "workspace", (A, READY)),
        ],
        [
            "reading: reading a",
            "reading: reading a: 0 %",
            "reading: reading a: 37 %",
            "reading: reading a: 99 %",
            "ready: ready",
        ],
    ),
    # A word about reading is more than one about thinking.
    (
        [(0, "workspace", (A, feeding(1))), (1, "begun", (1,)), (3, "answered", (1,)), (4, "workspace", (A, READY))],
        ["reading: reading a: 1 %", "ready: ready"],
    ),
    # A few files that have changed are not worth one unless it lasts.
    (
        [(0, "workspace", (A, READY)), (1, "workspace", (A, feeding(99))), (1.9, "workspace", (A, READY))],
        ["ready: ready"],
    ),
    (
        [
            (0, "workspace", (A, READY)),
            (1, "workspace", (A, feeding(50))),
            (1.5, "workspace", (A, feeding(60))),
            (2.5, "workspace", (A, feeding(70))),
            (3, "workspace", (A, READY)),
        ],
        ["ready: ready", "reading: reading a: 60 %", "reading: reading a: 70 %", "ready: ready"],
    ),
    # Of several workspaces the focused document's counts; without a focus the one heard of last.
    (
        [
            (0, "workspace", (A, feeding(10))),
            (1, "workspace", (B, feeding(20))),
            (2, "focused", (IN_A,)),
            (3, "workspace", (B, feeding(30))),
            (4, "focused", (IN_B,)),
            (5, "focused", (ALONE,)),
            (6, "focused", (None,)),
            (7, "workspace_closed", (B,)),
            (8, "workspace_closed", (A,)),
        ],
        [
            "reading: reading a: 10 %",
            "reading: reading b: 20 %",
            "reading: reading a: 10 %",
            "reading: reading b: 30 %",
            "ready: ready",
            "reading: reading b: 30 %",
            "reading: reading a: 10 %",
            "ready: ready",
        ],
    ),
    (
        [(0, "focused", (IN_B,)), (1, "workspace", (A, FAILED)), (2, "focused", (IN_A,))],
        ["ready: ready", "error: /home/me/a: not permitted"],
    ),
    # Off and paused go before all else, and what goes on meanwhile is not lost.
    (
        [
            (0, "workspace", (A, feeding(10))),
            (1, "focused", (OFF,)),
            (2, "workspace", (A, feeding(20))),
            (3, "daemon_failed", ("gone",)),
            (4, "paused", (Paused(None),)),
            (5, "focused", (IN_A,)),
            (6, "paused", (None,)),
            (7, "workspace", (A, feeding(30))),
        ],
        [
            "reading: reading a: 10 %",
            "off: nothing is suggested here: over 1 MB",
            "paused: paused",
            "paused: paused",
            "error: gone",
            "reading: reading a: 30 %",
        ],
    ),
]


@pytest.mark.parametrize(("events", "expected"), ROWS)
def test_what_is_told(events: list[Event], expected: list[str]) -> None:
    assert told(*events) == expected


OBJECTS: list[tuple[list[tuple[str, tuple[Any, ...]]], dict[str, Any]]] = [
    ([], {"busy": False, "message": "ready", "kind": "Normal", "codestral": {"state": "ready"}}),
    (
        [("focused", (IN_A,))],
        {
            "busy": False,
            "message": "ready",
            "kind": "Normal",
            "codestral": {"state": "ready", "uri": "file:///a.py"},
        },
    ),
    (
        [("workspace", (A, feeding(5, 40)))],
        {
            "busy": True,
            "message": "reading a: 12 %",
            "kind": "Normal",
            "codestral": {"state": "reading", "percent": 12, "done": 5, "total": 40},
        },
    ),
    (
        [("workspace", (A, READING))],
        {"busy": True, "message": "reading a", "kind": "Normal", "codestral": {"state": "reading"}},
    ),
    (
        [("daemon", ("starting",))],
        {"busy": True, "message": "starting the daemon", "kind": "Normal", "codestral": {"state": "starting"}},
    ),
    (
        [("focused", (OFF,))],
        {
            "busy": False,
            "message": "nothing is suggested here: over 1 MB",
            "kind": "Inactive",
            "codestral": {"state": "off", "reason": "over 1 MB", "uri": "file:///big.py"},
        },
    ),
    (
        [("paused", (Paused(None),))],
        {
            "busy": False,
            "message": "paused",
            "kind": "Inactive",
            "command": {"title": "Suggest again", "command": "codestral.resume", "arguments": []},
            "codestral": {"state": "paused"},
        },
    ),
    (
        [("daemon_failed", ("no memory",))],
        {
            "busy": False,
            "message": "no memory",
            "kind": "Error",
            "command": {"title": "Start the daemon again", "command": "codestral.restart", "arguments": []},
            "codestral": {"state": "error"},
        },
    ),
    (
        [("workspace", (A, FAILED))],
        {
            "busy": False,
            "message": "/home/me/a: not permitted",
            "kind": "Warning",
            "command": {"title": "Where is the log?", "command": "codestral.log", "arguments": []},
            "codestral": {"state": "error"},
        },
    ),
]


@pytest.mark.parametrize(("events", "expected"), OBJECTS)
def test_what_an_editor_gets(events: list[tuple[str, tuple[Any, ...]]], expected: dict[str, Any]) -> None:
    status, last = Status(now=lambda: 0.0), None
    for name, arguments in events or [("tick", ())]:
        last = getattr(status, name)(*arguments)
    assert last == expected


def test_when_to_look_again() -> None:
    seconds = 0.0
    status = Status(now=lambda: seconds)
    assert status.next_look_s is None
    status.begun(1)
    assert status.next_look_s == THINKING_S
    status.workspace(A, READY)
    status.workspace(A, feeding(1))
    seconds = 0.2
    status.begun(2)
    assert status.next_look_s == pytest.approx(THINKING_S - 0.2)
    status.dropped(1)
    assert status.next_look_s == pytest.approx(THINKING_S)
    status.answered(2)
    assert status.next_look_s == pytest.approx(READING_S - 0.2)
    seconds = READING_S
    assert status.next_look_s is None


def test_it_never_stays_on_thinking() -> None:
    """Whatever order requests begin and end in, told twice or of ids that nobody knows."""
    seconds = 0.0
    status = Status(now=lambda: seconds)
    ends = [("answered", ()), ("dropped", ()), ("failed", ("x",))]
    for i in range(300):
        seconds += 0.1
        status.begun(i)
        status.begun(i // 2)
        if i >= 10:
            name, more = ends[i % 3]
            getattr(status, name)(i - 10, *more)
            getattr(status, name)((i - 10) // 2, *more)
    for i in range(300):
        status.answered(i)
    seconds += 60
    status.tick()
    assert not status._requests
    status.paused(Paused(None))
    assert (status.paused(None) or {})["codestral"] == {"state": "ready"}
