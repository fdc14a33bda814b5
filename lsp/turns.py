"""Whose turn it is: one question under way for each document, and one that waits for its answer.

Knows tasks; does not know what is asked. Every waiter is answered once: with the answer of its question, or with None as soon as a newer one has come.
A question may be asked before anyone waits for it, as the one that comes next; whoever then asks the same takes it over instead of asking again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_Answer = TypeVar("_Answer")


class _Turn(Generic[_Answer]):
    def __init__(self, question: Hashable, task: "asyncio.Task[_Answer]") -> None:
        self.question = question
        self.task = task
        self.waiter: asyncio.Future[None] | None = None  # done: a newer one waits now

    def dismiss_waiter(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        self.waiter = None

    def end(self) -> None:
        self.task.cancel()
        self.dismiss_waiter()


class Turns(Generic[_Answer]):
    """By document. Two questions are the same when they are equal."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn[_Answer]] = {}

    async def ask(
        self, name: str, question: Hashable, asking: Callable[[], Coroutine[Any, Any, _Answer]]
    ) -> _Answer | None:
        """None: a newer question of the document has come, or `end` was called. Cancelling this ends the question, unless someone else has taken it over."""
        turn = self._begin(name, question, asking)
        turn.dismiss_waiter()
        mine = turn.waiter = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({turn.task, mine}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the editor's own $/cancelRequest
            if turn.waiter is mine:
                self._drop(name, turn)
                turn.task.cancel()
            raise
        if turn.waiter is not mine or not turn.task.done():
            return None
        turn.waiter = None
        self._drop(name, turn)
        return None if turn.task.cancelled() else turn.task.result()

    def begin(self, name: str, question: Hashable, asking: Callable[[], Coroutine[Any, Any, _Answer]]) -> None:
        """Asks what will be asked for soon; ends an older question of the document. Its answer is kept until the next question."""
        self._begin(name, question, asking)

    def end(self, name: str) -> None:
        """Whoever waits for the document's question is answered with None."""
        if (turn := self._turns.pop(name, None)) is not None:
            turn.end()

    def end_all(self) -> None:
        for name in list(self._turns):
            self.end(name)

    def is_under_way(self, name: str) -> bool:
        turn = self._turns.get(name)
        return turn is not None and not turn.task.done()

    def _begin(
        self, name: str, question: Hashable, asking: Callable[[], Coroutine[Any, Any, _Answer]]
    ) -> _Turn[_Answer]:
        older = self._turns.get(name)
        if older is not None and older.question == question and not _has_failed(older.task):
            return older
        self.end(name)
        task = asyncio.ensure_future(asking())
        # What nobody waits for any more may fail without anyone to hear of it; `asking` logs what it has to say.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        turn = self._turns[name] = _Turn(question, task)
        return turn

    def _drop(self, name: str, turn: _Turn[_Answer]) -> None:
        if self._turns.get(name) is turn:
            del self._turns[name]


def _has_failed(task: "asyncio.Task[Any]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
