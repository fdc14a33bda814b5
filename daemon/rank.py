"""Which of a few short branches are best, and in which order several are answered.

For models that do not know where a hole ends: where the first token is uncertain, the next likeliest ones are tried too, each from the same state. Whoever
was trained to fill in has seen what follows the hole; here that is asked afterwards: of each branch, how likely is the text that follows it? The score is
the mean log-probability of the branch's tokens plus the mean log-probability of the tokens of what follows, up to the first line with something in it:
means, so that neither a branch's length nor the line's decides.
For all models, when several answers are wanted: the greedy text and branches from its uncertain places, one for each text that is shown.
Knows: what is shown of a text, what follows it. Does not know: how branches are decoded (daemon/branches.py), requests, caches, HTTP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from daemon.branches import UNFINISHED, Fork, Turn, branch_from, rivals, turns
from daemon.certainty import sure
from daemon.overrun import first_line
from daemon.protocol import CompletionRequest
from daemon.trim import Shown
from model.generate import Generated
from model.sampling import log_probabilities
from model.tokenizer import Tokenizer

TRIES = 2  # branches at most for each further answer: some are shown alike, some not at all. Twice as many find no more (docs/log.md)
MAX_FOLLOWING_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best branch and how many there were."""

    best: Generated
    n_branches: int


def rank(fork: Fork, first: Generated, *, took_s: float) -> Ranked:
    """`first` is the greedy branch, which took `took_s`. Others are tried while there is time for one more like it.

    A branch that time or a newer request cuts off is no candidate, so a slow machine shows the greedy one.
    """
    if first.stopped_by in UNFINISHED:
        return Ranked(first, 1)
    branches = [first, *_grown(fork, rivals(fork), took_s=took_s)]
    by_text: dict[str, tuple[Generated, Shown]] = {}
    for branch in branches:
        shown = fork.trim.outcome(branch.text)
        by_text.setdefault(shown.text, (branch, shown))
    if len(by_text) == 1:
        return Ranked(first, len(branches))
    best, _ = max(by_text.values(), key=lambda each: score(fork, each[0], shown=each[1]))
    return Ranked(best, len(branches))


def alternatives(fork: Fork, first: Generated, *, n: int, took_s: float) -> list[Generated]:
    """Up to `n` texts that are shown differently, the likeliest first and the greedy one, `first`, among them and the first of equals.

    Where nothing is shown of `first` the others stand alone; where nothing is shown of any it is the only one. `took_s` as for `rank`: with no time for
    others, it is the only one too.
    """
    if n < 2 or first.stopped_by in UNFINISHED or not fork.has_time(took_s):
        return [first]
    best = Best(fork, n=n)
    best.add(first)
    for turn in _places(fork, first)[: TRIES * (n - 1)]:
        # A branch is never likelier than its turn, and those after it are less likely still.
        is_hopeless = best.least is not None and turn.log_probability <= best.least
        if is_hopeless or not fork.has_time(took_s):
            break
        branch = branch_from(fork, turn, least_nats=best.least)
        if branch.stopped_by not in UNFINISHED:
            best.add(branch)
    return best.ordered(first) or [first]


class Best:
    """The best `n` of the texts that were added, one for each that is shown."""

    def __init__(self, fork: Fork, *, n: int) -> None:
        self._fork = fork
        self._n = n
        self._by_line: dict[str, tuple[float, Generated]] = {}
        # What decides may be known of the whole text alone: where something else than its probability does, and where some of it may not be shown.
        self._is_bounded = not fork.following and not fork.trim.is_multi

    def add(self, made: Generated) -> None:
        fork = self._fork
        shown = sure(fork.trim, made, pieces=fork.tokenizer.pieces, forced=fork.forced).shown
        if shown.text:
            # Texts differ by what stands right of the cursor then, but for white space around it.
            line = f"{shown.text}{fork.trim.request.rest_of_line[shown.replaces :]}".strip()
            by = score(fork, made, shown=shown) if fork.following else likelihood(fork, made, shown=shown)
            self._by_line.setdefault(line, (by, made))

    @property
    def least(self) -> float | None:
        """The logarithm of the probability that a text must have to be among the best; None: any."""
        values = sorted((by for by, _ in self._by_line.values()), reverse=True)
        return values[self._n - 1] if self._is_bounded and len(values) >= self._n else None

    def ordered(self, first: Generated) -> list[Generated]:
        """The best first. `first` takes the last place where its own is behind that."""
        found = [made for _, made in sorted(self._by_line.values(), key=lambda each: -each[0])]
        if any(made is first for made in found[self._n :]):
            found.insert(self._n - 1, first)
        return found[: self._n]


