"""What the next keys will need: prompts for which a key had no time, files under a context that has changed, the rest of a file. Read in the background.

Knows: contexts, live documents, what is read next. Does not know: threads' turns; all but `read_under` and `forget` is for the model's thread alone, and these
two are called with the worker's lock held.
"""

import threading
from collections.abc import Callable

import msgspec

from daemon.bases import Ground, grounds_of
from daemon.completion import Completion
from daemon.contexts import Contexts
from daemon.live import LiveDocuments
from daemon.protocol import CompletionRequest
from daemon.reading import AheadJob, ContextJob, PromptJob, Reader

AGAIN_DOCUMENTS = 3  # whose prompts are read again when their context changes: each costs what has changed
AHEAD_S = 30.0  # of reading, for the rest of the file that is being edited


class Upcoming:
    """One prompt at a time, the newest first."""

    def __init__(self, reader: Reader, contexts: Contexts, live: LiveDocuments, lock: threading.Condition) -> None:
        self.reader = reader
        self.engine = reader.engine
        self.contexts = contexts
        self.live = live
        self._lock = lock
        self._prompt: PromptJob | None = None  # of the newest file whose prompt was too long to be fed in time
        self._again: list[CompletionRequest] = []  # live documents' last requests, under their changed context
        self._ahead: AheadJob | None = None  # the rest of the file that was completed last

    def next(self) -> Callable[[], None] | None:
        """A step of reading."""
        if self._prompt is not None:
            return self._read_prompt
        if self._again:
            return self._read_again
        if self._ahead is not None and not self._ahead.done:
            return self._read_ahead
        return None

    def is_pending(self, request: CompletionRequest) -> bool:
        """Whether the prompt of this file is being read already."""
        return self._prompt is not None and self._prompt.is_of(request)

    def grounds(self, request: CompletionRequest) -> list[Ground]:
        """What a completion may stand on, the best first; what its document was last answered from is the second choice."""
        job = self.contexts.get(request.context)
        grounds, context = [Ground(self.engine.prompter.root)], None
        if job is not None:
            grounds, context = grounds_of(job.layout, path=request.path, readable=job.readable), job.context
        second = self.live.second(request, grounds[0], context)
        return grounds if second is None else [grounds[0], second, *grounds[1:]]

    def note(self, request: CompletionRequest, made: Completion, best: Ground) -> None:
        """After an answer: what was left out of it is read now; else the file is read to its end, so that a cursor that jumps finds a state near."""
        if not made.plan.is_best:
            self._queue_prompt(request, best)
            return
        job = self.contexts.get(request.context)
        piece = job.context.pieces.get(request.path) if job is not None and request.path is not None else None
        if piece is not None and best.ready and len(piece.ids) <= AHEAD_S * self.engine.tokens_per_s:
            ahead = AheadJob(request, best, piece)
            if self._ahead is None or self._ahead.key != ahead.key:
                self._ahead = ahead

    def read_under(self, job: ContextJob) -> None:
        """The last requests of the documents of a workspace that were edited last are read as they would be asked now."""
        workspace = job.context.workspace
        asked = [(request, self.contexts.get(request.context)) for request in self.live.requests()]
        self._again = [
            msgspec.structs.replace(request, context=job.context.id)
            for request, before in asked
            if before is not None and before.context.workspace == workspace
        ][:AGAIN_DOCUMENTS]

    def forget(self) -> None:
        self._prompt, self._ahead, self._again = None, None, []

    def _queue_prompt(self, request: CompletionRequest, ground: Ground) -> None:
        """The whole prompt, so that a later key finds all of its states."""
        if len(self.engine.store):  # one too small to keep anything would gain nothing
            prompt = self.engine.prompt(request, ground)
            self._prompt = PromptJob(request, self.engine.resume(prompt.chain))

    def _read_prompt(self) -> None:
        if self._prompt is not None and self.reader.read_prompt(self._prompt):
            self._prompt = None

    def _read_again(self) -> None:
        """A file that is being edited, under its changed context, before the next key in it."""
        with self._lock:
            request = self._again.pop(0) if self._again else None
        if request is not None:
            self._queue_prompt(request, self.grounds(request)[0])

    def _read_ahead(self) -> None:
        if self._ahead is not None:
            self.reader.read_ahead(self._ahead)
