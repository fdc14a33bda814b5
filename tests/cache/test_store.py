"""The store in small cases, each with its answer: who goes first, pins, the tier behind, collisions, damage. Random runs: test_store_random.py."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import pytest

from cache.chain import Chain, as_tokens
from cache.store import Entry, StateStore, same_tokens
from tests.cache.store_parts import ROOT, DictShelf, chain_of, fork


def chain_with(*ids: int, root: Chain = ROOT) -> Chain:
    return root.extend("base", [(as_tokens([i]), True) for i in ids])


class TornShelf(DictShelf):
    """Whatever it says it has turns out to be damaged."""

    def load(self, chain: Chain, length: int) -> None:
        self.asked += 1


def kept_after(store: StateStore, *chains: Chain) -> list[int]:
    """The numbers of the chains whose last state is in memory."""
    store.check()
    return [number for number, chain in enumerate(chains) if store.holds(chain.tip)]


@pytest.mark.parametrize(
    ("sizes", "uses", "order"),
    [
        pytest.param([9, 3, 6], [1, 1, 1], [1, 2, 0], id="the cheapest to have again"),
        pytest.param([4, 4, 4], [1, 1, 1], [0, 1, 2], id="of equals the least recently used"),
        pytest.param([4, 4, 4], [2, 1, 3], [1, 0, 2], id="the least used"),
        pytest.param([9, 3, 6], [1, 4, 1], [2, 0, 1], id="use makes up for cost"),
    ],
)
def test_the_order_of_eviction(sizes: list[int], uses: list[int], order: list[int]) -> None:
    chains = [chain_of(size, seed=number) for number, size in enumerate(sizes)]
    store = StateStore(3)
    for chain in chains:
        store.put(chain, 1, "state", 1)
    for chain, n in zip(chains, uses, strict=True):
        for _ in range(n - 1):
            store.get(chain, 1)
    gone: list[int] = []
    for n in range(3):  # worth more than all of them, so that it takes their places one after the other
        store.put(chain_of(1000, seed=10 + n), 1, "new", 1)
        gone += [number for number in set(range(3)) - set(gone) if number not in kept_after(store, *chains)]
    assert gone == order


def test_a_large_state_goes_before_a_small_one_of_the_same_cost() -> None:
    large, small, new = (chain_of(8, seed=seed) for seed in range(3))
    store = StateStore(10)
    store.put(large, 1, "large", 8)
    store.put(small, 1, "small", 2)
    store.put(new, 1, "new", 2)
    assert kept_after(store, large, small, new) == [1, 2]


def test_cost_is_measured_to_the_nearest_ancestor_that_survives() -> None:
    """2 tokens after its ancestor a state is worth little; when that one goes, it is worth the whole way."""
    road = chain_of(100, 2)
    store = StateStore(100)
    store.put(road, 2, "late", 1)
    assert store.peek(road.slices[1].key).cost_tokens == 102
    store.put(road, 1, "early", 1)
    assert [store.peek(part.key).cost_tokens for part in road.slices] == [100, 2]
    store.drop([road.slices[0].key])
    assert store.peek(road.slices[1].key).cost_tokens == 102
    store.check()


def test_what_arrives_between_makes_what_is_behind_it_go_first() -> None:
    road, other, new = chain_of(100, 2), chain_of(50, seed=1), chain_of(60, seed=2)
    store = StateStore(3)
    store.put(road, 2, "late", 1)
    store.put(other, 1, "other", 1)
    store.put(road, 1, "early", 1)
    store.put(new, 1, "new", 1)
    assert [store.holds(part.key) for part in road.slices] == [True, False]
    assert kept_after(store, other, new) == [0, 1]


def test_what_was_useful_once_ages() -> None:
    """Without the clock the oft-used state would stay for ever."""
    old = chain_of(10, seed=1)
    store = StateStore(2)
    store.put(old, 1, "old", 1)
    for _ in range(9):
        store.get(old, 1)
    passing = [chain_of(10, seed=10 + n) for n in range(40)]
    stayed = 0
    for chain in passing:
        store.put(chain, 1, "passing", 1)
        stayed += store.holds(old.tip)
    assert 5 <= stayed < 40
    store.check()


def test_the_clock_never_goes_back() -> None:
    """What was pinned while the others aged is worth less than the clock shows when it goes."""
    cheap, dear = chain_of(1, seed=1), [chain_of(10, seed=2 + n) for n in range(3)]
    store = StateStore(2)
    store.pin("a", [cheap.tip])
    for chain in (cheap, *dear[:2]):
        store.put(chain, 1, "state", 1)
    assert store.clock == 10
    store.unpin("a")
    store.put(dear[2], 1, "state", 1)
    assert kept_after(store, cheap, *dear) == [2, 3]
    assert store.clock == 10


def tokens_fed(evicts_by_cost: bool) -> int:
    """What a session costs in which dear states, 500 tokens each, are needed again between bursts of cheap ones of 5 tokens."""
    dear = [chain_of(500, seed=n) for n in range(4)]
    cheap = [chain_of(5, seed=100 + n) for n in range(60)]
    session = [chain for turn in range(12) for chain in (dear[turn % 4], *cheap[turn * 5 : turn * 5 + 5])]
    fed, store, recent = 0, StateStore(6), OrderedDict[bytes, None]()
    for chain in session:
        if evicts_by_cost:
            found = store.get(chain, 1) is not None
            if not found:
                store.put(chain, 1, "state", 1)
        else:
            found = chain.tip in recent
            recent[chain.tip] = None
            recent.move_to_end(chain.tip)
            if len(recent) > 6:
                recent.popitem(last=False)
        fed += 0 if found else chain.n_tokens
    return fed


def test_where_cost_matters_it_beats_the_least_recently_used() -> None:
    assert tokens_fed(evicts_by_cost=True) == 4 * 500 + 60 * 5
    assert tokens_fed(evicts_by_cost=False) == 12 * 500 + 60 * 5


def test_pins_hold_until_the_last_owner_lets_go() -> None:
    mine, other, new = chain_of(1, seed=1), chain_of(90, seed=2), chain_of(90, seed=3)
    store = StateStore(2)
    store.pin("a", [mine.tip, b"a key that nothing is kept under"])
    store.pin("b", [mine.tip])
    store.put(mine, 1, "mine", 1)
    store.put(other, 1, "other", 1)
    store.put(new, 1, "new", 1)
    assert kept_after(store, mine, other, new) == [0, 2]
    assert store.pinned(mine.tip)
    store.pin("a", [new.tip])  # replaces what a had
    store.put(other, 1, "other", 1)
    assert kept_after(store, mine, other, new) == [0, 2] and store.pinned_bytes == 2
    store.unpin("b")
    store.unpin("b")
    store.put(other, 1, "other", 1)
    assert kept_after(store, mine, other, new) == [1, 2]


def test_where_pins_fill_the_budget_nothing_more_is_kept() -> None:
    pinned, free, new = chain_of(1, seed=1), chain_of(1, seed=2), chain_of(9, seed=3)
    store = StateStore(10)
    store.pin("a", [pinned.tip])
    store.put(pinned, 1, "pinned", 8)
    store.put(free, 1, "free", 2)
    assert not store.put(new, 1, "new", 3)
    assert kept_after(store, pinned, free, new) == [0, 1]
    assert store.evictions == 0  # it would have been in vain
    assert store.put(new, 1, "new", 2)
    assert store.put(pinned, 1, "pinned, smaller", 5)
    assert not store.put(pinned, 1, "pinned, too large", 11)
    assert store.get(pinned, 1).value == "pinned, smaller"
    assert store.drop([pinned.tip, pinned.tip, b"unknown"]) == (1, 5)
    assert (store.pinned_bytes, store.nbytes) == (0, 2)
    store.check()


def test_what_memory_lacks_comes_from_the_shelf_and_stays() -> None:
    road = chain_of(4, 4)
    shelf = DictShelf({road.tip: ("shelved", 3)})
    store = StateStore(10, shelf=shelf)
    assert road.tip in store and not store.holds(road.tip) and store.peek(road.tip) is None
    assert store.get(road, 1) is None
    assert store.get(road, 2).value == "shelved"
    assert store.get(road, 2).value == "shelved"
    assert (shelf.asked, store.shelf_hits, store.hits, store.misses, store.nbytes) == (1, 1, 1, 0, 3)
    assert store.peek(road.tip).uses == 3
    store.check()


def test_what_does_not_fit_into_memory_is_served_from_the_shelf_each_time() -> None:
    road = chain_of(4, 4)
    store = StateStore(10, shelf=DictShelf({road.tip: ("large", 11)}))
    store.put(road, 1, "small", 10)
    entry = store.get(road, 2)
    assert (entry.value, entry.cost_tokens, entry.n_tokens) == ("large", 4, 8)
    assert kept_after(store, road) == [] and store.holds(road.slices[0].key)


def test_a_damaged_snapshot_is_a_miss_and_costs_nothing_else() -> None:
    road, other = chain_of(4), chain_of(4, seed=1)
    store = StateStore(1, shelf=TornShelf({road.tip: ("torn", 1)}))
    store.put(other, 1, "other", 1)
    assert store.get(road, 1) is None
    assert kept_after(store, road, other) == [1]
    assert (store.hits, store.shelf_hits, store.evictions) == (0, 0, 0)


def test_an_entry_that_is_put_again_keeps_its_uses() -> None:
    store = StateStore(100)
    store.put(fork()[0], 1, "first", 40)
    store.get(fork()[0], 1)
    store.put(fork()[0], 1, "second", 60)
    store.check()
    assert (len(store), store.nbytes, store.evictions) == (1, 60, 0)
    assert store.get(fork()[0], 1).value == "second"
    assert store.peek(fork()[0].slices[0].key).uses == 3


def test_larger_than_the_budget_is_not_kept_and_drops_nothing() -> None:
    store = StateStore(10)
    assert store.put(fork()[0], 1, "small", 10)
    assert not store.put(fork()[2], 1, "large", 11)
    assert not store.put(fork()[0], 1, "the same, large", 11)
    assert store.get(fork()[0], 1).value == "small"
    assert store.evictions == 0


def test_a_touch_makes_young_and_counts_nothing() -> None:
    chains = [chain_of(1, seed=seed) for seed in range(3)]
    store = StateStore(2)
    store.put(chains[0], 1, "state", 1)
    store.put(chains[1], 1, "state", 1)
    store.touch(chains[0].tip)
    store.touch(chains[2].tip)  # unknown: nothing happens
    store.put(chains[2], 1, "state", 1)
    assert kept_after(store, *chains) == [0, 2]
    assert (store.hits, store.peek(chains[0].tip).uses) == (0, 1)


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
    store.put(forged, len(forged.slices), "a state of another text", 10)
    store.put(mine, 3, "mine", 10)
    assert (store.get(mine, 3).value, store.nbytes, store.peek(mine.tip).uses) == ("mine", 10, 2)
    store.check()


def test_a_key_at_another_place_is_no_ancestor() -> None:
    """It would say how long the way is from somewhere else."""
    road = chain_with(1, 2, 3, 4)
    forged = Chain(ROOT.root, (replace(chain_with(9).slices[0], key=road.slices[2].key),))
    store = StateStore(100)
    store.put(forged, 1, "a state of another text", 10)
    store.put(road, 4, "mine", 10)
    assert store.peek(road.tip).cost_tokens == 4
    store.check()
    assert store.get(road, 3) is None
    store.check()


def test_equal_tokens_in_other_objects_are_a_hit() -> None:
    store = StateStore(100)
    store.put(chain_with(1, 2, 3), 2, "state", 10)
    again = chain_with(1, 2, 7)
    assert store.get(again, 2).value == "state"
    assert store.peek(again.slices[1].key).slices[0] is again.slices[0]  # the next comparison is of pointers


def check_compared(a: Chain, b: Chain, expected: bool) -> None:
    assert same_tokens(a.slices, b.slices) is expected
    assert same_tokens(b.slices, a.slices) is expected


def test_shared_slices_may_stand_anywhere() -> None:
    a, b, other = chain_with(1, 2, 3, 4), chain_with(1, 2, 3, 4), chain_with(9, 2, 3, 4)
    for mask in range(16):
        mixed = Chain(ROOT.root, tuple((a if mask >> i & 1 else b).slices[i] for i in range(4)))
        check_compared(a, mixed, expected=True)
        check_compared(a, Chain(ROOT.root, (other.slices[0], *mixed.slices[1:])), expected=False)
        check_compared(a, Chain(ROOT.root, mixed.slices[:3]), expected=False)


def damage_bytes(store: StateStore, entry: Entry) -> None:
    store.nbytes += 1


def damage_cost(store: StateStore, entry: Entry) -> None:
    entry.cost_tokens += 1


def damage_link(store: StateStore, entry: Entry) -> None:
    entry.ancestor = store._top


def damage_heap(store: StateStore, entry: Entry) -> None:
    store._heap.clear()


def damage_rank(store: StateStore, entry: Entry) -> None:
    entry.uses = 0


def damage_pins(store: StateStore, entry: Entry) -> None:
    store.pinned_bytes += 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "bytes"),
        (damage_cost, "cost"),
        (damage_link, "nearest ancestor"),
        (damage_heap, "never be evicted"),
        (damage_rank, "promises more"),
        (damage_pins, "pinned bytes"),
    ],
)
def test_damage_is_found(damage: Callable[[StateStore, Entry], None], message: str) -> None:
    store = StateStore(100)
    road = fork()[0]
    store.put(road, 1, "state", 10)
    store.put(road, 2, "state", 10)
    store.check()
    damage(store, store.peek(road.slices[1].key))
    with pytest.raises(AssertionError, match=message):
        store.check()
