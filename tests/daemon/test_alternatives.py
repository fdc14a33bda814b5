"""Several answers to one request: where branches are tried, which are shown and in which order, and that each is what plain greedy decoding says."""

import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from daemon import completion
from daemon.api import response
from daemon.bases import Ground, ground_of
from daemon.branches import FLOOR, Fork, Turn, branch_from, turns
from daemon.completion import Completion, Engine
from daemon.protocol import CompletionRequest, Document
from daemon.rank import TRIES, alternatives, likelihood, rank
from model.checkpoint import LoadedModel
from model.generate import Generated, generate
from tests.daemon.branch_parts import EOS, NEWLINE, V3, Scripted, W, X, Y, Z, fork_of, greedy, token
from tests.daemon.daemon_parts import ask

ENDS = {X: {NEWLINE: 1.0}, Y: {NEWLINE: 1.0}, Z: {NEWLINE: 1.0}, W: {NEWLINE: 1.0}}
LATER = {**ENDS, X: {Z: 0.56, W: 0.4, NEWLINE: 0.04}, Z: {NEWLINE: 0.9, EOS: 0.1}}
RE, RED, A, B, D = (token(text) for text in ("re", "red", "a", "b", "d"))


def told(says: dict[int, dict[int, float]], first: dict[int, float], **changes: object) -> Fork:
    """A fork of a model that knows where a hole ends, so that nothing is asked of what follows."""
    return fork_of(Scripted(dict(says)), first, **({"following": ""} | changes))


# what is said after which token, what may come first -> the turns: tokens before, token, probability of all of them
TURNS = [
    (ENDS, {X: 0.6, Y: 0.3, Z: 0.1}, [((), Y, 0.3), ((), Z, 0.1)]),
    (ENDS, {X: 0.99, Y: 0.01 - 1e-6}, []),
    # later ones count as much as the text before them is likely; the end of the text is a line break here
    (LATER, {X: 0.8, Y: 0.2}, [((X,), W, 0.32), ((), Y, 0.2), ((X,), NEWLINE, 0.032)]),
    (
        LATER,
        {X: 0.2, Y: 0.19, Z: 0.18, **dict.fromkeys(range(2000, 2100), 0.0043)},
        [((), Y, 0.19), ((), Z, 0.18), ((X,), W, 0.08)],
    ),
    # behind an improbable text nothing is looked for
    ({X: dict.fromkeys(range(2000, 2200), 0.005), 2000: {Z: 0.6, W: 0.4}}, {X: 1.0}, []),
]


@pytest.mark.parametrize(("says", "first", "expected"), TURNS)
def test_turns_are_ordered_by_what_they_make_of_the_whole_text(
    says: dict, first: dict, expected: list[tuple[tuple[int, ...], int, float]]
) -> None:
    fork = told(says, first)
    made = turns(fork, greedy(fork))
    assert [(turn.before, turn.token) for turn in made] == [(before, i) for before, i, _ in expected]
    assert [np.exp(turn.log_probability) for turn in made] == pytest.approx([p for *_, p in expected], rel=2e-2)
    assert all(turn.log_probability >= np.log(FLOOR) - 1e-6 for turn in made)


# what is said after which token, what may come first, how many are wanted -> what is shown
ALTERNATIVES = [
    (ENDS, {X: 0.6, Y: 0.3, Z: 0.1}, 3, ["x", "y", "z"]),
    (ENDS, {X: 0.6, Y: 0.3, Z: 0.1}, 2, ["x", "y"]),
    (ENDS, {X: 0.6, Y: 0.3, Z: 0.1}, 1, ["x"]),
    (ENDS, {X: 0.6, Y: 0.3, Z: 0.1}, 9, ["x", "y", "z"]),
    (ENDS, {X: 1.0}, 3, ["x"]),
    (ENDS, {X: 0.35, Y: 0.35, Z: 0.3}, 3, ["y", "x", "z"]),  # the greedy one is the first of equals
    (LATER, {X: 0.8, Y: 0.2}, 2, ["xz", "xw"]),
    # a turn leads to a likelier text than the greedy one
    ({**ENDS, X: {Z: 0.4, W: 0.3, Y: 0.3}}, {X: 0.51, Y: 0.49}, 2, ["y", "xz"]),
    # the same text in other tokens is no other text, and neither is one with white space at its end
    ({**ENDS, RE: {D: 1.0}, D: {NEWLINE: 1.0}, RED: {NEWLINE: 1.0}}, {RED: 0.5, RE: 0.3, X: 0.2}, 3, ["red", "x"]),
    ({**ENDS, X: {NEWLINE: 0.6, token(" "): 0.4}}, {X: 0.9, Y: 0.1}, 3, ["x", "y"]),
]


