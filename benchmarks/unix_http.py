"""JSON over HTTP over a Unix socket, blocking, one connection kept: the least that stands between a clock and a server.

Knows: sockets. Does not know: what is asked.
"""

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT_S = 600.0


class HttpError(Exception):
    """The server is not there, broke off or refused. One line, for people."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnixHttp:
    """A connection that a server has closed meanwhile is opened again, once."""

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path
        self._connection = _Connection(path, timeout_s)

    def ask(self, method: str, url: str, body: bytes | None = None) -> Any:
        """The answer's JSON. Raises HttpError."""
        try:
            try:
                status, data = self._exchange(method, url, body)
            except (OSError, http.client.HTTPException):
                self.close()
                status, data = self._exchange(method, url, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise HttpError(f"{self.path}: {method} {url}: {error or type(error).__name__}") from None
        if status >= 400:
            raise HttpError(f"{self.path}: {method} {url}: status {status}: {data[:300].decode(errors='replace')}")
        return json.loads(data) if data else None

    def _exchange(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, url, body=body, headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def is_up(self, url: str) -> Any:
        """The answer, None where there is no server or it is not ready yet."""
        with contextlib.suppress(HttpError, json.JSONDecodeError):
            return self.ask("GET", url)
        return None

    def close(self) -> None:
        self._connection.close()
