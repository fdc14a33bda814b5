"""One completion on the bundled model: what it feeds, that it does not matter what was kept, and what it does when time is short."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from cache.lookup import DocumentIndex
from cache.resume import resume
from daemon.completion import FEED_SHARE, Base, Completion, Matcher, Value, base_of
from daemon.prompt import Context
from daemon.protocol import CompletionRequest, Document

HEAD = "".join(f"def helper_{n}(first, second):\n    return first * {n} + second\n\n" for n in range(45))
ABOVE = "def total(items):\n    result = 0\n"
LINE = "    for item in items:"
SUFFIX = "    return result\n"
REQUEST = CompletionRequest(prompt=ABOVE + LINE, suffix=SUFFIX, head=HEAD, path="a/b.py", max_tokens=6)

Make = Callable[..., "WatchedEngine"]  # noqa: F821, tests/daemon/conftest.py has it


def changed(request: CompletionRequest = REQUEST, **changes: object) -> CompletionRequest:
    known = {name: getattr(request, name) for name in request.__struct_fields__}
    return CompletionRequest(**(known | changes))  # type: ignore[arg-type]


def complete(
    engine, base: Base, request: CompletionRequest = REQUEST, *, cancelled: Callable[[], bool] = lambda: False
) -> Completion:
    engine.fed.clear()
    made = engine.complete(request, base, cancelled=cancelled, started=time.monotonic())
    engine.store.check()
    assert made.report.tokens_fed == engine.n_fed
    assert (
        made.report.tokens_fed + made.report.tokens_reused == made.prompt_tokens
        or made.generated.stopped_by == "cancelled"
    )
    return made


def read(engine, documents: list[Document]) -> tuple[Context, Base]:
    """The context, and its base once all of it was fed."""
    context = engine.prompter.context(documents, max_tokens=100_000)
    feeding = resume(context.chain, engine.store, engine.feed)
    while not feeding.ready:
        feeding.step()
    return context, base_of(context, engine.prompter.root, None)


def final_value(engine, base: Base, request: CompletionRequest) -> Value:
    """The value that the decoding started from."""
    feeding = resume(engine.prompter.completion(base.chain, request).chain, engine.store, engine.feed)
    while not feeding.ready:
        feeding.step()
    return feeding.value


def no_base(engine) -> Base:
    return base_of(None, engine.prompter.root, None)


def test_a_typed_word_feeds_few_tokens(engine, documents: list[Document]) -> None:
    context, base = read(engine, documents)
    first = complete(engine, base)
    assert first.report.segment == "base"
    assert first.report.tokens_reused == context.n_tokens
    for n in range(1, 12):
        made = complete(engine, base, changed(prompt=f"{ABOVE}{LINE} result += item.value"[: len(ABOVE + LINE) + n]))
        assert made.report.tokens_fed <= 16
        assert made.report.segment in ("prefix", "line")
        assert made.report.context_tokens == context.n_tokens - 1
        assert made.report.context_ready


def test_what_was_kept_does_not_matter(make_engine: Make, documents: list[Document]) -> None:
    """The text and every bit of the state: on an engine that followed each key, and on one that sees the last key only."""
    warm, cold = make_engine(), make_engine()
    (_, warm_base), (_, cold_base) = read(warm, documents), read(cold, documents)
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
    _, base = read(engine, documents)
    first, second = complete(engine, base), complete(engine, base)
    assert second.report.tokens_fed <= 16
    assert (first.generated, first.text) == (second.generated, second.text)


@pytest.mark.parametrize("budget_bytes", [0, 1, 1_000_000])
def test_a_store_that_holds_next_to_nothing_gives_the_same_text(
    make_engine: Make, documents: list[Document], budget_bytes: int
) -> None:
    small, plenty = make_engine(budget_bytes), make_engine()
    (_, base), (_, plenty_base) = read(small, documents), read(plenty, documents)
    assert complete(small, base).generated == complete(plenty, plenty_base).generated
    assert small.store.nbytes <= budget_bytes


def test_nothing_that_decoding_made_is_kept(engine, documents: list[Document]) -> None:
    _, base = read(engine, documents)
    complete(engine, base)
    prompt = engine.prompter.completion(base.chain, REQUEST).chain
    known = {part.key for part in prompt.slices}
    assert all(key in known for key in engine.store._entries)


def test_kept_values_are_never_written_to(engine, documents: list[Document]) -> None:
    _, base = read(engine, documents)
    complete(engine, base)
    before = {
        k: [e.value.logits.clone(), *(t.clone() for t in e.value.state)] for k, e in engine.store._entries.items()
    }
    for prompt in ("x", f"{ABOVE}{LINE} r", "import "):
        complete(engine, base, changed(prompt=prompt))
    for key, copies in before.items():
        value = engine.store._entries[key].value
        assert all(torch.equal(a, b) for a, b in zip(copies, (value.logits, *value.state), strict=True))


def test_a_cancelled_request_feeds_and_says_nothing(engine, documents: list[Document]) -> None:
    _, base = read(engine, documents)
    made = complete(engine, base, cancelled=lambda: True)
    assert (made.text, made.report.stopped_by, made.report.tokens_fed) == ("", "cancelled", 0)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_cancelling_stops_after_the_slice_that_is_fed(engine, documents: list[Document], after: int) -> None:
    _, base = read(engine, documents)
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
    context, base = read(engine, documents)
    made = complete(engine, base, changed(budget_ms=ENOUGH_MS))
    assert made.report.context_tokens == context.n_tokens - 1
    assert made.prompt_tokens == engine.prompter.completion(base.chain, REQUEST).chain.n_tokens


def test_no_time_for_the_head(engine, documents: list[Document]) -> None:
    context, base = read(engine, documents)
    made = complete(engine, base, changed(budget_ms=1))
    assert made.report.context_tokens == context.n_tokens - 1
    assert made.prompt_tokens == engine.prompter.completion(base.chain, REQUEST, with_head=False).chain.n_tokens
    assert made.report.tokens_fed <= 256


@pytest.mark.parametrize(("budget_ms", "with_head"), [(None, True), (ENOUGH_MS, False)])
def test_a_head_that_is_being_read_is_left_to_that(
    engine, documents: list[Document], budget_ms: int | None, with_head: bool
) -> None:
    """Unless there is no budget at all: then the answer is worth the whole prompt."""
    _, base = read(engine, documents)
    request = changed(budget_ms=budget_ms)
    made = engine.complete(request, base, cancelled=lambda: False, started=time.monotonic(), head_pending=True)
    assert made.prompt_tokens == engine.prompter.completion(base.chain, request, with_head=with_head).chain.n_tokens
    assert made.has_head is with_head


def test_no_time_for_the_repository(engine, documents: list[Document]) -> None:
    context = engine.prompter.context(documents, max_tokens=100_000)  # of which nothing was fed
    base = base_of(context, engine.prompter.root, None)
    made = complete(engine, base, changed(budget_ms=1))
    assert made.report.context_tokens == 0
    assert made.report.tokens_fed <= 256
    some = HEAD[: len(HEAD) // 3]
    budget_ms = deep_budget(engine, 600)
    made = complete(engine, base, changed(head=some, budget_ms=budget_ms))
    assert made.report.context_tokens == 0
    assert len(engine.prompter._text(some)) < made.prompt_tokens <= 600 < context.n_tokens


def test_once_the_head_is_kept_it_is_used_however_short_the_time(engine, documents: list[Document]) -> None:
    _, base = read(engine, documents)
    complete(engine, base)
    made = complete(engine, base, changed(prompt=f"{ABOVE}{LINE}\n        ", budget_ms=1))
    assert made.prompt_tokens > len(engine.prompter._text(HEAD)) + base.chain.n_tokens


def test_a_budget_that_is_over_stops_decoding(engine, documents: list[Document]) -> None:
    _, base = read(engine, documents)
    made = engine.complete(changed(budget_ms=5), base, cancelled=lambda: False, started=time.monotonic() - 10)
    assert made.report.stopped_by == "time"
    assert made.generated.ids == []
    assert made.report.ms.total >= 10_000


def test_the_times_add_up(engine) -> None:
    ms = complete(engine, no_base(engine)).report.ms
    assert min(ms.context, ms.feed, ms.decode) >= 0
    assert ms.context + ms.feed + ms.decode == pytest.approx(ms.total)


def test_without_a_repository(engine) -> None:
    made = complete(engine, no_base(engine))
    assert (made.report.context_tokens, made.report.segment, made.report.context_ready) == (0, "root", True)


@pytest.mark.parametrize("prompt", ["", "\n", " ", "🙂", "x\x00", "\u2581", "a" * 3000, "é = 'ü"])
def test_any_prompt_is_answered(engine, prompt: str) -> None:
    made = complete(engine, no_base(engine), CompletionRequest(prompt=prompt, max_tokens=4))
    assert made.report.stopped_by in ("line", "eos", "max_tokens")
    assert len(made.generated.ids) <= 4


@pytest.mark.parametrize("fed_slices", [0, 1, 2, 3])
def test_a_context_that_is_still_being_read_says_so(engine, documents: list[Document], fed_slices: int) -> None:
    context = engine.prompter.context(documents, max_tokens=100_000)
    base = base_of(context, engine.prompter.root, fed_slices)
    made = complete(engine, base)
    assert not made.report.context_ready
    assert made.report.context_tokens == sum(len(part.tokens) for part in context.chain.slices[1 : max(1, fed_slices)])
    assert base.index is context.index


def test_another_model_or_tokenizer_makes_other_keys(bundled, engine) -> None:
    from dataclasses import replace

    other = type(engine)(replace(bundled, digest=b"of other weights"), store_budget_bytes=0)
    assert other.prompter.root.tip != engine.prompter.root.tip
    same = type(engine)(bundled, store_budget_bytes=0)
    assert same.prompter.root.tip == engine.prompter.root.tip


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
    made = complete(engine, no_base(engine), changed(rest_of_line=rest, max_tokens=16))
    assert (made.text == "", made.report.empty_because) == (why is not None, why)
    late = complete(engine, no_base(engine), changed(rest_of_line=rest), cancelled=lambda: True)
    assert (late.text, late.report.empty_because) == ("", None)
