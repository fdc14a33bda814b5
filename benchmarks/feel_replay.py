"""Plays a typist in the real language server over stdio and takes down what stood on the screen after every key and every answer.

Keys come when the typist hits them, whether the server has answered or not; without a pace they wait for the answers but for some, chosen by the seed, that
come while an answer is under way. Knows: LSP's messages, time. Does not know: which figures are made of it.
"""

import asyncio
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.editor_client import ServerError
from benchmarks.editor_replay import READY_S, SCRIPT
from benchmarks.feel_client import FeelClient
from benchmarks.feel_editor import Editor
from benchmarks.feel_holes import Hole
from benchmarks.feel_screen import Problem, Screen, is_surplus
from benchmarks.feel_typist import Act, Typist
from benchmarks.scratch_workspace import Place

LATE_S = 0.3  # an answer for an older text was not merely crossing the newer one on its way, on a busy machine either
HURRIED = 0.3  # of keys that do not wait for an answer where there is no pace
INLINE = "textDocument/inlineCompletion"


class Style(NamedTuple):
    """How an editor behaves. `replaces`: accepting sends the whole suggestion in place of its range, not only what was grey."""

    name: str
    cancels: bool
    tells: bool
    replaces: bool


STYLES = (
    Style("telling", True, True, True),
    Style("silent", False, False, False),
)  # as our plugins do, and as the least of editors does


class Answer(NamedTuple):
    """`kind`: "reused" | "model" | "empty" | "unknown" (text without a report) | "superseded". `ms`: from the key to here, as the client has it.

    `work_ms`: the daemon's part of a model's answer, whose rest is mostly the moment that nothing new is shown after a key; else the server's own part.
    """

    kind: str
    ms: float
    is_invoked: bool
    work_ms: float = 0.0
    n_items: int = 0


class Judged(NamedTuple):
    """A suggestion at its first sight, for what is judged afterwards. `wanted`: what the typist still had to type."""

    text: str
    offset: int
    inserted: str
    replaces: int
    wanted: str

    @property
    def worth(self) -> str:
        """How much of it is what was wanted: "all" | "part" (more than half a word) | "none"."""
        if self.wanted.startswith(self.inserted):
            return "all"
        agreed = next((i for i, (a, b) in enumerate(zip(self.inserted, self.wanted, strict=False)) if a != b), 0)
        return "part" if agreed >= 4 else "none"


class Moment(NamedTuple):
    """One line of a trace: after a key, or an answer. `line`: the cursor's, parted at the cursor by `column`."""

    ms: float
    what: str
    line: str
    column: int
    ghost: str
    kind: str = ""


@dataclass(slots=True)
class Played:
    """One hole, typed to its end."""

    hole: Hole
    style: Style
    n_keys: int = 0
    accepted: list[int] = field(default_factory=list)  # characters of each, whole ones and parts
    answers: list[Answer] = field(default_factory=list)
    shown: list[Judged] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class Window:
    """One editor window on a workspace, with the server behind it. `pace`: 1 is a real typist's, 0 no waiting."""

    place: Place
    client: FeelClient
    pace: float

    @classmethod
    async def open(cls, place: Place, options: Mapping[str, Any], *, pace: float) -> "Window":
        """With the repository read. Raises ServerError."""
        command = [str(SCRIPT), "--stdio"] if SCRIPT.exists() else [sys.executable, "-I", "-m", "lsp", "--stdio"]
        log = place.root / "server.log"
        found = await FeelClient.start(command, environment=place.environment, cwd=place.repository, log=log)
        assert isinstance(found, FeelClient), "start makes one of its class"
        await found.initialize(place.repository, dict(options) | {"reports": True})
        try:
            await asyncio.wait_for(found.ready.wait(), READY_S)
        except TimeoutError:
            raise ServerError(f"the repository is not read after {READY_S:g} s; {found.last_words()}") from None
        return cls(place, found, pace)

    async def play(self, hole: Hole, *, style: Style, seed: int) -> Played:
        """Raises ServerError."""
        return await _Session(self, hole, style=style, seed=seed).run()


