"""The command line as people use it: arguments in; exit code, stdout and exactly one line of stderr out."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lsp_place import PATIENCE_S, Place, program, wait_until

from daemon.protocol import Report, Timings
from lsp.__main__ import run
from lsp.commands import in_place, parse_place
from lsp.terminal import counted, reading_line, why_nothing

HELP = "(see codestral-lsp --help)"
COMPLETE_HELP = "(see codestral-lsp complete --help)"

BAD: list[tuple[list[str], int, str]] = [
    ([], 2, f"expected --stdio or a command {HELP}"),
    (["--stdio", "status"], 2, f"--stdio stands alone, without a command {HELP}"),
    (
        ["--stdio", "--model", "x"],
        2,
        "--stdio takes no --model: an editor sets it as 'model' in initializationOptions, or in the environment as "
        f"CODESTRAL_LSP_MODEL {HELP}",
    ),
    (
        ["--precision", "int8", "status"],
        2,
        f"--precision stands behind a command, as in codestral-lsp status --precision int8 {HELP}",
    ),
    (
        ["stop", "--all", "--model", "m"],
        2,
        "--all ends every daemon, so it takes no --model and no --precision (see codestral-lsp stop --help)",
    ),
    (["compleet"], 2, f"No such command 'compleet'. Did you mean 'complete'? {HELP}"),
    (["complete"], 2, f"Missing argument 'PATH:LINE:COLUMN'. {COMPLETE_HELP}"),
    (["complete", "a.py"], 2, f"a.py: expected PATH:LINE:COLUMN {COMPLETE_HELP}"),
    (["complete", "a.py:1"], 2, f"a.py:1: expected PATH:LINE:COLUMN {COMPLETE_HELP}"),
    (["complete", "a.py:x:1"], 2, f"a.py:x:1: expected PATH:LINE:COLUMN {COMPLETE_HELP}"),
    (["complete", "a.py:-1:1"], 2, f"a.py:-1:1: expected PATH:LINE:COLUMN {COMPLETE_HELP}"),
    (["complete", "a.py:0:1"], 2, f"a.py:0:1: lines and columns count from 1 {COMPLETE_HELP}"),
    (["complete", "a.py:1:0"], 2, f"a.py:1:0: lines and columns count from 1 {COMPLETE_HELP}"),
    (["complete", "a.py:4:1"], 1, "a.py:4: beyond the end, the file has 2 lines"),
    (["complete", "a.py:1:14"], 1, "a.py:1:14: beyond the end, line 1 has 12 characters, so columns 1 to 13"),
    (["complete", "nope.py:1:1"], 1, "nope.py: no such file"),
    (["complete", "sub:1:1"], 1, "sub: a folder, expected a regular file"),
    (["complete", "latin.py:1:1"], 1, "latin.py: not UTF-8 (byte 0xe9 at offset 5), expected UTF-8 text"),
    (["complete", "raw.py:1:1"], 1, "raw.py: binary (a NUL byte at offset 1), expected UTF-8 text"),
    (["complete", ".env:1:1"], 1, ".env: is never sent to a model: a secret: its name is like .env"),
    (
        ["complete", "--model", "", "a.py:1:1"],
        2,
        f"""--model: expected "bundled", an absolute path or a name on the hub such as ORG/NAME, found '' {COMPLETE_HELP}""",
    ),
    (
        ["serve", "--idle-minutes", "0"],
        2,
        "Invalid value for '--idle-minutes': 0.0 is not in the range x>0. (see codestral-lsp serve --help)",
    ),
    (["status", "--jason"], 2, "No such option '--jason'. Did you mean '--json'? (see codestral-lsp status --help)"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "line"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    (place.repository / "sub").mkdir()
    (place.repository / "latin.py").write_bytes(b"name \xe9\n")
    (place.repository / "raw.py").write_bytes(b"a\0b\n")
    (place.repository / ".env").write_text("KEY=1\n")
    monkeypatch.chdir(place.repository)
    monkeypatch.setenv("XDG_RUNTIME_DIR", place.env["XDG_RUNTIME_DIR"])
    assert run(arguments) == code
    assert tuple(capsys.readouterr()) == ("", f"codestral-lsp: {line}\n")


def test_the_program_itself_ends_with_that_code_and_line(place: Place) -> None:
    done = place.run("complete", "nope.py:1:1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "codestral-lsp: nope.py: no such file\n")
    assert not place.events("serving")


def test_complete_prints_the_text(place: Place) -> None:
    done = place.run("complete", "b.py:2:5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "<1>\n", "")
    (context,) = place.events("context")
    assert context["paths"] == ["a.py", "b.py"]
    (asked,) = place.events("complete")
    assert (asked["prompt"], asked["rest_of_line"], asked["suffix"]) == ("x = first()\ny = ", "", "")
    assert (asked["path"], asked["context"], asked["budget_ms"]) == ("b.py", context["id"], None)


def test_complete_json_is_one_object(place: Place) -> None:
    """What the command has cost, reading the repository included."""
    n_context = len("def first():\n    return 1\n" + "x = first()\ny = \n")
    done = place.run("complete", "b.py:1:5", "--json")
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    ms = answer.pop("ms")
    assert answer == {
        "text": "<1>",
        "model": "stub",
        "context_tokens": n_context,
        "tokens_fed": 3 + n_context,
        "tokens_reused": 0,
        "stopped_by": "line",
        "empty_because": None,
    }
    assert (set(ms), ms["feed"], ms["decode"]) == ({"context", "feed", "decode", "total"}, 1.5, 2.0)
    assert ms["context"] >= 0.5 and ms["total"] >= ms["context"] + 3.5 - 0.2  # each is rounded
    asked = place.events("complete")[0]
    assert (asked["prompt"], asked["rest_of_line"], asked["suffix"]) == ("x = ", "first()", "y = \n")


def test_no_suggestion_says_why(place: Place) -> None:
    (place.repository / "c.py").write_text("#stuck = parent.children[0] + something_else(1)\n#nothing\n")
    done = place.run("complete", "c.py:1:7")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "c.py:1:7: no suggestion: the line goes on right of the cursor with `= parent.children[0] + some...`, and what the "
        "model says does not lead up to it; ask at the end of a line\n"
    )
    answer = json.loads(place.run("complete", "c.py:1:7", "--json").stdout)
    assert (answer["text"], answer["stopped_by"], answer["empty_because"]) == ("", "line", "rest_of_line")
    assert place.run("complete", "c.py:2:9").stderr == "c.py:2:9: no suggestion\n"


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("blank", "the model ends the line here"),
        ("present", "all that the model says stands right of the cursor already"),
        ("next_line", "the model says the line that stands below already"),
        ("leaves", "what the model says does not belong here"),
        ("of a later daemon", None),
        (None, None),
    ],
)
def test_the_reasons(why: str | None, said: str | None) -> None:
    report = Report(
        context_tokens=0, tokens_fed=0, tokens_reused=0, segment="root", context_ready=True, stopped_by="line",
        ms=Timings(), empty_because=why,
    )  # fmt: skip
    assert why_nothing(report, "x") == said


def test_how_far_reading_is() -> None:
    assert reading_line(5, 2005, tokens_per_s=100.0) == "5 of 2005 tokens, 100 tokens/s, 20 s left"
    assert reading_line(0, 2000, tokens_per_s=0.0) == "0 of 2000 tokens"
    assert (counted(1, "hole"), counted(0, "hole"), counted(2, "hole")) == ("1 hole", "0 holes", "2 holes")


def test_complete_from_another_folder_counts_code_points(place: Place) -> None:
    (place.repository / "c.py").write_text("s = '😀é'  \n")
    done = subprocess.run(
        [*program(), "complete", str(place.repository / "c.py") + ":1:8"],
        env=place.env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert place.events("complete")[0]["prompt"] == "s = '😀é"


def test_a_file_of_no_repository_is_completed_alone(place: Place) -> None:
    alone = place.root / "alone.py"
    alone.write_text("x = ")
    done = place.run("complete", f"{alone}:1:5")
    assert (done.returncode, done.stdout) == (0, "<1>\n")
    assert done.stderr == f"{alone}: not in a git repository, so the file itself is all the context\n"
    assert not place.events("context")
    assert (place.events("complete")[0]["path"], place.events("complete")[0]["context"]) == ("alone.py", None)


def test_a_daemon_that_refuses_is_one_line(place: Place) -> None:
    (place.repository / "c.py").write_text("#fail")
    done = place.run("complete", "c.py:1:6")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "codestral-lsp: the completion failed: as ordered\n")


def test_on_a_terminal_the_suggestion_is_dimmed_in_its_line(place: Place) -> None:
    reader, writer = pty.openpty()
    process = subprocess.Popen([*program(), "complete", "b.py:1:5"], env=place.env, cwd=place.repository, stdout=writer)
    os.close(writer)
    assert process.wait(PATIENCE_S) == 0
    assert os.read(reader, 4096) == b"x = \x1b[2m<1>\x1b[0mfirst()\r\n"
    os.close(reader)


def test_what_a_file_holds_cannot_steer_the_terminal() -> None:
    assert in_place("a\x1b]0;evil\x07", 1, "\x9b2J\n\tb") == "a\x1b[2m\ufffd2J\n\tb\x1b[0m\ufffd]0;evil\ufffd"


def test_a_path_may_have_colons() -> None:
    assert parse_place("a:3:b.py:12:7").path == Path("a:3:b.py")


def test_status_and_stop(place: Place) -> None:
    assert (place.run("status").stdout, place.run("status").returncode) == ("no daemon runs\n", 0)
    assert json.loads(place.run("status", "--json").stdout) == {"running": False, "daemons": [], "paused": None}
    assert (place.run("stop").stdout, place.run("stop").returncode) == ("no daemon runs for model bundled\n", 0)
    assert place.run("stop", "--all").stdout == "no daemon runs\n"
    window = '{"step": 300, "suffix_chars": 40}'
    assert place.run("complete", "b.py:2:5", STUB_WINDOW=window).returncode == 0
    shown = place.run("status").stdout.splitlines()
    pid = place.events("serving")[0]["pid"]
    assert shown[0].startswith(f"daemon   pid {pid}, version 0.0, ready, up ")
    assert shown[1:] == [
        "model    stub, contexts of up to 100000 tokens",
        "profile  spm, window 300+40, calibrated with 40 holes on 2026-11-24",
        "contexts 1, up to date",
        "store    1.0 of 2.0 MB",
        "idle     ends after 30 min without a request",
    ]
    found = json.loads(place.run("status", "--json").stdout)
    assert (found["running"], found["pid"], found["model"]["id"], found["contexts"]) == (True, pid, "stub", 1)
    assert [each["asked_model"] for each in found["daemons"]] == ["bundled"]
    assert (place.run("stop").stdout, place.run("stop").stdout) == ("stopped\n", "no daemon runs for model bundled\n")
    assert place.events("left")


def test_serve_is_the_daemon_itself(place: Place) -> None:
    process = subprocess.Popen([*program(), "serve", "--idle-minutes", "7"], env=place.env, cwd=place.repository)
    (serving,) = place.wait_events("serving")
    assert (serving["pid"], serving["model"], serving["idle_minutes"]) == (process.pid, "bundled", 7.0)
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)
    wait_until(lambda: place.run("status").stdout == "no daemon runs\n", "the daemon's end")


def test_a_model_is_a_daemon_of_its_own(place: Place) -> None:
    (place.repository / "models" / "m").mkdir(parents=True)
    assert place.run("complete", "b.py:2:5", "--model", "models/m").returncode == 0
    assert place.events("serving")[0]["model"] == str(place.repository / "models" / "m")
    assert place.run("status", "--model", "bundled").stdout == "no daemon runs for model bundled\n"
    assert place.run("stop", "--model", "models/m").stdout == "stopped\n"


def test_the_environment_has_a_say(place: Place) -> None:
    environment = {"CODESTRAL_LSP_MAX_TOKENS": "9", "CODESTRAL_LSP_MODEL": "/m", "CODESTRAL_LSP_BUDGET_MS": "x"}
    done = place.run("complete", "b.py:2:5", **environment)
    expected = "a whole number from 50 to 600000, found 'x'; 1500 is used"
    assert (done.returncode, done.stderr) == (0, f"CODESTRAL_LSP_BUDGET_MS: expected {expected}\n")
    assert (place.events("serving")[0]["model"], place.events("complete")[0]["max_tokens"]) == ("/m", 9)


@pytest.mark.skipif(sys.platform == "darwin", reason="there all names are UTF-8")
def test_names_that_are_not_utf8(place: Place) -> None:
    name = os.fsdecode(b"n\xe9.py")
    (place.repository / name).write_text("x = ")
    assert place.run("complete", f"{name}:1:5").stdout == "<1>\n"
    assert place.events("complete")[0]["path"] == "n\ufffd.py"


def test_ctrl_c_is_silent(place: Place) -> None:
    (place.repository / "c.py").write_text("#wait")
    process = subprocess.Popen(
        [*program(), "complete", "c.py:1:6"], env=place.env, cwd=place.repository, stderr=subprocess.PIPE
    )
    place.wait_events("complete")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert process.stderr is not None and process.stderr.read() == b""
    place.wait_events("disconnected")


def test_a_reader_that_has_seen_enough(place: Place) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*program(), "status"]
    done = subprocess.run(command, env=place.env, cwd="/", stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", [[], ["serve"], ["complete"], ["status"], ["stop"], ["calibrate"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run([*command, "--help"]) == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    assert said.startswith(f"Usage: {' '.join(['codestral-lsp', *command])}")
    if command:
        assert "CODESTRAL_LSP_MODEL" in said.replace("\n", "") and "CODESTRAL_LSP_PRECISION" in said
