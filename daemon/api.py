"""HTTP: the protocol's routes as a Starlette application around one worker.

Knows: requests, responses, disconnects. Does not know: tokens, states. The model is loaded in the background while `/healthz` already answers.
"""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.completion import Completion, Engine
from daemon.contexts import UnknownContext
from daemon.protocol import (
    PROTOCOL_VERSION,
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
    PurgeRequest,
    Usage,
)
from daemon.trim import Shown
from daemon.worker import Worker

MAX_CHOICES, MAX_LINES = 5, 100
BYTES_PER_TOKEN = 2.9  # of source code, for planning; the exact count is taken when a context arrives
NEWS_POLL_S, NEWS_EVERY_S = 0.02, 0.25  # a client that follows a context hears of it four times a second
log = logging.getLogger("codestral_lsp.api")
T = TypeVar("T")


class ApiError(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Service:
    """What the routes share. `load` runs once, in a thread; until then requests are answered 503."""

    def __init__(
        self,
        load: Callable[[], Engine],
        *,
        max_context_tokens: int,
        idle_timeout_s: float,
        failure_grace_s: float,
        stop: Callable[[], None],
        asked_model: str = "",
        asked_precision: str = "",
    ) -> None:
        self._load = load
        self.failure_grace_s = failure_grace_s  # how long a daemon without a model tells why
        self.max_context_tokens = max_context_tokens
        self.idle_timeout_s = idle_timeout_s
        self.stop = stop
        self.asked_model, self.asked_precision = asked_model, asked_precision
        self.worker: Worker | None = None
        self.error: str | None = None
        self.started = self.last_use = time.monotonic()

    async def start(self) -> None:
        try:
            engine = await run_in_threadpool(self._load)
        except Exception as error:
            # Shown to whoever asks /healthz: a daemon whose model cannot be loaded says why instead of dying in silence.
            self.error = str(error).splitlines()[0] if str(error) else repr(error)
            log.error("%s", self.error)
            await asyncio.sleep(self.failure_grace_s)
            self.stop()
            return
        self.worker = Worker(engine, max_context_tokens=self.max_context_tokens)
        self.worker.start()
        log.info("ready")

    async def watch_idle(self) -> None:
        """Ends the daemon after `idle_timeout_s` without a request, unless it is reading."""
        while True:
            await asyncio.sleep(min(1.0, self.idle_timeout_s / 4))
            if self.worker is not None and self.worker.busy:
                self.last_use = time.monotonic()
            if time.monotonic() - self.last_use > self.idle_timeout_s:
                log.info("idle for %.0f s, stopping", self.idle_timeout_s)
                self.stop()
                return

    @property
    def ready_worker(self) -> Worker:
        if self.worker is None:
            raise ApiError(
                503, "loading" if self.error is None else "failed", self.error or "the model is still being loaded"
            )
        return self.worker

    def card(self) -> ModelCard | None:
        if self.worker is None:
            return None
        engine = self.worker.engine
        profile = engine.profile
        return ModelCard(
            id=engine.model.name,
            bytes_per_token=BYTES_PER_TOKEN,
            max_context_tokens=self.max_context_tokens,
            precision=engine.model.precision,
            strategy=engine.layout.strategy,
            window=profile.window if profile is not None else None,
            calibrated=Calibrated(n_holes=profile.n_holes, date=profile.date.isoformat()) if profile else None,
        )

    def health(self) -> Health:
        store = self.worker.engine.store if self.worker is not None else None
        return Health(
            service="codestral-lsp",
            protocol=PROTOCOL_VERSION,
            version=metadata.version("codestral-lsp"),
            pid=os.getpid(),
            state="failed" if self.error else "loading" if self.worker is None else "ready",
            model=self.card(),
            error=self.error,
            contexts=len(self.worker.contexts) if self.worker is not None else 0,
            tokens_fed=self.worker.engine.tokens_fed if self.worker is not None else 0,
            store_bytes=store.nbytes if store is not None else 0,
            store_budget_bytes=store.budget_bytes if store is not None else 0,
            uptime_s=time.monotonic() - self.started,
            idle_timeout_s=self.idle_timeout_s,
            asked_model=self.asked_model,
            asked_precision=self.asked_precision,
            reading=self.worker.reading if self.worker is not None else None,
        )


def application(service: Service) -> Starlette:
    """The ASGI application; the caller starts and stops `service`."""

    async def health(_: Request) -> Response:
        return answer(service.health())

    async def models(_: Request) -> Response:
        card = service.card()
        return answer({"object": "list", "data": [card] if card is not None else []})

    async def add_context(request: Request) -> Response:
        worker = service.ready_worker
        wanted = decoded(await request.body(), ContextRequest)
        status = await run_in_threadpool(
            lambda: worker.add_context(
                wanted.documents, workspace=wanted.workspace, on=wanted.on, removed=wanted.removed
            )
        )
        return answer(status, status=202)

    async def context(request: Request) -> Response:
        return answer(await news(service.ready_worker, request.path_params["id"], wait_seconds(request)))

    async def complete(request: Request) -> Response:
        wanted = decoded(await request.body(), CompletionRequest)
        check(wanted)
        return await completion(service.ready_worker, request, wanted)

    async def cache(_: Request) -> Response:
        return answer(await run_in_threadpool(service.ready_worker.report))

    async def purge(request: Request) -> Response:
        worker = service.ready_worker
        wanted = decoded(await request.body(), PurgeRequest)
        return answer(await run_in_threadpool(worker.purge, wanted.workspace))

    async def shutdown(_: Request) -> Response:
        service.stop()
        return answer({})

    routes = [
        Route("/healthz", health),
        Route("/v1/models", used(service, models)),
        Route("/v1/contexts", used(service, add_context), methods=["POST"]),
        Route("/v1/contexts/{id}", used(service, context)),
        Route("/v1/fim/completions", used(service, complete), methods=["POST"]),
        Route("/v1/cache", used(service, cache)),
        Route("/v1/cache/purge", used(service, purge), methods=["POST"]),
        Route("/v1/shutdown", shutdown, methods=["POST"]),
    ]
    return Starlette(routes=routes)


def used(
    service: Service, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Counts the request as use and turns known errors into the protocol's."""

    async def wrapped(request: Request) -> Response:
        service.last_use = time.monotonic()
        try:
            return await handler(request)
        except ApiError as error:
            return answer(ErrorResponse(error=ErrorBody(message=str(error), type=error.kind)), status=error.status)
        except UnknownContext as error:
            body = ErrorBody(
                message=f"context {str(error)[:16]} is unknown here, post its documents again", type="unknown_context"
            )
            return answer(ErrorResponse(error=body), status=404)
        finally:
            service.last_use = time.monotonic()

    return wrapped


async def completion(worker: Worker, request: Request, wanted: CompletionRequest) -> Response:
    """Waits for the worker and for the client to go away, whichever comes first."""
    job = worker.submit(wanted)
    result = asyncio.ensure_future(asyncio.wrap_future(job.future))
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ApiError(499, "cancelled", "the client closed its connection")
        try:
            return answer(response(worker.engine.model.name, result.result()))
        except asyncio.CancelledError:
            raise ApiError(503, "stopping", "the daemon is stopping") from None
        except Exception as error:
            raise ApiError(500, "internal", f"the completion failed: {error!r}") from error
    finally:
        job.cancel.set()
        gone.cancel()


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def news(worker: Worker, context_id: str, wait_s: float) -> ContextStatus:
    """The status of a context: at once when it is ready, else when it is or there is news, at the latest after `wait_s`."""
    first = status = worker.context(context_id)
    started = time.monotonic()
    while status.state != "ready":
        waited = time.monotonic() - started
        if waited >= wait_s or (waited >= NEWS_EVERY_S and status != first):
            break
        await asyncio.sleep(NEWS_POLL_S)
        status = worker.context(context_id)
    return status


def response(model: str, done: Completion) -> CompletionResponse:
    n_tokens = len(done.generated.ids)
    first = choice(Shown(done.text, replaces=done.replaces), done.report.stopped_by, index=0)
    others = [choice(other.shown, other.stopped_by, index=number) for number, other in enumerate(done.others, start=1)]
    return CompletionResponse(
        id=f"cmpl-{uuid.uuid4().hex}",
        model=model,
        created=int(time.time()),
        choices=[first, *others],
        usage=Usage(
            prompt_tokens=done.prompt_tokens, completion_tokens=n_tokens, total_tokens=done.prompt_tokens + n_tokens
        ),
        report=done.report,
    )


def choice(shown: Shown, stopped_by: str, *, index: int) -> Choice:
    finish = "length" if stopped_by in ("max_tokens", "time") else "stop"
    return Choice(message=Message(content=shown.text), finish_reason=finish, index=index, replaces=shown.replaces)


def check(wanted: CompletionRequest) -> None:
    if wanted.temperature != 0:
        raise ApiError(
            400, "invalid_request", f"temperature is {wanted.temperature}, expected 0: only greedy decoding is served"
        )
    for name, value, most in (("n", wanted.n, MAX_CHOICES), ("max_lines", wanted.max_lines, MAX_LINES)):
        if not 1 <= value <= most:
            raise ApiError(400, "invalid_request", f"{name} is {value}, expected 1 to {most}")
    if not 0.0 <= wanted.min_confidence <= 1.0:
        raise ApiError(400, "invalid_request", f"min_confidence is {wanted.min_confidence}, expected 0 to 1")
    if wanted.indent.strip():
        raise ApiError(400, "invalid_request", f"indent is {wanted.indent!r}, expected whitespace")
    if not 1 <= wanted.max_tokens <= 4096:
        raise ApiError(400, "invalid_request", f"max_tokens is {wanted.max_tokens}, expected 1 to 4096")


def decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "invalid_request", f"{kind.__name__}: {error}") from None


def wait_seconds(request: Request) -> float:
    text = request.query_params.get("wait_s", "0")
    try:
        return min(30.0, max(0.0, float(text)))
    except ValueError:
        raise ApiError(400, "invalid_request", f"wait_s is {text!r}, expected seconds") from None


def answer(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
