"""Who presses the keys: types a known text into an editor, makes mistakes and mends them, looks at grey text and takes it where it is what was wanted.

The mistakes and the looks elsewhere lie at places that the seed chooses, so that the same typist with and without suggestions makes the same ones. Knows:
the text that shall stand there, the editor, what is grey. Does not know: servers, clocks.
"""

import math
import random
import re
from typing import NamedTuple

from benchmarks.feel_editor import Editor
from benchmarks.feel_holes import Hole
from benchmarks.feel_screen import CLOSERS, Screen, is_surplus

TYPOS, LOOKS = 0.03, 0.006  # shares of characters at which a wrong key is hit, or something else is looked at
ATTENTION = 0.75  # of suggestions that are right are seen; the others are typed through
ESCAPES, HESITATES, ASKS = 0.15, 0.5, 0.06  # of suggestions that are wrong; and how often a key is then taken back
WORTH = 2  # characters that a suggestion must save
KEY_S, SPREAD = 0.15, 0.45  # between two keys: median and sigma of a log-normal distribution
THINK_S, THINKS = 1.2, 0.02  # now and then
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"[ \t]*(\w+|[^\w\s]+)")


class Act(NamedTuple):
    """`kind`: "type" | "enter" | "backspace" | "delete" | "accept" | "word" | "escape" | "ask" | "away" | "return" | "over". `text`: what is typed or taken."""

    kind: str
    text: str = ""

    @property
    def n_keys(self) -> int:
        return 2 if self.kind == "over" else 1

    @property
    def asks(self) -> bool:
        """Whether an editor then wants a suggestion: after every change, and when told to."""
        return self.kind not in ("escape", "away", "return", "over")


