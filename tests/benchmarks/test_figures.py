"""What the benchmarks make of their samples: distances between precisions, shares of ceilings, tables, JSON, pictures."""

import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import context_length, full_size, model_speed, our_speed, plot, precision
from benchmarks.peers import Work
from benchmarks.stats import Rounds, Sample
from model.config import Mamba2Config
from model.network import Mamba2LM

TINY = Mamba2Config(d_model=32, n_layers=2, vocab_size=64, d_state=16, head_dim=16, n_heads=4)


@pytest.fixture
def network() -> Mamba2LM:
    torch.manual_seed(0)
    return Mamba2LM(TINY).requires_grad_(False).eval()


def log_of(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).log()


@pytest.mark.parametrize(
    ("reference", "other", "kl", "top_1"),
    [
        ([0.5, 0.25, 0.25], [0.5, 0.25, 0.25], 0.0, 1.0),
        ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25], 0.25 * math.log(2), 0.0),
        ([0.8, 0.1, 0.1], [0.6, 0.2, 0.2], 0.8 * math.log(0.8 / 0.6) - 0.2 * math.log(2), 1.0),
    ],
)
def test_distances_between_predictions(reference: list[float], other: list[float], kl: float, top_1: float) -> None:
    streams = [[0, 1, 2], [0, 2]]
    kept = log_of(reference, reference, reference).numpy()
    chunks = iter([log_of(other, other), log_of(other)])
    found = precision.compare(chunks, streams, {"bf16": kept})  # type: ignore[dict-item]
    assert found["nats"] == pytest.approx(-(math.log(other[1]) + 2 * math.log(other[2])) / 3, rel=1e-5)
    assert found["from"]["bf16"]["kl"] == pytest.approx(kl, abs=1e-6)
    assert found["from"]["bf16"]["kl_worst"] == pytest.approx(kl, abs=1e-6)
    assert found["from"]["bf16"]["top_1"] == top_1


def test_kept_predictions_are_those_of_the_network(network: Mamba2LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CHUNK", 4)
    streams = [list(range(11)), [5, 4, 3]]
    kept = np.empty((12, TINY.vocab_size), dtype=np.float32)
    precision.fill(kept, precision.predictions(network, streams))  # type: ignore[arg-type]
    again = torch.cat(list(precision.replayed(kept, streams)))  # type: ignore[arg-type]
    whole = torch.cat([network(torch.tensor([ids[:-1]]))[0][0].log_softmax(-1) for ids in streams])
    assert (again - whole).abs().max() < 1e-4


def test_the_bundled_model_is_the_further_off_the_fewer_bits() -> None:
    streams = [[1, *range(300, 360)]]
    figures = precision.measure("bundled", streams, ["fp32", "int8", "int4"], references=["fp32"], backend="auto")
    assert list(figures) == ["fp32", "int8", "int4"]
    assert figures["fp32"]["from"] == {}
    assert 0 < figures["int8"]["from"]["fp32"]["kl"] < figures["int4"]["from"]["fp32"]["kl"]
    assert figures["fp32"]["weight_bytes"] > figures["int8"]["weight_bytes"] > figures["int4"]["weight_bytes"]


def test_work_of_the_matrices() -> None:
    # in: 2 * 64 + 2 * 16 + 4 rows of 32; out: 32 rows of 64; the head once.
    assert our_speed.matrix_flop(TINY, 10) == 2 * (10 * 2 * ((128 + 32 + 4) * 32 + 32 * 64) + 64 * 32)


def test_shares_without_native_kernels(network: Mamba2LM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_speed, "CEILING_SHAPE", (64, 64, 64))
    found = our_speed.shares(network, "fp32", rounds=1, spare_rounds=0, patience_s=0)
    assert (found.bandwidth, found.overhead_ms, found.read_gb_s) == (None, None, None)
    assert found.matrix > 0
    assert found.verify > 0


@pytest.mark.parametrize("work", [Work("feed", 8, 2), Work("decode", 3, 2)], ids=str)
def test_a_network_is_timed_by_the_token(work: Work) -> None:
    fed: list[int] = []

    class Counted:
        config = TINY

        def __call__(self, ids: Tensor, state: object, *, last_only: bool, into: object = None) -> tuple:
            fed.append(ids.shape[1])
            return None, state

    took = our_speed.seconds_per_token(Counted(), work)  # type: ignore[arg-type]
    assert 0 < took < 0.1
    assert sum(n for n in fed if n > 1 or work.kind == "decode") >= work.n_tokens * work.repetitions


def figures_of(*values: tuple[float, float]) -> model_speed.Figures:
    figures = model_speed.Figures()
    rounds = Rounds(tuple({"ours": Sample(a, 0), "theirs": Sample(b, 0)} for a, b in values), noisy=0)
    for work in ("decode", "feed 8"):
        model_speed.keep(figures, ("s", "int4", work), rounds)
    figures.shares["s", "int4"] = our_speed.Shares(0.9, 0.7, 1.5, None, 50.0, 800.0)
    return figures


def test_speed_as_table_and_as_json() -> None:
    figures = figures_of((0.001, 0.002), (0.002, 0.006), (0.001, 0.004))
    rows = model_speed.speed_table(figures, "s", ["int4"]).split("\n")
    assert [cell.strip() for cell in rows[2].split("|")[1:-1]] == ["decode", "1.000", "4.000", "3.00 [2.00..4.00]"]
    assert [cell.strip() for cell in rows[4].split("|")[1:-1]] == ["feed 16", "-", "-", "-"]
    options = model_speed.Options(
        rounds=3, spare_rounds=0, patience_s=0, threads=2, backend="auto", quick=True, pure=False
    )
    found = json.loads(json.dumps(model_speed.as_json(figures, options)))
    assert found["decode_ratio"] == {"s": {"int4": 3.0}}
    assert found["feed_ratio"] == {"s": {"int4": {"8": 3.0}}}
    assert found["ratio_range"] == {"s": {"int4": {"decode": [2.0, 4.0], "feed 8": [2.0, 4.0]}}}
    assert found["bandwidth_share"] == {"s": {"int4": 0.9}}
    assert "90 %" in model_speed.share_table(figures)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shapes", "s,huge"], "'huge', expected some of bundled, s, c8, c64"),
        (["--precisions", "int2"], "'int2', expected some of int4, int8, bf16"),
    ],
)
def test_wrong_arguments_are_one_line(
    flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["model_speed.py", *flags])
    with pytest.raises(SystemExit):
        model_speed.main()
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_the_full_size_table_leaves_out_what_was_not_fed() -> None:
    row = {
        "weights_gb": 4.2,
        "first_load_s": 99.0,
        "load_s": 1.5,
        "first_peak_gb": 5.0,
        "peak_gb": 4.9,
        "resident_gb": 4.4,
        "decode_tokens_s": 7.1,
    }
    both = {
        "bf16": row | {"feed_tokens_s": {"1": 2.0, "8": 9.0}},
        "int4": row | {"feed_tokens_s": {"1": 7.0}},
    }
    head, _, first, second = full_size.full_table(both).split("\n")
    assert "feed 8 tokens/s" in head
    assert [line.split("|")[-2].strip() for line in (first, second)] == ["9.0", "-"]


