"""The order of a repository's files and what goes when the budget is short."""

import random
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.outline import outline
from context.plan import Plan, estimate_tokens, plan_base
from context.repository import SourceFile


def words(text: str) -> list[str]:
    return text.split()


# In the test each is larger than the next one, so with equal weights the order inside a kind is this one.
IN_ORDER = words("""
    LICENSE README.md docs/guide.rst docs/deep/a.md CHANGELOG.md
    tests/unit/b.py conftest.py test_top.py examples/demo.py src/FooTest.java src/app_test.go tests/a.py tests/data.sql web/a.spec.ts
    docs/conf.py CMakeLists.txt Makefile main.py a/b.py a/z/a.py a-b/c.py src/latest.py src/readme.py
""")


def sized(**sizes: int) -> list[SourceFile]:
    """Files of so many tokens, at one byte a token; `a__b_py` is a/b.py."""
    names = {name.replace("__", "/").replace("_", "."): size for name, size in sizes.items()}
    return [SourceFile(name, "x" * (size - len(name) - 8)) for name, size in names.items()]


def in_order(plan: Plan) -> list[str]:
    return [file.path for file in plan.files]


def test_the_order_of_kinds_and_then_of_sizes() -> None:
    files = [SourceFile(path, "x" * (100 * (len(IN_ORDER) - n))) for n, path in enumerate(IN_ORDER)]
    random.Random(1).shuffle(files)
    plan = plan_base(files, budget_tokens=100_000, bytes_per_token=1.0, weights=dict.fromkeys(IN_ORDER, 1.0))
    assert in_order(plan) == IN_ORDER
    assert plan.left_out == () and plan.outlined == frozenset()


@pytest.mark.parametrize(
    ("sizes", "weights", "order"),
    [
        ({"a.py": 100, "b.py": 100, "c.py": 100}, {"a.py": 3, "b.py": 1, "c.py": 2}, "b.py c.py a.py"),
        ({"a.py": 100, "b.py": 400, "c.py": 200}, {"a.py": 1, "b.py": 1, "c.py": 1}, "b.py c.py a.py"),
        ({"a.py": 100, "b.py": 400}, {"a.py": 1, "b.py": 5}, "a.py b.py"),  # 5 / 400 is more than 1 / 100
        ({"z.py": 100, "b.py": 100, "a.py": 100}, {"a.py": 1, "b.py": 1, "z.py": 1}, "a.py b.py z.py"),  # a tie
        ({"a.py": 100, "b.md": 100, "test_c.py": 100}, {"a.py": 0.1, "b.md": 9, "test_c.py": 5}, "b.md test_c.py a.py"),
        ({"a.py": 100, "new.py": 100}, {"a.py": 1e-6}, "a.py new.py"),  # what has no weight has the prior's
    ],
)
def test_what_is_edited_seldom_for_its_size_comes_first(
    sizes: dict[str, int], weights: dict[str, float], order: str
) -> None:
    files = [SourceFile(path, "x" * (size - len(path) - 8)) for path, size in sizes.items()]
    plan = plan_base(files, budget_tokens=10_000, bytes_per_token=1.0, weights=weights)
    assert in_order(plan) == order.split()
    assert plan.weights.keys() == sizes.keys()
    assert {path: plan.weights[path] for path in weights} == weights


def test_the_order_has_least_to_read_again() -> None:
    """Smith's rule against all orders of some files: an edit of a file costs it and all behind it."""
    rng = random.Random(3)
    for _ in range(20):
        files = [SourceFile(f"{n}.py", "x" * rng.randrange(50, 900)) for n in range(5)]
        weights = {file.path: rng.uniform(0.1, 5) for file in files}
        size = {file.path: estimate_tokens(file, bytes_per_token=1.0) for file in files}

        def cost(order: Sequence[str], weights: dict[str, float] = weights, size: dict[str, int] = size) -> float:
            return sum(weights[path] * sum(size[each] for each in order[n:]) for n, path in enumerate(order))

        plan = plan_base(files, budget_tokens=10_000, bytes_per_token=1.0, weights=weights)
        assert cost(in_order(plan)) == pytest.approx(min(map(cost, permutations(size))))


