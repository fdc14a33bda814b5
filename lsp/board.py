"""Tells the editor what `status` makes of all that goes on, as soon as there is something to tell.

Knows the event loop and the pause; what is shown is decided in `status`. Without anyone to tell (`notify` None) it costs nothing.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsp.pause import Pause
from lsp.session import Progress
from lsp.status import DaemonState, Focus, Status

PAUSE_POLL_S = 2.0  # between two looks at a pause that another process may have begun or ended


class Board:
    """Of one editor window. Everything is called on the event loop."""

    def __init__(self, pause: Pause, notify: Callable[[dict[str, Any]], None] | None) -> None:
        self._pause = pause
        self._notify = notify
        self._status = Status()
        self._timer: asyncio.TimerHandle | None = None
        self._poll: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on the editor listens."""
        if self._pause.paused() is not None:
            self.look_at_pause()
        if self._notify is not None and self._poll is None:
            self._poll = asyncio.get_running_loop().create_task(self._poll_pause())

    def close(self) -> None:
        self._notify = None
        for waiting in (self._timer, self._poll):
            if waiting is not None:
                waiting.cancel()

    def look_at_pause(self) -> None:
        self._tell(lambda status: status.paused(self._pause.paused()))

    def focused(self, uri: str | None, *, root: Path | None, off: str | None) -> None:
        self._tell(lambda status: status.focused(None if uri is None else Focus(uri, root, off)))

    def daemon(self, state: DaemonState) -> None:
        self._tell(lambda status: status.daemon(state))

    def daemon_failed(self, message: str) -> None:
        self._tell(lambda status: status.daemon_failed(message))

    def workspace(self, root: Path, progress: Progress) -> None:
        self._tell(lambda status: status.workspace(root, progress))

    def workspace_closed(self, root: Path) -> None:
        self._tell(lambda status: status.workspace_closed(root))

    def begun(self, request: object) -> None:
        self._tell(lambda status: status.begun(request))

    def answered(self, request: object) -> None:
        self._tell(lambda status: status.answered(request))

    def dropped(self, request: object) -> None:
        self._tell(lambda status: status.dropped(request))

    def failed(self, request: object, message: str) -> None:
        self._tell(lambda status: status.failed(request, message))

    def _tell(self, happened: Callable[[Status], dict[str, Any] | None]) -> None:
        if self._notify is None:
            return
        if (news := happened(self._status)) is not None:
            self._notify(news)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (wait_s := self._status.next_look_s) is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s + 0.01, self._tell, Status.tick)

    async def _poll_pause(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_POLL_S)
            self.look_at_pause()
