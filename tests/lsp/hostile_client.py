"""A language client that means no good: it says what it likes, in any order, and counts what comes back.

Knows framing, ids and /proc; judges only what must hold whatever was said: each request is answered exactly once, nothing pops up, the process lives.
"""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lsp_client import PATIENCE_S, LspClient
from lsp_place import Place, program

PING = "hostile/ping"  # no server knows it, and every server must say so
POPUPS = ("window/showMessage", "window/showMessageRequest", "window/showDocument")


class HostileClient(LspClient):
    """`asked` are the ids of all requests that were sent in whatever form."""

    def __init__(self, *more: Any, **named: Any) -> None:
        self.asked: list[int | str] = []
        self._n_pings = 0
        self._n_counted = 0
        self._counts: Counter[int | str] = Counter()
        super().__init__(*more, **named)

    def say(self, message: Any) -> None:
        """Any JSON. A request's id is remembered where JSON-RPC allows it as one."""
        if isinstance(message, dict) and isinstance(message.get("method"), str):
            number = message.get("id")
            if isinstance(number, str) or type(number) is int:
                self.asked.append(number)
        self.say_bytes(json.dumps(message).encode())

    def say_bytes(self, body: bytes) -> None:
        """Anything, well framed."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def send(self, method: str, params: Any) -> int:
        request = super().send(method, params)
        self.asked.append(request)
        return request

    def ping(self) -> None:
        """What was said before has been read, and the server still answers."""
        self._n_pings += 1
        request = f"ping {self._n_pings}"
        self.say({"jsonrpc": "2.0", "id": request, "method": PING, "params": {}})
        found = self.wait_for(lambda message: message.get("id") == request and "method" not in message)
        assert found["error"]["code"] == -32601, found

    def settle(self) -> None:
        """Waits until as many answers are there as were asked for, and a moment longer for those too many."""
        deadline = time.monotonic() + PATIENCE_S
        while set(self.asked) - set(self.counts()) and time.monotonic() < deadline:
            time.sleep(0.01)  # polling what a thread reads, bounded by PATIENCE_S
        self.ping()

    def counts(self) -> Counter[int | str]:
        """How often each id was answered."""
        new = self.messages[self._n_counted :]
        self._n_counted += len(new)
        self._counts.update(each["id"] for each in new if "method" not in each and each.get("id") is not None)
        return self._counts

    def check(self, *, may_log: tuple[str, ...] = ()) -> None:
        """What must hold at any time, once it has settled. `may_log`: words of log lines that tell of a fault and may be there."""
        counts = self.counts()
        wrong = {number: counts[number] for number in self.asked if counts[number] != 1}
        assert not wrong, f"answered so often: {wrong}"
        assert not set(counts) - set(self.asked), "answers that nobody has asked for"
        assert not [message for message in self.messages if message.get("method") in POPUPS]
        assert self.process.poll() is None, self.errors[-20:]
        faults = [line for line in self.errors if "Traceback" in line and not any(word in line for word in may_log)]
        assert not faults, self.errors[-40:]

    def result_of(self, request: int) -> list[str] | int:
        """The texts that a request for an inline completion was answered with, or the error's code."""
        answer = self.answer(request)
        if "error" in answer:
            return int(answer["error"]["code"])
        return [item["insertText"] for item in answer["result"]["items"]]

    @property
    def rss_bytes(self) -> int:
        """Of the server's process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def hostile(place: Place, **env: str) -> HostileClient:
    """Started and nothing said yet."""
    client = HostileClient([*program(), "--stdio"], env={**place.env, **env}, cwd=place.repository)
    place.clients.append(client)
    return client


def inline(uri: Any, line: Any, character: Any, *, kind: Any = 2) -> dict[str, Any]:
    """Parameters of a request for an inline completion, whatever they are worth."""
    return {
        "textDocument": {"uri": uri},
        "position": {"line": line, "character": character},
        "context": {"triggerKind": kind},
    }
