"""How sure the model is of what is shown: made-up texts whose tokens have given probabilities."""

import math
import time

import msgspec
import pytest

from daemon.bases import Ground
from daemon.certainty import LATER_CONFIDENCE, LINE_CONFIDENCE, Said, sure
from daemon.protocol import CompletionRequest
from daemon.trim import Trim
from model.generate import Generated

DEF = "def f(x):"


def said(*tokens: tuple[str, float], stopped_by: str = "eos", **more: object) -> tuple[Generated, list[bytes]]:
    """A text of tokens with these probabilities, and the tokens' bytes; each id is its place."""
    nats = tuple(math.log(probability) for _, probability in tokens)
    nats += (math.log(0.9),) * (stopped_by == "eos")
    pieces = [piece.encode() for piece, _ in tokens]
    kept = {"nats": nats} | more
    made = Generated(list(range(len(tokens))), b"".join(pieces), stopped_by, sum(nats), **kept)  # type: ignore[arg-type]
    return made, pieces


# tokens, request -> what is shown, how sure
CONFIDENCES = [
    ([("x", 0.5), (" + 1", 0.125)], {}, "x + 1", 0.25),
    ([("x", 0.5), ("\n", 0.01), ("y", 0.01)], {}, "x", 0.5),
    ([("x", 0.5), ("\ny", 0.01)], {}, "x", 0.5),
    ([("x", 0.5), (" \ny", 0.01)], {}, "x", 0.5),
    ([("é", 0.5), ("é)", 0.125)], {"rest_of_line": ")"}, "éé", 0.25),
    ([("a", 0.5), (")", 0.01)], {"rest_of_line": ")"}, "a", 0.5),
    ([(" ", 0.5), ("\n", 0.5)], {}, "", 1.0),
    ([("    ", 0.125), ("x", 0.5)], {"indent": "    "}, "x", 0.25),
    ([("x", 0.5), (" + 1", 0.125)], {"min_confidence": 0.25}, "x + 1", 0.25),
    ([("x", 0.5), (" + 1", 0.125)], {"min_confidence": 0.26}, "", 0.25),
]


@pytest.mark.parametrize(("tokens", "changes", "shown", "confidence"), CONFIDENCES)
def test_how_sure(tokens: list[tuple[str, float]], changes: dict, shown: str, confidence: float) -> None:
    generated, pieces = said(*tokens)
    wanted = CompletionRequest(prompt="", **changes)
    made = sure(Trim(wanted), generated, pieces=pieces, forced=b"")
    assert (made.shown.text, made.confidence) == (shown, pytest.approx(confidence))
    assert (made.shown.empty_because == "unsure") == (confidence < wanted.min_confidence)


GOOD, BAD = 0.99, min(LINE_CONFIDENCE, LATER_CONFIDENCE) / 2
# the probabilities of three lines -> how many are shown; the first always is
LINES = [
    ((GOOD, GOOD, GOOD), 3),
    ((GOOD, GOOD, BAD), 2),
    ((GOOD, BAD, GOOD), 1),
    ((BAD / 4, GOOD, GOOD), 1),
    ((LATER_CONFIDENCE, GOOD, GOOD), 3),
]


@pytest.mark.parametrize(("probabilities", "n_shown"), LINES)
def test_a_later_line_must_be_sure(probabilities: tuple[float, ...], n_shown: int) -> None:
    generated, pieces = said(*((f"\n    x{n} = {n}", probability) for n, probability in enumerate(probabilities)))
    trim = Trim(CompletionRequest(prompt=DEF, max_lines=6))
    made = sure(trim, generated, pieces=pieces, forced=b"")
    assert made.shown.text.count("\n") == n_shown
    assert made.confidence == pytest.approx(math.exp(sum(map(math.log, probabilities[:n_shown])) / n_shown))


def test_a_line_that_time_cut_off_is_left_out() -> None:
    for stopped_by, shown in (("time", "\n    a = 1"), ("max_tokens", "\n    a = 1"), ("eos", "\n    a = 1\n    b")):
        generated, pieces = said(("\n    a = 1", GOOD), ("\n    b", GOOD), stopped_by=stopped_by)
        trim = Trim(CompletionRequest(prompt=DEF, max_lines=6))
        assert sure(trim, generated, pieces=pieces, forced=b"").shown.text == shown


def test_tokens_that_healing_took_back_count_as_far_as_they_are_text() -> None:
    generated, pieces = said(("ret", 0.1), ("urn x", 0.5), (" + 1", 0.5))
    generated = Generated(generated.ids, b"n x + 1", "eos", generated.log_probability, nats=generated.nats)
    made = sure(Trim(CompletionRequest(prompt="retur")), generated, pieces=pieces, forced=b"retur")
    assert (made.shown.text, made.confidence) == ("n x + 1", pytest.approx(0.5))


def test_where_only_the_sum_is_known_all_are_alike() -> None:
    generated, pieces = said(("a", 0.5), ("b", 0.25), ("c", 0.125), nats=(math.log(0.125), math.log(0.9)))
    known = Said(generated, pieces=pieces, n_forced=0)
    mean = (math.log(0.5) + math.log(0.25)) / 2
    assert known.nats == pytest.approx([mean, mean, math.log(0.125)])
    assert known.confidence(1, 2) == pytest.approx(math.exp(mean))
    assert known.confidence(3, 3) == 1.0


REQUEST = CompletionRequest(
    prompt="def total(items):\n    result = 0\n    for item in items", suffix="    return result\n"
)


def test_what_the_engine_says_of_itself(engine) -> None:
    """Its confidence is of what it shows, and below what a request asks for it shows nothing and says why."""

    def ask(**changes: object):
        wanted = msgspec.structs.replace(REQUEST, **changes)
        ground = Ground(engine.prompter.root)
        return engine.complete(wanted, [ground], cancelled=lambda: False, started=time.monotonic())

    made = ask()
    assert made.text
    assert 0 < made.report.confidence < 1
    assert ask(min_confidence=made.report.confidence).text == made.text
    unsure = ask(min_confidence=made.report.confidence + 0.001)
    assert (unsure.text, unsure.report.empty_because) == ("", "unsure")
    assert unsure.report.confidence == made.report.confidence


def test_the_engine_answers_several_lines_and_replaces_closers(engine) -> None:
    ground = Ground(engine.prompter.root)
    block = CompletionRequest(
        prompt="def add(a, b):\n    return a + b\n\n\ndef sub(a, b):", max_lines=6, may_replace=True
    )
    made = engine.complete(block, [ground], cancelled=lambda: False, started=time.monotonic())
    assert made.text.startswith("\n    ")
    assert all(line.startswith("    ") for line in made.text.split("\n")[1:] if line)
    call = CompletionRequest(
        prompt="x = add(1, 2) + 3\ny = add(1, 2) + 3\nz = add(", rest_of_line=")", may_replace=True
    )
    made = engine.complete(call, [ground], cancelled=lambda: False, started=time.monotonic())
    assert (made.replaces == 1) == (")" in made.text)
    assert f"{call.prompt}{made.text}{call.rest_of_line[made.replaces :]}".count(")") == 3
