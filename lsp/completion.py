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
from lsp.insertion import asked_at
from lsp.session import Session
from lsp.settings import Settings

# Two windows may edit the same file, and one must not cancel the other's requests.
_PROCESS = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to show at `position`, and what it cost."""

    text: str  # with \n line ends
    position: Position
    report: Report  # of the answer of the model
    is_reused: bool = (
        False  # the rest of a suggestion that was made for an earlier position; the model was not asked again
    )
    replaces: int = 0  # characters right of the position that the text stands in place of
    id: str = ""  # stays the same while it is typed through


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a suggestion shall be, beside what the settings say."""

    max_lines: int = 1
    n: int = 1  # different ones


async def suggest(
    document: Document,
    position: Position,
    *,
    path: Path | None,
    session: Session,
    settings: Settings,
    wanted: Wanted = Wanted(),
    related: Sequence[RelatedDocument] = (),
) -> list[Suggestion]:
    """Empty: nothing to show, or the document looks like a secret, which no model gets to read. `related`: outlines of what it imports.

    The likeliest is the first. Raises what Session.complete raises.
    """
    text = document.text
    if secret := secret_in(path, document):
        logger.info("%s is never sent: %s", document.uri, secret)
        return []
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
        indent=asked_at(text, offset).indent,
        max_lines=wanted.max_lines,
        may_replace=True,
        min_confidence=settings.min_confidence if wanted.n == 1 else 0.0,
        n=wanted.n,
    )
    response = await session.complete(request)
    at = document.position(offset)
    suggestions = [
        Suggestion(choice.message.content, at, response.report, replaces=choice.replaces, id=uuid.uuid4().hex[:16])
        for choice in response.choices
    ]
    _log(document.uri, at, response.report, suggestions)
    return suggestions


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
    indent: str = "",
    max_lines: int = 1,
    may_replace: bool = False,
    min_confidence: float = 0.0,
    n: int = 1,
) -> CompletionRequest:
    """The request for the cursor at `offset` of `text`; the caller adds the context.

    `indent`: whitespace right before the cursor, back to its line's start, that the model is to say itself.
    """
    window = split(text, offset - len(indent), size=size)
    return CompletionRequest(
        prompt=window.prefix,
        suffix=window.suffix,
        head=window.head,
        related=list(related),
        rest_of_line=window.rest_of_line[len(indent) :],
        path=path,
        document=document,
        max_tokens=max_tokens,
        budget_ms=budget_ms,
        indent=indent,
        max_lines=max_lines,
        may_replace=may_replace,
        min_confidence=min_confidence,
        n=n,
    )


def relative_path(path: Path | None, root: Path | None) -> str | None:
    """As the context's documents are named; the bare name for a file of no repository."""
    if path is None:
        return None
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
        return encodable(path.as_posix())
    return encodable(path.name)


def _log(uri: str, at: Position, report: Report, suggestions: Sequence[Suggestion]) -> None:
    logger.debug(
        "%s:%d:%d fed %d, reused %d from %s, %.0f ms, stopped by %s, %s characters, %d %% current",
        uri,
        at.line + 1,
        at.character + 1,
        report.tokens_fed,
        report.tokens_reused,
        report.segment,
        report.ms.total,
        report.stopped_by,
        " and ".join(str(len(each.text)) for each in suggestions) or "no",
        int(100 * report.current),
    )
