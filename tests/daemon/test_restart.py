"""What a second daemon finds of the first: new objects on the same folder, real files."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from daemon.bases import ground_of
from daemon.completion import Completion, Engine
from daemon.keeper import Keeper
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import (
    PLENTY,
    WORKSPACE,
    Driven,
    WatchedEngine,
    ask,
    documents_of,
    keeper_in,
    module_text,
    same_as_cold,
)

FILES = {f"part_{n}.py": module_text(n) for n in range(16)}
SAVED = {"part_1.py": FILES["part_1.py"] + "# saved\n", "part_5.py": FILES["part_5.py"] + "# saved\n"}
TYPED = "import os\n\nvalue = os.pa"

Start = Callable[..., Driven]


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of a file beyond its cursor has its own test; here tokens are counted."""
    monkeypatch.setattr("daemon.upcoming.AHEAD_S", 0.0)


@pytest.fixture
def begin(tiny: LoadedModel, tmp_path: Path) -> Iterator[Start]:
    """Starts daemons one after the other on the same folder; those not ended yet end with the test."""
    running: list[Driven] = []

    def run(*, folder: Path = tmp_path / "states", store_bytes: int = PLENTY, **settings: object) -> Driven:
        engine = WatchedEngine(tiny, store_budget_bytes=store_bytes, keeper_of=keeper_in(folder, tiny, **settings))
        running.append(Driven(engine))
        return running[-1]

    yield run
    for driven in running:
        keeper(driven).close(10.0)


def keeper(driven: Driven) -> Keeper:
    found = driven.engine.keeper
    assert found is not None
    return found


def end(driven: Driven) -> None:
    """As a daemon ends: what matters is written."""
    driven.worker._persist()
    assert keeper(driven).wait(20.0)
    keeper(driven).close(10.0)


def first_life(begin: Start, *, save: bool = False, **settings: object) -> Completion:
    """A repository is read, a file in it completed, and two files are saved if so wished. What its last key was told."""
    driven = begin(**settings)
    driven.post(FILES)
    driven.settle()
    driven.key("part_3.py", TYPED)
    if save:
        driven.save(SAVED)
        driven.settle()
        driven.key("part_3.py", TYPED)
    assert keeper(driven).wait(20.0)
    made = driven.key("part_3.py", TYPED + "t")
    end(driven)
    return made


def answered(driven: Driven, files: dict[str, str]) -> Completion:
    """The first key of the second life, before anything was read in the background; its bits are those of a cold run."""
    driven.post(files)
    made = driven.key("part_3.py", TYPED + "t", budget_ms=400)  # in which 256 tokens could be fed at most
    cold = Engine(driven.engine.model, store_budget_bytes=0)
    request = ask(TYPED + "t", path="part_3.py", document="part_3.py", context=driven.context)
    assert same_as_cold(driven.engine, cold, made, request)
    return made


# what the first daemon has saved, what the second one is told -> from where its first key is answered, and how much is current at least
LIVES = [
    (False, FILES, ("base", "head"), 1.0),
    (True, FILES | SAVED, ("hot", "head"), 1.0),
    (False, FILES | SAVED, ("base", "head"), 0.8),
    (True, FILES, ("base", "head"), 1.0),
    (True, FILES | SAVED | {"new.py": "x = 1\n"}, ("hot", "base", "head"), 0.9),
    (False, {path: FILES[path] for path in list(FILES)[1:]}, ("base", "head"), 0.9),
]


@pytest.mark.parametrize(("save", "files", "segments", "current"), LIVES)
def test_the_first_key_after_a_restart(
    begin: Start, save: bool, files: dict[str, str], segments: tuple[str, ...], current: float
) -> None:
    before = first_life(begin, save=save)
    driven = begin()
    made = answered(driven, files)
    assert made.report.segment in segments
    assert made.report.tokens_fed <= 60
    assert made.report.current >= current
    if files == (FILES | SAVED if save else FILES):
        assert (made.text, made.generated.ids) == (before.text, before.generated.ids)
        assert made.report.context_tokens == before.report.context_tokens
    changed = sum(len(text) for path, text in files.items() if FILES.get(path) != text)
    assert driven.settle() <= 2 * changed + 60, "BASE was fed again"
    assert driven.key("part_3.py", TYPED).report.current >= min(1.0, current + 0.02)


def test_a_restart_in_the_middle_of_reading(begin: Start) -> None:
    """The checkpoints inside BASE are there too."""
    driven = begin()
    driven.post({f"{n}/{path}": text for n in range(4) for path, text in FILES.items()})
    total = driven.status().tokens
    while driven.engine.n_fed < total * 0.6:
        driven.worker.step()
    assert keeper(driven).wait(20.0)
    fed = driven.engine.n_fed
    keeper(driven).close(10.0)
    second = begin()
    second.post({f"{n}/{path}": text for n in range(4) for path, text in FILES.items()})
    assert second.settle() < total - 0.7 * fed