def test_reading_is_measured_in_a_process_of_its_own() -> None:
    args = Namespace(precision="bf16", threads=1, limit_s=60.0)
    cost = context_length.measure("ours", 300, args=args)
    assert 0 < cost.seconds < 30
    assert 50e6 < cost.peak_bytes < 4e9
    with pytest.raises(context_length.Stopped, match="over 0 s"):
        context_length.measure("ours", 300, args=Namespace(precision="bf16", threads=1, limit_s=0.1))


def test_costs_as_table_and_as_json() -> None:
    costs = {"ours": {1024: context_length.Cost(0.5, 300_000_000)}, "transformers": {}}
    table = context_length.cost_table(costs, [1024, 2048])
    assert [cell.strip() for cell in table.split("\n")[2].split("|")[1:5]] == ["1k", "0.50", "2048", "300"]
    found = context_length.as_json(costs, {"transformers": "out of memory"})
    assert found["context_length"]["ours"] == {"1024": {"s": 0.5, "peak_mb": 300.0}}
    assert found["stopped"] == {"transformers": "out of memory"}


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0, 40.0], (1, 100)), ([10.0], (10, 100)), ([0.02], (0.01, 0.1)), ([], (1, 10))]
)
def test_axes_end_at_powers_of_ten(values: list[float], expected: tuple[float, float]) -> None:
    assert plot.decades(values) == pytest.approx(expected)


@pytest.mark.parametrize(("number", "expected"), [(1024, "1k"), (262_144, "256k"), (100, "100"), (1500, "1500")])
def test_lengths_are_short(number: int, expected: str) -> None:
    assert plot.short(number) == expected


def test_the_same_figures_give_the_same_picture(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the optional group `bench` is not installed")
    panel = plot.Panel("Time", "s", [plot.Line("ours", [1024, 4096], [0.1, 0.4]), plot.Line("theirs", [], [], "late")])
    first = plot.draw([panel], x_label="tokens", ticks=[1024, 4096], out=tmp_path / "a")
    second = plot.draw([panel], x_label="tokens", ticks=[1024, 4096], out=tmp_path / "b")
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert ">ours<" in first[1].read_text(encoding="utf-8")
