"""What becomes of the samples of a replay: percentiles by kind of event, ratios to peers, the goals' figures; as tables and as JSON.

Knows: samples. Does not know: how they were taken.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.editor_replay import Sample
from benchmarks.llama_server import PeerSample
from benchmarks.plot import short
from benchmarks.stats import spread, table
from benchmarks.typing_script import JUMPS, KINDS, TYPED

SMALL, LARGE = 0, 262_144  # between which a typed key must not become dearer
Samples = Mapping[int, Sequence[Sample]]  # by tokens of context
PeerSamples = Mapping[int, Mapping[str, Sequence[PeerSample]]]  # by tokens of context and by setup


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The smallest value that at least so many percent of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def by_kind(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """In the order of KINDS, kinds that did not happen left out."""
    found: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    for sample in samples:
        found[sample.kind].append(sample)
    return {kind: each for kind, each in found.items() if each}


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """One kind of event at one size. Times are of all events, tokens of those that the model was asked at."""
    asked = [sample for sample in samples if sample.asked_model]
    times = [sample.ms for sample in samples]
    fed = [sample.fed for sample in asked]
    current = [sample.until_current_s for sample in samples if sample.until_current_s is not None]
    found = {
        "n": len(samples),
        **{f"p{p}_ms": percentile(times, p) for p in (50, 95, 99)},
        "p50_ms_asked": percentile([sample.ms for sample in asked], 50),
        **{f"fed_p{p}": percentile(fed, p) for p in (50, 95, 99)},
        "reused_p50": percentile([int(sample.report["tokens_reused"]) for sample in asked if sample.report], 50),
        "segments": dict(Counter(str(sample.report["segment"]) for sample in asked if sample.report).most_common()),
        "without_model": sum(sample.is_reused for sample in samples) / len(samples),
        "no_report": sum(sample.report is None for sample in samples),
    }
    if current:
        found["until_current_s"] = percentile(current, 50)
        found["until_current_most_s"] = max(current)
    if any(sample.first_ms != sample.ms for sample in samples):
        found["first_answer_p50_ms"] = percentile([sample.first_ms for sample in samples], 50)
    return found


def goals(samples: Samples) -> dict[str, Any]:
    """What issue and documentation hold us to. A typed key is compared where the model was asked: those that the client answered cost the same anywhere."""
    every = [sample for each in samples.values() for sample in each]
    known = [
        sample for n, each in samples.items() if n for sample in each
    ]  # where the repository has the files in which the cursor jumps
    at = {
        n: percentile([s.ms for s in samples.get(n, ()) if s.kind == TYPED and s.asked_model], 50)
        for n in (SMALL, LARGE)
    }
    small, large = at[SMALL], at[LARGE]
    return {
        "typed_p50_ratio_256k_to_0": large / small if small and large else None,
        "typed_fed_p99": percentile([s.fed for s in every if s.kind == TYPED and s.asked_model], 99),
        "jump_fed_p99": percentile([s.fed for s in known if s.kind in JUMPS and s.asked_model], 99),
        "base_refeeds": sum(s.feeds_base for s in every),
        "without_model": sum(s.is_reused for s in every) / max(1, len(every)),
        "no_report": sum(s.report is None for s in every),
        "not_current_in_time": sum(
            s.kind == "save_other" and s.until_current_s is None and bool(n)
            for n, each in samples.items()
            for s in each
        ),
    }


def peer_ratios(samples: Samples, peers: PeerSamples) -> dict[str, dict[str, dict[str, float]]]:
    """{size: {event: {setup: median of theirs / median of ours}}}, of the events that both have played.

    "typed" is every typed key, "typed_asked" those at which our client did not answer by itself. "save_other" is the next key after another file was saved,
    "save_other_current" the time until the answer knows the saved text; theirs always does.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for size, setups in peers.items():
        for setup, theirs in setups.items():
            for kind, pairs in paired(samples[size], theirs).items():
                ratio = statistics.median([b for _, b in pairs]) / statistics.median([a for a, _ in pairs])
                found.setdefault(short(size), {}).setdefault(kind, {})[setup] = ratio
    return found


