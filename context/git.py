"""Asks git, in a way in which nothing in a repository can make it run a program, fetch or write. Knows how git is called; not what it is asked.

A repository's own settings are read by git whatever one does, so what they could do is taken from them here: variables that lead elsewhere, hooks, the file
system monitor, the check of signatures, prompts, locks and every transport.
"""

import os
import shutil
import subprocess
from pathlib import Path

from context.disk import why_unreadable

TIMEOUT_S = 30.0
# Variables that would send git to another repository than the folder's own, as a git hook that starts us has them.
_LOCATIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    # What would change the meaning of the names that git is given.
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
)
_OPTIONS = (
    "--no-pager",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.quotepath=off",
    "-c",
    f"core.hooksPath={os.devnull}",
    "-c",
    "log.showSignature=false",
)


class GitRefused(Exception):
    """One line that says why git gave no answer."""


def run_git(folder: Path, *arguments: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """What git prints when it is asked in `folder`. Raises GitRefused: not installed, too slow, or it says no."""
    program = shutil.which("git")
    # A relative hit comes from a PATH with "." in it and could be a program of the workspace.
    if program is None or not os.path.isabs(program):
        raise GitRefused("git is not installed")
    environment = {name: value for name, value in os.environ.items() if name not in _LOCATIONS}
    environment |= {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "LC_ALL": "C",
    }
    command = [program, *_OPTIONS, *arguments]
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise GitRefused(f"git {arguments[0]} took longer than {timeout_s:g} s") from None
    except OSError as error:
        raise GitRefused(f"git {why_unreadable(error)}") from None
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise GitRefused(message or f"git {arguments[0]} ended with status {done.returncode}")
    return done.stdout
