"""In which order the model reads a context: a BASE that was read before, and after it, as HOT, what is new or has changed since.

An edit never makes BASE be read again: the changed document moves to HOT, like an entry into the overlay of an LSM tree, and now and then a new BASE is
made of both (compaction). Everything here is a pure function of values. Knows: documents, chains. Does not know: states, threads, disks.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cache.chain import Chain, Tokens, cut_grid
from cache.lookup import Lookup
from cache.placement import place
from daemon.documents import Context, Piece

BASE_CHECKPOINTS = 16  # states kept inside BASE, at ends of documents
HOT_TOKENS = 24_576  # that HOT holds at most; beyond, what changed longest ago is not read until the next compaction
HOT_SHARE = 0.1  # of BASE, above which a compaction is due
HOT_FLOOR_TOKENS = 4096  # below which none is due, however small BASE is
OVERLAP = 0.5  # of a context that a BASE must hold, and of BASE that must be current, for it to serve the context
MIN_GAP_TOKENS = 512  # a checkpoint nearer to the last one saves less than loading it costs


@dataclass(frozen=True, slots=True)
class Listed:
    """A document of a BASE, without its tokens, which the chain holds."""

    path: str
    digest: bytes
    n_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """Documents in the order in which they are read. Only a BASE of the same workspace may hold what is no longer current."""

    manifest: tuple[Listed, ...]
    chain: Chain  # the root, such as <s>, and the documents
    workspace: str | None

    @property
    def key(self) -> bytes:
        return self.chain.tip

    def files_in(self, length: int) -> int:
        """How many documents the first `length` slices hold whole."""
        end = self.chain.slices[length - 1].end if length else 0
        ends = itertools.accumulate((each.n_tokens for each in self.manifest), initial=base_start(self))
        return sum(each <= end for each in ends) - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a BASE serves a context; in tokens."""

    covered: int  # of the context, that BASE has in their current text
    hot: int  # of the context, to be read after it
    stale: int  # of BASE, no longer current

    @property
    def cost(self) -> int:
        return self.hot + self.stale


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A context in reading order. `hot` is what is read after BASE, least recently changed first; `unread` is what HOT has no room for."""

    context: Context
    base: Base
    hot: tuple[Piece, ...]
    unread: tuple[Piece, ...]
    index: Lookup | None
    stale_tokens: int
    current: float  # share of the documents' tokens that are read in their current text; what is gone and still in BASE counts against it
    digests: frozenset[bytes]  # of the documents that are read in the text that this context has
    _chains: dict[str | None, Chain] = field(default_factory=dict)

    def chain(self, path: str | None = None) -> Chain:
        """BASE and HOT. The document that is being completed is left out of HOT: its own text comes at the end, as it stands in the editor."""
        left_out = path if any(piece.path == path for piece in self.hot) else None
        known = self._chains.get(left_out)
        if known is None:
            known = self.base.chain
            for piece in self.hot:
                if piece.path != left_out:
                    known = known.extend("hot", cut_grid(piece.ids))
            self._chains[left_out] = known
        return known

    @property
    def hot_tokens(self) -> int:
        return sum(len(piece.ids) for piece in (*self.hot, *self.unread))

    @property
    def is_due(self) -> bool:
        """Whether HOT, or what is stale in BASE, has grown so much that a new BASE should be made."""
        return is_due(self.base, hot=self.hot_tokens, stale=self.stale_tokens)

    @property
    def overlay(self) -> int:
        """Tokens that a compaction would move or remove."""
        return self.hot_tokens + self.stale_tokens

    @property
    def is_compact(self) -> bool:
        return not self.overlay


def fit(base: Base, context: Context) -> Fit:
    current = {piece.digest: len(piece.ids) for piece in context.pieces.values()}
    covered = sum(each.n_tokens for each in base.manifest if each.digest in current)
    return Fit(covered, hot=sum(current.values()) - covered, stale=base.chain.n_tokens - base_start(base) - covered)


def serves(base: Base, context: Context, how: Fit) -> bool:
    """Whether a context may be answered from a BASE: of another workspace only where it holds nothing that this one has not."""
    if base.workspace != context.workspace and how.stale:
        return False
    total = how.covered + how.hot
    return how.covered >= OVERLAP * total and how.stale <= (1 - OVERLAP) * (how.covered + how.stale)


def choose(context: Context, known: Iterable[Base], *, missing: Callable[[Base], int], root: Chain) -> Base:
    """The BASE from which the context is ready soonest: one that is known, or a new one of all its documents.

    `missing` is how many tokens must be fed to have the state at a BASE's end. One that is there already is taken even where much has
    changed since, for a completion must not wait: a compaction follows.
    """
    fits = [(base, fit(base, context)) for base in known]
    usable = [(missing(base), how.cost, base) for base, how in fits if serves(base, context, how)]
    if not usable:
        return whole(context, root)
    best = min(usable, key=lambda each: (each[0] + each[1], each[2].key))
    if not best[0]:
        return best[2]
    fresh = whole(context, root, near=best[2])
    return fresh if missing(fresh) <= best[0] + best[1] else best[2]


def whole(context: Context, root: Chain, *, near: Base | None = None) -> Base:
    """A new BASE of all documents: those of `near` that are unchanged in its order, so that what comes before the first change is not fed again,
    then the others in the context's. What is edited often thus moves to the end, where an edit costs least."""
    by_digest = {piece.digest: piece for piece in context.pieces.values()}
    first = [by_digest[each.digest] for each in near.manifest if each.digest in by_digest] if near is not None else []
    there = {piece.digest for piece in first}
    pieces = [*first, *(piece for piece in context.pieces.values() if piece.digest not in there)]
    return base_of_pieces(pieces, root, context.workspace)


