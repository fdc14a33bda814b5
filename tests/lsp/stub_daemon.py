"""A small real daemon without a model, as a process:

`python stub_daemon.py --model NAME --precision P --socket PATH --idle-minutes N`. Speaks daemon.protocol.

It takes a lock as the real one does and writes one JSON line for each thing that happens to the file in STUB_EVENTS.
The environment tells it how to behave; the text of a completion is `<n>`, the number of the request, unless the
prompt's last line holds an order: `#wait` answers when the client has gone, `#fail` answers 500, `#two` gives two
lines, `#nothing` an empty text, `#stuck` one because of the text right of the cursor, and `#say WORDS#` gives the words,
`#cut WORDS#` as well, cut off by the number of tokens, `#any A|B|C#` up to as many texts as were asked for, and
`#over N WORDS#` the words in place of N characters right of the cursor.
"""

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.protocol import (
    PROTOCOL_VERSION,
    BackgroundReading,
    CacheReport,
    Calibrated,
    Choice,
    CompletionRequest,
    CompletionResponse,
    ContextRequest,
    ContextStatus,
    ErrorBody,
    ErrorResponse,
    Health,
    Message,
    ModelCard,
    PurgeReport,
    PurgeRequest,
    Report,
    Timings,
    Usage,
    WindowSizes,
)

PROTOCOL = int(os.environ.get("STUB_PROTOCOL", PROTOCOL_VERSION))
LOADING_S = float(os.environ.get("STUB_LOADING_S", "0"))
FORGETS = os.environ.get("STUB_FORGETS")
POST_S = float(os.environ.get("STUB_POST_S", "0"))
FEED_STEPS = int(os.environ.get("STUB_FEED_STEPS", "2"))
NOTHING_KEPT = '{"model": "stub", "tiers": [], "states": [], "tokens_per_s": 0.0, "folder": ""}'
CACHE = os.environ.get("STUB_CACHE", NOTHING_KEPT)  # a CacheReport as JSON
WINDOW = os.environ.get("STUB_WINDOW")  # WindowSizes as JSON
CARD = ModelCard(
    id="stub",
    bytes_per_token=3.0,
    max_context_tokens=100_000,
    window=msgspec.json.decode(WINDOW, type=WindowSizes) if WINDOW else None,
    strategy="spm" if WINDOW else None,
    calibrated=Calibrated(n_holes=40, date="2026-11-24") if WINDOW else None,
)