@pytest.mark.parametrize(("says", "first", "n", "expected"), ALTERNATIVES)
def test_what_is_answered(says: dict, first: dict, n: int, expected: list[str]) -> None:
    fork = told(says, first)
    said = greedy(fork)
    made = alternatives(fork, said, n=n, took_s=0.0)
    assert [fork.trim.shown(each.text) for each in made] == expected
    assert said in made
    nats = [each.log_probability for each in made]
    assert nats == sorted(nats, reverse=True) or n == 1


def test_a_likelier_text_comes_before_a_longer_one_of_easy_tokens() -> None:
    """What is asked is whether all of a text is right, so the sum decides, not the mean of its tokens."""
    says = {**ENDS, X: {Z: 0.9, W: 0.1}, Z: {A: 0.7, D: 0.3}, A: {B: 0.9, D: 0.1}, B: {NEWLINE: 1.0}}
    fork = told(says, {Y: 0.45, X: 0.55})
    first = greedy(fork)
    made = alternatives(fork, first, n=2, took_s=0.0)
    assert [fork.trim.shown(each.text) for each in made] == ["y", "xzab"]
    assert made[0].log_probability / 2 < made[1].log_probability / 5, "by the mean it would be the other way round"


def test_a_branch_is_given_up_once_it_cannot_be_among_the_best() -> None:
    long = {i: {i + 1: 0.5, NEWLINE: 0.1, W: 0.2, Z: 0.2} for i in range(2000, 2060)}
    fork = told({**ENDS, **long}, {X: 0.5, 2000: 0.3, Y: 0.2}, max_tokens=50)
    turn = Turn((), 2000, (float(np.log(0.3)),))
    whole, cut = branch_from(fork, turn), branch_from(fork, turn, least_nats=float(np.log(0.1)))
    assert (len(whole.ids), whole.stopped_by) == (50, "max_tokens")
    assert (len(cut.ids) < 5, cut.stopped_by) == (True, "unlikely")
    first = greedy(fork)
    assert alternatives(fork, first, n=2, took_s=0.0)[0] is first
    assert fork.trim.shown(first.text) == "x"


def test_blank_ones_are_no_answers() -> None:
    """The greedy one ends the line at once; without any other, it is the answer."""
    request = CompletionRequest(prompt="", suffix="wow\n", rest_of_line=")")
    fork = told(ENDS, {NEWLINE: 0.6, X: 0.3, Y: 0.1}, request=request)
    first = greedy(fork)
    assert fork.trim.shown(first.text) == ""
    assert [each.text for each in alternatives(fork, first, n=3, took_s=0.0)] == [b"x\n", b"y\n"]
    alone = told(ENDS, {NEWLINE: 1.0}, request=request)
    assert alternatives(alone, greedy(alone), n=3, took_s=0.0) == [greedy(alone)]


def test_the_greedy_text_is_among_them_however_unlikely_its_end() -> None:
    says = {
        **ENDS,
        X: {W: 0.1, Z: 0.09, **dict.fromkeys(range(2000, 2080), 0.01)},
        W: dict.fromkeys(range(2000, 2100), 0.01),
    }
    fork = told(says, {X: 0.34, Y: 0.33, Z: 0.33}, max_tokens=4)
    first = greedy(fork)
    made = alternatives(fork, first, n=2, took_s=0.0)
    assert fork.trim.shown(made[0].text) == "y"
    assert made[1] is first


