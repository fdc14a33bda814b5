"""From what was asked to the chain of slices that answers it: a context's BASE, and a completion's head, windows and line.

Knows: the protocol's values, the tokenizer's layout, chains. Does not know: states, threads, HTTP. Everything here may run outside the model thread.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.chain import Chain, Tokens, as_tokens, cut_at_lines, cut_grid
from cache.lookup import DocumentIndex
from daemon.protocol import CompletionRequest, Document
from model.fim import Layout, document_ids, header_ids, heal, layout_of
from model.tokenizer import Tokenizer

BASE_CHECKPOINTS = 16  # states kept inside BASE, at file boundaries
WINDOW_GRID = 128  # tokens of a slice of the prefix window: a new line feeds at most so many of it again
LINE_GRID = 8  # tokens of a slice of the cursor's line: what a typed key feeds at most, but for tokens taken back
LINE_JUMP_TOKENS = 512
KEPT_INDEXES = 4  # 4 bytes a token and the tokens themselves: 8 MB for a repository of a million
MAX_LINE_TOKENS = 1024  # of the cursor's line that are fed; of a longer one (minified code) only its end


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """A repository as the model reads it. `id` is the key of its last state."""

    chain: Chain  # the root, such as <s>, and BASE
    index: DocumentIndex
    n_documents: int
    left_out: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.chain.tip.hex()

    @property
    def n_tokens(self) -> int:
        return self.chain.n_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One completion: what to feed, the bytes that healing took back, and the buffer's text for the lookup."""

    chain: Chain
    forced: bytes
    buffer: np.ndarray  # (n,) int32: the document's tokens before the healed cursor


class Prompter:
    """Builds chains for one tokenizer and one layout; remembers the tokens of texts it has seen, so that only what changed is tokenised again."""

    def __init__(self, tokenizer: Tokenizer, root: Chain, layout: Layout | None = None) -> None:
        """`root` is an empty chain whose key names the layout's version. The layout is `spm` unless another is given."""
        self.tokenizer = tokenizer
        self.layout = layout if layout is not None else layout_of(tokenizer, "spm")
        self.root = root.extend("root", [(as_tokens(self.layout.root), False)])
        self._document = functools.lru_cache(maxsize=16_384)(self._encode_document)
        self._text = functools.lru_cache(maxsize=256)(self._encode)
        self._header = functools.lru_cache(maxsize=16_384)(self._text_of_header)
        self._indexes: OrderedDict[tuple[bytes, tuple[tuple[str, int], ...]], DocumentIndex] = OrderedDict()
        self._lock = threading.Lock()  # contexts are built on whatever thread was asked

    def context(self, documents: Sequence[Document], *, max_tokens: int) -> Context:
        """Beyond `max_tokens` the first documents are left out: the order is from the least to the most useful."""
        encoded = [(document.path, self._document(document.path, document.text)) for document in documents]
        total, first = 0, len(encoded)
        while first > 0 and total + len(encoded[first - 1][1]) <= max_tokens:
            first -= 1
            total += len(encoded[first][1])
        left_out, encoded = tuple(path for path, _ in encoded[:first]), encoded[first:]
        pieces: list[tuple[Tokens, bool]] = []
        fed, step = 0, max(1, total // BASE_CHECKPOINTS)
        for number, (_, ids) in enumerate(encoded):
            boundary = (fed + len(ids)) // step > fed // step or number == len(encoded) - 1
            pieces += cut_grid(ids, keep_last=boundary)
            fed += len(ids)
        chain = self.root.extend("base", pieces)
        return Context(chain, self._index(chain, encoded), len(encoded), left_out)

    def _index(self, chain: Chain, encoded: Sequence[tuple[str, Tokens]]) -> DocumentIndex:
        """Sorting a large repository takes longer than all else here, so an index is kept for the next window that asks the same.

        The chain's key says which tokens; the paths and lengths, which a key does not hold, where each document begins.
        """
        key = chain.tip, tuple((path, len(ids)) for path, ids in encoded)
        with self._lock:
            known = self._indexes.get(key)
        if known is None:
            known = DocumentIndex([(path, ids[len(self._header(path)) :]) for path, ids in encoded])
        with self._lock:
            self._indexes[key] = known
            self._indexes.move_to_end(key)
            while len(self._indexes) > KEPT_INDEXES:
                self._indexes.popitem(last=False)
        return known

    def completion(self, base: Chain, request: CompletionRequest, *, with_head: bool = True) -> Prompt:
        """The chain of a request on top of `base`; without its head, the windows still stand behind the file's header."""
        above, line = split_line(request.prompt)
        head = self._text(request.head) if with_head else as_tokens([])
        chain = base
        if request.path is not None:
            chain = chain.extend("head", cut_grid(self._header(request.path)))
        chain = chain.extend("head", cut_at_lines(head, self.tokenizer.newline))
        if self.layout.shows_suffix:
            chain = chain.extend("suffix", cut_grid(self._suffix(request.suffix)))
        window = self._text(above)
        prefix = as_tokens([*self.layout.before_prefix, *window])
        chain = chain.extend("prefix", cut_at_lines(prefix, self.tokenizer.newline, size=WINDOW_GRID))
        ids = self.tokenizer.encode(line)
        # The start of a long line moves in jumps: if it slid, every key would feed the whole line again.
        jumps = -(-max(0, len(ids) - MAX_LINE_TOKENS) // LINE_JUMP_TOKENS)
        healed = heal(self.tokenizer, ids[jumps * LINE_JUMP_TOKENS :])
        chain = chain.extend("line", cut_grid(as_tokens(healed.ids), size=LINE_GRID, keep=True))
        buffer = np.concatenate([self._text(request.head), window, healed.ids]).astype(np.int32)
        return Prompt(chain, healed.forced, buffer)

    def _suffix(self, below: str) -> Tokens:
        """The lines below the cursor between what the layout puts around them."""
        if self.layout.whole_lines and below and not below.endswith("\n"):
            below += "\n"
        return as_tokens([*self.layout.before_suffix, *self._text(below), *self.layout.after_suffix])

    def _text_of_header(self, path: str) -> Tokens:
        return as_tokens(header_ids(self.tokenizer, path))

    def _encode_document(self, path: str, text: str) -> Tokens:
        return as_tokens(document_ids(self.tokenizer, path, text))

    def _encode(self, text: str) -> Tokens:
        return as_tokens(self.tokenizer.encode(text))


def split_line(prompt: str) -> tuple[str, str]:
    """The whole lines of a prompt, and the start of its last line."""
    at = prompt.rfind("\n") + 1
    return prompt[:at], prompt[at:]
