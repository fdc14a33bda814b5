"""A digest changes with the files' bytes, is remembered by their identity, and nothing in the place where it is kept can break a start."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model import digest
from model.config import ConfigError
from model.digest import cache_folder, digest_of, made_folder

FAKE = "ab" * 32


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files of a model whose digest is kept at once."""
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "SETTLED_S", 0.0)
    (tmp_path / "m").mkdir()
    made = [tmp_path / "m" / "config.json", tmp_path / "m" / "weights"]
    made[0].write_bytes(b"{}")
    made[1].write_bytes(b"123" * 1000)
    return made


def kept() -> list[Path]:
    return sorted((cache_folder() / "digests").glob("*"))


def plant_fake() -> None:
    """What is remembered is now told apart from what is hashed."""
    data = json.loads(kept()[0].read_text())
    kept()[0].write_text(json.dumps(data | {"digest": FAKE}))


def test_it_is_hashed_once(files: list[Path]) -> None:
    said: list[tuple[int, int, str]] = []
    first = digest_of(files, lambda *progress: said.append(progress))
    assert len(first) == 32
    assert said[-1] == (3002, 3002, "checking the weights")
    assert len(kept()) == 1
    assert kept()[0].stat().st_mode & 0o777 == 0o600
    assert kept()[0].parent.stat().st_mode & 0o777 == 0o700
    plant_fake()
    assert digest_of(files) == bytes.fromhex(FAKE)


def overwrite_in_place(file: Path) -> None:
    """Same size, same time, same inode: a copy that keeps times does that."""
    before = file.stat()
    with file.open("r+b") as data:
        data.write(b"9")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_another(file: Path) -> None:
    file.with_name("new").write_bytes(b"9" + file.read_bytes()[1:])
    file.with_name("new").replace(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "in place": overwrite_in_place,
    "another file": replace_by_another,
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "emptied": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_file_is_hashed_again(files: list[Path], name: str, number: int) -> None:
    first = digest_of(files)
    plant_fake()
    CHANGES[name](files[number])
    assert digest_of(files) not in (first, bytes.fromhex(FAKE))


def test_it_is_of_names_and_contents_and_not_of_places(files: list[Path], tmp_path: Path) -> None:
    first = digest_of(files)
    (tmp_path / "n").mkdir()
    copies = [file.rename(tmp_path / "n" / file.name) for file in files]
    assert digest_of(copies) == first
    other = copies[1].rename(tmp_path / "n" / "other")
    assert digest_of([copies[0], other]) != first
    # Bytes that move from one file to the next are another model.
    copies[0].write_bytes(b"{}1")
    other.rename(copies[1]).write_bytes((b"123" * 1000)[1:])
    assert digest_of(copies) != first


def test_a_link_into_a_store_is_its_file(files: list[Path], tmp_path: Path) -> None:
    """The hub's cache is links to blobs with other names; the names that the model gives them count."""
    first = digest_of(files)
    blob = files[1].rename(tmp_path / "blob")
    files[1].symlink_to(blob)
    assert digest_of(files) == first
    overwrite_in_place(blob)
    assert digest_of(files) != first


def test_a_file_that_was_just_written_is_not_trusted(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "SETTLED_S", 1e9)
    digest_of(files)
    assert kept() == []


DAMAGE = {
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "a list": b"[1]",
    "a number": b"1",
    "another version": b'{"version": 99, "files": [], "digest": "00"}',
    "no files": b'{"version": 1, "digest": "00"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_memory_is_ignored_and_mended(files: list[Path], name: str) -> None:
    first = digest_of(files)
    sound = kept()[0].read_bytes()
    kept()[0].write_bytes(DAMAGE[name])
    assert digest_of(files) == first
    assert kept()[0].read_bytes() == sound


@pytest.mark.parametrize("value", ["", "00", "zz" * 32, 1, None, FAKE + "00"])
def test_a_digest_that_is_none_is_ignored(files: list[Path], value: object) -> None:
    first = digest_of(files)
    data = json.loads(kept()[0].read_text())
    kept()[0].write_text(json.dumps(data | {"digest": value}))
    assert digest_of(files) == first


def test_no_place_to_remember_is_no_error(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digest_of(files)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "file"))
    assert digest_of(files) == first


def test_without_a_place_to_keep_it(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    expected = digest_of(files)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "file" / "cache"))
    assert digest_of(files) == expected
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{tmp_path / 'file' / 'cache' / 'digests'}: cannot be written (Not a directory)")
    with pytest.raises(ConfigError, match=r"cache/models: cannot be made \(Not a directory\).*CODESTRAL_LSP_CACHE"):
        made_folder("models")
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "new"))
    assert made_folder("models") == made_folder("models") == tmp_path / "new" / "models"
    assert (tmp_path / "new" / "models").stat().st_mode & 0o777 == 0o700
