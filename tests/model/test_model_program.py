"""The model commands' own program: what each needs to be asked, and that exported and quantised models are the model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.__main__ import run


def see(command: str) -> str:
    return f"(see codestral-lsp {command} --help)"


BAD = [
    ([], 2, None),
    (["bensch"], 2, "No such command 'bensch'. Did you mean 'bench'? (see codestral-lsp --help)"),
    (["pull"], 2, f"Missing argument 'ORG/NAME'. {see('pull')}"),
    (["pull", "a/b@x", "--revision", "y"], 2, f"a/b@x: expected the name of a model on the hub, ORG/NAME {see('pull')}"),
    (["quantize"], 2, f"Missing option '--precision'. Choose from: int8, int4 {see('quantize')}"),
    (["quantize", "--precision", "bf16"], 2,
     f"Invalid value for '--precision': 'bf16' is not one of 'int8', 'int4'. {see('quantize')}"),
    (["export"], 2, f"Missing option '--gguf'. {see('export')}"),
    (["export", "--gguf", "x.bin"], 1, "x.bin: expected a name that ends in .gguf"),
    (["models", "/nope"], 1, "/nope: no such folder or file, expected "),
    (["export", "--gguf", "there.gguf"], 1, "there.gguf: is there already, expected the name of a new file"),
    (["export", "--gguf", "x.gguf", "--model", "nothing"], 1, "nothing: no such folder or file, expected "),
    (["bench", "--threads", "0"], 2, f"Invalid value for '--threads': 0 is not in the range x>=1. {see('bench')}"),
    (["bench", "--model", "a/b"], 1, "a/b: is not on this machine; codestral-lsp pull a/b downloads it"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "line"), BAD)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    line: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    said, complained = capsys.readouterr()
    assert said == ""
    if line is not None:
        assert complained.startswith(f"codestral-lsp: {line}") and complained.count("\n") == 1


FAULTS = [
    (MemoryError(), "not enough memory for this model at this precision; codestral-lsp models says what fits"),
    (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        "not enough memory for",
    ),
    (
        FileNotFoundError(2, "No such file or directory", "/proc/x"),
        "/proc/x: No such file or directory (FileNotFoundError",
    ),
    (ZeroDivisionError("by\nzero"), "internal error: ZeroDivisionError: by zero (CODESTRAL_LSP_LOG=debug shows where)"),
]


@pytest.mark.parametrize(("fault", "line"), FAULTS, ids=["memory", "torch's memory", "a disk", "a fault of ours"])
def test_faults_are_one_line(
    fault: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("model.score.score", fail)
    assert run(["score", "--ids", "1,2"]) == 1
    complained = capsys.readouterr().err
    assert complained.startswith(f"codestral-lsp: {line}") and complained.count("\n") == 1


def test_what_a_hub_says_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model.hub import HubName
    from model.pull import HubFile, Offer, PullError

    offer = Offer(HubName("a/b"), "0" * 40, "mit\x1b]0;evil\x07", True, (HubFile("a\x9b2J.safetensors", 1, "f" * 40),))
    monkeypatch.setattr("model.pull.ask", lambda name: offer)

    def refuse(*_: object, **__: object) -> None:
        raise PullError("a/b: no\x1b[2J")

    monkeypatch.setattr("model.pull.fetch", refuse)
    assert run(["pull", "a/b"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "a/b at 000000000000",
        "licence  mit\ufffd]0;evil\ufffd, gated",
        "files    1 B in 1: a\ufffd2J.safetensors",
        "codestral-lsp: a/b: no\ufffd[2J",
    ]


def test_ctrl_c_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model.score.score", interrupt)
    assert run(["score", "--ids", "1,2"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("seconds", [0.1, 0.4])
def test_ctrl_c_while_modules_load_is_silent(seconds: float) -> None:
    command = [sys.executable, "-I", "-m", "model", "bench"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained.strip()) == (130, "", "")


def score(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[float]:
    assert run(["score", "--ids", "1,300,400,500,600", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["logprobs"]


def test_an_exported_model_scores_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundled.gguf"
    assert run(["export", "--gguf", str(out), "--kind", "F32"]) == 0
    said, complained = capsys.readouterr()
    assert said == f"{out}\n" and complained.endswith(" MB in f32\n") and str(out) not in complained
    expected = score(capsys, "--precision", "fp32")
    assert score(capsys, "--precision", "fp32", "--model", str(out)) == pytest.approx(expected, abs=1e-4)


def test_a_quantised_copy_is_made_listed_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path))
    assert run(["quantize", "--precision", "int4"]) == 0  # so small that a copy would be of no use
    said, complained = capsys.readouterr()
    assert said == "" and "is so small" in complained and complained.count("\n") == 1
    expected = score(capsys, "--precision", "int4")
    monkeypatch.setattr("model.build.KEEP_FROM_BYTES", 1)
    monkeypatch.setattr("model.quantize.KEEP_FROM_BYTES", 1)
    assert run(["quantize", "--precision", "int4"]) == 0
    said, complained = capsys.readouterr()
    path = Path(said.strip())
    assert complained.startswith("kept for the next start: ") and f" MB at {path} (" in complained
    assert run(["quantize", "--precision", "int4"]) == 0
    said, complained = capsys.readouterr()
    assert said == f"{path}\n" and complained.startswith("is there already, ") and complained.count("\n") == 1
    path.write_bytes(b"damaged")
    assert run(["quantize", "--precision", "int4"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("kept for the next start: ")  # made again
    assert run(["models", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)["quantised"]
    size = path.stat().st_size
    assert kept == [{"path": str(path), "disk_bytes": size, "model": "bundled", "precision": "int4"}]
    # The copy keeps the embedding table in bf16; this checkpoint has it in fp16.
    assert score(capsys, "--precision", "int4") == pytest.approx(expected, abs=0.2)
    monkeypatch.setenv("CODESTRAL_LSP_CACHE", str(tmp_path / "other"))
    assert run(["score", "--ids", "1,300", "--precision", "int4"]) == 0
    assert f"kept for the next start: {size / 1e6:.1f} MB at {tmp_path / 'other'}" in capsys.readouterr().err
