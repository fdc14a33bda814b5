"""What happens when files change: BASE is not fed again, what changed is read after it, and compaction swaps when it is done and not before.

On random weights with the real tokenizer, step by step on this thread, so that each token fed is known to the step that fed it.
"""

import random

import pytest

from daemon.completion import Completion, Engine
from daemon.inventory import purge
from daemon.layout import Layout
from daemon.protocol import CompletionRequest
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import (
    PLENTY,
    Driven,
    Hold,
    WatchedEngine,
    ask,
    documents_of,
    module_text,
    quiet,
    same_as_cold,
    wait_ready,
)

N_FILES = 12
FILES = {f"part_{n}.py": module_text(n) for n in range(N_FILES)}
KEY = 8  # tokens that a typed key feeds at most
TYPED = "import os\n\nvalue = os.pa"


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of a file beyond its cursor has its own test; here tokens are counted."""
    monkeypatch.setattr("daemon.upcoming.AHEAD_S", 0.0)


@pytest.fixture
def driven(tiny: LoadedModel) -> Driven:
    made = Driven(WatchedEngine(tiny, store_budget_bytes=PLENTY))
    made.post(FILES)
    made.settle()
    return made


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction is due at 400 tokens, not at 4096, so that it is in a small repository too."""
    monkeypatch.setattr("daemon.layout.HOT_FLOOR_TOKENS", 400)


def changed(path: str, version: int = 1) -> dict[str, str]:
    return {path: FILES[path].replace("total", f"total_{version}")}


def layout(driven: Driven) -> Layout:
    return driven.worker.contexts.job(driven.context).layout


def hot(driven: Driven) -> list[str]:
    return [piece.path for piece in layout(driven).hot]


def tokens(driven: Driven, path: str) -> int:
    return len(layout(driven).context.pieces[path].ids)


def test_a_context_is_base_alone_at_first(driven: Driven) -> None:
    status = driven.status()
    assert (status.state, status.tokens_fed, status.hot_tokens, status.current) == ("ready", status.tokens, 0, 1.0)
    assert driven.engine.n_fed == status.tokens


def test_a_saved_file_costs_its_own_next_key_nothing(driven: Driven) -> None:
    driven.key("part_3.py", TYPED)
    driven.save(changed("part_3.py"))
    made = driven.key("part_3.py", TYPED + "t")  # at once, before anything was read in the background
    assert made.report.tokens_fed <= KEY
    assert (made.report.context_ready, made.report.current) == (True, 1.0)
    assert driven.settle() == tokens(driven, "part_3.py")
    again = driven.key("part_3.py", TYPED + "th")
    assert again.report.tokens_fed <= KEY


def test_a_saved_file_costs_the_others_its_own_tokens_and_that_in_the_background(driven: Driven) -> None:
    driven.key("part_7.py", TYPED)
    prompt = driven.key("part_7.py", TYPED + "t").prompt_tokens - layout(driven).chain().n_tokens
    driven.save(changed("part_3.py"))
    saved = tokens(driven, "part_3.py")
    stale = driven.key("part_7.py", TYPED + "th", budget_ms=10_000)  # from the older state, and it says so
    assert (stale.report.tokens_fed <= KEY, stale.report.context_ready) == (True, True)
    assert 0.8 < stale.report.current < 1.0
    others = layout(driven).context.n_tokens - tokens(driven, "part_7.py")  # its own text is in the request
    assert stale.report.current == pytest.approx(1 - saved / others)
    assert driven.settle() <= saved + prompt + KEY
    fresh = driven.key("part_7.py", TYPED + "the")
    assert (fresh.report.tokens_fed <= KEY, fresh.report.current) == (True, 1.0)
    assert fresh.report.context_tokens == stale.report.context_tokens + saved


def test_base_is_never_fed_again(driven: Driven) -> None:
    """A hundred saves at random: what is fed is HOT, and the prompts of the files that are edited, and nothing of the other files."""
    rng, first = random.Random(1), layout(driven).base.key
    driven.engine.fed.clear()
    for n in range(100):
        path = rng.choice(list(FILES)[:4])
        driven.save({path: FILES[path] + f"# {n}\n"})
        driven.key(path, TYPED)
        driven.settle()
        assert layout(driven).base.key == first
        assert hot(driven)[-1] == path, "what changed last is read last"
        assert driven.key(path, TYPED).report.current == 1.0
    text = driven.engine.model.tokenizer.decode([int(i) for piece in driven.engine.fed for i in piece])
    fed = [path for path in FILES if f"class {path.removesuffix('.py').title().replace('_', '')}:" in text]
    assert fed == list(FILES)[:4]


