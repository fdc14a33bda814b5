"""The replay against a scripted server, good and bad, and against the real one: what is typed arrives, what must be seen is seen."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import feel
from benchmarks.editor_replay import SCRIPT
from benchmarks.feel_client import FeelClient, Heard
from benchmarks.feel_editor import PYTHON, Editor
from benchmarks.feel_holes import Hole
from benchmarks.feel_replay import STYLES, Played, Style, Window
from benchmarks.feel_superseded import superseded
from benchmarks.feel_typist import keys_alone
from benchmarks.scratch_workspace import Place, make_place

TRUTH = "\n    for name, value in sorted(values.items()):\n        print(name, value)\n    return [len(values), 'done']"
HOLE = Hole("a.py", "def show(values):", TRUTH, "\n\n\nshow({})\n", PYTHON, "body")
Say = Callable[[str, int, int], str]  # (wanted, number of the request, version) -> what is suggested


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-ft-", ignore_cleanup_errors=True) as path:
        yield Path(path)


class Scripted:
    """Keeps the document as the changes make it, and suggests what `say` says, `after_s` later."""

    def __init__(self, say: Say, *, after_s: float = 0.0, is_late: bool = False) -> None:
        self.say, self.after_s, self.is_late = say, after_s, is_late
        self.document = Editor("", 0, PYTHON)
        self.costs: dict[tuple[str, int], dict[str, Any]] = {}
        self.told: list[str] = []
        self.cancelled: set[int] = set()
        self.n = 0
        self.waiting: set[int] = set()

    def notify(self, method: str, params: Any) -> None:
        self.told.append(method)
        if method == "textDocument/didOpen":
            self.document = Editor(params["textDocument"]["text"], 0, PYTHON)
        for change in params.get("contentChanges", ()):
            ends = [self.document.offset(change["range"][name]) for name in ("start", "end")]
            self.document.accept(*ends, change["text"])
        if method == "$/cancelRequest":
            self.cancelled.add(params["id"])

    def request(self, method: str, params: Any, heard: Heard) -> int:
        self.n += 1
        number = self.n
        self.told.append(method)
        if method != "textDocument/inlineCompletion":
            heard(None, time.perf_counter())
            return number
        at, uri = params["position"], params["textDocument"]["uri"]
        before = self.document.text[: self.document.offset(at)]
        done = before[len(HOLE.before) :]
        wanted = TRUTH[len(done) :] if TRUTH.startswith(done) else ""
        text = self.say(wanted, number, self.document.version)
        command = {"title": "", "command": "codestral.accept", "arguments": [text]}
        items = [{"insertText": text, "range": {"start": at, "end": at}, "command": command}] if text else []

        def answer() -> None:
            self.waiting.discard(number)
            gone = number in self.cancelled and not self.is_late
            self.costs[uri, self.document.version] = {"is_reused": False, "ms": 0.0, "report": {"ms": {"total": 0.0}}}
            heard(None if gone else {"items": items}, time.perf_counter())

        self.waiting.add(number)
        asyncio.get_running_loop().call_later(self.after_s, answer)
        return number

    async def all_heard(self) -> bool:
        while self.waiting:
            await asyncio.sleep(0.001)
        return True


async def played(folder: Path, client: Scripted, *, style: Style, pace: float = 0.0, seed: int = 1) -> Played:
    window = Window(Place(folder), client, pace)  # pyright: ignore[reportArgumentType] (as much of a client as is used)
    return await window.play(HOLE, style=style, seed=seed)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_typed_arrives_whatever_is_suggested(folder: Path, style: Style, seed: int) -> None:
    words: dict[str, Say] = {
        "nothing": lambda wanted, number, version: "",
        "all": lambda wanted, number, version: wanted,
        "a line": lambda wanted, number, version: wanted.lstrip("\n").split("\n")[0] if wanted[:1] != "\n" else wanted,
        "nonsense": lambda wanted, number, version: f"nonsense {number}",
    }
    keys = {}
    for name, say in words.items():
        client = Scripted(say)
        found = await played(folder, client, style=style, seed=seed)
        assert client.document.text == HOLE.before + TRUTH + HOLE.after, "the changes say what stands there"
        keys[name] = found.n_keys
        told = {"textDocument/didShowCompletion", "workspace/executeCommand", "textDocument/didRejectCompletion"}
        assert bool(told & set(client.told)) == (style.tells and name != "nothing")
    assert keys["all"] < keys["a line"] < keys["nothing"] == keys_alone(HOLE, seed=seed) <= keys["nonsense"]


BAD: list[tuple[str, Say]] = [
    ("flicker", lambda wanted, number, version: f"{wanted[:1]}{number}"),
    ("vanished", lambda wanted, number, version: f"{wanted[:2]}~~~" if number % 2 else ""),
    (
        "doubled",
        lambda wanted, number, version: (
            wanted.split("\n")[0] if wanted.startswith(("values.i", "name, value)")) else ""
        ),
    ),
]


@pytest.mark.parametrize(("kind", "say"), BAD, ids=lambda value: value if isinstance(value, str) else "")
async def test_bad_servers_are_found_out(folder: Path, kind: str, say: Say) -> None:
    """The last one closes brackets that the editor has closed already."""
    found = await played(folder, Scripted(say), style=STYLES[0])
    assert kind in {problem.kind for problem in found.problems}


async def test_answers_for_older_texts_are_found_out(folder: Path) -> None:
    client = Scripted(lambda wanted, number, version: f"~late {number}", after_s=0.5, is_late=True)
    found = await played(folder, client, style=STYLES[1], pace=0.1)
    kinds = [problem.kind for problem in found.problems]
    assert kinds.count("late") > 5
    assert {answer.kind for answer in found.answers} >= {"superseded"}
    in_time = Scripted(lambda wanted, number, version: f"~late {number}", after_s=0.01, is_late=True)
    assert not (await played(folder, in_time, style=STYLES[1])).problems


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
async def test_the_real_server_is_played(folder: Path) -> None:
    files = [(f"m{i}.py", f"def name_{i}(values):\n    return sorted(values)[{i}]\n" * 20) for i in range(4)]
    place = make_place(folder, [*files, (HOLE.path, HOLE.opened)])
    window = await Window.open(place, {"context_max_tokens": 20_000, "precision": "int8", "delay_ms": 0}, pace=0.0)
    try:
        found = [await window.play(HOLE, style=style, seed=1) for style in STYLES]
    finally:
        await window.client.close()
        await feel.stop_at(feel.DaemonProcess(place, model="bundled", precision="int8", threads=None).socket)
    assert isinstance(window.client, FeelClient) and not window.client.popups
    for each in found:
        assert {"model", "reused", "empty"} & {answer.kind for answer in each.answers}
        assert not [problem for problem in each.problems if problem.kind in ("misplaced", "deletes", "stale")]
        assert each.n_keys >= 20 and each.moments[-1].line.endswith("'done']")


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
def test_a_superseded_request_is_ended(folder: Path) -> None:
    found = superseded(make_place(folder, ()), model="bundled", precision="int8", repetitions=1)
    assert found, "no request was still running when the newer one came"
    assert all(each.n_tokens > 0 and each.ms_per_step > 0 for each in found)


def test_the_program_says_what_is_wrong(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["feel.py", "--sources", str(folder), "--quick"])
    assert feel.main() == 1
    assert capsys.readouterr().err == f"error: {folder}: 0 files of code to type in, expected 3\n"
    monkeypatch.setattr(sys, "argv", ["feel.py", "--files", "-1"])
    with pytest.raises(SystemExit):
        feel.main()
    assert "-1: expected a whole number from 1 on" in capsys.readouterr().err


def test_the_defaults_are_as_documented(monkeypatch) -> None:
    for words, expected in (([], (2, 6, 1.0)), (["--quick"], (1, 3, 0.0)), (["--quick", "--pace", "1"], (1, 3, 1.0))):
        monkeypatch.setattr(sys, "argv", ["feel.py", *words])
        args = feel.arguments()
        assert (args.rounds, args.files, args.pace) == expected, json.dumps(words)
