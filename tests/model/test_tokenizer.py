"""What holds for every tokenizer: text to ids and back, byte for byte; no text is ever a control token; where lines stand alone, they do."""

import pytest
from hypothesis import example, given, settings

from model.tokenizer import Tokenizer, after_all_with
from tests.model.vocabularies import (
    KINDS,
    MARKS,
    any_text,
    bundled,
    codestral,
    gguf_bundled,
    gguf_codestral,
    gguf_neox,
    llama,
    neox,
    source_files,
)

of_every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)


def control_ids(tokenizer: Tokenizer) -> set[int]:
    return {i for i, piece in enumerate(tokenizer.pieces) if not piece}


@of_every_kind
@given(text=any_text)
@example(text="")
@example(text="\u2581")
@example(text="\u2581 \u2581\u2581")
@example(text=" leading and trailing ")
@example(text="a\x00b\x00")
@example(text="x = 1\r\n\ty\r\n")
@example(text="🙂\n👩‍👩‍👧")
@example(text="\ufeffimport os")
@example(text="\u1100\u1161 \u212b \ufb01")  # what Unicode normalisation would change
@example(text="x +++++ y")  # an added token that swallows white space, were it let
@example(text="".join(MARKS))
@example(text=" ".join(MARKS))
@example(text="<s>[SUFFIX]\n[PREFIX]</s>")
def test_a_text_survives_and_is_no_control_token(make, text: str) -> None:
    tokenizer = make()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.pieces[i] for i in ids) == text.encode()
    assert not control_ids(tokenizer) & set(ids)
    assert not set(tokenizer.unsaid) & set(ids)


@of_every_kind
def test_files_survive(make) -> None:
    for path, text in source_files().items():
        assert make().decode(make().encode(text)) == text, path


@of_every_kind
@pytest.mark.parametrize("mark", MARKS)
def test_a_text_that_spells_a_control_token_is_text(make, mark: str) -> None:
    tokenizer = make()
    for text in (mark, f" {mark}", f"{mark}{mark}", f"x{mark}y", f"\n{mark}\n"):
        ids = tokenizer.encode(text)
        assert not control_ids(tokenizer) & set(ids)
        assert tokenizer.decode(ids) == text


ROLES = ("bos", "eos", "inst", "end_inst", "prefix", "middle", "suffix")
MISTRAL = (1, 2, 3, 4, 11, 12, 13)
BUNDLED_IDS = (1, 2, 3, 4, 5, 6, 7)
NEOX = (0, 0, None, None, 2, 3, 4)


@pytest.mark.parametrize(
    ("make", "expected", "newline", "lines"),
    [
        (bundled, BUNDLED_IDS, 8, True),
        (gguf_bundled, BUNDLED_IDS, 8, True),
        (codestral, MISTRAL, 781, True),
        (llama, MISTRAL, 781, True),
        (gguf_codestral, MISTRAL, 781, True),
        (neox, NEOX, None, False),
        (gguf_neox, NEOX, None, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_control_tokens(make, expected: tuple, newline: int | None, lines: bool) -> None:
    tokenizer = make()
    control = tokenizer.control
    assert tuple(getattr(control, role) for role in ROLES) == expected
    ids = {i for i in expected if i is not None}
    assert ids <= control_ids(tokenizer) and tokenizer.decode(list(ids)) == ""
    assert set(tokenizer.unsaid) == control_ids(tokenizer) - {control.eos}
    assert tokenizer.pieces[tokenizer.newline] == b"\n"
    assert newline in (None, tokenizer.newline)
    assert tokenizer.lines_stand_alone == lines


LINES_STAND_ALONE = [make for make in KINDS if make not in (neox, gguf_neox)]


@pytest.mark.parametrize("make", LINES_STAND_ALONE, ids=lambda make: make.__name__)
@given(above=any_text, below=any_text)
@example(above="", below="")
@example(above="a ", below=" b")
@example(above="\n", below="\n")
@example(above="x\r", below="\u2581")
@example(above="    \n    ", below="    return\n\n")
def test_a_newline_is_a_barrier(make, above: str, below: str) -> None:
    encode = make().encode
    assert encode(f"{above}\n{below}") == encode(f"{above}\n") + encode(below)


def test_a_vocabulary_of_merged_newlines_does_not_claim_that_lines_stand_alone() -> None:
    """Lines one by one are the same text in other tokens."""
    encode, text = neox().encode, "x\n\n\ny\n"
    assert b"\n\n" in neox().pieces
    apart = [i for line in text.splitlines(keepends=True) for i in encode(line)]
    assert encode(text) != apart
    assert neox().decode(apart) == text


@pytest.mark.parametrize("make", LINES_STAND_ALONE, ids=lambda make: make.__name__)
def test_blocks_of_lines_change_nothing(make) -> None:
    """Long texts are encoded in blocks; the library in one go, called past `encode`, says the same."""
    text = "".join(source_files().values())[:150_000].replace("\u2581", "")
    assert len(text) > 100_000
    assert make().encode(text) == make()._encode(text)


@of_every_kind
@settings(max_examples=30)
@given(text=any_text)
def test_the_dummy_prefix_is_a_space(make, text: str) -> None:
    tokenizer = make()
    assert tokenizer.encode(text, dummy_prefix=True) == (tokenizer.encode(f" {text}") if text else [])
    assert tokenizer.encode("x") != tokenizer.encode(" x")


@of_every_kind
def test_lone_surrogates_have_no_bytes(make) -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        make().encode("x\ud800y")


@of_every_kind
def test_bytes_that_are_no_text_decode_to_the_replacement(make) -> None:
    tokenizer = make()
    of_byte = {piece[0]: i for i, piece in enumerate(tokenizer.pieces) if len(piece) == 1}
    ids = [of_byte[byte] for byte in "🙂".encode()]
    assert tokenizer.decode(ids) == "🙂"
    assert tokenizer.decode(ids[:2]) == "\ufffd"


@of_every_kind
def test_digests_tell_vocabularies_apart(make) -> None:
    assert [other.__name__ for other in KINDS if other().digest == make().digest] == [make.__name__]


def starts(tokenizer: Tokenizer) -> list[bytes]:
    pieces = [piece for piece in tokenizer.pieces if piece]
    step = max(1, len(pieces) // 60)
    cut = [piece[: 1 + number % len(piece)] for number, piece in enumerate(pieces[::step])]
    grown = [piece + b"zq" for piece in pieces[:: 4 * step]]
    odd = [b"\xff", b"\xff\xff", b"\x00", "日".encode(), "日".encode()[:2], b"\n", b" ", b"    ", b"self.", b"\xf0\x9f"]
    return [*cut, *grown, *odd]


@of_every_kind
def test_extensions_are_those_that_brute_force_finds(make) -> None:
    tokenizer = make()
    pieces = list(enumerate(tokenizer.pieces))
    for start in starts(tokenizer):
        longer, shorter = tokenizer.extensions(start)
        with_start = [i for i, piece in pieces if piece and piece.startswith(start)]
        assert sorted(longer) == with_start
        assert sorted(shorter) == [i for i, piece in pieces if piece and piece != start and start.startswith(piece)]
        assert tokenizer.extends(start) == any(tokenizer.pieces[i] != start for i in with_start)


@pytest.mark.parametrize(
    ("start", "end"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\x00", b"\x01"), (b"\xff\xff", None), (b"", None)]
)
def test_the_end_of_all_with_a_start(start: bytes, end: bytes | None) -> None:
    assert after_all_with(start) == end
