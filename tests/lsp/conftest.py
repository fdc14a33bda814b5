"""A place of its own for each test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lsp_place import Place, make_place, remove_place


@pytest.fixture
def place() -> Iterator[Place]:
    here = make_place()
    try:
        yield here
    finally:
        remove_place(here)
