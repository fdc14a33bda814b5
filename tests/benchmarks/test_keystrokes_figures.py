"""What becomes of a replay's samples: percentiles, the goals' figures, ratios to peers, tables and the JSON line; and the other two programs' figures."""

import json

import pytest

from benchmarks import memory_curve, plot, restart
from benchmarks.editor_replay import Sample, position
from benchmarks.keystroke_figures import (
    as_json,
    by_kind,
    event_table,
    figures,
    goals,
    paired,
    peer_ratios,
    percentile,
    ratio_table,
)
from benchmarks.llama_server import PeerSample
from benchmarks.memory_curve import Memory
from benchmarks.restart import Start

NO_PEERS: dict = {}


def report(fed: int = 4, segment: str = "line", context: int = 1000, reused: int = 1200) -> dict:
    return {"tokens_fed": fed, "tokens_reused": reused, "segment": segment, "context_tokens": context}


def sample(kind: str = "typed", ms: float = 10.0, **more) -> Sample:
    return Sample(kind, more.pop("round", 0), ms, **{"report": report(), "first_ms": ms, "explained": 500} | more)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        (list(range(1, 101)), 95, 95),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 201)), 99, 198),
        ([1.0, 9.0], 0, 1.0),
    ],
)
def test_percentiles_are_values_that_were_measured(values: list, percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (sample(), False),
        (
            sample(report=report(segment="root", fed=3)),
            True,
        ),  # its state has read the repository, and was resumed before it
        (sample(report=report(segment="root", fed=900, context=0)), False),  # there is no repository
        (sample(report=report(segment="base", fed=500)), False),  # the file and its windows
        (sample(report=report(segment="base", fed=501)), True),
        (sample(report=report(segment="head", fed=900)), False),
        (sample(report=report(segment="root"), is_reused=True), False),  # an old answer's report
        (sample(report=None), False),
        (sample("restart", daemon_fed=1100), True),  # in the background, but fed again
        (sample("restart", daemon_fed=450), False),
    ],
)
def test_feeding_the_repository_again_is_seen(what: Sample, expected: bool) -> None:
    assert what.feeds_base is expected


def test_one_kind_of_event_in_figures() -> None:
    found = figures(
        [
            sample(ms=10, report=report(fed=2)),
            sample(ms=30, report=report(fed=6, segment="prefix")),
            sample(ms=1, report=report(fed=99), is_reused=True),
            sample(ms=20, report=None),
        ]
    )
    assert (found["n"], found["p50_ms"], found["p99_ms"], found["p50_ms_asked"]) == (4, 10, 30, 10)
    assert (found["fed_p50"], found["fed_p99"]) == (2, 6)
    assert found["segments"] == {"line": 1, "prefix": 1}
    assert (found["without_model"], found["no_report"]) == (0.25, 1)
    assert "until_current_s" not in found and "first_answer_p50_ms" not in found
    assert figures([sample("save_other", until_current_s=0.5)])["until_current_s"] == 0.5
    assert figures([sample("restart", ms=900, first_ms=300)])["first_answer_p50_ms"] == 300


def test_goals() -> None:
    samples = {
        0: [sample(ms=10), sample(ms=1, is_reused=True), sample("near", report=report(fed=300))],
        262_144: [
            sample(ms=11),
            sample(report=report(fed=9), ms=5, is_reused=True),
            sample("back", report=report(fed=700)),
            sample("save_other", until_current_s=None, report=report(segment="base", fed=5000)),
        ],
    }
    found = goals(samples)
    assert found["typed_p50_ratio_256k_to_0"] == pytest.approx(1.1)
    assert (found["typed_fed_p99"], found["jump_fed_p99"], found["base_refeeds"]) == (4, 700, 1)
    assert found["not_current_in_time"] == 1
    assert found["without_model"] == pytest.approx(2 / 7)
    assert goals({0: samples[0]})["typed_p50_ratio_256k_to_0"] is None


def test_ratios_are_of_medians_of_the_events_that_both_played() -> None:
    ours = [sample(ms=10), sample(ms=2, is_reused=True), sample("near", ms=5), sample(ms=1000, round=1)]
    ours.insert(3, sample("save_other", ms=4, until_current_s=0.1))
    theirs = [PeerSample(each.kind, each.round, ms, 3) for each, ms in zip(ours, (60, 60, 500, 400), strict=False)]
    found = peer_ratios({16_384: ours}, {16_384: {"defaults": theirs, "best": theirs[:2]}})
    assert found == {
        "16k": {
            "typed": {"defaults": 10.0, "best": 10.0},
            "typed_asked": {"defaults": 6.0, "best": 6.0},
            "near": {"defaults": 100.0},
            "save_other": {"defaults": 100.0},
            "save_other_current": {"defaults": 4.0},
        }
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ratio_table(found).split("\n")]
    assert rows[0] == ["event", "16k defaults", "16k best"]
    assert rows[4] == ["near", "100", "-"]


