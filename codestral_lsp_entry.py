"""The console script: starts the real program in an isolated interpreter.

It knows the two modules that Python has loaded before us, and nothing else.

An editor starts this with the user's workspace as the current folder and with the user's environment. `PYTHONPATH=.`
would then put the workspace before our packages and before the standard library, and a workspace has its own `model/`,
`cache/` or `json.py`. `-I` ignores both. This module has a name that no workspace uses, and `os` and `sys` are already
loaded when it runs, so nothing of the workspace runs before the exec.
"""

import os
import sys


def main() -> None:
    """Replaces this process (same pid, same streams) by `python -I -m lsp` with the same arguments."""
    os.execv(sys.executable, [sys.executable, "-I", "-m", "lsp", *sys.argv[1:]])
