"""One state in one file: it comes back bit for bit, the library of the format reads it, and nothing that is damaged is believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import blake3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from cache.chain import Chain, as_tokens
from cache.snapshot_file import (
    DTYPES,
    MAX_HEADER_BYTES,
    PIECE_BYTES,
    DamageError,
    Draft,
    check_whole,
    read_arrays,
    read_chain,
    read_header,
)
from tests.cache.disk_parts import FINGERPRINT, ROOT, make_arrays, make_chain, same


def write(path: Path, chain: Chain, arrays: dict[str, np.ndarray], **note: object) -> bytes:
    draft = Draft(chain, arrays, fingerprint=FINGERPRINT, made_at=12.5, note=note)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        draft.write(file)
    finally:
        os.close(file)
    assert path.stat().st_size == draft.nbytes
    return path.read_bytes()


def read(
    path: Path, look: Callable = lambda file, header: (read_chain(file, header), read_arrays(file, header))
) -> object:
    file = os.open(path, os.O_RDONLY)
    try:
        return look(file, read_header(file))
    finally:
        os.close(file)


SHAPES = [(), (0,), (0, 3), (1,), (3, 5), (2, 3, 4, 5), (PIECE_BYTES + 1,)]
CHAINS = [
    make_chain(),
    make_chain(kinds=("base",), n_slices=1, n_tokens=1),
    make_chain(kinds=("base", "hot", "head", "suffix", "prefix", "line"), n_slices=5),
    ROOT.extend("base", [(as_tokens([0, 65535]), True)]),
    ROOT.extend("base", [(as_tokens([0, 65536]), True)]),
    ROOT.extend("base", [(as_tokens([-1, 3]), True), (as_tokens([2**31 - 1]), False)]),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_comes_back(chain: Chain, tmp_path: Path) -> None:
    write(tmp_path / "s", chain, {})
    found = read(tmp_path / "s", read_chain)
    assert found.root == chain.root and found.n_tokens == chain.n_tokens
    assert len(found.slices) == len(chain.slices)
    for a, b in zip(found.slices, chain.slices, strict=True):
        assert (a.kind, a.keep, a.key, a.end) == (b.kind, b.keep, b.key, b.end)
        assert np.array_equal(a.tokens, b.tokens) and a.tokens.dtype == np.int32 and not a.tokens.flags.writeable


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_of_every_type_come_back(shape: tuple[int, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    arrays = {name: (random.standard_normal(shape) * 50).astype(dtype) for name, dtype in DTYPES.items()}
    arrays["turned"] = (
        (random.standard_normal((4, *shape)) * 50).astype(np.float32).T
    )  # not in C order: copied, not refused
    write(tmp_path / "s", make_chain(), arrays)
    same(read(tmp_path / "s")[1], arrays)


def test_the_library_reads_it(tmp_path: Path) -> None:
    arrays = make_arrays()
    write(tmp_path / "s", make_chain(), arrays)
    found = load_file(tmp_path / "s")
    assert {name for name in found if name.startswith("chain.")} == {
        "chain.tokens",
        "chain.lengths",
        "chain.kinds",
        "chain.keep",
    }
    same({name: array for name, array in found.items() if not name.startswith("chain.")}, arrays)
    assert found["chain.tokens"].tolist() == np.concatenate([part.tokens for part in make_chain().slices]).tolist()


def test_the_header_says_what_it_is(tmp_path: Path) -> None:
    note = {"cost_tokens": 5, "about": 'src/ä\n"header_blake3":"' + "0" * 64}
    data = write(tmp_path / "s", make_chain(), make_arrays(), **note)
    header = read(tmp_path / "s", lambda file, header: header)
    assert header.note == note and header.key == make_chain().tip and header.root == ROOT.root
    assert (header.fingerprint, header.kind, header.made_at, header.nbytes) == (FINGERPRINT, "hot", 12.5, len(data))
    first = min(place.start for place in header.places.values())
    assert first % 64 == 0 and all(place.start % place.dtype.itemsize == 0 for place in header.places.values())


def test_a_long_note_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", make_chain(), {}, about="x" * 1_000_000)
    assert len(read(tmp_path / "s", lambda file, header: header).note["about"]) == 1_000_000
    with pytest.raises(DamageError, match="too long"):
        write(tmp_path / "s", make_chain(), {}, about="x" * MAX_HEADER_BYTES)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_neither_written_nor_read(dtype: type, value: float, tmp_path: Path, monkeypatch) -> None:
    array = np.ones(PIECE_BYTES, dtype)
    array[-2] = value
    with pytest.raises(DamageError, match="NaN or infinite"):
        write(tmp_path / "s", make_chain(), {"a": array})
    assert (tmp_path / "s").stat().st_size == 0 or b"header_blake3" not in (tmp_path / "s").read_bytes()
    with monkeypatch.context() as careless:
        careless.setattr("cache.snapshot_file._check_finite", lambda *_: None)
        write(tmp_path / "s", make_chain(), {"a": array})
    with pytest.raises(DamageError, match="NaN or infinite"):
        read(tmp_path / "s")


@pytest.mark.parametrize(
    "array", [np.ones(2, np.complex64), np.array(["a"]), np.ones(2, bool), np.ones(2, ">f4"), np.array([None])]
)
def test_other_types_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="array 'a' is of type"):
        write(tmp_path / "s", make_chain(), {"a": array})


@pytest.mark.parametrize("name", ["chain.tokens", "__metadata__"])
def test_our_own_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="expected another name"):
        write(tmp_path / "s", make_chain(), {name: np.ones(1)})


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "s"
    whole = write(path, make_chain(), make_arrays(), cost_tokens=3)
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1 << (position * 5 % 8)
        path.write_bytes(bad)
        with pytest.raises(DamageError):
            read(path)
        with pytest.raises(DamageError):
            read(path, check_whole)


@given(data=st.data())
def test_damage_of_any_shape_is_found(data, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("damage") / "s"
    whole = write(path, make_chain(), make_arrays(), cost_tokens=3)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 200)))
    bad = whole[:start] + data.draw(st.binary(max_size=200)) + whole[stop:]
    path.write_bytes(bad)
    if bad == whole:
        same(read(path)[1], make_arrays())
    else:
        with pytest.raises(DamageError):
            read(path)


def test_truncation_at_every_length_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    whole = write(path, make_chain(), make_arrays())
    for length in [*range(len(whole)), len(whole) + 1]:
        path.write_bytes((whole + b"\0")[:length])
        with pytest.raises(DamageError):
            read(path)


def signed(header: object) -> bytes:
    """A header with the right digest, whatever it says: as a program would write it that means harm, or has a bug."""
    text = json.dumps(header, separators=(",", ":")).encode() if not isinstance(header, bytes) else header
    whole = len(text).to_bytes(8, "little") + text
    return whole.replace(b"0" * 64, blake3.blake3(whole).hexdigest().encode(), 1)


def forged(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def forge(whole: bytes) -> bytes:
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        header["__metadata__"]["header_blake3"] = "0" * 64
        header = change(header) or header
        return signed(header) + whole[8 + length :]

    return forge


def in_metadata(**values: object) -> Callable[[dict], object]:
    return lambda header: header["__metadata__"].update(values)


def in_tensor(name: str, **values: object) -> Callable[[dict], object]:
    return lambda header: header[name].update(values)


NESTED = b'{"__metadata__":{"header_blake3":"' + b"0" * 64 + b'"},"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
FORGERIES = {
    "nothing changed": lambda header: None,
    "format": in_metadata(format="codestral-lsp-state-0"),
    "key": in_metadata(key="00" * 32),
    "key no hex": in_metadata(key="zz"),
    "root": in_metadata(root="00" * 32),
    "kind": in_metadata(kind="base"),
    "kinds": in_metadata(kinds='["base","cold"]'),
    "one kind less": in_metadata(kinds='["base"]'),
    "kinds no list": in_metadata(kinds="{}"),
    "kinds of numbers": in_metadata(kinds="[1,2]"),
    "n_tokens": in_metadata(n_tokens="29"),
    "n_tokens no number": in_metadata(n_tokens="many"),
    "made_at": in_metadata(made_at="nan"),
    "note no object": in_metadata(note="[]"),
    "note no JSON": in_metadata(note="{"),
    "metadata a list": lambda header: header.update({"__metadata__": ["header_blake3", "0" * 64]}),
    "a list": lambda header: [header],
    "no metadata": lambda header: {"header_blake3": "0" * 64},
    "no tokens": lambda header: header.pop("chain.tokens") and None,
    "type": in_tensor("ssm", dtype="F12"),
    "shape": in_tensor("ssm", shape=[2, 17]),
    "negative shape": in_tensor("ssm", shape=[-2, -16]),
    "shape of texts": in_tensor("ssm", shape=["2", 16]),
    "shape of truth": in_tensor("ssm", shape=[True, 32]),
    "no shape": in_tensor("ssm", shape=None),
    "huge shape of nothing": in_tensor("ssm", shape=[0, 1 << 62], data_offsets=[0, 0]),
    "huge shape": in_tensor("ssm", shape=[1 << 62, 4], data_offsets=[0, 1 << 65]),
    "offsets": in_tensor("ssm", data_offsets=[0, 64]),
    "three offsets": in_tensor("ssm", data_offsets=[0, 64, 1]),
    "offsets of texts": in_tensor("ssm", data_offsets=["0", "64"]),
    "a tensor of its own": lambda header: header.update(more={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
    "lengths as tokens": lambda header: header.update(
        {"chain.tokens": header["chain.lengths"], "chain.lengths": header["chain.tokens"]}
    ),
    "nested": lambda header: NESTED,
    "no JSON": lambda header: b'"header_blake3":"' + b"0" * 64 + b'"',
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_header_with_the_right_digest_is_still_not_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    whole = write(path, make_chain(), make_arrays())
    path.write_bytes(forged(FORGERIES[name])(whole))
    if name == "nothing changed":
        same(read(path)[1], make_arrays())
        return
    with pytest.raises(DamageError) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_length_beyond_all_files_is_not_believed(tmp_path: Path) -> None:
    for length in (0, 1, 2, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1, (1 << 63) - 1, (1 << 64) - 1):
        (tmp_path / "s").write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(DamageError):
            read(tmp_path / "s")