def test_the_same_file_saved_again_and_again_feeds_itself_only(driven: Driven) -> None:
    driven.save(changed("part_1.py") | changed("part_2.py"))
    driven.settle()
    for version in range(2, 6):
        driven.save(changed("part_2.py", version))
        assert hot(driven) == ["part_1.py", "part_2.py"]
        assert driven.settle() == tokens(driven, "part_2.py")


def test_deleting_and_adding_files(driven: Driven) -> None:
    gone, n_tokens = tokens(driven, "part_5.py"), layout(driven).context.n_tokens
    status = driven.save({}, removed=["part_5.py"])
    assert (driven.settle(), status.state, status.n_documents) == (0, "ready", N_FILES - 1)
    assert status.current == pytest.approx(1 - gone / n_tokens)
    driven.save({"new.py": "answer = 42\n"})
    assert hot(driven) == ["new.py"]
    assert driven.settle() == tokens(driven, "new.py")


@pytest.mark.parametrize("many", [1, 7])
def test_a_branch_and_back_feeds_nothing(driven: Driven, low: None, many: int) -> None:
    """Also where the other branch was compacted meanwhile."""
    base = layout(driven).base.key
    driven.key("part_0.py", TYPED)
    driven.settle()
    other = {path: text + "# of the other branch\n" for path, text in list(FILES.items())[:many]}
    there = driven.save(other | {"new.py": "x = 1\n"}, removed=["part_11.py"])
    driven.key("part_0.py", TYPED)
    assert driven.settle() > 0
    assert (layout(driven).base.key != base) is (many == 7), "the other branch has its own BASE"
    for _ in range(2):
        driven.save({path: FILES[path] for path in (*other, "part_11.py")}, removed=["new.py"])
        assert driven.key("part_0.py", TYPED).report.tokens_fed == 0
        assert driven.settle() == 0
        assert (driven.status().current, layout(driven).is_compact) == (1.0, True)
        back = driven.save(other | {"new.py": "x = 1\n"}, removed=["part_11.py"])
        assert back.id == there.id
        assert driven.key("part_0.py", TYPED).report.tokens_fed == 0
        assert driven.settle() == 0


# Compaction.


def grow(driven: Driven, n_files: int = 4) -> None:
    """So many files change that a compaction is due."""
    changes: dict[str, str] = {}
    for path in list(FILES)[2 : 2 + n_files]:
        changes |= changed(path)
    driven.save(changes)


def cold_of(driven: Driven) -> Engine:
    return Engine(driven.engine.model, store_budget_bytes=0)


def request_of(driven: Driven, path: str, prompt: str) -> CompletionRequest:
    return ask(prompt, path=path, document=path, context=driven.context)


def right(driven: Driven, cold: Engine, made: Completion, path: str, prompt: str) -> bool:
    return same_as_cold(driven.engine, cold, made, request_of(driven, path, prompt))


def test_a_compaction_swaps_when_it_is_read_and_keys_are_answered_throughout(driven: Driven, low: None) -> None:
    cold, before = cold_of(driven), layout(driven)
    driven.key("part_0.py", TYPED)
    grow(driven)
    assert driven.worker.contexts.compaction is not None
    assert driven.status().compacting
    seen, n_answers = [layout(driven).base.key], 0
    while driven.worker.step():
        compacting = driven.worker.contexts.compaction is not None
        text = TYPED + "th.join("[: n_answers % 8]
        made = driven.key("part_0.py", text, budget_ms=10_000)
        n_answers += 1
        assert (layout(driven).base.key == before.base.key) is compacting, "swapped before or after its time"
        assert made.report.context_ready
        assert made.report.tokens_fed <= (KEY if made.report.segment in ("prefix", "line") else 60)
        assert right(driven, cold, made, "part_0.py", text)
        if layout(driven).base.key != seen[-1]:
            seen.append(layout(driven).base.key)
    assert n_answers > 4
    assert len(seen) == 2
    after = layout(driven)
    assert after.is_compact
    assert [each.path for each in after.base.manifest] == [
        *(path for path in FILES if path not in list(FILES)[2:6]),
        *list(FILES)[2:6],
    ], "what changed stands at the end, the rest as it stood"
    made = driven.key("part_0.py", TYPED)
    assert (made.report.current, made.report.context_tokens) == (1.0, after.base.chain.n_tokens - 1)
    assert driven.settle() == 0


