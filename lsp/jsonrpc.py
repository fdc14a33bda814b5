"""Where pygls' JSON-RPC differs from what this server promises.

Knows pygls and messages; knows no documents and no handlers.

pygls leaves requests unanswered that it cannot parse or that come after shutdown, keeps inexact copies of the open
documents, and exits through `sys.exit` inside the event loop, which loses the exit status. Each of these is put right
here, and nothing else.
"""

import logging
from collections.abc import Callable, Generator
from threading import Event
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest, JsonRpcServerNotInitialized
from pygls.protocol import LanguageServerProtocol
from pygls.protocol.language_server import lsp_method

logger = logging.getLogger(__name__)

_TRIGGER_KINDS = tuple(kind.value for kind in types.InlineCompletionTriggerKind)
_Handled = Generator[Any, Any, None]


class Protocol(LanguageServerProtocol):
    """pygls' protocol that answers every request once, as LSP 3.18 wants it."""

    ended: Event  # set by `exit`; whoever runs the message loop gives it and ends with it

    @property
    def is_shut_down(self) -> bool:
        return self._shutdown

    def structure_message(self, data: dict[str, Any]) -> Any:
        _tolerate_trigger_kind(data)
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise

    def handle_message(self, message: Any) -> None:
        method, request = getattr(message, "method", None), getattr(message, "id", None)
        if method is None or method in (types.EXIT, types.INITIALIZE) or not (refusal := self._refusal()):
            super().handle_message(message)
        elif request is not None:
            self._send_response(request, error=refusal.to_response_error())

    def _refusal(self) -> JsonRpcException | None:
        if self._workspace is None:
            return JsonRpcServerNotInitialized("the server is not initialized")
        return JsonRpcInvalidRequest("the server is shut down") if self._shutdown else None

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> _Handled:
        yield self.ended.set, (), None

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> _Handled:
        yield self._handler(types.TEXT_DOCUMENT_DID_OPEN), (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> _Handled:
        yield self._handler(types.TEXT_DOCUMENT_DID_CHANGE), (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> _Handled:
        yield self._handler(types.TEXT_DOCUMENT_DID_CLOSE), (params,), None

    def _handler(self, method: str) -> Callable[..., Any]:
        return self.fm.features[method]


def _tolerate_trigger_kind(data: dict[str, Any]) -> None:
    """Clients of an older draft send 0; the kind changes nothing here, so any value will do."""
    if data.get("method") != types.TEXT_DOCUMENT_INLINE_COMPLETION or not isinstance(
        params := data.get("params"), dict
    ):
        return
    context = params.setdefault("context", {})
    if isinstance(context, dict) and context.get("triggerKind") not in _TRIGGER_KINDS:
        context["triggerKind"] = types.InlineCompletionTriggerKind.Automatic.value