@pytest.mark.parametrize(
    ("snapshot_format", "exact", "most"), [("fp32", True, 0.0), ("fp16", False, 1e-2), ("int8", False, 0.3)]
)
def test_what_comes_back_from_disk(begin: Start, snapshot_format: str, exact: bool, most: float) -> None:
    first = begin(snapshot_format=snapshot_format)
    ground = ground_of(first.engine.prompter, documents_of(FILES), max_tokens=100_000)
    value = first.engine.read(ground.chain)
    assert value is not None
    keeper(first).offer(ground.chain, value, {"cost_tokens": 1}, workspace=WORKSPACE)
    end(first)
    second = begin(snapshot_format=snapshot_format)
    back = second.engine.read(ground.chain)
    assert back is not None
    assert (second.engine.n_fed, second.engine.store.shelf_hits) == (0, 1)
    for one, other in zip((value.logits, *value.state), (back.logits, *back.state), strict=True):
        if exact:
            assert torch.equal(one, other)
        else:
            assert float((one - other).norm() / one.norm()) <= most
    assert second.engine.store.holds(ground.chain.tip)


# Faults.


def states_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.safetensors") if path.is_file()]


@pytest.mark.parametrize("damage", ["a flipped byte", "cut short", "emptied", "another's", "gone"])
def test_a_damaged_state_is_read_again_and_said_once(
    begin: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    before = first_life(begin)
    files = states_of(tmp_path / "states")
    assert files
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents, strict=True):
        middle = len(content) // 2
        path.chmod(0o600)
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(
                {
                    "a flipped byte": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                    "cut short": content[:middle],
                    "emptied": b"",
                    "another's": contents[0] if path is not files[0] else contents[-1],
                }[damage]
            )
    caplog.set_level(logging.WARNING)
    driven = begin()
    driven.post(FILES)
    driven.settle()
    made = driven.key("part_3.py", TYPED + "t")
    assert (made.text, made.generated.ids) == (before.text, before.generated.ids)
    assert made.report.context_tokens == before.report.context_tokens
    assert driven.engine.n_fed > 0
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("\n" not in line for line in lines)
    assert len(lines) == len(set(lines)) <= len(files), "a fault was told more than once"
    assert bool(lines) is (damage != "gone")


def test_a_folder_that_cannot_be_written_is_no_fault_of_a_key(
    begin: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.getuid() == 0:  # who may write everywhere: a file stands where the folder should be
        (tmp_path / "states").write_text("in the way")
    else:
        (tmp_path / "states").mkdir(mode=0o500)
    driven = begin()
    driven.post(FILES)
    driven.settle()
    made = driven.key("part_3.py", TYPED)
    assert (made.report.context_ready, made.report.current) == (True, 1.0)
    driven.worker._persist()
    assert keeper(driven).wait(20.0)
    assert keeper(driven).tier.why_not_writing is not None
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 2


@pytest.mark.parametrize(("store_bytes", "disk_bytes"), [(0, 0), (0, 1 << 30), (PLENTY, 0)])
def test_budgets_of_nothing(begin: Start, store_bytes: int, disk_bytes: int) -> None:
    reference = first_life(begin, folder=Path(os.devnull) / "nowhere")
    for _ in range(2):
        driven = begin(store_bytes=store_bytes, budget_bytes=disk_bytes)
        driven.post(FILES)
        driven.settle()
        made = driven.key("part_3.py", TYPED + "t")
        assert (made.text, made.generated.ids) == (reference.text, reference.generated.ids)
        end(driven)


def test_two_daemons_on_one_folder(begin: Start) -> None:
    """Only one writes; the other reads what it wrote, and neither is wrong."""
    one, other = begin(), begin()
    one.post(FILES)
    one.settle()
    one.key("part_3.py", TYPED)
    one.worker._persist()
    assert keeper(one).wait(20.0)
    other.post(FILES)
    fed = other.settle()
    assert fed == 0, "what the first has written is not found by the second"
    made, same = (each.key("part_3.py", TYPED + "t") for each in (one, other))
    assert (made.text, made.generated.ids) == (same.text, same.generated.ids)
    other.save(SAVED)
    other.settle()
    other.worker._persist()
    assert keeper(other).wait(20.0)
    assert keeper(other).tier.why_not_writing is not None
    end(one)
    end(other)


def test_another_models_states_are_another_folder(begin: Start, tiny: LoadedModel) -> None:
    first_life(begin)
    driven = begin()
    digest = b"of other weights"
    other = LoadedModel(tiny.name, tiny.config, tiny.network, tiny.tokenizer, None, digest, tiny.precision)
    engine = WatchedEngine(other, store_budget_bytes=PLENTY, keeper_of=keeper_in(keeper(driven).folder, other))
    stranger = Driven(engine)
    stranger.post(FILES)
    assert stranger.settle() == stranger.status().tokens
    keeper(stranger).close(10.0)
