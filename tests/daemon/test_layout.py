"""In which order a context is read: which BASE serves it, what is HOT, what compaction moves. Values only: nothing is fed."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from cache.chain import Chain, as_tokens
from cache.lookup import Lookup
from daemon.documents import Context, Piece, digest_of
from daemon.layout import (
    BASE_CHECKPOINTS,
    HOT_FLOOR_TOKENS,
    HOT_TOKENS,
    MIN_GAP_TOKENS,
    Base,
    Fit,
    Layout,
    base_of_pieces,
    choose,
    fit,
    lay_out,
    serves,
    whole,
)

ROOT = Chain.start(b"test").extend("root", [(as_tokens([1]), False)])
W, OTHER = "/workspace", "/other"


def piece(name: str, n_tokens: int = 10, *, edits: float = 0.0) -> Piece:
    """`name` is a path and, behind a slash, a version: other versions are other texts of the same length."""
    path = name.partition("/")[0]
    ids = as_tokens([*name.encode(), *[7] * n_tokens][:n_tokens])
    return Piece(path, digest_of(ids), ids, n_header=2, edits=edits)


def pieces(names: str, n_tokens: int = 10) -> list[Piece]:
    return [piece(name, n_tokens) for name in names.split()]


def context(names: str, *, n_tokens: int = 10, workspace: str | None = W) -> Context:
    return context_of(pieces(names, n_tokens), workspace=workspace)


def context_of(all_pieces: Sequence[Piece], *, workspace: str | None = W) -> Context:
    return Context("id", {each.path: each for each in all_pieces}, (), workspace)


def base(names: str, *, n_tokens: int = 10, workspace: str | None = W) -> Base:
    return base_of_pieces(pieces(names, n_tokens), ROOT, workspace)


def no_index(base: Base, hot: Sequence[Piece], superseded: frozenset[str]) -> Lookup | None:
    return None


def laid_out(names: str, on: str, *, n_tokens: int = 10) -> Layout:
    return lay_out(context(names, n_tokens=n_tokens), base(on, n_tokens=n_tokens), no_index)


def paths(chain: Chain, kind: str) -> str:
    """The documents of a segment, by the names at their beginnings; each is one slice here."""
    return " ".join(bytes(part.tokens.tolist()).rstrip(b"\x07").decode() for part in chain.slices if part.kind == kind)


def listed(base: Base) -> str:
    return " ".join(each.path for each in base.manifest)


# context, BASE -> covered, hot, stale; and whether it serves from the same workspace, and from another one
FITS = [
    ("a b c d", "a b c d", (40, 0, 0), True, True),
    ("d c b a", "a b c d", (40, 0, 0), True, True),  # the order is BASE's
    ("a b c d e", "a b c d", (40, 10, 0), True, True),
    ("a b c d/2", "a b c d", (30, 10, 10), True, False),
    ("a b c", "a b c d", (30, 0, 10), True, False),  # deleted
    ("a b c x", "a b c d", (30, 10, 10), True, False),  # renamed
    ("a b c/2 d/2", "a b c d", (20, 20, 20), True, False),
    ("a b/2 c/2 d/2", "a b c d", (10, 30, 30), False, False),
    ("a b x y z", "a b", (20, 30, 0), False, False),
    ("a b", "a b c d e", (20, 0, 30), False, False),
    ("x y", "a b", (0, 20, 20), False, False),
    ("a", "", (0, 10, 0), False, False),
    ("", "", (0, 0, 0), True, True),
    ("", "a", (0, 0, 10), False, False),
]


@pytest.mark.parametrize(("names", "on", "expected", "own", "others"), FITS)
def test_how_well_a_base_serves(names: str, on: str, expected: tuple[int, int, int], own: bool, others: bool) -> None:
    how = fit(base(on), context(names))
    assert (how.covered, how.hot, how.stale) == expected
    assert how == Fit(*expected)
    assert how.cost == how.hot + how.stale
    assert serves(base(on), context(names), how) is own
    for workspace in (OTHER, None):
        assert serves(base(on, workspace=workspace), context(names), how) is others
        assert serves(base(on, workspace=workspace), context(names, workspace=workspace), how) is own


# context, BASEs and how many tokens they miss, what a new BASE would miss -> what is taken; "new": the documents in that order
CHOICES = [
    ("a b", [], "new a b"),
    ("a b", [("a b", 0)], "a b"),
    ("a b c", [("a b", 0)], "a b"),
    ("a b c", [("a b", 0), ("a b c", 0)], "a b c"),
    ("a b c", [("a b", 0), ("a b c", 30)], "a b"),  # ready sooner
    ("a b c", [("a b", 0), ("a b c", 5)], "a b c"),
    ("a b c d/2", [("a b c d", 0)], "a b c d"),
    ("a b c d/2", [("a b c d", 40)], "new a b c d/2"),  # nothing is there: no reason to read what is no longer so
    ("a b c", [("a b", 22)], "new a b c"),
    ("a b c", [("a b", 19)], "a b"),
    ("a/2 b/2 c/2", [("a b c", 0)], "new a/2 b/2 c/2"),
    ("a b c/2 d/2", [("a b c d", 0)], "a b c d"),  # there: a completion does not wait, compaction follows
]


@pytest.mark.parametrize(("names", "known", "taken"), CHOICES)
def test_the_base_that_is_ready_soonest(names: str, known: list[tuple[str, int]], taken: str) -> None:
    wanted = context(names)
    bases = [base(on) for on, _ in known]
    misses = {each.key: n for each, (_, n) in zip(bases, known, strict=True)}
    chosen = choose(wanted, bases, missing=lambda each: misses.get(each.key, each.chain.n_tokens), root=ROOT)
    named = [number for number, each in enumerate(bases) if each.key == chosen.key]
    found = known[named[0]][0] if named else f"new {paths(chosen.chain, 'base')}"
    assert found == taken


def test_no_base_of_another_workspace_with_what_this_one_has_not() -> None:
    stranger = base("a b c secret", workspace=OTHER)
    chosen = choose(context("a b c"), [stranger], missing=lambda each: 0, root=ROOT)
    assert listed(chosen) == "a b c"
    assert chosen.workspace == W
    equal = base("a b c", workspace=OTHER)
    assert choose(context("c b a x"), [stranger, equal], missing=lambda each: 0, root=ROOT) is equal


# context, the BASE before -> the new one: what stays in its old order, then the others in the context's, those changed last at the end
COMPACTIONS = [
    ("a b c", "a b c", "a b c"),
    ("c b a", "a b c", "a b c"),
    ("a c d b/2", "a b c d", "a c d b/2"),
    ("c d b/2 a/2", "a b c d", "c d b/2 a/2"),
    ("x a b c", "a b c", "a b c x"),
    ("a c", "a b c", "a c"),
    ("c/2 b/2 a/2", "a b c", "c/2 b/2 a/2"),
    ("", "a", ""),
]


@pytest.mark.parametrize(("names", "near", "expected"), COMPACTIONS)
def test_a_new_base_keeps_the_order_before_the_first_change(names: str, near: str, expected: str) -> None:
    older, made = base(near), whole(context(names), ROOT, near=base(near))
    assert paths(made.chain, "base") == expected
    same = 0
    while same < min(len(older.manifest), len(made.manifest)) and older.manifest[same] == made.manifest[same]:
        same += 1
    keys = [[part.key for part in each.chain.slices[: 1 + same]] for each in (older, made)]
    assert keys[0] == keys[1], "what stands before the first change would be read again"
    assert lay_out(context(names), made, no_index).is_compact


# context, BASE -> HOT, stale tokens, current
LAYOUTS = [
    ("a b c", "a b c", "", 0, 1.0),
    ("a b c x", "a b c", "x", 0, 1.0),
    ("b c a/2", "a b c", "a/2", 10, 1.0),
    ("c b/2 a/2", "a b c", "b/2 a/2", 20, 1.0),  # what changed last is read last
    ("c a/2 b/2", "a b c", "a/2 b/2", 20, 1.0),
    ("a b", "a b c", "", 10, 2 / 3),  # what is gone is still read, and counts
    ("a b d", "a b c", "d", 10, 3 / 4),
    ("", "", "", 0, 1.0),
]


@pytest.mark.parametrize(("names", "on", "hot", "stale", "current"), LAYOUTS)
def test_a_layout(names: str, on: str, hot: str, stale: int, current: float) -> None:
    made = laid_out(names, on)
    assert (paths(made.chain(), "base"), paths(made.chain(), "hot")) == (on, hot)
    assert (made.hot_tokens, made.stale_tokens, made.unread) == (10 * len(hot.split()), stale, ())
    assert made.current == pytest.approx(current)
    assert made.is_compact is (not hot and not stale)
    read = {each.digest for each in base(on).manifest} | {each.digest for each in pieces(hot)}
    assert made.digests == {each.digest for each in pieces(names)} == read & {each.digest for each in pieces(names)}


def test_the_index_is_told_what_is_superseded() -> None:
    asked: list[tuple[str, str, frozenset[str]]] = []

    def index(base: Base, hot: Sequence[Piece], superseded: frozenset[str]) -> Lookup | None:
        asked.append((listed(base), " ".join(each.path for each in hot), superseded))
        return None

    lay_out(context("c b/2 x"), base("a b c"), index)
    assert asked == [("a b c", "b x", frozenset({"a", "b"}))]


def test_the_document_that_is_completed_is_left_out_of_hot_and_the_rest_is_shared() -> None:
    made = laid_out("a x/2 y/2 z/2", "a x y z")
    n_base = len(made.base.chain.slices)
    assert [paths(made.chain(path), "hot") for path in (None, "a", "x", "y", "z", "nowhere")] == [
        "x/2 y/2 z/2",
        "x/2 y/2 z/2",
        "y/2 z/2",
        "x/2 z/2",
        "x/2 y/2",
        "x/2 y/2 z/2",
    ]
    assert made.chain("a") is made.chain() is made.chain("nowhere")
    for path, shared in (("z", 2), ("y", 1), ("x", 0)):
        one, other = made.chain(path).slices, made.chain().slices
        n_same = sum(a.key == b.key for a, b in zip(one, other, strict=False))
        assert n_same == n_base + shared
    assert all(part.keep for part in made.chain().slices if part.kind == "hot"), "each file's end is kept"


def test_hot_has_a_limit_and_the_rest_waits_for_compaction() -> None:
    size = HOT_TOKENS // 4
    made = laid_out("a b/2 c/2 d/2 e/2 f/2", "a b c d e f", n_tokens=size)
    assert [each.path for each in made.hot] == ["c", "d", "e", "f"], "what changed longest ago waits"
    assert [each.path for each in made.unread] == ["b"]
    assert made.hot_tokens == 5 * size
    assert made.current == pytest.approx(5 / 6)
    assert made.is_due
    assert not made.digests & {each.digest for each in made.unread}
    too_long = lay_out(context_of([piece("a"), piece("b", HOT_TOKENS + 1)]), base("a"), no_index)
    assert (too_long.hot, [each.path for each in too_long.unread]) == ((), ["b"])


# tokens of BASE, changed, removed -> whether a compaction is due
DUE = [
    (100_000, 0, 0, False),
    (100_000, 9_000, 0, False),
    (100_000, 11_000, 0, True),  # a tenth of BASE
    (300_000, 24_000, 0, False),
    (300_000, 25_000, 0, True),  # all that HOT holds
    (10_000, 4_000, 0, False),  # less than it pays to read BASE for
    (10_000, 4_200, 0, True),
    (300_000, 0, 34_000, True),  # of which BASE then holds 334,000
    (300_000, 0, 32_000, False),
    (10_000, 0, 4_000, False),
    (10_000, 0, 4_200, True),
]


@pytest.mark.parametrize(("n_base", "changed", "removed", "due"), DUE)
def test_when_a_compaction_is_due(n_base: int, changed: int, removed: int, due: bool) -> None:
    """Changed: new files, so that nothing is stale by them."""
    old = [piece(f"old{n}", 1000) for n in range(n_base // 1000)]
    gone = [piece("gone", removed)] if removed else []
    new = [piece("new", changed)] if changed else []
    made = lay_out(context_of([*old, *new]), base_of_pieces([*old, *gone], ROOT, W), no_index)
    assert made.is_due is due
    assert HOT_FLOOR_TOKENS == 4096, "the table is made for it"


def test_checkpoints_of_base_stand_at_file_ends() -> None:
    many = [piece(f"{n}", 60 + 97 * (n % 7)) for n in range(200)]
    made = base_of_pieces(many, ROOT, W)
    kept = [part.end for part in made.chain.slices if part.keep]
    ends = {1}
    for each in many:
        ends.add(max(ends) + len(each.ids))
    assert set(kept) <= ends
    assert 8 <= len(kept) <= BASE_CHECKPOINTS
    assert kept[-1] == made.chain.n_tokens
    assert all(b - a >= MIN_GAP_TOKENS for a, b in pairwise([1, *kept]))


def test_what_is_edited_often_has_checkpoints_near() -> None:
    sizes = [1000] * 40
    for hot in (5, 20, 35):
        some = [piece(f"{n}", size, edits=100.0 * (n == hot)) for n, size in enumerate(sizes)]
        kept = {part.end for part in base_of_pieces(some, ROOT, W).chain.slices if part.keep}
        assert 1 + 1000 * hot in kept, "an edit of it would make what stands before it be read again"
