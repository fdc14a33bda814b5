"""How much the model does for nobody: steps of decoding for a request after a newer one of the same document has come.

A step is one token, and with it the check of a draft, if there is one.

Asked of a daemon directly, since a language server closes the older connection, and with it goes the report. Knows: the daemon's wire. Does not know: LSP.
"""

import statistics
import threading
import time
from typing import Any, NamedTuple

from msgspec import json

from benchmarks.daemon_process import DaemonProcess
from benchmarks.scratch_workspace import Place
from benchmarks.unix_http import UnixHttp
from daemon.protocol import CompletionRequest

# What a model goes on with for long: tables, lists and prose, asked for without a limit of time.
PROMPTS = (
    "NAMES = ['alpha', 'beta', 'gamma', 'delta', 'epsilon', ",
    "SQUARES = {1: 1, 2: 4, 3: 9, 4: 16, 5: 25, 6: 36, 7: 49, 8: 64, ",
    f"NUMBERS = [{', '.join(map(str, range(1, 30)))}, ",
    "TEXT = '''\nalpha beta gamma\n",
    "# a long comment about ",
)
GAPS_S = (0.004, 0.008, 0.012, 0.016, 0.024)
MAX_TOKENS = 400
DOCUMENT = "feel"


class Superseded(NamedTuple):
    """`n_tokens` were decoded for a request that ended `late_ms` after a newer one had reached the daemon; at its own speed that is `n_after` steps."""

    n_tokens: int
    late_ms: float
    ms_per_step: float

    @property
    def n_after(self) -> int:
        """Whole steps: the one that was under way when the newer request came is not yet one."""
        return int(self.late_ms / self.ms_per_step) if self.ms_per_step else 0


def superseded(place: Place, *, model: str, precision: str, repetitions: int) -> list[Superseded]:
    """Starts a daemon of its own and ends it. Requests that had ended before the newer one came do not count. Raises DaemonError or HttpError."""
    daemon = DaemonProcess(place, model=model, precision=precision, threads=None)
    daemon.start()
    try:
        older, newer = UnixHttp(daemon.socket), UnixHttp(daemon.socket)
        overhead_ms = _overhead_ms(newer)
        pairs = [(prompt, gap_s) for _ in range(repetitions) for prompt in PROMPTS for gap_s in GAPS_S]
        found = [_race(older, newer, prompt, gap_s=gap_s, overhead_ms=overhead_ms) for prompt, gap_s in pairs]
        older.close()
        newer.close()
    finally:
        daemon.stop()
    return [each for each in found if each is not None]


def _overhead_ms(http: UnixHttp) -> float:
    """What HTTP and the way there and back cost a request beside its own time, on an idle daemon."""
    spent = []
    for _ in range(10):
        started = time.perf_counter()
        answer = _ask(http, "x", max_tokens=1)
        spent.append(1000 * (time.perf_counter() - started) - answer["report"]["ms"]["total"])
    return statistics.median(spent)


def _race(older: UnixHttp, newer: UnixHttp, prompt: str, *, gap_s: float, overhead_ms: float) -> Superseded | None:
    """The daemon tells how long it had each request, not when it got it: what the newer one took beyond `overhead_ms` it waited to be received."""
    answers: list[Any] = []
    sent: list[float] = []

    def ask() -> None:
        sent.append(time.perf_counter())
        answers.append(_ask(older, prompt))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(gap_s)
    newer_at = time.perf_counter()
    newest = _ask(newer, prompt + "x", max_tokens=1)
    took_ms = 1000 * (time.perf_counter() - newer_at)
    thread.join()
    report, usage = answers[0]["report"], answers[0]["usage"]
    n_tokens = int(usage["completion_tokens"])
    if report["stopped_by"] != "cancelled" or not n_tokens:
        return None
    waited_ms = max(0.0, took_ms - newest["report"]["ms"]["total"] - overhead_ms)
    gap_ms = 1000 * (newer_at - sent[0]) + waited_ms
    n_steps = max(1, n_tokens - int(report["accepted"]))  # each gives a token of its own and those of its draft
    return Superseded(n_tokens, max(0.0, report["ms"]["total"] - gap_ms), report["ms"]["decode"] / n_steps)


def _ask(http: UnixHttp, prompt: str, *, max_tokens: int = MAX_TOKENS) -> Any:
    request = CompletionRequest(prompt=prompt, document=DOCUMENT, max_tokens=max_tokens, max_lines=100)
    return http.ask("POST", "/v1/fim/completions", json.encode(request))