class Typist:
    """Types one hole. `next` is asked before each key."""

    def __init__(self, hole: Hole, *, seed: int) -> None:
        self.hole = hole
        self.chance = random.Random(f"{seed} {hole.path} {len(hole.before)}")
        truth = hole.truth
        letters = [at for at, char in enumerate(truth) if char.isalpha() and neighbours(char)]
        self.typos = {at: self.chance.randrange(3) for at in letters if self.chance.random() < TYPOS}
        self.looks = {at for at in range(1, len(truth)) if self.chance.random() < LOOKS}
        self.most_keys = 8 * len(truth) + 200
        self.n_keys = 0
        self._unnoticed = 0  # keys that are still hit before a mistake is seen
        self._home: int | None = None
        self._queue: list[str] = []
        self._seen: dict[
            str, bool
        ] = {}  # by the document that a suggestion leads to: whether it is seen, or reacted to

    def left(self, editor: Editor) -> tuple[str, str, str]:
        """(what stands there and should not, what is still wanted, what stands between the cursor and what the file goes on with)"""
        done = editor.text[len(self.hole.before) : editor.cursor]
        truth = self.hole.truth
        n = next((at for at, (a, b) in enumerate(zip(done, truth, strict=False)) if a != b), min(len(done), len(truth)))
        return done[n:], truth[n:], editor.text[editor.cursor : len(editor.text) - len(self.hole.after)]

    def next(self, editor: Editor, screen: Screen) -> Act | None:
        """None: all is typed."""
        act = self._next(editor, screen)
        if act is not None:
            self.n_keys += act.n_keys
            assert self.n_keys < self.most_keys, f"{self.hole.path}: {self.n_keys} keys, now {act}"
        return act

    def pause_s(self, act: Act) -> float:
        """Before a key is hit."""
        median = KEY_S * (1.5 if act.kind in ("enter", "accept", "word", "ask") else 1.0)
        seconds = self.chance.lognormvariate(math.log(median), SPREAD)
        return seconds + (self.chance.lognormvariate(math.log(THINK_S), 0.5) if self.chance.random() < THINKS else 0.0)

    def _next(self, editor: Editor, screen: Screen) -> Act | None:
        if self._home is not None:
            return Act("return")
        junk, wanted, tail = self.left(editor)
        if self._queue and not (self._queue[0] == "backspace" and editor.cursor <= len(self.hole.before)):
            kind = self._queue.pop(0)
            return Act(kind, wanted[:1] if kind == "type" else "")
        if junk:
            return self._mend(junk, wanted, editor)
        if not wanted and not tail:
            return None
        if tail and (not wanted or is_surplus(tail, wanted)):
            return Act("delete")
        if tail[:1] == "\n" and wanted.startswith(tail):
            return Act("over", tail)
        reaction = self._react(screen, editor, wanted)
        return reaction or self._type(wanted, editor)

    def _mend(self, junk: str, wanted: str, editor: Editor) -> Act:
        """Indentation that came by itself is left to Enter or taken back; a wrong key is seen a little later."""
        if not editor.line_before.strip():
            return Act("enter") if wanted.startswith("\n") else Act("backspace")
        ahead = wanted[len(junk) : len(junk) + 1]
        if self._unnoticed > 0 and ahead.isalnum():
            self._unnoticed -= 1
            return Act("type", ahead)
        self._unnoticed = 0
        return Act("backspace")

    def _react(self, screen: Screen, editor: Editor, wanted: str) -> Act | None:
        grey, ghost = screen.visible(editor), screen.ghost
        if not grey or ghost is None:
            return None
        is_new = ghost.document not in self._seen
        word = _WORD.match(grey)
        if wanted.startswith(grey) and len(grey) >= WORTH:
            return Act("accept", grey) if self._roll(ghost.document, ATTENTION) else None
        if word and wanted.startswith(word[0]) and len(word[0]) >= WORTH and CLOSERS.isdisjoint(word[0]):
            return Act("word", word[0]) if self._roll(ghost.document, ATTENTION) else None
        if grey[0] == wanted[0] or not is_new:
            return None
        if self._roll(ghost.document, ESCAPES):
            if wanted[0].isalpha() and self.chance.random() < HESITATES:
                self._queue += ["type", "backspace"]
            return Act("escape")
        return Act("ask") if self.chance.random() < ASKS else None

    def _roll(self, document: str, share: float) -> bool:
        """The same answer for the same suggestion."""
        if document not in self._seen:
            self._seen[document] = self.chance.random() < share
        return self._seen[document]

    def _type(self, wanted: str, editor: Editor) -> Act:
        at = len(self.hole.truth) - len(wanted)
        if at in self.looks:
            self.looks.discard(at)
            self._home = editor.cursor
            return Act("away")
        if wanted[0] == "\n":
            return Act("enter")
        if at in self.typos:
            self._unnoticed = self.typos.pop(at)
            return Act("type", self.chance.choice(neighbours(wanted[0])))
        return Act("type", wanted[0])

    def press(self, act: Act, editor: Editor, screen: Screen) -> list[dict]:
        """What the key does to the text, as LSP's changes. Accepting whole puts only what is grey there; an editor that replaces all of it says so itself."""
        if act.kind == "away":
            editor.move(editor.text.rfind("\n", 0, max(0, len(self.hole.before) - 1)) + 1)
        elif act.kind == "return":
            assert self._home is not None, "was not away"
            editor.move(self._home)
            self._home = None
        elif act.kind == "over":
            editor.move(editor.cursor + len(act.text))
        elif act.kind == "type":
            return [editor.type(act.text).lsp]
        elif act.kind in ("enter", "backspace", "delete"):
            return [getattr(editor, act.kind)().lsp]
        elif act.kind == "word":
            return [editor.accept(editor.cursor, editor.cursor, act.text).lsp]
        elif act.kind == "accept":
            ghost = screen.ghost
            assert ghost is not None, "nothing to accept"
            return [editor.accept(editor.cursor, len(editor.text) - len(ghost.after), act.text).lsp]
        return []


def neighbours(char: str) -> str:
    """Keys beside a letter's on a keyboard."""
    row = next((row for row in _ROWS if char in row), "")
    at = row.find(char)
    return row[max(0, at - 1) : at] + row[at + 1 : at + 2] if row else ""


def keys_alone(hole: Hole, *, seed: int) -> int:
    """How many keys the same typist hits without any suggestion."""
    typist, editor, screen = Typist(hole, seed=seed), Editor(hole.opened, len(hole.before), hole.language), Screen()
    while (act := typist.next(editor, screen)) is not None:
        typist.press(act, editor, screen)
    assert editor.text == hole.before + hole.truth + hole.after, f"{hole.path}: typed something else"
    return typist.n_keys
