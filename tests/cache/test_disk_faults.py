"""The disk tier where things are broken, by breaking them: every fault is a clean miss or a state that is not kept, with one line in the log."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.disk import RETRY_S
from cache.owners import file_name
from tests.cache.disk_parts import (
    FINGERPRINT,
    LOGGER,
    ROOT,
    Clock,
    checked,
    file_of,
    holds,
    make_arrays,
    make_chain,
    make_tier,
    put,
)

KEY = make_chain().tip
OTHER = make_chain(1).tip
BASE = Path("v1") / FINGERPRINT[:16]


def flip(position: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = file_of(folder, KEY)
        data = bytearray(path.read_bytes())
        data[position(len(data))] ^= 4
        path.write_bytes(data)

    return damage


def cut(length: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda folder: os.truncate(file_of(folder, KEY), length(file_of(folder, KEY).stat().st_size))


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in the file's place."""

    def damage(folder: Path) -> None:
        file_of(folder, KEY).unlink()
        make(file_of(folder, KEY))

    return damage


def of_another_model(folder: Path) -> None:
    tier = make_tier(folder, fingerprint="cd" * 32)
    put(tier)
    tier.close()
    shutil.copy(file_of(folder, KEY, fingerprint="cd" * 32), file_of(folder, KEY))


def of_another_version(folder: Path) -> None:
    path = file_of(folder, KEY)
    path.write_bytes(path.read_bytes().replace(b"codestral-lsp-state-1", b"codestral-lsp-state-2"))


def of_another_root(folder: Path) -> None:
    """The same fingerprint by name, another root key: a file that was put together by hand."""
    tier = make_tier(folder / "elsewhere", root=ROOT.root)
    tier._root = bytes(32)
    chain = type(ROOT)(root=bytes(32), slices=make_chain().slices)
    assert tier.write(chain, 4, make_arrays(), {})
    tier.close()
    shutil.copy(file_of(folder / "elsewhere", KEY), file_of(folder, KEY))


def link_to_copy(path: Path) -> None:
    """A link to a file that is whole and right: still not followed."""
    put(make_tier(path.parents[4] / "elsewhere"))
    path.symlink_to(file_of(path.parents[4] / "elsewhere", KEY))


