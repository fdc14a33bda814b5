"""One completion on the bundled model: what it feeds, that it does not matter what was kept, and what it does when time is short."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.lookup import DocumentIndex
from daemon.bases import Ground, ground_of
from daemon.completion import FEED_SHARE, Completion
from daemon.feeder import Value
from daemon.matcher import Matcher
from daemon.prompt import COARSE_LINE_GRID, LINE_GRID
from daemon.protocol import CompletionRequest, Document
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import PLENTY, WatchedEngine

HEAD = "".join(f"def helper_{n}(first, second):\n    return first * {n} + second\n\n" for n in range(45))
ABOVE = "def total(items):\n    result = 0\n"
LINE = "    for item in items:"
SUFFIX = "    return result\n"
REQUEST = CompletionRequest(prompt=ABOVE + LINE, suffix=SUFFIX, head=HEAD, path="a/b.py", max_tokens=6)

Make = Callable[..., WatchedEngine]


@pytest.fixture(params=["bundled", "coarse"])
def make_engine(request: pytest.FixtureRequest) -> Make:
    """On kernels that give the same bits however tokens are cut, and on a network that does not."""
    model = request.getfixturevalue(request.param)
    return lambda budget_bytes=PLENTY: WatchedEngine(model, store_budget_bytes=budget_bytes)


def changed(request: CompletionRequest = REQUEST, **changes: object) -> CompletionRequest:
    known = {name: getattr(request, name) for name in request.__struct_fields__}
    return CompletionRequest(**(known | changes))  # type: ignore[arg-type]


def complete(
    engine, ground: Ground, request: CompletionRequest = REQUEST, *, cancelled: Callable[[], bool] = lambda: False
) -> Completion:
    engine.fed.clear()
    made = engine.complete(request, [ground], cancelled=cancelled, started=time.monotonic())
    engine.store.check()
    assert made.report.tokens_fed == engine.n_fed or made.generated.stopped_by == "cancelled"
    assert (
        made.report.tokens_fed + made.report.tokens_reused == made.prompt_tokens
        or made.generated.stopped_by == "cancelled"
    )
    return made


def read(engine, documents: list[Document]) -> Ground:
    """What completions in these documents stand on, once all of it was fed."""
    ground = ground_of(engine.prompter, documents, max_tokens=100_000)
    engine.read(ground.chain)
    return ground


def final_value(engine, ground: Ground, request: CompletionRequest) -> Value:
    """The value that the decoding started from."""
    value = engine.read(engine.prompter.completion(ground.chain, request).chain)
    assert value is not None
    return value


def nothing(engine) -> Ground:
    return Ground(engine.prompter.root)


def test_a_typed_word_feeds_few_tokens(engine, documents: list[Document]) -> None:
    ground = read(engine, documents)
    first = complete(engine, ground)
    assert first.report.segment == "base"
    assert first.report.tokens_reused == ground.chain.n_tokens
    for n in range(1, 12):
        made = complete(engine, ground, changed(prompt=f"{ABOVE}{LINE} result += item.value"[: len(ABOVE + LINE) + n]))
        assert made.report.tokens_fed <= (2 * LINE_GRID if engine.merges else 2 * COARSE_LINE_GRID)
        assert made.report.segment in ("prefix", "line")
        assert made.report.context_tokens == ground.chain.n_tokens - 1
        assert made.report.context_ready


def test_what_was_kept_does_not_matter(make_engine: Make, documents: list[Document]) -> None:
    """The text and every bit of the state: on an engine that followed each key, and on one that sees the last key only."""
    warm, cold = make_engine(), make_engine()
    warm_base, cold_base = read(warm, documents), read(cold, documents)
    typed = f"{LINE} res"
    for n in range(len(typed)):
        complete(warm, warm_base, changed(prompt=ABOVE + typed[:n]))
    complete(warm, warm_base, changed(prompt=f"{ABOVE}{typed}ult\n    ret"))
    complete(warm, warm_base, changed(prompt="elsewhere(", head="", path="c.py"))
    request = changed(prompt=ABOVE + typed, max_tokens=10)
    one, other = complete(warm, warm_base, request), complete(cold, cold_base, request)
    assert one.report.tokens_fed < other.report.tokens_fed
    assert one.generated == other.generated
    assert one.text == other.text
    for a, b in zip(
        *(final_value(*each, request).state for each in ((warm, warm_base), (cold, cold_base))), strict=True
    ):
        assert torch.equal(a, b)


def test_the_same_request_again_feeds_nothing(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    first, second = complete(engine, base), complete(engine, base)
    assert second.report.tokens_fed <= 16
    assert (first.generated, first.text) == (second.generated, second.text)


@pytest.mark.parametrize("budget_bytes", [0, 1, 1_000_000])
def test_a_store_that_holds_next_to_nothing_gives_the_same_text(
    make_engine: Make, documents: list[Document], budget_bytes: int
) -> None:
    small, plenty = make_engine(budget_bytes), make_engine()
    base, plenty_base = read(small, documents), read(plenty, documents)
    assert complete(small, base).generated == complete(plenty, plenty_base).generated
    assert small.store.nbytes <= budget_bytes


def test_nothing_that_decoding_made_is_kept(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    complete(engine, base)
    prompt = engine.prompter.completion(base.chain, REQUEST).chain
    known = {part.key for part in prompt.slices}
    assert engine.store.entries()
    assert all(entry.key in known for entry in engine.store.entries())


def test_kept_values_are_never_written_to(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    complete(engine, base)
    before = [(entry.value, [t.clone() for t in tensors(entry.value)]) for entry in engine.store.entries()]
    for prompt in ("x", f"{ABOVE}{LINE} r", "import "):
        complete(engine, base, changed(prompt=prompt))
    for value, copies in before:
        assert all(map(torch.equal, copies, tensors(value)))


def tensors(value: Value) -> tuple[torch.Tensor, ...]:
    return value.logits, *value.state


def test_a_cancelled_request_feeds_and_says_nothing(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    made = complete(engine, base, cancelled=lambda: True)
    assert (made.text, made.report.stopped_by, made.report.tokens_fed) == ("", "cancelled", 0)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_cancelling_stops_after_the_slice_that_is_fed(engine, documents: list[Document], after: int) -> None:
    base = read(engine, documents)
    made = complete(engine, base, cancelled=lambda: len(engine.fed) >= after)
    assert (made.text, made.report.stopped_by, len(engine.fed)) == ("", "cancelled", after)
    again = complete(engine, base)  # goes on from what was kept
    assert again.report.tokens_fed < again.prompt_tokens - base.chain.n_tokens


# What is kept, and the budget: which part of the prompt is then given up.
ENOUGH_MS = 10_000_000


def deep_budget(engine, tokens: int) -> int:
    """The budget that allows just about `tokens` to be fed."""
    return int(tokens / (FEED_SHARE * engine.tokens_per_s) * 1000) + 1


def test_time_for_all(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    made = complete(engine, base, changed(budget_ms=ENOUGH_MS))
    assert made.report.context_tokens == base.chain.n_tokens - 1
    assert made.prompt_tokens == engine.prompter.completion(base.chain, REQUEST).chain.n_tokens


def test_no_time_for_the_head(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    made = complete(engine, base, changed(budget_ms=1))
    assert made.report.context_tokens == base.chain.n_tokens - 1
    assert made.prompt_tokens == engine.prompter.completion(base.chain, REQUEST, with_head=False).chain.n_tokens
    assert made.report.tokens_fed <= 256


@pytest.mark.parametrize(("budget_ms", "with_head"), [(None, True), (ENOUGH_MS, False)])
def test_a_head_that_is_being_read_is_left_to_that(
    engine, documents: list[Document], budget_ms: int | None, with_head: bool
) -> None:
    """Unless there is no budget at all: then the answer is worth the whole prompt."""
    base = read(engine, documents)
    request = changed(budget_ms=budget_ms)
    made = engine.complete(request, [base], cancelled=lambda: False, started=time.monotonic(), head_pending=True)
    assert made.prompt_tokens == engine.prompter.completion(base.chain, request, with_head=with_head).chain.n_tokens
    assert (made.plan.has_head, made.plan.is_best) == (with_head, with_head)


def test_no_time_for_the_repository(engine, documents: list[Document]) -> None:
    base = ground_of(engine.prompter, documents, max_tokens=100_000)  # of which nothing was fed
    made = complete(engine, base, changed(budget_ms=1))
    assert made.report.context_tokens == 0
    assert made.report.tokens_fed <= 256
    some = HEAD[: len(HEAD) // 3]
    budget_ms = deep_budget(engine, 600)
    made = complete(engine, base, changed(head=some, budget_ms=budget_ms))
    assert made.report.context_tokens == 0
    assert len(engine.prompter._text(some)) < made.prompt_tokens <= 600 < base.chain.n_tokens


def test_once_the_head_is_kept_it_is_used_however_short_the_time(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    complete(engine, base)
    made = complete(engine, base, changed(prompt=f"{ABOVE}{LINE}\n        ", budget_ms=1))
    assert made.prompt_tokens > len(engine.prompter._text(HEAD)) + base.chain.n_tokens


def test_a_budget_that_is_over_stops_decoding(engine, documents: list[Document]) -> None:
    base = read(engine, documents)
    made = engine.complete(changed(budget_ms=5), [base], cancelled=lambda: False, started=time.monotonic() - 10)
    assert made.report.stopped_by == "time"
    assert made.generated.ids == []
    assert made.report.ms.total >= 10_000


def test_the_times_add_up(engine) -> None:
    ms = complete(engine, nothing(engine)).report.ms
    assert min(ms.context, ms.feed, ms.decode) >= 0
    assert ms.context + ms.feed + ms.decode == pytest.approx(ms.total)


def test_without_a_repository(engine) -> None:
    made = complete(engine, nothing(engine))
    assert (made.report.context_tokens, made.report.segment, made.report.context_ready) == (0, "root", True)


@pytest.mark.parametrize("prompt", ["", "\n", " ", "🙂", "x\x00", "\u2581", "a" * 3000, "é = 'ü"])
def test_any_prompt_is_answered(engine, prompt: str) -> None:
    made = complete(engine, nothing(engine), CompletionRequest(prompt=prompt, max_tokens=4))
    assert made.report.stopped_by in ("line", "eos", "max_tokens")
    assert len(made.generated.ids) <= 4


@pytest.mark.parametrize("n_slices", [1, 2, 3])
def test_a_context_that_is_still_being_read_says_so(engine, documents: list[Document], n_slices: int) -> None:
    whole = ground_of(engine.prompter, documents, max_tokens=100_000)
    part = Ground(whole.chain.upto(n_slices), whole.index, ready=False, current=0.25)
    report = complete(engine, part).report
    assert (report.context_ready, report.current) == (False, 0.25)
    assert report.context_tokens == sum(len(each.tokens) for each in whole.chain.slices[1:n_slices])


@pytest.mark.parametrize("head", ["", HEAD])
def test_no_time_for_the_windows_is_no_reason_to_give_up_what_is_read(
    engine, documents: list[Document], head: str
) -> None:
    """Windows longer than a key can wait for cost the same behind the repository."""
    base = read(engine, documents)
    request = changed(head=head, prompt="total = total + 1\n" * 60 + LINE, budget_ms=1)
    made = complete(engine, base, request)
    assert made.report.context_tokens == base.chain.n_tokens - 1
    assert 256 < made.report.tokens_fed < 1000
    assert made.plan.has_head is (not head)


# Which of several grounds a key is answered from.


def plans(engine, grounds: list[Ground], *, speed: float = 1000.0, **changes: object) -> tuple[int | None, bool]:
    """The number of the ground that is taken, None for none of them; and whether the head is read. `speed`: tokens fed in a second."""
    engine.feeder.tokens_per_s = (
        speed  # of which a key waits for 60 ms, and for half of its budget when nothing else helps
    )
    made = engine.plan(changed(**changes), grounds)
    taken = [n for n, each in enumerate(grounds) if each is made.ground]
    return (taken[0] if taken else None), made.has_head


def test_an_older_ground_that_has_everything_is_better_than_waiting(engine, documents: list[Document]) -> None:
    """Where the newer one is not read: at once the older, and the newer from when it is read."""
    older = read(engine, documents[:-1])
    newer = ground_of(engine.prompter, [*documents[1:-1], documents[0]], max_tokens=100_000)
    complete(engine, older)
    assert plans(engine, [newer, older], budget_ms=800) == (1, True)
    assert plans(engine, [newer, older]) == (0, True), "without a budget there is time for the best"
    read(engine, [*documents[1:-1], documents[0]])
    assert plans(engine, [newer, older], budget_ms=800) == (1, True), "the head is read only under the older one"
    complete(engine, newer)
    assert plans(engine, [newer, older], budget_ms=800) == (0, True)


def test_a_ground_that_is_not_read_to_its_end_is_no_reason_to_hurry(engine, documents: list[Document]) -> None:
    """What is read only in part is the second choice, however little has to be fed there, unless there is no time for the first."""
    whole = read(engine, documents)
    part = Ground(whole.chain.upto(2), whole.index, ready=False, current=0.3)
    complete(engine, part)
    missing = engine.missing(engine.prompter.completion(whole.chain, REQUEST).chain)
    assert missing > 600, "the head is long, and read under the part only"
    assert plans(engine, [whole, part], speed=10_000.0, budget_ms=int(2.2 * missing / 10)) == (0, True)
    assert plans(engine, [whole, part], speed=10_000.0, budget_ms=60) == (1, True)


def test_other_weights_or_kernels_make_other_keys(bundled: LoadedModel, coarse: LoadedModel, engine) -> None:
    model = engine.model
    for changes, equal in (
        ({}, True),
        ({"digest": b"of other weights"}, False),
        ({"network": (coarse if model is bundled else bundled).network}, False),
    ):
        other = type(engine)(replace(model, **changes), store_budget_bytes=0)
        assert (other.prompter.root.tip == engine.prompter.root.tip) is equal


def test_matches_follow_what_was_generated_in_both_sources() -> None:
    index = DocumentIndex(
        [("other.py", np.array([1, 2, 3, 4, 9], np.int32)), ("own.py", np.array([1, 2, 3, 5, 8], np.int32))]
    )
    buffer = np.array([7, 2, 3, 6, 7, 2], np.int32)
    matcher = Matcher(buffer, index, "own.py")
    for ids, of_buffer, of_documents in [
        ([], [3], [3]),
        ([3], [6], [4]),
        ([3, 4], [], [9]),
        ([], [3], [3]),
        ([3, 6], [7], []),
    ]:
        found = matcher(ids)
        assert [match.tokens.tolist() for match in found] == [of_buffer, of_documents]
    assert Matcher(buffer, None, None)([])[1].length == 0
    assert Matcher(buffer, index, None)([3])[1].tokens.tolist() == [4, 5]
    assert buffer.tolist() == [7, 2, 3, 6, 7, 2]


def test_matches_of_a_long_generation() -> None:
    """Longer than the room that is made for it at first."""
    matcher = Matcher(np.array([n % 250 + 10 for n in range(251)], np.int32), None, None)
    ids = [n % 250 + 11 for n in range(1000)]
    for n in range(0, 1000, 90):
        assert matcher(ids[:n])[0].tokens.tolist() == [ids[n]]


@pytest.mark.parametrize(("rest", "why"), [("@@@ no model says that", "rest_of_line"), ("", None)])
def test_an_empty_suggestion_says_why(engine, rest: str, why: str | None) -> None:
    made = complete(engine, nothing(engine), changed(rest_of_line=rest, max_tokens=16))
    assert (made.text == "", made.report.empty_because) == (why is not None, why)
    late = complete(engine, nothing(engine), changed(rest_of_line=rest), cancelled=lambda: True)
    assert (late.text, late.report.empty_because) == ("", None)
