"""The wire, spoken: one method for each thing the daemon can be asked.

Knows HTTP and `daemon.protocol`; knows no LSP, no files and no processes.

Cancelling a task that waits here closes its connection, and a closed connection is how the daemon's model is told to
stop.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from msgspec import json

from daemon.protocol import (
    PROTOCOL_VERSION,
    CacheReport,
    CompletionRequest,
    CompletionResponse,
    ContextRequest,
    ContextStatus,
    ErrorResponse,
    Health,
    PurgeReport,
    PurgeRequest,
)

if TYPE_CHECKING:
    import httpx

# httpx is imported by the first client instead of above: that takes 50 ms, and an editor waits for the server's first
# answer.

CONNECT_S = 5.0
PURGE_S = 120.0  # a disk may be slow to make sure that thousands of files are gone
ANSWER_S = 30.0  # on top of whatever the request itself is allowed to take
SERVICE = "codestral-lsp"

_Value = TypeVar("_Value")


class DaemonError(Exception):
    """The daemon did not do what it was asked. `type` is the daemon's word, or one of ours:

    "unreachable" nothing listens · "broken" the connection ended · "silent" no answer in time · "foreign" the answer
    is not in our protocol. The status is then 0.
    """

    def __init__(self, message: str, *, type: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.type = type
        self.status = status

    @property
    def is_gone(self) -> bool:
        """True where a daemon that is started again could answer."""
        return self.type in ("unreachable", "broken", "silent")


class _Hello(msgspec.Struct, frozen=True):
    """What every version of the daemon says of itself, so that another version's can be asked to leave."""

    service: str
    protocol: int
    pid: int = 0
    version: str = "unknown"


class Client:
    """One daemon behind one socket. Connections are opened when they are needed, so making a client cannot fail."""

    def __init__(self, socket: Path) -> None:
        import httpx

        self.socket = socket
        # No proxy of the environment may come between, and without TLS there are no certificates to load, which takes
        # 50 ms.
        transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False, limits=httpx.Limits(max_connections=None))
        self._http = httpx.AsyncClient(transport=transport, base_url="http://daemon", trust_env=False)

    async def health(self, *, timeout_s: float = CONNECT_S) -> Health:
        """Raises DaemonError of type "foreign" when what answers is not a daemon of ours.

        A daemon of another protocol gives a Health without a model.
        """
        body = await self._ask("GET", "/healthz", read_s=timeout_s, any_status=True)
        hello = _decode(body, _Hello)
        if hello.service != SERVICE:
            raise _foreign("/healthz")
        if hello.protocol != PROTOCOL_VERSION:
            return Health(service=SERVICE, protocol=hello.protocol, version=hello.version, pid=hello.pid, state="ready")
        return _decode(body, Health)

    async def post_context(self, context: ContextRequest) -> ContextStatus:
        """Raises DaemonError with status 404 when the daemon does not know the context that this one is a change of."""
        answer = await self._ask("POST", "/v1/contexts", body=json.encode(context), read_s=2 * ANSWER_S)
        return _decode(answer, ContextStatus)

    async def context_status(self, context: str, *, wait_s: float = 0.0) -> ContextStatus:
        """Waits for news for up to `wait_s`.

        Raises DaemonError with status 404 when the daemon does not know the context.
        """
        return _decode(
            await self._ask("GET", f"/v1/contexts/{context}?wait_s={wait_s:g}", read_s=wait_s + ANSWER_S), ContextStatus
        )

    async def complete(self, request: CompletionRequest) -> CompletionResponse:
        # Without a budget a completion takes as long as it takes; a daemon that dies closes the connection, and that is
        # noticed.
        read_s = None if request.budget_ms is None else request.budget_ms / 1000 + ANSWER_S
        return _decode(
            await self._ask("POST", "/v1/fim/completions", body=json.encode(request), read_s=read_s), CompletionResponse
        )

    async def cache(self) -> CacheReport:
        """What the daemon keeps."""
        return _decode(await self._ask("GET", "/v1/cache", read_s=ANSWER_S), CacheReport)

    async def purge(self, workspace: str | None) -> PurgeReport:
        """Removes what was derived from a workspace, from memory and disk; None: everything."""
        body = json.encode(PurgeRequest(workspace=workspace))
        return _decode(await self._ask("POST", "/v1/cache/purge", body=body, read_s=PURGE_S), PurgeReport)

    async def shutdown(self) -> None:
        await self._ask("POST", "/v1/shutdown", body=b"{}", read_s=CONNECT_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        body: bytes | None = None,
        read_s: float | None,
        any_status: bool = False,
    ) -> bytes:
        import httpx

        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S, read=read_s)
        headers = {"content-type": "application/json"} if body is not None else None
        try:
            answer = await self._http.request(method, path, content=body, headers=headers, timeout=timeout)
        except httpx.ConnectError:
            raise DaemonError(f"nothing listens on {self.socket}", type="unreachable", status=0) from None
        except httpx.RemoteProtocolError as error:
            if "disconnected" not in str(error):
                raise _foreign(path) from None
            raise DaemonError("the daemon closed the connection", type="broken", status=0) from None
        except httpx.TimeoutException:
            raise DaemonError(f"the daemon did not answer {path} in time", type="silent", status=0) from None
        except httpx.HTTPError as error:
            raise DaemonError(
                f"the connection to the daemon broke ({type(error).__name__})", type="broken", status=0
            ) from None
        if answer.is_success or any_status:
            return answer.content
        raise _refusal(answer, path)


def _refusal(answer: "httpx.Response", path: str) -> DaemonError:
    try:
        error = json.decode(answer.content, type=ErrorResponse).error
    except msgspec.DecodeError:
        return DaemonError(
            f"the daemon answered {path} with status {answer.status_code}", type="foreign", status=answer.status_code
        )
    return DaemonError(error.message, type=error.type, status=answer.status_code)


def _decode(body: bytes, kind: type[_Value]) -> _Value:
    try:
        return json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise DaemonError(
            f"an answer of the daemon is not a {kind.__name__}: {error}", type="foreign", status=0
        ) from None


def _foreign(path: str) -> DaemonError:
    return DaemonError(f"what answers {path} is not codestral-lsp", type="foreign", status=0)