FAULTS = {
    "first byte": flip(lambda n: 0),
    "in the header": flip(lambda n: 300),
    "in the first tensor": flip(lambda n: n - 150),
    "last byte": flip(lambda n: n - 1),
    "empty": cut(lambda n: 0),
    "half": cut(lambda n: n // 2),
    "a byte short": cut(lambda n: n - 1),
    "a byte long": cut(lambda n: n + 1),
    "another key": lambda folder: shutil.copy(file_of(folder, OTHER), file_of(folder, KEY)),
    "another model": of_another_model,
    "another version": of_another_version,
    "another root": of_another_root,
    "another owner": lambda folder: os.chown(file_of(folder, KEY), 12345, -1),
    "open to others": lambda folder: file_of(folder, KEY).chmod(0o644),
    "link to a copy": instead(link_to_copy),
    "link to nowhere": instead(lambda path: path.symlink_to("nowhere")),
    "link to itself": instead(lambda path: path.symlink_to(path.name)),
    "named pipe": instead(os.mkfifo),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_not_right_is_a_miss_and_goes(
    name: str, restarted: bool, tmp_path: Path, caplog, request
) -> None:
    if name == "another owner" and os.geteuid():
        pytest.skip("only root can give a file away")
    folder = tmp_path / "states"
    tier = make_tier(folder)
    put(tier), put(tier, 1)
    if restarted:
        tier.close()
    FAULTS[name](folder)
    caplog.clear()
    if restarted:
        tier = make_tier(folder)
    assert not holds(tier) and tier.misses == 1
    assert [record.name for record in caplog.records] == [LOGGER] and "removed" in caplog.text
    assert str(file_of(folder, KEY)) in caplog.text
    assert not os.path.lexists(file_of(folder, KEY)) and not holds(tier) and len(caplog.records) == 1
    checked(tier)
    assert holds(tier, 1)
    put(tier)  # and it is kept again
    assert holds(tier)
    checked(tier)


def test_a_folder_in_a_file_s_place_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tier = make_tier(tmp_path)
    put(tier), put(tier, 1)
    instead(Path.mkdir)(tmp_path)
    (file_of(tmp_path, KEY) / "mine").touch()
    assert not holds(tier) and not holds(tier) and not tier.write(make_chain(), 4, make_arrays(), {})
    assert len(caplog.records) == 1 and "left alone" in caplog.text
    assert holds(tier, 1) and (file_of(tmp_path, KEY) / "mine").exists()
    put(tier, 2)


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def given_away(path: Path) -> None:
    os.chown(path, 12345, -1)


def open_to_all(path: Path) -> None:
    path.chmod(0o777)


@pytest.mark.parametrize("part", [".", "v1", BASE])
def test_a_folder_that_others_may_only_look_into_is_closed_to_them_again(part: str, tmp_path: Path) -> None:
    """As a backup gives it back: nobody can have put anything there."""
    folder = tmp_path / "states"
    put(make_tier(folder))
    (folder / part).chmod(0o755)
    tier = make_tier(folder, clock=Clock())
    assert holds(tier, 0)
    assert (folder / part).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", [".", "v1", BASE])
@pytest.mark.parametrize("damage", [linked, given_away, open_to_all])
def test_a_folder_that_is_not_ours_alone_is_not_used(damage: Callable, part: str, tmp_path: Path, caplog) -> None:
    if damage is given_away and os.geteuid():
        pytest.skip("only root can give a folder away")
    folder, clock = tmp_path / "states", Clock()
    put(make_tier(folder))
    damage(folder / part)
    before = sorted(tmp_path.rglob("*"))
    tier = make_tier(folder, clock=clock)
    for number in range(3):
        assert not holds(tier, number) and not tier.write(make_chain(number), 4, make_arrays(number), {})
        clock.now += RETRY_S + 1
    assert len(tier) == 0 and tier.why_not_writing is not None and "expected a folder of ours" in tier.why_not_writing
    said = {record.getMessage() for record in caplog.records if "written" in record.getMessage()}
    assert len(said) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_one_folder_of_keys_that_is_not_ours(tmp_path: Path) -> None:
    tier = make_tier(tmp_path)
    put(tier), put(tier, 1)
    linked(file_of(tmp_path, KEY).parent)
    assert not holds(tier) and holds(tier, 1)
    tier.close()
    assert not holds(make_tier(tmp_path))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("at_byte", [0, 1, 100, 1000, 5000, 9_999])
def test_a_disk_that_refuses_stops_writing_and_nothing_else(
    code: int, at_byte: int, tmp_path: Path, caplog, monkeypatch
) -> None:
    clock = Clock()
    tier = make_tier(tmp_path, clock=clock)
    put(tier, 1, n_bytes=10_000)
    written, pwrite = [0], os.pwrite

    def refusing(file: int, data: memoryview, offset: int) -> int:
        room = at_byte - written[0]
        if room <= 0:
            raise OSError(code, os.strerror(code))
        written[0] += min(room, len(data))
        return pwrite(file, data[:room], offset)

    with monkeypatch.context() as full:
        full.setattr("os.pwrite", refusing)
        assert not tier.write(make_chain(), 4, make_arrays(n_bytes=10_000), {})
        assert not tier.write(make_chain(2), 4, make_arrays(n_bytes=10_000), {})
    assert len(caplog.records) == 1 and os.strerror(code) in caplog.text
    assert tier.why_not_writing is not None and os.strerror(code) in tier.why_not_writing
    checked(tier)
    assert holds(tier, 1, n_bytes=10_000)
    assert not tier.write(make_chain(), 4, make_arrays(n_bytes=10_000), {})  # not tried again so soon
    clock.now += RETRY_S
    put(tier, n_bytes=10_000)
    assert tier.why_not_writing is None and holds(tier, n_bytes=10_000)
    checked(tier)


@pytest.mark.parametrize("call", ["fsync", "rename", "open", "mkdir"])
def test_any_step_may_fail(call: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    tier = make_tier(tmp_path)
    put(tier, 1)
    real = getattr(os, call)

    def refusing(*args: object, **named: object) -> object:
        if call == "open" and not int(str(args[1])) & os.O_CREAT:
            return real(*args, **named)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(f"os.{call}", refusing)
        assert not tier.write(make_chain(), 4, make_arrays(), {})
    assert len(caplog.records) == 1 and holds(tier, 1)
    checked(tier)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file a descriptor is")
def test_what_must_be_durable_is_so_in_this_order(tmp_path: Path, monkeypatch) -> None:
    """No test can cut the power; this one sees that each step is waited for before the next is taken."""
    tier = make_tier(tmp_path)
    steps, fsync, rename = [], os.fsync, os.rename

    def synced(file: int) -> None:
        steps.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{file}')).name}")
        fsync(file)

    def renamed(source: str, target: str, **named: int) -> None:
        steps.append(f"rename {target}")
        rename(source, target, **named)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.rename", renamed)
    assert tier.own("/home/a", [KEY])
    put(tier)
    state, temporary = file_of(tmp_path, KEY).name, f".{file_of(tmp_path, KEY).name}.{os.getpid()}.tmp"
    assert steps[:2] == [f"fsync {file_name('/home/a')}", "fsync owners"]
    assert steps[-3:] == [f"fsync {temporary}", f"rename {state}", f"fsync {state[:2]}"]


def test_too_many_open_files_cost_no_state(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    tier = make_tier(tmp_path)
    put(tier)
    with monkeypatch.context() as busy:

        def refusing(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        busy.setattr("os.open", refusing)
        assert not holds(tier) and not holds(tier)
        assert not tier.own("/home/a", [KEY])
    assert holds(tier) and len(caplog.records) == 2  # one of reading, one of writing


FULL = """
import resource, sys
from pathlib import Path
from tests.cache.disk_parts import *
tier = make_tier(Path(sys.argv[1]))
put(tier)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
assert not tier.write(make_chain(1), 4, make_arrays(1, n_bytes=100_000), {})
assert "File too large" in tier.why_not_writing, tier.why_not_writing
checked(tier)
assert holds(tier)
"""

READ_ONLY = """
import os, sys
from pathlib import Path
from tests.cache.disk_parts import *
folder = Path(sys.argv[1])
os.chmod(folder.parent, 0o711)
tier = make_tier(folder)
put(tier); put(tier, 1)
tier.close()
paths = [folder, *folder.rglob("*")]
for path in paths:
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    path.chmod(0o500 if path.is_dir() else 0o400)
if os.geteuid() == 0:
    os.setegid(65534); os.seteuid(65534)  # root may write anywhere
tier = make_tier(folder)
assert holds(tier) and holds(tier, 1) and len(tier) == 2
assert not tier.write(make_chain(2), 4, make_arrays(2), {})
assert "Permission denied" in tier.why_not_writing, tier.why_not_writing
assert not tier.own("/home/a", [make_chain().tip])
assert tier.purge(None) == (0, 0) and tier.remove(tier.keys()) == (0, 0)
assert holds(tier) and len(tier) == 2
"""


@pytest.mark.parametrize(("program", "n_lines"), [(FULL, 1), (READ_ONLY, 3)])
def test_a_real_disk_that_refuses(program: str, n_lines: int) -> None:
    """A limit on a file's length, which the kernel enforces, and folders without the right to write; in a process of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, f"{folder}/states"], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == n_lines, done.stderr  # the log's last resort is standard error


def test_a_state_that_is_not_finite_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tier = make_tier(tmp_path)
    arrays = make_arrays()
    arrays["ssm"][1, 3] = float("nan")
    assert not tier.write(make_chain(), 4, arrays, {})
    assert len(caplog.records) == 1 and "NaN" in caplog.text and tier.why_not_writing is None
    checked(tier)
    put(tier)


def test_a_store_that_vanishes_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "states"
    tier = make_tier(folder)
    put(tier), put(tier, 1)
    shutil.rmtree(folder)
    assert not holds(tier)
    put(tier, 2)
    checked(tier)
    put(tier, 1)
    assert holds(tier, 2) and holds(tier, 1) and not holds(tier)
    checked(tier)
    assert make_tier(folder).why_not_writing is not None  # the lock is held for the new folder