class _Session:
    """One document in one window, from open to close."""

    def __init__(self, window: Window, hole: Hole, *, style: Style, seed: int) -> None:
        self.window, self.client, self.style = window, window.client, style
        self.uri = (window.place.repository / hole.path).as_uri()
        self.typist = Typist(hole, seed=seed)
        self.editor = Editor(hole.opened, len(hole.before), hole.language)
        self.screen = Screen()
        self.played = Played(hole, style)
        self.chance = random.Random(f"{seed} {hole.path} hurry")
        self.newest: int | None = None  # the request that an answer is still wanted for
        self.known: set[str] = set()  # documents of suggestions that were seen before
        self.started = self.due = self.asked_at = time.perf_counter()

    async def run(self) -> Played:
        hole, client = self.played.hole, self.client
        item = {"uri": self.uri, "languageId": hole.language.name, "version": 1, "text": hole.opened}
        client.notify("textDocument/didOpen", {"textDocument": item})
        if self.style.tells:
            client.notify("textDocument/didFocus", {"textDocument": {"uri": self.uri}})
        while (act := await self._next()) is not None:
            self._press(act)
        await client.all_heard()
        assert self.editor.text == hole.before + hole.truth + hole.after, f"{hole.path}: typed something else"
        client.notify("textDocument/didClose", {"textDocument": {"uri": self.uri}})
        self.played.problems = self.screen.problems
        self.played.n_keys = self.typist.n_keys
        self.played.seconds = time.perf_counter() - self.started
        return self.played

    async def _next(self) -> Act | None:
        """Waits as long as a typist does, and then lets the screen decide."""
        pace = self.window.pace
        if pace:
            self.due = max(self.due, time.perf_counter() - 1.0) + pace * self.typist.pause_s(Act("type"))
            await asyncio.sleep(max(0.0, self.due - time.perf_counter()))
        elif self.newest is not None and self.chance.random() > HURRIED and not await self.client.all_heard():
            raise ServerError(f"no answer to {INLINE}; {self.client.last_words()}")
        else:
            await asyncio.sleep(0)  # what has come meanwhile is heard
        return self.typist.next(self.editor, self.screen)

    def _press(self, act: Act) -> None:
        editor, screen = self.editor, self.screen
        ghost, grey, span = screen.ghost, screen.visible(editor), self._span()
        if grey and act.kind in ("escape", "backspace"):
            kind = "offered_again" if act.kind == "escape" else "offered_again_after_backspace"
            if act.kind == "backspace" or self.style.tells:
                screen.reject(editor, kind)
            if self.style.tells and ghost is not None:
                self._tell("textDocument/didRejectCompletion", {"item": ghost.item})
        if act.kind in ("escape", "away", "over"):
            screen.hide()
            self._cancel()
        _, wanted, tail = self.typist.left(editor)
        was_surplus = is_surplus(tail, wanted)
        changes = self.typist.press(act, editor, screen)
        if act.kind == "accept" and self.style.replaces and span is not None:
            changes = [span]
        self.asked_at = time.perf_counter()
        if changes:
            document = {"uri": self.uri, "version": editor.version}
            self.client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": changes})
        if act.kind in ("accept", "word"):
            self.played.accepted.append(len(act.text))
            _, wanted, tail = self.typist.left(editor)
            screen.accepted(editor, wanted=wanted, tail=tail, was_surplus=was_surplus)
            self._tell_taken(act, ghost.item if ghost is not None else {})
        screen.edited(editor)
        self._note(act.kind if not act.text else f"{act.kind} {act.text!r}")
        if act.asks:
            self._ask(is_invoked=act.kind == "ask")

    def _span(self) -> dict[str, Any] | None:
        """The change of an editor that puts the whole suggestion in place of its range."""
        if (ghost := self.screen.ghost) is None:
            return None
        text, inserted = self.editor.text, str(ghost.item["insertText"])
        start, end = len(ghost.before) - len(inserted), len(text) - len(ghost.after)
        where = {"start": self.editor.position(start), "end": self.editor.position(end)}
        return {"range": where, "text": inserted}

    def _ask(self, *, is_invoked: bool) -> None:
        self._cancel()
        at, version, asked_in = self.asked_at, self.editor.version, self.editor.copy()
        params = {
            "textDocument": {"uri": self.uri},
            "position": self.editor.position(),
            "context": {"triggerKind": 1 if is_invoked else 2},
        }

        def heard(result: Any, now: float) -> None:
            items = (result.get("items") if isinstance(result, dict) else result) or []
            if number != self.newest:
                self._unwanted(items, asked_in, ms=1000 * (now - at), is_invoked=is_invoked)
            else:
                self._wanted(items, version=version, ms=1000 * (now - at), is_invoked=is_invoked)

        number = self.client.request(INLINE, params, heard)
        self.newest = number

    def _cancel(self) -> None:
        if self.newest is not None and self.style.cancels:
            self.client.notify("$/cancelRequest", {"id": self.newest})
        self.newest = None

    def _unwanted(self, items: list[dict[str, Any]], asked_in: Editor, *, ms: float, is_invoked: bool) -> None:
        """An answer to a request that a newer one has followed."""
        self.played.answers.append(Answer("superseded", ms, is_invoked))
        self.screen.unseen(items, asked_in)
        if items and time.perf_counter() - self.asked_at > LATE_S:
            self.screen.problems.append(Problem("late", repr(items[0].get("insertText"))))

    def _wanted(self, items: list[dict[str, Any]], *, version: int, ms: float, is_invoked: bool) -> None:
        self.newest = None
        cost = self.client.costs.get((self.uri, version))
        kind = "empty" if not items else "unknown" if cost is None else "reused" if cost["is_reused"] else "model"
        work_ms = 0.0 if cost is None else cost["report"]["ms"]["total"] if kind == "model" else cost["ms"]
        self.played.answers.append(Answer(kind, ms, is_invoked, work_ms, len(items)))
        self.screen.answered(items, self.editor, is_invoked=is_invoked, is_reused=kind == "reused")
        self._see()
        self._note("answer", kind=kind)

    def _see(self) -> None:
        """Takes down a suggestion that is seen for the first time."""
        ghost, editor = self.screen.ghost, self.editor
        grey = self.screen.visible(editor)
        if ghost is None or not grey or ghost.document in self.known:
            return
        self.known.add(ghost.document)
        replaces = len(editor.text) - len(ghost.after) - editor.cursor
        _, wanted, _ = self.typist.left(editor)
        self.played.shown.append(Judged(editor.text, editor.cursor, grey, replaces, wanted))
        if self.style.tells:
            self._tell("textDocument/didShowCompletion", {"item": ghost.item})

    def _tell_taken(self, act: Act, item: dict[str, Any]) -> None:
        if not self.style.tells:
            return
        if act.kind == "accept" and (command := item.get("command")):
            params = {"command": command["command"], "arguments": command.get("arguments", [])}
            self.client.request("workspace/executeCommand", params, lambda *_: None)
        if act.kind == "word" and (ghost := self.screen.ghost) is not None:
            inserted = str(item["insertText"])
            taken = inserted[: self.editor.cursor - (len(ghost.before) - len(inserted))]
            length = len(taken.encode("utf-16-le")) // 2
            self._tell("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": length})

    def _tell(self, method: str, params: dict[str, Any]) -> None:
        """Only of items that the server has given a name."""
        if params["item"].get("command"):
            self.client.notify(method, params)

    def _note(self, what: str, *, kind: str = "") -> None:
        line = self.editor.line_before
        ms = 1000 * (time.perf_counter() - self.started)
        grey = self.screen.visible(self.editor)
        self.played.moments.append(Moment(ms, what, line + self.editor.rest_of_line, len(line), grey, kind))


def log_of(window: Window) -> str:
    """What the server has written down."""
    return Path(window.client.log).read_text(encoding="utf-8", errors="replace")
