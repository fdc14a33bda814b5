"""The bench's arithmetic on made-up times, and the whole of it on a tiny model."""

import io
import json
from dataclasses import replace

import pytest
import torch

from model import bench
from model.__main__ import run
from model.bench import Ceilings, Measured, Row
from model.config import Mamba2Config
from model.progress import ProgressLine

CONFIG = Mamba2Config(d_model=32, n_layers=2, vocab_size=256, d_state=16, head_dim=16, n_heads=4, n_groups=2)
CODESTRAL = Mamba2Config(d_model=4096, n_layers=64, vocab_size=32768, n_heads=128, n_groups=8)


class Slow:
    """A network whose steps take made-up times: the clock moves when it is called."""

    def __init__(self, config: Mamba2Config) -> None:
        self.config, self.numerics, self.weight_bytes, self.now = config, "made up", 3_000_000, 0.0
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, ids, state=None, *, last_only=False, into=None):
        from model.state import zero_state

        self.now += 0.1 + 0.01 * ids.shape[1]
        self.calls.append((ids.shape[1], last_only))
        return torch.zeros(1, 1, self.config.vocab_size), zero_state(self.config)

    def read_weights(self) -> int:
        self.now += 0.5
        return 4_000_000

    def multiply(self) -> None:
        self.now += 0.25


def test_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Slow(CONFIG)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: network.now)
    monkeypatch.setattr(bench, "_multiplier", lambda precision, device: (network.multiply, 2_000_000, "int8"))
    said = io.StringIO()
    measured = bench.measure(network, name="m", precision="int8", n_threads=3, progress=ProgressLine(said))
    assert measured.ceilings.read_bytes_per_s == pytest.approx(8_000_000)
    assert measured.ceilings.flop_per_s == pytest.approx(8_000_000)
    rows = {(row.what, row.n_tokens): row for row in measured.rows}
    assert list(rows) == [("decode", 1), ("feed", 1), ("feed", 8), ("feed", 32), ("feed", 512)]
    assert rows["decode", 1].ms == rows["feed", 1].ms == pytest.approx(110)
    assert rows["feed", 512].ms == pytest.approx(5220)
    assert rows["feed", 512].tokens_per_s == pytest.approx(512 / 5.22)
    moved = 3_000_000 + 2 * CONFIG.state_bytes
    assert rows["feed", 8].bandwidth_share == pytest.approx(moved / 0.18 / 8_000_000)
    per_token = 2 * 2 * 32 * (CONFIG.in_proj_dim + CONFIG.d_inner)
    assert rows["feed", 8].matrix_share == pytest.approx(
        (8 * per_token + 2 * 256 * 32) / 0.18 / measured.ceilings.flop_per_s
    )
    assert all(last_only for n_tokens, last_only in network.calls if n_tokens != 16)
    assert (
        sum(n_tokens == 512 for n_tokens, _ in network.calls) == 1 + bench.ROUNDS
    )  # long enough to be its own warm-up


def test_codestrals_work_a_token() -> None:
    """research/performance.md: about 14.3 GFLOP, the head included."""
    assert bench._flop(CODESTRAL, 1) == pytest.approx(14.3e9, rel=0.01)


@pytest.mark.parametrize(
    ("precision", "kind"), [("fp32", "fp32"), ("bf16", "bf16"), ("int8", "int8"), ("int4", "int8")]
)
def test_the_matrix_ceiling_is_measured_in_the_precision(
    precision: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MATRIX", (32, 64, 96))
    work, n_flop, name = bench._multiplier(precision, torch.device("cpu"))
    result = work()
    assert (name, n_flop) == (kind, 2 * 32 * 64 * 96) and isinstance(result, torch.Tensor)
    assert result.shape == (32, 64)
    assert result.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int32}[kind]


