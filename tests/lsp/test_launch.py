"""Launching, with the stub daemon as a real process: on demand, once for two, again after a death, and never over what is someone else's."""

import asyncio
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from lsp_place import GARBAGE, PATIENCE_S, Place, answering, program, wait_until

from daemon.protocol import PROTOCOL_VERSION
from lsp.launch import is_alive, wait_gone

OTHER_SERVICE = b'HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{"service":"x","protocol":1}   '
NOT_JSON = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope"


def log_of(place: Place) -> Path:
    return Path(place.env["HOME"]) / ".local" / "state" / "codestral-lsp" / "daemon.log"


def test_the_daemon_outlives_its_front_end_and_is_found_again(place: Place) -> None:
    assert place.run("complete", "b.py:2:5").stdout == "<1>\n"
    assert place.run("complete", "b.py:2:5").stdout == "<2>\n"
    (serving,) = place.events("serving")
    assert (serving["cwd"], serving["model"], serving["idle_minutes"]) == ("/", "bundled", 30.0)
    assert os.getsid(serving["pid"]) == serving["pid"]
    assert stat.S_IMODE(log_of(place).stat().st_mode) == 0o600
    assert stat.S_IMODE(log_of(place).parent.stat().st_mode) == 0o700


def test_many_front_ends_at_once_share_one_daemon(place: Place) -> None:
    commands = [
        subprocess.Popen([*program(), "complete", "b.py:2:5"], env=place.env, cwd=place.repository, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    said = [command.communicate(timeout=2 * PATIENCE_S) for command in commands]
    assert sorted(said) == [("<1>\n", ""), ("<2>\n", ""), ("<3>\n", ""), ("<4>\n", "")]
    assert len(place.events("serving")) == 1


def test_a_killed_daemon_is_started_again(place: Place) -> None:
    place.run("complete", "b.py:2:5")
    os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
    assert place.socket.exists()
    assert place.run("complete", "b.py:2:5").stdout == "<1>\n"
    assert len(place.events("serving")) == 2


def test_loading_is_waited_for(place: Place) -> None:
    assert place.run("complete", "b.py:2:5", STUB_LOADING_S="1").stdout == "<1>\n"


def test_a_daemon_that_dies_early_is_quoted(place: Place) -> None:
    done = place.run("complete", "b.py:2:5", STUB_DIES="/m/model.safetensors: truncated, expected 31 MB")
    assert done.returncode == 1
    assert done.stderr == (
        "codestral-lsp: the daemon ended with status 3: /m/model.safetensors: truncated, expected 31 MB\n"
    )


def test_a_daemon_that_failed_says_why_and_is_not_kept(place: Place) -> None:
    done = place.run("complete", "b.py:2:5", STUB_FAILED="/m/model.safetensors: 3 bytes, expected a header")
    assert (done.returncode, done.stderr) == (
        1, "codestral-lsp: the daemon could not start: /m/model.safetensors: 3 bytes, expected a header\n",
    )  # fmt: skip
    assert place.run("complete", "b.py:2:5").stdout == "<1>\n"


def test_a_program_that_is_not_there(place: Place) -> None:
    done = place.run("complete", "b.py:2:5", CODESTRAL_LSP_DAEMON_COMMAND="/nowhere/daemon -x")
    assert (done.returncode, done.stderr) == (
        1, "codestral-lsp: /nowhere/daemon: the daemon cannot be started (No such file or directory)\n",
    )  # fmt: skip


def test_another_protocol_is_replaced(place: Place) -> None:
    old = subprocess.Popen([*program(), "serve"], env={**place.env, "STUB_PROTOCOL": "0"}, cwd=place.repository)
    place.wait_events("serving")
    wait_until(lambda: json.loads(place.run("status", "--json").stdout).get("protocol") == 0, "the older daemon")
    assert place.run("complete", "b.py:2:5").stdout == "<1>\n"
    assert old.wait(PATIENCE_S) == 0
    assert len(place.events("serving")) == 2


def test_a_newer_protocol_twice_is_an_error(place: Place) -> None:
    done = place.run("complete", "b.py:2:5", STUB_PROTOCOL="9")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1, f"codestral-lsp: the daemon speaks protocol 9, expected {PROTOCOL_VERSION}; is there a second install?",
    )  # fmt: skip


FOREIGN = [
    (GARBAGE, ["complete", "b.py:2:5"]),
    (OTHER_SERVICE, ["complete", "b.py:2:5"]),
    (NOT_JSON, ["status", "--model", "bundled"]),
    (OTHER_SERVICE, ["stop"]),
]


@pytest.mark.parametrize(("answer", "command"), FOREIGN, ids=["garbage", "service", "status", "stop"])
def test_a_foreign_socket_is_left_alone(place: Place, answer: bytes, command: list[str]) -> None:
    with answering(place.socket, answer):
        done = place.run(*command)
    expected = f"codestral-lsp: {place.socket} is in use by something that is not codestral-lsp\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
    assert place.socket.exists()
    assert not place.events("serving")


def test_a_file_in_the_sockets_place_is_left_alone(place: Place) -> None:
    place.socket.write_text("mine")
    done = place.run("complete", "b.py:2:5")
    expected = f"{place.socket} is in use by something that is not codestral-lsp (it is not a socket)"
    assert (done.returncode, done.stderr) == (1, f"codestral-lsp: {expected}\n")
    assert place.socket.read_text() == "mine"


def test_a_runtime_folder_of_others_is_refused(place: Place) -> None:
    folder = place.socket.parent
    folder.chmod(0o755)
    done = place.run("status")
    expected = f"codestral-lsp: {folder}: expected a folder that only you can open (mode 0700)\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_the_log_is_turned_over(place: Place) -> None:
    log_of(place).parent.mkdir(parents=True)
    log_of(place).write_bytes(b"x" * 5_000_001)
    place.run("complete", "b.py:2:5")
    assert log_of(place).stat().st_size < 5_000_000
    assert log_of(place).with_name("daemon.log.1").stat().st_size == 5_000_001


def test_no_place_for_a_log_costs_the_log_only(place: Place) -> None:
    Path(place.env["HOME"]).write_text("a file")
    done = place.run("complete", "b.py:2:5")
    assert (done.returncode, done.stdout) == (0, "<1>\n")


def test_a_process_that_was_not_waited_for_counts_as_gone() -> None:
    process = subprocess.Popen(["true"])
    wait_until(lambda: not is_alive(process.pid), "the zombie to count as gone")
    assert asyncio.run(wait_gone(process.pid, timeout_s=0))
    process.wait()
    assert is_alive(os.getpid())
    assert not any(is_alive(pid) for pid in (-1, 0, 2**40))
    assert not asyncio.run(wait_gone(os.getpid(), timeout_s=0))