def test_typed_bytes_bind_every_branch() -> None:
    says = {**ENDS, RE: {D: 0.6, X: 0.4}, D: {NEWLINE: 1.0}, RED: {NEWLINE: 1.0}}
    fork = told(says, {RE: 0.06, RED: 0.03, X: 0.91}, forced=b"re")
    made = alternatives(fork, greedy(fork), n=4, took_s=0.0)
    assert [each.text for each in made] == [b"d\n", b"x\n"]
    assert all(b"".join(V3.pieces[i] for i in each.ids) == b"re" + each.text for each in made)


def test_an_end_of_the_text_is_an_answer_where_a_line_may_follow() -> None:
    """After a line break one more line may come: ending there is another answer."""
    says = {NEWLINE: {X: 0.6, EOS: 0.4}, X: {EOS: 0.55, Y: 0.45}, Y: {EOS: 1.0}}
    request = CompletionRequest(prompt="x", suffix="w\n", rest_of_line=")")
    fork = told(says, {X: 1.0}, request=request)
    made = alternatives(fork, greedy(fork), n=2, took_s=0.0)
    assert sorted(fork.trim.shown(each.text) for each in made) == ["x", "xy"]


def test_models_that_do_not_know_the_end_have_their_choice_among_them() -> None:
    """What `rank` answers alone is the best of several too: the line below decides."""
    likes_y = {X: {EOS: 0.98, NEWLINE: 0.02}, Y: {EOS: 0.5, NEWLINE: 0.5}, NEWLINE: {W: 1.0}}
    fork = fork_of(Scripted(likes_y), {X: 0.45, Y: 0.4, Z: 0.15})
    first = greedy(fork)
    alone = rank(fork, first, took_s=0.0).best
    assert alone.text == b"y\n"
    assert alternatives(fork, first, n=2, took_s=0.0) == [alone, first]


@pytest.mark.parametrize(
    ("changes", "took_s"),
    [
        ({"deadline": time.monotonic() - 1}, 0.0),  # no time left
        ({"deadline": time.monotonic() + 1000}, 2000.0),  # not enough for one more like the first
        ({"cancelled": lambda: True}, 0.0),
    ],
)
def test_without_time_there_is_one_answer(changes: dict, took_s: float) -> None:
    network = Scripted(dict(ENDS))
    fork = fork_of(network, {X: 0.45, Y: 0.45}, following="")
    first = greedy(fork)
    before = network.calls
    assert alternatives(replace(fork, **changes), first, n=3, took_s=took_s) == [first]
    assert network.calls == before


@pytest.mark.parametrize("stopped_by", ["time", "cancelled", "nothing"])
def test_a_text_that_was_cut_off_has_no_others(stopped_by: str) -> None:
    fork = told(ENDS, {X: 0.6, Y: 0.4})
    first = replace(greedy(fork), stopped_by=stopped_by)
    assert alternatives(fork, first, n=3, took_s=0.0) == [first]


def test_what_was_decoded_before_a_newer_request_is_answered() -> None:
    """Whoever cancels looks at each token: no further branch is begun, and one that is cut off is none."""
    network = Scripted({**LATER, Y: {Z: 1.0}})
    fork = fork_of(network, {X: 0.5, Y: 0.3, Z: 0.2}, following="")
    first = greedy(fork)
    whole, counts = alternatives(fork, first, n=3, took_s=0.0), []
    n_calls = network.calls
    alternatives(fork, first, n=3, took_s=0.0)
    n_calls = network.calls - n_calls
    for limit in range(n_calls + 2):
        before = network.calls
        cut = replace(fork, cancelled=lambda before=before, limit=limit: network.calls - before >= limit)
        made = alternatives(cut, first, n=3, took_s=0.0)
        assert first in made
        assert all(each.stopped_by not in ("cancelled", "time") for each in made)
        counts.append(len(made))
    assert counts[0] == 1
    assert counts[-1] == len(whole) == 3


