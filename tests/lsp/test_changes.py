"""What comes close together is taken together; each row is what is noted and what is taken."""

import asyncio

import pytest

from lsp import changes as changes_module
from lsp.changes import MASS, Changes, Work

MANY = [f"f{n}.py" for n in range(10_000)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "PAUSE_S", 0.02)
    monkeypatch.setattr(changes_module, "MASS_PAUSE_S", 0.1)


ROWS: list[tuple[list[list[str] | str], Work]] = [
    # names of files, or of a method
    ([["a"]], Work(frozenset({"a"}))),
    ([["a"], ["b"], ["a", "c"]], Work(frozenset({"a", "b", "c"}))),
    (["note_everything"], Work(frozenset(), everything=True)),
    (["note_lost"], Work(frozenset(), lost=True)),
    ([["a"], "note_lost"], Work(frozenset({"a"}), lost=True)),
    (["note_lost", "forget_lost", ["a"]], Work(frozenset({"a"}))),
    ([MANY[:MASS]], Work(frozenset(MANY[:MASS]))),
    ([MANY], Work(frozenset(MANY), everything=True)),
]


@pytest.mark.parametrize(("notes", "work"), ROWS, ids=range(len(ROWS)))
async def test_what_is_noted_is_taken_once(notes: list[list[str] | str], work: Work) -> None:
    changes = Changes()
    for note in notes:
        changes.note(note) if isinstance(note, list) else getattr(changes, note)()
    assert await changes.take() == work
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(changes.take(), 0.05)


async def test_nothing_noted_wakes_nobody() -> None:
    changes = Changes()
    changes.note([])
    changes.note_lost()
    changes.forget_lost()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(changes.take(), 0.05)


async def test_news_that_keep_coming_are_one_work() -> None:
    changes = Changes()

    async def keep_noting() -> None:
        for name in MANY[:1000]:
            changes.note([name])
            await asyncio.sleep(0.0005)

    noting = asyncio.create_task(keep_noting())
    assert await changes.take() == Work(frozenset(MANY[:1000]), everything=True)
    await noting


async def test_news_that_never_pause_are_taken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "PAUSE_S", 60.0)
    monkeypatch.setattr(changes_module, "LONGEST_S", 0.05)
    changes = Changes()
    changes.note(["a"])
    assert (await asyncio.wait_for(changes.take(), 5)).paths == {"a"}


async def test_after_a_quiet_while_everything_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "QUIET_S", 0.2)
    changes = Changes()
    changes.note(["a"])
    changes.saved()
    assert await changes.take() == Work(frozenset({"a"}))
    assert await changes.take() == Work(frozenset(), everything=True)
    changes.saved()
    changes.note_everything()
    assert await changes.take() == Work(frozenset(), everything=True)
    with pytest.raises(TimeoutError):  # that look was it
        await asyncio.wait_for(changes.take(), 0.3)
