"""The console script: starts the real program in an isolated interpreter.

It knows two modules that Python has loaded before us and one that is part of it, and nothing else.

An editor starts this with the user's workspace as the current folder and with the user's environment. `PYTHONPATH=.`
would then put the workspace before our packages and before the standard library, and a workspace has its own `model/`,
`cache/` or `json.py`. `-I` ignores both. This module has a name that no workspace uses, and `os` and `sys` are already
loaded when it runs, so nothing of the workspace runs before the exec.
"""

import _signal  # pyright: ignore[reportMissingImports] (built into Python, unlike `signal`, which a workspace could have)
import os
import sys


def main() -> None:
    """Replaces this process (same pid, same streams) by `python -I -m lsp` with the same arguments."""
    # Ctrl-C is held back until the new interpreter has a place for it (lsp/__main__.py); in its start it would be a traceback.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])
    os.execv(sys.executable, [sys.executable, "-I", "-m", "lsp", *sys.argv[1:]])
