"""A language client of few words: raw JSON-RPC over a real server's stdin and stdout. Knows framing and ids; judges nothing."""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0
INLINE: dict[str, Any] = {"textDocument": {"inlineCompletion": {}}}


class LspClient:
    """Answers the server's own requests with null and keeps everything that it says."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env), cwd=cwd
        )
        self.messages: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._news = threading.Condition()
        self._last_id = 0
        for work in (self._read_messages, self._read_errors):
            threading.Thread(target=work, daemon=True).start()

    def initialize(self, folder: Path | None, **params: Any) -> dict[str, Any]:
        """The server's capabilities."""
        uri = folder.as_uri() if folder is not None else None
        folders = [{"uri": uri, "name": "w"}] if uri else None
        wanted = {"processId": os.getpid(), "rootUri": uri, "workspaceFolders": folders, "capabilities": INLINE}
        result = self.ask("initialize", {**wanted, **params})
        self.notify("initialized", {})
        return result["capabilities"]

    def open(self, uri: str, text: str) -> None:
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, version: int, *changes: dict[str, Any]) -> None:
        self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": version}, "contentChanges": list(changes)},
        )

    def save(self, uri: str) -> None:
        self.notify("textDocument/didSave", {"textDocument": {"uri": uri}})

    def type(self, uri: str, version: int, at: tuple[int, int], text: str) -> None:
        """Text that the user types at a line and a character."""
        position = {"line": at[0], "character": at[1]}
        self.change(uri, version, {"range": {"start": position, "end": position}, "text": text})

    def suggest(self, uri: str, line: int, character: int, *, invoked: bool = False) -> int:
        """The id of a request for an inline completion, which the user has `invoked` by name or the editor made by itself."""
        position = {"line": line, "character": character}
        context = {"triggerKind": 1 if invoked else 2}
        params = {"textDocument": {"uri": uri}, "position": position, "context": context}
        return self.send("textDocument/inlineCompletion", params)

    def suggested(self, uri: str, line: int, character: int, *, invoked: bool = False) -> list[str]:
        items = self.answer(self.suggest(uri, line, character, invoked=invoked))["result"]["items"]
        return [item["insertText"] for item in items]

    def stop(self) -> int:
        """A clean end; the exit code."""
        self.ask("shutdown", None)
        self.notify("exit", None)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, method: str, params: Any) -> int:
        self._last_id += 1
        self._write({"id": self._last_id, "method": method, "params": params})
        return self._last_id

    def notify(self, method: str, params: Any) -> None:
        self._write({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        answer = self.answer(self.send(method, params))
        assert "error" not in answer, answer
        return answer["result"]

    def answer(self, request: int) -> dict[str, Any]:
        return self.wait_for(lambda message: message.get("id") == request and "method" not in message)

    def answers(self, request: int) -> list[dict[str, Any]]:
        return [message for message in self.messages if message.get("id") == request and "method" not in message]

    def notified(self, method: str) -> list[Any]:
        return [message["params"] for message in self.messages if message.get("method") == method]

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                for message in self.messages:
                    if wanted(message):
                        return message
                left = deadline - time.monotonic()
                assert left > 0, f"no such message; the server said {self.messages[-5:]} and {self.errors[-20:]}"
                self._news.wait(min(left, 1.0))

    def wait_for_error(self, words: str) -> str:
        """A line of the server's log."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                for line in self.errors:
                    if words in line:
                        return line
                assert deadline > time.monotonic(), f"no line with {words!r} in {self.errors[-20:]}"
                self._news.wait(1.0)

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _read_messages(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        while header := stdout.readline():
            # Whatever else stands on stdout is a fault that this makes visible.
            assert header.lower().startswith(b"content-"), header
            length = int(header.split(b":")[1]) if header.lower().startswith(b"content-length") else 0
            while (line := stdout.readline()) not in (b"\r\n", b""):
                assert line.lower().startswith(b"content-"), line
            message = json.loads(stdout.read(length))
            with self._news:
                self.messages.append(message)
                self._news.notify_all()
            if "id" in message and "method" in message:
                # A server that has ended meanwhile needs no answer.
                with contextlib.suppress(OSError, ValueError):
                    self._write({"id": message["id"], "result": None})

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.errors.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
