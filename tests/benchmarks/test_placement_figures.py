"""What benchmarks/placement.py makes of a history: who counts before the split, who is asked behind it, and what an event costs."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.placement import (
    MIN_COMMITS,
    SPLIT,
    Cost,
    cost,
    even_by_documents,
    even_by_tokens,
    from_git,
    with_history,
)


def check_cost(edits: list[int], *, order: list[int], n_edits: int, expected: Cost) -> None:
    repository = with_history("small", [10, 20, 30, 40], [], edits)
    assert cost(repository, order, [1, 3], n_edits=n_edits) == expected


def test_an_event_costs_from_its_first_file_on_and_the_way_to_it() -> None:
    check_cost([0], order=[0, 1, 2, 3], n_edits=1, expected=Cost(100, 0))
    check_cost([1], order=[0, 1, 2, 3], n_edits=1, expected=Cost(90, 10))
    check_cost([3], order=[0, 1, 2, 3], n_edits=1, expected=Cost(40, 30))
    check_cost([3, 1], order=[0, 1, 2, 3], n_edits=1, expected=Cost(65, 20))
    check_cost([3, 1], order=[0, 1, 2, 3], n_edits=2, expected=Cost(90, 10))
    check_cost([3, 1], order=[3, 0, 1, 2], n_edits=2, expected=Cost(100, 0))


def test_even_rules() -> None:
    assert even_by_tokens([10, 10, 10, 10], [], 2) == [1, 3]
    assert even_by_tokens([35, 1, 1, 3], [], 2) == [0, 3]
    assert even_by_documents([35, 1, 1, 3], [], 2) == [1, 3]
    assert even_by_documents([5, 5], [], 16) == [0, 1]


def commit(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)
    for arguments in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_weights_come_from_before_the_split_and_events_from_behind_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    n_commits = MIN_COMMITS + 20
    split = int(n_commits * SPLIT)
    for number in range(n_commits):
        commit(tmp_path, "early.py" if number < split - 1 else "lâte.py", "x" * 30 + str(number))
    found = from_git(tmp_path)
    assert found.name == tmp_path.name
    assert found.weights == [split - 1, 1]
    assert found.n_tokens == [11, 11]
    assert found.last_edits == [split - 2, split - 1]
    assert found.edits == [1] * (n_commits - split)


def test_what_has_no_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a repository with a history"):
        from_git(tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    commit(tmp_path, "a.py", "x")
    with pytest.raises(ValueError, match="1 commits, expected at least"):
        from_git(tmp_path)
