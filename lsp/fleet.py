"""All daemons of this user: looked at and ended together.

Knows the folder of the sockets and how one daemon is asked; knows no terminal. A socket's name does not say which model and precision it is for, so each
daemon is asked. A socket that nothing listens on is what a killed daemon leaves behind, and no error.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.protocol import Health, socket_folder, socket_path
from lsp.client import Client, DaemonError
from lsp.launch import POLL_S, stop_at
from lsp.settings import PRECISIONS

LOOK_S = 2.0  # how long a daemon may take to say what it is, when all are asked
LEAVING_S = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What answers on a socket: a daemon, or why it cannot be told."""

    socket: Path
    health: Health | None
    problem: str | None = None  # one line
    current: float = 1.0  # share of the context being read that completions are answered with as it is now


def all_sockets() -> list[Path]:
    """Those in the folder of this user, dead ones among them. Raises SocketError."""
    return sorted(socket_folder().glob("*.sock"))


def sockets_of(model: str, precision: str | None = None) -> list[Path]:
    """Where a model's daemons may listen: one for each precision that can be asked for. Raises SocketError."""
    return [socket_path(model, each) for each in (PRECISIONS if precision is None else (precision,))]


async def look(sockets: Sequence[Path]) -> list[Found]:
    """What listens, all asked at the same time."""
    found = await asyncio.gather(*(_look(socket) for socket in sockets if socket.is_socket()))
    return [each for each in found if each is not None]


async def stop_all(sockets: Sequence[Path]) -> int:
    """Ends what listens there and waits until it is gone; how many there were. Raises SocketError or LaunchError, when the others have been ended."""
    done = await asyncio.gather(*(stop_at(socket) for socket in sockets if socket.exists()), return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return sum(each is True for each in done)


async def _look(socket: Path) -> Found | None:
    client = Client(socket)
    started = time.monotonic()
    try:
        while True:
            try:
                health = await client.health(timeout_s=LOOK_S)
                return Found(socket, health, current=await _current(client, health))
            except DaemonError as error:
                if error.type == "unreachable":
                    return None
                if error.type == "silent":
                    return Found(socket, None, f"does not answer within {LOOK_S:g} s")
                # A daemon that is just leaving breaks connections too; it is gone a moment later.
                if error.type != "broken" or time.monotonic() - started > LEAVING_S:
                    return Found(socket, None, "is in use by something that is not codestral-lsp")
            await asyncio.sleep(POLL_S)
    finally:
        await client.close()


async def _current(client: Client, health: Health) -> float:
    """1 where nothing is being read."""
    if health.reading is None:
        return 1.0
    try:
        return (await client.context_status(health.reading.context)).current
    except DaemonError as error:
        if error.status == 404:  # it was replaced by a newer one in this moment
            return 1.0
        raise
