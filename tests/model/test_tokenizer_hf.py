"""tokenizer.json: the same tokens as the tokenizers library gives for the file as it is, but no text lost and no control token made; what is refused."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from model.config import ConfigError
from model.tokenizer_files import read_tokenizer
from model.tokenizer_hf import HFTokenizer
from model.tokenizer_json import bytes_alphabet
from tests.model.vocabularies import from_json, neox, neox_json, source_files


def library() -> tokenizers.Tokenizer:
    """The file as it is, but for the space that it puts before a text."""
    tokenizer = tokenizers.Tokenizer.from_str(neox_json())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def test_the_tokens_are_those_of_the_library() -> None:
    theirs = library()
    alike = {
        path: text
        for path, text in source_files().items()
        if not any(mark in text for mark in ("<|", "<fim_", "+++++"))  # what the library makes of these: below
    }
    assert len(alike) > 20
    for path, text in alike.items():
        assert neox().encode(text) == theirs.encode(text).ids, path


# (text, whether the file as it is loses it or makes a control token of it)
LOSSES = [
    ("e\u0301", True),
    ("x +++++ y", True),
    ("<|endoftext|>", True),
    ("a<fim_prefix>b", True),
    ("\u2581 x", False),
]


@pytest.mark.parametrize(("text", "is_lost"), LOSSES)
def test_what_the_file_as_it_is_loses_is_kept(text: str, is_lost: bool) -> None:
    theirs, control = library(), {i for i, piece in enumerate(neox().pieces) if not piece}
    ids = theirs.encode(text).ids
    assert (theirs.decode(ids) != text or bool(control & set(ids))) == is_lost
    assert neox().decode(neox().encode(text)) == text
    assert not control & set(neox().encode(text))


def test_runs_of_spaces_are_the_added_tokens() -> None:
    ids = neox().encode("x\n        return")
    assert [neox().pieces[i] for i in ids][:3] == [b"x", b"\n", b" " * 8]


def model_of(vocab: list[str], merges: list[str], **more: Any) -> dict[str, Any]:
    """A small vocabulary over letters with byte fallback: <s>, </s>, the 256 bytes, then `vocab`."""
    names = ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *vocab]
    ids = {name: i for i, name in enumerate(names)}
    return {"type": "BPE", "vocab": ids, "merges": merges, "byte_fallback": True} | more


SPECIAL = [{"id": 0, "content": "<s>", "special": True}, {"id": 1, "content": "</s>", "special": True}]


def small(
    vocab: list[str], merges: list[str], *, added: list[dict[str, Any]] | None = None, **parts: Any
) -> HFTokenizer:
    data = {"added_tokens": SPECIAL + (added or []), "model": model_of(vocab, merges), **parts}
    return from_json(json.dumps(data))


def test_a_word_none_is_not_the_unknown_token_that_is_none() -> None:
    data = {"added_tokens": SPECIAL, "model": model_of(["None"], [], unk_token=None)}
    assert from_json(json.dumps(data)).pieces[258] == b"None"


def test_merges_to_a_control_token_are_left_out() -> None:
    """Conversions of sentencepiece models make such merges, as they try all pairs of pieces."""
    tokenizer = small(["<", "s", ">", "<s", "/s"], ["< s", "<s >"])
    assert [tokenizer.pieces[i] for i in tokenizer.encode("<s>")] == [b"<s", b">"]


def test_merges_to_the_name_of_a_byte_are_left_out() -> None:
    tokenizer = small(["<0x4", "1", ">", "1>"], ["1 >", "<0x4 1>"])
    assert tokenizer.decode(tokenizer.encode("<0x41>")) == "<0x41>"


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace_puts_no_space_before_a_text(scheme: str) -> None:
    splitter = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}
    tokenizer = small(["\u2581", "a", "\u2581a"], ["\u2581 a"], pre_tokenizer=splitter)
    assert [tokenizer.pieces[i] for i in tokenizer.encode("a a")] == [b"a", b" a"]
    assert [tokenizer.pieces[i] for i in tokenizer.encode("a", dummy_prefix=True)] == [b" a"]


def test_an_added_token_of_text_is_text() -> None:
    """Also where it stands in a text whose spaces are marked."""
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    added = [
        {"id": 259, "content": "    ", "special": False},
        {"id": 260, "content": "==", "special": False, "lstrip": True},
    ]
    tokenizer = small(["\u2581"], [], added=added, normalizer=mark)
    assert [tokenizer.pieces[i] for i in tokenizer.encode("x     ==")] == [b"x", b"    ", b" ", b"=="]


def test_a_mark_without_a_token_is_refused() -> None:
    """It would fall back to the bytes of the mark, which are no space."""
    with pytest.raises(ConfigError, match="' ' is the tokens"):
        small([], [], normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})


def test_fill_in_tokens_are_control_tokens_even_where_they_are_not_called_special() -> None:
    names = ["<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"]
    added = [{"id": 258 + n, "content": name, "special": False} for n, name in enumerate(names)]
    tokenizer = small([], [], added=added)
    control = tokenizer.control
    assert (control.prefix, control.middle, control.suffix) == (258, 259, 260)
    assert not {258, 259, 260} & set(tokenizer.encode("".join(names)))


@pytest.mark.parametrize(
    ("config", "bos", "eos"),
    [
        (None, 0, 1),
        ({}, 0, 1),
        ({"eos_token": "<|im_end|>"}, 0, 258),
        ({"bos_token": {"content": "<|im_end|>"}, "eos_token": None}, 258, 1),
        ({"eos_token": "<|not there|>"}, 0, 1),
    ],
)
def test_the_config_beside_the_file_names_the_ends(config: dict | None, bos: int, eos: int, tmp_path: Path) -> None:
    added = [*SPECIAL, {"id": 258, "content": "<|im_end|>", "special": True}]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": added, "model": model_of([], [])}))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    control = read_tokenizer(path).control
    assert (control.bos, control.eos) == (bos, eos)


def test_a_vocabulary_without_a_first_token_uses_its_last() -> None:
    data = {"added_tokens": SPECIAL[1:], "model": model_of([], [])}
    del data["model"]["vocab"]["<s>"]
    assert from_json(json.dumps(data)).control.bos == 1


def test_characters_that_do_not_exist_become_the_replacement_where_the_vocabulary_lacks_their_byte() -> None:
    """StarCoder's has no token for 0xF1, as nothing it was trained on begins with it."""
    data = json.loads(neox_json())
    del data["model"]["vocab"][chr(0xF1)]  # in GPT-2's letters the byte 0xF1
    tokenizer = from_json(json.dumps(data))
    assert tokenizer.decode(tokenizer.encode("a\U00040000b\U0010ffff")) == "a\ufffdb\U0010ffff"


