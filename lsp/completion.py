"""One keystroke from a document's snapshot to a suggestion.

Knows documents, windows and the wire; knows no LSP library and no sockets.
"""

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from context.ignore import why_secret
from context.window import DEFAULT, WindowSize, split
from daemon.protocol import CompletionRequest, Report
from daemon.protocol import Document as RelatedDocument
from lsp.documents import Document, Position, encodable
from lsp.session import Session
from lsp.settings import Settings

# Two windows may edit the same file, and one must not cancel the other's requests.
_PROCESS = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to show at `position`, and what it cost."""

    text: str
    position: Position
    report: Report  # of the answer of the model
    is_reused: bool = (
        False  # the rest of a suggestion that was made for an earlier position; the model was not asked again
    )


async def suggest(
    document: Document,
    position: Position,
    *,
    path: Path | None,
    session: Session,
    settings: Settings,
    related: Sequence[RelatedDocument] = (),
) -> Suggestion | None:
    """None: nothing to show, or the document looks like a secret, which no model gets to read. `related`: outlines of what it imports.

    Raises what Session.complete raises.
    """
    text = document.text
    if secret := secret_in(path, document):
        logger.info("%s is never sent: %s", document.uri, secret)
        return None
    offset = document.offset(position)
    request = request_at(
        text,
        offset,
        path=relative_path(path, session.root),
        document=encodable(f"{_PROCESS}:{document.uri}"),
        max_tokens=settings.max_tokens,
        budget_ms=settings.budget_ms,
        size=await session.window_size(),
        related=related,
    )
    response = await session.complete(request)
    suggestion = Suggestion(
        response.choices[0].message.content if response.choices else "", document.position(offset), response.report
    )
    _log(document.uri, suggestion)
    return suggestion


def secret_in(path: Path | None, document: Document) -> str | None:
    """Why a document looks like a secret: by its text, its name, or the name of what a symbolic link leads to."""
    names = [document.uri] if path is None else [str(path), os.path.realpath(path)]
    return next((why for name in names if (why := why_secret(name, document.text))), None)


def request_at(
    text: str,
    offset: int,
    *,
    path: str | None,
    document: str | None,
    max_tokens: int,
    budget_ms: int | None,
    size: WindowSize = DEFAULT,
    related: Sequence[RelatedDocument] = (),
) -> CompletionRequest:
    """The request for the cursor at `offset` of `text`; the caller adds the context."""
    window = split(text, offset, size=size)
    return CompletionRequest(
        prompt=window.prefix,
        suffix=window.suffix,
        head=window.head,
        related=list(related),
        rest_of_line=window.rest_of_line,
        path=path,
        document=document,
        max_tokens=max_tokens,
        budget_ms=budget_ms,
    )


def relative_path(path: Path | None, root: Path | None) -> str | None:
    """As the context's documents are named; the bare name for a file of no repository."""
    if path is None:
        return None
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
        return encodable(path.as_posix())
    return encodable(path.name)


def _log(uri: str, suggestion: Suggestion) -> None:
    report = suggestion.report
    logger.debug(
        "%s:%d:%d fed %d, reused %d from %s, %.0f ms, stopped by %s, %d characters, %d %% current",
        uri,
        suggestion.position.line + 1,
        suggestion.position.character + 1,
        report.tokens_fed,
        report.tokens_reused,
        report.segment,
        report.ms.total,
        report.stopped_by,
        len(suggestion.text),
        int(100 * report.current),
    )
