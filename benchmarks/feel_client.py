"""The language client of `editor_client` with what a screen needs: a request's number, so that it can be cancelled, and its answer at the moment it comes.

Knows: JSON-RPC. Does not know: what is typed.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.editor_client import ANSWER_S, REPORT, EditorClient

Heard = Callable[[Any, float], None]  # the result (None for an error), and when it came (time.perf_counter)


class FeelClient(EditorClient):
    """`costs`: what the server says that each answer has cost, by uri and version. `popups`: what it would have opened a window for."""

    def __init__(self, *more: Any) -> None:
        self.costs: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.popups: list[str] = []
        self.statuses: list[str] = []
        self.refused: list[str] = []
        self._heard: dict[int, Heard] = {}
        super().__init__(*more)

    def request(self, method: str, params: Any, heard: Heard) -> int:
        """The request's number; `heard` is called once, as soon as the answer is read."""
        self._last_id += 1
        self._heard[self._last_id] = heard
        self._write({"id": self._last_id, "method": method, "params": params})
        return self._last_id

    @property
    def n_waiting(self) -> int:
        """Requests without an answer so far."""
        return len(self._heard)

    async def all_heard(self) -> bool:
        """Waits for the answers to all requests; False: some did not come in ANSWER_S."""
        end = time.perf_counter() + ANSWER_S
        while self._heard and time.perf_counter() < end:
            await self.news(0.5)
        return not self._heard

    def _take(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params")
        if method is None and (heard := self._heard.pop(message["id"], None)) is not None:
            if "error" in message and message["error"].get("code") != -32800:
                self.refused.append(str(message["error"].get("message")))
            heard(message.get("result"), time.perf_counter())
            self._news.set()
            return
        if method == REPORT and isinstance(params, dict):
            self.costs[params["uri"], params["version"]] = params
        if method in ("window/showMessage", "window/showMessageRequest") and isinstance(params, dict):
            self.popups.append(str(params.get("message")))
        if method == "didChangeStatus" and isinstance(params, dict):
            self.statuses.append(str((params.get("codestral") or {}).get("state")))
        super()._take(message)
