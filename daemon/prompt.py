"""From a completion's request to the chain of slices that answers it: related outlines, head, windows and line, on top of BASE and HOT.

Knows: the protocol's values, the tokenizer's layout, chains. Does not know: states, threads, HTTP. Everything here may run outside the model thread.
"""

import functools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.chain import Chain, Tokens, as_tokens, cut_at_lines, cut_grid
from daemon.documents import Documents
from daemon.protocol import CompletionRequest, Document
from model.fim import Layout, heal, layout_of
from model.tokenizer import Tokenizer

WINDOW_GRID = 128  # tokens between two states that are kept in the prefix window
LINE_GRID = (
    4  # tokens of a slice of a line, where the cut changes no bit: a typed key feeds at most about twice as many
)
COARSE_LINE_GRID = 8  # the same where each slice is a call of its own
LINE_JUMP_TOKENS = 512
KEPT_ABOVES = 16
MAX_LINE_TOKENS = 1024  # of the cursor's line that are fed; of a longer one (minified code) only its end


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One completion: what to feed, the bytes that healing took back, and the buffer's text for the lookup."""

    chain: Chain
    line_start: int  # slices of the chain before the cursor's line
    head_end: int  # slices of the chain up to the end of the head
    forced: bytes
    buffer: np.ndarray  # (n,) int32: the document's tokens before the healed cursor

    def segment(self, length: int) -> str:
        """Where the state after the first `length` slices stands, in the protocol's words."""
        if not length:
            return "root"
        kind = self.chain.slices[length - 1].kind
        return "line" if kind == "prefix" and length > self.line_start else kind


@dataclass(frozen=True, slots=True, eq=False)
class _Above:
    """All of a prompt before the cursor's line, which stays while the line is typed."""

    chain: Chain
    head_end: int
    buffer: np.ndarray


