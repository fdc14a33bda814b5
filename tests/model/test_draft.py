"""Drafts change nothing but speed: whatever is proposed, the same is said, to the last bit; and they are made only where they save time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.lookup import DocumentIndex
from daemon.matcher import Matcher
from model.build import shapes_of
from model.config import Mamba2Config
from model.draft import MARGIN, MAX_CHUNK, PRIOR_SLOPE, PRIOR_WEIGHT, Drafter, Estimate, Hint, Pace, Reader, pace_of
from model.generate import Generated, generate
from model.mixture import FEATURES, SOURCES, Gate
from model.native import NativeLM, instruction_sets
from model.network import Mamba2LM, Network
from model.packed import pack
from model.packed_file import is_projection, kind_of
from model.source import BUNDLED
from model.state import Mamba2State
from model.tokenizer_files import read_tokenizer

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")
CONFIG = Mamba2Config(d_model=32, n_layers=2, vocab_size=TOKENIZER.vocab_size, d_state=16, head_dim=16, n_heads=4)
TRUST = Gate({s: {name: [2.0 if name == "length" else 0.0] * size for name, size in FEATURES} for s in SOURCES})
CODE = """def read(path, *, limit=None):
    with open(path) as file:
        for line in file:
            yield line.rstrip()


class Reader:
    def __init__(self, path, limit=None):
        self.path = path
        self.limit = limit

    def read(self):
        return list(read(self.path, limit=self.limit))
"""
IDS = TOKENIZER.encode(CODE)
CONTROL = (TOKENIZER.control.bos, TOKENIZER.control.eos, TOKENIZER.control.prefix)
OUTSIDE = (-1, TOKENIZER.vocab_size, 10**9)


@dataclass(frozen=True, slots=True, eq=False)
class Proposed:
    """A fixed proposal."""

    source: str
    length: int
    tokens: Sequence[int]

    def draft(self, n: int) -> np.ndarray:
        return np.array(self.tokens[:n], np.int64)


@dataclass(eq=False)
class Recorded:
    """A network that notes how many tokens each call reads."""

    network: Network
    calls: list[int] = field(default_factory=list)
    any_cut: bool = True

    def __call__(self, ids: Tensor, *arguments: object, **named: object) -> tuple[Tensor, Mamba2State]:
        self.calls.append(ids.shape[1])
        return self.network(ids, *arguments, **named)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(random_network: Callable[..., Mamba2LM]) -> NativeLM:
    if not instruction_sets():
        pytest.skip("the kernels were not built: no C++ compiler")
    network = random_network(CONFIG)
    with torch.no_grad():
        network.lm_head.weight *= 3  # so that it is sure of what it says, and agrees with lookups now and then
    tensors = network.state_dict()
    named = {n: pack(tensors[n], kind_of(n, "int8")) if is_projection(n) else tensors[n] for n in shapes_of(CONFIG)}
    return NativeLM(CONFIG, named, precision="int8", threads=1)


@pytest.fixture(params=["tiny", "bundled"])
def network(request: pytest.FixtureRequest) -> Network:
    found = request.getfixturevalue(request.param)
    network = found if request.param == "tiny" else found.network
    if not network.any_cut:
        pytest.skip("drafts are exact on no network here")
    return network


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[np.random.Generator]:
    """Drafts are made whether they pay or not, of any length."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        Pace, "best_length", lambda self, kind, *, again, room: (int(rng.integers(0, room + 1)), rng.random())
    )
    return rng


