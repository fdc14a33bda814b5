"""The order of a repository's files and what goes when the budget is short."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.plan import estimate_tokens, plan_base
from context.repository import SourceFile


def words(text: str) -> list[str]:
    return text.split()


IN_ORDER = words("""
    .gitignore CHANGELOG.md LICENSE README.md pyproject.toml docs/guide.rst docs/deep/a.md tests/data.json
    conftest.py test_top.py examples/demo.py src/FooTest.java src/app_test.go tests/a.py tests/unit/b.py web/a.spec.ts
    CMakeLists.txt Makefile main.py a/b.py a/z/a.py a-b/c.py docs/conf.py src/latest.py src/readme.py
""")


def sized(**sizes: int) -> list[SourceFile]:
    """Files of so many tokens, at one byte a token; `a__b_py` is a/b.py."""
    names = {name.replace("__", "/").replace("_", "."): size for name, size in sizes.items()}
    return [SourceFile(name, "x" * (size - len(name) - 8)) for name, size in names.items()]


def test_the_order() -> None:
    files = [SourceFile(path, "x") for path in IN_ORDER]
    random.Random(1).shuffle(files)
    plan = plan_base(files, budget_tokens=10_000, bytes_per_token=3.5)
    assert [file.path for file in plan.files] == IN_ORDER
    assert plan.left_out == ()


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
