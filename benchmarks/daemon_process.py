"""A daemon of one's own: started, asked over its socket, watched and stopped, without a language server before it.

Knows: the daemon's command line and routes, /proc. Does not know: editors, scripts.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import json, structs

from benchmarks.scratch_workspace import Place
from benchmarks.unix_http import HttpError, UnixHttp
from daemon.protocol import CompletionRequest, ContextRequest, Document, socket_path

READY_S = 900.0
WRITTEN_S = 60.0  # until nothing more is written to disk
STOP_S = 30.0


class DaemonError(Exception):
    """The daemon did not start or did not do what it was asked. One line, for people."""


class DaemonProcess:
    """`threads` None: as shipped. The socket is where a client in the same place looks for it."""

    def __init__(self, place: Place, *, model: str, precision: str, threads: int | None) -> None:
        self.place, self.model, self.precision, self.threads = place, model, precision, threads
        self.socket = socket_in(place, model=model, precision=precision)
        self.http = UnixHttp(self.socket)

    def start(self) -> float:
        """Seconds until it is ready. Raises DaemonError."""
        started = time.perf_counter()
        command = [sys.executable, "-I", "-m", "daemon", "--model", self.model, "--precision", self.precision]
        command += ["--socket", str(self.socket), *(["--threads", str(self.threads)] if self.threads else [])]
        log = self.place.root / "daemon.log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.place.environment, cwd="/"
            )
        while not self.health():
            if self.process.poll() is not None or time.perf_counter() - started > READY_S:
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
                raise DaemonError(f"{log}: the daemon is not ready: {lines[-1]}")
            time.sleep(0.01)
        return time.perf_counter() - started

    def health(self) -> dict[str, Any]:
        """Empty where no daemon is ready."""
        found = self.http.is_up("/healthz") or {}
        return found if found.get("state") == "ready" else {}

    def stop(self) -> None:
        """In an orderly way, so that it can keep what it wants to keep."""
        if self.http.is_up("/healthz"):
            self.http.ask("POST", "/v1/shutdown", b"{}")
        self.http.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def post(self, files: Iterable[tuple[str, str]], *, edits: float = 0.0) -> str:
        """The id of the context of these files. It is read in the background."""
        documents = [Document(path=path, text=text, edits=edits) for path, text in files]
        body = json.encode(ContextRequest(documents=documents, workspace=str(self.place.repository)))
        return self.http.ask("POST", "/v1/contexts", body)["id"]

    def read(self, context: str) -> dict[str, Any]:
        """Waits until a context is read; its status. Raises DaemonError."""
        end = time.monotonic() + READY_S
        while (status := self.http.ask("GET", f"/v1/contexts/{context}?wait_s=0.05"))["state"] != "ready":
            if time.monotonic() > end:
                raise DaemonError(
                    f"{self.socket}: a context of {status['tokens']} tokens is not read after {READY_S:g} s"
                )
        return status

    def complete(self, request: CompletionRequest, context: str | None) -> dict[str, Any]:
        """The report."""
        body = json.encode(structs.replace(request, context=context))
        return self.http.ask("POST", "/v1/fim/completions", body)["report"]

    def kept(self) -> dict[str, Any] | None:
        """What the daemon keeps (daemon.protocol.CacheReport); None where it does not tell."""
        try:
            return self.http.ask("GET", "/v1/cache")
        except HttpError as error:
            if "status" not in str(error):
                raise DaemonError(str(error)) from None
            return None

    def wait_written(self) -> dict[str, Any] | None:
        """What is kept once the disk tier has changed no more for two seconds; None where there is no such tier."""
        seen, since, end = None, time.monotonic(), time.monotonic() + WRITTEN_S
        while time.monotonic() < end and (report := self.kept()) is not None:
            there = [(tier["states"], tier["nbytes"]) for tier in report["tiers"] if tier["tier"] == "disk"]
            if there != seen:
                seen, since = there, time.monotonic()
            elif time.monotonic() - since > 2 and there and there[0][0]:
                return report
            time.sleep(0.2)
        return None

    def memory(self) -> dict[str, int]:
        """Bytes: VmRSS, what it holds now, and VmHWM, the most it has held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}


def socket_in(place: Place, *, model: str, precision: str) -> Path:
    """Where the daemon of a place listens."""
    kept = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = place.environment["XDG_RUNTIME_DIR"]
    try:
        return socket_path(model, precision)
    finally:
        if kept is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = kept
