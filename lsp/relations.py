"""What each open document imports, as outlines that the model reads right before it: found beside the keystrokes, never waited for.

Knows documents and sessions; how imports are found is in `context.related`. What is known stays as it is until the document is opened, saved or its import
lines change, because the model reads everything behind it again when it changes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from context.imports import imported
from context.related import related
from context.repository import SourceFile
from daemon.protocol import Document as WireDocument
from daemon.protocol import SocketError
from lsp.completion import relative_path
from lsp.documents import Document, encodable
from lsp.launch import LaunchError
from lsp.session import Session
from lsp.threads import in_thread

PAUSE_S = 1.0  # without typing, before the import lines are looked at

logger = logging.getLogger(__name__)


class Relations:
    """For each open document the outlines that were found last, and the look that is under way, if one is.

    `document_of` gives an open document as it is by now.
    """

    def __init__(self, document_of: Callable[[str], Document | None]) -> None:
        self._document_of = document_of
        self._known: dict[str, list[WireDocument]] = {}
        self._imports: dict[
            str, Mapping[str, tuple[str, ...]]
        ] = {}  # what the import lines said when `_known` was found
        self._looks: dict[str, asyncio.Task[None]] = {}

    def of(self, uri: str) -> list[WireDocument]:
        return self._known.get(uri, [])

    def look(self, uri: str, path: Path, session: Session) -> None:
        """As soon as the repository has been read; ends an older look at the same document."""
        self._start(uri, path, session, is_typing=False)

    def typed(self, uri: str, path: Path, session: Session) -> None:
        """Looks when typing pauses, and only if the import lines are others."""
        if uri in self._imports:  # else the first look, which is still to come, sees what is typed until then
            self._start(uri, path, session, is_typing=True)

    def forget(self, uri: str) -> None:
        self._known.pop(uri, None)
        self._imports.pop(uri, None)
        if (look := self._looks.pop(uri, None)) is not None:
            look.cancel()

    async def close(self) -> None:
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    def _start(self, uri: str, path: Path, session: Session, *, is_typing: bool) -> None:
        if session.root is None:
            return
        if (older := self._looks.get(uri)) is not None:
            older.cancel()
        self._looks[uri] = asyncio.create_task(self._look(uri, path, session, is_typing=is_typing))

    async def _look(self, uri: str, path: Path, session: Session, *, is_typing: bool) -> None:
        try:
            if is_typing:
                await asyncio.sleep(PAUSE_S)
            files, per_token = await session.files(), await session.bytes_per_token()
            if (document := self._document_of(uri)) is None:
                return
            text, name = document.text, relative_path(path, session.root) or ""
            imports = await in_thread(lambda: imported(name, text, files))
            if is_typing and self._imports.get(uri) == imports:
                return
            found = await in_thread(lambda: outlines(name, text, files, bytes_per_token=per_token))
        except (LaunchError, SocketError) as error:
            logger.debug("%s: what it imports is not known: %s", uri, error)
        except Exception:  # a fault of ours; completions go on without
            logger.exception("%s: what it imports is not known", uri)
        else:
            self._known[uri] = found
            self._imports[uri] = imports
            logger.debug("%s: %d files that it imports are read before it", uri, len(found))


def outlines(path: str, text: str, files: Mapping[str, SourceFile], *, bytes_per_token: float) -> list[WireDocument]:
    """What a file imports, as a completion's request has it."""
    found = related(path, text, files, bytes_per_token=bytes_per_token)
    return [WireDocument(path=encodable(each.path), text=each.text) for each in found]
