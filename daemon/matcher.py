"""What stood behind the last tokens elsewhere: in the buffer before the cursor, and in the context's other documents.

One search a token serves both uses: the mixture (model/mixture.py), which weighs all that followed, and drafts (model/draft.py), which are the run of tokens
that followed most often. A search is asked for at most once for each token said: whoever asks for drafts and then for matches pays once.
Knows: token ids, the indexes over them. Does not know: text, the model, where drafts are checked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.lookup import NOWHERE, Continuations, Hits, Lookup, buffer_search


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """A model.draft.Proposal: tokens that may come next, made when asked for."""

    source: str  # a word of model.mixture.SOURCES
    hits: Hits

    @property
    def length(self) -> int:
        """Of the match, in tokens; 0 where there is none."""
        return self.hits.length

    def draft(self, n: int) -> np.ndarray:
        """Up to `n` tokens, int32."""
        return self.hits.draft(n)


class Matcher:
    """Matches of the buffer's text and what was generated since, in the buffer itself and in the context's other documents. For one thread."""

    def __init__(self, buffer: np.ndarray, index: Lookup | None, path: str | None) -> None:
        """`buffer` (n,) int32: the document's tokens before the cursor; `path`: the document that is left out of `index`."""
        self.text = np.concatenate([buffer, np.empty(256, np.int32)])
        self.start = len(buffer)
        self.index = index
        self.path = path
        self._ids: list[int] = []  # what was asked last, and what was found
        self._hits: tuple[Hits, Hits] | None = None

    def __call__(self, ids: Sequence[int]) -> tuple[Continuations, Continuations]:
        """What followed the longest matches of the buffer and `ids`: in the buffer, and in the documents. A model.generate.MatchesOf."""
        of_buffer, of_documents = self._search(ids)
        return of_buffer.continuations(), of_documents.continuations()

    def proposals(self, ids: Sequence[int]) -> tuple[Proposal, Proposal]:
        """What may come after `ids`, by the buffer and by the documents. A model.draft.ProposalsOf."""
        of_buffer, of_documents = self._search(ids)
        return Proposal("buffer", of_buffer), Proposal("documents", of_documents)

    def _search(self, ids: Sequence[int]) -> tuple[Hits, Hits]:
        if self._hits is not None and self._ids == ids:
            return self._hits
        end = self.start + len(ids)
        while end > len(self.text):
            self.text = np.concatenate([self.text, np.empty(len(self.text), np.int32)])
        self.text[self.start : end] = ids
        text = self.text[:end]
        documents = NOWHERE if self.index is None else self.index.search(text, without=self.path)
        self._ids, self._hits = list(ids), (buffer_search(text, known=self.start), documents)
        return self._hits
