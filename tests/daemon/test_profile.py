"""The profile's file, and what an engine and a daemon make of it."""

import os
import stat
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import httpx
import msgspec
import pytest

from daemon.completion import Engine
from daemon.profile import Profile, ProfileError, profile_path, read_profile, remove_profile, strategy_of, write_profile
from daemon.protocol import WindowSizes
from model.checkpoint import LoadedModel
from model.fim import StrategyError

PATIENCE_S = 100.0
SMALL = WindowSizes(step=300, suffix_chars=100)
PROFILE = Profile(
    strategy="plain",
    window=SMALL,
    feed_tokens_per_s=1234.5,
    decode_tokens_per_s=99.0,
    numerics="of another machine",
    model="bundled",
    date=date(2026, 11, 24),
    n_holes=40,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_profile_comes_back(cache: Path) -> None:
    digest = b"\x01" * 32
    assert read_profile(digest) is None
    path = write_profile(digest, PROFILE)
    assert path == profile_path(digest) == cache / "profiles" / f"{'01' * 32}.json"
    assert read_profile(digest) == PROFILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_profile(digest, msgspec.structs.replace(PROFILE, n_holes=7))
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing half-written beside it
    written = read_profile(digest)
    assert written is not None
    assert written.n_holes == 7


def test_a_profile_is_removed(cache: Path) -> None:
    assert not remove_profile(b"d")
    path = write_profile(b"d", PROFILE)
    assert remove_profile(b"d")
    assert not path.exists()
    path.mkdir()
    with pytest.raises(ProfileError, match=r"cannot be removed .* expected a file of your own"):
        remove_profile(b"d")


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"null",
    b'{"strategy": "spm"}',
    msgspec.json.encode(msgspec.structs.replace(PROFILE, format=2)),
    msgspec.json.encode(PROFILE).replace(b"1234.5", b"0"),
    msgspec.json.encode(PROFILE).replace(b"1234.5", b"-1"),
    msgspec.json.encode(PROFILE).replace(b"300", b"0"),
    msgspec.json.encode(PROFILE).replace(b"300", b'"300"'),
    b" " * 100_000 + msgspec.json.encode(PROFILE),
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_profile_is_one_line_in_the_log(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = write_profile(b"d", PROFILE)
    path.write_bytes(content)
    assert read_profile(b"d") is None
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert str(path) in caplog.text


def test_a_profile_that_cannot_be_written_is_one_line(cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    with pytest.raises(ProfileError, match=r"cannot be written .* expected a folder of your own"):
        write_profile(b"d", PROFILE)


def test_what_an_engine_makes_of_a_profile(bundled: LoadedModel) -> None:
    """Its strategy and window hold; its speeds only where they were measured in the same way."""
    plain = Engine(bundled, store_budget_bytes=0, profile=PROFILE)
    assert plain.layout.strategy == "plain"
    assert plain.tokens_per_s == Engine(bundled, store_budget_bytes=0).tokens_per_s != 1234.5
    here = msgspec.structs.replace(PROFILE, numerics=bundled.network.numerics)
    assert Engine(bundled, store_budget_bytes=0, profile=here).tokens_per_s == 1234.5
    assert Engine(bundled, store_budget_bytes=0, profile=PROFILE, strategy="spm").layout.strategy == "spm"
    assert Engine(bundled, store_budget_bytes=0).layout.strategy == "spm"


def test_a_profile_that_the_model_cannot_follow(bundled: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    wanted = msgspec.structs.replace(PROFILE, strategy="psm")
    assert strategy_of(bundled, wanted) == "spm"
    assert "wants strategy 'psm', possible are spm, instruct, plain: spm is used" in caplog.text
    with pytest.raises(StrategyError, match="expected one of spm, instruct, plain"):
        Engine(bundled, store_budget_bytes=0, strategy="psm")


def test_a_daemon_asks_as_its_profile_says(cache: Path, bundled: LoadedModel) -> None:
    """And says so, so that the front end cuts its windows accordingly; without a profile it is as ever."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-") as folder:  # a socket's path is at most 107 bytes long
        for profile, expected in [(None, ("spm", None)), (PROFILE, ("plain", {"step": 300, "suffix_chars": 100}))]:
            if profile is not None:
                write_profile(bundled.digest, profile)
            card, text = asked_of_a_daemon(Path(folder) / "d.sock", cache)
            assert (card["strategy"], card["window"]) == expected
            assert card["calibrated"] == (None if profile is None else {"n_holes": 40, "date": "2026-11-24"})
            assert isinstance(text, str)


def asked_of_a_daemon(path: Path, cache: Path) -> tuple[dict, str]:
    """Its model's card, and what it completes."""
    environment = {**os.environ, "CODESTRAL_LSP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-m", "daemon", "--socket", str(path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as started:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://daemon") as client:
                deadline = time.monotonic() + PATIENCE_S
                while not (card := card_of(client)):
                    assert time.monotonic() < deadline, "waited in vain for the daemon"
                    time.sleep(0.05)  # polling for another process, bounded by PATIENCE_S
                made = client.post("/v1/fim/completions", json={"prompt": "def f(x):\n    ret"}, timeout=PATIENCE_S)
                return card, made.json()["choices"][0]["message"]["content"]
        finally:
            started.kill()


def card_of(client: httpx.Client) -> dict | None:
    try:
        return client.get("/healthz").json()["model"]
    except httpx.TransportError:
        return None