class Prompter:
    """Builds chains for one tokenizer and one layout; remembers the tokens of texts it has seen, so that only what changed is tokenised again.

    `any_cut`: the network's results do not depend on how tokens are cut into calls. Then lines are cut finely, since slices can be fed together: a line that
    has been typed keeps its slices when the next one begins, so Enter costs what any key costs.
    """

    def __init__(
        self, tokenizer: Tokenizer, root: Chain, layout: Layout | None = None, *, any_cut: bool = True
    ) -> None:
        """`root` is an empty chain whose key names the layout's version. The layout is `spm` unless another is given."""
        self.tokenizer = tokenizer
        self.layout = layout if layout is not None else layout_of(tokenizer, "spm")
        self.any_cut = any_cut
        self.root = root.extend("root", [(as_tokens(self.layout.root), False)])
        self.documents = Documents(tokenizer, root.tip)
        self._text = functools.lru_cache(maxsize=256)(self._encode)
        self._aboves: OrderedDict[tuple[object, ...], _Above] = OrderedDict()

    def completion(self, ground: Chain, request: CompletionRequest, *, with_head: bool = True) -> Prompt:
        """The chain of a request on top of `ground`; without its head, the windows still stand behind the file's header."""
        window, line = split_line(request.prompt)
        related = tuple((each.path, each.text) for each in request.related) if with_head else ()
        head = request.head if with_head else None
        above = self._above(ground, request.path, related, head, request.suffix, window)
        text = above.buffer if with_head else np.concatenate([self._text(request.head), above.buffer])
        ids = self.tokenizer.encode(line)
        # The start of a long line moves in jumps: if it slid, every key would feed the whole line again.
        jumps = -(-max(0, len(ids) - MAX_LINE_TOKENS) // LINE_JUMP_TOKENS)
        healed = heal(self.tokenizer, ids[jumps * LINE_JUMP_TOKENS :])
        pieces = self._cut_line(as_tokens(healed.ids))
        chain = above.chain.extend("prefix" if self.any_cut else "line", pieces)
        buffer = np.concatenate([text, np.array(healed.ids, np.int32)])
        return Prompt(chain, len(above.chain.slices), above.head_end, healed.forced, buffer)

    def forget(self) -> None:
        """All texts and tokens."""
        self._text.cache_clear()
        self._aboves.clear()
        self.documents.forget()

    def _above(self, ground: Chain, path: str | None, *texts: Any) -> _Above:
        """What the last keys had too is not cut and hashed again."""
        key = ground.tip, path, *texts
        known = self._aboves.get(key) or self._chain_above(ground, path, *texts)
        self._aboves[key] = known
        self._aboves.move_to_end(key)
        while len(self._aboves) > KEPT_ABOVES:
            self._aboves.popitem(last=False)
        return known

    def _chain_above(
        self,
        ground: Chain,
        path: str | None,
        related: tuple[tuple[str, str], ...],
        head: str | None,
        suffix: str,
        window: str,
    ) -> _Above:
        head_ids = self._text(head or "")
        chain = self._opening(ground, path, related)
        chain = chain.extend("head", cut_at_lines(head_ids, self.tokenizer.newline))
        head_end = len(chain.slices)
        if self.layout.shows_suffix:
            chain = chain.extend("suffix", cut_grid(self._suffix(suffix)))
        window_ids = self._text(window)
        chain = chain.extend("prefix", self._cut_window(as_tokens(self.layout.before_prefix), window_ids))
        return _Above(chain, head_end, np.concatenate([head_ids, window_ids]))

    def whole_file(self, ground: Chain, request: CompletionRequest, ids: Tokens) -> Chain | None:
        """The chain of a request as far as its file goes, whatever cursor: of `ids`, the file's tokens as it was saved.

        None where the request's file is another by now, above its windows.
        """
        head = self._text(request.head)
        if request.path is None or not np.array_equal(ids[: len(head)], head):
            return None
        related = tuple((each.path, each.text) for each in request.related)
        opening = self._opening(ground, request.path, related)
        return opening.extend("head", cut_at_lines(ids, self.tokenizer.newline))

    def _opening(self, ground: Chain, path: str | None, related: tuple[tuple[str, str], ...]) -> Chain:
        """What stands before a file's text: the outlines of what it imports, and the line with its path."""
        outlines = [self.documents.piece(Document(path=name, text=text)).ids for name, text in related]
        if outlines:
            ground = ground.extend("related", cut_grid(as_tokens(np.concatenate(outlines))))
        return ground if path is None else ground.extend("head", cut_grid(self.documents.header(path)))

    def _cut_window(self, opening: Tokens, window: Tokens) -> list[tuple[Tokens, bool]]:
        """The prefix window's pieces; the state at its end, where the cursor's line starts, is always kept."""
        if not self.any_cut:
            return cut_at_lines(as_tokens([*opening, *window]), self.tokenizer.newline, size=WINDOW_GRID)
        pieces = [(opening, False)]
        since = len(opening)  # the last piece that is kept
        start = 0
        for end in (*(np.flatnonzero(window == self.tokenizer.newline) + 1).tolist(), len(window)):
            if end > start:
                since += end - start
                is_kept = since >= WINDOW_GRID or end == len(window)
                pieces += cut_grid(window[start:end], size=LINE_GRID, keep_last=is_kept)
                since, start = 0 if is_kept else since, end
        return [*pieces[:-1], (pieces[-1][0], True)]

    def _cut_line(self, ids: Tokens) -> list[tuple[Tokens, bool]]:
        """The cursor's line: what a key may have to be rolled back to is kept."""
        if not self.any_cut:
            return cut_grid(ids, size=COARSE_LINE_GRID, keep=True)
        pieces = cut_grid(ids, size=LINE_GRID)
        return [(tokens, number >= len(pieces) - 3) for number, (tokens, _) in enumerate(pieces)]

    def _suffix(self, below: str) -> Tokens:
        """The lines below the cursor between what the layout puts around them."""
        if self.layout.whole_lines and below and not below.endswith("\n"):
            below += "\n"
        return as_tokens([*self.layout.before_suffix, *self._text(below), *self.layout.after_suffix])

    def _encode(self, text: str) -> Tokens:
        return as_tokens(self.tokenizer.encode(text))


def split_line(prompt: str) -> tuple[str, str]:
    """The whole lines of a prompt, and the start of its last line."""
    at = prompt.rfind("\n") + 1
    return prompt[:at], prompt[at:]


def kept_keys(chain: Chain, kinds: Iterable[str], *, upto: int) -> Sequence[bytes]:
    """The last kept state of each of these kinds among the first `upto` slices."""
    wanted, keys = set(kinds), []
    for part in reversed(chain.slices[:upto]):
        if not wanted or part.kind in ("root", "base"):
            break
        if part.kind in wanted and part.keep:
            wanted.discard(part.kind)
            keys.append(part.key)
    return keys