def test_events_that_differ_are_never_compared() -> None:
    with pytest.raises(ValueError, match="near in round 0 beside typed in round 0: expected the same events"):
        paired([sample("near")], [PeerSample("typed", 0, 1.0, 1)])


def test_the_json_line_and_the_table() -> None:
    samples = {0: [sample(report=report(context=0))], 4096: [sample(), sample("near"), sample("far", report=None)]}
    peers = {4096: {"defaults": [PeerSample("typed", 0, 50.0, 7)], "best": []}}
    found = json.loads(json.dumps(as_json(samples, peers), allow_nan=False))
    for key in ("typed_p50_ratio_256k_to_0", "typed_fed_p99", "jump_fed_p99", "base_refeeds"):
        assert key in found
    assert found["peer_ratio"] == {"4k": {"typed": {"defaults": 5.0}, "typed_asked": {"defaults": 5.0}}}
    assert list(found["events"]) == ["0", "4k"]
    assert found["context_tokens"] == {"0": 0, "4k": 1000}
    assert found["peer_events"]["4k"]["defaults"]["typed"] == {"n": 1, "p50_ms": 50.0, "fed_p50": 7}
    lines = event_table(samples[4096], peers[4096]).split("\n")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["typed", "near", "far"]
    assert [cell.strip() for cell in lines[2].split("|")[-5:-1]] == ["50.0", "7", "-", "-"]
    assert list(by_kind(samples[4096])) == ["typed", "near", "far"]


@pytest.mark.parametrize(("offset", "line", "character"), [(0, 0, 0), (2, 0, 2), (3, 1, 0), (5, 1, 2), (6, 2, 0)])
def test_positions(offset: int, line: int, character: int) -> None:
    assert position("ab\ncd\n", offset) == {"line": line, "character": character}


def test_restarts_as_a_table_and_what_a_state_takes() -> None:
    starts = {
        "from disk": [Start(2.0, 2.1, 2.5, 400, "base"), Start(2.2, 2.3, 2.4, 300, "base")],
        "read again": [Start(2.0, 2.1, 12.0, 260_000, "base")],
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in restart.start_table(starts, 262_144).split("\n")
    ]
    assert rows[2][0] == "from disk" and rows[2][3].startswith("2.45 [2.40..2.50]") and rows[2][4] == "400"
    assert rows[3][4] == "260000"
    tiers = [{"tier": "memory", "states": 4, "nbytes": 8_000_000}, {"tier": "disk", "states": 0, "nbytes": 0}]
    found = restart.state_bytes({"tiers": tiers})
    assert found["bytes"] == {"memory": {"a_state": 2_000_000, "states": 4, "all": 8_000_000}}
    assert restart.state_bytes(None)["bytes"] == {}


def test_memory_as_table_json_and_picture(tmp_path) -> None:
    by_tokens = {
        1024: Memory(300_000_000, 310_000_000, 20_000_000),
        4096: Memory(420_000_000, 420_000_000, 120_000_000),
    }
    by_files = {1: Memory(300_000_000, 310_000_000, 20_000_000)}
    rows = memory_curve.memory_table("tokens", by_tokens).split("\n")
    assert [cell.strip() for cell in rows[3].split("|")[1:-1]] == ["4k", "420", "420", "120", "300"]
    found = json.loads(json.dumps(memory_curve.as_json(by_tokens, by_files)))
    assert found["memory_by_tokens"]["1024"] == {"rss_mb": 300.0, "peak_mb": 310.0, "states_mb": 20.0}
    assert found["rss_without_states_ratio"] == pytest.approx(300 / 280)
    panels = memory_curve.panels(by_tokens, by_files)
    assert [panel.x_label for panel in panels] == ["", "open files"]
    assert panels[1].ticks == [1]
    pytest.importorskip("matplotlib", reason="the optional group `bench` is not installed")
    svg = plot.draw(panels, x_label="tokens", ticks=list(by_tokens), out=tmp_path / "m")[1].read_text(encoding="utf-8")
    assert ">open files<" in svg and ">tokens<" in svg


@pytest.mark.parametrize("text", ["0", "-1,2"])
def test_numbers_begin_at_one(text: str) -> None:
    with pytest.raises(memory_curve.argparse.ArgumentTypeError, match="expected numbers from 1 on"):
        memory_curve.numbers(text)
