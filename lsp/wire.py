"""Our values as lsprotocol's and back. Knows both; decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from lsprotocol import types

from lsp.completion import Suggestion
from lsp.documents import Document, Edit, Encoding, Position, new_document
from lsp.frontend import Answered
from lsp.insertion import Selected
from lsp.session import Progress
from lsp.suggester import Answer, Offer

ENCODINGS: dict[str, Encoding] = {"utf-8": "utf-8", "utf-16": "utf-16", "utf-32": "utf-32"}
ACCEPT = "codestral.accept"
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


def to_selected(info: types.SelectedCompletionInfo | None) -> Selected | None:
    if info is None:
        return None
    return Selected(info.text, to_position(info.range.start), to_position(info.range.end))


def inline_list(answer: Answer) -> types.InlineCompletionList:
    """The id of each item is the argument of its command, which editors run when it is accepted and send back with their events."""
    if not answer.offers:
        return NO_INLINE
    # The range is given even when it is empty, because without one editors replace the word before the cursor.
    items = [
        types.InlineCompletionItem(
            insert_text=offer.insertion.text,
            range=_range_of(offer),
            command=types.Command(title="", command=ACCEPT, arguments=[offer.suggestion.id]),
        )
        for offer in answer.offers
    ]
    return types.InlineCompletionList(items=items)


def completion_list(answer: Answer, typed: str) -> types.CompletionList:
    """For the menu of an editor without ghost text: one item with the first line.

    `typed` is the word before the cursor, which such menus filter by.
    """
    offer = answer.offers[0] if answer.offers else None
    first_line = offer.suggestion.text.split("\n", 1)[0] if offer is not None else ""
    if offer is None or not first_line.strip():
        return NO_ITEMS
    is_whole = first_line == offer.insertion.text
    if not is_whole and offer.suggestion.replaces:  # its range and its first line do not belong together
        return NO_ITEMS
    at = _to_lsp(offer.insertion.start)
    item = types.CompletionItem(
        label=typed + first_line,
        kind=types.CompletionItemKind.Text,
        detail="codestral-lsp",
        filter_text=typed + first_line,
        text_edit=types.TextEdit(range=_range_of(offer) if is_whole else types.Range(at, at), new_text=first_line),
        command=types.Command(title="", command=ACCEPT, arguments=[offer.suggestion.id]),
    )
    return types.CompletionList(is_incomplete=True, items=[item])


def item_id(params: object) -> str | None:
    """Of the item that an editor's event is about; None for an event that names none of ours."""
    arguments = _inside(params, "item", "command", "arguments")
    first = arguments[0] if isinstance(arguments, list) and arguments else None
    return first if isinstance(first, str) else None


def accepted_part(params: object) -> str | None:
    """The beginning of an item's text that was accepted: `acceptedLength` counts UTF-16 units."""
    text, length = _inside(params, "item", "insertText"), _inside(params, "acceptedLength")
    if not isinstance(text, str) or not isinstance(length, int) or length < 0:
        return None
    return text.encode("utf-16-le", "surrogatepass")[: 2 * length].decode("utf-16-le", "ignore").replace("\r\n", "\n")


def item_text(params: object) -> str:
    text = _inside(params, "item", "insertText")
    return text.replace("\r\n", "\n") if isinstance(text, str) else ""


def uri_in(params: object) -> str | None:
    uri = _inside(params, "textDocument", "uri")
    return uri if isinstance(uri, str) else None


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


def _inside(value: object, *names: str) -> object:
    """What an editor may have put there; None where it has not."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _range_of(offer: Offer) -> types.Range:
    return types.Range(start=_to_lsp(offer.insertion.start), end=_to_lsp(offer.insertion.end))


def _to_lsp(position: Position) -> types.Position:
    return types.Position(line=position.line, character=position.character)
