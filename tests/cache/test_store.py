"""The store against a plain dictionary that does the same: bytes within the budget, the least recently used goes first."""

from collections import OrderedDict
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache.chain import Chain, as_tokens
from cache.store import StateStore

ROOT = Chain.start(b"test")
CHAINS = [ROOT.extend("base", [(as_tokens([n]), True) for n in range(start, start + 3)]) for start in (0, 10)]
PLACES = [(chain, length) for chain in CHAINS for length in (1, 2, 3)]


def chain_with(*ids: int, root: Chain = ROOT) -> Chain:
    return root.extend("base", [(as_tokens([i]), True) for i in ids])


class PlainLru:
    """What the store should be, in the plainest words."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.kept: OrderedDict[bytes, tuple[object, int]] = OrderedDict()

    def put(self, key: bytes, value: object, nbytes: int) -> bool:
        if nbytes > self.budget:
            return False
        self.kept.pop(key, None)
        while sum(size for _, size in self.kept.values()) + nbytes > self.budget:
            self.kept.popitem(last=False)
        self.kept[key] = (value, nbytes)
        return True

    def get(self, key: bytes) -> object | None:
        if key not in self.kept:
            return None
        self.kept.move_to_end(key)
        return self.kept[key][0]

    def touch(self, key: bytes) -> None:
        self.get(key)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(PLACES), st.integers(0, 12)),
        st.tuples(st.just("get"), st.sampled_from(PLACES), st.just(0)),
        st.tuples(st.just("touch"), st.sampled_from(PLACES), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(st.integers(0, 30), operations)
@example(0, [("put", PLACES[0], 0), ("put", PLACES[0], 1), ("get", PLACES[0], 0)])
@example(10, [("put", PLACES[0], 10), ("put", PLACES[0], 10), ("put", PLACES[1], 10), ("get", PLACES[0], 0)])
def test_any_run_of_operations(budget: int, run: list) -> None:
    store, plain = StateStore(budget), PlainLru(budget)
    hits = 0
    for number, (name, (chain, length), nbytes) in enumerate(run):
        key = chain.slices[length - 1].key
        if name == "put":
            assert store.put(chain, length, number, nbytes) == plain.put(key, number, nbytes)
        elif name == "touch":
            store.touch(key)
            plain.touch(key)
        else:
            entry, expected = store.get(chain, length), plain.get(key)
            hits += expected is not None
            assert (entry.value if entry else None) == expected
        store.check()
        assert len(store) == len(plain.kept)
        assert all(
            (chain.slices[length - 1].key in store) == (chain.slices[length - 1].key in plain.kept)
            for chain, length in PLACES
        )
        assert store.nbytes == sum(size for _, size in plain.kept.values())
        assert store.hits == hits


def test_larger_than_the_budget_is_not_kept_and_drops_nothing() -> None:
    store = StateStore(10)
    assert store.put(CHAINS[0], 1, "small", 10)
    assert not store.put(CHAINS[1], 1, "large", 11)
    assert store.get(CHAINS[0], 1).value == "small"
    assert store.evictions == 0


def test_the_same_key_twice_counts_once() -> None:
    store = StateStore(100)
    store.put(CHAINS[0], 1, "first", 40)
    store.put(CHAINS[0], 1, "second", 60)
    store.check()
    assert (len(store), store.nbytes, store.evictions) == (1, 60, 0)
    assert store.get(CHAINS[0], 1).value == "second"


def test_the_least_recently_used_goes_first() -> None:
    store = StateStore(3)
    for chain, length in PLACES[:3]:
        store.put(chain, length, length, 1)
    store.get(*PLACES[0])
    store.touch(PLACES[1][0].slices[PLACES[1][1] - 1].key)
    store.put(*PLACES[3], "new", 1)
    assert [store.get(*place) is not None for place in PLACES[:4]] == [True, True, False, True]
    assert store.evictions == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(chain_with(1, 2, 4), id="another last token"),
        pytest.param(chain_with(9, 2, 3), id="another first token"),
        pytest.param(chain_with(2, 3), id="fewer slices"),
        pytest.param(ROOT.extend("head", [(as_tokens([i]), True) for i in (1, 2, 3)]), id="another kind"),
        pytest.param(ROOT.extend("base", [(as_tokens([1, 2]), True), (as_tokens([3]), True)]), id="another cut"),
        pytest.param(chain_with(1, 2).extend("base", [(as_tokens([3, 3]), True)]), id="one token more"),
    ],
)
def test_a_key_that_collides_is_a_miss(other: Chain) -> None:
    """Another text under the same key: its state must never be served, and it goes."""
    mine = chain_with(1, 2, 3)
    forged = Chain(other.root, (*other.slices[:-1], replace(other.slices[-1], key=mine.tip)))
    store = StateStore(100)
    store.put(forged, len(forged.slices), "a state of another text", 10)
    assert mine.tip in store
    assert store.get(mine, 3) is None
    assert mine.tip not in store
    assert (store.hits, store.nbytes) == (0, 0)
    store.check()


def test_equal_tokens_in_other_objects_are_a_hit() -> None:
    store = StateStore(100)
    store.put(chain_with(1, 2, 3), 2, "state", 10)
    assert store.get(chain_with(1, 2, 7), 2).value == "state"


def test_a_damaged_account_is_found() -> None:
    store = StateStore(100)
    store.put(CHAINS[0], 1, "state", 10)
    store.nbytes += 1
    with pytest.raises(AssertionError, match="bytes"):
        store.check()
