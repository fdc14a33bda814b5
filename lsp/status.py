"""What the editor's status bar shows: one value made of all that goes on, told when it has changed.

Knows what it is told, and the time; knows no task, no daemon and no LSP library. Each method returns the parameters of the notification
`didChangeStatus`, or None when nothing has changed for whoever looks at it. What takes a moment only is not shown at all: `next_look_s` says when
`tick` would find it worth showing.

What counts, the first first: the pause; the focused document, when it gets no suggestion anywhere; the daemon, when it fails, starts or loads its model; the
workspace of the focused document, when it fails or is read; a request that has failed; a request under way; else it is ready.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lsp.pause import Paused
from lsp.session import Progress

THINKING_S = 0.3  # a request that takes less is not worth a word
READING_S = 1.0  # the same for a workspace that had been read and has a few files changed

DaemonState = Literal["starting", "loading", "ready"]
State = Literal["starting", "loading", "reading", "ready", "thinking", "off", "paused", "error"]

_KINDS: dict[State, str] = {"off": "Inactive", "paused": "Inactive", "error": "Error"}
_BUSY: tuple[State, ...] = ("starting", "loading", "reading", "thinking")
_DAEMON_MESSAGES: dict[DaemonState, str] = {"starting": "starting the daemon", "loading": "loading the model"}


class Command(NamedTuple):
    """What a click does: a command of the server's."""

    title: str
    command: str


RESUME = Command("Suggest again", "codestral.resume")
RESTART = Command("Start the daemon again", "codestral.restart")
LOG = Command("Where is the log?", "codestral.log")


@dataclass(frozen=True, slots=True)
class Focus:
    """The document that the user is in. `root`: its workspace's folder. `off`: why it gets no suggestion anywhere."""

    uri: str | None = None
    root: Path | None = None
    off: str | None = None


