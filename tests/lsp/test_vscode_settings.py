"""The settings of the VS Code extension are those of the server: same names, same defaults, and what its manifest allows is what the server takes.

Reads the manifest only. The extension's own tests (editors/vscode/test) hold it to the same list of names.
"""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lsp.settings import DEFAULTS, PLACES, PRECISIONS, SNAPSHOTS, Settings, read_settings

MANIFEST = json.loads((Path(__file__).parents[2] / "editors" / "vscode" / "package.json").read_text(encoding="utf-8"))
OWN = {"server.path"}  # what the server has no use for
ALWAYS_SENT = {"status"}  # what the extension sets by itself, since it draws what it is told
PROPERTIES: dict[str, dict[str, Any]] = {
    name.removeprefix("codestralLsp."): value
    for name, value in MANIFEST["contributes"]["configuration"]["properties"].items()
}
BY_SERVERS_NAME = {
    re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name): value
    for name, value in PROPERTIES.items()
    if name not in OWN
}


def as_json(value: object) -> object:
    return json.loads(json.dumps(value, default=dict))


def test_the_names_are_the_same():
    assert set(BY_SERVERS_NAME) == {field.name for field in fields(Settings)} - ALWAYS_SENT


@pytest.mark.parametrize("name", BY_SERVERS_NAME)
def test_the_default_is_the_servers(name: str):
    assert BY_SERVERS_NAME[name]["default"] == as_json(getattr(DEFAULTS, name))


@pytest.mark.parametrize(
    ("name", "words"), [("precision", PRECISIONS), ("snapshots", SNAPSHOTS), ("disable_in", PLACES)]
)
def test_the_words_to_choose_from_are_the_servers(name: str, words: tuple[str, ...]):
    value = BY_SERVERS_NAME[name]
    assert tuple(value.get("items", value)["enum"]) == words


LIMITED = [name for name, value in BY_SERVERS_NAME.items() if "minimum" in value or "maximum" in value]


@pytest.mark.parametrize("name", LIMITED)
def test_the_limits_are_the_servers(name: str):
    """The least and the most that VS Code lets one type are taken, and nothing beyond."""
    value = BY_SERVERS_NAME[name]
    step = 1 if value["type"] == "integer" else 0.001
    least, most = value.get("minimum", value.get("exclusiveMinimum", 0) + step), value["maximum"]
    for number in (least, most):
        assert not read_settings({name: number}, {})[1], number
    for number in (least - step, most + step):
        assert read_settings({name: number}, {})[1], number
