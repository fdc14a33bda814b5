"""Damaged files: cut anywhere, bits flipped, headers made up. Always one line of our own or the sound model, never another exception, never much memory."""

import json
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from benchmarks.random_checkpoint import RandomSource, write_folder
from model.config import CheckpointError, ConfigError, Mamba2Config
from model.gguf_write import export_gguf
from model.safetensors_header import read_header
from model.source import open_source

CONFIG = Mamba2Config(d_model=32, n_layers=1, vocab_size=16, d_state=8, n_heads=2, head_dim=32, n_groups=2)
MISTRALS = Mamba2Config(d_model=32, n_layers=1, vocab_size=16, n_heads=1)
MAX_BYTES = 4 << 20  # that a reader may take at once; the files have 60 kB
FILES = {
    "hf": "model.safetensors",
    "hf config": "config.json",
    "mistral": "consolidated.safetensors",
    "mistral config": "params.json",
    "gguf": "m.gguf",
    "gguf q8_0": "m.gguf",
}


@pytest.fixture(scope="module", params=FILES)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, bytes]:
    """(what is opened, the file that gets damaged, its bytes)"""
    kind = request.param.partition(" ")[0]
    folder = tmp_path_factory.mktemp(kind) / "m"
    source = RandomSource(MISTRALS if kind == "mistral" else CONFIG)
    if kind == "gguf":
        folder.mkdir()
        export_gguf(source, folder / "m.gguf", kind=request.param.partition(" ")[2] or "bf16")
    else:
        write_folder(source, folder, mistral=kind == "mistral")
    file = folder / FILES[request.param]
    return (file if kind == "gguf" else folder), file, file.read_bytes()


def read_all(path: Path) -> str | None:
    """None where everything could be read, else the one line."""
    tracemalloc.start()
    try:
        source = open_source(str(path))
        for name in source.names():
            source.read(name)
    except ConfigError as error:
        line = str(error)
        assert "\n" not in line and str(path) in line and len(line) < 700, line
        return line
    else:
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MAX_BYTES


@given(data=st.data())
def test_a_file_cut_anywhere(sound: tuple[Path, Path, bytes], data: st.DataObject) -> None:
    path, file, content = sound
    keep = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(3000, len(content) - 1)))
    file.write_bytes(content[:keep])
    line = read_all(path)
    file.write_bytes(content)
    assert line is not None and read_all(path) is None


@given(data=st.data())
def test_flipped_bytes_of_a_header(sound: tuple[Path, Path, bytes], data: st.DataObject) -> None:
    path, file, content = sound
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, min(3000, len(content) - 1)))] = data.draw(st.integers(0, 255))
    file.write_bytes(damaged)
    read_all(path)
    file.write_bytes(content)


@given(data=st.data())
def test_numbers_of_a_header_that_promise_too_much(sound: tuple[Path, Path, bytes], data: st.DataObject) -> None:
    path, file, content = sound
    at = data.draw(st.integers(0, min(2000, len(content) - 8)))
    number = data.draw(st.sampled_from([2**64 - 1, 2**63, 2**62, 2**40, 2**33, 2**31, 10**9, 10**6, 0]))
    file.write_bytes(content[:at] + struct.pack("<Q", number) + content[at + 8 :])
    read_all(path)
    file.write_bytes(content)


