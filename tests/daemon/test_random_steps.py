"""An editor gone mad against a cold recomputation, for some seconds; benchmarks/random_steps.py does it for 100,000 steps. And that it would notice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.random_steps import Madness, Mismatch, Outcome
from model.checkpoint import LoadedModel

Mad = Callable[..., Madness]


@pytest.fixture
def mad(tmp_path: Path) -> Iterator[Mad]:
    made: list[Madness] = []

    def run(model: LoadedModel, *, seed: int, **settings: object) -> Madness:
        made.append(Madness(model, tmp_path / str(len(made)), seed=seed, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield run
    for each in made:
        each.close()


def check(outcome: Outcome, n_steps: int) -> None:
    """All answers were compared, and came from everywhere."""
    assert outcome.answers == sum(outcome.steps.values()) == n_steps
    assert {"root", "base", "head", "prefix", "line"} <= set(outcome.segments)
    assert outcome.tokens_reused > 3 * outcome.tokens_fed > 0
    assert outcome.stale > 0


@pytest.mark.parametrize("seed", [11, 12])
def test_whatever_was_kept_the_answer_is_the_same(mad: Mad, tiny: LoadedModel, seed: int) -> None:
    outcome = mad(tiny, seed=seed).run(750)
    check(outcome, 750)
    assert outcome.compactions > 3
    assert {"hot", "related"} <= set(outcome.segments)


def test_also_where_the_bits_depend_on_the_cut(mad: Mad, coarse: LoadedModel) -> None:
    check(mad(coarse, seed=13).run(150), 150)


@pytest.mark.parametrize("n_states", [1, 4])
def test_also_in_a_store_that_keeps_next_to_nothing(mad: Mad, tiny: LoadedModel, n_states: int) -> None:
    outcome = mad(tiny, seed=14, n_states=n_states).run(120)
    assert outcome.answers == 120


def confuse_states(madness: Madness) -> None:
    """Each kept state takes another's place."""
    entries = madness.engine.store.entries()
    values = [entry.value for entry in entries]
    for entry, value in zip(entries, values[1:] + values[:1], strict=True):
        entry.value = value


def forget_a_change(madness: Madness) -> None:
    """The cursor's file is answered as it was: no request tells of an edit any more."""
    stale = madness.editor.request(madness.context)
    madness.worker.engine.prompter.completion = (  # type: ignore[method-assign]
        lambda ground, request, *, with_head=True, make=madness.engine.prompter.completion: make(
            ground, stale, with_head=with_head
        )
    )


def write_to_kept_states(madness: Madness) -> None:
    """As a kernel does that writes where it reads."""
    for entry in madness.engine.store.entries():
        entry.value.state.ssm.mul_(1.0001)


def one_bit(madness: Madness) -> None:
    """The least that can be wrong with a number."""
    for entry in madness.engine.store.entries():
        numbers = entry.value.state.ssm.numpy()
        numbers[...] = np.nextafter(numbers, np.float32(np.inf))


@pytest.mark.parametrize("fault", [confuse_states, forget_a_change, write_to_kept_states, one_bit])
def test_a_fault_is_found(mad: Mad, tiny: LoadedModel, fault: Callable[[Madness], None]) -> None:
    """Each of what other engines have had for weeks."""
    madness = mad(tiny, seed=15)
    madness.run(30)
    with pytest.raises(Mismatch):  # noqa: PT012 - a fault may need some steps to come to light
        for _ in range(30):
            fault(madness)
            madness.run(1)