# Real networks: exactness, and the whole road.

PROMPTS = ["import os\n\n\ndef f(items):\n    total = ", "class A:\n    def __in", "x = foo(", "for i in ra"]


def plain(fork: Fork, turn: Turn, *, stepwise: bool) -> Generated:
    """What greedy decoding says from where the branch begins, without drafts, its text before it fed at once or token by token."""
    ids = [*turn.before, turn.token]
    logits, state = fork.logits[None, None], fork.state
    for chunk in [[i] for i in ids] if stepwise else [ids]:
        logits, state = fork.network(torch.tensor([chunk]), state, last_only=True)
    whole = b"".join(fork.tokenizer.pieces[i] for i in ids)
    said = whole[len(fork.forced) :]
    return generate(
        fork.network,
        fork.tokenizer,
        state,
        logits[0, -1],
        stop=lambda text: fork.trim.stop(said + text),
        cancelled=lambda: False,
        max_tokens=fork.max_tokens - len(ids),
        forced=fork.forced[len(whole) :],
        gate=fork.gate,
        matches_of=lambda more: fork.matches_of([*ids, *more]),
    )


def spread(found: list[Turn]) -> list[Turn]:
    """The likeliest two at each place of the text."""
    by_place: dict[int, list[Turn]] = {}
    for turn in found:
        by_place.setdefault(len(turn.before), []).append(turn)
    return [turn for some in by_place.values() for turn in some[:2]]


def forks(
    model: LoadedModel, documents: list[Document], monkeypatch: pytest.MonkeyPatch, **changes: object
) -> list[tuple[Fork, Generated]]:
    """The forks of real requests, with what is said first at each."""
    seen: list[tuple[Fork, Generated]] = []

    def look(fork: Fork, first: Generated, **options: object) -> list[Generated]:
        seen.append((fork, first))
        return [first]

    monkeypatch.setattr(completion, "alternatives", look)
    engine = Engine(model, store_budget_bytes=1 << 28)
    for prompt in PROMPTS:
        complete(engine, ask(prompt, n=3, **({"max_tokens": 12, "suffix": "    return total\n"} | changes)), documents)
    return seen


def complete(engine: Engine, request: CompletionRequest, documents: list[Document]) -> Completion:
    ground: Ground = ground_of(engine.prompter, documents, max_tokens=10_000)
    return engine.complete(request, [ground], cancelled=lambda: False, started=time.monotonic())


@pytest.mark.parametrize("which", ["bundled", "tiny", "coarse"])
@pytest.mark.parametrize("max_lines", [1, 4])
def test_each_branch_is_what_plain_greedy_decoding_says(
    request: pytest.FixtureRequest,
    documents: list[Document],
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    max_lines: int,
) -> None:
    """With drafts, mixture and healed bytes as without drafts and from nothing; on networks whose bits do not depend on the cut, token by token too."""
    floor = FLOOR if which == "bundled" else 1e-8  # random weights find nothing likely
    n_seen = n_forced = n_later = 0
    for fork, first in forks(request.getfixturevalue(which), documents, monkeypatch, max_lines=max_lines):
        for turn in spread(turns(fork, first, floor=floor)):
            made = branch_from(fork, turn)
            if turn.token == fork.tokenizer.control.eos or made.ids == [*turn.before, turn.token]:
                continue
            for stepwise in (False, True) if fork.network.any_cut else (False,):
                rest = plain(fork, turn, stepwise=stepwise)
                assert made.ids == [*turn.before, turn.token, *rest.ids]
                assert made.stopped_by == rest.stopped_by
                assert made.log_probability == pytest.approx(turn.log_probability + rest.log_probability, abs=1e-9)
            assert b"".join(fork.tokenizer.pieces[i] for i in made.ids) == fork.forced + made.text
            n_seen, n_forced, n_later = n_seen + 1, n_forced + bool(fork.forced), n_later + bool(turn.before)
    assert n_seen
    assert n_forced
    assert n_later


