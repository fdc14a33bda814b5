"""Model names on their way to the daemon, and the commands that another process carries out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from lsp_place import PATIENCE_S, Place, program

from daemon.protocol import socket_path
from lsp.__main__ import MODEL_COMMANDS, run
from lsp.commands import settings_of
from lsp.settings import PRECISIONS

HUB = "some-org/Some-Model"


def test_both_sides_say_the_same_of_each_command() -> None:
    """The front end names the commands without importing what carries them out."""
    from model.__main__ import PRECISION_NAMES
    from model.__main__ import program as model_program

    assert set(MODEL_COMMANDS) == set(model_program.commands)
    for name, said in MODEL_COMMANDS.items():
        assert (model_program.commands[name].help or "").split("\n\n")[0].replace("\n", " ") == said
    assert PRECISION_NAMES == PRECISIONS
    from model.precision import PRECISIONS as REAL

    assert ("auto", *REAL) == PRECISIONS


def test_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    for name, text in MODEL_COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text[:20])}", said, re.MULTILINE)


def test_their_own_help_comes_from_the_process_that_does_the_work(place: Place) -> None:
    done = place.run("score", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: codestral-lsp score [OPTIONS] [FILE]") and "--ids" in done.stdout


def test_exit_codes_and_lines_are_handed_through(place: Place) -> None:
    done = place.run("score", "--ids", "1,x")
    expected = "codestral-lsp: --ids: 'x' is no token id (position 2), expected whole numbers such as 1,2,3\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
    done = place.run("score", "--", "--nothing")
    assert (done.returncode, done.stderr.startswith("codestral-lsp: --nothing: cannot be read")) == (1, True)
    done = place.run("quantize")
    assert done.returncode == 2
    assert done.stderr.endswith("(see codestral-lsp quantize --help)\n") and done.stderr.count("\n") == 1


def test_a_score_through_the_front_end(place: Place) -> None:
    done = place.run("score", "a.py", "--json", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["model"], found["precision"], found["n_bytes"]) == ("bundled", "int8", 26)
    done = place.run("score", "a.py", "--json", CODESTRAL_LSP_PRECISION="bf16", CODESTRAL_LSP_MODEL="bundled")
    assert json.loads(done.stdout)["precision"] == "bf16"


def test_the_workspace_is_not_imported_from(place: Place) -> None:
    for name in ("model", "click", "torch", "json"):
        (place.repository / f"{name}.py").write_text("import os\nos._exit(66)\n")
    for command in ([*program(), "models", "--json"], [sys.executable, "-I", "-m", "model", "models", "--json"]):
        done = subprocess.run(
            command, env={**place.env, "PYTHONPATH": "."}, cwd=place.repository, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["models"][0]["name"] == "bundled"


def test_ctrl_c_ends_the_command_itself(place: Place) -> None:
    """The same process from start to end, so that a signal reaches the one that works."""
    process = subprocess.Popen([*program(), "score", "-"], env=place.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE_S
    command = Path(f"/proc/{process.pid}/cmdline")
    while command.exists() and b"-m\0model\0" not in command.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # for the exec
    time.sleep(1.0)  # Python must have begun: before that a signal ends it without a word, which is as well
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) in (130, -signal.SIGINT)
    assert process.stderr is not None and b"Traceback" not in process.stderr.read()


def test_help_stays_quick(place: Place) -> None:
    """No torch, no hub library: only the arguments."""
    command = [sys.executable, "-I", "-X", "importtime", "-m", "lsp", "--help"]
    done = subprocess.run(command, env=place.env, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"lsp", "click"} <= imported
    assert not imported & {"torch", "model", "huggingface_hub", "httpx", "httpx2", "msgspec", "numpy"}


def test_each_model_and_precision_has_a_daemon_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    models = ["bundled", "/m/bundled", HUB, f"{HUB}@v2", "/m/x.gguf", "/m/\ud800", "/m/" + "é" * 200]
    paths = [socket_path(model, precision) for model in models for precision in PRECISIONS]
    assert len(set(paths)) == len(models) * len(PRECISIONS)
    assert all(len(os.fsencode(path.name)) <= 24 + 14 for path in paths)
    assert all(socket_path(model) == socket_path(model, "auto") for model in models)
    assert paths[models.index(HUB) * len(PRECISIONS)].name.startswith("Some-Model-")


def put_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


# The argument, whether a folder of that name is here, whether a model of that name was pulled, what is meant.
MEANT = [
    ("bundled", True, False, "bundled"),
    (HUB, False, False, HUB),
    (HUB, False, True, HUB),
    (HUB, True, True, HUB),  # a workspace must not put its own weights in the place of those that were asked for
    (HUB, True, False, "HERE/some-org/Some-Model"),
    (f"./{HUB}", True, True, "HERE/some-org/Some-Model"),
    (f"{HUB}@v2", False, False, f"{HUB}@v2"),
    ("models/a.gguf", False, False, "HERE/models/a.gguf"),
    ("m", False, False, "HERE/m"),
    ("/m", False, False, "/m"),
    ("~/m", False, False, "HERE/home/m"),
]


@pytest.mark.parametrize(("argument", "is_here", "is_pulled", "meant"), MEANT)
def test_what_a_name_means(
    argument: str, is_here: bool, is_pulled: bool, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    if is_here:
        put_model(tmp_path / argument)
    if is_pulled:
        put_model(tmp_path / "hub" / "models--some-org--Some-Model")
    settings = settings_of(argument, "int4")
    assert (settings.model, settings.precision) == (meant.replace("HERE", str(tmp_path)), "int4")


def test_the_daemon_hears_of_both(place: Place) -> None:
    assert place.run("complete", "b.py:2:5", "--model", HUB, "--precision", "int4").returncode == 0
    assert place.run("complete", "b.py:2:5", "--model", HUB).returncode == 0
    assert place.run("complete", "b.py:2:5", CODESTRAL_LSP_MODEL=HUB, CODESTRAL_LSP_PRECISION="int8").returncode == 0
    served = [(event["model"], event["precision"]) for event in place.events("serving")]
    assert served == [(HUB, "int4"), (HUB, "auto"), (HUB, "int8")]
    assert (
        place.run("status", "--model", HUB, "--precision", "bf16").stdout == f"no daemon runs for model {HUB} in bf16\n"
    )
    assert place.run("status", "--model", HUB, "--precision", "int4").stdout.startswith("daemon ")
    assert place.run("stop", "--model", HUB, "--precision", "int4").stdout == "stopped\n"
    assert (
        place.run("stop", "--model", HUB, "--precision", "int4").stdout == f"no daemon runs for model {HUB} in int4\n"
    )
    assert place.run("stop", "--model", HUB).stdout == "stopped 2 daemons\n"  # in each precision


def test_an_editors_settings_reach_the_daemon(place: Place) -> None:
    client = place.client()
    client.initialize(place.repository, initializationOptions={"model": HUB, "precision": "int8"})
    (serving,) = place.wait_events("serving")
    assert (serving["model"], serving["precision"]) == (HUB, "int8")


def test_a_model_that_was_not_pulled_says_how(place: Place) -> None:
    """The real daemon, which knows."""
    command = {"CODESTRAL_LSP_DAEMON_COMMAND": "", "HF_HOME": str(place.root / "hf")}
    done = place.run("complete", "b.py:2:5", "--model", HUB, **command)
    expected = f"{HUB}: is not on this machine; codestral-lsp pull {HUB} downloads it"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"codestral-lsp: the daemon could not start: {expected}\n"
    done = place.run("serve", "--model", HUB, **command)
    assert done.returncode == 1 and expected in done.stderr


def test_a_wrong_precision_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--precision", "int2"]) == 2
    expected = "Invalid value for '--precision': 'int2' is not one of 'auto', 'fp32', 'bf16', 'int8', 'int4'."
    assert capsys.readouterr().err == f"codestral-lsp: {expected} (see codestral-lsp status --help)\n"
    with pytest.raises(click.UsageError, match="an absolute path or a name on the hub"):
        settings_of("", None)
