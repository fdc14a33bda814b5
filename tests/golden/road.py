"""The real road of one suggestion, from an open document to its ghost text and the buffer afterwards; only the model is a script.

document -> asked_at -> place_of -> request_at -> Trim, token by token -> insertion_of -> what an editor draws and does.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from context.place import Place, place_of
from daemon.trim import Trim
from lsp.completion import request_at
from lsp.documents import Document, Edit, Encoding, Position, new_document
from lsp.insertion import Insertion, Selected, asked_at, insertion_of, with_selected
from lsp.style import Style
from tests.golden.cases import Case

MAX_LINES = 6


@dataclass(frozen=True)
class Suggested:
    """What came of a case. `after`: the buffer as the editor has it, with its own line ends."""

    place: Place
    reason: str | None
    document: Document
    insertion: Insertion | None
    ghost: str
    after: str


def suggested(case: Case, *, sizes: Sequence[int], encoding: Encoding, open_ended: bool) -> Suggested:
    """`sizes`: bytes of the model's tokens, over and over."""
    document = new_document(uri="file:///case", language=case.language, version=1, text=case.text, encoding=encoding)
    position = document.position(case.offset)
    selected = selected_of(case, document)
    asked_in, cursor = document, position
    if selected is not None:
        taken = with_selected(document, position, selected)
        assert taken is not None
        asked_in, cursor = taken
    text, offset = asked_in.text, asked_in.offset(cursor)
    place = place_of(text, offset, language=case.language)
    request = request_at(
        text,
        offset,
        path=None,
        document=None,
        max_tokens=64,
        budget_ms=None,
        indent=asked_at(text, offset).indent,
        max_lines=case.number("max_lines", MAX_LINES) if place.is_multi else 1,
        may_replace=True,
    )
    trim = Trim(request, open_ended=open_ended, fenced=case.has("fenced"))
    shown = trim.outcome(decoded(case.said.encode(), trim, sizes))
    insertion = insertion_of(
        document,
        position,
        shown.text,
        replaces=shown.replaces,
        selected=selected,
        is_behind_selected=selected is not None,
        style=style_of(case),
    )
    ghost, after = drawn(document, insertion, is_item=selected is not None), accepted(document, insertion)
    return Suggested(place, shown.empty_because, document, insertion, ghost, after)


def decoded(said: bytes, trim: Trim, sizes: Sequence[int]) -> bytes:
    """What the model has said when it is stopped, or ends."""
    at = 0
    for size in cycle(sizes):
        if at >= len(said):
            break
        at += size
        if trim.stop(said[:at]) is not None:
            break
    return said[:at]


def selected_of(case: Case, document: Document) -> Selected | None:
    if case.item is None or case.menu is None:
        return None
    start, end = case.item
    return Selected(case.menu, document.position(start), document.position(end))


def style_of(case: Case) -> Style | None:
    if not case.has("tab_size") and not case.has("insert_spaces"):
        return None
    return Style(insert_spaces=case.options.get("insert_spaces", "yes") == "yes", tab_size=case.number("tab_size", 4))


def raw_offset(document: Document, position: Position) -> int:
    """The index into the lines as they are, with their own ends."""
    row, column = document.place(position)
    return len("".join(document.lines[:row])) + column


def accepted(document: Document, insertion: Insertion | None) -> str:
    """The buffer after the editor has made the edit."""
    if insertion is None:
        return "".join(document.lines)
    return "".join(document.edited([Edit(insertion.text, insertion.start, insertion.end)], 2).lines)


