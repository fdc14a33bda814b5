"""The documents that are being edited: what each was last answered from, which is pinned, and serves while something newer is still being read.

Knows: requests, grounds, the store's pins. Does not know: contexts, threads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cache.chain import Chain
from cache.store import StateStore
from daemon.bases import Ground
from daemon.completion import Completion
from daemon.documents import Context
from daemon.prompt import kept_keys
from daemon.protocol import CompletionRequest, Document

LIVE_DOCUMENTS = 8  # the last ones that were completed
PINNED_KINDS = ("hot", "related", "head", "suffix")


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    request: CompletionRequest  # the last one
    ground: Ground
    related: Sequence[Document]  # outlines that were read with it
    head: Chain  # up to the end of the file's head


class LiveDocuments:
    """By the document's name in the requests; the last used is the last."""

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self._live: OrderedDict[str, Live] = OrderedDict()

    def note(self, request: CompletionRequest, made: Completion) -> None:
        """Pins what a completion was answered from, if that had everything."""
        plan = made.plan
        if request.document is None or not plan.has_head or not plan.ground.ready:
            return
        chain = plan.prompt.chain
        related = request.related if plan.ground.related is None else plan.ground.related
        self._live[request.document] = Live(request, plan.ground, related, chain.upto(plan.prompt.head_end))
        self._live.move_to_end(request.document)
        windows = kept_keys(chain, PINNED_KINDS, upto=plan.prompt.line_start)
        self.store.pin(request.document, [plan.ground.chain.tip, *windows])
        while len(self._live) > LIVE_DOCUMENTS:
            self.store.unpin(self._live.popitem(last=False)[0])

    def second(self, request: CompletionRequest, best: Ground, context: Context | None) -> Ground | None:
        """What the document was last answered from, with the share of it that is still current; None where that is the best anyway."""
        live = self._live.get(request.document) if request.document is not None else None
        if live is None or (live.ground.chain.tip == best.chain.tip and live.related == request.related):
            return None
        # Its own text comes at the end of the chain in any case.
        pieces = () if context is None else context.pieces.values()
        others = [piece for piece in pieces if piece.path != request.path]
        same = sum(len(piece.ids) for piece in others if piece.digest in live.ground.digests)
        total = sum(len(piece.ids) for piece in others)
        return replace(live.ground, current=same / total if total else 1.0, related=live.related)

    def requests(self) -> list[CompletionRequest]:
        """The last request of each, the last used first."""
        return [live.request for live in reversed(self._live.values())]

    def heads(self) -> list[tuple[str | None, Chain]]:
        """The end of each one's head, and the context that it was asked in."""
        return [(live.request.context, live.head) for live in self._live.values()]

    def forget(self) -> None:
        for document in self._live:
            self.store.unpin(document)
        self._live.clear()
