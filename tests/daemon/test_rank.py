"""Branches of models that do not know where a hole ends: which are tried, how they are scored, and that time and newer requests end it.

Random weights with Codestral's vocabulary: what they say is nonsense, but it is the same nonsense each time.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from daemon.bases import ground_of
from daemon.branches import N_FIRSTS, RIVAL, Turn, branch_from, rivals
from daemon.completion import Engine
from daemon.feeder import Value
from daemon.protocol import CompletionRequest, Document
from daemon.rank import Ranked, ids_of_text, rank, score, what_follows
from daemon.trim import Shown
from model.checkpoint import LoadedModel
from model.fim import STRATEGIES
from model.generate import Chooser
from model.sampling import likeliest, log_probabilities, next_logits
from tests.daemon.branch_parts import CONFIG, EOS, NEWLINE, V3, Scripted, W, X, Y, Z, fork_of, greedy, token

ABOVE, BELOW = "def f(a):\n    b = a + 1\n", "\n    return result\n"
REQUEST = CompletionRequest(prompt=f"{ABOVE}    resu", suffix=BELOW, head="import os\n", path="a.py", max_tokens=8)


@pytest.fixture(scope="module")
def model(random_network: Callable) -> LoadedModel:
    network = random_network(CONFIG)
    return LoadedModel("random", CONFIG, network, V3, None, b"digest of random weights", "fp32")


# probabilities of the first token -> those that get a branch of their own
RIVALS = [
    ({X: 0.9, Y: 0.1}, []),
    ({X: 0.51, Y: 0.49}, []),
    ({X: 0.45, Y: 0.35, Z: 0.2}, [Y, Z]),
    ({X: 0.45, Y: 0.35, Z: 0.05, W: 0.15}, [Y, W]),
    ({X: 0.3, Y: 0.25, Z: 0.25, W: 0.2}, [Y, Z]),
    ({X: 0.4, **dict.fromkeys(range(2000, 2010), 0.06)}, []),
]


@pytest.mark.parametrize(("first", "expected"), RIVALS)
def test_an_uncertain_first_token_has_rivals(first: dict[int, float], expected: list[int]) -> None:
    made = rivals(fork_of(Scripted({}), first))
    assert sorted(turn.token for turn in made) == sorted(expected)
    assert all(turn.log_probability == pytest.approx(np.log(first[turn.token]), abs=1e-3) for turn in made)
    assert len(made) < N_FIRSTS
    assert all(turn.log_probability >= np.log(RIVAL) and not turn.before for turn in made)


def test_rivals_of_a_typed_start_agree_with_it() -> None:
    """Of the tokens that agree with the forced bytes, and their probabilities are of those alone."""
    fork = fork_of(Scripted({}), {token("re"): 0.048, token("r"): 0.05, X: 0.91}, forced=b"re")
    assert rivals(fork) == []  # the likelier of the two has more than half
    fork = replace(fork, logits=fork.logits.index_fill(0, torch.tensor(V3.encode("red")), float(np.log(0.03))))
    assert rivals(fork) == [
        ((), token("re"), pytest.approx((np.log(0.048 / 0.128),), abs=1e-3)),
        ((), token("red"), pytest.approx((np.log(0.03 / 0.128),), abs=1e-3)),
    ]


# After x the line below is unlikely to come next, after y it may well; as they are said, x is the likelier.
LIKES_Y = {X: {EOS: 0.98, NEWLINE: 0.02}, Y: {EOS: 0.5, NEWLINE: 0.5}, NEWLINE: {W: 1.0}}


def test_the_line_below_decides_between_near_equals() -> None:
    fork = fork_of(Scripted(dict(LIKES_Y)), {X: 0.45, Y: 0.4, Z: 0.15})
    first = greedy(fork)
    assert first.text == b"x\n"
    made = rank(fork, first, took_s=0.0)
    assert (made.best.text, made.n_branches) == (b"y\n", 3)
    alone = replace(fork, following="")  # with nothing below the branch's own probability is all there is
    assert rank(alone, first, took_s=0.0).best is first


def test_a_likelier_branch_wins_over_an_indifferent_line() -> None:
    says = {X: {NEWLINE: 1.0}, Y: {Z: 0.3, W: 0.3, 2000: 0.4}, NEWLINE: {W: 1.0}}
    fork = fork_of(Scripted(says), {X: 0.45, Y: 0.4})
    assert rank(fork, greedy(fork), took_s=0.0).best.text == b"x\n"


def test_a_score_is_two_means() -> None:
    says = {Y: {NEWLINE: 0.25, Z: 0.75}, NEWLINE: {W: 0.5, Z: 0.5}, W: {NEWLINE: 1.0}}
    fork = fork_of(Scripted(says), {X: 0.5, Y: 0.4, Z: 0.1}, request=CompletionRequest(prompt="", suffix="ww\n"))
    branch = branch_from(fork, Turn((), Y, (float(np.log(0.4)),)))
    assert branch.text == b"yz\n"
    of_branch = (np.log(0.4) + np.log(0.75)) / 3
    (w2,) = V3.encode("ww")[:1]
    says[Z] = {NEWLINE: 0.5, X: 0.5}
    says[NEWLINE] = {w2: 0.25, X: 0.75}
    following = V3.encode("\nww")
    expected = [np.log(0.5), np.log(0.25), *([-30.0] * (len(following) - 2))]
    found = score(fork, branch, shown=Shown("yz", upto=2))
    assert found == pytest.approx(of_branch + np.mean(expected[: len(following)]), abs=0.05)


def test_the_end_of_text_is_a_branch_too() -> None:
    fork = fork_of(Scripted({X: {NEWLINE: 1.0}, NEWLINE: {W: 1.0}}), {X: 0.45, EOS: 0.4, Z: 0.15})
    branch = branch_from(fork, Turn((), EOS, (float(np.log(0.4)),)))
    assert (branch.text, branch.stopped_by, branch.log_probability) == (b"", "eos", pytest.approx(np.log(0.4)))
    assert rank(fork, greedy(fork), took_s=0.0).n_branches == 3


@pytest.mark.parametrize(
    ("changes", "took_s"),
    [
        ({"deadline": time.monotonic() - 1}, 0.0),  # no time left
        ({"deadline": time.monotonic() + 1000}, 2000.0),  # not enough for one more like the first
        ({"cancelled": lambda: True}, 0.0),
    ],
)
def test_without_time_the_greedy_branch_is_all(changes: dict, took_s: float) -> None:
    network = Scripted({X: {NEWLINE: 1.0}, Y: {NEWLINE: 1.0}})
    fork = fork_of(network, {X: 0.45, Y: 0.45})
    first = greedy(fork)
    before = network.calls
    assert rank(replace(fork, **changes), first, took_s=took_s) == Ranked(first, 1)
    assert network.calls == before


def test_a_branch_that_is_cut_off_is_no_candidate() -> None:
    """The second branch would win; a newer request comes while it is being decoded."""
    network = Scripted(dict(LIKES_Y))
    fork = fork_of(network, {X: 0.45, Y: 0.4, Z: 0.15})
    first = greedy(fork)
    assert rank(fork, first, took_s=0.0).best.text == b"y\n"
    before = network.calls
    interrupted = replace(fork, cancelled=lambda: network.calls > before)
    assert rank(interrupted, first, took_s=0.0).best is first


def test_equal_texts_are_one_branch() -> None:
    """`re` in one token and in two shows the same: nothing has to be scored."""
    says = {token("re"): {NEWLINE: 1.0}, token("r"): {token("e"): 1.0}, token("e"): {NEWLINE: 1.0}}
    network = Scripted(says)
    fork = fork_of(network, {token("re"): 0.45, token("r"): 0.45})
    first = greedy(fork)
    assert rank(fork, first, took_s=0.0).best is first


# rest of the line, lines below -> what is asked for after the hole
FOLLOWING = [
    ("", "    return x\ny\n", "\n    return x"),
    ("", "\n\n  y\nz", "\n\n\n  y"),
    ("", "", ""),
    ("", " \n\n", ""),
    (")", "y\n", ")"),
    ("  ", "y\n", "\ny"),
    (" + b  ", "y\n", " + b"),
]


@pytest.mark.parametrize(("rest", "suffix", "expected"), FOLLOWING)
def test_what_follows_a_hole(rest: str, suffix: str, expected: str) -> None:
    assert what_follows(CompletionRequest(prompt="x", suffix=suffix, rest_of_line=rest)) == expected


def test_a_branch_is_scored_as_far_as_it_is_shown() -> None:
    """Its own tokens up to the one in which the text shown ends."""
    text = "result = 12 + résumé"
    ids = V3.encode(text)
    for end in range(len(text) + 1):
        kept = ids_of_text(V3, ids, text[:end].encode())
        assert V3.decode(kept) == text[:end]
        n_whole = max(n for n in range(len(ids) + 1) if text[:end].startswith(V3.decode(ids[:n])))
        assert kept[:n_whole] == ids[:n_whole]


def test_probabilities_of_a_text_are_those_of_one_token_after_the_other(model: LoadedModel) -> None:
    network, ids = model.network, V3.encode("    return value.total(x)")
    logits, state = network(torch.tensor([[1, *V3.encode("def f():\n")]]))
    expected, row, after = [], logits[0, -1], state
    for i in ids:
        expected.append(float(torch.log_softmax(row, -1)[i]))
        out, after = network(torch.tensor([[i]]), after)
        row = out[0, -1]
    assert log_probabilities(network, state, logits[0, -1], ids) == pytest.approx(expected, abs=1e-4)
    assert next_logits(network, state, logits[0, -1], ids[:1]).shape == (1, V3.vocab_size)


def test_the_likeliest_first_token_is_the_one_that_is_chosen(model: LoadedModel) -> None:
    chooser = Chooser(V3, None, None)
    for seed in range(8):
        logits = torch.randn(V3.vocab_size, generator=torch.Generator().manual_seed(seed)) * 3
        for forced, ends_line in [(b"", False), (b"", True), (b"re", False), (b"    ", False), ("é".encode(), False)]:
            found = likeliest(chooser, logits, forced, ends_line=ends_line, n=3)
            best, probability = chooser.choose(logits, [], forced, ends_line=ends_line)
            assert found[0] == (best, pytest.approx(probability, rel=1e-5))
            assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


# The whole road, on random weights with Codestral's control ids.


def engine_of(model: LoadedModel, strategy: str) -> Engine:
    return Engine(model, store_budget_bytes=1 << 26, strategy=strategy)


def complete(engine: Engine, request: CompletionRequest, documents: list[Document]):
    ground = ground_of(engine.prompter, documents, max_tokens=10_000)
    return engine.complete(request, [ground], cancelled=lambda: False, started=time.monotonic())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_typed_word_feeds_few_tokens_and_is_healed(
    model: LoadedModel, strategy: str, documents: list[Document]
) -> None:
    engine = engine_of(model, strategy)
    line = "    result = item.value"
    for n in range(1, len(line) + 1):
        made = complete(engine, replace_prompt(ABOVE + line[:n]), documents)
        if n > 1:
            assert made.report.tokens_fed <= 16
            assert made.report.segment in ("prefix", "line")
        prompt = engine.prompter.completion(engine.prompter.root, replace_prompt(ABOVE + line[:n]))
        written = b"".join(V3.pieces[i] for i in made.generated.ids)
        assert written == prompt.forced + made.generated.text
        assert all(V3.pieces[i] for i in made.generated.ids), "a control token"
    engine.store.check()


def replace_prompt(prompt: str) -> CompletionRequest:
    known = {name: getattr(REQUEST, name) for name in REQUEST.__struct_fields__}
    return CompletionRequest(**(known | {"prompt": prompt}))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_kept_does_not_matter_under_any_strategy(
    model: LoadedModel, strategy: str, documents: list[Document]
) -> None:
    warm, cold = engine_of(model, strategy), engine_of(model, strategy)
    for prompt in (ABOVE, f"{ABOVE}    re", f"{ABOVE}    result", "other("):
        complete(warm, replace_prompt(prompt), documents)
    one, other = complete(warm, REQUEST, documents), complete(cold, REQUEST, documents)
    assert one.report.tokens_fed < other.report.tokens_fed
    assert (one.generated, one.text) == (other.generated, other.text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_decoding_and_ranking_write_to_no_kept_state(
    model: LoadedModel, strategy: str, documents: list[Document]
) -> None:
    engine = engine_of(model, strategy)
    complete(engine, REQUEST, documents)
    before = [(entry.value, [t.clone() for t in tensors(entry.value)]) for entry in engine.store.entries()]
    assert before
    complete(engine, REQUEST, documents)
    for value, copies in before:
        assert all(map(torch.equal, copies, tensors(value)))


def tensors(value: Value) -> tuple[torch.Tensor, ...]:
    return value.logits, *value.state
