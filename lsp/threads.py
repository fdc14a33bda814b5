"""Work that may wait for a disk, done beside the event loop. Knows asyncio and threads; does not know what the work is."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """The function's result, or its exception, from a thread that never keeps the process from ending.

    `asyncio.to_thread` would do, but a process that ends waits for its threads, and reading a large repository from a
    slow disk can take a minute.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="codestral-lsp-work", daemon=True).start()
    return await future
