"""Neovim with this repository's plugin, once for each version that is installed, on a scripted server or on the real one."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.editors.editor_parts import HOUSE, INSTALLED, Session, make_environment
from tests.editors.neovim.nvim_child import Nvim

PLUGIN = HOUSE / "editors" / "neovim"
SCRIPTED = Path(__file__).parent / "scripted_server.py"
VERSIONS = ("0.12", "0.10")  # the newest, and the oldest that the plugin supports
APPEND = f"vim.opt.runtimepath:append({str(PLUGIN)!r})"  # as in the README
INIT = """
vim.o.ruler, vim.o.showmode, vim.o.swapfile = false, false, false
vim.opt.shortmess:append('I')
vim.api.nvim_set_hl(0, 'CodestralGhost', {{ fg = '#808080' }}) -- a group of its own, so that the screen tells it from others
vim.g.codestral = vim.json.decode({options!r})
{more}
"""


@dataclass
class Script:
    """The scripted server's folder: what it answers, and what it has heard."""

    folder: Path

    def write(self, *rules: dict[str, Any], **more: Any) -> None:
        new = self.folder / "script.json.new"
        new.write_text(json.dumps({"rules": rules, **more}), encoding="utf-8")
        new.replace(self.folder / "script.json")  # at once, since the server may be reading it

    def heard(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all messages with this method, oldest first."""
        path = self.folder / "heard.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        return [message.get("params") for message in map(json.loads, lines) if message.get("method") == method]

    def n_asked(self) -> int:
        return len(self.heard("textDocument/inlineCompletion"))


@dataclass
class Editors:
    """Starts Neovims of one version in one home."""

    program: Path
    folder: Path
    env: dict[str, str]
    running: list[Nvim] = field(default_factory=list)

    def start(
        self,
        path: Path | str,
        *,
        options: Mapping[str, Any],
        more: str = "",
        size: tuple[int, int] = (60, 12),
        cwd: Path | None = None,
        is_appended: bool = True,
    ) -> Nvim:
        init = self.folder / f"init{len(self.running)}.lua"
        text = INIT.format(options=json.dumps(dict(options)), more=more)
        init.write_text((APPEND if is_appended else "") + text, encoding="utf-8")
        nvim = Nvim(self.program, "-u", str(init), str(path), env=self.env, cwd=cwd or self.folder, size=size)
        self.running.append(nvim)
        return nvim

    def end(self) -> None:
        for nvim in self.running:
            nvim.kill()


def program_of(version: str) -> Path:
    """The Neovim that NVIM_0_12 or NVIM_0_10 names, else that of install.sh."""
    variable = f"NVIM_{version.replace('.', '_')}"
    named = os.environ.get(variable) or str(INSTALLED / f"nvim-{version}" / "bin" / "nvim")
    found = shutil.which(named)
    return (
        Path(found)
        if found
        else pytest.fail(f"no {named}: `make editors` installs it, {variable} names another", pytrace=False)
    )


@pytest.fixture(params=VERSIONS)
def program(request: pytest.FixtureRequest) -> Path:
    return program_of(request.param)


@pytest.fixture
def scripted_home() -> Iterator[Session]:
    """A short folder below /tmp; whatever was started with a home in it is killed at the end."""
    session = Session(Path(tempfile.mkdtemp(dir="/tmp", prefix="cn")))
    yield session
    session.end()
    shutil.rmtree(session.root, ignore_errors=True)


@pytest.fixture
def script(scripted_home: Session) -> Script:
    made = Script(scripted_home.root)
    made.write()
    return made


Start = Callable[..., Nvim]


@pytest.fixture
def start(program: Path, scripted_home: Session, script: Script) -> Iterator[Start]:
    """A factory: text of the file, options -> a Neovim with the scripted server, in insert mode at the end of the text."""
    root = scripted_home.root
    environment = make_environment(root / "h", shared=root / "r", temporary=root / "t")
    editors = Editors(program, root, environment)
    (root / ".git").mkdir()

    def make(
        text: str = "",
        *,
        name: str = "a.py",
        more: str = "",
        size: tuple[int, int] = (160, 12),
        has_server: bool = True,
        is_appended: bool = True,
        **options: Any,
    ) -> Nvim:
        (root / name).write_text(text, encoding="utf-8", newline="")
        command = [shutil.which("python3") or "python3", "-I", "-S", str(SCRIPTED), str(root)]
        nvim = editors.start(
            root / name, options={"cmd": command, **options}, more=more, size=size, is_appended=is_appended
        )
        if has_server:
            nvim.wait(lambda: script.heard("textDocument/didOpen"), "the server to be told of the file")
        nvim.type("GA")
        nvim.wait(lambda: nvim.request("nvim_get_mode")["mode"] == "i", "insert mode")
        return nvim

    yield make
    editors.end()


@pytest.fixture
def real_editors(program: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[Editors]:
    """Neovims with the real server, whose daemon is warm."""
    editors = Editors(program, tmp_path, environment)
    yield editors
    editors.end()