@pytest.mark.parametrize(
    ("budget", "dropped"),
    [
        (1000, ""),
        (999, "b.json"),
        (899, "b.json d/e.yaml"),
        (849, "b.json d/e.yaml d/README.md"),
        (699, "b.json d/e.yaml d/README.md a.md"),
        (599, "b.json d/e.yaml d/README.md a.md README.md"),
        (499, "b.json d/e.yaml d/README.md a.md README.md tests/a.py"),
        (399, "b.json d/e.yaml d/README.md a.md README.md tests/a.py src/z.py"),
        (249, "b.json d/e.yaml d/README.md a.md README.md tests/a.py src/z.py src/b.py"),
        (0, "b.json d/e.yaml d/README.md a.md README.md tests/a.py src/z.py src/b.py src/a.py"),
        (-5, "b.json d/e.yaml d/README.md a.md README.md tests/a.py src/z.py src/b.py src/a.py"),
    ],
)
def test_what_is_dropped(budget: int, dropped: str) -> None:
    docs = sized(b_json=100, d__e_yaml=50, d__README_md=150, a_md=100, README_md=100)
    files = [*docs, *sized(tests__a_py=100, src__a_py=125, src__b_py=125, src__z_py=150)]
    plan = plan_base(files, budget_tokens=budget, bytes_per_token=1.0)
    assert {left.path for left in plan.left_out} == set(dropped.split())
    assert {left.path for left in plan.left_out} | {file.path for file in plan.files} == {file.path for file in files}


BIG = "\n".join(
    f"def f{n}(a: int) -> int:\n    b = a + {n}\n    return b * b\n" for n in range(30)
)  # 1,700 bytes, in outline 830
BIG_TEST = BIG.replace("def f", "def test_")


@pytest.mark.parametrize(
    ("budget", "whole", "outlined"),
    [
        (10_000, "a.md test_t.py x.py y.py", ""),
        (5_300, "test_t.py x.py y.py", ""),
        (5_100, "x.py y.py", "test_t.py"),
        (4_200, "x.py y.py", ""),
        (3_300, "x.py", "y.py"),
        (2_500, "", "x.py y.py"),
        (1_100, "", "x.py"),
        (800, "", ""),
    ],
)
def test_what_is_too_long_is_read_as_its_outline(budget: int, whole: str, outlined: str) -> None:
    texts = {"a.md": "x" * 500, "test_t.py": BIG_TEST, "x.py": BIG, "y.py": BIG + "# y\n"}
    plan = plan_base(
        [SourceFile(path, text) for path, text in texts.items()], budget_tokens=budget, bytes_per_token=1.0
    )
    assert plan.outlined == set(outlined.split())
    assert {file.path for file in plan.files if file.text == texts[file.path]} == set(whole.split())
    for file in plan.files:
        assert file.path not in plan.outlined or file.text == outline(file.path, texts[file.path])
    assert {left.path for left in plan.left_out} == texts.keys() - {file.path for file in plan.files}
    assert plan.estimated_tokens == sum(estimate_tokens(file, bytes_per_token=1.0) for file in plan.files) <= budget


def test_an_outline_that_is_no_shorter_is_not_read() -> None:
    plan = plan_base([SourceFile("a.py", "A = 1\n")], budget_tokens=5, bytes_per_token=1.0)
    assert plan.files == () and [left.path for left in plan.left_out] == ["a.py"]


def test_the_reason() -> None:
    plan = plan_base(sized(a_py=100), budget_tokens=50, bytes_per_token=1.0)
    assert plan.left_out == (("a.py", "about 100 tokens, beyond the budget of 50"),)


def test_the_estimate_counts_bytes() -> None:
    assert estimate_tokens(SourceFile("a.py", "é" * 10), bytes_per_token=4.0) == 8


@pytest.mark.parametrize("bytes_per_token", [0.0, -1.0, float("nan")])
def test_a_wrong_rate(bytes_per_token: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_token"):
        plan_base([], budget_tokens=1, bytes_per_token=bytes_per_token)


paths = st.lists(
    st.sampled_from(words("a b src tests docs README.md a.py b.json test_c.py")),
    min_size=1,
    max_size=3,
).map("/".join)


@given(st.dictionaries(paths, st.text(max_size=40), max_size=12), st.integers(0, 150), st.randoms())
def test_laws(tree: dict[str, str], budget: int, shuffler: random.Random) -> None:
    files = [SourceFile(path, text) for path, text in tree.items()]
    plan = plan_base(files, budget_tokens=budget, bytes_per_token=2.0)
    assert plan.estimated_tokens == sum(estimate_tokens(file, bytes_per_token=2.0) for file in plan.files) <= budget
    shuffler.shuffle(files)
    assert plan_base(files, budget_tokens=budget, bytes_per_token=2.0) == plan
    # Whatever is dropped for a budget is dropped for a smaller one as well.
    smaller = plan_base(files, budget_tokens=budget // 2, bytes_per_token=2.0)
    assert {left.path for left in plan.left_out} <= {left.path for left in smaller.left_out}