def test_a_compaction_feeds_what_comes_after_the_first_change(driven: Driven, low: None) -> None:
    """Up to the distance between two checkpoints."""
    older = layout(driven).base
    start, gap = 1, 0
    for each in older.manifest[:2]:
        start += each.n_tokens
    kept = [part.end for part in older.chain.slices if part.keep]
    gap = start - max((end for end in kept if end <= start), default=0)
    driven.save({path: text + "# more\n" for path, text in list(FILES.items())[2:6]})
    fed = driven.settle()
    after = layout(driven)
    n_hot = sum(tokens(driven, path) for path in list(FILES)[2:6])
    assert after.is_compact
    assert fed <= n_hot + after.base.chain.n_tokens - start + gap


def test_many_changes_at_once_are_one_compaction(driven: Driven, low: None) -> None:
    compactions, bases = set(), set()
    driven.save({path: text + "# everywhere\n" for path, text in FILES.items() if path != "part_0.py"})
    steps = True
    while steps:
        compactions.add(id(driven.worker.contexts.compaction))
        bases.add(layout(driven).base.key)
        steps = driven.worker.step()
    assert len(compactions - {id(None)}) <= 1
    assert len(bases) <= 2
    assert layout(driven).is_compact
    assert driven.status().current == 1.0


def test_changes_that_come_during_a_compaction(driven: Driven, low: None) -> None:
    """Some while it goes on, more than it can serve, back to before: in the end all is read as it is, and each answer was right."""
    cold, rng = cold_of(driven), random.Random(2)
    driven.key("part_0.py", TYPED)
    for n in range(30):
        paths = rng.sample(list(FILES), rng.choice([1, 1, 2, 6]))
        back = rng.random() < 0.2
        driven.save(dict(FILES) if back else {path: FILES[path] + f"# {n}\n" for path in paths})
        for _ in range(rng.choice([0, 1, 2, 9])):
            driven.worker.step()
        made = driven.key("part_0.py", TYPED, budget_ms=rng.choice([None, 10_000]))
        assert right(driven, cold, made, "part_0.py", TYPED)
        assert made.report.current == 1.0 or made.plan.ground.chain.tip != layout(driven).chain("part_0.py").tip
    driven.settle()
    assert driven.worker.contexts.compaction is None
    assert not layout(driven).is_due
    made = driven.key("part_0.py", TYPED)
    assert (made.report.current, made.report.tokens_fed) == (1.0, 0)
    assert right(driven, cold, made, "part_0.py", TYPED)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_key_interrupts_a_compaction_within_a_piece(tiny: LoadedModel, start, low: None, at: int) -> None:
    """The key comes while a piece of the new BASE is fed; the next piece is its own, and it is answered before there is another."""
    engine = WatchedEngine(tiny, store_budget_bytes=PLENTY)
    worker = start(engine)
    first = worker.add_context(documents_of(FILES), workspace="/w")
    wait_ready(worker, first.id)
    changes = {path: text + "# more\n" for path, text in list(FILES.items())[:5]}
    hot_pieces = 5  # each of the changed files is less than a slice
    engine.fed.clear()
    hold = Hold(engine, at=hot_pieces + at)
    second = worker.add_context(documents_of(changes), workspace="/w", on=first.id)
    hold.wait()
    assert worker.context(second.id).compacting
    job = worker.submit(ask(TYPED, context=second.id, path="new.py"))
    n_fed: list[int] = []
    job.future.add_done_callback(lambda _: n_fed.append(len(engine.fed)))
    hold.go.set()
    report = job.future.result(100).report
    own = engine.fed[hot_pieces + at : n_fed[0]]
    assert sum(map(len, own)) == report.tokens_fed > 0
    assert (report.context_ready, report.current) == (True, 1.0)
    quiet(worker)
    assert not worker.context(second.id).compacting
    assert worker.context(second.id).hot_tokens == 0


# Idleness.


