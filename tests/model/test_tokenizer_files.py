"""Which file a folder's tokenizer is read from, foreign sentencepiece models, and what is said about files that are none."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece

from model.config import ConfigError, Mamba2Config
from model.tokenizer_files import load_tokenizer, read_tokenizer
from model.tokenizer_spm import SentencePieceTokenizer
from tests.model.vocabularies import CODESTRAL, HOUSE, bundled, codestral, neox, neox_json, source_files

BUNDLED = HOUSE / "model" / "bundled" / "tokenizer.model"
CONFIG = Mamba2Config(
    d_model=64, n_layers=1, vocab_size=32768, d_state=16, n_heads=4, head_dim=32, n_groups=1
)  # only vocab_size counts here


def put(folder: Path, name: str) -> None:
    if name.endswith(".json"):
        (folder / name).write_text(neox_json())
    else:
        shutil.copy(CODESTRAL if name.endswith(".v3") else BUNDLED, folder / name)


# (files in the folder, whose vocabulary is loaded)
ORDER = [
    (["tokenizer.model.v3"], codestral),
    (["tokenizer.model"], bundled),
    (["tokenizer.model.v1"], bundled),
    (["tokenizer.model.v7"], bundled),
    (["tokenizer.json"], neox),
    (["tokenizer.model", "tokenizer.model.v3", "tokenizer.json"], codestral),
    (["tokenizer.model.v3", "tokenizer.model.v7"], codestral),
    (["tokenizer.model", "tokenizer.json"], bundled),
    (["tokenizer.model.v1", "tokenizer.json"], bundled),
]


@pytest.mark.parametrize(("names", "expected"), ORDER)
def test_the_order_of_files(names: list[str], expected, tmp_path: Path) -> None:
    for name in names:
        put(tmp_path, name)
    text = "def f(x):\n    return x\n"
    assert load_tokenizer(tmp_path, CONFIG).encode(text) == expected().encode(text)


def test_the_newest_of_several_versions(tmp_path: Path) -> None:
    put(tmp_path, "tokenizer.model.v7")
    (tmp_path / "tokenizer.model.v11").write_bytes(CODESTRAL.read_bytes())
    assert load_tokenizer(tmp_path, CONFIG).digest == codestral().digest


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_tokenizer(tmp_path, CONFIG)
    for part in ("tokenizer.model: no such file", "tokenizer.model.v3", "tokenizer.json"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["tokenizer.model.v3", "tokenizer.json"])
def test_more_tokens_than_the_model(name: str, tmp_path: Path) -> None:
    put(tmp_path, name)
    size = read_tokenizer(tmp_path / name).vocab_size
    load_tokenizer(tmp_path, replace(CONFIG, vocab_size=size))
    with pytest.raises(ConfigError, match=f"{name}: {size} pieces, expected at most .* {size - 1}$"):
        load_tokenizer(tmp_path, replace(CONFIG, vocab_size=size - 1))


def test_rows_that_no_token_has_are_never_said(tmp_path: Path) -> None:
    put(tmp_path, "tokenizer.model.v3")
    tokenizer = load_tokenizer(tmp_path, replace(CONFIG, vocab_size=32800))
    assert tokenizer.vocab_size == 32768 and len(tokenizer.pieces) == 32800
    assert set(tokenizer.unsaid) == {*codestral().unsaid, *range(32768, 32800)}
    assert tokenizer.decode([1053, 32799]) == codestral().decode([1053])
    assert tokenizer.extensions(b"re") == codestral().extensions(b"re")
    assert codestral().pieces == tokenizer.pieces[:32768]  # the unpadded one is as it was


def trained(**options: object) -> bytes:
    """A small sentencepiece model of this repository."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("".join(source_files().values()).splitlines()[:3000]),
        model_writer=model,
        vocab_size=600,
        minloglevel=2,
        **({"byte_fallback": True} | options),
    )
    return model.getvalue()


TEXT = "  def f(x):\n\treturn  x  # ﬁ Ａ e\u0301\n\n"


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_a_foreign_model_s_normalisation_is_switched_off(model_type: str) -> None:
    """By default sentencepiece trims, joins spaces, applies NFKC and puts a space before the text."""
    data = trained(model_type=model_type, control_symbols=["<fim_prefix>", "<fim_suffix>"])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert theirs.decode(theirs.encode(TEXT)) != TEXT
    tokenizer = SentencePieceTokenizer(data, "foreign.model")
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.encode("return x", dummy_prefix=True) == theirs.encode("return x")
    control = tokenizer.control
    assert (control.bos, control.eos, control.prefix, control.middle) == (
        1,
        2,
        theirs.piece_to_id("<fim_prefix>"),
        None,
    )
    assert (tokenizer.vocabulary() is None) == (model_type == "unigram")


REFUSED = {
    "no way for bytes": (lambda: trained(byte_fallback=False), ["no token for the byte 0x00"]),
    "whole words": (lambda: trained(model_type="word"), ["of type 3", "BPE"]),
    "no end": (lambda: trained(eos_id=-1), ["ends a text", "</s>"]),
    "empty": (lambda: b"", ["empty", "sentencepiece"]),
    "garbage": (lambda: b"garbage" * 9, ["not a sentencepiece model"]),
    "JSON": (lambda: b'{"model": {}}', ["not a sentencepiece model"]),
    "half": (lambda: CODESTRAL.read_bytes()[:300_000], ["not a sentencepiece model", "cut short"]),
    "the last byte is missing": (lambda: CODESTRAL.read_bytes()[:-1], ["not a sentencepiece model"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    make, said = REFUSED[name]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(make())
    with pytest.raises(ConfigError) as error:
        read_tokenizer(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert [part for part in said if part not in line] == []


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokenizer(tmp_path)
