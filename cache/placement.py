"""Where checkpoints stand in a run of documents so that an edit makes the fewest tokens be fed again.

An edit of document i makes everything behind its start be fed again, wherever checkpoints stand; what a placement decides is the way from the nearest
checkpoint at or before that start. The expected length of that way is made least, exactly, by dynamic programming over the checkpoints: the cost of one
segment is a line in the summed probability, with slopes that only fall, so each layer is the lower hull of lines and takes time linear in the documents
(the convex hull trick; the segment's cost satisfies the quadrangle inequality, Yao 1980).
Where several edits are gathered before anything is fed again, the first of the edited documents decides, so it is its probability that counts.
Knows: sizes and weights. Does not know: documents, chains, states.
"""

import itertools
import math
from collections.abc import Sequence

UNSEEN_SHARE = 0.3  # of all edits, spread evenly over the documents: one that nobody has edited still can be
GATHERED_EDITS = (
    1.0,
    3.0,
    10.0,
)  # before documents are fed again; a placement for one alone is bad for ten, and the other way round


def place(
    n_tokens: Sequence[int],
    weights: Sequence[float],
    n_checkpoints: int,
    *,
    min_gap_tokens: int = 0,
    n_edits: Sequence[float] = GATHERED_EDITS,
) -> list[int]:
    """The numbers of the documents after whose end a checkpoint is kept, ascending; the last document's always among them.

    `n_tokens` (n,) are the documents' sizes in reading order, `weights` (n,) how often each is edited, in any unit. At most `n_checkpoints`, fewer
    where more would gain nothing. No checkpoint is nearer than `min_gap_tokens` to the one before it, or to the start; only the last document's, where
    all are so short, is kept nevertheless. As many edits as `n_edits` says, each number as likely as the others, are gathered before
    documents are fed again. Raises ValueError for sizes, weights or numbers that cannot be.
    """
    if n_checkpoints < 1:
        raise ValueError(f"n_checkpoints {n_checkpoints}: expected at least 1, the end of the last document")
    if bad := [size for size in n_tokens if size < 0]:
        raise ValueError(f"n_tokens {bad[0]}: expected sizes of 0 or more")
    shares = first_shares(edit_shares(weights), n_edits)
    if len(n_tokens) != len(shares):
        raise ValueError(f"{len(n_tokens)} sizes and {len(shares)} weights: expected one weight for each document")
    n = len(n_tokens)
    if n == 0:
        return []
    starts = list(itertools.accumulate(n_tokens, initial=0))
    reach = _reach(starts, min_gap_tokens)
    prefix = list(itertools.accumulate(shares, initial=0.0))
    moment = list(itertools.accumulate((p * s for p, s in zip(shares, starts, strict=False)), initial=0.0))
    costs: list[float] = [0.0] + [math.inf] * n  # of the documents before boundary b, with the last checkpoint at b
    least, depth = math.inf, 0
    layers: list[list[int]] = []  # where the checkpoint before b stands
    for layer in range(1, min(n_checkpoints, n) + 1):
        costs, before = _one_more(costs, starts=starts, prefix=prefix, moment=moment, reach=reach)
        layers.append(before)
        # Sums of fractions differ in their last digits; no checkpoint is kept for a millionth of a token.
        if costs[n] < least - 1e-6:
            least, depth = costs[n], layer
    boundary, found = n, []
    for before in reversed(layers[:depth]):
        found.append(boundary - 1)
        boundary = before[boundary]
    return found[::-1]


def edit_shares(weights: Sequence[float]) -> list[float]:
    """Each document's share of the edits to come (sum 1): what the weights say, smoothed. Raises ValueError for a weight that is none."""
    if bad := [weight for weight in weights if not (weight >= 0 and math.isfinite(weight))]:
        raise ValueError(f"weight {bad[0]}: expected a finite number of 0 or more")
    largest = max(weights, default=0.0)
    if largest == 0:
        return [1 / len(weights)] * len(weights) if weights else []
    scaled = [weight / largest for weight in weights]  # first, lest a sum of large numbers overflow
    total, even = math.fsum(scaled), UNSEEN_SHARE / len(weights)
    return [(1 - UNSEEN_SHARE) * weight / total + even for weight in scaled]