@pytest.mark.parametrize(("least", "most_s", "compacted"), [(1, 1e9, True), (10_000, 1e9, False), (1, 0.0, False)])
def test_an_idle_daemon_compacts_what_is_worth_it(
    driven: Driven, monkeypatch: pytest.MonkeyPatch, least: int, most_s: float, compacted: bool
) -> None:
    """Not for a small change, and not where reading would take long."""
    monkeypatch.setattr("daemon.worker.IDLE_COMPACTION_S", 0.0)
    monkeypatch.setattr("daemon.worker.IDLE_COMPACTION_TOKENS", least)
    monkeypatch.setattr("daemon.worker.IDLE_COMPACTION_READ_S", most_s)
    monkeypatch.setattr("threading.Thread", AtOnce)
    driven.save(changed("part_3.py"))
    assert not layout(driven).is_due
    driven.settle()
    assert layout(driven).is_compact is compacted
    made = driven.key("part_0.py", TYPED)
    assert (made.report.current, made.report.context_ready) == (1.0, True)


class AtOnce:
    """A thread that has ended before anybody could look."""

    def __init__(self, *, target, name: str, daemon: bool) -> None:  # type: ignore[no-untyped-def]
        self.start = target


def test_a_compaction_that_is_planned_while_its_workspace_is_purged_is_not_begun(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.worker.IDLE_COMPACTION_S", 0.0)
    monkeypatch.setattr("daemon.worker.IDLE_COMPACTION_TOKENS", 1)
    planned: list[AtOnce] = []

    class Later(AtOnce):
        def __init__(self, **named) -> None:  # type: ignore[no-untyped-def]
            planned.append(AtOnce(**named))
            self.start = lambda: None

    monkeypatch.setattr("threading.Thread", Later)
    driven.save(changed("part_3.py"))
    driven.settle()
    (plan,) = planned
    purge(driven.engine, driven.worker.contexts, driven.worker.reader, None)
    plan.start()
    assert driven.worker.contexts.compaction is None
    assert (driven.settle(), len(driven.engine.store)) == (0, 0)


def test_a_busy_daemon_does_not_compact_for_idleness(driven: Driven) -> None:
    driven.save(changed("part_3.py"))
    driven.settle()
    assert not layout(driven).is_compact


# Which contexts are read.


def test_an_older_context_of_a_workspace_is_not_read_to_its_end_unless_asked_for(tiny: LoadedModel) -> None:
    driven = Driven(WatchedEngine(tiny, store_budget_bytes=PLENTY))
    first = driven.post({f"old_{path}": text for path, text in FILES.items()})
    second = driven.post(FILES)
    assert driven.settle() == second.tokens
    assert driven.worker.context(first.id).state == "feeding"
    driven.worker.submit(ask(context=first.id, budget_ms=1))
    driven.settle()
    assert driven.worker.context(first.id).state == "ready"
    elsewhere = driven.worker.add_context(documents_of({"a.py": "x = 1\n"}), workspace="/elsewhere")
    nowhere = [driven.worker.add_context(documents_of({"a.py": f"x = {n}\n"})) for n in range(2, 4)]
    driven.settle()
    assert {driven.worker.context(each.id).state for each in (elsewhere, *nowhere)} == {"ready"}


def test_a_common_beginning_is_fed_once(tiny: LoadedModel) -> None:
    """By contexts that are read at the same time: who comes later goes on from where the other was left, and that one from where it got to."""
    driven = Driven(WatchedEngine(tiny, store_budget_bytes=PLENTY))
    files = documents_of({f"{n}/{path}": text for n in range(4) for path, text in FILES.items()})
    made = []
    for n_files in (40, 44, 48):
        made.append(driven.worker.add_context(files[:n_files]))
        for _ in range(3):
            driven.worker.step()
    driven.settle()
    statuses = [driven.worker.context(each.id) for each in made]
    assert [each.state for each in statuses] == ["ready"] * 3
    assert driven.engine.n_fed <= statuses[-1].tokens + 2 * 512, "at most one piece was fed twice by each"


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_saving_while_the_first_base_is_read_does_not_begin_it_again(tiny: LoadedModel, n_steps: int) -> None:
    """However few steps there are between two saves: it is ready after about as many as without any."""
    driven = Driven(WatchedEngine(tiny, store_budget_bytes=PLENTY))
    driven.post({f"{n}/{path}": text for n in range(4) for path, text in FILES.items()})
    saved = f"3/{list(FILES)[-1]}"
    n_saves = 0
    while True:
        for _ in range(n_steps + 1):
            driven.worker.step()
        if driven.status().state == "ready":
            break
        n_saves += 1
        driven.save({saved: FILES[list(FILES)[-1]] + f"# {n_saves}\n"})
        assert n_saves < 60, "no progress"
    assert driven.engine.n_fed < 2 * driven.status().tokens
