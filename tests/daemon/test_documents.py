"""Contexts as sets of documents: what is in their ids and what is not, changes of them, limits, and many threads at once."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from cache.chain import Chain
from daemon.documents import CHANGE_TOKENS, Context, Documents
from daemon.prompt import Prompter
from daemon.protocol import Document
from model.fim import document_ids, header_ids
from model.source import BUNDLED
from model.tokenizer_files import read_tokenizer

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")
PLENTY = 100_000


def made_by(fingerprint: bytes = b"model") -> Documents:
    return Documents(TOKENIZER, fingerprint)


def doc(path: str, text: str, edits: float = 0.0) -> Document:
    return Document(path=path, text=text, edits=edits)


A, B, C = doc("a.py", "x = 1\n"), doc("b.py", "y = 2\n"), doc("c.py", "z = 3\n")


def size(document: Document) -> int:
    return len(document_ids(TOKENIZER, document.path, document.text))


def context(*documents: Document, **settings: object) -> Context:
    return made_by().context(documents, **({"max_tokens": PLENTY} | settings))  # type: ignore[arg-type]


SAME = [
    ([A, B, C], [C, A, B]),
    ([A, B, C], [doc("a.py", "x = 1\n", edits=5.0), B, C]),
    ([A, B], [A, B, B]),
    ([A, B], [doc("a.py", "older"), B, A]),
    ([], []),
    ([doc("a.py", "x")], [doc("a.py", "x\n")]),  # a document ends with its line
]
DIFFERENT = [
    ([A, B, C], [A, B]),
    ([A, B], [A, doc("b.py", "y = 20\n")]),
    ([A, B], [A, doc("B.py", "y = 2\n")]),
    ([doc("a.py", B.text), doc("b.py", A.text)], [A, B]),
    ([A], []),
    ([doc("a", "b\n+++++ c\n")], [doc("a", "b\n"), doc("c", "")]),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_sets_have_equal_ids(one: list[Document], other: list[Document]) -> None:
    assert context(*one).id == context(*other).id


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_sets_have_other_ids(one: list[Document], other: list[Document]) -> None:
    assert context(*one).id != context(*other).id


def test_another_workspace_has_other_contexts_of_the_same_pieces() -> None:
    """What is changed in one of two worktrees is not the other's."""
    documents = made_by()
    made = [documents.context([A, B], max_tokens=PLENTY, workspace=each) for each in ("/one", "/other", None)]
    assert len({each.id for each in made}) == 3
    assert all(each.pieces["a.py"] is made[0].pieces["a.py"] for each in made)


def test_another_model_has_other_contexts() -> None:
    ids = {made_by(name).context([A, B], max_tokens=PLENTY).id for name in (b"one", b"other", b"")}
    assert len(ids) == 3
    tips = [Prompter(TOKENIZER, Chain.start(name)).documents.fingerprint for name in (b"one", b"other", b"one")]
    assert tips[0] == tips[2] != tips[1]


def test_a_piece_is_what_the_model_reads() -> None:
    for document in (A, doc("dir/Ünicode.py", "é = '🙂'"), doc("empty.py", ""), doc("<s>", "[SUFFIX]</s>")):
        piece = made_by().piece(document)
        assert piece.ids.tolist() == document_ids(TOKENIZER, document.path, document.text)
        assert piece.ids[: piece.n_header].tolist() == header_ids(TOKENIZER, document.path)
        text = document.text if document.text.endswith("\n") else document.text + "\n"
        assert TOKENIZER.decode(piece.text_ids.tolist()) == text
        assert all(TOKENIZER.pieces[i] for i in piece.ids), "a control token"


def test_a_text_is_tokenised_once_whatever_its_weight() -> None:
    documents = made_by()
    first = documents.piece(A)
    again = documents.piece(doc(A.path, A.text, edits=7.0))
    assert again.ids is first.ids
    assert (first.edits, again.edits, documents.piece(A).edits) == (0.0, 7.0, 0.0)
    documents.forget()
    assert documents.piece(A).ids is not first.ids


# before, what changes, what is removed -> paths in their order, ids equal to this set posted whole
CHANGES = [
    ([A, B, C], [doc("a.py", "new\n")], [], [B, C, doc("a.py", "new\n")]),
    ([A, B, C], [], ["b.py"], [A, C]),
    ([A, B], [C], [], [A, B, C]),
    ([A, B], [C], ["a.py", "b.py"], [C]),
    ([A, B], [doc("d.py", A.text)], ["a.py"], [B, doc("d.py", A.text)]),  # renamed
    ([A, B], [A], [], [B, A]),  # touched: nothing is new, and it counts as changed last
    ([A, B], [A], ["a.py"], [B, A]),  # what is given is there, whatever else is said
    ([A], [], ["never.py"], [A]),
    ([], [], [], []),
    ([A], [doc("a.py", "1"), doc("a.py", "2")], [], [doc("a.py", "2")]),
]