def header(entries: object, *, data: bytes = b"", length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(start: int, end: int, *, dtype: object = "F32", shape: object = (1,)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


# Content of a safetensors file, and the words that the one line must have; None where it is sound.
HEADERS: dict[str, tuple[bytes, list[str] | None]] = {
    "sound": (header({"a": tensor(0, 4)}, data=b"1234"), None),
    "in another order": (header({"b": tensor(4, 8), "a": tensor(0, 4)}, data=bytes(8)), None),
    "with metadata": (header({"__metadata__": {"format": "pt"}, "a": tensor(0, 4)}, data=bytes(4)), None),
    "padded": (header(json.dumps({"a": tensor(0, 4)}).encode() + b"   ", data=bytes(4)), None),
    "no tensors": (header({}), None),
    "an empty tensor": (header({"a": tensor(0, 0, shape=(0, 5)), "b": tensor(0, 4)}, data=bytes(4)), None),
    "a number": (header({"a": tensor(0, 4, shape=())}, data=bytes(4)), None),
    "empty file": (b"", ["0 bytes in a file of 0"]),
    "seven bytes": (b"1234567", ["in a file of 7"]),
    "no header": (bytes(8), ["a header of 0 bytes"]),
    "header beyond the file": (header({}, length=3), ["a header of 3 bytes in a file of 10"]),
    "header beyond all": (header({}, length=2**64 - 1), [str(2**64 - 1)]),
    "a hundred megabytes": (header({}, length=100_000_001), ["100000001"]),
    "a list": (header([1]), ["no JSON object"]),
    "space before": (header(b' {"a": 1}'), ["no JSON object"]),
    "no text": (header(b"{\xff\xfe}"), ["header"]),
    "deep": (header(b'{"a":' + b"[" * 100_000), ["header"]),
    "long number": (header(b'{"a":' + b"1" * 10_000 + b"}"), ["header"]),
    "not an object": (header({"a": 1}), ["tensor 'a' is 1", "data_offsets"]),
    "missing key": (header({"a": {"dtype": "F32", "shape": [1]}}), ["'a'", "expected dtype, shape and data_offsets"]),
    "more keys": (header({"a": tensor(0, 4) | {"x": 1}}, data=bytes(4)), ["'a'", "expected dtype"]),
    "unknown type": (header({"a": tensor(0, 4, dtype="F31")}, data=bytes(4)), ["'a'", "'F31'", "expected F32"]),
    "type is a number": (header({"a": tensor(0, 4, dtype=1)}, data=bytes(4)), ["'a'"]),
    "negative": (header({"a": tensor(-4, 0)}, data=bytes(4)), ["'a'"]),
    "backwards": (header({"a": tensor(4, 0)}, data=bytes(4)), ["'a'", "expected 4"]),
    "negative shape": (header({"a": tensor(0, 4, shape=(-1, -1))}, data=bytes(4)), ["'a'"]),
    "real shape": (header({"a": tensor(0, 4, shape=(1.0,))}, data=bytes(4)), ["'a'"]),
    "true shape": (header({"a": tensor(0, 4, shape=(True,))}, data=bytes(4)), ["'a'"]),
    "huge shape": (header({"a": tensor(0, 4, shape=(2**62, 2**62))}, data=bytes(4)), ["'a'", "has 4 bytes"]),
    "too few bytes": (header({"a": tensor(0, 3)}, data=bytes(3)), ["'a'", "has 3 bytes, expected 4"]),
    "overlap": (header({"a": tensor(0, 4), "b": tensor(2, 6)}, data=bytes(6)), ["'b'", "begins at byte"]),
    "same place": (header({"a": tensor(0, 4), "b": tensor(0, 4)}, data=bytes(4)), ["begins at byte"]),
    "gap": (header({"a": tensor(0, 4), "b": tensor(8, 12)}, data=bytes(12)), ["'b'", "begins at byte"]),
    "bytes before": (header({"a": tensor(4, 8)}, data=bytes(8)), ["'a'", "begins at byte"]),
    "bytes after": (header({"a": tensor(0, 4)}, data=bytes(5)), ["bytes, expected"]),
    "one byte short": (header({"a": tensor(0, 4)}, data=bytes(3)), ["bytes, expected"]),
    "metadata of numbers": (header({"__metadata__": {"a": 1}}), ["__metadata__"]),
    "a name twice": (header(b'{"a":1,"a":1}'), ["'a' twice"]),
    "a name with a newline": (header({"a\nb": tensor(0, 3)}, data=bytes(3)), ["'a\\nb'"]),
    "a name of a surrogate": (header(b'{"\\ud800":1}'), ["ud800"]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_safetensors(tmp_path: Path, name: str) -> None:
    content, words = HEADERS[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    if words is None:
        assert library_reads(path)
        read_header(path)
        return
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 500
    line.encode()  # no lone surrogate, that no terminal could show
    assert [word for word in words if word not in line] == [], line


def library_reads(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("small") / "x.safetensors"
    save_file({"a": torch.ones(3, 4), "b.weight": torch.zeros(2, dtype=torch.bfloat16)}, path, {"format": "pt"})
    return path, path.read_bytes()


@given(data=st.data())
def test_what_we_take_the_library_takes(small_file: tuple[Path, bytes], data: st.DataObject) -> None:
    """And what it refuses so do we: its rules are ours. We refuse more: unknown keys, names given twice."""
    path, content = small_file
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        damaged[at] = data.draw(st.integers(0, 255) | st.sampled_from(list(b'0123456789,:[]{}" ')))
    path.write_bytes(damaged)
    try:
        found = read_header(path)
    except CheckpointError:
        return
    assert library_reads(path)
    with safe_open(path, framework="pt") as library:
        for name, entry in found.items():
            assert tuple(library.get_slice(name).get_shape()) == entry.shape
            assert library.get_slice(name).get_dtype() == entry.dtype
