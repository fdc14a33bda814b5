"""A small hub of our own: the endpoints that huggingface_hub asks, for one repository, and ways to go wrong.

GET  /api/models/ORG/NAME[/revision/R]     what is there
HEAD/GET /ORG/NAME/resolve/COMMIT/PATH     a small file, or a redirect to the large one
GET  /store/DIGEST                         a large file, whole or from a byte on
"""

import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 10_000  # from here on a file is kept as git LFS keeps it
BLOCK = 1 << 16


@dataclass
class FakeHub:
    """`repo` has `files`. The rest is what goes wrong; `asked` has one line for each request."""

    repo: str
    files: dict[str, bytes]
    url: str = ""
    licence: str | None = "apache-2.0"
    revisions: tuple[str, ...] = ("main", "v2")
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # part of a path -> status and X-Error-Code
    cut_after: int | None = None  # bytes of a large file, after which the connection is closed, once
    stall_after: int | None = None  # bytes of a large file, after which nothing comes any more
    spoil: bool = False  # large files come with one byte changed
    shorten: bool = False  # large files come one byte short
    ignore_range: bool = False
    asked: list[str] = field(default_factory=list)
    hosts_asked: set[str] = field(default_factory=set)  # as a proxy

    def digest(self, path: str) -> str:
        data = self.files[path]
        if len(data) >= LARGE_BYTES:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def paths_asked(self, start: str) -> list[str]:
        return [line for line in self.asked if line.startswith(start)]

    def routes(self) -> list[Route]:
        return [
            Route("/api/models/{rest:path}", self.info),
            Route("/store/{digest}", self.store),
            Route("/{org}/{name}/resolve/{revision}/{path:path}", self.resolve, methods=["GET", "HEAD"]),
        ]

    def application(self) -> ASGIApp:
        inner = Starlette(routes=self.routes())

        async def whole_addresses_too(scope: Scope, receive: Receive, send: Send) -> None:
            """A proxy is asked for a whole address; the hub can play one too, for any host."""
            path = scope["path"]
            if path.startswith("http://"):
                self.hosts_asked.add(path.split("/")[2])
                scope = {**scope, "path": "/" + path.split("/", 3)[3]}
            await inner(scope, receive, send)

        return whole_addresses_too

    async def info(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        found = re.fullmatch(r"([^/]+/[^/]+)(?:/revision/(.+))?", request.path_params["rest"])
        if found is None or found[1] != self.repo:
            return self._error(404, "RepoNotFound")
        if found[2] not in (None, COMMIT, *self.revisions):
            return self._error(404, "RevisionNotFound")
        siblings = [self._sibling(path) for path in self.files]
        card = {"cardData": {"license": self.licence}, "tags": [f"license:{self.licence}"]} if self.licence else {}
        return JSONResponse({"id": self.repo, "sha": COMMIT, "gated": False, "siblings": siblings, **card})

    def _sibling(self, path: str) -> dict:
        data = self.files[path]
        entry: dict = {"rfilename": path, "size": len(data), "blobId": self.digest(path)}
        if len(data) >= LARGE_BYTES:
            entry["blobId"] = "f" * 40
            entry["lfs"] = {"sha256": self.digest(path), "size": len(data), "pointerSize": 130}
        return entry

    async def resolve(self, request: Request) -> Response:
        refused = self._refused(request)
        path = request.path_params["path"]
        if refused is not None:
            return refused
        if path not in self.files:
            return self._error(404, "EntryNotFound")
        data, digest = self.files[path], self.digest(path)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if len(data) < LARGE_BYTES:
            return Response(data, headers=headers)
        store = self.url.replace("127.0.0.1", "localhost")  # another host, as the real store is
        linked = {
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{digest}"',
            "Location": f"{store}/store/{digest}",
        }
        return Response(status_code=302, headers={**headers, **linked})

    async def store(self, request: Request) -> Response:
        refused = self._refused(request)
        if refused is not None:
            return refused
        data = next(data for path, data in self.files.items() if self.digest(path) == request.path_params["digest"])
        if self.spoil:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if self.shorten:
            data = data[:-1]
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        start = int(wanted[1]) if wanted and not self.ignore_range else 0
        if start > len(data):
            return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return StreamingResponse(self._stream(data[start:]), status_code=206 if start else 200, headers=headers)

    async def _stream(self, data: bytes) -> AsyncIterator[bytes]:
        limit = self.cut_after if self.cut_after is not None else self.stall_after
        for at in range(0, len(data), BLOCK):
            if limit is not None and at >= limit:
                if self.cut_after is not None:
                    self.cut_after = None
                    raise ConnectionResetError("cut, as ordered")
                while True:  # until the client has gone
                    await _sleep(0.05)
            yield data[at : at + BLOCK]

    def _refused(self, request: Request) -> Response | None:
        path = request.url.path
        wanted = request.headers.get("range")
        self.asked.append(f"{request.method} {path}{f' {wanted}' if wanted else ''}")
        if path.startswith("/store/"):
            assert "authorization" not in request.headers  # tokens are for the hub alone
        for part, (status, code) in self.refuse.items():
            if part in path:
                return self._error(status, code)
        return None

    def _error(self, status: int, code: str) -> Response:
        return Response(status_code=status, headers={"X-Error-Code": code} if code else {})


async def _sleep(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """The hub on a port of its own, in a thread."""
    config = uvicorn.Config(
        hub.application(), port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)  # the thread is starting; pytest's own time limit ends a wait in vain
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)
