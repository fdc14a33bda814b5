"""What is purged is gone from memory and disk, what is another workspace's is not; and what the report tells people."""

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.contexts import UnknownContext
from daemon.keeper import Keeper
from daemon.protocol import CacheReport
from daemon.worker import Worker
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import (
    PLENTY,
    WatchedEngine,
    ask,
    documents_of,
    keeper_in,
    module_text,
    quiet,
    wait_ready,
)

OURS, THEIRS = "/home/someone/ours", "/home/someone/theirs"
TEXTS = {
    OURS: {f"a{n}.py": module_text(n) for n in range(6)},
    THEIRS: {f"b{n}.py": module_text(n + 50) for n in range(6)},
}
TYPED = "import os\n\nvalue = os.pa"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "states"


@pytest.fixture
def make(tiny: LoadedModel, folder: Path, start: Callable[..., Worker]) -> Callable[[], Worker]:
    return lambda: start(WatchedEngine(tiny, store_budget_bytes=PLENTY, keeper_of=keeper_in(folder, tiny)))


def keeper(worker: Worker) -> Keeper:
    assert worker.keeper is not None
    return worker.keeper


def fill(worker: Worker) -> dict[str, str]:
    """Both workspaces are read, a file of each is completed, all that matters is written; contexts by workspace."""
    contexts = {}
    for workspace, texts in TEXTS.items():
        contexts[workspace] = worker.add_context(documents_of(texts), workspace=workspace).id
        wait_ready(worker, contexts[workspace])
        path = next(iter(texts))
        request = ask(TYPED, path=path, document=workspace + path, context=contexts[workspace])
        worker.submit(request).future.result(60)
        changed = {path: texts[path] + "# saved\n"}
        later = worker.add_context(documents_of(changed), workspace=workspace, on=contexts[workspace]).id
        wait_ready(worker, later)
        contexts[workspace] = later
        worker.submit(ask(TYPED, path=path, document=workspace + path, context=later)).future.result(60)
    quiet(worker)
    worker._call(worker._persist)
    assert keeper(worker).wait(20.0)
    return contexts


def on_disk(worker: Worker, workspace: str) -> set[bytes]:
    return {entry.key for entry in keeper(worker).tier.entries() if workspace in entry.workspaces}


def texts_on_disk(worker: Worker) -> list[str]:
    """What each state on disk has read."""
    tier = keeper(worker).tier
    chains = [tier.read_chain(entry.key) for entry in tier.entries()]
    decode = worker.engine.model.tokenizer.decode
    return [decode([int(i) for part in chain.slices for i in part.tokens]) for chain in chains if chain is not None]


