"""The one road to the daemon that all workspaces of this process share: connected once, again when it is lost.

Knows launching; knows no documents.

A failure is remembered for a moment, so that a daemon that cannot start is not started at every keystroke.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from daemon.protocol import SocketError
from lsp.launch import Daemon, LaunchError

RETRY_S = 30.0
RENEW_S = 5.0  # that an attempt which is under way may take to see that its daemon is gone

Connect = Callable[[], Awaitable[Daemon]]


class Link:
    """Whoever asks first connects; the others wait for the same attempt."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._attempt: asyncio.Task[Daemon] | None = None
        self._failure: LaunchError | SocketError | None = None
        self._failed_at = 0.0

    async def daemon(self) -> Daemon:
        """Connects, or starts the daemon, if need be.

        Raises LaunchError or SocketError; then again the same one, at once, for RETRY_S.
        """
        if self._failure is not None and time.monotonic() - self._failed_at < RETRY_S:
            raise type(self._failure)(str(self._failure))
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._try())
            # When everyone who waited has been cancelled, a failure is not news to anyone; it is kept for the next who
            # asks.
            self._attempt.add_done_callback(lambda attempt: attempt.cancelled() or attempt.exception())
        # Shielded: a keystroke that is superseded while it waits must not end the attempt for everyone.
        return await asyncio.shield(self._attempt)

    async def lost(self, daemon: Daemon) -> None:
        """The daemon did not answer. The next `daemon()` connects anew, unless someone has done so already."""
        attempt = self._attempt
        if (
            attempt is not None
            and attempt.done()
            and not attempt.cancelled()
            and attempt.exception() is None
            and attempt.result() is daemon
        ):
            self._attempt = None
            await daemon.client.close()

    async def renew(self) -> None:
        """Whoever asks next connects anew, whatever is known by now: the user has asked for it."""
        attempt = self._attempt
        if attempt is not None:  # whoever waits for it must not be cancelled
            await asyncio.wait({attempt}, timeout=RENEW_S)
        self._failure = None
        if attempt is not None and attempt is self._attempt and attempt.done():
            await self.close()

    async def close(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.cancel()
        (result,) = await asyncio.gather(attempt, return_exceptions=True)
        if isinstance(result, Daemon):
            await result.client.close()

    async def _try(self) -> Daemon:
        try:
            daemon = await self._connect()
        except BaseException as failure:
            if self._attempt is asyncio.current_task():
                self._attempt = None
            if isinstance(failure, LaunchError | SocketError):
                self._failure, self._failed_at = failure, time.monotonic()
            raise
        self._failure = None
        return daemon