@pytest.mark.parametrize(("before", "changed", "removed", "after"), CHANGES)
def test_a_change(before: list[Document], changed: list[Document], removed: list[str], after: list[Document]) -> None:
    documents = made_by()
    older = documents.context(before, max_tokens=PLENTY, workspace="/w")
    paths = list(older.pieces)
    made = documents.changed(older, changed, removed, max_tokens=PLENTY)
    assert list(made.pieces) == [each.path for each in after]
    assert [piece.ids.tolist() for piece in made.pieces.values()] == [
        document_ids(TOKENIZER, each.path, each.text) for each in after
    ]
    assert made.id == documents.context(after, max_tokens=PLENTY, workspace="/w").id
    assert made.workspace == "/w"
    assert list(older.pieces) == paths, "the older context has changed"


def test_a_change_and_its_undoing_come_back_to_the_same_context() -> None:
    documents = made_by()
    first = documents.context([A, B, C], max_tokens=PLENTY)
    second = documents.changed(first, [doc("a.py", "other\n")], ["b.py"], max_tokens=PLENTY)
    third = documents.changed(second, [A, B], [], max_tokens=PLENTY)
    assert first.id == third.id != second.id


def test_weights_are_kept_unless_new_ones_come() -> None:
    documents = made_by()
    older = documents.context([doc("a.py", "1", 3.0), doc("b.py", "2", 2.0)], max_tokens=PLENTY)
    made = documents.changed(
        older, [doc("a.py", "11"), doc("b.py", "22", 5.0), doc("c.py", "33")], [], max_tokens=PLENTY
    )
    assert {path: piece.edits for path, piece in made.pieces.items()} == {"a.py": 3.0, "b.py": 5.0, "c.py": 0.0}


def test_the_first_documents_are_left_out_when_there_is_no_room() -> None:
    files = [doc(f"{n}.py", f"value_{n} = {n}\n" * (n + 1)) for n in range(6)]
    for n_kept in range(len(files) + 1):
        kept, left_out = files[len(files) - n_kept :], files[: len(files) - n_kept]
        room = sum(map(size, kept))
        made = context(*files, max_tokens=room)
        assert made.left_out == tuple(each.path for each in left_out)
        assert (made.n_documents, made.n_tokens) == (n_kept, room)
        assert made.id == context(*kept).id
        if n_kept:
            assert context(*files, max_tokens=room - 1).n_documents == n_kept - 1


def test_a_change_may_exceed_the_limit_by_what_hot_may_hold() -> None:
    """Else the first save in a context that is full would throw a file of BASE out, and BASE with it."""
    documents = made_by()
    long = doc("long.py", "x = 1\n" * 200)
    limit = size(A) + size(long)
    full = documents.context([A, long], max_tokens=limit)
    more = documents.changed(full, [doc("more.py", "y = 22\n" * 100)], [], max_tokens=limit)
    assert (more.left_out, more.n_documents) == ((), 3)
    huge = doc("huge.py", "y = 22\n" * (1 + CHANGE_TOKENS // 5))
    assert size(huge) + size(long) > limit + CHANGE_TOKENS
    beyond = documents.changed(full, [huge], [], max_tokens=limit)
    assert "huge.py" in beyond.pieces or beyond.left_out[-1] == "huge.py"
    assert beyond.n_tokens <= limit + CHANGE_TOKENS


def together(n_threads: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


def test_many_threads_make_the_same_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory so short that pieces are forgotten all the time."""
    monkeypatch.setattr("daemon.documents.KEPT_PIECES", 5)
    documents = made_by()
    files = [doc(f"{n}.py", f"value_{n} = {n}\n" * 9) for n in range(12)]
    expected = [made_by().context(files[n:], max_tokens=PLENTY).id for n in range(12)]

    def work(number: int) -> None:
        for turn in range(24):
            n = (turn * (number + 1)) % 12
            made = documents.context(files[n:], max_tokens=PLENTY)
            assert made.id == expected[n]
            again = documents.changed(made, files[:n], [], max_tokens=PLENTY)
            assert again.id == expected[0]
            if turn % 7 == number:
                documents.forget()

    together(6, work)
    assert np.array_equal(documents.header("a.py"), header_ids(TOKENIZER, "a.py"))
