"""Names on the hub and the files a model is made of: rows of what is there and what is meant. No network, no process."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import ModelInfo

from model.config import ConfigError
from model.hub import choose_files, explain_absence, local_folder, missing_files, parse_name, pulled
from model.pull import _licence

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
CHOICES: list[tuple[list[str], list[str] | str]] = [
    (["params.json", "consolidated.safetensors", "tokenizer.model.v3", "config.json", "model.safetensors", "tokenizer.json"],
     ["params.json", "tokenizer.model.v3", "consolidated.safetensors"]),
    (["params.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json"],
     ["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"]),
    (["config.json", "model.safetensors.index.json", *SHARDS, "tokenizer.model", "consolidated.safetensors"],
     ["config.json", "tokenizer.model", "model.safetensors.index.json", *SHARDS]),
    (["config.json", "model.safetensors.index.json", *SHARDS, "model.safetensors", "tokenizer.model"],
     ["config.json", "tokenizer.model", "model.safetensors.index.json", *SHARDS]),
    (["config.json", "model.safetensors", "tokenizer.model.v7", "tokenizer.model.v11"],
     ["config.json", "tokenizer.model.v11", "model.safetensors"]),
    (["a.gguf"], "expected config.json and model.safetensors and tokenizer.model.v3 or tokenizer.json; this one has .gguf"),
    (["config.json", "pytorch_model.bin", "tokenizer.json"], "expected model.safetensors; this one has its weights as pickles"),
    (["sub/config.json", "sub/model.safetensors", "tokenizer.json"], "expected config.json and model.safetensors"),
    ([], "expected config.json and model.safetensors and tokenizer.model.v3 or tokenizer.json"),
]  # fmt: skip


@pytest.mark.parametrize(("there", "expected"), CHOICES)
def test_the_files_that_are_chosen(there: list[str], expected: list[str] | str) -> None:
    if isinstance(expected, list):
        assert choose_files(there) == expected
    else:
        with pytest.raises(ConfigError, match=re.escape(expected)):
            choose_files(there)


NAMES = [
    ("mistralai/Mamba-Codestral-7B-v0.1", True), ("a/b", True), ("a/b@main", True), ("a/b@refs/pr/1", True),
    ("bundled", False), ("a", False), ("/a/b", False), ("a/b/c", False), ("./a/b", False), ("../a", False),
    ("a/b.gguf", False), ("a/..", False), ("~/a", False), ("a/b@", False), ("a/b@../x", False), ("a/b@/x", False),
    ("a--b/c", False), ("a/b c", False), ("é/b", False), ("a/b@x@y", False), ("", False), ("a/b\n", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "is_name"), NAMES)
def test_what_is_a_name_is_the_same_on_both_sides(text: str, is_name: bool) -> None:
    from lsp.settings import is_hub_name

    assert (parse_name(text) is not None) == is_name == is_hub_name(text)


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


# What is in a folder, and what is missing for a model.
FOLDERS: list[tuple[list[str], tuple[str, ...]]] = [
    (["params.json", "consolidated.safetensors", "tokenizer.model.v3"], ()),
    (["params.json", "tokenizer.model.v3"], ("consolidated.safetensors",)),
    (["consolidated.safetensors"], ("params.json", "tokenizer.model.v3")),
    (["config.json", "model.safetensors", "tokenizer.json"], ()),
    (["config.json", "params.json", "model.safetensors", "tokenizer.json"], ()),
    (["config.json", "tokenizer.model"], ("model.safetensors",)),
    ([], ("config.json", "model.safetensors", "tokenizer.model.v3")),
]


@pytest.mark.parametrize(("there", "missing"), FOLDERS)
def test_what_is_missing(there: list[str], missing: tuple[str, ...], tmp_path: Path) -> None:
    assert missing_files(put(tmp_path / "m", *there)) == missing


def test_the_index_says_which_shards_there_must_be(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", "config.json", "tokenizer.json", SHARDS[0])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}))
    assert missing_files(folder) == (SHARDS[1],)
    (folder / SHARDS[1]).write_text("")
    assert missing_files(folder) == ()
    for text in ("", "[]", "{", '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(text)
        assert missing_files(folder) == ("model.safetensors.index.json that can be read",)


def test_a_cache_that_is_not_there_or_not_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert (pulled(), local_folder("a/b"), local_folder("bundled")) == ([], None, None)
    put(tmp_path / "hub" / "models--a--b" / "refs", "main")
    put(tmp_path / "hub" / "models--broken")
    (tmp_path / "hub" / "models--a--c").write_text("")
    assert (pulled(), local_folder("a/b"), local_folder("a/c")) == ([], None, None)
    (tmp_path / "hub" / "models--a--b" / "refs" / "main").write_bytes(b"\xff../../..")
    assert local_folder("a/b") is None
    assert explain_absence("no name") == "no name: is no name on the hub, expected ORG/NAME or ORG/NAME@REVISION"


LICENCES = [
    ({"cardData": {"license": "apache-2.0"}}, "apache-2.0"),
    (
        {"cardData": {"license": "other", "license_name": "mnpl", "license_link": "https://example.org/l"}},
        "mnpl (https://example.org/l)",
    ),
    ({"cardData": {"license": ["mit", "bsd"]}}, "mit, bsd"),
    ({"tags": ["code", "license:mit"]}, "mit"),
    ({"cardData": {}, "tags": []}, "not stated"),
    ({}, "not stated"),
]


@pytest.mark.parametrize(("listing", "licence"), LICENCES)
def test_the_licence_of_a_listing(listing: dict, licence: str) -> None:
    assert _licence(ModelInfo(id="a/b", **listing)) == licence
