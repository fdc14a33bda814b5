"""Decoding: when it stops, what it never says, and that without a gate it is the plain greedy loop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.lookup import NOTHING, Continuations
from model.config import Mamba2Config
from model.generate import Chooser, Generated, generate
from model.mixture import FEATURES, SOURCES, Gate
from model.network import Mamba2LM
from model.source import BUNDLED
from model.state import Mamba2State
from model.tokenizer_files import read_tokenizer

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")
CONFIG = Mamba2Config(d_model=16, n_layers=2, vocab_size=TOKENIZER.vocab_size, d_state=8, head_dim=4, n_heads=8)
PROMPT = [TOKENIZER.control.bos, *TOKENIZER.encode("def f(x):\n    return ")]
TRUST = Gate({s: {name: [30.0 if name == "length" else 0.0] * size for name, size in FEATURES} for s in SOURCES})


@dataclass
class Flag:
    """A cancel flag that turns true once it was looked at `looks` times."""

    looks: int
    seen: int = 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen > self.looks


@dataclass
class Run:
    """A network that has read PROMPT, and the usual arguments."""

    network: Mamba2LM
    state: Mamba2State = field(init=False)
    logits: Tensor = field(init=False)

    def __post_init__(self) -> None:
        with torch.no_grad():
            logits, self.state = self.network(torch.tensor([PROMPT]))
        self.logits = logits[0, -1]

    def __call__(self, *, logits: Tensor | None = None, **changes: object) -> Generated:
        usual = {"stop": lambda _: None, "cancelled": lambda: False, "max_tokens": 20}
        return generate(
            self.network, TOKENIZER, self.state, self.logits if logits is None else logits, **(usual | changes)
        )  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[0, 1])
def run(request: pytest.FixtureRequest, random_network: Callable[..., Mamba2LM]) -> Run:
    return Run(random_network(CONFIG, seed=request.param))


def favouring(*ids: int, vocab: int = TOKENIZER.vocab_size) -> Tensor:
    """Logits whose order begins with `ids`."""
    logits = torch.zeros(vocab)
    for place, i in enumerate(ids):
        logits[i] = 50.0 - place
    return logits


def forbidden() -> set[int]:
    return {i for i, piece in enumerate(TOKENIZER.pieces) if not piece}


@torch.no_grad()
def test_greedy_is_the_plain_loop(run: Run) -> None:
    ids, text, state, logits, total = [], b"", run.state, run.logits, 0.0
    masked = torch.tensor(sorted(forbidden() - {TOKENIZER.control.eos}))
    while len(ids) < 20:
        probabilities = torch.softmax(logits, -1)
        probabilities[masked] = 0
        best = int(probabilities.argmax())
        total += float(torch.log(probabilities[best]))
        if best == TOKENIZER.control.eos:
            break
        ids.append(best)
        text += TOKENIZER.pieces[best]
        out, state = run.network(torch.tensor([[best]]), state)
        logits = out[0, -1]
    made = run()
    assert (made.ids, made.text) == (ids, text)
    assert made.log_probability == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("looks", [0, 1, 2, 7])
def test_the_flag_is_looked_at_before_each_token(run: Run, looks: int) -> None:
    flag = Flag(looks)
    made = run(cancelled=flag)
    assert made.stopped_by == "cancelled"
    assert len(made.ids) == looks
    assert flag.seen == looks + 1
    assert made.ids == run().ids[:looks]


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_max_tokens(run: Run, max_tokens: int) -> None:
    made = run(max_tokens=max_tokens)
    assert made.stopped_by == "max_tokens"
    assert made.ids == run().ids[:max_tokens]


def test_a_deadline_in_the_past_generates_nothing(run: Run) -> None:
    made = run(deadline=time.monotonic() - 1)
    assert (made.stopped_by, made.ids, made.text) == ("time", [], b"")


def test_a_deadline_in_the_future_changes_nothing(run: Run) -> None:
    assert run(deadline=time.monotonic() + 1000) == run()


def test_eos_ends_it_and_is_no_text(run: Run) -> None:
    made = run(logits=favouring(TOKENIZER.control.eos))
    assert (made.stopped_by, made.ids, made.text) == ("eos", [], b"")


def test_where_a_line_break_ends_it_eos_and_line_break_say_the_same(run: Run) -> None:
    """Together they win against a token that is likelier than each."""
    word = TOKENIZER.encode("return")[0]
    logits = torch.full((TOKENIZER.vocab_size,), -50.0)
    logits[word], logits[TOKENIZER.control.eos], logits[TOKENIZER.newline] = 1.0, 0.8, 0.8

    def ends_at_newline(text: bytes) -> str | None:
        return "line" if b"\n" in text else None

    made = run(logits=logits, stop=ends_at_newline)
    assert (made.stopped_by, made.text) == ("line", b"\n")
    assert run(logits=logits, max_tokens=1).ids == [word]


def test_the_stop_check_sees_every_token_and_none_after(run: Run) -> None:
    seen: list[bytes] = []

    def check(text: bytes) -> str | None:
        if not text.endswith(b"\n"):
            seen.append(text)
        return "enough" if len(seen) == 4 else None

    made = run(stop=check)
    assert made.stopped_by in ("enough", "eos")
    assert made.text == seen[-1] or made.text.endswith(b"\n")


def test_no_control_token_whatever_the_model_wants(run: Run) -> None:
    control = TOKENIZER.control
    wanted = favouring(
        control.bos, control.prefix, control.suffix, control.middle, control.inst, control.end_inst, TOKENIZER.newline
    )
    assert run(logits=wanted, max_tokens=1).ids == [TOKENIZER.newline]


@pytest.mark.parametrize("forced", [b"r", b"retur", b"self.x", b"\xe6", b"\xf0\x9f", b"    ", b"\x00\xff", b"[PREFIX]"])
def test_a_forced_start(run: Run, forced: bytes) -> None:
    made = run(forced=forced)
    written = b"".join(TOKENIZER.pieces[i] for i in made.ids)
    assert written == forced + made.text


def test_of_the_tokens_that_agree_with_the_forced_start_the_likeliest_wins(run: Run) -> None:
    r, ret, word, other = (TOKENIZER.processor.piece_to_id(piece) for piece in ("r", "re", "return", "self"))
    assert run(logits=favouring(other, word, ret), forced=b"ret", max_tokens=1).ids == [word]
    assert run(logits=favouring(other, ret, word), forced=b"ret", max_tokens=1).ids == [ret]
    assert run(logits=favouring(other, r, word), forced=b"ret", max_tokens=1).ids == [r]


def test_with_no_tokens_left_for_the_forced_start_there_is_no_text(run: Run) -> None:
    made = run(forced=b"\x00\x01\x02\x03", max_tokens=2)
    assert (made.stopped_by, made.text, len(made.ids)) == ("max_tokens", b"", 2)


def test_the_stop_check_waits_for_the_forced_start(run: Run) -> None:
    seen: list[bytes] = []
    made = run(forced=b"x\x00y\x00", stop=lambda text: seen.append(text))
    assert all(text == b"" or made.text.startswith(text) or text.endswith(b"\n") for text in seen)
    assert made.text


def test_arguments_are_never_written_to(run: Run) -> None:
    before = [each.clone() for each in (*run.state, run.logits)]
    followed = continuing(TOKENIZER.encode("self.x"))
    run(gate=TRUST, matches_of=followed)
    run(stop=lambda text: "line" if b"\n" in text else None)
    assert all(torch.equal(one, other) for one, other in zip((*run.state, run.logits), before, strict=True))


def continuing(ids: Sequence[int]) -> Callable[[Sequence[int]], list[Continuations]]:
    """Matches that continue with `ids`, one after the other, then nothing."""

    def matches(made: Sequence[int]) -> list[Continuations]:
        if len(made) >= len(ids):
            return [NOTHING, NOTHING]
        return [Continuations(9, np.array([ids[len(made)]], np.int32), np.array([5], np.int32)), NOTHING]

    return matches


def test_a_trusted_match_is_followed(run: Run) -> None:
    ids = TOKENIZER.encode("self.there(is, a)")
    made = run(gate=TRUST, matches_of=continuing(ids), max_tokens=len(ids))
    assert made.ids == ids
    assert made.log_probability > -1e-3


def test_matches_see_what_was_generated(run: Run) -> None:
    asked: list[list[int]] = []

    def matches(made: Sequence[int]) -> list[Continuations]:
        asked.append(list(made))
        return [NOTHING, NOTHING]

    made = run(gate=TRUST, matches_of=matches, max_tokens=5)
    assert asked == [made.ids[:n] for n in range(len(asked))]
    assert made == run(max_tokens=5), "matches of nothing changed something"


def test_no_gate_no_mixture(run: Run) -> None:
    assert run(gate=None, matches_of=continuing(TOKENIZER.encode("self.x"))) == run()


def test_a_distribution_has_no_control_tokens(run: Run) -> None:
    never = sorted(forbidden() - {TOKENIZER.control.eos})
    for gate, matches in ((None, None), (TRUST, continuing([TOKENIZER.newline]))):
        found = Chooser(TOKENIZER, gate, matches).distribution(run.logits, [])
        assert (found[never] == 0).all()
        assert found[TOKENIZER.control.eos] > 0


@pytest.mark.parametrize("name", ["bos", "prefix", "suffix", "middle", "inst", "end_inst"])
def test_a_lookup_that_names_a_control_token_is_not_followed(run: Run, name: str) -> None:
    """It cannot happen while indexes hold text only; should it, the suggestion must still be text."""
    made = run(gate=TRUST, matches_of=continuing([getattr(TOKENIZER.control, name)]), max_tokens=1)
    assert not forbidden() & set(made.ids)


@pytest.mark.parametrize("seed", range(60))
def test_the_choice_is_the_likeliest_of_the_distribution(seed: int) -> None:
    """To the bit, though for few matches the distribution is never made; control tokens and what ends a line among them."""
    rng = np.random.default_rng(seed)
    control, newline = TOKENIZER.control, TOKENIZER.newline
    special = [control.eos, newline, control.prefix, control.bos]
    logits = torch.from_numpy(rng.normal(0, 4, TOKENIZER.vocab_size).astype(np.float32))
    logits[rng.choice(special)] += 12 * rng.random()

    def matches(_: Sequence[int]) -> list[Continuations]:
        found = []
        for _ in SOURCES:
            likely = [*logits.topk(20).indices.tolist(), *special, *rng.integers(0, TOKENIZER.vocab_size, 20).tolist()]
            tokens = rng.permutation(np.unique(likely))[: rng.choice([0, 1, 2, 5, 30])]
            counts = np.sort(rng.integers(1, 9, len(tokens)))[::-1]
            length = int(rng.integers(1, 32)) if len(tokens) else 0
            found.append(Continuations(length, tokens.astype(np.int32), counts.astype(np.int32)))
        return found

    tables = {s: {name: rng.normal(0, 2, size).tolist() for name, size in FEATURES} for s in SOURCES}
    asked = matches([])
    chooser = Chooser(TOKENIZER, Gate(tables), lambda _: asked)
    for ends_line in (False, True):
        expected = chooser.distribution(logits, [])
        if ends_line:
            expected[newline] += expected[control.eos]
            expected[control.eos] = 0
        best = int(expected.argmax())
        assert chooser.choose(logits, [], b"", ends_line=ends_line) == (best, expected[best])


@pytest.mark.parametrize("max_tokens", [0, 1, 7, 20])
def test_each_token_has_its_share_of_the_log_probability(run: Run, max_tokens: int) -> None:
    made = run(max_tokens=max_tokens)
    assert len(made.nats) == len(made.ids) + (made.stopped_by == "eos")
    assert sum(made.nats) == pytest.approx(made.log_probability)
    assert all(nat <= 0 for nat in made.nats)
    assert made.nats[:5] == run(max_tokens=max_tokens, stop=lambda text: None).nats[:5]


def test_the_token_that_ends_it_has_a_share_too(run: Run) -> None:
    assert len(run(logits=favouring(TOKENIZER.control.eos)).nats) == 1