def case(rng: np.random.Generator) -> dict[str, object]:
    """Arguments of generate, but for drafts."""
    looks, stop_at = int(rng.integers(0, 40)), int(rng.integers(5, 60))
    stops = [
        lambda text: None,
        lambda text: "line" if b"\n" in text.strip(b" ") else None,
        lambda text: "long" if len(text) >= stop_at else None,
    ]
    start = int(rng.integers(1, len(IDS) - 1))
    index = DocumentIndex([("a.py", np.array(IDS, np.int32)), ("b.py", np.array(IDS[start // 2 :], np.int32))])
    matcher = Matcher(np.array(IDS[:start], np.int32), index, "a.py" if rng.random() < 0.5 else None)
    forced = [b"", b"", b"re", b"self.", b"    ", b"x\x00", TOKENIZER.pieces[IDS[start]][:1]]
    return {
        "stop": stops[rng.integers(len(stops))],
        "looks": looks if rng.random() < 0.2 else 10**9,
        "max_tokens": int(rng.choice([0, 1, 2, 7, 24])),
        "forced": forced[rng.integers(len(forced))],
        "gate": TRUST if rng.random() < 0.7 else None,
        "matcher": matcher,
        "ids": IDS[:start],
    }


def run(network: Network, made: dict, state: Mamba2State, logits: Tensor, **drafts: object) -> Generated:
    seen = iter(range(10**9))
    usual = {name: made[name] for name in ("stop", "max_tokens", "forced", "gate")}
    return generate(
        network,
        TOKENIZER,
        state,
        logits,
        cancelled=lambda: next(seen) >= made["looks"],
        matches_of=made["matcher"],
        **usual,
        **drafts,
    )  # type: ignore[arg-type]


def damaged(ids: Sequence[int], rng: np.random.Generator) -> list[int]:
    """The truth, and what no draft should ever be: wrong, controlling, outside the vocabulary, too long."""
    ids = list(ids)
    for _ in range(int(rng.integers(0, 4))):
        wrong = [int(rng.integers(3, TOKENIZER.vocab_size)), *CONTROL, *OUTSIDE, TOKENIZER.newline]
        ids.insert(int(rng.integers(0, len(ids) + 1)), wrong[rng.integers(len(wrong))])
    return ids + IDS[: int(rng.integers(0, 30))]


def sources(made: dict, truth: Sequence[int], rng: np.random.Generator) -> dict[str, object]:
    """A hint, the lookups, and proposals that know the truth and say it with mistakes."""

    def scripted(ids: Sequence[int]) -> list[Proposed]:
        tails = [damaged(truth[len(ids) :], rng), IDS[len(ids) :]]
        return [Proposed("buffer", int(rng.integers(0, 9)), tails[0]), Proposed("documents", 3, tails[1])]

    chosen = rng.integers(3)
    return {
        "hint": damaged(truth, rng) if rng.random() < 0.6 else [],
        "proposals_of": scripted if chosen == 0 else made["matcher"].proposals if chosen == 1 else None,
    }


@pytest.mark.parametrize("block", range(6))
@torch.no_grad()
def test_what_is_said_does_not_depend_on_drafts(network: Network, eager: np.random.Generator, block: int) -> None:
    rng = np.random.default_rng(block)
    drafted = accepted = 0
    for _ in range(40):
        made = case(rng)
        logits, state = network(torch.tensor([made["ids"]]), last_only=True)
        before = [each.clone() for each in (*state, logits)]
        expected = run(network, made, state, logits[0, -1])
        found = run(network, made, state, logits[0, -1], **sources(made, expected.ids, rng))
        assert found == expected
        assert found.log_probability == expected.log_probability
        assert 0 <= found.accepted <= found.drafted
        assert (expected.drafted, expected.accepted) == (0, 0)
        assert all(torch.equal(one, other) for one, other in zip((*state, logits), before, strict=True))
        drafted, accepted = drafted + found.drafted, accepted + found.accepted
    assert drafted > accepted > 20, "hardly anything was put to the test"


@pytest.mark.parametrize("n_right", range(14))
@torch.no_grad()
def test_a_reader_gives_the_logits_of_steps(tiny: NativeLM, n_right: int) -> None:
    """Drafts of which so many tokens are right, one after the other: again and again from the same state, and chunks stay short."""
    network = Recorded(tiny)
    rng = np.random.default_rng(n_right)
    logits, state = tiny(torch.tensor([[5, 6, 7]]))
    kept = state.ssm.clone()
    said = rng.integers(3, 100, 60).tolist()
    reader, expected, stepped = Reader(network, state, logits[0, -1], pace=None), logits[0, -1], state
    for number, token in enumerate(said):
        assert torch.equal(reader.logits, expected)
        if not reader.said(token):
            room = min(MAX_CHUNK - 1 - reader.again, int(rng.integers(0, 12)))
            draft = said[number + 1 : number + 1 + n_right] + [200] * 12
            reader.read(token, draft[: max(0, room)])
        out, stepped = tiny(torch.tensor([[token]]), stepped)
        expected = out[0, -1]
    assert torch.equal(reader.logits, expected)
    assert max(network.calls) <= MAX_CHUNK
    assert torch.equal(state.ssm, kept)


@torch.no_grad()
def test_a_good_hint_saves_calls(tiny: NativeLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "best_length", lambda self, kind, *, again, room: (room, 1.0))
    network = Recorded(tiny)
    changes = {"max_tokens": 24, "forced": b"", "looks": 99, "gate": None, "stop": lambda _: None}
    made = case(np.random.default_rng(3)) | changes
    logits, state = tiny(torch.tensor([made["ids"]]), last_only=True)
    plain = run(network, made, state, logits[0, -1])
    assert network.calls == [1] * (len(plain.ids) - 1)
    network.calls.clear()
    hinted = run(network, made, state, logits[0, -1], hint=plain.ids)
    assert hinted == plain
    assert hinted.accepted == hinted.drafted
    assert sum(network.calls) == len(plain.ids) - 1, "what nobody will look at was read"
    assert len(network.calls) == -(-(len(plain.ids) - 1) // MAX_CHUNK)


@torch.no_grad()
def test_no_drafts_where_a_chunk_has_other_bits_than_steps(
    random_network: Callable[..., Mamba2LM], eager: object
) -> None:
    network = random_network(CONFIG)
    assert not network.any_cut
    made = case(np.random.default_rng(1)) | {"max_tokens": 24, "looks": 99}
    logits, state = network(torch.tensor([made["ids"]]))
    found = run(network, made, state, logits[0, -1], hint=IDS, proposals_of=made["matcher"].proposals)
    assert (found.drafted, found) == (0, run(network, made, state, logits[0, -1]))


@pytest.mark.parametrize(
    ("hint", "said", "rest"),
    [
        ("self.path = path", "", "self.path = path"),
        ("self.path = path", "self.path", " = path"),
        ("self.path = path", "self.path = path", ""),
        ("self.path = path", "self.limit", ""),
        ("self.path = path", "self.path = path\n", ""),
        ("", "", ""),
    ],
)
def test_a_hint_goes_on_where_it_agrees(hint: str, said: str, rest: str) -> None:
    source = Hint(TOKENIZER, TOKENIZER.encode(hint))
    source.follow(said.encode())
    assert TOKENIZER.decode(source.draft(99).tolist()) == rest
    assert source.length == len(source.draft(99))
    source.follow(b"")
    assert TOKENIZER.decode(source.draft(99).tolist()) == hint, "it forgot where it began"


def test_a_hint_in_other_tokens_goes_on_at_the_next_border_that_both_have() -> None:
    source = Hint(TOKENIZER, TOKENIZER.encode("return path"))
    source.follow(b"r")
    assert source.length == 0
    source.follow(b"return")
    assert TOKENIZER.decode(source.draft(9).tolist()) == " path"


@pytest.mark.parametrize("wrong", [*CONTROL, *OUTSIDE])
def test_a_hint_ends_where_it_is_no_text(wrong: int) -> None:
    source = Hint(TOKENIZER, [*TOKENIZER.encode("x = "), wrong, *TOKENIZER.encode("y")])
    source.follow(b"")
    assert TOKENIZER.decode(source.draft(9).tolist()) == "x = "


def drafter(pace: Pace, hint: str, stop: Callable[[bytes], str | None]) -> Drafter:
    return Drafter(TOKENIZER, pace, stop=stop, forced=b"", hint=TOKENIZER.encode(hint), proposals_of=None)


def quick_pace(*, step_s: float = 0.1, slope: float = 0.01, right: float = 0.99) -> Pace:
    pace = Pace(step_s=step_s, slope=slope)
    for length in range(12):
        for source in ("hint", *SOURCES):
            for first in (True, False):
                pace.estimates[(source, length), first] = Estimate(right, right)
    return pace


def test_a_draft_ends_before_the_line_break_that_ends_all() -> None:
    for stop, expected in [
        (lambda text: "line" if b"\n" in text else None, "x = 1"),
        (lambda _: None, "x = 1\ny = 2"),
    ]:
        draft, kind = drafter(quick_pace(), "x = 1\ny = 2", stop).best([], b"", again=0, room=99, deadline=None)
        assert TOKENIZER.decode(draft) == expected
        assert kind is not None and kind[0] == "hint"


@pytest.mark.parametrize(
    ("again", "room", "most"), [(0, 99, MAX_CHUNK - 1), (5, 99, MAX_CHUNK - 6), (0, 3, 3), (0, 0, 0), (11, 9, 0)]
)
def test_a_draft_has_room(again: int, room: int, most: int) -> None:
    draft, _ = drafter(quick_pace(), CODE, lambda _: None).best([], b"", again=again, room=room, deadline=None)
    assert draft == IDS[:most]


def test_no_draft_that_is_not_read_in_time() -> None:
    made = drafter(quick_pace(step_s=10), CODE, lambda _: None)
    assert made.best([], b"", again=0, room=9, deadline=time.monotonic() + 5) == ([], None)
    assert made.best([], b"", again=0, room=9, deadline=time.monotonic() + 500)[0]


@pytest.mark.parametrize(
    ("right", "slope", "least", "most"),
    [
        (0.99, 0.02, 9, 11),  # as good as certain and cheap: as long as a chunk can be
        (0.9, 0.15, 3, 11),
        (0.6, 0.15, 1, 3),
        (0.3, 0.28, 0, 0),
        (0.9, 1.0, 0, 0),  # a token in a chunk costs as much as a step
        (0.0, 0.0, 0, 0),
    ],
)
def test_the_length_of_a_draft_follows_its_odds_and_its_price(
    right: float, slope: float, least: int, most: int
) -> None:
    length, saved = quick_pace(slope=slope, right=right).best_length(("hint", 0), again=0, room=11)
    assert least <= length <= most
    assert bool(length) == (saved > MARGIN)


def test_the_more_must_be_read_again_the_less_is_risked() -> None:
    pace = quick_pace(slope=0.15, right=0.7)
    saved = [pace.best_length(("buffer", 3), again=again, room=11 - again)[1] for again in range(0, 11, 2)]
    assert saved == sorted(saved, reverse=True)


def test_nothing_is_drafted_before_a_step_was_timed() -> None:
    pace = Pace()
    assert pace.best_length(("hint", 0), again=0, room=11)[0] == 0
    pace.timed(4, 1.0)
    assert pace.best_length(("hint", 0), again=0, room=11)[0] == 0
    pace.timed(1, 1.0)
    assert pace.best_length(("hint", 0), again=0, room=11)[0] > 0


def test_a_pace_learns_prices() -> None:
    pace = Pace()
    for _ in range(100):
        pace.timed(1, 0.2)
        pace.timed(5, 0.2 * (1 + 4 * 0.4))
    assert pace.step_s == pytest.approx(0.2)
    assert pace.slope == pytest.approx(0.4, rel=0.01)
    assert pace.seconds(3) == pytest.approx(0.2 * 1.8, rel=0.01)
    pace.timed(1, 100.0)
    assert pace.step_s < 0.25, "one call on a busy machine"


def test_a_source_that_is_always_wrong_is_asked_no_more_and_later_again() -> None:
    pace, kind = Pace(step_s=1.0), ("buffer", 4)
    for _ in range(60):
        pace.estimate(kind, first=True).learn(right=False)
    assert pace.best_length(kind, again=0, room=11)[0] == 0
    silent = 0
    while not pace.best_length(kind, again=0, room=11)[0]:
        silent += 1
        assert silent < 5000
    assert silent > 20
    assert pace.slope == pytest.approx(PRIOR_SLOPE)


@torch.no_grad()
def test_a_reader_teaches_its_pace_how_drafts_begin_and_how_they_go_on(tiny: NativeLM) -> None:
    pace, kind = Pace(), ("buffer", 4)
    logits, state = tiny(torch.tensor([[5, 6, 7]]))
    reader = Reader(tiny, state, logits[0, -1], pace=pace)
    first, later = pace.estimate(kind, first=True), pace.estimate(kind, first=False)
    before = first.right, later.right
    for draft, said in [([11, 12, 13], [10, 11, 12, 99]), ([98], [99])]:
        for token in said:
            if not reader.said(token):
                reader.read(token, draft if token == said[0] else (), kind=kind)
    assert (first.weight, later.weight) == (PRIOR_WEIGHT + 1, PRIOR_WEIGHT + 2)
    assert first.right > before[0]
    reader.said(97)
    assert first.weight == PRIOR_WEIGHT + 2
    assert later.right < before[1]


@torch.no_grad()
def test_storage_is_used_again_but_never_a_state_that_came_in(tiny: NativeLM, eager: object) -> None:
    made = case(np.random.default_rng(5)) | {"max_tokens": 24, "looks": 99, "stop": lambda _: None}
    logits, state = tiny(torch.tensor([made["ids"]]), last_only=True)
    for _ in range(3):
        run(tiny, made, state, logits[0, -1], hint=IDS)
        spare = pace_of(tiny).spare
        assert 1 <= len(spare) <= 2
        assert len({each.ssm.data_ptr() for each in (state, *spare)}) == 1 + len(spare)


def test_each_network_has_its_pace(tiny: NativeLM) -> None:
    assert pace_of(tiny) is pace_of(tiny)
    assert pace_of(Recorded(tiny)) is not pace_of(tiny)