def event(kind: str, **details: Any) -> None:
    if path := os.environ.get("STUB_EVENTS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, "pid": os.getpid(), **details}) + "\n")


class Stub:
    def __init__(self, model: str, precision: str) -> None:
        self.model, self.precision = model, precision
        self.started = time.monotonic()
        self.tokens: dict[str, int] = {}
        self.steps: dict[str, int] = {}
        self.documents: dict[str, dict[str, str]] = {}
        self.n_completions = 0
        self.purged = False
        self.server: uvicorn.Server | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.health),
            Route("/v1/contexts", self.post, methods=["POST"]),
            Route("/v1/contexts/{id}", self.status),
            Route("/v1/fim/completions", self.complete, methods=["POST"]),
            Route("/v1/cache", self.cache),
            Route("/v1/cache/purge", self.purge, methods=["POST"]),
            Route("/v1/shutdown", self.shutdown, methods=["POST"]),
        ]

    async def health(self, _: Request) -> Response:
        loading = time.monotonic() - self.started < LOADING_S
        failed = os.environ.get("STUB_FAILED")
        state = "failed" if failed else "loading" if loading else "ready"
        return answer(
            Health(
                service=os.environ.get("STUB_SERVICE", "codestral-lsp"),
                protocol=PROTOCOL,
                version="0.0",
                pid=os.getpid(),
                state=state,
                error=failed,
                model=CARD if state == "ready" else None,
                contexts=len(self.tokens),
                store_bytes=1_000_000,
                store_budget_bytes=2_000_000,
                uptime_s=time.monotonic() - self.started,
                idle_timeout_s=1800.0,
                asked_model=self.model,
                asked_precision=self.precision,
                reading=self.reading(),
            )
        )

    def reading(self) -> BackgroundReading | None:
        left = [self.as_status(context) for context in self.tokens if self.steps[context] < FEED_STEPS]
        if not left:
            return None
        first = left[0]
        return BackgroundReading(context=first.id, tokens=first.tokens, tokens_done=first.tokens_fed, tokens_per_s=10.0)

    def forget(self) -> None:
        """All contexts, once for each time that the file is made."""
        if FORGETS and os.path.exists(FORGETS):
            os.unlink(FORGETS)
            self.documents.clear()
            self.tokens.clear()
            self.steps.clear()

    async def post(self, request: Request) -> Response:
        self.forget()
        posted = msgspec.json.decode(await request.body(), type=ContextRequest)
        event("posting", on=posted.on)
        await asyncio.sleep(POST_S)
        if posted.on is not None and posted.on not in self.documents:
            return refuse(404, "unknown_context", f"context {posted.on} is unknown here, post its documents again")
        documents = dict(self.documents[posted.on]) if posted.on is not None else {}
        for path in (*posted.removed, *(document.path for document in posted.documents)):
            documents.pop(path, None)
        documents |= {document.path: document.text for document in posted.documents}
        context = hashlib.sha256(msgspec.json.encode(sorted(documents.items()))).hexdigest()[:16]
        self.documents[context] = documents
        self.tokens[context] = sum(map(len, documents.values()))
        self.steps.setdefault(context, 0)
        event(
            "context",
            id=context,
            paths=list(documents),
            texts=documents,
            workspace=posted.workspace,
            on=posted.on,
            posted=[document.path for document in posted.documents],
            removed=posted.removed,
        )
        return answer(self.as_status(context), status=202)

    async def status(self, request: Request) -> Response:
        context = request.path_params["id"]
        if context not in self.tokens:
            return refuse(404, "unknown_context", f"context {context} is unknown here, post its documents again")
        self.steps[context] = min(FEED_STEPS, self.steps[context] + 1)
        event("status", id=context)
        return answer(self.as_status(context))

    def as_status(self, context: str) -> ContextStatus:
        fed = self.tokens[context] * self.steps[context] // FEED_STEPS
        state = "ready" if self.steps[context] == FEED_STEPS else "feeding"
        return ContextStatus(
            id=context,
            state=state,
            n_documents=len(self.documents[context]),
            tokens=self.tokens[context],
            tokens_fed=fed,
            tokens_reused=0,
            current=self.steps[context] / FEED_STEPS,
        )

    async def complete(self, request: Request) -> Response:
        wanted = msgspec.json.decode(await request.body(), type=CompletionRequest)
        self.forget()
        self.n_completions += 1
        number, order = self.n_completions, wanted.prompt.rpartition("\n")[2]
        event("complete", number=number, **msgspec.to_builtins(wanted))
        if wanted.context is not None and wanted.context not in self.tokens:
            return refuse(404, "unknown_context", f"context {wanted.context} is unknown here, post its documents again")
        if "#wait" in order:
            while (await request.receive())["type"] != "http.disconnect":
                continue
            event("disconnected", number=number)
            return refuse(499, "cancelled", "the client closed its connection")
        if "#fail" in order:
            return refuse(500, "internal", "the completion failed: as ordered")
        said = re.search(r"#(say|cut) (.*?)#", order)
        text = (
            said[2].replace("\\n", "\n")
            if said
            else ""
            if "#nothing" in order or "#stuck" in order
            else f"<{number}>\n<more>"
            if "#two" in order
            else f"<{number}>"
        )
        why = "rest_of_line" if "#stuck" in order else None
        n_tokens = self.tokens.get(wanted.context or "", 0)
        stopped_by = "max_tokens" if said and said[1] == "cut" else "line"
        several = re.search(r"#any (.*?)#", order)
        over = re.search(r"#over (\d+) (.*?)#", order)
        texts = several[1].split("|")[: wanted.n] if several else [over[2] if over else text]
        return answer(
            response(
                *texts,
                replaces=int(over[1]) if over else 0,
                context_tokens=n_tokens,
                empty_because=why,
                stopped_by=stopped_by,
            )
        )

    async def cache(self, _: Request) -> Response:
        if message := os.environ.get("STUB_CACHE_FAILS"):
            return refuse(500, "internal", message)
        found = msgspec.json.decode(CACHE, type=CacheReport)
        return answer(msgspec.structs.replace(found, model=self.model) if self.model != "bundled" else found)

    async def purge(self, request: Request) -> Response:
        workspace = msgspec.json.decode(await request.body(), type=PurgeRequest).workspace
        event("purge", model=self.model, workspace=workspace)
        kept = [] if self.purged else msgspec.json.decode(CACHE, type=CacheReport).states
        self.purged = True  # all memory goes, whatever is purged first
        return answer(PurgeReport(states=len(kept), nbytes=sum(state.nbytes for state in kept)))

    async def shutdown(self, _: Request) -> Response:
        assert self.server is not None
        self.server.should_exit = True
        return answer({})