def first_shares(shares: Sequence[float], n_edits: Sequence[float]) -> list[float]:
    """How likely each document is the first in order among those that are edited, each edit drawn by `shares` (sum 1).

    The mean over the numbers of edits in `n_edits`. Raises ValueError for none, or a number below one edit.
    """
    if not n_edits or any(not (number >= 1 and math.isfinite(number)) for number in n_edits):
        raise ValueError(f"n_edits {tuple(n_edits)}: expected finite numbers of 1 or more")
    # That no edit falls before document i is spared^number; what each document adds is the difference of two of these.
    spared = [max(0.0, 1 - share) for share in itertools.accumulate(shares, initial=0.0)]
    at_least = [sum(rest**number for number in n_edits) / len(n_edits) for rest in spared]
    return [before - after for before, after in itertools.pairwise(at_least)]


def expected_loss(n_tokens: Sequence[int], shares: Sequence[float], kept: Sequence[int]) -> float:
    """Tokens between the nearest checkpoint and the start of the first document that is edited, on average over `shares`: how likely each is that."""
    ends, loss, start, checkpoint = set(kept), 0.0, 0, 0
    for number, (size, share) in enumerate(zip(n_tokens, shares, strict=True)):
        loss += share * (start - checkpoint)
        start += size
        if number in ends:
            checkpoint = start
    return loss


def _reach(starts: Sequence[int], min_gap_tokens: int) -> list[int]:
    """For each boundary, how many boundaries from the first on may hold the checkpoint before it. The last may always follow the start."""
    reach, allowed = [0], 0
    for boundary in range(1, len(starts)):
        while allowed < boundary and starts[boundary] - starts[allowed] >= min_gap_tokens:
            allowed += 1
        reach.append(allowed)
    reach[-1] = max(1, reach[-1])
    return reach


def _one_more(
    costs: Sequence[float],
    *,
    starts: Sequence[int],
    prefix: Sequence[float],
    moment: Sequence[float],
    reach: Sequence[int],
) -> tuple[list[float], list[int]]:
    """The least costs with one checkpoint more, and where the one before stands; costs with the last checkpoint at each boundary, inf where none can be.

    Documents a..b-1 behind a checkpoint at a cost sum p_i (s_i - s_a) = moment[b] - moment[a] - s_a (prefix[b] - prefix[a]): for each a a line in
    prefix[b] of slope -s_a.
    """
    found, before = [math.inf] * len(starts), [0] * len(starts)
    lines: list[tuple[float, float, int]] = []  # (slope, intercept, a) on the lower hull, slopes falling
    first = added = 0
    for boundary in range(1, len(starts)):
        while added < reach[boundary]:
            slope, a = -float(starts[added]), added
            added += 1
            if costs[a] == math.inf:
                continue
            line = slope, costs[a] - moment[a] - slope * prefix[a], a
            if len(lines) > first and lines[-1][0] == slope:  # empty documents between: only the lower line counts
                if lines[-1][1] <= line[1]:
                    continue
                lines.pop()
            while len(lines) - first >= 2 and _is_above(lines[-1], lines[-2], line):
                lines.pop()
            lines.append(line)
        if first == len(lines):
            continue
        x = prefix[boundary]
        while (
            first + 1 < len(lines)
            and lines[first + 1][0] * x + lines[first + 1][1] <= lines[first][0] * x + lines[first][1]
        ):
            first += 1
        slope, intercept, a = lines[first]
        found[boundary], before[boundary] = max(0.0, moment[boundary] + slope * x + intercept), a
    return found, before


def _is_above(
    middle: tuple[float, float, int], flatter: tuple[float, float, int], steeper: tuple[float, float, int]
) -> bool:
    """Whether `middle` is nowhere below both of its neighbours on the hull."""
    return (steeper[1] - flatter[1]) * (flatter[0] - middle[0]) <= (middle[1] - flatter[1]) * (flatter[0] - steeper[0])
