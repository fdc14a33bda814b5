"""Fixtures for tests of real editors, which `make test-editors` runs: `pytest` alone leaves them out, since they install programs.

A test names `environment`, `workspace` and `server`, starts its editor with that environment, and types TYPING.keys
(editor_parts). What it leaves running ends with it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.editor_parts import SERVER, Session

HERE = Path(__file__).parent
TIMEOUT_S = 180  # of one test: an editor starts, and on a busy machine everything takes its time


@pytest.hookimpl(tryfirst=True)  # before pytest looks at markers to leave tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.editors)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def editor_session() -> Iterator[Session]:
    """For what outlives a test, such as one editor for several: `new_environment()`, `new_workspace()`. Its daemon is warm."""
    # In /tmp and short, because a socket's path has at most 107 bytes.
    session = Session(Path(tempfile.mkdtemp(dir="/tmp", prefix="ce")))
    try:
        session.warm_up()
        yield session
    finally:
        session.end()
        shutil.rmtree(session.root, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Path:
    """The console script of this Python, which `environment` has on its PATH too."""
    return SERVER if SERVER.is_file() else pytest.fail(f"no {SERVER}: `make setup` installs it", pytrace=False)


@pytest.fixture
def environment(editor_session: Session) -> Iterator[dict[str, str]]:
    """Variables for an editor: a fresh home, and the socket of the session's warm daemon."""
    editor_session.warm_up()  # a test before this one may have ended it
    variables = editor_session.new_environment()
    yield variables
    editor_session.end(Path(variables["HOME"]))


@pytest.fixture
def cold_environment(editor_session: Session) -> Iterator[dict[str, str]]:
    """The same where no daemon runs: the editor's server has to start one, which takes seconds."""
    variables = editor_session.new_environment(has_own_daemon=True)
    yield variables
    editor_session.end(Path(variables["HOME"]))


@pytest.fixture
def workspace(editor_session: Session) -> Path:
    """A fresh git repository of a few Python files. The last line of TYPING.path is empty: the place to type."""
    return editor_session.new_workspace()
