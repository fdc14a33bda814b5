"""The extension's own checks: format, lint and types, and the tests of the parts that need no VS Code."""

import subprocess

import pytest

from tests.editors.vscode.workbench import EXTENSION


@pytest.mark.parametrize("script", ["check", "test"])
def test_npm_run(script: str) -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", script], cwd=EXTENSION, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
