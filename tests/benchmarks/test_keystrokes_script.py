"""The script of a replay: the same for the same seed, possible at every step, with all kinds of events, and nothing left behind but what was typed."""

import itertools

import pytest

from benchmarks.typing_script import (
    JUMPS,
    KINDS,
    RESTARTS,
    TYPED,
    Event,
    HeldOut,
    Script,
    edited,
    hold_out,
    write_script,
)

CODE = "".join(f"def function_{i}(value):\n    if value > {i}:\n        return {i}\n\n" for i in range(120))
OTHER = ("pkg/other.py", "x = 1\n")
DOCUMENTS = [hold_out(f"pkg/{name}.py", CODE.replace("value", name), hole_chars=600) for name in ("a", "b", "c")]


def script(seed: int = 1, rounds: int = 3, restarts: int = 1, documents: list[HeldOut] = DOCUMENTS) -> Script:
    return write_script(documents, other=OTHER, seed=seed, rounds=rounds, restarts=restarts)


def texts_after(played: Script) -> list[dict[str, str]]:
    """All documents after each event."""
    texts, found = dict(played.opened), []
    for event in played.events:
        assert 0 <= event.start <= event.end <= len(texts[event.path]), event
        texts[event.path] = edited(texts[event.path], event)
        assert 0 <= event.cursor <= len(texts[event.path]), event
        found.append(dict(texts))
    return found


@pytest.mark.parametrize(
    ("text", "hole_chars", "before", "truth", "after"),
    [
        ("aa\nbb\ncc\ndd\n", 1, "aa\nbb\n", "cc\n", "dd\n"),
        ("aa\nbb\ncc\ndd\nee\n", 4, "aa\nbb\n", "cc\ndd\n", "ee\n"),
    ],
)
def test_a_hole_is_whole_lines_from_the_middle_on(
    text: str, hole_chars: int, before: str, truth: str, after: str
) -> None:
    held = hold_out("a.py", text, hole_chars=hole_chars)
    assert (held.before, held.truth, held.after) == (before, truth, after)
    assert held.opened == before + after


@pytest.mark.parametrize("text", ["", "one line", "aa\nbb\ncc\n"])
def test_a_file_too_short_for_a_hole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a\.py: .* characters, expected more than 5 below"):
        hold_out("a.py", text, hole_chars=5)


def test_the_seed_decides_and_nothing_else() -> None:
    assert script(1) == script(1)
    assert script(1).events != script(2).events


@pytest.mark.parametrize("seed", range(5))
def test_every_round_has_every_kind_and_each_event_is_possible(seed: int) -> None:
    played = script(seed, rounds=3, restarts=3)
    texts_after(played)
    for number in range(3):
        kinds = {event.kind for event in played.events if event.round == number}
        first_only = {"open"}
        assert kinds | first_only == set(KINDS), number


def test_restarts_end_the_first_rounds_alone() -> None:
    played = script(rounds=3, restarts=2)
    assert [(e.kind, e.round) for e in played.events if e.kind in RESTARTS] == [
        (kind, n) for n in range(2) for kind in RESTARTS
    ]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_typed_is_the_hole_and_detours_leave_nothing(seed: int) -> None:
    played = script(seed, rounds=4)
    typed, last = DOCUMENTS[0], texts_after(played)[-1]
    text = last[typed.path]
    done = len(text) - len(typed.opened)
    assert 100 < done < len(typed.truth)
    assert text == typed.before + typed.truth[:done] + typed.after


def test_a_hole_that_is_all_typed_goes_on_with_comments() -> None:
    short = [HeldOut("a.py", "x = 1\n" * 20, "y = 2\n", "z = 3\n" * 20), DOCUMENTS[1]]
    played = script(documents=short, rounds=2)
    assert texts_after(played)[-1]["a.py"].startswith("x = 1\n" * 20 + "y = 2\n#")


def test_moves_change_no_text_and_keys_one_place() -> None:
    for event in script().events:
        if event.kind in (*JUMPS, "open"):
            assert not event.edits
        elif event.kind == TYPED:
            assert (event.end - event.start, len(event.text), event.cursor) == (0, 1, event.start + 1)
        elif event.kind == "enter":
            assert event.text[0] == "\n" and not event.text[1:].strip(" ")
        elif event.kind == "backspace":
            assert (event.end - event.start, event.text) == (1, "")


def test_near_is_near_and_far_is_far() -> None:
    played = script(rounds=4)
    for (before, texts), event in zip(
        itertools.pairwise(zip(played.events, texts_after(played), strict=True)), played.events[1:], strict=True
    ):
        assert before[0] is not event
        if event.kind not in ("near", "far") or before[0].path != event.path:
            continue
        text = texts[1][event.path]
        lines = abs(text.count("\n", 0, before[0].cursor) - text.count("\n", 0, event.cursor))
        assert lines <= 6 if event.kind == "near" else lines >= 40, event


def test_saves_name_what_lies_on_disk_then() -> None:
    played = script(rounds=2)
    assert [event.saved for event in played.events if event.kind == "save"] == [DOCUMENTS[0].path] * 2
    written = [event.written for event in played.events if event.kind == "save_other"]
    assert [path for path, _ in written if path] == [OTHER[0]] * 2
    first, second = (text for _, text in written)
    assert OTHER[1] in first and first in second != first  # each save is another text, so that it can be told apart


def test_the_other_documents_are_opened_before_they_are_known() -> None:
    seen: set[str] = set()
    for event in script().events:
        assert (event.kind == "open") == (event.path not in seen), event
        seen.add(event.path)
    assert len(seen) == 3


def test_without_a_repository_no_other_file_is_saved() -> None:
    played = write_script(DOCUMENTS, other=None, seed=1, rounds=1, restarts=0)
    assert "save_other" not in {event.kind for event in played.events}


@pytest.mark.parametrize(
    ("start", "end", "text", "expected"), [(0, 0, "x", "xabc"), (1, 3, "", "a"), (3, 3, "", "abc")]
)
def test_an_event_edits_a_text(start: int, end: int, text: str, expected: str) -> None:
    event = Event("paste", "a.py", start, end, text, 0, 0)
    assert edited("abc", event) == expected
    assert event.edits == (expected != "abc")
