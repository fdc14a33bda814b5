"""Golden cases: a buffer with a cursor, what a model says, and the ghost text that must come of it. One row a case, in the text files beside this one."""

from collections import Counter

import pytest

from tests.golden.cases import Case, CaseError, all_cases, cases_of
from tests.golden.road import broken_laws, suggested, unopened

CASES = all_cases()
# Bytes of a token. What is shown must not depend on how the model happens to cut its words.
TOKENS = ((3, 1, 4, 2, 5), (1,), (16,))


def ids(case: Case) -> str:
    return f"{case.file.removesuffix('.txt')}: {case.name}"


def kinds_of_model(case: Case) -> tuple[bool, ...]:
    """Whether the model does not know where a gap ends: it must make no difference to the user, where a case does not say so."""
    if case.has("open") or case.has("fenced"):
        return (True,)
    return (False,) if case.has("closed") else (False, True)


def rows() -> list:
    """An xfail is strict: a case that has come right must say so."""
    return [pytest.param(case, id=ids(case), marks=marks_of(case)) for case in CASES]


def marks_of(case: Case) -> list[pytest.MarkDecorator]:
    if not case.has("xfail"):
        return []
    return [pytest.mark.xfail(reason=case.options["xfail"], strict=True, raises=AssertionError)]


@pytest.mark.parametrize("case", rows())
def test_ghost_text(case: Case) -> None:
    for open_ended in kinds_of_model(case):
        for sizes in TOKENS:
            made = suggested(case, sizes=sizes, encoding="utf-16", open_ended=open_ended)
            how = f"open_ended={open_ended}, tokens of {sizes} bytes, place {made.place}, empty because {made.reason}"
            assert list(broken_laws(case, made)) == [], how
            assert made.ghost == case.ghost, how
            if case.reason:
                assert made.reason == case.reason, how
            if case.after is not None:
                assert made.after == case.after, how
            if place := case.options.get("place"):
                assert made.place.why == place, how


@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
@pytest.mark.parametrize("case", [case for case in CASES if not case.text.isascii()], ids=ids)
def test_in_other_encodings(case: Case, encoding) -> None:
    for open_ended in kinds_of_model(case):
        made = suggested(case, sizes=TOKENS[0], encoding=encoding, open_ended=open_ended)
        assert made.ghost == case.ghost
        if case.after is not None:
            assert made.after == case.after


def test_there_are_many_and_each_has_its_own_name() -> None:
    assert len(CASES) >= 150
    assert len({case.language for case in CASES}) >= 8
    assert [name for name, count in Counter(map(ids, CASES)).items() if count > 1] == []


GOOD = "@@@ a | crlf, max_lines=2\nf(‸)\n=> x\n== x\n"


def test_a_case_is_read() -> None:
    [case] = cases_of("for people\n" + GOOD + "  y␊\n>> f(x\n  y\n)\n\n", "c.txt")
    assert (case.text, case.offset, case.said) == ("f()\r\n", 2, "x")
    assert (case.ghost, case.after) == ("x\n  y\n", "f(x\r\n  y\r\n)\r\n")
    assert (case.name, case.language, case.number("max_lines", 6)) == ("a", "c", 2)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (GOOD.replace("‸", ""), "c.txt:1: found 0 times ‸ in the buffer, expected it once"),
        (GOOD.replace("== x", "=> y"), "c.txt:1: found => twice, expected it once"),
        (GOOD.replace("== x", ""), "c.txt:1: found the parts  =>, expected a buffer, => and one of == and !!"),
        ("\n" + GOOD.replace("crlf", "clrf"), "c.txt:2: found the option clrf, expected one of"),
        (GOOD.replace("crlf", "menu=x"), "c.txt:1: expected ⟦ in the buffer where a menu's item is given"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(source: str, said: str) -> None:
    with pytest.raises(CaseError) as error:
        cases_of(source, "c.txt")
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("f(x)", 0), ("f(x))", 1), ("f(", 0), ("']'", 0), ("don't)", 1), ('f(")")', 0), ("(]", 1), ("}\n}", 2)],
)
def test_closers_are_counted(text: str, count: int) -> None:
    assert unopened(text) == count
