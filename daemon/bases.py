"""The BASEs that are known, those of earlier runs included, and what a completion can stand on.

Knows: layouts, chains, the lookup's indexes. Does not know: threads' turns, how states are kept. May be called from any thread.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.chain import Chain
from cache.lookup import DocumentIndex, LayeredIndex, Lookup
from daemon.documents import Context, Documents, Piece
from daemon.layout import Base, Layout, base_of_pieces, choose, lay_out, whole
from daemon.prompt import Prompter
from daemon.protocol import Document

KEPT_BASES = 32  # of the process's own; a megabyte of tokens for 256k
KEPT_INDEXES = 4  # 4 bytes a token and the tokens themselves: 8 MB for a repository of a million


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What of a context a completion stands on: the chain up to what is read before the file itself, and the lookup's index."""

    chain: Chain
    index: Lookup | None = None
    ready: bool = True  # False: only a part of the context has been read
    current: float = 1.0  # share of the context's tokens that are read here in their current text
    digests: frozenset[bytes] = frozenset()  # of the documents read here
    related: Sequence[Document] | None = None  # outlines that are read after them; None: those of the request


class Bases:
    """Finds the layout of a context among the BASEs that are known."""

    def __init__(self, root: Chain, documents: Documents, *, stored: Callable[[], Iterable[Base]] = lambda: ()) -> None:
        """`root` is what every chain begins with. `stored` gives the BASEs that lie on disk."""
        self.root = root
        self.documents = documents
        self._stored = stored
        self._own: OrderedDict[tuple[bytes, str | None], Base] = OrderedDict()  # by key and workspace
        self._indexes: OrderedDict[bytes, DocumentIndex] = OrderedDict()
        self._lock = threading.Lock()

    def known(self) -> list[Base]:
        """Those of this process first, each once."""
        stored = list(self._stored())
        with self._lock:
            found = dict(reversed(self._own.items()))
        for base in stored:
            found.setdefault((base.key, base.workspace), base)
        return list(found.values())

    def layout(self, context: Context, *, missing: Callable[[Base], int]) -> Layout:
        """How the context is read soonest; its BASE is known from now on."""
        base = choose(context, self.known(), missing=missing, root=self.root)
        return self.lay_out(context, base)

    def lay_out(self, context: Context, base: Base) -> Layout:
        """A BASE of another workspace, which then holds nothing but what this one has, is this one's too from now on."""
        base = base if base.workspace == context.workspace else replace(base, workspace=context.workspace)
        self.add(base)
        return lay_out(context, base, self.index)

    def compacted(self, layout: Layout) -> Base:
        """The BASE that a compaction of this layout makes, with its index, which takes longer than all else here."""
        base = whole(layout.context, self.root, near=layout.base)
        self._base_index(base)
        return base

    def add(self, base: Base) -> None:
        with self._lock:
            name = base.key, base.workspace
            self._own[name] = base
            self._own.move_to_end(name)
            while len(self._own) > KEPT_BASES:
                self._own.popitem(last=False)

    def forget(self) -> None:
        """All of it: tokens are text."""
        with self._lock:
            self._own.clear()
            self._indexes.clear()

    def index(self, base: Base, hot: Sequence[Piece], superseded: frozenset[str]) -> Lookup:
        later = DocumentIndex([(piece.path, piece.text_ids) for piece in hot]) if hot else None
        return LayeredIndex(self._base_index(base), later, superseded)

    def _base_index(self, base: Base) -> DocumentIndex:
        """Sorting a large repository is slow, so an index is kept for the next context that asks the same."""
        with self._lock:
            known = self._indexes.get(base.key)
        if known is None:
            known = DocumentIndex(list(self._texts(base)))
        with self._lock:
            self._indexes[base.key] = known
            self._indexes.move_to_end(base.key)
            while len(self._indexes) > KEPT_INDEXES:
                self._indexes.popitem(last=False)
        return known

    def _texts(self, base: Base) -> Iterable[tuple[str, np.ndarray]]:
        """Path and tokens of each document, without its header."""
        parts = [part.tokens for part in base.chain.slices if part.kind == "base"]
        ids = np.concatenate(parts) if parts else np.empty(0, np.int32)
        start = 0
        for each in base.manifest:
            yield each.path, ids[start + len(self.documents.header(each.path)) : start + each.n_tokens]
            start += each.n_tokens


def ground_of(prompter: Prompter, documents: Sequence[Document], *, max_tokens: int) -> Ground:
    """Documents in their own order and nothing else, for whoever reads a repository once."""
    context = prompter.documents.context(documents, max_tokens=max_tokens)
    bases = Bases(prompter.root, prompter.documents)
    base = base_of_pieces(list(context.pieces.values()), prompter.root, None)
    return Ground(base.chain, bases.index(base, (), frozenset()))


def grounds_of(layout: Layout, *, path: str | None, readable: int | None) -> list[Ground]:
    """The best first. `readable`: how many slices of the layout's chain have been read and kept; None: all of them."""
    if readable is None:
        return [Ground(layout.chain(path), layout.index, current=layout.current, digests=layout.digests)]
    n_base = len(layout.base.chain.slices)
    hot = sum(len(piece.ids) for piece in layout.hot if piece.path != path)
    of_base = max(0.0, layout.current - hot / max(1, layout.context.n_tokens))
    if readable >= n_base:  # BASE is read, HOT not yet
        full = Ground(layout.chain(path), layout.index, current=layout.current, digests=layout.digests)
        return [full, Ground(layout.base.chain, layout.index, ready=False, current=of_base)]
    chain = layout.base.chain.upto(max(readable, 1))
    share = chain.n_tokens / max(1, layout.base.chain.n_tokens)
    return [Ground(chain, layout.index, ready=False, current=share * of_base)]