Change = Callable[[dict[str, Any]], None]


def put(*path: str | int, value: Any) -> Change:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def without(*path: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def renamed(old: str, new: str) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["added_tokens"] = [
            token | {"content": token["content"].replace(old, new)} for token in data["added_tokens"]
        ]
        data["model"]["vocab"] = {name.replace(old, new): i for name, i in data["model"]["vocab"].items()}

    return change


REFUSED: dict[str, tuple[Change, list[str]]] = {
    "no model": (without("model"), ["no model", "tokenizer.json"]),
    "unigram": (put("model", "type", value="Unigram"), ["'Unigram'", "'BPE'"]),
    "word pieces": (put("model", "continuing_subword_prefix", value="##"), ["continuing_subword_prefix", "'##'"]),
    "no merges": (without("model", "merges"), ["merges"]),
    "an id that is none": (put("model", "vocab", "x", value="7"), ["'x'", "'7'", "number"]),
    "an id without end": (put("model", "vocab", "xyzzy", value=10**12), ["'xyzzy'", str(10**12)]),
    "an id below zero": (put("model", "vocab", "xyzzy", value=-1), ["'xyzzy'", "-1"]),
    "two ids": (put("model", "vocab", "<|padding|>", value=77), ["<|padding|>", "77", "expected one"]),
    "added tokens of another form": (put("added_tokens", value=["x"]), ["added_tokens", "'x'"]),
    "lower case": (put("normalizer", value={"type": "Lowercase"}), ["Lowercase", "changes texts"]),
    "another replacement": (
        put("normalizer", value={"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
        ["Replace", "changes texts"],
    ),
    "white space removed": (put("pre_tokenizer", value={"type": "WhitespaceSplit"}), ["WhitespaceSplit", "loses text"]),
    "what a split removes": (
        put("pre_tokenizer", value={"type": "Split", "pattern": {"String": "a"}, "behavior": "Removed"}),
        ["Removed", "loses text"],
    ),
    "no way for bytes": (put("pre_tokenizer", value=None), ["byte_fallback", "expected"]),
    "a byte without a token": (without("model", "vocab", "Ġ"), ["0x20", "no token"]),
    "no end": (renamed("<|endoftext|>", "<|fin|>"), ["ends a text", "<|endoftext|>"]),
    "an expression that is none": (
        put(
            "pre_tokenizer",
            value={
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            },
        ),
        ["tokenizers library"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    change, said = REFUSED[name]
    data = json.loads(neox_json())
    change(data)
    with pytest.raises(ConfigError) as error:
        from_json(json.dumps(data))
    line = str(error.value)
    assert line.startswith("tokenizer.json: ") and "\n" not in line
    assert [part for part in said if part not in line] == []


def nodes(data: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in a JSON document; of long lists and objects only those of the first ones."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items)[:12]:
        yield from nodes(value, (*path, key))


ANYTHING = [None, 3, -1, True, 1.5, "x", "", [], {}, [[1]], [None], {"type": "Sequence"}, {"type": []}, ["a", "b", "c"]]
ANY_TEXT = " ab  x\u2581\n\t<s>é<0x41>🙂"


def test_any_value_anywhere_is_one_line_or_a_tokenizer_that_loses_nothing() -> None:
    mark = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    llama_like = {"added_tokens": SPECIAL, "normalizer": mark, "model": model_of(["\u2581", "a", "ab", "b"], ["a b"])}
    byte_level = {
        "added_tokens": SPECIAL,
        "pre_tokenizer": {"type": "ByteLevel"},
        "model": {"type": "BPE", "merges": []},
    }
    byte_level["model"]["vocab"] = {"<s>": 0, "</s>": 1} | {letter: 2 + n for n, letter in enumerate(bytes_alphabet())}
    refused, kept = [], 0
    for document in (llama_like, byte_level):
        for *path, last in filter(None, nodes(document)):
            for value in ANYTHING:
                data = copy.deepcopy(document)
                put(*path, last, value=value)(data)
                try:
                    tokenizer = from_json(json.dumps(data))
                except ConfigError as error:
                    refused.append(str(error))
                else:
                    kept += 1
                    assert tokenizer.decode(tokenizer.encode(ANY_TEXT)) == ANY_TEXT
    assert len(refused) > 300 and kept > 30
    assert [line for line in refused if "\n" in line] == []


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b"", b'{"model": 3}', b'{"model": {"merges": [], "vocab": {}}}']
)
def test_files_that_are_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_tokenizer(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
