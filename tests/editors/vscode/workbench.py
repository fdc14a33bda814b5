"""VS Code as its user sees it: the server with the real extension host, and the workbench in a browser that tests type into.

Knows processes, URLs and the workbench's class names; what the extension should do is in the tests. browser.mjs holds the browser.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.editors.editor_parts import HOUSE, INSTALLED, PATIENCE_S, find_editor, wait_until

HERE = Path(__file__).parent
EXTENSION = HOUSE / "editors" / "vscode"
CODE = INSTALLED / "vscode"  # where install_vscode.sh puts VS Code's server
PICTURES = INSTALLED / "pictures"
STATUS = "[id='codestral-lsp.codestral-lsp.codestralLsp']"
GHOST = ".ghost-text-decoration, .ghost-text"
BUTTON = ".monaco-button, .monaco-text-button"
ROW = ".quick-input-widget .monaco-list-row"
MESSAGE = ".notification-list-item-message"
WIDTH, HEIGHT = 1100, 640
KEY_MS = 60  # between two keys, as a good typist's

# Nothing that comes up by itself, and no other source of suggestions, unless a test asks for it.
QUIET: Mapping[str, object] = {
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "files.autoSave": "off",
    "editor.minimap.enabled": False,
    "editor.wordBasedSuggestions": "off",
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.cursorBlinking": "solid",
    "git.openRepositoryInParentFolders": "never",
    "extensions.ignoreRecommendations": True,
    "telemetry.telemetryLevel": "off",
}


def node() -> str:
    return shutil.which("node") or pytest.fail("no node here: expected Node.js 20 or newer on PATH", pytrace=False)


def find_chromium() -> Path:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if not os.environ.get("CHROMIUM") and shutil.which(name) is None:
            continue
        return find_editor(name, variable="CHROMIUM", installed="chromium")
    return pytest.fail("no Chromium here: `make editors` installs one, CHROMIUM=PATH names one", pytrace=False)


def package_extension() -> Path:
    """The .vsix, made by the command that its README names."""
    if not (EXTENSION / "node_modules" / "playwright-core").is_dir() or not (CODE / "out" / "server-main.js").is_file():
        pytest.fail("VS Code or what builds its extension is not here: `make editors` installs it", pytrace=False)
    done = subprocess.run(
        ["npm", "run", "--silent", "package"], cwd=EXTENSION, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        pytest.fail(f"npm run package: {done.stdout}{done.stderr}", pytrace=False)
    return EXTENSION / "codestral-lsp.vsix"


class Browser:
    """One Chromium. Each `open` is a fresh profile."""

    def __init__(self, home: Path) -> None:
        command = [node(), str(HERE / "browser.mjs"), str(find_chromium()), str(EXTENSION / "node_modules")]
        # A home of its own: Chromium keeps files there, and is ended with whatever else has this home.
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, action: str, **words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"action": action, **words}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the browser ended with {self._process.wait()} at {action}", pytrace=False)
        answer = json.loads(line)
        if "error" in answer:
            pytest.fail(f"the browser: {answer['error']}", pytrace=False)
        return answer["result"]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class CodeServer:
    """VS Code's server with the extension installed. `folder`: its own, for settings and extensions."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, vsix: Path, runs_tests: bool = False) -> None:
        self.environment = dict(environment)
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._run("--install-extension", str(vsix))
        # Without the first the PATH would be that of a login shell. With the second VS Code asks nothing, not even whom to trust.
        options = ["--force-disable-user-env", *(["--enable-smoke-test-driver"] if runs_tests else [])]
        self._log: list[str] = []
        self.port = 0
        self._process = subprocess.Popen(
            self._command("--host", "127.0.0.1", "--port", "0", "--connection-token", self._token,
                          "--telemetry-level", "off", *options),
            env=self.environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read_log, daemon=True).start()
        wait_until(lambda: self.port > 0 or self._process.poll() is not None, "VS Code's server")
        if self._process.poll() is not None:
            pytest.fail(f"VS Code's server ended: {' '.join(self._log)}", pytrace=False)

    def set(self, **settings: object) -> None:
        """Settings of this machine, which VS Code also takes over while it runs. Without words: only the quiet ones."""
        place = self._folder / "user-data" / "Machine" / "settings.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({**QUIET, **{name.replace("__", "."): value for name, value in settings.items()}}))

    def url(self, folder: Path, *payload: tuple[str, str]) -> str:
        """`payload`: names and files for the workbench, such as ("openFile", path)."""
        remote = [[name, f"vscode-remote://127.0.0.1:{self.port}{path}"] for name, path in payload]
        words = f"&payload={quote(json.dumps(remote))}" if remote else ""
        return f"http://127.0.0.1:{self.port}/?tkn={self._token}&folder={quote(str(folder))}{words}"

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read_log(self) -> None:
        for line in self._process.stdout or ():
            self._log.append(line.strip())
            if found := re.search(r"agent listening on (\d+)", line):
                self.port = int(found[1])

    def _run(self, *words: str) -> None:
        done = subprocess.run(
            self._command(*words), env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode != 0:
            pytest.fail(f"VS Code's server {words[0]}: {done.stdout}{done.stderr}", pytrace=False)

    def _command(self, *words: str) -> list[str]:
        folders = [word for name in ("user-data", "extensions") for word in (f"--{name}-dir", str(self._folder / name))]
        main = str(CODE / "out" / "server-main.js")
        return [
            node(), main, *words, "--accept-server-license-terms", "--server-data-dir", str(self._folder), *folders
        ]  # fmt: skip


class Page:
    """A window of VS Code."""

    def __init__(self, browser: Browser, server: CodeServer) -> None:
        self._browser = browser
        self.server = server

    def open(
        self,
        folder: Path,
        *,
        file: str | None = None,
        is_trusted: bool = True,
        payload: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """A window on a folder that was never opened before, and whether its authors are trusted is answered."""
        words = payload if file is None else (("openFile", str(folder / file)), *payload)
        url = self.server.url(folder, *words)
        self._browser.ask("open", url=url, width=WIDTH, height=HEIGHT, scale=1)
        if is_trusted is not None:
            self.click(BUTTON, "^Yes, I trust" if is_trusted else "^No, I don't trust")
            self.gone(".monaco-dialog-box")
        if file is not None:
            self.see(".tab.active", re.escape(Path(file).name))
            self.go_to_end()

    def reload(self) -> None:
        self._browser.ask("reload")
        self.see(".monaco-workbench .part.editor")

    def go_to_end(self) -> None:
        """The cursor behind the last character of the document that is open."""
        self.see(".editor-instance .view-line")
        self.click(".editor-instance .view-line")
        self.press("Control+End")

    def press(self, *keys: str) -> None:
        for key in keys:
            self._browser.ask("press", keys=key)

    def type(self, text: str) -> None:
        self._browser.ask("type", text=text, delay=KEY_MS)

    def click(self, selector: str, pattern: str = "", *, modifiers: tuple[str, ...] = ()) -> None:
        self.see(selector, pattern)  # which says what is there instead
        words = {"modifiers": list(modifiers), "timeout": 1000 * PATIENCE_S}
        self._browser.ask("click", selector=selector, pattern=pattern, **words)

    def see(self, selector: str, pattern: str = "", *, patience_s: float = PATIENCE_S) -> str:
        """The text of the first that matches. Fails with what is there instead."""
        return self._wait(selector, pattern, patience_s=patience_s)

    def gone(self, selector: str, pattern: str = "", *, patience_s: float = PATIENCE_S) -> None:
        self._wait(selector, pattern, patience_s=patience_s, is_gone=True)

    def texts(self, selector: str) -> list[str]:
        return self._browser.ask("texts", selector=selector)

    def calls(self) -> list[tuple[str, Any]]:
        """What a test inside the extension host has said."""
        return [(kind, words) for kind, words in self._browser.ask("calls")]

    def run(self, command: str) -> None:
        """By its title, in the command palette."""
        self.press("F1")
        self.see(".quick-input-widget input", "")
        self.type(command)
        self.click(ROW, re.escape(command))

    def ghost(self, pattern: str = r"\S", *, patience_s: float = PATIENCE_S) -> str:
        """The grey text, once it matches. It is drawn in several pieces."""
        return self._wait(GHOST, pattern, patience_s=patience_s, is_whole=True)

    def no_ghost(self, pattern: str = r"\S", *, for_s: float = 0.0) -> None:
        """No grey text that matches; with `for_s` also none that comes later, within so many seconds."""
        self._wait(GHOST, pattern, patience_s=PATIENCE_S, is_gone=True, is_whole=True)
        if for_s and self._ask_wait(GHOST, pattern, patience_s=for_s, is_whole=True) is not None:
            pytest.fail(f"expected no grey text, found {self.texts(GHOST)}", pytrace=False)

    def saved(self, path: Path) -> str:
        """The document's text by way of the disk, so that no drawing of it comes between."""
        self.press("Control+s")
        self.gone(".tab.active.dirty")
        return path.read_text(encoding="utf-8")

    def picture(self, name: str) -> Path:
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"vscode-{name}.png"
        self._browser.ask("shot", path=str(path))
        return path

    def _wait(
        self, selector: str, pattern: str, *, patience_s: float, is_gone: bool = False, is_whole: bool = False
    ) -> str:
        found = self._ask_wait(selector, pattern, patience_s=patience_s, is_gone=is_gone, is_whole=is_whole)
        if found is None:
            self.picture(f"failed-{os.environ['PYTEST_CURRENT_TEST'].rpartition('::')[2].partition(' ')[0]}")
            what = "still" if is_gone else "instead"
            there = f"{what} there: {self.texts(selector)}; messages: {self.texts(MESSAGE)}"
            pytest.fail(f"waited {patience_s:g} s in vain for {selector} /{pattern}/; {there}", pytrace=False)
        return found

    def _ask_wait(
        self, selector: str, pattern: str, *, patience_s: float, is_gone: bool = False, is_whole: bool = False
    ) -> str | None:
        words = {"selector": selector, "pattern": pattern, "timeout": 1000 * patience_s}
        return self._browser.ask("wait", **words, isGone=is_gone, isWhole=is_whole)


def servers_of(home: Path) -> Iterator[int]:
    """The process ids of our language servers that have this home."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # someone else's, or it has just ended
            is_ours = f"HOME={home}".encode() in (place / "environ").read_bytes().split(b"\0")
            if is_ours and b"-m\0lsp\0--stdio" in (place / "cmdline").read_bytes():
                yield int(place.name)
