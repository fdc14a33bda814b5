"""Longest matches and what followed them, against a search through every position."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache.lookup import (
    MAX_MATCH,
    MAX_OCCURRENCES,
    Continuations,
    DocumentIndex,
    LayeredIndex,
    buffer_continuations,
    buffer_draft,
    sort_backwards,
)

Answer = tuple[int, dict[int, int]]
ids = st.lists(st.integers(0, 2), max_size=40)
documents = st.lists(ids, max_size=5)


def tokens(text: list[int]) -> np.ndarray:
    return np.array(text, np.int32)


def index_of(texts: list[list[int]]) -> DocumentIndex:
    return DocumentIndex([(f"d{number}", tokens(text)) for number, text in enumerate(texts)])


def answer(found: Continuations) -> Answer:
    assert (np.diff(found.counts) <= 0).all(), "not the most frequent first"
    assert len(found.tokens) == len(found.counts) == len(set(found.tokens.tolist()))
    assert (found.counts > 0).all()
    return found.length, dict(zip(found.tokens.tolist(), found.counts.tolist(), strict=True))


def search(text: list[int], places: list[tuple[list[int], int]]) -> Answer:
    """`places` are (document, n): a match may end before document[n]. Looks at every place for every length."""
    for length in range(min(MAX_MATCH, len(text)), 0, -1):
        wanted = text[-length:]
        followers = Counter(doc[n] for doc, n in places if n >= length and doc[n - length : n] == wanted)
        if followers:
            return length, dict(followers)
    return 0, {}


def search_documents(text: list[int], texts: list[list[int]], without: int | None) -> Answer:
    return search(text, [(doc, n) for number, doc in enumerate(texts) if number != without for n in range(1, len(doc))])


def check_documents(texts: list[list[int]], text: list[int], without: int | None = None) -> None:
    name = None if without is None else f"d{without}"
    assert answer(index_of(texts).continuations(tokens(text), without=name)) == search_documents(text, texts, without)


def check_buffer(text: list[int]) -> None:
    assert answer(buffer_continuations(tokens(text))) == search(text, [(text, n) for n in range(1, len(text))])


@settings(max_examples=400)
@given(documents, ids, st.one_of(st.none(), st.integers(0, 6)))
@example([], [1], None)
@example([[]], [], None)
@example([[1]], [1], None)
@example([[1, 2]], [1], 0)
@example([[1, 1, 1, 1]], [1, 1, 1], None)
@example([[0, 1], [2, 0]], [0, 1], None)  # across the border of two documents lies no match
@example([[5] * 40, [5] * 41], [5] * 40, 0)
def test_documents(texts: list[list[int]], text: list[int], without: int | None) -> None:
    check_documents(texts, text, without)


@given(ids, st.integers(0, 4))
def test_a_document_that_goes_on_as_it_was_read(text: list[int], cut: int) -> None:
    """The text before the cursor stands in the index too: long matches, at every depth of the search."""
    check_documents([text, text[::-1], text], text[: len(text) - cut])


@settings(max_examples=400)
@given(ids)
@example([])
@example([1])
@example([1, 1])
@example([1, 2])
@example([1] * 80)
@example([1, 2] * 40)
def test_the_buffer(text: list[int]) -> None:
    check_buffer(text)


@pytest.mark.parametrize("seed", range(12))
def test_larger_texts(seed: int) -> None:
    """Intervals wider and narrower than those that are searched at once, alphabets of 2 to 40."""
    rng = np.random.default_rng(seed)
    size = (2, 3, 8, 40)[seed % 4]
    texts = [rng.integers(0, size, rng.integers(1, 150)).tolist() for _ in range(4)]
    for _ in range(15):
        doc = texts[rng.integers(len(texts))]
        end = int(rng.integers(0, len(doc) + 1))
        text = rng.integers(0, size, 5).tolist() + doc[max(0, end - 45) : end]
        index = index_of(texts)
        for without in (None, 0, 2):
            name = None if without is None else f"d{without}"
            found = answer(index.continuations(tokens(text), without=name))
            expected = search_documents(text, texts, without)
            assert found == expected
        check_buffer(text)


@pytest.mark.parametrize("length", [MAX_MATCH - 1, MAX_MATCH, MAX_MATCH + 1, 3 * MAX_MATCH])
def test_matches_end_at_max_match(length: int) -> None:
    shared = np.random.default_rng(0).integers(10, 99, length).tolist()
    check_documents([[*shared, 1], [7, *shared, 2]], [3, *shared])
    check_buffer([*shared, 1, 5, *shared])
    found = index_of([[*shared, 1]]).continuations(tokens([3, *shared]))
    assert found.length == min(length, MAX_MATCH)


def test_beyond_max_match_all_occurrences_count() -> None:
    """What differs further back than MAX_MATCH does not tell two occurrences apart."""
    shared = list(range(100, 100 + MAX_MATCH))
    found = index_of([[1, *shared, 8], [2, *shared, 9]]).continuations(tokens([1, *shared]))
    assert answer(found) == (MAX_MATCH, {8: 1, 9: 1})


@pytest.mark.parametrize("occurrences", [1, MAX_OCCURRENCES - 1, MAX_OCCURRENCES])
def test_counts_are_exact_up_to_max_occurrences(occurrences: int) -> None:
    text = [token for n in range(occurrences) for token in (7, n % 5)]
    expected = (1, dict(Counter(n % 5 for n in range(occurrences))))
    assert answer(index_of([text]).continuations(tokens([9, 7]))) == expected
    assert answer(buffer_continuations(tokens([*text, 9, 7]))) == expected


@pytest.mark.parametrize("occurrences", [MAX_OCCURRENCES + 1, 3 * MAX_OCCURRENCES, 5000])
def test_beyond_max_occurrences_a_sample_is_counted(occurrences: int) -> None:
    text = [token for n in range(occurrences) for token in (7, n % 3)]
    for found in (index_of([text]).continuations(tokens([9, 7])), buffer_continuations(tokens([*text, 9, 7]))):
        length, counts = answer(found)
        assert length == 1
        assert set(counts) == {0, 1, 2}
        assert sum(counts.values()) <= 2 * MAX_OCCURRENCES


def test_a_document_is_left_out_by_its_name() -> None:
    texts = [[1, 2, 3], [1, 2, 4], [2, 5]]
    index = index_of(texts)
    for name, expected in [
        (None, {3: 1, 4: 1}),
        ("d0", {4: 1}),
        ("d1", {3: 1}),
        ("d2", {3: 1, 4: 1}),
        ("of no document", {3: 1, 4: 1}),
    ]:
        assert answer(index.continuations(tokens([1, 2]), without=name)) == (2, expected)


def test_the_last_token_of_a_document_has_no_continuation() -> None:
    assert answer(index_of([[1, 2], [3]]).continuations(tokens([2]))) == (0, {})


def test_a_token_that_occurs_nowhere_matches_nothing() -> None:
    assert answer(index_of([[1, 2]]).continuations(tokens([1, 99]))) == (0, {})
    assert answer(buffer_continuations(tokens([1, 2, 99]))) == (0, {})


@given(documents)
def test_positions_are_sorted_by_the_tokens_that_end_there(texts: list[list[int]]) -> None:
    joined = [-1]
    for text in texts:
        joined += [*text, -1]
    order = sort_backwards(tokens(joined))
    assert sorted(order.tolist()) == [n for n, token in enumerate(joined) if token >= 0]
    backwards = [joined[n::-1][:MAX_MATCH] for n in order]
    assert backwards == sorted(backwards)


def test_questions_leave_their_text_alone() -> None:
    text = tokens([1, 2, 1])
    text.flags.writeable = False
    index_of([[1, 2, 1, 3]]).continuations(text)
    buffer_continuations(text)


def test_generated_text_does_not_confirm_itself() -> None:
    text = tokens([1, 2, 3, 1, 2, 9, 1, 2])
    assert answer(buffer_continuations(text)) == (2, {3: 1, 9: 1})
    assert answer(buffer_continuations(text, known=4)) == (2, {3: 1})
    assert answer(buffer_continuations(text, known=2)) == (0, {})


def drafted(text: list[int], places: list[tuple[list[int], int]], n: int) -> list[int]:
    """The token-by-token favourite of what follows at those of `places`, in order, where the longest match ends; looks at every place for every length."""
    for length in range(min(MAX_MATCH, len(text)), 0, -1):
        tails = [doc[at : at + n] for doc, at in places if at >= length and doc[at - length : at] == text[-length:]]
        tails = [tail for tail in tails if tail]
        if not tails:
            continue
        draft: list[int] = []
        while len(draft) < n:
            # A document that ends here counts as a vote for the end.
            votes = [tail[len(draft)] if len(tail) > len(draft) else -1 for tail in tails]
            counts = Counter(votes)
            best = next(vote for vote in reversed(votes) if counts[vote] == max(counts.values()))
            if best < 0:
                break
            draft.append(best)
            tails = [tail for tail, vote in zip(tails, votes, strict=True) if vote == best]
        return draft
    return []


def places_of(texts: list[list[int]], left_out: set[int]) -> list[tuple[list[int], int]]:
    return [(doc, n) for number, doc in enumerate(texts) if number not in left_out for n in range(1, len(doc))]


@settings(max_examples=300)
@given(documents, ids, st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 9))
@example([[1, 2, 3], [1, 2, 4]], [1, 2], None, 3)  # equally frequent: the later document's
@example([[1, 2], [1, 3, 4]], [1], None, 8)  # not across the end of a document
@example([[1, 2], [9, 9]], [1], None, 8)
@example([[7, 1, 2, 3, 7, 1, 2, 4, 1, 2, 4]], [7, 1, 2], None, 1)
def test_a_draft_is_what_followed(texts: list[list[int]], text: list[int], without: int | None, n: int) -> None:
    name = None if without is None else f"d{without}"
    found = index_of(texts).draft(tokens(text), n, without=name)
    assert found.tolist() == drafted(text, places_of(texts, {without} if without is not None else set()), n)
    assert found.dtype == np.int32


@settings(max_examples=300)
@given(ids, st.integers(0, 9), st.one_of(st.none(), st.integers(0, 40)))
@example([1, 2, 3, 1, 2], 5, None)
@example([1, 2, 3, 1, 2], 5, 3)
@example([4] * 40, 8, None)
def test_a_draft_from_the_buffer(text: list[int], n: int, known: int | None) -> None:
    known = None if known is None else min(known, len(text))
    source = text[:known]
    expected = drafted(text, [(source, at) for at in range(1, len(source))], n)
    assert buffer_draft(tokens(text), n, known=known).tolist() == expected


changes = st.lists(st.one_of(st.none(), ids), max_size=5)  # for each document: as it was, or its new text


@settings(max_examples=500)
@given(documents, changes, st.sets(st.integers(0, 5)), ids, st.one_of(st.none(), st.integers(0, 6)))
@example([[1, 2, 3], [1, 2, 4]], [[1, 2, 5]], set(), [1, 2], None)
@example([[1, 2, 3]], [None, [1, 2, 5]], set(), [1, 2], 1)  # a new document, left out
@example([[1, 2, 3]], [[1, 2, 5]], set(), [1, 2], 0)  # its old text is left out too
@example([[1, 2, 3]], [], {0}, [1, 2], None)  # removed, and nothing in its place
@example([[1, 2, 3, 4]], [None, [2, 3, 5]], set(), [1, 2, 3], None)  # the longer match wins
def test_a_layered_index_is_one_index_of_the_current_documents(
    texts: list[list[int]], new: list[list[int] | None], gone: set[int], text: list[int], without: int | None
) -> None:
    """Up to the order of documents: what changed stands last."""
    changed = {number: now for number, now in enumerate(new) if now is not None and number not in gone}
    hot = DocumentIndex([(f"d{number}", tokens(now)) for number, now in changed.items()]) if changed else None
    layered = LayeredIndex(index_of(texts), hot, frozenset(f"d{number}" for number in {*changed, *gone}))
    kept = {n: doc for n, doc in enumerate(texts) if n not in changed and n not in gone} | changed
    shown = [doc for number, doc in kept.items() if number != without]
    places = [(doc, n) for doc in shown for n in range(1, len(doc))]
    name = None if without is None else f"d{without}"
    assert answer(layered.continuations(tokens(text), without=name)) == search(text, places)
    assert layered.draft(tokens(text), 6, without=name).tolist() == drafted(text, places, 6)


@pytest.mark.parametrize("seed", range(4))
def test_layers_of_larger_texts(seed: int) -> None:
    """Intervals of all widths, of which some are wholly hidden."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, 3, 500).tolist() for _ in range(6)]
    fresh = {2: [*texts[2][:200], 9, 9, *texts[2][200:]], 5: rng.integers(0, 3, 300).tolist()}
    hot = DocumentIndex([(f"d{number}", tokens(doc)) for number, doc in fresh.items()])
    layered = LayeredIndex(index_of(texts), hot, frozenset({"d2", "d5", "d0"}))
    kept = {n: doc for n, doc in enumerate(texts) if n not in (0, 2, 5)} | fresh
    for _ in range(25):
        doc = texts[rng.integers(len(texts))]
        end = int(rng.integers(1, len(doc)))
        text = doc[max(0, end - int(rng.integers(8, 45))) : end]
        for without in (None, 1, 2):
            places = [(doc, n) for number, doc in kept.items() if number != without for n in range(1, len(doc))]
            name = None if without is None else f"d{without}"
            assert answer(layered.continuations(tokens(text), without=name)) == search(text, places)
            assert layered.draft(tokens(text), 5, without=name).tolist() == drafted(text, places, 5)


def test_a_layer_is_made_without_sorting_the_base_again() -> None:
    base = index_of([[1, 2, 3], [4, 5]])
    layered = LayeredIndex(base, None, frozenset({"d0", "of no document"}))
    assert layered.base.order is base.order
    assert layered.nbytes == base.nbytes
    assert answer(layered.continuations(tokens([1, 2]))) == (0, {})
    assert answer(base.continuations(tokens([1, 2]))) == (2, {3: 1}), "hiding changed the base itself"
