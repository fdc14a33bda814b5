"""Plays a script in the real language server over stdio, and takes down what each event cost.

A clock runs from the moment an event's change is sent to the moment the suggestion is there. The next event begins when the answer has come, after the
pause that the script asks for. Knows: LSP's messages, the daemon's health. Does not know: peers, statistics.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.daemon_process import DaemonProcess
from benchmarks.editor_client import EditorClient, ServerError
from benchmarks.prompt_reader import PromptReader, request_of
from benchmarks.scratch_workspace import Place, write_files
from benchmarks.typing_script import RESTARTS, Event, Script, edited
from daemon.protocol import PROTOCOL_VERSION
from lsp.launch import stop_at

SCRIPT = Path(sys.executable).with_name("codestral-lsp")
REPORT_S = 0.5  # how long a report may come after the answer it belongs to
CURRENT_S, POLL_S = 150.0, 0.1  # until a saved file is in the state; how often that is looked at
READY_S = 900.0  # for reading the repository at first
RELATED_TOKENS = 2_048  # that outlines of what a file imports may have
SAVED_S = 0.5  # after a save, for the client to tell the daemon, before either is stopped where it stands
OPEN = "open"
HAS_CONTEXT = 0.9  # of the repository tokens that answers had before, which an answer after a restart must have
READ_AGAIN = 0.5  # of the repository's tokens: fed by a daemon that has restarted, they were not found on disk

Report = Mapping[str, Any]  # daemon.protocol.Report, as JSON


@dataclass(frozen=True, slots=True)
class Sample:
    """One event. `kind`: the first that a daemon answers in a file is OPEN, whatever it was.

    `ms`: key to answer; after a restart, to the first answer that knows the repository.

    `report` is the daemon's, None where none came.
    """

    kind: str
    round: int
    ms: float
    text: str = ""
    report: Report | None = None
    is_reused: bool = False  # answered by the client, from what it had suggested before
    first_ms: float = 0.0  # to the first answer, whatever it knew
    until_current_s: float | None = None  # after a save of another file; None: not measured, or not within CURRENT_S
    daemon_fed: int = 0  # after a restart: all tokens that the new daemon has fed by then, in the background too
    explained: int = (
        0  # tokens that may be fed without reading BASE again: the prompt itself, and what is new since the start
    )

    @property
    def asked_model(self) -> bool:
        return self.report is not None and not self.is_reused

    @property
    def fed(self) -> int:
        return int(self.report["tokens_fed"]) if self.report is not None else 0

    @property
    def feeds_base(self) -> bool:
        """Whether tokens of BASE were fed: all of them, where the state was resumed before the first, or more tokens than anything else explains."""
        if not self.asked_model or self.report is None or not self.report["context_tokens"]:
            return False
        again = self.daemon_fed >= READ_AGAIN * self.report["context_tokens"] and self.daemon_fed > self.explained
        return (
            again
            or self.report["segment"] == "root"
            or (self.report["segment"] == "base" and self.fed > self.explained)
        )


class Replay:
    """An editor window on a workspace of its own, with a daemon of its own. `threads`: the daemon's, None for its default. `reader` counts tokens."""

    def __init__(self, place: Place, *, options: Mapping[str, Any], threads: int | None, reader: PromptReader) -> None:
        self.place, self.options, self.threads, self.reader = place, dict(options), threads, reader
        model, precision = self.options.get("model", "bundled"), self.options.get("precision", "auto")
        self.daemon = DaemonProcess(place, model=model, precision=precision, threads=threads)
        self._client: EditorClient | None = None
        self._n_probes = 0
        self._frozen = 0  # pid of the daemon that is stopped where it stands
        self.texts: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.pushes_reports: bool | None = None  # not known before the first answer
        self.new_tokens = 0  # of files that were saved since the start
        self.context_tokens = 0  # that the last answer knew
        self._met: set[str] = set()  # files in which the daemon that runs has answered

    async def start(self, script: Script) -> float:
        """Seconds until the repository is read. Raises ServerError."""
        self.script = script
        command = [str(SCRIPT), "--stdio"] if SCRIPT.exists() else [sys.executable, "-I", "-m", "lsp", "--stdio"]
        environment = self.place.environment
        if self.threads is not None:
            environment["CODESTRAL_LSP_DAEMON_COMMAND"] = f"{sys.executable} -I -m daemon --threads {self.threads}"
        log = self.place.root / "server.log"
        self._client = await EditorClient.start(command, environment=environment, cwd=self.place.repository, log=log)
        started = time.perf_counter()
        await self.client.initialize(self.place.repository, self.options | {"reports": True})
        if self.options.get("context_max_tokens", 1):
            try:
                await asyncio.wait_for(self.client.ready.wait(), READY_S)
            except TimeoutError:
                raise ServerError(
                    f"the repository is not read after {READY_S:g} s; {self.client.last_words()}"
                ) from None
        return time.perf_counter() - started

    @property
    def client(self) -> EditorClient:
        assert self._client is not None, "not started"
        return self._client

    async def play(self, event: Event) -> Sample:
        await asyncio.sleep(event.pause_s)
        if event.kind in RESTARTS:
            await stop_at(self.daemon.socket)
            self._met.clear()
            if event.kind == "restart_ready":  # as the client would start it, so that it finds it running
                await asyncio.to_thread(self.daemon.start)
        if event.path not in self.texts:
            self._open(event.path)
        if event.saved:
            write_files(self.place.repository, {event.saved: self.texts[event.saved]})
            self._saved(event.saved)
        before = self.context_tokens
        if event.written is not None:
            before = await self._settled(event.path, event.start) if before else 0
            write_files(self.place.repository, dict([event.written]))
            self._saved(event.written[0])
        started = time.perf_counter()
        if event.edits:
            self._change(event)
        text = await self._suggestion(event)
        ms = first_ms = 1000 * (time.perf_counter() - started)
        report, is_reused = await self._report(event)
        asked, until_current_s = None if is_reused else report, None
        if event.kind in RESTARTS:
            asked = await self._until(
                event.path, event.cursor, asked, lambda new: new["context_tokens"] >= HAS_CONTEXT * before
            )
            report, is_reused = asked, False
            ms = 1000 * (time.perf_counter() - started)
        elif before and event.written is not None:
            # The context is another one as soon as it has other tokens; until then an answer calls itself current by the old one.
            new = await self._until(
                event.path, event.cursor, asked, lambda new: new["context_tokens"] != before and is_current(new)
            )
            until_current_s = time.perf_counter() - started if new is not None else None
            asked = new or asked
        if asked is not None:
            self.context_tokens = asked["context_tokens"] or self.context_tokens
        if event.saved:
            await asyncio.sleep(SAVED_S)
        is_first = not is_reused and event.path not in self._met
        if not is_reused:
            self._met.add(event.path)
        return Sample(
            OPEN if is_first and event.kind not in RESTARTS else event.kind,
            event.round,
            ms,
            text=text,
            report=report,
            is_reused=is_reused,
            first_ms=first_ms,
            until_current_s=until_current_s,
            daemon_fed=self.health().get("tokens_fed", 0) if event.kind in RESTARTS else 0,
            explained=self._explained(event) if report is not None else 0,
        )

    def health(self) -> dict[str, Any]:
        """Empty where no daemon of this version is ready."""
        found = self.daemon.health()
        return found if found.get("protocol") == PROTOCOL_VERSION else {}

    def freeze(self, frozen: bool) -> None:
        """Stops the daemon where it stands while another contestant has the machine, or lets it go on."""
        if not frozen and self._frozen:
            os.kill(self._frozen, signal.SIGCONT)
            self._frozen = 0
        elif frozen and (pid := self.health().get("pid", 0)):
            os.kill(pid, signal.SIGSTOP)
            self._frozen = pid

    async def close(self) -> None:
        self.freeze(False)
        if self._client is not None:
            await self._client.close()
        await stop_at(self.daemon.socket)

    async def _until(
        self, path: str, at: int, report: Report | None, wanted: Callable[[Report], bool]
    ) -> Report | None:
        """The first report that is as wanted, from `report` on. None: not within CURRENT_S.

        The model is asked again and again in the document `path` at offset `at`, as by keys that are taken back.
        """
        end = time.monotonic() + CURRENT_S
        while report is None or not wanted(report):
            if time.monotonic() > end:
                return None
            await asyncio.sleep(POLL_S)
            self._n_probes += 1
            word = f"~{self._n_probes}"  # another one each time, or the client would answer with what it suggested there before
            probe = Event("probe", path, at, at, word, at + len(word), 0)
            self._change(probe)
            await self._suggestion(probe)
            found, is_reused = await self._report(probe)
            self._change(Event("probe", path, at, at + len(word), "", at, 0))
            report = None if is_reused else found
        return report

    async def _settled(self, path: str, at: int) -> int:
        """The tokens of the context once everything that was changed so far is in the answers."""
        await asyncio.sleep(SAVED_S)
        report = await self._until(path, at, None, is_current)
        return 0 if report is None else report["context_tokens"]

    def _open(self, path: str) -> None:
        self.texts[path], self.versions[path] = self.script.opened[path], 1
        item = {"uri": self._uri(path), "languageId": "python", "version": 1, "text": self.texts[path]}
        self.client.notify("textDocument/didOpen", {"textDocument": item})

    def _saved(self, path: str) -> None:
        """What an editor says; of a file that lies on disk it also says that it has changed there, if the server wants to hear that."""
        self.new_tokens += self.reader.n_document(path, (self.place.repository / path).read_text(encoding="utf-8"))
        self.client.notify("textDocument/didSave", {"textDocument": {"uri": self._uri(path)}})
        if self.client.watches:
            self.client.notify("workspace/didChangeWatchedFiles", {"changes": [{"uri": self._uri(path), "type": 2}]})

    def _change(self, event: Event) -> None:
        text = self.texts[event.path]
        where = {"start": position(text, event.start), "end": position(text, event.end)}
        self.texts[event.path] = edited(text, event)
        self.versions[event.path] += 1
        document = {"uri": self._uri(event.path), "version": self.versions[event.path]}
        changes = [{"range": where, "text": event.text}]
        self.client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": changes})

    async def _suggestion(self, event: Event) -> str:
        answer = await self.client.ask(
            "textDocument/inlineCompletion",
            {
                "textDocument": {"uri": self._uri(event.path)},
                "position": position(self.texts[event.path], event.cursor),
                "context": {"triggerKind": 2},
            },
        )
        items = answer["items"] if isinstance(answer, dict) else answer or []
        return items[0]["insertText"] if items else ""

    async def _report(self, event: Event) -> tuple[Report | None, bool]:
        """(the report, whether the client answered by itself) of the answer that has just come. A server that sends none is asked for its last one."""
        uri, version = self._uri(event.path), self.versions[event.path]
        at = position(self.texts[event.path], event.cursor)
        end = time.monotonic() + (REPORT_S if self.pushes_reports is not False else 0)
        while self.pushes_reports is not False:
            found = self.client.reports.get(uri)
            if found is not None and found["version"] == version and found["position"] == at:
                self.pushes_reports = True
                return found["report"], bool(found["is_reused"])
            if not await self.client.news(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                break
        if self.pushes_reports:
            return None, False
        self.pushes_reports = False
        return await self.client.ask("codestral-lsp/lastReport", {"textDocument": {"uri": uri}}), False

    def _explained(self, event: Event) -> int:
        """The event's own head, windows and line, with room for outlines, and the documents that were saved since the start."""
        own = self.reader.n_own(request_of(self.texts[event.path], event.cursor, event.path))
        return own + RELATED_TOKENS + self.new_tokens

    def _uri(self, path: str) -> str:
        return (self.place.repository / path).as_uri()


def is_current(report: Report) -> bool:
    """Whether the answer's state has read every document as it is, as far as the daemon knows."""
    return report.get("current", 1.0) >= 1.0


def position(text: str, offset: int) -> dict[str, int]:
    """Of ASCII text."""
    return {"line": text.count("\n", 0, offset), "character": offset - text.rfind("\n", 0, offset) - 1}