@dataclass(frozen=True, slots=True)
class _Workspace:
    progress: Progress
    since: float  # when it came to be neither ready nor failed, or stopped
    was_ready: bool  # before that


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is told. Two that are equal are not told twice."""

    state: State
    message: str
    uri: str | None
    kind: str = "Normal"
    command: Command | None = None
    percent: int | None = None
    done: int | None = None
    total: int | None = None
    reason: str | None = None

    def as_object(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("percent", "done", "total", "reason", "uri")}
        told: dict[str, Any] = {"busy": self.state in _BUSY, "message": self.message, "kind": self.kind}
        if self.command is not None:
            told["command"] = {**self.command._asdict(), "arguments": []}
        told["codestral"] = {"state": self.state, **{name: value for name, value in own.items() if value is not None}}
        return told


class Status:
    """Of one editor window. `now`: a clock in seconds that never goes back."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: _Shown | None = None
        self._paused: Paused | None = None
        self._focus: Focus | None = None
        self._daemon: DaemonState | None = None
        self._daemon_error: str | None = None
        self._request_error: str | None = None
        self._workspaces: dict[Path, _Workspace] = {}  # the one heard of last is the last
        self._requests: dict[Hashable, float] = {}  # since when they are under way

    def paused(self, paused: Paused | None) -> dict[str, Any] | None:
        self._paused = paused
        return self.tick()

    def focused(self, focus: Focus | None) -> dict[str, Any] | None:
        """None: the user is in no document, so that the workspace heard of last counts."""
        self._focus = focus
        return self.tick()

    def daemon(self, state: DaemonState) -> dict[str, Any] | None:
        """How far the one daemon of this window is. Whatever has failed before is forgotten."""
        self._daemon, self._daemon_error = state, None
        if state == "ready":
            self._request_error = None
        return self.tick()

    def daemon_failed(self, message: str) -> dict[str, Any] | None:
        self._daemon, self._daemon_error = None, message
        return self.tick()

    def workspace(self, root: Path, progress: Progress) -> dict[str, Any] | None:
        """How far a workspace is."""
        had = self._workspaces.pop(root, None)
        is_over = progress.stage in ("ready", "failed")
        if had is not None and not is_over and had.progress.stage not in ("ready", "failed"):
            now = replace(had, progress=progress)
        else:
            now = _Workspace(progress, self._now(), had is not None and had.progress.stage == "ready")
        self._workspaces[root] = now
        if progress.stage in ("feeding", "ready"):  # the daemon answers
            self._daemon, self._daemon_error = "ready", None
        return self.tick()

    def workspace_closed(self, root: Path) -> dict[str, Any] | None:
        self._workspaces.pop(root, None)
        return self.tick()

    def begun(self, request: Hashable) -> dict[str, Any] | None:
        """A request for a suggestion is under way, until one of the next three is told of it."""
        self._requests.setdefault(request, self._now())
        return self.tick()

    def answered(self, request: Hashable) -> dict[str, Any] | None:
        """By the daemon, with a suggestion or with none."""
        self._requests.pop(request, None)
        self._daemon, self._daemon_error, self._request_error = "ready", None, None
        return self.tick()

    def dropped(self, request: Hashable) -> dict[str, Any] | None:
        """It was given up for a newer one, or was not asked: neither a success nor a failure."""
        self._requests.pop(request, None)
        return self.tick()

    def failed(self, request: Hashable, message: str) -> dict[str, Any] | None:
        self._requests.pop(request, None)
        self._request_error = message
        return self.tick()

    def tick(self) -> dict[str, Any] | None:
        """Looks at the clock again."""
        shown = self._shown()
        if shown == self._told:
            return None
        self._told = shown
        return shown.as_object()

    @property
    def next_look_s(self) -> float | None:
        """How long until `tick` may have something to tell although nothing happens; None: never."""
        waits = [since + THINKING_S for since in self._requests.values()]
        waits += [each.since + READING_S for each in self._workspaces.values() if each.was_ready and not _is_over(each)]
        ahead = [at - self._now() for at in waits if at > self._now()]
        return min(ahead, default=None)

    def _shown(self) -> _Shown:
        focus = self._focus or Focus()
        shown = (
            self._shown_of_focus(focus)
            or self._shown_of_daemon()
            or self._shown_of_workspace(focus)
            or self._shown_of_requests()
            or _Shown("ready", "ready", None)
        )
        return replace(
            shown, uri=focus.uri, kind=shown.kind if shown.kind != "Normal" else _KINDS.get(shown.state, "Normal")
        )

    def _shown_of_focus(self, focus: Focus) -> _Shown | None:
        if self._paused is not None:
            return _Shown("paused", self._paused.words(), None, command=RESUME)
        if focus.off is not None:
            return _Shown("off", f"nothing is suggested here: {focus.off}", None, reason=focus.off)
        return None

    def _shown_of_daemon(self) -> _Shown | None:
        if self._daemon_error is not None:
            return _Shown("error", self._daemon_error, None, command=RESTART)
        if self._daemon is not None and self._daemon != "ready":
            return _Shown(self._daemon, _DAEMON_MESSAGES[self._daemon], None)
        return None

    def _shown_of_workspace(self, focus: Focus) -> _Shown | None:
        # The user may be in a document of no workspace, and then none counts.
        root = focus.root if self._focus is not None else next(reversed(self._workspaces), None)
        workspace = self._workspaces.get(root) if root is not None else None
        if root is None or workspace is None:
            return None
        progress = workspace.progress
        if progress.stage == "failed":  # suggestions come all the same, without the workspace
            return _Shown("error", progress.message, None, kind="Warning", command=LOG)
        if progress.stage == "ready" or (workspace.was_ready and self._now() - workspace.since < READING_S):
            return None
        name = root.name or str(root)
        if not progress.total:
            return _Shown("reading", f"reading {name}", None)
        # 100 says that nothing is missing, and that is another state.
        percent = min(99, int(100 * progress.done / progress.total))
        message = f"reading {name}: {percent} %"
        return _Shown("reading", message, None, percent=percent, done=progress.done, total=progress.total)

    def _shown_of_requests(self) -> _Shown | None:
        if self._request_error is not None:
            return _Shown("error", self._request_error, None, command=LOG)
        if any(self._now() - since >= THINKING_S for since in self._requests.values()):
            return _Shown("thinking", "thinking", None)
        return None


def _is_over(workspace: _Workspace) -> bool:
    return workspace.progress.stage in ("ready", "failed")