def base_of_pieces(pieces: Sequence[Piece], root: Chain, workspace: str | None) -> Base:
    keep = set(
        place(
            [len(piece.ids) for piece in pieces],
            [piece.edits for piece in pieces],
            BASE_CHECKPOINTS,
            min_gap_tokens=MIN_GAP_TOKENS,
        )
        if pieces
        else ()
    )
    cut: list[tuple[Tokens, bool]] = []
    for number, piece in enumerate(pieces):
        cut += cut_grid(piece.ids, keep_last=number in keep)
    manifest = tuple(Listed(piece.path, piece.digest, len(piece.ids)) for piece in pieces)
    return Base(manifest, root.extend("base", cut), workspace)


def lay_out(
    context: Context, base: Base, index_of: Callable[[Base, Sequence[Piece], frozenset[str]], Lookup | None]
) -> Layout:
    """`index_of` (BASE, HOT, paths of BASE that are no longer current) makes the index for the lookup."""
    held = {each.digest for each in base.manifest}
    current = {piece.digest for piece in context.pieces.values()}
    changed = [piece for piece in context.pieces.values() if piece.digest not in held]
    room, first = HOT_TOKENS, len(changed)
    while first > 0 and len(changed[first - 1].ids) <= room:
        first -= 1
        room -= len(changed[first].ids)
    unread = sum(len(piece.ids) for piece in changed[:first])
    gone = sum(each.n_tokens for each in base.manifest if each.path not in context.pieces)
    total = context.n_tokens + gone
    hot = tuple(changed[first:])
    return Layout(
        context=context,
        base=base,
        hot=hot,
        unread=tuple(changed[:first]),
        index=index_of(base, hot, frozenset(each.path for each in base.manifest if each.digest not in current)),
        stale_tokens=sum(each.n_tokens for each in base.manifest if each.digest not in current),
        current=1.0 - (unread + gone) / total if total else 1.0,
        digests=frozenset(held & current) | frozenset(piece.digest for piece in hot),
    )


def is_due(base: Base, *, hot: int, stale: int) -> bool:
    """Whether so many tokens after a BASE, or no longer current in it, are too many."""
    share = max(HOT_SHARE * base.chain.n_tokens, HOT_FLOOR_TOKENS)
    return hot > min(HOT_TOKENS, share) or stale > share


def base_start(base: Base) -> int:
    """Tokens before the first document."""
    return next((part.end - len(part.tokens) for part in base.chain.slices if part.kind == "base"), base.chain.n_tokens)
