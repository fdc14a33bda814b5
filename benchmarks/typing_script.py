"""What a programmer does to a few files, as a list of events: typing with corrections, moves, other files, undo, paste, saves, restarts.

The same seed and texts give the same events, whoever plays them. Each event is concrete (which text is replaced by which, where the cursor stands then), so
a player needs no judgement. Knows: texts and chance. Does not know: servers, clocks, disks.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TYPED = "typed"
JUMPS = ("near", "far", "other_file", "back")  # the cursor somewhere else, in a file that was read before
RESTARTS = (
    "restart",
    "restart_ready",
)  # the first key after the server's process has ended: before and after it runs again
KINDS = (
    "open",
    TYPED,
    "enter",
    "backspace",
    "near",
    "far",
    "other_file",
    "back",
    "undo",
    "paste",
    "save",
    "save_other",
    *RESTARTS,
)
KEYS_A_ROUND = 24  # typed of the held-out text in each round, corrections not counted
KEY_PAUSE_S, MOVE_PAUSE_S = 0.05, 0.25  # before a key, and before a hand leaves the keys: time that a server may use


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A file with a hole, which is typed anew. `before` and `after` are what the editor opens; on disk there is no such file before it is saved."""

    path: str
    before: str
    truth: str
    after: str

    @property
    def opened(self) -> str:
        return self.before + self.after


@dataclass(frozen=True, slots=True)
class Event:
    """In the document `path`, [start, end) becomes `text` and the cursor stands at `cursor`; then a suggestion is asked for.

    Where nothing is replaced the cursor only moves. What lies on disk changes before all else: `saved` is a document that is saved as it stands in the
    editor, `written` the new text of another file of the repository.
    """

    kind: str
    path: str
    start: int
    end: int
    text: str
    cursor: int
    round: int
    pause_s: float = KEY_PAUSE_S
    saved: str = ""
    written: tuple[str, str] | None = None

    @property
    def edits(self) -> bool:
        return self.start != self.end or bool(self.text)


class Script(NamedTuple):
    """`opened`: the texts of the documents when the editor opens them."""

    opened: Mapping[str, str]
    events: tuple[Event, ...]


def edited(text: str, event: Event) -> str:
    """A document's text after an event on it."""
    return text[: event.start] + event.text + text[event.end :]


