"""Restored is recomputed, bit for bit, with a real network: the test that every engine's state cache has failed once.

The list of what went wrong elsewhere is in research/state-cache.md, section 1.6.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.chain import Chain, as_tokens, cut_at_lines, cut_grid
from cache.resume import Feed, Feeding, kept_length, resume
from cache.store import StateStore
from model.config import Mamba2Config
from model.state import Mamba2State

VOCAB = 101
NEWLINE = 7
CONFIG = Mamba2Config(d_model=16, n_layers=2, vocab_size=VOCAB, d_state=8, head_dim=4, n_heads=8, n_groups=2)
ROOT = Chain.start(b"test").extend("root", [(as_tokens([1]), False)])
PLENTY = 1 << 30


class Value(NamedTuple):
    state: Mamba2State
    logits: Tensor

    @property
    def nbytes(self) -> int:
        return self.state.nbytes + self.logits.nbytes


@pytest.fixture(scope="module")
def feed(random_network: Callable) -> Feed:
    network = random_network(CONFIG)

    @torch.no_grad()
    def run(tokens: np.ndarray, value: Value | None) -> Value:
        logits, state = network(torch.from_numpy(tokens.astype(np.int64))[None], value and value.state, last_only=True)
        return Value(state, logits[0, -1].clone())

    return run


def ids_of(length: int, seed: int = 0) -> np.ndarray:
    return as_tokens(np.random.default_rng(seed).integers(2, VOCAB, length))


def document(seed: int, *, base: int = 300, head: int = 70, line: int = 10) -> Chain:
    chain = ROOT.extend("base", cut_grid(ids_of(base, seed)))
    chain = chain.extend("head", cut_at_lines(ids_of(head, seed + 1), NEWLINE, size=32))
    return chain.extend("line", cut_grid(ids_of(line, seed + 2), size=8, keep=True))


def finish(feeding: Feeding) -> Value:
    while not feeding.ready:
        feeding.step()
        feeding.store.check()
    return feeding.value


def cold(chain: Chain, feed: Feed) -> Value:
    return finish(resume(chain, StateStore(0), feed))


def check_equal(one: Value, other: Value) -> None:
    for a, b in zip((*one.state, one.logits), (*other.state, other.logits), strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


def clone(value: Value) -> Value:
    return Value(Mamba2State(*(each.clone() for each in value.state)), value.logits.clone())


@pytest.mark.parametrize("tail", range(261))
def test_every_length_of_a_tail(feed: Feed, tail: int) -> None:
    """A base that is kept and a tail of `tail` tokens: fed on a restored state, on a cold one, and restored itself."""
    base = ROOT.extend("base", cut_grid(ids_of(40)))
    chain = base.extend("head", cut_grid(ids_of(tail, seed=1)))
    store = StateStore(PLENTY)
    kept = finish(resume(base, store, feed))
    before = clone(kept)
    warm = resume(chain, store, feed)
    assert (warm.tokens_reused, warm.tokens_missing, warm.chain.slices[warm.resumed - 1].kind) == (41, tail, "base")
    expected = cold(chain, feed)
    check_equal(finish(warm), expected)
    assert (warm.tokens_fed, warm.tokens_missing) == (tail, 0)
    restored = resume(chain, store, feed)
    assert restored.ready
    assert restored.tokens_fed == 0
    check_equal(restored.value, expected)
    check_equal(kept, before)


@pytest.mark.parametrize("line", range(20))
def test_typing_on_is_starting_afresh(feed: Feed, line: int) -> None:
    """Key by key on one store, against a run that knows nothing."""
    store = StateStore(PLENTY)
    tokens = ids_of(20, seed=5)
    head = document(3, line=0)
    finish(resume(head, store, feed))
    for typed in range(1, line + 1):
        chain = head.extend("line", cut_grid(tokens[:typed], size=8, keep=True))
        feeding = resume(chain, store, feed)
        assert feeding.tokens_missing <= 8
        check_equal(finish(feeding), cold(chain, feed))


def test_two_documents_never_mix(feed: Feed) -> None:
    """Fed in turns, slice by slice, on one store; they begin with the same base."""
    base = ROOT.extend("base", cut_grid(ids_of(600), keep=True))
    chains = [base.extend("head", cut_grid(ids_of(100, seed), size=16, keep=True)) for seed in (1, 2)]
    store = StateStore(PLENTY)
    feedings = [resume(chain, store, feed) for chain in chains]
    while not all(feeding.ready for feeding in feedings):
        for feeding in feedings:
            if not feeding.ready:
                feeding.step()
                store.check()
    for feeding, chain in zip(feedings, chains, strict=True):
        check_equal(feeding.value, cold(chain, feed))
        for length in range(1, len(chain.slices) + 1):
            entry = store.get(chain, length)
            if entry is not None:
                check_equal(entry.value, cold(Chain(chain.root, chain.slices[:length]), feed))
    assert not torch.equal(feedings[0].value.logits, feedings[1].value.logits)


@pytest.mark.parametrize("entries", [0, 1, 2, 3, 5])
def test_eviction_on_the_way_changes_nothing_but_the_work(feed: Feed, entries: int) -> None:
    nbytes = cold(document(1), feed).nbytes
    store = StateStore(entries * nbytes)
    chains = [document(1), document(4), document(1, line=20), document(7), document(1), document(4)]
    for chain in chains:
        check_equal(finish(resume(chain, store, feed)), cold(chain, feed))
        assert len(store) <= entries


def test_a_state_that_is_evicted_while_it_is_built_on_stays_whole(feed: Feed) -> None:
    chain, other = document(1), document(4)
    nbytes = cold(chain, feed).nbytes
    store = StateStore(nbytes)
    finish(resume(chain, store, feed))
    feeding = resume(chain.extend("line", cut_grid(ids_of(30, seed=9), size=8)), store, feed)
    finish(resume(other, store, feed))
    assert chain.tip not in store
    check_equal(finish(feeding), cold(feeding.chain, feed))


@pytest.mark.parametrize("stop", range(8))
def test_interrupted_and_continued(feed: Feed, stop: int) -> None:
    """Stopped after `stop` slices and left; another document comes between; then goes on, and a second reader starts from what was kept."""
    chain = document(1)
    store = StateStore(PLENTY)
    feeding = resume(chain, store, feed)
    for _ in range(min(stop, len(chain.slices))):
        feeding.step()
    finish(resume(document(4), store, feed))
    second = resume(chain, store, feed)
    expected = cold(chain, feed)
    check_equal(finish(second), expected)
    check_equal(finish(feeding), expected)
    for each in (feeding, second):
        assert each.tokens_fed + each.tokens_reused == chain.n_tokens
    unkept = sum(
        len(part.tokens) for part in chain.slices if not part.keep
    )  # what one had read, and no other could find
    assert feeding.tokens_fed + second.tokens_fed <= chain.n_tokens + unkept, "both fed what one of them had fed"


def test_the_deepest_kept_state_is_found(feed: Feed) -> None:
    store = StateStore(PLENTY)
    chain = document(1)
    for length in range(len(chain.slices) + 1):
        feeding = resume(chain, store, feed)
        kept = [n for n, part in enumerate(chain.slices[:length], start=1) if part.keep]
        assert feeding.done == (kept[-1] if kept else 0)
        assert feeding.tokens_reused == sum(len(part.tokens) for part in chain.slices[: feeding.done])
        assert feeding.resumed == feeding.done
        while feeding.done < length + 1 and not feeding.ready:
            feeding.step()


def test_only_what_says_so_is_kept(feed: Feed) -> None:
    chain = document(1)
    store = StateStore(PLENTY)
    finish(resume(chain, store, feed))
    assert [part.key in store for part in chain.slices] == [part.keep for part in chain.slices]
    assert not all(part.keep for part in chain.slices)


def test_a_hit_and_a_miss_are_counted(feed: Feed) -> None:
    store = StateStore(PLENTY)
    finish(resume(document(1), store, feed))
    assert (store.hits, store.misses) == (0, 1)
    finish(resume(document(1), store, feed))
    assert (store.hits, store.misses) == (1, 1)


def test_a_failed_slice_loses_nothing(feed: Feed) -> None:
    chain = document(1)
    store = StateStore(PLENTY)

    def failing(tokens: np.ndarray, value: Value | None) -> Value:
        if len(store) == 2:
            raise MemoryError
        return feed(tokens, value)

    feeding = resume(chain, store, failing)
    with pytest.raises(MemoryError):
        finish(feeding)
    store.check()
    feeding.feed = feed
    check_equal(finish(feeding), cold(chain, feed))
    check_equal(resume(chain, store, feed).value, cold(chain, feed))


def test_two_readers_of_a_common_beginning_feed_it_once(feed: Feed) -> None:
    """In turns, as contexts are read: whoever comes second takes each kept state from the store."""
    base = ROOT.extend("base", cut_grid(ids_of(1000), keep=True))
    chains = [base.extend("hot", cut_grid(ids_of(60, seed))) for seed in (1, 2)]
    store = StateStore(PLENTY)
    feedings = [resume(chain, store, feed) for chain in chains]
    while not all(feeding.ready for feeding in feedings):
        for feeding in feedings:
            if not feeding.ready:
                feeding.step()
    for feeding in feedings:
        check_equal(feeding.value, cold(feeding.chain, feed))
        assert feeding.tokens_fed + feeding.tokens_reused == feeding.chain.n_tokens
    assert (
        sum(feeding.tokens_fed for feeding in feedings) == base.n_tokens + 1 + 2 * 60
    )  # each began with <s>, which nobody keeps


# Slices that are fed together, where the cut changes no bit: here a state is all that was read.


class Read(NamedTuple):
    ids: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return 8 * len(self.ids)


def read_on(calls: list[int]) -> Feed:
    def run(tokens: np.ndarray, value: Read | None) -> Read:
        calls.append(len(tokens))
        return Read((value.ids if value else ()) + tuple(tokens.tolist()))

    return run


# lengths of slices, those that are kept marked by a minus -> how they are fed
MERGES = [
    ([3, 4, -5, 6, -7], [12, 13]),
    ([256, 256, 256, -256], [512, 512]),
    ([256, 257, -10], [256, 267]),
    ([200, 200, 200, 200], [400, 400]),
    ([-4, -4, -4], [4, 4, 4]),
    ([500, 12, 1], [512, 1]),
    ([600, -1], [600, 1]),
]


@pytest.mark.parametrize(("lengths", "calls"), MERGES)
def test_slices_are_fed_together_up_to_the_next_that_is_kept(lengths: list[int], calls: list[int]) -> None:
    pieces = [(ids_of(abs(length), seed), length < 0) for seed, length in enumerate(lengths)]
    chain = Chain.start(b"test").extend("base", pieces)
    everything = tuple(i for tokens, _ in pieces for i in tokens.tolist())
    for merge in (True, False):
        made: list[int] = []
        store = StateStore(PLENTY)
        feeding = resume(chain, store, read_on(made), merge=merge)
        while not feeding.ready:
            feeding.step()
        assert made == (calls if merge else [abs(length) for length in lengths])
        assert feeding.value.ids == everything
        assert feeding.tokens_fed == len(everything)
        assert {entry.key for entry in store.entries()} == {part.key for part in chain.slices if part.keep}
        for entry in store.entries():
            assert entry.value.ids == everything[: entry.n_tokens]


def test_how_much_is_kept_is_known_without_a_hit(feed: Feed) -> None:
    chain, store = document(1), StateStore(PLENTY)
    assert kept_length(chain, store) == 0
    for length in range(1, len(chain.slices) + 1):
        finish(resume(chain.upto(length), store, feed))
        kept = [n for n, part in enumerate(chain.slices[:length], start=1) if part.keep]
        assert kept_length(chain, store) == (kept[-1] if kept else 0)
    before = store.hits, store.misses
    kept_length(chain, store)
    assert (store.hits, store.misses) == before
