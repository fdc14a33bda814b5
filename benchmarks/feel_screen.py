"""What stands on the screen in grey, after each key and each answer, and what a reader of the screen would complain about.

Ghost text is kept as the document that accepting it makes: as long as what is typed leads to that same document it is the same suggestion, whatever part of
it is typed, closed by the editor or still grey. Typing it shrinks it; a new answer takes its place. Knows: texts, offsets. Does not know: messages, clocks.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.feel_editor import PAIRS, Editor

CLOSERS = frozenset(PAIRS.values()) | frozenset("\"'`")


class Ghost(NamedTuple):
    """`before` and `after` are the document that accepting it makes, parted at the end of what it puts there. `item` is the server's."""

    before: str
    after: str
    item: dict[str, Any]

    @property
    def document(self) -> str:
        return self.before + self.after

    @property
    def id(self) -> str | None:
        """What the server calls it; None where it has no name for it."""
        arguments = (self.item.get("command") or {}).get("arguments") or [None]
        return arguments[0]

    def rest(self, text: str, cursor: int) -> str | None:
        """What of it is still grey in a document that has become `text`; None where it no longer fits.

        Right of the cursor the text may hold closers more than the document will, if they are part of what is grey. Where only such closers are left
        nothing is grey: they stand there.
        """
        if text == self.document:
            return ""
        if not self.before.startswith(text[:cursor]) or not text.endswith(self.after):
            return None
        rest = self.before[cursor:]
        closers = text[cursor : len(text) - len(self.after)] if len(text) - len(self.after) >= cursor else None
        return rest if closers is not None and _is_within(closers, rest) else None

    def goes_on_from(self, older: "Ghost") -> bool:
        """Whether whoever reads the older one sees it grow at most."""
        return self.document == older.document or self.before.startswith(older.before)


class Problem(NamedTuple):
    """Something that a reader of the screen would complain about. `kind`: one of PROBLEMS."""

    kind: str
    detail: str


# What must never be seen, by the name it has in the figures.
PROBLEMS = {
    "flicker": "visible text replaced by another while it agreed with what was typed",
    "vanished": "visible text taken away while it agreed with what was typed",
    "stale": "an answer that was reused is not the rest of anything that the model has said here",
    "misplaced": "an answer's range does not hold the cursor, or what stands in it is not how the answer begins",
    "deletes": "a suggestion that takes away more than closers",
    "doubled": "a bracket or quote stands there twice after accepting",
    "offered_again": "a suggestion rejected by Esc, offered again at that place",
    "offered_again_after_backspace": "a suggestion deleted over by Backspace, offered again at that place",
    "equal_alternatives": "alternatives that look the same",
    "late": "text for an older state of the document, answered long after the newer one was known",
}