def drawn(document: Document, insertion: Insertion | None, *, is_item: bool) -> str:
    """The ghost text, with \\n line ends; what stands in the buffer already is not part of it."""
    if insertion is None:
        return ""
    text = document.text
    old = text[document.offset(insertion.start) : document.offset(insertion.end)]
    new = insertion.text.replace("\r\n", "\n").replace("\r", "\n")
    if is_item:  # the word that is being typed stands there already; brackets right of the cursor stay where they are
        old, new = _without_common_start(old, new)
    old, new = _without_common_end(old, new)
    kept = _kept(old, new)
    if kept is None:
        return f"⟪{old}→{new}⟫"
    ghost = "".join(f"‹{character}›" if at in kept else character for at, character in enumerate(new))
    return ghost.replace("›‹", "")


def _without_common_start(old: str, new: str) -> tuple[str, str]:
    n = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return old[n:], new[n:]


def _without_common_end(old: str, new: str) -> tuple[str, str]:
    n = next((n for n, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), min(len(old), len(new)))
    return old[: len(old) - n], new[: len(new) - n]


def _kept(old: str, new: str) -> set[int] | None:
    """Where in `new` the characters of `old` stand; None when they do not. A bracket is met where all between has been closed, if there is such a place."""
    kept, at = set(), 0
    for character in old:
        places = [place for place in range(at, len(new)) if new[place] == character]
        if not places:
            return None
        place = next(
            (place for place in places if not unopened(new[at:place]) and not unclosed(new[at:place])), places[0]
        )
        kept.add(place)
        at = place + 1
    return kept


def broken_laws(case: Case, made: Suggested) -> Iterator[str]:
    """What must never happen to any buffer, one line each."""
    insertion, document = made.insertion, made.document
    before = "".join(document.lines)
    if insertion is None:
        if made.after != before:
            yield "nothing is shown, and yet the buffer changes"
        return
    start, end = raw_offset(document, insertion.start), raw_offset(document, insertion.end)
    position = document.position(case.offset)
    cursor = raw_offset(document, position)
    if case.item is None and insertion.start != position:
        yield f"the range starts at {insertion.start}, expected the cursor, {position}"
    if not (made.after.startswith(before[:start]) and made.after.endswith(before[end:])):
        yield "text outside of the range is touched"
    if insertion.start.line != insertion.end.line:
        yield "the range is on several lines, which LSP forbids"
    taken = before[max(cursor, raw_offset(document, document.position(case.item[1])) if case.item else 0) : end]
    left = iter(insertion.text)
    if not all(character in left for character in taken):
        yield f"{taken!r} right of the cursor disappears"
    if "\n" in insertion.text and document.text[document.offset(insertion.end) :][:1] not in ("", "\n"):
        yield "several lines are inserted in the middle of a line, which editors do not draw"
    if case.has("crlf") and Counter(made.after)["\n"] != made.after.count("\r\n"):
        yield "a line of a CRLF document ends in LF"
    if not case.has("crlf") and "\r" in made.after and "\r" not in before:
        yield "a line of an LF document ends in CR"
    following = before[end:].split("\n", 1)[0].strip()
    if not following and insertion.text != insertion.text.rstrip() and not taken[-1:].isspace():
        yield f"{insertion.text!r} ends in blanks"
    if not case.has("loose") and unopened(made.after) > unopened(before):
        yield f"closes a bracket that nothing opens: {made.after!r}"


def unopened(text: str) -> int:
    """How many closing brackets close nothing. Strings are left out, as far as one line tells."""
    return _brackets_left(text)[1]


def unclosed(text: str) -> int:
    return _brackets_left(text)[0]


def _brackets_left(text: str) -> tuple[int, int]:
    stack, count, quote = [], 0, ""
    for at, character in enumerate(text):
        if quote:
            if character in (quote, "\n"):
                quote = ""
        elif character in '"`' or (character == "'" and not text[at - 1 : at].isalnum()):
            end = text.find("\n", at)
            quote = character if text.find(character, at + 1, len(text) if end < 0 else end) > 0 else ""
        elif character in "([{":
            stack.append(character)
        elif character in ")]}":
            if stack and stack[-1] == {")": "(", "]": "[", "}": "{"}[character]:
                stack.pop()
            else:
                count += 1
    return len(stack), count
