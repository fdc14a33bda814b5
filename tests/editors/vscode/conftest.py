"""One browser, one packaged extension and one VS Code for all tests here; a window of its own for each."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.editors.editor_parts import Session
from tests.editors.vscode.workbench import Browser, CodeServer, Page, package_extension


class Start(Protocol):
    def __call__(self, environment: Mapping[str, str], *, runs_tests: bool = False) -> Page: ...


@pytest.fixture(scope="session")
def vsix() -> Path:
    return package_extension()


@pytest.fixture(scope="session")
def browser(editor_session: Session) -> Iterator[Browser]:
    browser = Browser(Path(editor_session.new_environment()["HOME"]))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="session")
def code(editor_session: Session, vsix: Path) -> Iterator[CodeServer]:
    """The VS Code that tests share. Its language servers have the session's warm daemon."""
    environment = editor_session.new_environment()
    server = CodeServer(Path(environment["HOME"]) / "code", environment, vsix=vsix)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def page(browser: Browser, code: CodeServer, editor_session: Session) -> Page:
    """A window of it that never was before, with no settings but the quiet ones."""
    editor_session.warm_up()
    code.set()
    return Page(browser, code)


@pytest.fixture
def start(browser: Browser, vsix: Path) -> Iterator[Start]:
    """A VS Code of the test's own, for an environment that is not the usual one."""
    started: list[CodeServer] = []

    def begin(environment: Mapping[str, str], *, runs_tests: bool = False) -> Page:
        folder = Path(environment["HOME"]) / "code"
        started.append(CodeServer(folder, environment, vsix=vsix, runs_tests=runs_tests))
        started[-1].set()
        return Page(browser, started[-1])

    yield begin
    for server in started:
        server.close()
        shutil.rmtree(server.environment["HOME"], ignore_errors=True)
