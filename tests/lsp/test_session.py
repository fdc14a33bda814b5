"""One workspace's session and the link, in this process, with the stub daemon as a real one and files of a real repository."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lsp_place import PATIENCE_S, Place

from daemon.protocol import CompletionRequest
from lsp import changes as changes_module
from lsp import session as session_module
from lsp.launch import Daemon, LaunchError, connect
from lsp.link import Link
from lsp.session import Progress, Session
from lsp.settings import DEFAULTS

REQUEST = CompletionRequest(prompt="x")
QUIET_S = 0.3  # in which nothing more is posted


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "PAUSE_S", 0.03)
    monkeypatch.setattr(changes_module, "MASS_PAUSE_S", 0.1)
    monkeypatch.setattr(session_module, "HEAD_POLL_S", 0.05)


@asynccontextmanager
async def started(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, max_tokens: int = DEFAULTS.context_max_tokens
) -> AsyncIterator[tuple[Session, list[Progress]]]:
    """A session whose context is fed, and what it has reported."""
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    link = Link(lambda: connect(replace(DEFAULTS, idle_minutes=1)))
    reports: list[Progress] = []
    settings = replace(DEFAULTS, context_max_tokens=max_tokens)
    session = Session(place.repository, link=link, settings=settings, report=reports.append)
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


async def posted(place: Place, n: int) -> dict[str, Any]:
    """The n-th post, counted from 1, when it is clear that no other follows."""
    await until(lambda: len(place.events("context")) >= n)
    await asyncio.sleep(QUIET_S)
    contexts = place.events("context")
    assert len(contexts) == n, [(each["on"], each["posted"], each["removed"]) for each in contexts]
    return contexts[-1]


def git(place: Place, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=place.repository, check=True, capture_output=True)


async def test_at_the_start_everything_is_posted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(place, monkeypatch):
        first = await posted(place, 1)
        assert (first["on"], sorted(first["posted"]), first["removed"]) == (None, ["a.py", "b.py"], [])
        assert first["workspace"] == str(place.repository)


async def test_a_saved_file_is_posted_alone_and_its_context_used_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.env["STUB_FEED_STEPS"] = "3"
    async with started(place, monkeypatch) as (session, reports):
        first = await posted(place, 1)
        reports.clear()
        for text in ("y = 1\n", "y = 2\n"):
            (place.repository / "b.py").write_text(text)
            session.saved(place.repository / "b.py")
        second = await posted(place, 2)
        assert (second["on"], second["posted"], second["removed"]) == (first["id"], ["b.py"], [])
        assert second["texts"] == {"a.py": first["texts"]["a.py"], "b.py": "y = 2\n"}
        await session.complete(REQUEST)
        assert place.events("complete")[-1]["context"] == second["id"] != first["id"]
        await until(lambda: reports[-1].stage == "ready")
        assert [report.current for report in reports] == [pytest.approx(share) for share in (1 / 3, 2 / 3, 1, 1)]


async def test_a_save_that_changes_nothing_posts_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(place, monkeypatch) as (session, _):
        session.saved(place.repository / "b.py")
        session.changed_on_disk([place.repository / "a.py", place.repository / "none.py", place.root / "other.py"])
        session.changed_on_disk([place.repository / ".git/index", place.repository / ".git/objects/x"])
        await posted(place, 1)


KEY = "-----BEGIN RSA PRIVATE " + "KEY-----\n"
Change = Callable[[Path], object]
CHANGES: list[tuple[str, Change, list[str], list[str], list[str]]] = [
    # what is done, which files are told of, which are posted, which are removed
    ("a new file", lambda root: (root / "new.py").write_text("z = 1\n"), ["new.py"], ["new.py"], []),
    ("a file is gone", lambda root: (root / "a.py").unlink(), ["a.py"], [], ["a.py"]),
    ("a rename", lambda root: (root / "a.py").rename(root / "c.py"), ["a.py", "c.py"], ["c.py"], ["a.py"]),
    ("a secret", lambda root: (root / "a.py").write_text(KEY), ["a.py"], [], ["a.py"]),
    ("binary", lambda root: (root / "a.py").write_bytes(b"\0\1"), ["a.py"], [], ["a.py"]),
    ("empty", lambda root: (root / "a.py").write_text(""), ["a.py"], [], ["a.py"]),
    ("huge", lambda root: (root / "a.py").write_text("x = 1\n" * 100_000), ["a.py"], [], ["a.py"]),
    ("a huge new file", lambda root: (root / "n.py").write_text("x = 1\n" * 100_000), ["n.py"], [], []),
    ("a link", lambda root: ((root / "a.py").unlink(), (root / "a.py").symlink_to("b.py")), ["a.py"], [], ["a.py"]),
    ("a FIFO", lambda root: ((root / "a.py").unlink(), os.mkfifo(root / "a.py")), ["a.py"], [], ["a.py"]),
    ("a folder in its place", lambda root: ((root / "a.py").unlink(), (root / "a.py").mkdir()), ["a.py"], [], ["a.py"]),
    ("a secret's name", lambda root: (root / ".env").write_text("A=1\n"), [".env"], [], []),
    ("ignored", lambda root: (root / ".gitignore").write_text("a.py\n"), [".gitignore"], [".gitignore"], ["a.py"]),
    ("rules of our own", lambda root: (root / ".codestralignore").write_text("a.py\n"), [".codestralignore"],
     [".codestralignore"], ["a.py"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("do", "told", "files", "removed"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
async def test_only_what_changed_is_posted(
    do: Change, told: list[str], files: list[str], removed: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(place, monkeypatch) as (session, _):
        do(place.repository)
        session.changed_on_disk([place.repository / name for name in told])
        last = await posted(place, 1 + bool(files or removed))
        assert (last["posted"], last["removed"]) == (files, removed) or not (files or removed)


async def test_a_folder_is_made_renamed_and_deleted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = place.repository / "d", place.repository / "e"
    async with started(place, monkeypatch) as (session, _):
        (folder / "deep").mkdir(parents=True)
        for name in ("x.py", "deep/y.py"):
            (folder / name).write_text(f"{name!r}\n")
        session.changed_on_disk([folder])  # an editor need not tell of what is in it
        assert sorted((await posted(place, 2))["posted"]) == ["d/deep/y.py", "d/x.py"]
        folder.rename(other)
        session.changed_on_disk([folder, other])
        third = await posted(place, 3)
        assert (sorted(third["posted"]), third["removed"]) == (["e/deep/y.py", "e/x.py"], ["d/deep/y.py", "d/x.py"])
        shutil.rmtree(other)
        session.changed_on_disk([other])
        assert (await posted(place, 4))["removed"] == ["e/deep/y.py", "e/x.py"]


async def test_ten_thousand_changed_files_are_one_look_and_one_post(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reads: list[Path] = []
    read_files = session_module.read_files
    monkeypatch.setattr(
        session_module, "read_files", lambda root, **more: reads.append(root) or read_files(root, **more)
    )
    async with started(place, monkeypatch) as (session, _):
        names = [place.repository / f"d{n % 20}" / f"f{n}.py" for n in range(10_000)]
        for name in names:
            name.parent.mkdir(exist_ok=True)
            name.write_text("x\n")
        for n in range(0, len(names), 100):  # in pieces, as watchers tell
            session.changed_on_disk(names[n : n + 100])
            await asyncio.sleep(0)
        assert len((await posted(place, 2))["texts"]) == 10_002
        assert len(reads) == 2
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_branch_and_back_posts_the_difference_and_finds_the_same_context(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(place, "checkout", "-q", "-b", "main")
    git(place, "add", ".")
    git(place, "commit", "-q", "-m", "one")
    git(place, "checkout", "-q", "-b", "side")
    (place.repository / "b.py").unlink()
    (place.repository / "c.py").write_text("c = 1\n")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "two")
    git(place, "checkout", "-q", "main")
    async with started(place, monkeypatch):
        first = await posted(place, 1)
        git(place, "checkout", "-q", "side")
        second = await posted(place, 2)
        assert (second["on"], second["posted"], second["removed"]) == (first["id"], ["c.py"], ["b.py"])
        git(place, "checkout", "-q", "main")
        third = await posted(place, 3)
        assert (third["on"], third["posted"], third["removed"]) == (second["id"], ["b.py"], ["c.py"])
        assert third["id"] == first["id"]
        git(place, "commit", "-q", "--allow-empty", "-m", "three")  # another commit with the same files
        await posted(place, 3)


async def test_half_a_branch_is_not_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(place, monkeypatch) as (session, _):
        lock = place.repository / ".git/index.lock"
        lock.touch()
        (place.repository / "new.py").write_text("half\n")
        session.changed_on_disk([place.repository / ".gitignore"])
        await posted(place, 1)
        (place.repository / "new.py").write_text("whole\n")
        lock.unlink()
        assert (await posted(place, 2))["texts"]["new.py"] == "whole\n"


async def test_what_no_one_told_of_is_found_after_a_quiet_while(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "QUIET_S", 0.5)
    async with started(place, monkeypatch) as (session, _):
        (place.repository / "untold.py").write_text("z = 1\n")
        (place.repository / "b.py").write_text("y = 1\n")
        session.saved(place.repository / "b.py")
        await until(lambda: len(place.events("context")) == 3)
        second, third = place.events("context")[1:]
        assert (second["posted"], third["posted"]) == (["b.py"], ["untold.py"])


async def test_an_unsaved_text_stands_until_it_is_saved_or_closed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.repository / "b.py"
    async with started(place, monkeypatch) as (session, _):
        first = await posted(place, 1)
        session.left_unsaved(path, "unsaved = 1\n")
        session.left_unsaved(place.repository / "not_on_disk.py", "n = 1\n")
        assert (await posted(place, 2))["texts"]["b.py"] == "unsaved = 1\n"
        session.left_unsaved(path, "unsaved = 1\n")
        session.changed_on_disk([path, place.repository / ".gitignore"])  # neither a look at it nor one at everything
        await posted(place, 2)
        session.closed(path)
        assert (await posted(place, 3))["id"] == first["id"]
        session.left_unsaved(path, KEY)
        assert (await posted(place, 4))["removed"] == ["b.py"]
        path.write_text("saved = 1\n")
        session.saved(path)
        assert (await posted(place, 5))["texts"]["b.py"] == "saved = 1\n"


async def test_a_file_edited_here_is_read_whole_though_the_budget_is_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "QUIET_S", 0.5)
    (place.repository / "large.md").write_text("word " * 300)
    async with started(place, monkeypatch, max_tokens=400) as (session, _):
        assert "large.md" not in (await posted(place, 1))["paths"]
        (place.repository / "large.md").write_text("word " * 80)
        session.saved(place.repository / "large.md")
        await asyncio.sleep(1.5)  # and it stays, when everything has been looked at again
        assert (await posted(place, 2))["posted"] == ["large.md"]


async def test_a_save_during_a_post_waits_for_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.env["STUB_POST_S"] = "0.5"
    async with started(place, monkeypatch) as (session, _):
        for n, name in enumerate(("b.py", "a.py"), start=2):
            (place.repository / name).write_text(f"n = {n}\n")
            session.saved(place.repository / name)
            await until(lambda n=n: len(place.events("posting")) == n)
            assert len(place.events("context")) == n - 1
        third = await posted(place, 3)
        assert (third["on"], third["posted"]) == (place.events("context")[1]["id"], ["a.py"])


async def test_many_requests_at_a_dead_daemon_start_one_and_post_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(place, monkeypatch) as (session, reports):
        reports.clear()
        os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*(session.complete(REQUEST) for _ in range(5)))
        assert sorted(answer.choices[0].message.content for answer in answers) == ["<1>", "<2>", "<3>", "<4>", "<5>"]
        await until(lambda: bool(reports) and reports[-1].stage == "ready")
        again = await posted(place, 2)
        assert (again["on"], again["id"]) == (None, place.events("context")[0]["id"])
        assert len(place.events("serving")) == 2


@pytest.mark.parametrize("is_asked", [False, True])
async def test_a_change_for_a_dead_daemon_posts_everything_once(
    is_asked: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(place, monkeypatch) as (session, _):
        os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
        (place.repository / "b.py").write_text("y = 1\n")
        session.saved(place.repository / "b.py")
        if is_asked:
            await session.complete(REQUEST)
        await until(lambda: place.events("context")[-1]["texts"]["b.py"] == "y = 1\n")
        await asyncio.sleep(QUIET_S)
        wholes = [context for context in place.events("context")[1:] if context["on"] is None]
        assert [sorted(context["posted"]) for context in wholes] == [["a.py", "b.py"]]
        await session.complete(REQUEST)
        assert place.events("complete")[-1]["context"] == place.events("context")[-1]["id"]


async def test_a_forgotten_context_is_posted_again_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.env["STUB_FORGETS"] = str(place.root / "forget")
    async with started(place, monkeypatch) as (session, _):
        first = await posted(place, 1)
        (place.root / "forget").touch()
        answers = await asyncio.gather(*(session.complete(REQUEST) for _ in range(3)))
        assert len(answers) == 3
        again = await posted(place, 2)
        assert (again["on"], again["id"]) == (None, first["id"])
        (place.root / "forget").touch()
        (place.repository / "b.py").write_text("y = 1\n")
        session.saved(place.repository / "b.py")
        third = await posted(place, 3)
        assert (third["on"], sorted(third["posted"])) == (None, ["a.py", "b.py"])


async def test_the_workspace_goes_away_and_comes_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(place, monkeypatch) as (session, reports):
        away = place.root / "away"
        place.repository.rename(away)
        session.changed_on_disk([place.repository / "a.py"])
        await until(lambda: reports[-1].stage == "failed")
        assert reports[-1].message == f"{place.repository}: no such folder"
        await session.complete(REQUEST)
        assert place.events("complete")[-1]["context"] == place.events("context")[0]["id"]
        away.rename(place.repository)
        (place.repository / "a.py").write_text("back = 1\n")
        session.changed_on_disk([place.repository / "b.py"])  # what was told in between is not forgotten
        assert (await posted(place, 2))["posted"] == ["a.py"]
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.3])
async def test_a_session_is_closed_in_the_middle_of_a_post(
    after_s: float, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.env["STUB_POST_S"] = "0.2"
    async with started(place, monkeypatch) as (session, reports):
        (place.repository / "b.py").write_text("y = 1\n")
        session.saved(place.repository / "b.py")
        await asyncio.sleep(after_s)
        await session.close()
        n = len(reports)
        session.saved(place.repository / "b.py")
        await asyncio.sleep(QUIET_S)
        assert len(reports) == n
        assert len(place.events("context")) <= 2
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


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
