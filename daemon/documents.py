"""A context's documents in token ids: what is current, whatever order the model has read it in.

Knows: the protocol's documents, the tokenizer. Does not know: chains, states, threads; everything here may be called from any of them.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import blake3

from cache.chain import Tokens, as_tokens
from daemon.protocol import Document
from model.fim import document_ids, header_ids
from model.tokenizer import Tokenizer

DIGEST_BYTES = 16
KEPT_PIECES = 16_384  # documents whose tokens are remembered, so that only what changed is tokenised again
CHANGE_TOKENS = 24_576  # by which changes may make a context larger than a context that is posted whole


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One document as the model reads it. Equal digests: equal paths and texts."""

    path: str
    digest: bytes  # of `ids`, which begin with the path
    ids: Tokens  # the header's and the text's
    n_header: int  # of `ids`, the header's
    edits: float

    @property
    def text_ids(self) -> Tokens:
        return self.ids[self.n_header :]


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """The documents of a workspace as they are now, in the order of the client's choice, what changed last at the end.

    `id` names the workspace and the set, not the order: what the model has read first does not matter to whoever asks.
    """

    id: str
    pieces: Mapping[str, Piece]  # by path
    left_out: tuple[str, ...]
    workspace: str | None

    @property
    def n_documents(self) -> int:
        return len(self.pieces)

    @property
    def n_tokens(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces.values())


class Documents:
    """Makes contexts for one tokenizer. `fingerprint` goes into every id: another model's contexts are others."""

    def __init__(self, tokenizer: Tokenizer, fingerprint: bytes) -> None:
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self._pieces: OrderedDict[bytes, Piece] = OrderedDict()
        self._headers: OrderedDict[str, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def context(self, documents: Sequence[Document], *, max_tokens: int, workspace: str | None = None) -> Context:
        """Beyond `max_tokens` the first documents are left out: the order is from the least to the most useful.

        Of documents with one path the last counts.
        """
        by_path = {document.path: document for document in documents}
        return self._limited([self.piece(document) for document in by_path.values()], max_tokens, workspace)

    def changed(
        self, context: Context, documents: Sequence[Document], removed: Iterable[str], *, max_tokens: int
    ) -> Context:
        """`context` with some documents changed or added, in the order given at the end, and others gone."""
        gone = set(removed)
        by_path = {document.path: document for document in documents}
        kept = [piece for path, piece in context.pieces.items() if path not in gone and path not in by_path]
        weights = {path: piece.edits for path, piece in context.pieces.items()}
        changed = [
            replace(self.piece(each), edits=each.edits or weights.get(path, 0.0)) for path, each in by_path.items()
        ]
        return self._limited([*kept, *changed], max_tokens + CHANGE_TOKENS, context.workspace)

    def piece(self, document: Document) -> Piece:
        name = blake3.blake3(document.path.encode() + b"\0" + document.text.encode()).digest()
        with self._lock:
            known = self._pieces.get(name)
        if known is None:
            ids = as_tokens(document_ids(self.tokenizer, document.path, document.text))
            known = Piece(
                document.path, digest_of(ids), ids, n_header=len(self.header(document.path)), edits=document.edits
            )
        with self._lock:
            self._pieces[name] = known
            self._pieces.move_to_end(name)
            while len(self._pieces) > KEPT_PIECES:
                self._pieces.popitem(last=False)
        return known if known.edits == document.edits else replace(known, edits=document.edits)

    def forget(self) -> None:
        with self._lock:
            self._pieces.clear()
            self._headers.clear()

    def header(self, path: str) -> Tokens:
        """The ids of the line that names a file."""
        with self._lock:
            known = self._headers.get(path)
        if known is None:
            known = as_tokens(header_ids(self.tokenizer, path))
        with self._lock:
            self._headers[path] = known
            while len(self._headers) > KEPT_PIECES:
                self._headers.popitem(last=False)
        return known

    def _limited(self, pieces: Sequence[Piece], max_tokens: int, workspace: str | None) -> Context:
        first, total = len(pieces), 0
        while first > 0 and total + len(pieces[first - 1].ids) <= max_tokens:
            first -= 1
            total += len(pieces[first].ids)
        kept = {piece.path: piece for piece in pieces[first:]}
        # Two worktrees may have equal files, and share states. What is changed in one of them is not the other's, so their contexts are two.
        hasher = blake3.blake3(self.fingerprint + b"\0" + (workspace or "").encode() + b"\0")
        for digest in sorted(piece.digest for piece in kept.values()):
            hasher.update(digest)
        return Context(hasher.hexdigest(), kept, tuple(piece.path for piece in pieces[:first]), workspace)


def digest_of(ids: Tokens) -> bytes:
    return blake3.blake3(ids.tobytes()).digest(DIGEST_BYTES)
