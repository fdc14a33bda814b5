"""How sure the model is of what is shown, and of several lines those that it is sure of.

The measure is the geometric mean of the probabilities of the tokens that are shown, under the distribution they were chosen from.
Knows: what was generated, what is shown of it. Does not know: how tokens are chosen, requests' other rules.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from daemon.trim import Shown, Trim
from model.generate import Generated

BROKEN_OFF = ("time", "max_tokens", "cancelled")  # what ends a text that may be in the middle of a line
# A later line is shown when the model is so sure of it, and so sure of all up to it. Measured (benchmarks/stopping.py, 400 held-out holes): of 648 later lines
# that the rules of text leave 249 are left, and 14 of the 15 that are right.
LINE_CONFIDENCE = 0.85
LATER_CONFIDENCE = 0.8


class Sure(NamedTuple):
    """What is shown, and how sure the model is of it, 0 to 1; 1 where nothing is."""

    shown: Shown
    confidence: float = 1.0


def sure(trim: Trim, generated: Generated, *, pieces: Sequence[bytes], forced: bytes) -> Sure:
    """What is shown of a text. `pieces`: the bytes of each token; `forced`: what the first ones had to say before the text."""
    is_cut = generated.stopped_by in BROKEN_OFF
    text = generated.text
    shown = trim.outcome(text, is_cut=is_cut)
    if not shown.text:
        return Sure(shown)
    said = Said(generated, pieces=pieces, n_forced=len(forced))
    if trim.is_multi and (end := said.sure_lines(n_bytes(text, shown.upto))) < n_bytes(text, shown.upto):
        shown = trim.outcome(text[:end])
    confidence = said.confidence(0, n_bytes(text, shown.upto))
    if confidence < trim.request.min_confidence:
        return Sure(Shown("", "unsure"), confidence)
    return Sure(shown, confidence)


class Line(NamedTuple):
    """Where a line ends, in bytes, and how sure the model is of it and of all up to it."""

    end: int
    confidence: float
    so_far: float


class Said:
    """The tokens of a text: where in it each ends, in bytes, and the logarithm of its probability."""

    def __init__(self, generated: Generated, *, pieces: Sequence[bytes], n_forced: int) -> None:
        self.text = generated.text
        self.ends: list[int] = []
        end = -n_forced
        for i in generated.ids:
            end += len(pieces[i])
            self.ends.append(end)
        n_said = len(generated.ids) + (generated.stopped_by == "eos")
        n_unknown = max(0, n_said - len(generated.nats))
        # What is known of the first tokens is only their sum.
        mean = (generated.log_probability - sum(generated.nats)) / max(1, n_unknown)
        self.nats = [*[mean] * n_unknown, *generated.nats][: len(generated.ids)]

    def confidence(self, start: int, end: int) -> float:
        """The geometric mean of the probabilities of the tokens with a byte between `start` and `end`; 1 where there are none."""
        before = [-1, *self.ends]
        nats = [
            nat
            for begin, stop, nat in zip(before, self.ends, self.nats, strict=False)
            if stop > start and max(begin, 0) < end
        ]
        return math.exp(sum(nats) / len(nats)) if nats else 1.0

    def lines(self, end: int) -> list[Line]:
        """The lines with something in them of the text's first `end` bytes."""
        found, start = list[Line](), 0
        while start < end:
            stop = self.text.find(b"\n", start, end)
            stop = end if stop < 0 else stop
            if self.text[start:stop].strip():
                found.append(Line(stop, self.confidence(start, stop), self.confidence(0, stop)))
            start = stop + 1
        return found

    def sure_lines(self, end: int) -> int:
        """Where the lines end, of the text's first `end` bytes, that the model is sure of. The first with something in it is always among them."""
        first, *others = self.lines(end)
        upto = first.end
        for line in others:
            if line.confidence < LINE_CONFIDENCE or line.so_far < LATER_CONFIDENCE:
                return upto
            upto = line.end
        return end


def n_bytes(text: bytes, n_characters: int) -> int:
    """How many bytes the first characters of a text are; characters that are not whole do not count."""
    return len(text.decode("utf-8", "ignore")[:n_characters].encode())