def text_in(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_states_of_one_workspace_go_and_the_others_stay_on_disk(make: Callable[[], Worker], folder: Path) -> None:
    worker = make()
    contexts = fill(worker)
    ours, theirs = on_disk(worker, OURS), on_disk(worker, THEIRS)
    assert ours and theirs
    assert not ours & theirs
    assert OURS.encode() in text_in(folder)
    before = len(worker.engine.store)
    purged = worker.purge(OURS)
    assert purged.states >= before + len(ours)
    assert purged.nbytes > 0
    assert not ours & {entry.key for entry in worker.engine.store.entries()}, "memory still has what the disk has not"
    assert on_disk(worker, OURS) == set()
    assert on_disk(worker, THEIRS) == theirs
    texts = texts_on_disk(worker)
    assert len(texts) == len(theirs)
    assert all("class Part5" in text and "class Part0" not in text and "a0.py" not in text for text in texts)
    left = text_in(folder)
    assert OURS.encode() not in left
    assert not [key for key in ours if key.hex().encode() in left or list(folder.rglob(f"{key.hex()}*"))]
    for asked in (lambda: worker.context(contexts[OURS]), lambda: worker.submit(ask(context=contexts[OURS]))):
        with pytest.raises(UnknownContext):
            asked()
    worker.engine.fed.clear()
    status = wait_ready(worker, contexts[THEIRS])
    assert status.state == "ready"
    made = worker.submit(ask(TYPED, path="b0.py", document="x", context=contexts[THEIRS])).future.result(60)
    assert (made.report.context_ready, made.report.current) == (True, 1.0)
    assert worker.engine.n_fed < status.tokens / 2, "what is another workspace's comes back from disk"


def test_everything_goes(make: Callable[[], Worker], folder: Path) -> None:
    worker = make()
    contexts = fill(worker)
    worker.purge(None)
    assert (len(worker.engine.store), len(worker.contexts), len(keeper(worker).tier)) == (0, 0, 0)
    assert list(folder.rglob("*.safetensors")) == []
    assert worker.purge(None).states == 0
    for workspace, context in contexts.items():
        with pytest.raises(UnknownContext):
            worker.context(context)
        assert workspace.encode() not in text_in(folder)
        again = worker.add_context(documents_of(TEXTS[workspace]), workspace=workspace)
        assert wait_ready(worker, again.id).tokens_fed == again.tokens, "something was not forgotten"


def test_no_text_is_left_in_the_daemons_memory(make: Callable[[], Worker]) -> None:
    """Tokens are text: of pieces, prompts, indexes, BASEs, what is being read, what waits to be written."""
    worker = make()
    fill(worker)
    worker.purge(None)
    prompter, bases = worker.engine.prompter, worker.bases
    assert not prompter.documents._pieces and not prompter.documents._headers and not prompter._aboves
    assert prompter._text.cache_info().currsize == 0
    assert not bases.known() and not bases._indexes
    assert worker.engine.feeder._begun is None
    assert worker.reader._reading is None
    assert not keeper(worker)._pending and not keeper(worker)._bases
    assert worker.live.requests() == [] and worker.contexts.compaction is None
    assert worker.upcoming.next() is None


def test_purging_while_a_context_is_read(make: Callable[[], Worker]) -> None:
    """At any moment: nothing of it is kept afterwards, and whoever posts again is served."""
    worker = make()
    for n in range(8):
        status = worker.add_context(documents_of(TEXTS[OURS]), workspace=OURS)
        for _ in range(n):
            worker.submit(ask()).future.result(60)
        worker.purge(OURS)
        with pytest.raises(UnknownContext):
            worker.context(status.id)
        quiet(worker)
        assert not on_disk(worker, OURS)
        kinds = {entry.slices[-1].kind for entry in worker.engine.store.entries()}
        assert not kinds & {"base", "hot", "head"}
    status = worker.add_context(documents_of(TEXTS[OURS]), workspace=OURS)
    assert wait_ready(worker, status.id).state == "ready"


def test_two_workspaces_with_the_same_files(make: Callable[[], Worker]) -> None:
    """Two worktrees share states. What is changed in one belongs to that one: purging it leaves nothing of the change."""
    worker = make()
    files = documents_of(TEXTS[OURS])
    contexts = {each: worker.add_context(files, workspace=each).id for each in (OURS, THEIRS)}
    for context in contexts.values():
        wait_ready(worker, context)
    assert worker.engine.n_fed < 1.5 * worker.context(contexts[THEIRS]).tokens, "equal files were read twice"
    secret = documents_of({"a0.py": module_text(0) + "# of theirs alone\n"})
    changed = worker.add_context(secret, workspace=THEIRS, on=contexts[THEIRS])
    wait_ready(worker, changed.id)
    made = worker.submit(ask(TYPED, path="a3.py", document="x", context=changed.id)).future.result(60)
    assert made.report.current == 1.0
    quiet(worker)
    worker._call(worker._persist)
    assert keeper(worker).wait(20.0)
    hot = worker.contexts.job(changed.id).layout.chain().tip
    assert hot in keeper(worker).tier
    assert hot in on_disk(worker, THEIRS)
    assert hot not in on_disk(worker, OURS)
    worker.purge(THEIRS)
    assert hot not in keeper(worker).tier
    with pytest.raises(UnknownContext):
        worker.context(changed.id)
    worker.context(contexts[OURS])


def check_report(report: CacheReport) -> None:
    for tier in report.tiers:
        states = [state for state in report.states if state.tier == tier.tier]
        assert (len(states), sum(state.nbytes for state in states)) == (tier.states, tier.nbytes)
        assert tier.nbytes <= tier.budget_bytes
    assert [state.cost_tokens for state in report.states] == sorted(
        (state.cost_tokens for state in report.states), reverse=True
    )


def test_the_report_tells_what_is_kept(make: Callable[[], Worker], folder: Path) -> None:
    worker = make()
    check_report(worker.report())
    fill(worker)
    report = worker.report()
    check_report(report)
    assert [tier.tier for tier in report.tiers] == ["memory", "disk"]
    assert (report.folder, report.not_persisting) == (str(folder), None)
    for tier in ("memory", "disk"):
        states = [state for state in report.states if state.tier == tier]
        assert {"base", "hot", "head"} <= {state.kind for state in states}
        for state in states:
            if state.kind in ("base", "hot"):
                assert state.workspaces in ([OURS], [THEIRS]), state
        files = {state.about for state in states if state.kind == "head"}
        assert {"a0.py", "b0.py"} <= files
        assert any("6 files" in state.about for state in states if state.kind == "base")
    assert any(state.pinned for state in report.states)


def test_a_workspace_that_nobody_knows_takes_nothing_with_it(make: Callable[[], Worker]) -> None:
    """As somebody mistypes it."""
    worker = make()
    contexts = fill(worker)
    before = len(worker.engine.store), len(keeper(worker).tier)
    made = worker.purge(OURS + "x")
    assert (made.states, made.nbytes) == (0, 0)
    assert (len(worker.engine.store), len(keeper(worker).tier)) == before
    assert all(worker.context(context).state == "ready" for context in contexts.values())