@dataclass(slots=True, eq=False)
class Screen:
    """One document's. `ghosts` are what may be cycled through, the visible one first."""

    ghosts: tuple[Ghost, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    made: set[str] = field(default_factory=set)  # documents that the model's answers lead to
    _rejected: dict[tuple[str, int, str], str] = field(default_factory=dict)

    @property
    def ghost(self) -> Ghost | None:
        return self.ghosts[0] if self.ghosts else None

    def visible(self, editor: Editor) -> str:
        """The grey text, "" where there is none."""
        ghost = self.ghost
        return (ghost.rest(editor.text, editor.cursor) or "") if ghost is not None else ""

    def edited(self, editor: Editor) -> None:
        """After a key: what no longer agrees goes, and so does what has been typed to its end."""
        self.ghosts = tuple(ghost for ghost in self.ghosts if ghost.rest(editor.text, editor.cursor))

    def hide(self) -> None:
        self.ghosts = ()

    def reject(self, editor: Editor, kind: str) -> None:
        """Esc or Backspace while something is visible, before the key changes anything. `kind`: a problem's name, should it come back."""
        if (ghost := self.ghost) is not None:
            self._rejected[editor.text, editor.cursor, ghost.document] = kind
        self.hide()

    def unseen(self, items: list[dict[str, Any]], editor: Editor) -> None:
        """An answer that comes too late to be shown, and the editor as it was when it was asked for: the server may take it for shown."""
        for item in items:
            if (ghost := self._ghost_of(item, editor)) is not None:
                self.made |= {ghost.document, self._known(ghost, editor)}

    def answered(self, items: list[dict[str, Any]], editor: Editor, *, is_invoked: bool, is_reused: bool) -> None:
        """The answer to the request for the text as it is now. `is_reused`: the server made it without the model."""
        found = [ghost for item in items if (ghost := self._ghost_of(item, editor)) is not None]
        if not is_invoked and (old := self.ghost) is not None and (rest := self.visible(editor)):
            if not found:
                self._complain("vanished", rest)
            elif not found[0].goes_on_from(old):
                self._complain("flicker", f"{rest!r} -> {found[0].rest(editor.text, editor.cursor)!r}")
        for ghost in found:
            kind = self._rejected.get((editor.text, editor.cursor, ghost.document))
            if kind is not None and not is_invoked:
                self._complain(kind, ghost.rest(editor.text, editor.cursor) or "")
        shown = Counter(ghost.document for ghost in found)
        if any(n > 1 for n in shown.values()):
            self._complain("equal_alternatives", repr([ghost.item.get("insertText") for ghost in found]))
        documents = {self._known(ghost, editor) for ghost in found}
        if not is_reused:
            self.made |= {ghost.document for ghost in found} | documents
        elif not all(ghost.document in self.made or self._known(ghost, editor) in self.made for ghost in found):
            self._complain("stale", repr([ghost.item.get("insertText") for ghost in found]))
        self.ghosts = tuple(found)

    def _ghost_of(self, item: dict[str, Any], editor: Editor) -> Ghost | None:
        """None, and a complaint, for one that an editor could not show here."""
        text, cursor, inserted = editor.text, editor.cursor, str(item.get("insertText", ""))
        span = item.get("range") or {"start": editor.position(), "end": editor.position()}
        start, end = editor.offset(span["start"]), editor.offset(span["end"])
        if start is None or end is None or not start <= cursor <= end or not inserted.startswith(text[start:cursor]):
            self._complain("misplaced", f"{inserted!r} in {span}, the cursor at {editor.position()}")
            return None
        if not _is_within(text[cursor:end], inserted[cursor - start :]) or set(text[cursor:end]) - CLOSERS:
            self._complain("deletes", f"{text[cursor:end]!r} goes for {inserted!r}")
        return Ghost(text[:start] + inserted, text[end:], item)

    def _known(self, ghost: Ghost, editor: Editor) -> str:
        """The document without closers that came by themselves after the suggestion was made."""
        surplus = len(editor.text) - len(ghost.after)
        left = [at for at in editor.auto if at >= surplus]
        after = "".join(char for at, char in enumerate(ghost.after, surplus) if at not in left)
        return ghost.before + after

    def _complain(self, kind: str, detail: str) -> None:
        assert kind in PROBLEMS, kind
        self.problems.append(Problem(kind, detail))

    def accepted(self, editor: Editor, *, wanted: str, tail: str, was_surplus: bool) -> None:
        """After accepting: `tail` stands between the cursor and what the file goes on with, `wanted` is all that is still to be typed there."""
        if tail and not was_surplus and is_surplus(tail, wanted):
            self._complain("doubled", f"{editor.line_before[-40:]!r} then {tail!r}, where {wanted[:20]!r} comes")


def is_surplus(tail: str, wanted: str) -> bool:
    """Whether closers that stand after the cursor belong to nothing that is open in `wanted`, the text that is to come there."""
    at = 0
    for closer in tail:
        if closer.isspace():
            continue
        if (at := _closed_at(wanted, closer, at)) < 0:
            return True
        at += 1
    return False


def _closed_at(wanted: str, closer: str, start: int) -> int:
    """Where a text closes what was opened before it; -1: nowhere."""
    opener = next((each for each, end in PAIRS.items() if end == closer), None)
    if opener is None:
        end = wanted.find("\n", start)
        return wanted.find(closer, start, end if end >= 0 else len(wanted))
    depth = 0
    for at in range(start, len(wanted)):
        if wanted[at] == opener:
            depth += 1
        elif wanted[at] == closer:
            if not depth:
                return at
            depth -= 1
    return -1


def _is_within(part: str, text: str) -> bool:
    """Whether the characters of `part` stand in `text` in this order."""
    at = 0
    for char in part:
        at = text.find(char, at) + 1
        if not at:
            return False
    return True