def paired(ours: Sequence[Sample], theirs: Sequence[PeerSample]) -> dict[str, list[tuple[float, float]]]:
    """(our ms, their ms) of the same events by kind, which both lists hold in the same order, theirs perhaps fewer."""
    found: dict[str, list[tuple[float, float]]] = {}
    for a, b in zip(ours, theirs, strict=False):
        if (a.kind, a.round) != (b.kind, b.round):
            raise ValueError(
                f"{a.kind} in round {a.round} beside {b.kind} in round {b.round}: expected the same events"
            )
        found.setdefault(a.kind, []).append((a.ms, b.ms))
        if a.kind == TYPED and not a.is_reused:
            found.setdefault("typed_asked", []).append((a.ms, b.ms))
        if a.until_current_s is not None:
            found.setdefault("save_other_current", []).append((1000 * a.until_current_s, b.ms))
    return found


def as_json(samples: Samples, peers: PeerSamples) -> dict[str, Any]:
    return goals(samples) | {
        "peer_ratio": peer_ratios(samples, peers),
        "events": {
            short(size): {kind: figures(each) for kind, each in by_kind(found).items()}
            for size, found in samples.items()
        },
        "peer_events": {
            short(size): {setup: peer_figures(each) for setup, each in found.items()} for size, found in peers.items()
        },
        "context_tokens": {short(size): context_tokens(each) for size, each in samples.items()},
    }


def peer_figures(samples: Sequence[PeerSample]) -> dict[str, dict[str, float | None]]:
    return {
        kind: {
            "n": len(each),
            "p50_ms": percentile([s.ms for s in each], 50),
            "fed_p50": percentile([s.fed for s in each], 50),
        }
        for kind in KINDS
        if (each := [sample for sample in samples if sample.kind == kind])
    }


def context_tokens(samples: Iterable[Sample]) -> int:
    return max((int(sample.report["context_tokens"]) for sample in samples if sample.report is not None), default=0)


def event_table(samples: Sequence[Sample], peers: Mapping[str, Sequence[PeerSample]]) -> str:
    """One size, a row for each kind of event."""
    head = ["event", "n", "p50 ms", "p95", "p99", "fed p50", "p99", "reused p50", "resumed at", "no model"]
    for setup in peers:
        head += [f"llama.cpp {setup}, ms", "fed"]
    rows = []
    theirs = {setup: peer_figures(each) for setup, each in peers.items()}
    for kind, each in by_kind(samples).items():
        found = figures(each)
        row = [kind, found["n"], *(ms(found[f"p{p}_ms"]) for p in (50, 95, 99))]
        row += [count(found["fed_p50"]), count(found["fed_p99"]), count(found["reused_p50"])]
        row += [
            ", ".join(f"{name} {n}" for name, n in found["segments"].items()) or "-",
            f"{found['without_model']:.0%}",
        ]
        for setup in peers:
            other = theirs[setup].get(kind, {})
            row += [ms(other.get("p50_ms")), count(other.get("fed_p50"))]
        rows.append(row)
    lines = [table(head, rows)]
    current = [sample.until_current_s for sample in samples if sample.until_current_s is not None]
    if current:
        lines.append(f"until a saved file is in the answers: {spread(current)} s ({len(current)} times)")
    return "\n".join(lines)


def ratio_table(ratios: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Theirs / ours; above 1 we are faster."""
    columns = [(size, setup) for size, events in ratios.items() for setup in next(iter(events.values()))]
    kinds = list(dict.fromkeys(kind for events in ratios.values() for kind in events))
    rows = [[kind, *(ratio(ratios[size].get(kind, {}).get(setup)) for size, setup in columns)] for kind in kinds]
    return table(["event", *(f"{size} {setup}" for size, setup in columns)], rows)


def shown(write: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else write(value)


ms = shown(lambda value: f"{value:.1f}" if value < 100 else f"{value:,.0f}")
count = shown(lambda value: f"{value:,.0f}")
ratio = ms
