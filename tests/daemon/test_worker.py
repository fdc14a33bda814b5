"""The model's thread: newest first, one answer to each request, and background reading that yields within a slice.

Order is seen from inside: the engine calls back before each piece it feeds, on the model's own thread, so nothing here waits for a time to pass.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import pytest

from daemon.contexts import MAX_CONTEXTS, UnknownContext
from daemon.protocol import Document
from daemon.worker import Worker
from tests.daemon.daemon_parts import PATIENCE_S, Answers, Hold, ask, quiet, wait_ready

HEAD = "".join(f"def helper_{n}(first, second):\n    return first * {n} + second\n\n" for n in range(45))

Start = Callable[..., Worker]


def test_a_completion_is_answered(engine, start: Start) -> None:
    made = start(engine).submit(ask("def f(x):\n    return ")).future.result(PATIENCE_S)
    assert made.report.context_tokens == 0
    assert made.report.tokens_fed == engine.n_fed > 0


def test_a_context_is_read_once(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)
    first = worker.add_context(documents)
    assert (first.n_documents, first.left_out) == (len(documents), [])
    status = wait_ready(worker, first.id)
    assert status.tokens_fed + status.tokens_reused == status.tokens == first.tokens
    assert status.share == 1
    engine.fed.clear()
    again = worker.add_context(list(documents))
    assert (again.id, again.state, again.tokens_reused) == (first.id, "ready", first.tokens)
    made = worker.submit(ask(context=first.id)).future.result(PATIENCE_S)
    assert made.report.context_ready
    assert made.report.context_tokens == first.tokens - 1
    assert engine.n_fed == made.report.tokens_fed <= 16


def test_what_is_being_read_is_said(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)
    assert worker.reading is None
    hold = Hold(engine, at=3)
    status = worker.add_context(documents)
    hold.wait()
    seen = worker.reading
    hold.go.set()
    assert seen is not None
    assert (seen.context, seen.tokens) == (status.id, status.tokens)
    assert 0 < seen.tokens_done < seen.tokens
    assert seen.tokens_per_s > 0
    wait_ready(worker, status.id)
    assert worker.reading is None


def test_more_documents_feed_only_what_is_new(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)
    first = wait_ready(worker, worker.add_context(documents[:-1]).id)
    more = wait_ready(worker, worker.add_context(documents).id)
    assert more.id != first.id
    assert (more.tokens_reused, more.tokens_fed) == (first.tokens, more.tokens - first.tokens)


def test_no_documents(engine, start: Start) -> None:
    worker = start(engine)
    status = wait_ready(worker, worker.add_context([]).id)
    assert (status.n_documents, status.tokens) == (0, 1)
    assert worker.submit(ask(context=status.id)).future.result(PATIENCE_S).report.context_ready


def test_an_unknown_context_is_said(engine, start: Start) -> None:
    worker = start(engine)
    with pytest.raises(UnknownContext, match="abc"):
        worker.context("abc")
    with pytest.raises(UnknownContext, match="abc"):
        worker.submit(ask(context="abc"))
    assert not worker.busy


def test_the_context_asked_for_least_recently_is_forgotten(engine, start: Start) -> None:
    worker = start(engine)
    made = [worker.add_context([Document(path="a.py", text=f"x = {n}\n")]).id for n in range(MAX_CONTEXTS)]
    worker.submit(ask(context=made[0]))
    worker.add_context([Document(path="a.py", text="one more")])
    assert len(worker.contexts) == MAX_CONTEXTS
    with pytest.raises(UnknownContext):
        worker.context(made[1])
    worker.context(made[0])


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_key_interrupts_background_reading_within_a_slice(
    engine, start: Start, documents: list[Document], at: int
) -> None:
    """The key comes while slice `at` is fed: the next slice fed is its own, and when it is answered no slice of the context came between."""
    worker = start(engine)
    hold = Hold(engine, at=at)
    status = worker.add_context(documents)
    hold.wait()
    job = worker.submit(ask("import o"))
    fed_at_answer: list[int] = []
    job.future.add_done_callback(lambda _: fed_at_answer.append(len(engine.fed)))
    hold.go.set()
    made = job.future.result(PATIENCE_S)
    own = engine.fed[at : fed_at_answer[0]]
    assert sum(map(len, own)) == made.report.tokens_fed > 0
    assert max(map(len, engine.fed)) <= 256
    assert wait_ready(worker, status.id).tokens_fed == status.tokens, "a slice was fed twice or not at all"


def test_while_a_context_is_read_answers_come_from_what_is_there(
    engine, start: Start, documents: list[Document]
) -> None:
    worker = start(engine)
    hold = Hold(engine, at=3)
    status = worker.add_context(documents)
    hold.wait()
    job = worker.submit(ask(context=status.id))
    assert worker.context(status.id).state == "feeding"
    assert worker.busy
    hold.go.set()
    early = job.future.result(PATIENCE_S).report
    assert not early.context_ready
    assert early.context_tokens < status.tokens - 1
    wait_ready(worker, status.id)
    late = worker.submit(ask(context=status.id)).future.result(PATIENCE_S).report
    assert late.context_ready
    assert late.context_tokens == status.tokens - 1


def test_the_newest_key_of_a_document_cancels_the_older_ones(engine, start: Start) -> None:
    worker, answers = start(engine), Answers()
    hold = Hold(engine)
    running = answers.watch("running", worker.submit(ask("a", document="d")))
    hold.wait()
    waiting = answers.watch("waiting", worker.submit(ask("ab", document="d")))
    newest = answers.watch("newest", worker.submit(ask("abc", document="d")))
    assert [job.cancel.is_set() for job in (running, waiting, newest)] == [True, True, False]
    assert [job.future.done() for job in (running, waiting, newest)] == [False, True, False], "one that has not begun"
    hold.go.set()
    results = [job.future.result(PATIENCE_S) for job in (running, waiting, newest)]
    assert [made.report.stopped_by == "cancelled" for made in results] == [True, True, False]
    assert [made.text for made in results[:2]] == ["", ""]
    assert results[0].report.tokens_fed <= 256
    assert results[1].report.tokens_fed == 0
    assert answers.order == ["waiting", "running", "newest"]


def test_documents_do_not_cancel_each_other(engine, start: Start) -> None:
    worker = start(engine)
    hold = Hold(engine)
    jobs = [worker.submit(ask("a", document=name)) for name in ("d", "e", None, None)]
    hold.wait()
    hold.go.set()
    assert all(job.future.result(PATIENCE_S).report.stopped_by != "cancelled" for job in jobs)


def test_a_cancelled_request_is_answered_once_and_empty(engine, start: Start) -> None:
    worker, answers = start(engine), Answers()
    hold = Hold(engine)
    job = answers.watch("job", worker.submit(ask("a", head=HEAD, path="a.py")))
    hold.wait()
    job.cancel.set()
    hold.go.set()
    made = job.future.result(PATIENCE_S)
    assert (made.text, made.report.stopped_by, len(engine.fed)) == ("", "cancelled", 1)
    job.cancel.set()
    worker.submit(ask()).future.result(PATIENCE_S)
    assert answers.order == ["job"]


def test_a_request_whose_client_has_left_before_its_turn_costs_nothing(engine, start: Start) -> None:
    worker = start(engine)
    hold = Hold(engine)
    running = worker.submit(ask("a"))
    hold.wait()
    left = worker.submit(ask("b", head=HEAD))
    left.cancel.set()
    hold.go.set()
    running.future.result(PATIENCE_S)
    fed = len(engine.fed)
    made = left.future.result(PATIENCE_S)
    assert (made.text, made.report.stopped_by, made.report.tokens_fed) == ("", "cancelled", 0)
    assert len(engine.fed) == fed


def test_a_future_that_its_owner_cancelled_is_left_alone(
    engine, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """As asyncio does when whoever waits is gone: neither fed nor answered, and the thread lives on."""
    worker = start(engine)
    hold = Hold(engine)
    running = worker.submit(ask("a"))
    hold.wait()
    waiting = worker.submit(ask("b", document="d"))
    assert waiting.future.cancel()
    assert not running.future.cancel()
    hold.go.set()
    running.future.result(PATIENCE_S)
    worker.submit(ask("c", document="d")).future.result(PATIENCE_S)
    assert waiting.future.cancelled()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_failure_goes_to_its_own_request_only(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)

    def fail() -> None:
        engine.hold(lambda: None)
        raise MemoryError("no room")

    engine.hold(fail)
    with pytest.raises(MemoryError, match="no room"):
        worker.submit(ask(document="d")).future.result(PATIENCE_S)
    assert worker.submit(ask(document="d")).future.result(PATIENCE_S).report.tokens_fed > 0
    engine.hold(fail)
    status = worker.add_context(documents)
    worker.submit(ask("x")).future.exception(PATIENCE_S)  # one of the two meets the failure
    worker.submit(ask("y")).future.result(PATIENCE_S)
    assert worker.is_alive()
    assert wait_ready(worker, worker.add_context(documents).id).id == status.id


@pytest.mark.parametrize("budget_bytes", [0, 1])
def test_a_store_that_keeps_nothing_still_answers(
    make_engine: Callable, start: Start, documents: list[Document], budget_bytes: int
) -> None:
    worker = start(make_engine(budget_bytes))
    status = wait_ready(worker, worker.add_context(documents[:2]).id)
    unhurried = worker.submit(ask(context=status.id)).future.result(PATIENCE_S)
    assert unhurried.report.context_tokens == status.tokens - 1
    assert unhurried.report.tokens_reused == 0
    hurried = worker.submit(ask(context=status.id, budget_ms=1)).future.result(PATIENCE_S)
    assert hurried.report.tokens_fed <= 256
    assert not worker.busy, "reads what cannot be kept again and again"


def test_a_context_that_had_to_make_room_is_read_again(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)
    status = wait_ready(worker, worker.add_context(documents).id)
    tip = worker.contexts.job(status.id).layout.chain().tip
    engine.store.drop([entry.key for entry in engine.store.entries()])
    hurried = worker.submit(ask(context=status.id, budget_ms=1)).future.result(PATIENCE_S)
    assert hurried.report.tokens_fed <= 256
    wait_ready(worker, status.id)
    assert engine.store.holds(tip)
    made = worker.submit(ask(context=status.id, budget_ms=1)).future.result(PATIENCE_S)
    assert made.report.context_tokens == status.tokens - 1


def head_is_used(worker: Worker, **changes: object) -> bool:
    made = worker.submit(ask(head=HEAD, budget_ms=1, **changes)).future.result(PATIENCE_S)
    return made.prompt_tokens > len(worker.engine.prompter._text(HEAD))


def test_a_head_that_was_too_long_is_there_for_the_next_key(engine, start: Start) -> None:
    worker = start(engine)
    assert not head_is_used(worker, prompt="x = 1\nr", path="a.py")
    quiet(worker)
    assert head_is_used(worker, prompt="x = 1\nre", path="a.py")


def test_a_head_that_another_file_pushed_aside_is_read_at_its_next_key(engine, start: Start) -> None:
    worker = start(engine)
    hold = Hold(engine)
    jobs = [worker.submit(ask("x = 1\nr", head=HEAD, budget_ms=1, path=path)) for path in ("a.py", "b.py")]
    hold.wait()
    hold.go.set()
    for job in jobs:
        job.future.result(PATIENCE_S)
    quiet(worker)
    for path in ("a.py", "b.py"):
        head_is_used(worker, prompt="x = 1\nre", path=path)
        quiet(worker)
        assert head_is_used(worker, prompt="x = 1\nret", path=path)


def test_stopping_cancels_what_waits_and_what_runs(engine, start: Start) -> None:
    worker, answers = start(engine), Answers()
    hold = Hold(engine)
    running = answers.watch("running", worker.submit(ask("a", head=HEAD, max_tokens=1000)))
    hold.wait()
    waiting = answers.watch("waiting", worker.submit(ask("b")))
    worker.stop()
    late = answers.watch("late", worker.submit(ask("c")))
    hold.go.set()
    worker.join(PATIENCE_S)
    assert not worker.is_alive()
    assert running.future.result(0).report.stopped_by == "cancelled"
    for job in (waiting, late):
        with pytest.raises(CancelledError):
            job.future.result(0)
    assert sorted(answers.order) == ["late", "running", "waiting"]


def test_many_threads_ask_at_once(engine, start: Start, documents: list[Document]) -> None:
    worker = start(engine)
    futures: list[Future] = []

    def client(number: int) -> None:
        status = worker.add_context(documents[: 1 + number % 3])
        for n in range(4):
            futures.append(
                worker.submit(ask("import numpy"[: 3 + n], document=f"d{number % 2}", context=status.id)).future
            )

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(futures) == 24
    assert all(future.result(PATIENCE_S) is not None for future in futures)
