"""The frame of these tests itself: the place to type is a good one, the daemon comes back, nothing is left running, pages show what is tested."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lsp.settings import read_settings
from tests.editors.editor_parts import FILES, HOUSE, TYPING, Session, make_environment, processes_of

PLACE = HOUSE / "editors" / "other"
PAGE = (PLACE / "README.md").read_text(encoding="utf-8")
LONGEST_SOCKET = 107  # bytes of a path


def complete(server: Path, environment: dict[str, str], file: Path) -> str:
    """What the command line suggests at the end of a file."""
    lines = file.read_text(encoding="utf-8").split("\n")
    place = f"{file}:{len(lines)}:{len(lines[-1]) + 1}"
    done = subprocess.run([server, "complete", place], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_model_is_sure_where_tests_type(server: Path, environment: dict[str, str], workspace: Path) -> None:
    file = workspace / TYPING.path
    file.write_text(FILES[TYPING.path] + TYPING.keys, encoding="utf-8")
    assert complete(server, environment, file).startswith(TYPING.suggested)


def test_a_daemon_that_a_test_has_stopped_is_back_for_the_next(
    server: Path, environment: dict[str, str], workspace: Path, editor_session: Session
) -> None:
    subprocess.run([server, "stop"], env=environment, check=True, capture_output=True)
    editor_session.warm_up()
    status = subprocess.run([server, "status"], env=environment, capture_output=True, text=True, check=True)
    assert status.stdout.startswith("daemon ")
    sockets = list(editor_session.shared.rglob("*.sock"))
    assert [len(str(socket).encode()) <= LONGEST_SOCKET for socket in sockets] == [True]


def test_what_a_home_has_started_is_found_and_ended(tmp_path: Path) -> None:
    """Also what has left its parent and its process group, and nobody else's."""
    ours, other = (make_environment(tmp_path / name, shared=tmp_path / "r", temporary=tmp_path / "t") for name in "ab")
    command = ["sh", "-c", "setsid sleep 300 & exec sleep 300"]
    mine, foreign = (subprocess.Popen(command, env=variables) for variables in (ours, other))
    try:
        home = str(tmp_path / "a")
        deadline = time.monotonic() + 10
        while len(processes_of(home)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        Session(tmp_path).end(tmp_path / "a")
        assert processes_of(home) == []
        assert foreign.poll() is None
    finally:
        Session(tmp_path).end(tmp_path / "b")
        mine.wait()
        foreign.wait()


def test_the_page_shows_the_files_that_are_tested() -> None:
    blocks = re.findall(r"```(?:toml|elisp)\n(.*?)```", PAGE, re.DOTALL)
    files = [PLACE / "helix" / "languages.toml", *sorted((PLACE / "emacs").glob("*.el"))]
    assert sorted(blocks) == sorted(file.read_text(encoding="utf-8") for file in files)


def test_the_settings_on_the_page_are_ones_that_the_server_knows() -> None:
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    options = [found for block in blocks for found in options_in(block)]
    assert len(options) == len(blocks)
    assert [problem for option in options for problem in read_settings(option, {})[1]] == []


def options_in(value: object) -> Iterator[object]:
    """What stands under the names that editors have for initializationOptions, at any depth."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name in ("initializationOptions", "initialization_options"):
            yield inner
        yield from options_in(inner)
