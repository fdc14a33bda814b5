"""Real folders and real git repositories for the tests of `context/`, free of the settings of whoever runs them."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Tree = Mapping[str, str | bytes]
Git = Callable[..., str]


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    settings = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    people = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for name, value in (settings | people).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make_tree() -> Callable[[Path, Tree], Path]:
    return write_tree


def write_tree(root: Path, tree: Tree) -> Path:
    """Writes files; a name that ends in "/" makes an empty folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.fixture
def git() -> Git:
    return run_git


def run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["git", "walk", "git refuses"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three ways to list a workspace; `start` below prepares a folder for one."""
    if request.param == "git refuses":
        # What git itself uses in its tests of "detected dubious ownership".
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    return request.param


@pytest.fixture
def start(mode: str) -> Callable[[Path], Path]:
    def prepare(root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        if mode != "walk":
            environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_TEST")}
            subprocess.run(["git", "init", "-q", str(root)], check=True, env=environment)
        return root

    return prepare
