"""A language client over stdio as an editor has one: framing, requests, the server's own requests answered, progress and reports kept.

Knows: JSON-RPC and the few LSP messages that typing needs. Does not know: what is typed, what is measured.
"""

import asyncio
import contextlib
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWER_S = 180.0  # longer than anything a server does before it answers; then it is taken for dead
REPORT = "codestral/report"
CAPABILITIES = {
    "textDocument": {"inlineCompletion": {}, "synchronization": {"didSave": True}},
    "window": {"workDoneProgress": True},
    "workspace": {"didChangeWatchedFiles": {"dynamicRegistration": True}},
}


class ServerError(Exception):
    """The language server ended, was silent or refused. One line, for people."""


class EditorClient:
    """One server process. `ready` is set while nothing is being read, as far as the server's progress tells."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.ready = asyncio.Event()
        self.watches = False  # whether the server asked to hear of files that change on disk
        self.reports: dict[str, dict[str, Any]] = {}  # by uri, the last one
        self._news = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path
    ) -> "EditorClient":
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=errors, env=dict(environment), cwd=cwd
            )
        return cls(process, log)

    async def initialize(self, root: Path, options: Mapping[str, Any]) -> None:
        folder = {"uri": root.as_uri(), "name": root.name}
        params = {"processId": os.getpid(), "rootUri": folder["uri"], "workspaceFolders": [folder]}
        await self.ask("initialize", {**params, "capabilities": CAPABILITIES, "initializationOptions": dict(options)})
        self.notify("initialized", {})

    async def ask(self, method: str, params: Any) -> Any:
        """Raises ServerError."""
        self._last_id += 1
        answer = self._answers[self._last_id] = asyncio.get_running_loop().create_future()
        self._write({"id": self._last_id, "method": method, "params": params})
        try:
            return await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise ServerError(
                f"the language server did not answer {method} in {ANSWER_S:g} s; {self.last_words()}"
            ) from None

    def notify(self, method: str, params: Any) -> None:
        self._write({"method": method, "params": params})

    async def news(self, timeout_s: float) -> bool:
        """Waits for any message; False where none came."""
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """An orderly end, or a hard one where the server does not take part."""
        try:
            await self.ask("shutdown", None)
            self.notify("exit", None)
            await asyncio.wait_for(self.process.wait(), 20)
        except (ServerError, TimeoutError):
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                self.process.kill()
            await self.process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"its last words: {lines[-1]}" if lines else "it left no message"

    def _write(self, message: dict[str, Any]) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        if self.process.returncode is not None:
            raise ServerError(f"the language server ended with {self.process.returncode}; {self.last_words()}")
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        try:
            while header := await stdout.readuntil(b"\r\n\r\n"):
                fields = dict(line.split(": ", 1) for line in header.decode("ascii").strip().split("\r\n"))
                self._take(json.loads(await stdout.readexactly(int(fields["Content-Length"]))))
        except asyncio.IncompleteReadError:
            error = ServerError(f"the language server closed its output; {self.last_words()}")
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)

    def _take(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if method is None:
            answer = self._answers.pop(message["id"], None)
            if answer is None or answer.done():
                return
            if "error" in message:
                answer.set_exception(ServerError(f"the language server refused: {message['error'].get('message')}"))
            else:
                answer.set_result(message.get("result"))
        elif "id" in message:
            registered = params.get("registrations", []) if isinstance(params, dict) else []
            self.watches |= any(each["method"] == "workspace/didChangeWatchedFiles" for each in registered)
            self._write({"id": message["id"], "result": None})
        elif method == "$/progress":
            kind = params["value"].get("kind")
            (self.ready.set if kind == "end" else self.ready.clear)()
        elif method == REPORT:
            self.reports[params["uri"]] = params
        self._news.set()