def response(
    *texts: str, context_tokens: int, empty_because: str | None, stopped_by: str = "line", replaces: int = 0
) -> CompletionResponse:
    return CompletionResponse(
        id="cmpl-1",
        model="stub",
        created=0,
        choices=[
            Choice(message=Message(content=text), finish_reason="stop", index=n, replaces=replaces)
            for n, text in enumerate(texts)
        ],
        usage=Usage(prompt_tokens=context_tokens + 3, completion_tokens=2, total_tokens=context_tokens + 5),
        report=Report(
            context_tokens=context_tokens,
            tokens_fed=3,
            tokens_reused=context_tokens,
            segment="line",
            context_ready=context_tokens > 0,
            stopped_by=stopped_by,
            ms=Timings(context=0.5, feed=1.5, decode=2.0, total=4.0),
            empty_because=empty_because,
        ),
    )


def answer(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def refuse(status: int, kind: str, message: str) -> Response:
    return answer(ErrorResponse(error=ErrorBody(message=message, type=kind)), status=status)


async def end_with_the_test() -> None:
    while os.path.exists(os.environ["STUB_ALIVE"]):  # noqa: ASYNC240, five times a second
        await asyncio.sleep(0.2)
    os._exit(0)


async def serve(stub: Stub, listener: socket.socket) -> None:
    watching = asyncio.create_task(end_with_the_test())
    config = uvicorn.Config(
        Starlette(routes=stub.routes()), log_level="warning", lifespan="off", timeout_graceful_shutdown=1
    )
    stub.server = uvicorn.Server(config)
    await stub.server.serve(sockets=[listener])
    watching.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--idle-minutes", required=True, type=float)
    for ours in ("--store-bytes", "--disk-bytes", "--snapshots"):  # the stub keeps nothing
        parser.add_argument(ours)
    parser.add_argument("--foreground", action="store_true")
    wanted = parser.parse_args()
    if message := os.environ.get("STUB_DIES"):
        print(f"first words\n{message}", file=sys.stderr)
        raise SystemExit(3)
    lock = wanted.socket.with_suffix(".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        event("lost")
        return
    wanted.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(wanted.socket))
    listener.listen(64)
    event(
        "serving",
        model=wanted.model,
        precision=wanted.precision,
        idle_minutes=wanted.idle_minutes,
        cwd=os.getcwd(),
    )
    asyncio.run(serve(Stub(wanted.model, wanted.precision), listener))
    wanted.socket.unlink(missing_ok=True)
    event("left")


if __name__ == "__main__":
    main()
