"""What the replays have shown, as figures: a table for people and values for the JSON line. Knows: replays. Does not know: how they were played."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.feel_replay import Answer, Judged, Played
from benchmarks.feel_screen import PROBLEMS
from benchmarks.feel_superseded import Superseded
from benchmarks.stats import table
from context.parses import breaks

REUSED_MS = 5.0  # within which the rest of a suggestion shall stand there, at p95


def figures(played: Sequence[Played], alone: Mapping[str, int], ended: Sequence[Superseded]) -> dict[str, Any]:
    """`alone`: the keys that the same typist hits without suggestions, by path."""
    answers = [answer for each in played for answer in each.answers]
    shown = [judged for each in played for judged in each.shown]
    kinds = Counter(problem.kind for each in played for problem in each.problems)
    worth = Counter(judged.worth for judged in shown)
    n_keys, n_alone = sum(each.n_keys for each in played), sum(alone[each.hole.path] for each in played)
    accepted = [n for each in played for n in each.accepted]
    with_text = [answer for answer in answers if answer.kind in ("reused", "model", "unknown")]
    found: dict[str, Any] = {
        "holes": len(played),
        "keys": n_keys,
        "keys_without_suggestions": n_alone,
        "accepted": len(accepted),
        "accepted_characters_per_key": sum(accepted) / max(1, n_keys),
        "keys_saved_share": 1 - n_keys / max(1, n_alone),
        "answers": dict(Counter(answer.kind for answer in answers)),
        "without_model_share": share(sum(answer.kind == "reused" for answer in with_text), len(with_text)),
        "reused_ms": spread(answers, "reused"),
        "reused_server_ms": three(answer.work_ms for answer in answers if answer.kind == "reused"),
        "model_ms": spread(answers, "model"),
        "daemon_ms": three(answer.work_ms for answer in answers if answer.kind == "model"),
        "items_by_name": three(answer.n_items for answer in answers if answer.is_invoked and answer.n_items),
        "superseded_ms": spread(answers, "superseded"),
        "shown": len(shown),
        "right_share": share(worth["all"], len(shown)),
        "right_in_part_share": share(worth["part"], len(shown)),
        **breaking(played),
        "problems": {name: kinds[name] for name in PROBLEMS},
    }
    if ended:
        found["superseded"] = {
            "n": len(ended),
            "steps_after": three(each.n_after for each in ended),
            "late_ms": three(each.late_ms for each in ended),
        }
    return found


def breaking(played: Sequence[Played]) -> dict[str, Any]:
    """Of the suggestions that were shown in a text that parsed: how many would not leave it so, and how many of those and of the others were right."""
    judged = [(is_broken(each, of), each.worth in ("all", "part")) for of in played for each in of.shown]
    right = {verdict: [is_right for given, is_right in judged if given is verdict] for verdict in (True, False)}
    return {
        "judged_by_parser": sum(map(len, right.values())),
        "breaking_share": share(len(right[True]), sum(map(len, right.values()))),
        "right_of_breaking_share": share(sum(right[True]), len(right[True])),
        "right_of_others_share": share(sum(right[False]), len(right[False])),
    }


def is_broken(judged: Judged, played: Played) -> bool | None:
    return breaks(
        judged.text, judged.offset, judged.inserted, replaces=judged.replaces, language=played.hole.language.name
    )


def spread(answers: Sequence[Answer], kind: str) -> list[float] | None:
    """`three` of the ms of a kind of answers."""
    return three(answer.ms for answer in answers if answer.kind == kind)


def three(values: Iterable[float]) -> list[float] | None:
    """[p50, p95, max]; None where there are none."""
    ordered = sorted(values)
    return [quantile(ordered, 0.5), quantile(ordered, 0.95), ordered[-1]] if ordered else None


def quantile(ordered: Sequence[float], share_below: float) -> float:
    """By the nearest rank."""
    return ordered[min(len(ordered) - 1, int(share_below * len(ordered)))]


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def figure_table(found: Mapping[str, Any]) -> str:
    """For people, the goals beside what was found."""
    rows: list[tuple[str, str, str]] = [
        (f"{name.replace('_', ' ')}: {PROBLEMS[name]}", str(n), "0") for name, n in found["problems"].items()
    ]
    rows += [
        ("answers without the model, of those with text", percent(found["without_model_share"]), ""),
        ("typed through, ms: median, p95, max", times(found["reused_ms"]), f"p95 <= {REUSED_MS:g}"),
        ("of that the server, ms: median, p95, max", times(found["reused_server_ms"]), ""),
        ("by the model, ms: median, p95, max", times(found["model_ms"]), ""),
        ("of that the daemon, ms: median, p95, max", times(found["daemon_ms"]), ""),
        ("choices when asked by name: median, p95, max", times(found["items_by_name"]), ""),
        ("suggestions seen", str(found["shown"]), ""),
        ("of them right to the end", percent(found["right_share"]), ""),
        ("right for 4 characters at least", percent(found["right_in_part_share"]), ""),
        (f"that break what parsed (of {found['judged_by_parser']})", percent(found["breaking_share"]), ""),
        ("keys hit", f"{found['keys']} of {found['keys_without_suggestions']} without suggestions", ""),
        ("characters taken for each key", f"{found['accepted_characters_per_key']:.3f}", ""),
    ]
    if ended := found.get("superseded"):
        rows.append(
            (f"steps decoded for nobody ({ended['n']}): median, p95, max", times(ended["steps_after"]), "p95 <= 1")
        )
    return table(("what a typist sees", "found", "goal"), rows)


def failures(found: Mapping[str, Any]) -> list[str]:
    """What misses its goal, one line each."""
    missed = [f"{name}: {n}, expected 0" for name, n in found["problems"].items() if n]
    if found["reused_ms"] and found["reused_ms"][1] > REUSED_MS:
        missed.append(f"typed through: p95 {found['reused_ms'][1]:.1f} ms, expected at most {REUSED_MS:g}")
    if (ended := found.get("superseded")) and ended["steps_after"][1] > 1:
        missed.append(f"superseded requests: p95 {ended['steps_after'][1]} steps for nobody, expected at most 1")
    return missed


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def times(values: Sequence[float] | None) -> str:
    return "-" if values is None else " / ".join(f"{value:.1f}" for value in values)
