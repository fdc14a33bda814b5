"""Several daemons at once: seen, ended together; and Ctrl-C, at the very start and while a daemon reads."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from lsp_place import GARBAGE, PATIENCE_S, Place, answering, program


def start_daemons(place: Place, *wanted: tuple[str, str]) -> None:
    for model, precision in wanted:
        done = place.run("complete", "b.py:2:5", "--model", model, "--precision", precision)
        assert done.returncode == 0, done.stderr


def listed(place: Place, *arguments: str) -> set[tuple[str, str]]:
    daemons = json.loads(place.run("status", "--json", *arguments).stdout)["daemons"]
    return {(each["asked_model"], each["asked_precision"]) for each in daemons}


def test_all_daemons_are_seen_and_ended_together(place: Place) -> None:
    everyone = {("bundled", "auto"), ("bundled", "int8"), ("org/m", "auto")}
    start_daemons(place, *sorted(everyone))
    (place.socket.parent / "dead-1234.sock").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as killed:  # what a killed daemon leaves behind
        killed.bind(str(place.socket.parent / "killed-1234.sock"))
    assert listed(place) == everyone
    shown = place.run("status")
    assert (shown.stdout.count("daemon   pid"), shown.stderr) == (3, "")
    assert listed(place, "--model", "bundled") == everyone - {("org/m", "auto")}
    assert listed(place, "--precision", "int8") == {("bundled", "int8")}
    assert place.run("stop", "--precision", "bf16").stdout == "no daemon runs for model bundled in bf16\n"
    assert place.run("stop", "--model", "bundled").stdout == "stopped 2 daemons\n"
    assert listed(place) == {("org/m", "auto")}
    assert place.run("stop", "--all").stdout == "stopped\n"
    assert place.run("status").stdout == "no daemon runs\n"


def test_what_is_no_daemon_of_ours_is_said_and_left_alone(place: Place) -> None:
    start_daemons(place, ("org/m", "auto"))
    path = place.socket.parent / "other.sock"
    with answering(path, GARBAGE):
        done = place.run("status")
        assert done.stdout.startswith("daemon   pid")
        assert done.stderr == f"{path} is in use by something that is not codestral-lsp\n"
        assert place.run("stop", "--all").stdout == "stopped\n"
    assert path.exists()


def test_ctrl_c_while_the_repository_is_read_says_that_it_goes_on(place: Place) -> None:
    command = [*program(), "complete", "b.py:2:5", "--model", "org/m"]
    env = {**place.env, "STUB_FEED_STEPS": "1000000"}
    process = subprocess.Popen(command, env=env, cwd=place.repository, stderr=subprocess.PIPE)
    place.wait_events("status")
    found = json.loads(place.run("status", "--json").stdout)["reading"]
    assert found["tokens_done"] < found["tokens"]
    said = place.run("status").stdout
    assert "contexts 1, reading 0 of " in said
    assert ", 0 % current\n" in said
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert process.stderr is not None
    said = b"the daemon goes on reading the repository; codestral-lsp stop --model org/m ends it\n"
    assert process.stderr.read() == said
    process.stderr.close()


@pytest.mark.parametrize("command", [program(), [sys.executable, "-I", "-m", "lsp"]], ids=["script", "module"])
def test_ctrl_c_at_the_very_start_is_no_traceback(place: Place, command: list[str]) -> None:
    """Held back until our own first line: Python's own start is not ours."""
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); "
        "os.kill(os.getpid(), signal.SIGINT); os.execv(sys.argv[1], sys.argv[1:])"
    )
    starter = [sys.executable, "-I", "-c", code, *command, "status"]
    done = subprocess.run(starter, env=place.env, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_the_console_script_holds_ctrl_c_back() -> None:
    code = (
        "import os, signal; "
        "os.execv = lambda *_: print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])); "
        "from codestral_lsp_entry import main; main()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
