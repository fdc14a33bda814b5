"""From a suggestion's text to the one edit that an editor shows and makes: which range it replaces, and with what.

Knows documents, positions and what a menu has selected; knows no models, requests or protocol types.

Invariant: an insertion never takes away what was typed. What it replaces comes again in it, in its order, and it begins at the cursor. The one exception is
the user's own choice: the item that is selected in a menu stands in place of what that item replaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lsp.documents import Document, Edit, Position, encodable
from lsp.style import BLANKS, Style, styled


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the model is asked, as an index into the text, and the whitespace between there and the cursor.

    A model seldom sees text that ends inside an indentation, so on a line with nothing else it is asked at column 0, and what it says behind `indent` counts.
    """

    offset: int
    indent: str


@dataclass(frozen=True, slots=True)
class Selected:
    """LSP's SelectedCompletionInfo: `text` will stand in place of `start` to `end` when the user takes the menu's item."""

    text: str
    start: Position
    end: Position


@dataclass(frozen=True, slots=True)
class Insertion:
    """`text`, with the document's own line ends, in place of what is between `start` and `end`, which are on one line."""

    text: str
    start: Position
    end: Position


def asked_at(text: str, offset: int) -> Asked:
    """For the cursor at `offset` of `text`, which has \\n line ends."""
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    line = text[start : len(text) if end < 0 else end]
    if line.strip(BLANKS):
        return Asked(offset, "")
    return Asked(start, text[start:offset])


def with_selected(document: Document, position: Position, selected: Selected) -> tuple[Document, Position] | None:
    """The document and cursor as if the menu's item had been taken: where the model is to be asked.

    None when the item does not replace what stands at the cursor, on one line, so that nothing can be shown with it.
    """
    start, end, offset = (document.offset(each) for each in (selected.start, selected.end, position))
    if not start <= offset <= end or "\n" in document.text[start:end]:
        return None
    taken = document.edited([Edit(selected.text, selected.start, selected.end)], document.version)
    return taken, taken.position(document.offset(selected.start) + len(_one_line_end(selected.text)))


def insertion_of(
    document: Document,
    position: Position,
    text: str,
    *,
    replaces: int = 0,
    selected: Selected | None = None,
    is_behind_selected: bool = False,
    style: Style | None = None,
) -> Insertion | None:
    """The insertion of `text` at `position`; None when there is nothing that may be shown.

    `replaces`: characters right of the cursor that the text stands in place of.
    `selected`: the item that the editor's menu has selected. It counts as typed: only a text that goes on from it is shown, and the insertion begins with it,
    as editors demand. `is_behind_selected`: the text goes on from the item, as when the model was asked `with_selected`, and not from the cursor.
    `style`: what the editor is set to, for a document that has no indentation of its own.
    """
    if selected is None:
        made = _made(document, position, text, replaces=replaces, style=style)
        return None if made is None else _with_line_ends(made, document)
    taken = with_selected(document, position, selected)
    if taken is None:
        return None
    offset, start, end = (document.offset(each) for each in (position, selected.start, selected.end))
    item = _one_line_end(selected.text)
    if not is_behind_selected:
        text = document.text[start:offset] + _one_line_end(text)
        if not text.startswith(item):
            return None
        text, replaces = text[len(item) :], replaces - (end - offset)
    made = _made(*taken, text, replaces=replaces, style=style)
    if made is None:
        return None
    n_replaced = made.end.character - made.start.character
    end_of_item = document.position(end)
    last = Position(end_of_item.line, end_of_item.character + n_replaced)
    return _with_line_ends(Insertion(item + made.text, document.position(start), last), document)


def _made(document: Document, position: Position, text: str, *, replaces: int, style: Style | None) -> Insertion | None:
    """The insertion at the cursor, with \\n line ends."""
    row, column = document.place(position)
    line = encodable(document.lines[row].rstrip("\r\n"))
    before, rest = line[:column], line[column:]
    replaced = rest[: max(0, replaces)]
    text = styled(
        _one_line_end(text),
        lines=document.lines,
        row=row,
        language=document.language,
        editor=style,
        is_first=not before.strip(BLANKS),
    )
    text = _without_blanks(text, is_last=not rest[len(replaced) :].strip())
    if "\n" in text:
        # Editors draw several lines only where the range ends at its line's end.
        text, replaced = text + rest[len(replaced) :], rest
    if not _adds_to(replaced, text):
        return None
    start = document.after(Position(row, 0), before)
    return Insertion(text, start, document.after(start, replaced))


def _with_line_ends(made: Insertion, document: Document) -> Insertion:
    if "\n" not in made.text:
        return made
    return replace(made, text=made.text.replace("\n", line_end_of(document.lines)))


def line_end_of(lines: Sequence[str]) -> str:
    """What most of a document's lines end in; \\n where there is one line only."""
    ends = [line[len(line.rstrip("\r\n")) :] for line in lines]
    return max(("\n", "\r\n", "\r"), key=ends.count)  # the first of equals


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_blanks(text: str, *, is_last: bool) -> str:
    """Lines of nothing but blanks are empty, and nothing stands behind the text's last character, where that is its line's last.

    Other lines keep what stands at their end: in Markdown it means something.
    """
    first, *others = text.split("\n")
    text = "\n".join([first, *(line if line.strip() else "" for line in others[:-1]), *others[-1:]])
    if others and not first.strip():
        text = text[len(first) :]
    return text.rstrip() if is_last else text


def _adds_to(replaced: str, text: str) -> bool:
    """Whether `text` has all that it replaces, character by character in its order, and something to be seen beside it."""
    left = iter(text)
    if not all(character in left for character in replaced):
        return False
    return len("".join(text.split())) > len("".join(replaced.split()))