def likelihood(fork: Fork, made: Generated, *, shown: Shown) -> float:
    """Nats: of the tokens that are shown and the one that ends them.

    A sum, since what is asked is whether all of it is right. Means rank a long text of easy tokens before a short one that is likelier.
    """
    end = len(fork.forced) + len(made.text.decode("utf-8", "ignore")[: shown.upto].encode())
    n_said, length = 0, 0
    while n_said < len(made.ids) and length < end:
        length += len(fork.tokenizer.pieces[made.ids[n_said]])
        n_said += 1
    return sum(made.nats[: n_said + 1])


def _places(fork: Fork, first: Generated) -> list[Turn]:
    """Where branches are tried. Those that `rank` would try come first, so that what it may choose is among them."""
    tried = rivals(fork) if fork.following else []
    return list(dict.fromkeys([*tried, *turns(fork, first)]))


def _grown(fork: Fork, places: Sequence[Turn], *, took_s: float) -> Iterator[Generated]:
    """The branches that were decoded to their end, as long as there is time for one more."""
    for turn in places:
        if not fork.has_time(took_s):
            return
        branch = branch_from(fork, turn)
        if branch.stopped_by not in UNFINISHED:
            yield branch


def score(fork: Fork, branch: Generated, *, shown: Shown) -> float:
    """Nats a token: of the branch as it was decoded, and of what follows once `shown` stands at the cursor."""
    n_said = len(branch.ids) + (branch.stopped_by == "eos")
    of_branch = branch.log_probability / max(1, n_said)
    following = fork.tokenizer.encode(_following(fork, shown))[:MAX_FOLLOWING_TOKENS]
    if not following:
        return of_branch
    text = branch.text.decode("utf-8", "ignore")[: shown.upto]
    before = ids_of_text(fork.tokenizer, branch.ids, fork.forced + text.encode())
    rows = log_probabilities(fork.network, fork.state, fork.logits, [*before, *following])
    return of_branch + float(rows[len(before) :].mean())


def _following(fork: Fork, shown: Shown) -> str:
    """What stands behind what is shown, without what that replaces."""
    if not fork.following or not shown.replaces:
        return fork.following
    request = fork.trim.request
    return what_follows(msgspec.structs.replace(request, rest_of_line=request.rest_of_line[shown.replaces :]))


def ids_of_text(tokenizer: Tokenizer, ids: Sequence[int], text: bytes) -> list[int]:
    """The first of `ids`, as far as `text`, with which they begin, goes; an end inside a token is encoded anew."""
    kept, length = [], 0
    for i in ids:
        if length + len(tokenizer.pieces[i]) > len(text):
            break
        kept.append(i)
        length += len(tokenizer.pieces[i])
    return [*kept, *tokenizer.encode(text[length:].decode("utf-8", "ignore"))]


def what_follows(request: CompletionRequest) -> str:
    """The text behind the hole: the rest of the cursor's line, else the lines below up to the first that is not blank."""
    if rest := request.rest_of_line.rstrip():
        return rest
    line = first_line(request.suffix)
    if not line:
        return ""
    return "\n" + request.suffix[: request.suffix.index(line)] + line