def test_short_work_is_repeated_until_the_clock_can_tell() -> None:
    calls = []
    timed = bench._Timed(lambda: calls.append(1))
    timed.warm_up()
    assert timed.loops > 100
    n_before = len(calls)
    timed.measure()
    assert len(calls) == n_before + timed.loops and timed.median_s < bench.MIN_SAMPLE_S


MEASURED = Measured(
    "some-org/m", "int4", "native 3 avx512 int4", 2, 5, 4_200_000_000, 276_299_776, Ceilings(52e9, 860e9, "int8"),
    (Row("decode", 1, 92.5, 0.987, 0.18), Row("feed", 1, 92.0, 0.99, 0.18), Row("feed", 512, 12_000.0, 0.0076, 0.712)),
)  # fmt: skip


def test_the_table() -> None:
    lines = list(bench.as_table(MEASURED))
    assert lines[:7] == [
        "model     some-org/m, int4, native 3 avx512 int4",
        "machine   2 threads, reads 52.0 GB/s, multiplies 860 GFLOP/s in int8",
        "a step    reads 4.2 GB of weights, moves 2 x 276 MB of state",
        "",
        "                      ms    tokens/s   of bandwidth   of matrix",
        "decode 1           92.50          11            99%         18%",
        "feed 1             92.00          11            99%         18%",
    ]
    assert lines[-2:] == [
        "a repository of 100,000 tokens is read in about 39 min, once",
        "a typed key takes about 1087 ms until its suggestion is whole: 4 tokens fed, 10 decoded",
    ]
    assert lines[7] == "feed 512        12000.00          43             1%         71%"


FED = [
    ({1: 10.0, 8: 24.0, 512: 1000.0}, 16.0),  # on the line between its neighbours
    ({4: 13.0, 8: 24.0}, 13.0),
    ({1: 10.0}, 40.0),
    ({8: 24.0}, 12.0),
]


@pytest.mark.parametrize(("ms_of", "ms"), FED)
def test_what_it_means_for_the_user(ms_of: dict[int, float], ms: float) -> None:
    feeds = [Row("feed", n_tokens, each, 0.5, 0.5) for n_tokens, each in ms_of.items()]
    measured = replace(MEASURED, rows=(Row("decode", 1, 7.0, 0.5, 0.5), *feeds))
    assert bench.key_ms(measured) == pytest.approx(ms + 70)
    n_widest = max(ms_of)
    assert bench.read_s(measured, 100_000) == pytest.approx(100_000 / n_widest * ms_of[n_widest] / 1000)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_the_bundled_model(precision: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHUNKS", (1, 8))
    monkeypatch.setattr(bench, "MATRIX", (64, 64, 64))
    monkeypatch.setattr(bench, "MIN_SAMPLE_S", 0.001)
    assert run(["bench", "--precision", precision, "--threads", "1", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert (found["model"], found["precision"], found["threads"], found["rounds"]) == ("bundled", precision, 1, 5)
    assert list(found["feed"]) == ["1", "8"]
    eight = found["feed"]["8"]["ms"]
    assert found["read_100000_tokens_s"] == pytest.approx(12.5 * eight, rel=0.01, abs=0.01)
    assert found["typed_key_ms"] > 10 * found["decode"]["ms"]
    for row in (found["decode"], *found["feed"].values()):
        assert row["ms"] > 0 and row["tokens_per_s"] == pytest.approx(1000 * row["n_tokens"] / row["ms"], rel=0.01)
        assert row["bandwidth_share"] > 0 and row["matrix_share"] > 0


def test_a_network_that_cannot_read_its_weights_alone(random_network) -> None:
    """torch's: a buffer as large as the weights stands for them."""
    network = random_network(CONFIG)
    work, n_bytes = bench._reader(network, torch.device("cpu"))
    assert float(work()) == n_bytes / 4 == max(1 << 16, network.weight_bytes) // 4


def test_a_torch_without_integer_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("not implemented here")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    assert bench._multiplier("int4", torch.device("cpu"))[2] == "fp32"
