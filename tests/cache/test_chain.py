"""A key says everything about its state, and where a chain is cut depends on nothing but its content."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.chain import SLICE_TOKENS, Chain, as_tokens, cut_at_lines, cut_grid

NEWLINE = 0
ids = st.lists(st.integers(0, 5), max_size=60)
ROOT = Chain.start(b"model")


def chain_of(*segments: tuple[str, list[list[int]]], fingerprint: tuple[bytes, ...] = (b"model",)) -> Chain:
    chain = Chain.start(*fingerprint)
    for kind, pieces in segments:
        chain = chain.extend(kind, [(as_tokens(piece), True) for piece in pieces])
    return chain


DIFFERENT = [
    chain_of(),
    chain_of(fingerprint=(b"model2",)),
    chain_of(fingerprint=(b"mod", b"el")),
    chain_of(fingerprint=(b"model", b"")),
    chain_of(fingerprint=(b"", b"model")),
    chain_of(("base", [[1]])),
    chain_of(("base", [[2]])),
    chain_of(("base", [[257]])),
    chain_of(("base", [[1 << 16]])),
    chain_of(("bas", [[1]])),
    chain_of(("head", [[1]])),
    chain_of(("base", [[1]]), fingerprint=(b"model2",)),
    chain_of(("base", [[1, 2, 3]])),
    chain_of(("base", [[1, 2], [3]])),
    chain_of(("base", [[1], [2, 3]])),
    chain_of(("base", [[1], [2], [3]])),
    chain_of(("base", [[1]]), ("head", [[2, 3]])),
    chain_of(("base", [[1, 2]]), ("head", [[3]])),
    chain_of(("head", [[1, 2]]), ("base", [[3]])),
    chain_of(("base", [[3, 2, 1]])),
    chain_of(("base", [[1, 2, 3, 0]])),
    chain_of(("base", [[0, 1, 2, 3]])),
]


def test_every_difference_is_in_the_key() -> None:
    assert len({chain.tip for chain in DIFFERENT}) == len(DIFFERENT)


def test_equal_content_has_equal_keys() -> None:
    one, other = (
        chain_of(("base", [[1, 2], [3]]), ("head", [[4]])),
        chain_of(("base", [[1, 2]]), ("base", [[3]]), ("head", [[4]])),
    )
    assert [part.key for part in one.slices] == [part.key for part in other.slices]


def test_whether_to_keep_is_not_in_the_key() -> None:
    assert ROOT.extend("base", [(as_tokens([1]), True)]).tip == ROOT.extend("base", [(as_tokens([1]), False)]).tip


@given(st.lists(ids, max_size=6), st.data())
def test_keys_change_from_the_first_difference_on(pieces: list[list[int]], data: st.DataObject) -> None:
    pieces = [piece for piece in pieces if piece]
    chain = chain_of(("base", pieces))
    assert len({part.key for part in chain.slices} | {chain.root}) == len(pieces) + 1
    assert chain.n_tokens == sum(map(len, pieces))
    if pieces:
        at = data.draw(st.integers(0, len(pieces) - 1))
        token = data.draw(st.integers(0, len(pieces[at]) - 1))
        changed = [list(piece) for piece in pieces]
        changed[at][token] += 1
        other = chain_of(("base", changed))
        same = [a.key == b.key for a, b in zip(chain.slices, other.slices, strict=True)]
        assert same == [True] * at + [False] * (len(pieces) - at)


def test_extending_leaves_the_old_chain_alone_and_shares_its_slices() -> None:
    old = chain_of(("base", [[1, 2], [3]]))
    keys = [part.key for part in old.slices]
    new = old.extend("head", [(as_tokens([4]), False)])
    assert [part.key for part in old.slices] == keys
    assert all(a is b for a, b in zip(old.slices, new.slices, strict=False))
    assert new.root == old.root


def test_a_slice_knows_where_it_ends_and_a_chain_can_be_cut_short() -> None:
    chain = chain_of(("base", [[1, 2], [3]]), ("head", [[4, 5, 6]]))
    assert [part.end for part in chain.slices] == [2, 3, 6]
    assert chain.n_tokens == 6
    for length in range(4):
        part = chain.upto(length)
        assert part.slices == chain.slices[:length]
        assert part.tip == (chain.slices[length - 1].key if length else chain.root)
        assert part.n_tokens == sum(len(each.tokens) for each in chain.slices[:length])
    assert chain.upto(2).extend("head", [(as_tokens([4, 5, 6]), False)]).tip == chain.tip


def test_empty_pieces_are_left_out() -> None:
    assert chain_of(("base", [[], [1], []])).tip == chain_of(("base", [[1]])).tip
    assert chain_of(("base", [[]])).tip == ROOT.root


def test_tokens_cannot_be_written_to() -> None:
    source = np.arange(600, dtype=np.int32)
    tokens = as_tokens(source)
    source[0] = 99
    assert tokens[0] == 0
    for piece in [
        tokens,
        *(piece for piece, _ in cut_grid(tokens)),
        *(piece for piece, _ in cut_at_lines(tokens, NEWLINE)),
    ]:
        assert piece.dtype == np.int32
        with pytest.raises(ValueError, match="read-only"):
            piece[0] = 1


@given(ids, st.integers(1, 9), st.booleans(), st.booleans())
def test_a_grid(tokens: list[int], size: int, keep: bool, keep_last: bool) -> None:
    pieces = cut_grid(as_tokens(tokens), size=size, keep=keep, keep_last=keep_last)
    assert [t for piece, _ in pieces for t in piece.tolist()] == tokens
    assert [len(piece) for piece, _ in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert all(1 <= len(piece) <= size for piece, _ in pieces)
    kept = [kept for _, kept in pieces]
    assert kept == [keep] * (len(kept) - 1) + [keep or keep_last] * bool(kept)


@given(ids, ids, st.integers(1, 9))
def test_appending_changes_only_the_last_piece_of_a_grid(tokens: list[int], more: list[int], size: int) -> None:
    before, after = cut_grid(as_tokens(tokens), size=size), cut_grid(as_tokens(tokens + more), size=size)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(before[:-1], after, strict=False))


@given(ids, st.integers(1, 9))
def test_cutting_at_lines(tokens: list[int], size: int) -> None:
    pieces = [piece.tolist() for piece, keep in cut_at_lines(as_tokens(tokens), NEWLINE, size=size) if keep]
    assert [t for piece in pieces for t in piece] == tokens
    assert all(1 <= len(piece) <= size for piece in pieces)
    for piece, following in pairwise(pieces):
        # It ends at a line end, unless it holds none and is as long as can be; and it is as long as line ends allow.
        assert piece[-1] == NEWLINE or (NEWLINE not in piece and len(piece) == size)
        if piece[-1] == NEWLINE:
            room = following[: size - len(piece)]
            assert NEWLINE not in room


@given(ids, ids, st.integers(1, 9))
def test_appending_lines_changes_only_the_last_piece(tokens: list[int], more: list[int], size: int) -> None:
    before, after = (cut_at_lines(as_tokens(each), NEWLINE, size=size) for each in (tokens, tokens + more))
    assert len(after) >= len(before)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(before[:-1], after, strict=False))


def test_no_slice_is_longer_than_a_keystroke_may_have_to_wait_for() -> None:
    tokens = as_tokens(np.arange(1, 1000))
    for pieces in (cut_grid(tokens), cut_at_lines(tokens, NEWLINE)):
        assert max(len(piece) for piece, _ in pieces) == SLICE_TOKENS == 256
