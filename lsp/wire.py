"""Our values as lsprotocol's and back. Knows both; decides nothing."""

from collections.abc import Sequence
from typing import Any

import msgspec
from lsprotocol import types

from lsp.completion import Suggestion
from lsp.documents import Document, Edit, Encoding, Position, new_document
from lsp.frontend import Answered
from lsp.session import Progress

ENCODINGS: dict[str, Encoding] = {"utf-8": "utf-8", "utf-16": "utf-16", "utf-32": "utf-32"}
NO_INLINE = types.InlineCompletionList(items=[])
NO_ITEMS = types.CompletionList(is_incomplete=True, items=[])

ProgressValue = types.WorkDoneProgressBegin | types.WorkDoneProgressReport | types.WorkDoneProgressEnd


def to_document(item: types.TextDocumentItem, encoding: Encoding) -> Document:
    return new_document(
        uri=item.uri, language=str(item.language_id), version=item.version, text=item.text, encoding=encoding
    )


def to_edits(changes: Sequence[types.TextDocumentContentChangeEvent]) -> list[Edit]:
    return [
        Edit(change.text, to_position(change.range.start), to_position(change.range.end))
        if isinstance(change, types.TextDocumentContentChangePartial)
        else Edit(change.text)
        for change in changes
    ]


def to_position(position: types.Position) -> Position:
    return Position(position.line, position.character)


def inline_list(suggestion: Suggestion | None) -> types.InlineCompletionList:
    if suggestion is None or not suggestion.text:
        return NO_INLINE
    # The range is empty and given, because without one editors replace the word before the cursor.
    return types.InlineCompletionList(
        items=[types.InlineCompletionItem(insert_text=suggestion.text, range=_at_cursor(suggestion))]
    )


def completion_list(suggestion: Suggestion | None, typed: str) -> types.CompletionList:
    """For the menu of an editor without ghost text: one item with the first line.

    `typed` is the word before the cursor, which such menus filter by.
    """
    first_line = suggestion.text.split("\n", 1)[0] if suggestion is not None else ""
    if suggestion is None or not first_line.strip():
        return NO_ITEMS
    item = types.CompletionItem(
        label=typed + first_line,
        kind=types.CompletionItemKind.Text,
        detail="codestral-lsp",
        filter_text=typed + first_line,
        text_edit=types.TextEdit(range=_at_cursor(suggestion), new_text=first_line),
    )
    return types.CompletionList(is_incomplete=True, items=[item])


def report_object(suggestion: Suggestion | None) -> dict[str, Any] | None:
    """What `codestral-lsp/lastReport` answers: the suggestion's text and what it cost."""
    if suggestion is None:
        return None
    return {"text": suggestion.text, "is_reused": suggestion.is_reused, **msgspec.to_builtins(suggestion.report)}


def answered_object(answered: Answered) -> dict[str, Any]:
    """The parameters of the notification `codestral/report`."""
    suggestion = answered.suggestion
    return {
        "uri": answered.uri,
        "version": answered.version,
        "position": {"line": suggestion.position.line, "character": suggestion.position.character},
        "report": msgspec.to_builtins(suggestion.report),
        "is_reused": suggestion.is_reused,
        "ms": answered.ms,
    }


def progress_value(progress: Progress, *, name: str, is_first: bool) -> ProgressValue:
    current = f"{int(100 * progress.current)} % current"  # rounded down: 100 says that nothing is missing
    if progress.stage == "ready":
        state = "up to date" if progress.current >= 1.0 else current
        return types.WorkDoneProgressEnd(message=f"{progress.total} tokens read, {state}")
    if progress.stage == "failed":
        return types.WorkDoneProgressEnd(message=progress.message)
    message, percentage = "reading the repository", 0
    if progress.stage == "feeding":
        percentage = 100 * progress.done // progress.total if progress.total else 100
        message = f"reading the repository: {progress.done} of {progress.total} tokens, {current}"
    if is_first:
        return types.WorkDoneProgressBegin(
            title=f"codestral-lsp: {name}", message=message, percentage=percentage, cancellable=False
        )
    return types.WorkDoneProgressReport(message=message, percentage=percentage)


def _at_cursor(suggestion: Suggestion) -> types.Range:
    at = types.Position(line=suggestion.position.line, character=suggestion.position.character)
    return types.Range(start=at, end=at)
