"""Where pygls' JSON-RPC differs from what this server promises.

Knows pygls and messages; knows no documents and no handlers.

pygls leaves requests unanswered that it cannot parse or that come after shutdown, begins anew at a second `initialize`, remembers every notification,
keeps inexact copies of the open documents, and exits through `sys.exit` inside the event loop, which loses the exit status. Each of these is put
right here, and nothing else.
"""

import logging
from collections.abc import Callable, Generator
from threading import Event
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest, JsonRpcServerNotInitialized
from pygls.protocol import LanguageServerProtocol
from pygls.protocol.language_server import lsp_method

from lsp.style import Style

logger = logging.getLogger(__name__)

MAX_STYLES = 256  # documents whose indentation is remembered

_TRIGGER_KINDS = tuple(kind.value for kind in types.InlineCompletionTriggerKind)
_Handled = Generator[Any, Any, None]


class Protocol(LanguageServerProtocol):
    """pygls' protocol that answers every request once, as LSP 3.18 wants it."""

    def __init__(self, server: Any, converter: Any) -> None:
        super().__init__(server, converter)
        self._styles: dict[str, Style] = {}

    ended: Event  # set by `exit`; whoever runs the message loop gives it and ends with it

    @property
    def is_shut_down(self) -> bool:
        return self._shutdown

    def style_of(self, uri: str) -> Style | None:
        """How the editor indents a document, as it has said with its last request for a suggestion there."""
        return self._styles.get(uri)

    def structure_message(self, data: dict[str, Any]) -> Any:
        _tolerate_trigger_kind(data)
        self._note_style(data)
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise

    def handle_message(self, message: Any) -> None:
        method, request = getattr(message, "method", None), getattr(message, "id", None)
        if method is None or method == types.EXIT or not (refusal := self._refusal(method)):
            super().handle_message(message)
        elif request is not None:
            self._send_response(request, error=refusal.to_response_error())

    def _execute_handler(
        self,
        msg_id: Any,
        handler: Callable[..., Any],
        callback: Callable[[Any], None],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Forgets what it has begun once that is done. pygls forgets requests only, so that each notification stays for good, a kilobyte for each key."""

        def done(future: Any) -> None:
            self._request_futures.pop(msg_id, None)
            callback(future)

        super()._execute_handler(msg_id, handler, done, args, kwargs)

    def _note_style(self, data: dict[str, Any]) -> None:
        """`formattingOptions` beside a request for a suggestion is what Copilot's clients send; LSP has no such key, and lsprotocol drops it."""
        params = data.get("params") if data.get("method") == types.TEXT_DOCUMENT_INLINE_COMPLETION else None
        options = params.get("formattingOptions") if isinstance(params, dict) else None
        document = params.get("textDocument") if isinstance(params, dict) else None
        uri = document.get("uri") if isinstance(document, dict) else None
        if isinstance(options, dict) and isinstance(uri, str):
            size, spaces = options.get("tabSize"), options.get("insertSpaces")
            if isinstance(size, int) and 0 < size <= 64 and isinstance(spaces, bool):
                if len(self._styles) >= MAX_STYLES:  # an editor that never closes a document
                    self._styles.clear()
                self._styles[uri] = Style(tab_size=size, insert_spaces=spaces)

    def _refusal(self, method: str) -> JsonRpcException | None:
        if method == types.INITIALIZE and not self._shutdown:
            return JsonRpcInvalidRequest("the server is initialized already") if self._workspace is not None else None
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
        self._styles.pop(params.text_document.uri, None)
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