def hold_out(path: str, text: str, *, hole_chars: int) -> HeldOut:
    """A hole of about `hole_chars` from the middle on, of whole lines; the file's tail stays below it.

    Raises ValueError for a file with less below its middle.
    """
    start = text.rfind("\n", 0, len(text) // 2) + 1
    end = text.find("\n", start + hole_chars) + 1
    if not end or end >= len(text):
        raise ValueError(f"{path}: {len(text)} characters, expected more than {hole_chars} below its middle")
    return HeldOut(path, text[:start], text[start:end], text[end:])


def write_script(
    documents: Sequence[HeldOut], *, other: tuple[str, str] | None, seed: int, rounds: int, restarts: int
) -> Script:
    """Each round holds every kind of event. `documents`: the one that is typed, then those that are looked into; two at least.

    `other`: path and text of a repository file that is saved again and again, None where there is no repository. `restarts`: of the first rounds that many
    end with one of each of RESTARTS.
    """
    author = _Author(documents, seed)
    author.visit(documents[0].path, "open")
    for number in range(rounds):
        author.round = number
        _type_and_correct(author)
        _move(author)
        _paste(author)
        _look_elsewhere(author)
        _save(author, other)
        for kind in RESTARTS if number < restarts else ():
            author.key(kind, author.next_key(), pause_s=MOVE_PAUSE_S)
    return Script({each.path: each.opened for each in documents}, tuple(author.events))


class _Author:
    """The texts and cursors as they are after the events so far."""

    def __init__(self, documents: Sequence[HeldOut], seed: int) -> None:
        self.documents = documents
        self.random = random.Random(seed)
        self.texts = {each.path: each.opened for each in documents}
        self.cursors = {each.path: len(each.before) for each in documents}
        self.visited: set[str] = set()
        self.path = documents[0].path
        self.left = documents[0].truth  # of the hole, to be typed
        self.round = 0
        self.events: list[Event] = []

    @property
    def text(self) -> str:
        return self.texts[self.path]

    @property
    def cursor(self) -> int:
        return self.cursors[self.path]

    def next_key(self) -> str:
        """The next character of the hole; a line's end comes with the next line's indentation, as editors insert it. Then "#", should it be all typed."""
        if not self.left:
            return "#"
        n = 1
        if self.left[0] == "\n":
            n += len(self.left) - 1 - len(self.left[1:].lstrip(" "))
        key, self.left = self.left[:n], self.left[n:]
        return key

    def key(self, kind: str, text: str, *, pause_s: float = KEY_PAUSE_S, saved: str = "", written=None) -> None:
        """A text at the cursor."""
        at = self.cursor
        self._add(kind, at, at, text, at + len(text), pause_s=pause_s, saved=saved, written=written)

    def type(self, n_keys: int) -> None:
        for _ in range(n_keys):
            key = self.next_key()
            self.key("enter" if key.startswith("\n") else TYPED, key)

    def delete(self, kind: str, n: int, *, pause_s: float = KEY_PAUSE_S) -> str:
        """The `n` characters before the cursor go; returns them."""
        gone = self.text[self.cursor - n : self.cursor]
        self._add(kind, self.cursor - n, self.cursor, "", self.cursor - n, pause_s=pause_s)
        return gone

    def move(self, kind: str, to: int) -> None:
        self._add(kind, to, to, "", to, pause_s=MOVE_PAUSE_S)

    def visit(self, path: str, kind: str) -> None:
        """Another document becomes the current one; at first sight that is "open"."""
        self.path = path
        self.move(kind if path in self.visited else "open", self.cursor)
        self.visited.add(path)

    def _add(self, kind: str, start: int, end: int, text: str, cursor: int, **more) -> None:
        event = Event(kind, self.path, start, end, text, cursor, self.round, **more)
        self.texts[self.path] = edited(self.text, event)
        self.cursors[self.path] = cursor
        self.events.append(event)

    def line_end(self, line: int) -> int:
        """The offset of the end of a line, counted from 0."""
        lines = self.text.split("\n")
        return len("\n".join(lines[: max(0, min(line, len(lines) - 1)) + 1]))

    def line(self) -> int:
        return self.text.count("\n", 0, self.cursor)


def _type_and_correct(author: _Author) -> None:
    """Most of a round's keys, with a run of backspaces after which the same is typed again."""
    author.type(KEYS_A_ROUND // 2)
    taken, run = "", author.random.randint(2, 4)
    for _ in range(run):
        taken = author.delete("backspace", 1) + taken
    for key in taken:
        author.key("enter" if key == "\n" else TYPED, key)
    author.type(KEYS_A_ROUND - KEYS_A_ROUND // 2)


def _move(author: _Author) -> None:
    """A few lines away and back, and far away and back; something is typed there and undone."""
    for kind in ("near", "far"):
        home, line = author.cursor, author.line()
        n_lines = author.text.count("\n")
        if kind == "near":
            target = line - author.random.randint(2, 6)
        else:
            far = [at for at in range(5, n_lines) if abs(at - line) >= min(60, n_lines // 4)]
            target = author.random.choice(far or [5])
        to = author.line_end(target)
        author.move(kind, to)
        for key in " # ":
            author.key(TYPED, key)
        author.delete("undo", 3, pause_s=MOVE_PAUSE_S)
        author.move(kind, home)
        author.type(1)


def _paste(author: _Author) -> None:
    """Some lines from elsewhere in the file, which go again."""
    lines = author.documents[0].before.split("\n")
    first = author.random.randrange(max(1, len(lines) - 8))
    block = "\n" + "\n".join(lines[first : first + author.random.randint(3, 7)])
    author.key("paste", block, pause_s=MOVE_PAUSE_S)
    author.key(TYPED, " ")
    author.delete("undo", len(block) + 1, pause_s=MOVE_PAUSE_S)
    author.type(1)


def _look_elsewhere(author: _Author) -> None:
    """Another open document, something is typed there, and back. A first visit is "open", so it is visited twice."""
    home = author.path
    other = author.documents[1 + author.round % (len(author.documents) - 1)].path
    for _ in range(2 if other not in author.visited else 1):
        author.visit(other, "other_file")
        for key in "# ":
            author.key(TYPED, key)
        author.visit(home, "back")
        author.type(1)


def _save(author: _Author, other: tuple[str, str] | None) -> None:
    author.key("save", author.next_key(), pause_s=MOVE_PAUSE_S, saved=author.path)
    author.type(2)
    if other is not None:
        path, text = other
        added = "".join(f"\n\ndef added_in_round_{n}():\n    return {n}\n" for n in range(author.round + 1))
        author.key("save_other", author.next_key(), pause_s=MOVE_PAUSE_S, written=(path, text + added))
        author.type(2)
