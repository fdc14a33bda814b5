"""Scores: against transformers, against feeding everything at once, and as people and programs see them."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.__main__ import run
from model.config import ConfigError, Mamba2Config
from model.score import Score, as_lines, score_ids, token_lines
from model.score_input import parse_ids

CONFIG = Mamba2Config(d_model=32, n_layers=2, vocab_size=211, d_state=16, head_dim=16, n_heads=4, n_groups=2)
TEXT = "def first(values):\n    return values[0]\n\n\tß = 'é😀'  # [INST] is text\r\n"


def random_ids(n: int, vocab: int = CONFIG.vocab_size) -> list[int]:
    return torch.randint(vocab, (n,), generator=torch.Generator().manual_seed(n)).tolist()


def at_once(network, ids: list[int]) -> list[float]:
    logits, _ = network(torch.tensor([ids]))
    logprobs = torch.log_softmax(logits[0, :-1].double(), -1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


@pytest.mark.parametrize("n_tokens", [2, 3, 17, 600])
@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_chunks_give_what_feeding_at_once_gives(random_network, n_tokens: int, chunk: int) -> None:
    if n_tokens == 600 and chunk == 1:
        pytest.skip("slow, and says no more than 17 tokens do")
    network, ids = random_network(CONFIG), random_ids(n_tokens)
    assert score_ids(network, ids, chunk=chunk) == pytest.approx(at_once(network, ids), abs=1e-4)


def test_transformers_agrees(random_network) -> None:
    from transformers import Mamba2Config as HfConfig
    from transformers import Mamba2ForCausalLM

    network, ids = random_network(CONFIG), random_ids(300)
    theirs = Mamba2ForCausalLM(HfConfig(**CONFIG.to_hf())).eval()
    theirs.load_state_dict(network.state_dict(), strict=True)
    with torch.no_grad():
        logits = theirs(torch.tensor([ids]), use_cache=False).logits[0]
    expected = torch.log_softmax(logits[:-1].double(), -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    found = torch.tensor(score_ids(network, ids), dtype=torch.float64)
    assert (found - expected).abs().max() < 1e-4


class Widest:
    """A network that remembers how many tokens it was given at once, and that its states may be written over."""

    def __init__(self, network) -> None:
        self.network, self.config, self.widths, self.reused = network, network.config, [], []

    def __call__(self, ids, state=None, *, last_only=False, into=None):
        self.widths.append(ids.shape[1])
        self.reused.append(into is state)
        return self.network(ids, state, last_only=last_only, into=into)


def test_memory_does_not_grow_with_the_length(random_network) -> None:
    network, heard = Widest(random_network(CONFIG)), []
    score_ids(network, random_ids(1200), progress=lambda *news: heard.append(news))
    assert network.widths == [512, 512, 175]  # the last token is fed to nobody
    assert all(network.reused)
    assert heard == [(512, 1199, "scoring"), (1024, 1199, "scoring"), (1199, 1199, "scoring")]


def test_one_token_has_no_score(random_network) -> None:
    assert score_ids(random_network(CONFIG), [3]) == []


def test_the_figures() -> None:
    scored = Score([1, 2, 3], [math.log(0.5), math.log(0.125)], pieces=[b"other", b"four", b"4444"], seconds=1.0)
    assert scored.total == pytest.approx(math.log(1 / 16))
    assert scored.perplexity == pytest.approx(4.0)
    assert scored.bits_per_byte == pytest.approx(0.5)
    empty = Score([1], [], pieces=[b"other"], seconds=1.0)
    assert (empty.total, empty.perplexity, empty.bits_per_byte) == (0.0, None, None)
    assert Score([1, 2], [-1e6], pieces=None, seconds=1.0).perplexity is None
    assert Score([1, 2], [-1.0], pieces=None, seconds=1.0).bits_per_byte is None


@pytest.mark.parametrize(
    ("logprob", "shown"), [(-1.0, "2.7183"), (-13.8, "984609.1112"), (-20.0, "4.8517e+08"), (-800.0, "above 1e304")]
)
def test_a_large_perplexity_is_short(logprob: float, shown: str) -> None:
    lines = as_lines(Score([1, 2], [logprob], pieces=None, seconds=1.0), model="m", precision="int8", is_automatic=True)
    assert lines[0] == "model            m, int8 (auto; --precision fp32 measures the weights as they are stored)"
    assert lines[3].endswith(f"perplexity {shown}")


def test_a_line_a_token_that_cannot_steer_the_terminal() -> None:
    scored = Score(
        [1, 20, 3, 4], [-0.5, -12.25, -3.0], pieces=[b"", b"a\x1b[2J\n", b"\xf0", "é\u202e'".encode()], seconds=1.0
    )
    assert list(token_lines(scored)) == [
        "position      id   log-prob.  text",
        "       1       1           -  -",
        "       2      20     -0.5000  'a\\x1b[2J\\n'",
        "       3       3    -12.2500  b'\\xf0'",
        '       4       4     -3.0000  "é\\u202e\'"',
    ]


IDS = [
    ("1,2,3", [1, 2, 3]),
    (" 1, 2\n3 ", [1, 2, 3]),
    ("7", [7]),
    ("[1, 2]", [1, 2]),
    (' {"ids": [7, 8], "logprobs": [-1]}\n', [7, 8]),
]
BAD_IDS = [
    ("", "no ids"), (" ", "no ids"), ("[]", "no ids"), ("1,,2", r"'' is no token id \(position 2\)"), ("1,", r"'' .*\(position 2\)"),
    ("[1, true]", r"true is no token id \(position 2\)"), ("[1.0]", "1.0 is no"), ('["1"]', '"1" is no'), ("[-1]", "-1 is no"),
    ("1,x", "'x' is no token id"), ("-1", "'-1' is no token id"), ("1.5", "'1.5'"), ("²", "'²'"),
]  # fmt: skip
BAD_JSON_IDS = [
    ("[1", "no JSON"),
    ("[" * 100_000, "no JSON"),
    ("{}", "has no list 'ids'"),
    ('{"ids": 3}', "has no list 'ids'"),
]


@pytest.mark.parametrize(("text", "ids"), IDS)
def test_ids_are_read(text: str, ids: list[int]) -> None:
    assert parse_ids(text) == ids


@pytest.mark.parametrize(("text", "said"), BAD_IDS)
def test_wrong_ids_are_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^--ids: .*{said}.*expected whole numbers such as 1,2,3$"):
        parse_ids(text)


@pytest.mark.parametrize(("text", "said"), BAD_JSON_IDS)
def test_wrong_json_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^--ids: .*{said}") as caught:
        parse_ids(text)
    assert len(str(caught.value)) < 200


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["score", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, bundled, precision: str) -> None:
    (tmp_path / "a.py").write_bytes(TEXT.encode())
    found = as_json(capsys, str(tmp_path / "a.py"), "--precision", precision)
    ids = [bundled.tokenizer.control.bos, *bundled.tokenizer.encode(TEXT)]
    assert found["ids"] == ids
    assert (found["model"], found["precision"], found["n_tokens"]) == ("bundled", precision, len(ids))
    assert len(found["logprobs"]) == len(ids) - 1 and found["token_logprobs"] == [None, *found["logprobs"]]
    assert found["n_bytes"] == len(TEXT.encode())
    assert found["total_logprob"] == pytest.approx(sum(found["logprobs"]))
    assert found["bits_per_byte"] == pytest.approx(-sum(found["logprobs"]) / math.log(2) / len(TEXT.encode()))
    if precision == "fp32":
        from model.checkpoint import load_model

        assert found["logprobs"] == pytest.approx(
            at_once(load_model("bundled", precision="fp32").network, ids), abs=1e-3
        )
    # The same tokens by their ids are the same score.
    again = as_json(capsys, "--ids", ",".join(map(str, ids)), "--precision", precision)
    assert again["logprobs"] == found["logprobs"] and again["n_bytes"] == found["n_bytes"]


def test_ids_need_no_tokenizer(capsys: pytest.CaptureFixture[str], tmp_path: Path, random_network) -> None:
    from safetensors.torch import save_file

    network = random_network(CONFIG)
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    found = as_json(capsys, "--model", str(tmp_path), "--precision", "fp32", "--ids", "5,210,0,7")
    assert found["logprobs"] == pytest.approx(at_once(network, [5, 210, 0, 7]), abs=1e-4)
    assert (found["n_bytes"], found["bits_per_byte"], found["n_tokens"]) == (None, None, 4)
    (tmp_path / "a.txt").write_text("x")
    assert run(["score", "--model", str(tmp_path), str(tmp_path / "a.txt")]) == 1
    assert "tokenizer" in capsys.readouterr().err


def test_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert as_json(capsys, "-")["n_bytes"] == len(TEXT.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1 2 3\n")))
    assert as_json(capsys, "--ids", "-")["ids"] == [1, 2, 3]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    found = as_json(capsys, "--tokens")  # a pipe, and no FILE
    assert found["n_bytes"] == len(TEXT.encode())
    assert [(row["position"], row["id"]) for row in found["tokens"]] == list(enumerate(found["ids"], 1))
    assert [row["logprob"] for row in found["tokens"]] == found["token_logprobs"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(found).encode())))
    assert as_json(capsys, "--ids", "-")["logprobs"] == found["logprobs"]


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", "--ids", "1,50,60", "--precision", "int8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "model            bundled, int8",
        "tokens           3, of which 2 are scored: all but the first",
    ]
    assert [line.split("  ")[0] for line in lines[2:]] == ["log-probability", "a token", "bits per byte", "time"]
    assert run(["score", "--ids", "1,50,60", "--tokens", "--threads", "1000"]) == 0
    said, complained = capsys.readouterr()
    lines = said.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["position", "id"], ["1", "1"], ["2", "50"], ["3", "60"]]
    assert lines[4] == "" and "(auto; --precision fp32" in lines[5]
    assert complained.startswith("--threads 1000: more than the cores here, using ") and complained.count("\n") == 1


SEE = "(see codestral-lsp score --help)"
BAD = [
    ([], 1, "standard input: is empty, nothing to score"),
    (["empty.txt"], 1, "empty.txt: is empty, nothing to score"),
    (["--ids", "1"], 1, "nothing to score: 1 token, expected at least two, since the first is only read"),
    (["a.txt", "--ids", "1"], 2, f"expected either FILE or --ids, found both {SEE}"),
    (["a.txt", "--model", ""], 1,
     "--model: is empty, expected bundled, a pulled name such as ORG/NAME, a folder with a model or a .gguf file"),
    (["nothing.txt"], 1, "nothing.txt: cannot be read (No such file or directory), expected a text file or -"),
    (["latin.txt"], 1, "latin.txt: not UTF-8 (byte 0xe9 at offset 2), expected UTF-8 text"),
    (["--ids", "1,8192"], 1, "token id 8192 at position 2: expected 0 to 8191, the vocabulary"),
    (["--ids", "1,2", "--precision", "int2"], 2,
     f"Invalid value for '--precision': 'int2' is not one of 'auto', 'fp32', 'bf16', 'int8', 'int4'. {SEE}"),
    (["--ids", "1", "--model", "some-org/absent"], 1,
     "some-org/absent: is not on this machine; codestral-lsp pull some-org/absent downloads it"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "line"), BAD)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"ab\xe9")
    (tmp_path / "a.txt").write_bytes(b"ab")
    (tmp_path / "empty.txt").write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert run(["score", *arguments]) == code
    assert tuple(capsys.readouterr()) == ("", f"codestral-lsp: {line}\n")


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for stdin in (Terminal(io.BytesIO(b"text")), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(["score"]) == 2
        assert capsys.readouterr().err == f"codestral-lsp: expected FILE (- is stdin) or --ids {SEE}\n"


WRONG_AT_ONCE = [
    ["score", "nothing.txt"], ["score", "--ids", "1,,2"], ["score", "--ids", "1,2", "--model", "/nope"],
    ["export", "--gguf", "x.txt"], ["export", "--gguf", "x.gguf", "--model", "/nope"], ["bench", "--model", "/nope"],
    ["quantize", "--precision", "int8", "--model", "/nope"],
]  # fmt: skip


def test_what_is_wrong_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from model.__main__ import run\n"
        f"codes = [run(arguments) for arguments in {WRONG_AT_ONCE!r}]\n"
        "print(set(codes), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "{1} False False\n", done.stderr
    assert done.stderr.count("\n") == len(WRONG_AT_ONCE)
