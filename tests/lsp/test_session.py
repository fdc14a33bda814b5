"""One workspace's session and the link, in this process, with the stub daemon as a real one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from lsp_place import PATIENCE_S, Place

from daemon.protocol import CompletionRequest
from lsp import session as session_module
from lsp.launch import Daemon, LaunchError, connect
from lsp.link import Link
from lsp.session import Progress, Session
from lsp.settings import DEFAULTS

REQUEST = CompletionRequest(prompt="x")


@asynccontextmanager
async def started(place: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Session, list[Progress]]]:
    """A session whose context is fed, and what it has reported."""
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    link = Link(lambda: connect(DEFAULTS.model, idle_minutes=1))
    reports: list[Progress] = []
    session = Session(place.repository, link=link, settings=DEFAULTS, report=reports.append)
    session.start()
    try:
        await until(lambda: bool(reports) and reports[-1].stage == "ready")
        yield session, reports
    finally:
        await session.close()
        await link.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_saved_file_is_read_again_and_the_older_context_serves_until_then(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "QUIET_S", 0.05)
    monkeypatch.setenv("STUB_FEED_STEPS", "2")
    async with started(place, monkeypatch) as (session, reports):
        (first,) = place.events("context")
        (place.repository / "new.py").write_text("z = 1\n")
        reports.clear()
        session.saved()
        session.saved()
        await until(lambda: any(report.stage == "feeding" for report in reports))
        await session.complete(REQUEST)
        await until(lambda: reports[-1].stage == "ready")
        await session.complete(REQUEST)
        second = place.events("context")[-1]
        assert second["paths"] == ["a.py", "b.py", "new.py"]
        assert place.events("complete")[-1]["context"] == second["id"] != first["id"]
        assert place.events("complete")[0]["context"] in (first["id"], second["id"])
        assert len(place.events("context")) == 2


async def test_many_requests_at_a_dead_daemon_start_one_and_post_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(place, monkeypatch) as (session, reports):
        reports.clear()
        os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*(session.complete(REQUEST) for _ in range(5)))
        assert sorted(answer.choices[0].message.content for answer in answers) == ["<1>", "<2>", "<3>", "<4>", "<5>"]
        await until(lambda: bool(reports) and reports[-1].stage == "ready")
        assert len(place.events("serving")) == 2
        assert len(place.events("context")) == 2


async def test_a_failed_start_is_remembered_and_shared() -> None:
    attempts = 0

    async def fail() -> Daemon:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.01)
        raise LaunchError("no")

    link = Link(fail)
    results = await asyncio.gather(*(link.daemon() for _ in range(3)), return_exceptions=True)
    with pytest.raises(LaunchError, match="no"):
        await link.daemon()
    assert [str(result) for result in results] == ["no", "no", "no"]
    assert attempts == 1
    await link.close()


async def test_a_waiter_that_leaves_does_not_end_the_attempt() -> None:
    go = asyncio.Event()

    async def wait() -> Daemon:
        await go.wait()
        raise LaunchError("late")

    link = Link(wait)
    first, second = asyncio.create_task(link.daemon()), asyncio.create_task(link.daemon())
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    with pytest.raises(LaunchError, match="late"):
        await second
    assert first.cancelled()
