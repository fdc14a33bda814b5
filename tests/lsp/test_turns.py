"""One question under way for each document: who is answered with what, and which tasks are ended."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from lsp.turns import Turns


class Asked:
    """Questions that are answered when the test says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.go = asyncio.Event()

    def __call__(self, name: str, *, fails: bool = False) -> Callable[[], Coroutine[Any, Any, str]]:
        async def ask() -> str:
            self.begun.append(name)
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.ended.append(name)
                raise
            if fails:
                raise ValueError(name)
            return name

        return ask


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_newer_question_ends_the_older_and_answers_it_at_once() -> None:
    turns, asked = Turns[str](), Asked()
    older = asyncio.ensure_future(turns.ask("d", 1, asked("older")))
    await settle()
    newer = asyncio.ensure_future(turns.ask("d", 2, asked("newer")))
    assert await asyncio.wait_for(older, 5) is None
    await settle()
    assert (asked.begun, asked.ended) == (["older", "newer"], ["older"])
    asked.go.set()
    assert await newer == "newer"
    assert not turns.is_under_way("d")


async def test_the_same_question_is_asked_once_and_answered_to_who_asked_last() -> None:
    turns, asked = Turns[str](), Asked()
    first = asyncio.ensure_future(turns.ask("d", 1, asked("a")))
    await settle()
    second = asyncio.ensure_future(turns.ask("d", 1, asked("b")))
    assert await asyncio.wait_for(first, 5) is None
    asked.go.set()
    assert await second == "a"
    assert (asked.begun, asked.ended) == (["a"], [])


async def test_documents_do_not_end_each_other() -> None:
    turns, asked = Turns[str](), Asked()
    waiting = [asyncio.ensure_future(turns.ask(name, 1, asked(name))) for name in "abc"]
    await settle()
    asked.go.set()
    assert await asyncio.gather(*waiting) == ["a", "b", "c"]


@pytest.mark.parametrize("is_taken", [True, False])
async def test_what_was_begun_ahead_is_taken_over_or_ended(is_taken: bool) -> None:
    turns, asked = Turns[str](), Asked()
    turns.begin("d", 1, asked("ahead"))
    await settle()
    assert turns.is_under_way("d")
    waiting = asyncio.ensure_future(turns.ask("d", 1 if is_taken else 2, asked("later")))
    await settle()
    asked.go.set()
    assert await waiting == ("ahead" if is_taken else "later")
    assert (asked.begun, asked.ended) == ((["ahead"], []) if is_taken else (["ahead", "later"], ["ahead"]))


async def test_what_was_begun_ahead_and_has_failed_is_asked_again() -> None:
    turns, asked = Turns[str](), Asked()
    asked.go.set()
    turns.begin("d", 1, asked("ahead", fails=True))
    await settle()
    assert await turns.ask("d", 1, asked("again")) == "again"


async def test_an_editor_that_cancels_ends_its_question() -> None:
    turns, asked = Turns[str](), Asked()
    waiting = asyncio.ensure_future(turns.ask("d", 1, asked("a")))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settle()
    assert (asked.ended, turns.is_under_way("d")) == (["a"], False)


async def test_who_has_taken_over_keeps_the_question_when_the_first_cancels() -> None:
    turns, asked = Turns[str](), Asked()
    first = asyncio.ensure_future(turns.ask("d", 1, asked("a")))
    await settle()
    second = asyncio.ensure_future(turns.ask("d", 1, asked("b")))
    first.cancel()
    await settle()
    asked.go.set()
    assert await second == "a"
    assert asked.ended == []


async def test_end_answers_who_waits() -> None:
    turns, asked = Turns[str](), Asked()
    waiting = [asyncio.ensure_future(turns.ask(name, 1, asked(name))) for name in "ab"]
    await settle()
    turns.end("never")
    turns.end_all()
    assert await asyncio.gather(*waiting) == [None, None]
    await settle()
    assert sorted(asked.ended) == ["a", "b"]


async def test_a_question_that_fails_fails_for_who_waits() -> None:
    turns, asked = Turns[str](), Asked()
    asked.go.set()
    with pytest.raises(ValueError, match="a"):
        await turns.ask("d", 1, asked("a", fails=True))
    turns.begin("d", 1, asked("nobody hears", fails=True))
    await settle()
    assert await turns.ask("d", 2, asked("b")) == "b"