def test_turns_and_the_text_share_all_probability(
    bundled: LoadedModel, documents: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text begins with one of the turns or is the greedy one: with no floor the probabilities add up to 1, up to what is below what floats can tell."""
    for fork, first in forks(bundled, documents, monkeypatch):
        shares = [np.exp(turn.log_probability) for turn in turns(fork, first, floor=1e-30)]
        assert sum(shares) + np.exp(first.log_probability) == pytest.approx(1.0, abs=1e-4)
        assert all(first.ids[: len(turn.before)] == list(turn.before) for turn in turns(fork, first))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_giving_up_early_changes_no_answer(
    bundled: LoadedModel, documents: list[Document], monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """The same as when each branch is decoded to its end, and the best are taken then."""
    n_fewer = 0
    for fork, first in forks(bundled, documents, monkeypatch):
        branches = [branch_from(fork, turn) for turn in turns(fork, first)[: TRIES * (n - 1)]]
        by_text: dict[str, float] = {}
        for each in (first, *branches):
            shown = fork.trim.outcome(each.text)
            if shown.text:
                by_text.setdefault(shown.text.strip(), likelihood(fork, each, shown=shown))
        expected = sorted(by_text, key=lambda text: -by_text[text])
        own = fork.trim.shown(first.text).strip()
        if own in expected[n:]:
            expected.insert(n - 1, own)
        made = alternatives(fork, first, n=n, took_s=0.0)
        assert [fork.trim.shown(each.text).strip() for each in made] == expected[:n]
        n_fewer += len(branches) >= n
    assert n_fewer


@pytest.mark.parametrize("max_lines", [1, 4])
def test_several_answers_of_the_bundled_model(bundled: LoadedModel, documents: list[Document], max_lines: int) -> None:
    """The one that would be answered alone is among them, all differ, and what was kept does not matter."""
    warm, cold = Engine(bundled, store_budget_bytes=1 << 28), Engine(bundled, store_budget_bytes=1 << 28)
    n_several = 0
    for prompt in PROMPTS:
        alone = ask(prompt, max_tokens=16, suffix="\nprint(1)\n", max_lines=max_lines)
        several = msgspec.structs.replace(alone, n=3)
        one, made = complete(warm, alone, documents), complete(warm, several, documents)
        again = complete(cold, several, documents)
        texts = [made.text, *(other.shown.text for other in made.others)]
        assert texts == [again.text, *(other.shown.text for other in again.others)]
        assert len(set(texts)) == len(texts) <= 3
        assert one.others == ()
        if one.text:
            assert one.text in texts
            assert all(texts)
        n_several += len(texts) > 1
        choices = response("m", made).choices
        assert [choice.message.content for choice in choices] == texts
        assert [choice.index for choice in choices] == list(range(len(texts)))
        assert response("m", one).choices[0].message.content == one.text
        warm.store.check()
    assert n_several


def test_others_cost_no_kept_state(bundled: LoadedModel, documents: list[Document]) -> None:
    """Branches are decoded, and what was decoded is never kept."""
    one, other = Engine(bundled, store_budget_bytes=1 << 28), Engine(bundled, store_budget_bytes=1 << 28)
    for engine, n in ((one, 1), (other, 3)):
        for prompt in PROMPTS:
            complete(engine, ask(prompt, max_tokens=16, n=n), documents)
    keys = [sorted(entry.key for entry in engine.store.entries()) for engine in (one, other)]
    assert keys[0] == keys[1]


def test_no_more_branches_are_tried_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {X: 0.16, **dict.fromkeys(range(2000, 2014), 0.06)}
    network = Scripted({i: {NEWLINE: 1.0} for i in many})
    fork = fork_of(network, many, following="")
    first = greedy(fork)
    before = network.calls
    made = alternatives(fork, first, n=3, took_s=0.0)
    assert len(made) == 3
    assert network.calls - before <= 1 + TRIES * 2  # one look at the greedy text, and the branches
