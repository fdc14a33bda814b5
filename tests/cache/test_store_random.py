"""Any run of operations on the store, against a plain dictionary that computes everything anew: costs, ranks, who goes, what is counted."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from cache.chain import Chain
from cache.store import StateStore
from tests.cache.store_parts import DictShelf, fork

PLACES = [(number, length) for number, chain in enumerate(fork()) for length in range(1, len(chain.slices) + 1)]
Place = tuple[int, int]


@dataclass(eq=False)
class PlainEntry:
    keys: list[bytes]
    sizes: list[int]
    value: object
    nbytes: int
    aged_at: float
    order: int
    uses: int = 1


class Plain:
    """What the store should be, in the plainest words: nothing is remembered that can be computed."""

    def __init__(self, budget: int) -> None:
        self.budget, self.clock, self.evictions, self.n_uses = budget, 0.0, 0, 0
        self.kept: dict[bytes, PlainEntry] = {}
        self.pins: dict[str, set[bytes]] = {}
        self.shelf: dict[bytes, tuple[object, int]] = {}

    def cost(self, entry: PlainEntry) -> int:
        above = [n for n in range(1, len(entry.keys)) if entry.keys[n - 1] in self.kept]
        return sum(entry.sizes[max(above, default=0) :])

    def rank(self, entry: PlainEntry) -> tuple[float, int]:
        return entry.aged_at + entry.uses * self.cost(entry) / max(1, entry.nbytes), entry.order

    def is_pinned(self, key: bytes) -> bool:
        return any(key in keys for keys in self.pins.values())

    def put(self, chain: Chain, length: int, value: object, nbytes: int) -> bool:
        key = chain.slices[length - 1].key
        pinned = sum(entry.nbytes for other, entry in self.kept.items() if other != key and self.is_pinned(other))
        if pinned + nbytes > self.budget:
            return False
        old = self.kept.get(key)
        while sum(entry.nbytes for other, entry in self.kept.items() if other != key) + nbytes > self.budget:
            free = {other: each for other, each in self.kept.items() if other != key and not self.is_pinned(other)}
            worst = min(free, key=lambda other: self.rank(free[other]))
            self.clock = max(self.clock, self.rank(free[worst])[0])
            self.evictions += 1
            del self.kept[worst]
        slices = chain.slices[:length]
        entry = PlainEntry([s.key for s in slices], [len(s.tokens) for s in slices], value, nbytes, 0.0, 0)
        entry.uses = old.uses if old else 1
        self.kept[key] = entry
        self.touch(key)
        return True

    def get(self, chain: Chain, length: int) -> object | None:
        key = chain.slices[length - 1].key
        if key not in self.kept:
            if key not in self.shelf:
                return None
            value, nbytes = self.shelf[key]
            if self.put(chain, length, value, nbytes):
                self.kept[key].uses += 1
            return value
        self.kept[key].uses += 1
        self.touch(key)
        return self.kept[key].value

    def touch(self, key: bytes) -> None:
        if key in self.kept:
            self.n_uses += 1
            self.kept[key].aged_at, self.kept[key].order = self.clock, self.n_uses


places = st.sampled_from(PLACES)
sizes = st.integers(0, 12)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), places, sizes),
        st.tuples(st.just("get"), places),
        st.tuples(st.just("touch"), places),
        st.tuples(st.just("drop"), st.lists(places, max_size=3)),
        st.tuples(st.just("pin"), st.sampled_from("ab"), st.lists(places, max_size=3)),
        st.tuples(st.just("shelve"), places, sizes),
    ),
    max_size=60,
)


def key_of(chains: tuple[Chain, ...], place: Place) -> bytes:
    return chains[place[0]].slices[place[1] - 1].key


def apply(
    run: list, budget: int, chains: Callable[[], tuple[Chain, ...]], look: Callable[[StateStore, Plain], None]
) -> None:
    """Does the same with the store and with the plain one, and looks at both after every operation."""
    plain = Plain(budget)
    store = StateStore(budget, shelf=DictShelf(plain.shelf))
    for number, (name, *rest) in enumerate(run):
        roads = chains()
        match name, rest:
            case "put", [(chain, length), nbytes]:
                kept = store.put(roads[chain], length, number, nbytes)
                assert kept == plain.put(roads[chain], length, number, nbytes)
            case "get", [(chain, length)]:
                entry = store.get(roads[chain], length)
                assert (entry.value if entry else None) == plain.get(roads[chain], length)
            case "touch", [place]:
                store.touch(key_of(roads, place))
                plain.touch(key_of(roads, place))
            case "drop", [wanted]:
                gone = [plain.kept.pop(key) for key in {key_of(roads, p) for p in wanted} if key in plain.kept]
                found = store.drop([key_of(roads, place) for place in wanted])
                assert found == (len(gone), sum(entry.nbytes for entry in gone))
            case "pin", [owner, wanted]:
                plain.pins[owner] = {key_of(roads, place) for place in wanted}
                store.pin(owner, (key_of(roads, place) for place in wanted))
            case "shelve", [place, nbytes]:
                plain.shelf[key_of(roads, place)] = f"shelved {number}", nbytes
        look(store, plain)


def check_same(store: StateStore, plain: Plain) -> None:
    store.check()
    costs = {entry.key: (entry.value, entry.nbytes, entry.uses, entry.cost_tokens) for entry in store.entries()}
    assert costs == {key: (e.value, e.nbytes, e.uses, plain.cost(e)) for key, e in plain.kept.items()}
    assert (store.evictions, store.clock) == (plain.evictions, plain.clock)
    assert all(store.holds(key) and key in store for key in plain.kept)
    assert all(key in store for key in plain.shelf)
    assert len(store) == len(plain.kept)


@settings(max_examples=400)
@given(st.integers(0, 30), operations)
@example(0, [("put", PLACES[0], 0), ("put", PLACES[0], 1), ("get", PLACES[0])])
@example(10, [("put", PLACES[0], 10), ("put", PLACES[0], 10), ("put", PLACES[1], 10), ("get", PLACES[0])])
@example(10, [("put", PLACES[0], 5), ("pin", "a", [PLACES[0]]), ("put", PLACES[0], 11), ("put", PLACES[0], 10)])
@example(4, [("put", PLACES[3], 2), ("pin", "a", [PLACES[3]]), ("put", PLACES[1], 2), ("pin", "a", [])])
def test_any_run_of_operations(budget: int, run: list) -> None:
    evictions = 0

    def look(store: StateStore, plain: Plain) -> None:
        nonlocal evictions
        check_same(store, plain)
        evictions = store.evictions

    apply(run, budget, fork, look)
    event(f"evictions: {min(evictions, 5)}")


def test_records_of_the_past_do_not_pile_up() -> None:
    """Each state that arrives below another one voids records; the heap is cleaned of them."""
    roads = fork()
    run = [step for n in range(300) for step in (("put", PLACES[n % 6], 1), ("drop", [PLACES[n % 6]]))]
    apply([*run, ("put", PLACES[0], 1)], 100, lambda: roads, lambda store, plain: store.check())
    store = StateStore(100)
    for _ in range(300):
        for length in (3, 2, 1):
            store.put(roads[0], length, "state", 1)
        store.drop(part.key for part in roads[0].slices)
    assert len(store._heap) <= 64 + 2 * 3
