"""Text to ids and back, byte for byte; no text is ever a control token; lines stand alone."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.checkpoint import BUNDLED
from model.tokenizer import Tokenizer

TOKENIZER = Tokenizer(BUNDLED / "tokenizer.model")

CODE = ["def ", "self", ".", "(", ")", ":", "    ", "\n", "return", " = ", "0x1F", "\t", "'", "#"]
MARKS = ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "<0x0A>", "<0x41>", "<pad>"]
ODD = [
    "\u2581",
    "\x00",
    "\r\n",
    "\r",
    "\u00a0",
    "\ufeff",
    "\u200d",
    "é",
    "e\u0301",
    "ﬁ",
    "Ａ",
    "日本",
    "👩‍👩‍👧",
    "\U0010ffff",
    "  ",
    "\x1b",
    "\x85",
    "\u2028",
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
pieces = st.lists(st.sampled_from(CODE + MARKS + ODD), max_size=25).map("".join)
any_text = st.one_of(texts, pieces, st.tuples(pieces, texts, pieces).map("".join))


def control_ids() -> set[int]:
    return {i for i, piece in enumerate(TOKENIZER.pieces) if not piece}


@given(any_text)
@example("")
@example("\u2581")
@example("\u2581 \u2581\u2581")
@example(" leading and trailing ")
@example("a\x00b\x00")
@example("x = 1\r\n\ty\r\n")
@example("🙂\n👩‍👩‍👧")
@example("\ufeffimport os")
@example("\u1100\u1161 \u212b \ufb01")  # what Unicode normalisation would change
def test_round_trip(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert b"".join(TOKENIZER.pieces[i] for i in ids) == text.encode()


@given(any_text)
@example("".join(MARKS))
@example(" ".join(MARKS))
@example("<s>[SUFFIX]\n[PREFIX]</s>")
def test_no_text_is_a_control_token(text: str) -> None:
    assert not control_ids() & set(TOKENIZER.encode(text))


@pytest.mark.parametrize("mark", MARKS)
def test_a_text_that_spells_a_control_token_is_text(mark: str) -> None:
    for text in (mark, f" {mark}", f"{mark}{mark}", f"x{mark}y", f"\n{mark}\n"):
        ids = TOKENIZER.encode(text)
        assert not control_ids() & set(ids)
        assert TOKENIZER.decode(ids) == text


def test_control_tokens_are_there_and_differ() -> None:
    control = TOKENIZER.control
    ids = [control.bos, control.eos, control.inst, control.end_inst, control.prefix, control.middle, control.suffix]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= control_ids()
    assert TOKENIZER.decode(ids) == ""


@given(any_text, any_text)
@example("", "")
@example("a ", " b")
@example("\n", "\n")
@example("x\r", "\u2581")
def test_a_newline_is_a_barrier(above: str, below: str) -> None:
    assert TOKENIZER.encode(f"{above}\n{below}") == TOKENIZER.encode(f"{above}\n") + TOKENIZER.encode(below)


def test_only_one_piece_holds_a_newline() -> None:
    holders = [i for i, piece in enumerate(TOKENIZER.pieces) if b"\n" in piece and i != TOKENIZER.newline]
    assert TOKENIZER.pieces[TOKENIZER.newline] == b"\n"
    assert all(TOKENIZER.processor.is_byte(i) for i in holders)


def test_every_byte_has_a_token() -> None:
    assert {piece for piece in TOKENIZER.pieces if len(piece) == 1} == {bytes([byte]) for byte in range(256)}


def test_bytes_that_are_no_text_decode_to_the_replacement() -> None:
    emoji = [TOKENIZER.processor.piece_to_id(f"<0x{byte:02X}>") for byte in "🙂".encode()]
    assert TOKENIZER.decode(emoji) == "🙂"
    assert TOKENIZER.decode(emoji[:2]) == "\ufffd"


def starts() -> list[bytes]:
    pieces = [piece for piece in TOKENIZER.pieces if piece]
    cut = [piece[: 1 + number % len(piece)] for number, piece in enumerate(pieces[::37])]
    grown = [piece + b"zq" for piece in pieces[::211]]
    odd = [b"\xff", b"\xff\xff", b"\x00", "日".encode(), "日".encode()[:2], b"\n", b" ", b"    ", b"self.", b"\xf0\x9f"]
    return [*cut, *grown, *odd]


@pytest.mark.parametrize("start", [pytest.param(start, id=start.hex()) for start in starts()])
def test_extensions_are_those_that_brute_force_finds(start: bytes) -> None:
    longer, shorter = TOKENIZER.extensions(start)
    assert sorted(longer) == [i for i, piece in enumerate(TOKENIZER.pieces) if piece and piece.startswith(start)]
    assert sorted(shorter) == [
        i for i, piece in enumerate(TOKENIZER.pieces) if piece and piece != start and start.startswith(piece)
    ]
    assert TOKENIZER.extends(start) == any(
        len(piece) > len(start) and piece.startswith(start) for piece in TOKENIZER.pieces
    )
