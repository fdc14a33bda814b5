"""What was last said for each document, as a guess at what will be said next: while typing agrees with it, most of it is said again.

Knows: requests, texts, the tokenizer. Does not know: the model; a wrong hint costs a little time and changes nothing.
"""

from collections import OrderedDict

from daemon.protocol import CompletionRequest
from model.tokenizer import Tokenizer

KEPT_HINTS = 16  # documents


class Hints:
    """By the document's name in the requests."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._said: OrderedDict[str, tuple[str, str]] = (
            OrderedDict()
        )  # the text before the cursor's end, and what followed

    def note(self, request: CompletionRequest, text: bytes) -> None:
        """What the model said, before it was trimmed."""
        if request.document is None:
            return
        self._said[request.document] = (request.head + request.prompt, text.decode(errors="ignore"))
        self._said.move_to_end(request.document)
        while len(self._said) > KEPT_HINTS:
            self._said.popitem(last=False)

    def of(self, request: CompletionRequest, forced: bytes) -> list[int]:
        """The tokens after the healed cursor, if typing has agreed with what was said last; they begin with the `forced` bytes."""
        before, said = self._said.get(request.document or "", ("", ""))
        text = request.head + request.prompt
        typed = text[len(before) :]
        if not said or not text.startswith(before) or not said.startswith(typed):
            return []
        return self.tokenizer.encode(forced.decode(errors="ignore") + said[len(typed) :])

    def forget(self) -> None:
        self._said.clear()
