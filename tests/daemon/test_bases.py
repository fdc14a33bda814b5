"""The BASEs that are known, their indexes, and what a completion can stand on while a context is being read."""

import numpy as np
import pytest

from cache.chain import Chain
from daemon.bases import KEPT_BASES, KEPT_INDEXES, Bases, ground_of, grounds_of
from daemon.documents import Context
from daemon.layout import Base, Layout, whole
from daemon.prompt import Prompter
from daemon.protocol import Document
from model.source import BUNDLED
from model.tokenizer_files import read_tokenizer

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")


@pytest.fixture
def prompter() -> Prompter:
    return Prompter(TOKENIZER, Chain.start(b"test"))


@pytest.fixture
def bases(prompter: Prompter) -> Bases:
    return Bases(prompter.root, prompter.documents)


def context(prompter: Prompter, documents: list[Document]) -> Context:
    return prompter.documents.context(documents, max_tokens=100_000, workspace="/w")


def unread(base: Base) -> int:
    return base.chain.n_tokens


def test_documents_in_their_own_order(prompter: Prompter, documents: list[Document]) -> None:
    ground = ground_of(prompter, documents, max_tokens=100_000)
    ids = [int(i) for part in ground.chain.slices for i in part.tokens]
    assert TOKENIZER.decode(ids[1:]) == "".join(f"+++++ {d.path}\n{d.text}" for d in documents)
    assert (ground.ready, ground.current) == (True, 1.0)
    room = ground.chain.n_tokens - 2  # <s> is none of the documents'
    assert TOKENIZER.decode(
        [int(i) for part in ground_of(prompter, documents, max_tokens=room).chain.slices[1:] for i in part.tokens]
    ) == "".join(f"+++++ {d.path}\n{d.text}" for d in documents[1:])


def test_no_documents(prompter: Prompter) -> None:
    ground = ground_of(prompter, [], max_tokens=1000)
    assert ground.chain.tip == prompter.root.tip
    assert ground.index is not None
    assert ground.index.continuations(np.array([1, 2], np.int32)).length == 0


def found(index: object, text: str, *, without: str | None = None) -> str:
    """What most often follows a text, up to the end of its line."""
    ids = np.array(TOKENIZER.encode(text), np.int32)
    draft = index.draft(ids, 12, without=without)  # type: ignore[attr-defined]
    return TOKENIZER.decode(draft.tolist()).partition("\n")[0]


def test_the_index_holds_the_current_texts_and_no_headers(prompter: Prompter, bases: Bases) -> None:
    old = [
        Document(path="+++++ x.py", text="alpha_one = beta_two\n"),
        Document(path="b.py", text="while gamma(delta\n"),
        Document(path="empty.py", text=""),
    ]
    first = context(prompter, old)
    layout = bases.layout(first, missing=unread)
    changed = prompter.documents.changed(
        first, [Document(path="b.py", text="while gamma(epsilon\n")], [], max_tokens=100_000
    )
    later = bases.lay_out(changed, layout.base)
    for index, text, without, expected in [
        (layout.index, "alpha_one =", None, " beta_two"),
        (layout.index, "alpha_one =", "+++++ x.py", ""),
        (layout.index, "while gamma(", None, "delta"),
        (later.index, "while gamma(", None, "epsilon"),
        (later.index, "while gamma(", "b.py", ""),
        (later.index, "alpha_one =", "b.py", " beta_two"),
    ]:
        assert found(index, text, without=without) == expected
    assert layout.index is not None
    ids = np.array(TOKENIZER.encode("+++++ b"), np.int32)
    assert layout.index.continuations(ids).length < len(ids), "a header is in the index"


def test_an_index_is_sorted_once_for_the_same_base(prompter: Prompter, bases: Bases, documents: list[Document]) -> None:
    """Also where the tokens are the same and the documents are not: an index knows whose they are."""
    index_of = bases._base_index

    def base(files: list[Document]) -> Base:
        return whole(context(prompter, files), prompter.root)

    first = index_of(base(documents))
    assert index_of(base([Document(path=each.path, text=each.text) for each in documents])) is first
    others = [
        documents[:-1],
        [Document(path="other.py", text=documents[0].text), *documents[1:]],
        [*documents[:-1], Document(path=documents[-1].path, text=documents[-1].text + "# more\n")],
    ]
    assert all(index_of(base(files)) is not first for files in others)
    assert index_of(base(documents)) is first
    for n in range(KEPT_INDEXES):
        index_of(base([Document(path="a.py", text=f"x = {n}\n")]))
    assert index_of(base(documents)) is not first


def test_the_last_bases_are_known_and_those_on_disk(prompter: Prompter, documents: list[Document]) -> None:
    def base(n: int) -> Base:
        return whole(context(prompter, [Document(path="a.py", text=f"x = {n}\n")]), prompter.root)

    stored = [base(-1), base(KEPT_BASES + 1)]
    bases = Bases(prompter.root, prompter.documents, stored=lambda: iter(stored))
    for n in range(KEPT_BASES + 2):
        bases.add(base(n))
    known = [each.key for each in bases.known()]
    assert len(set(known)) == len(known) == KEPT_BASES + 1
    assert known[0] == base(KEPT_BASES + 1).key, "the last one first"
    assert base(1).key not in known
    assert known[-1] == base(-1).key
    bases.forget()
    assert [each.key for each in bases.known()] == [each.key for each in stored]


def test_a_base_of_equal_files_is_both_workspaces(prompter: Prompter, bases: Bases, documents: list[Document]) -> None:
    """Each goes on with it when something has changed in its own files, and the other's is still the other's."""
    contexts = {
        each: prompter.documents.context(documents, max_tokens=100_000, workspace=each) for each in ("/one", "/other")
    }
    layouts = {each: bases.layout(context, missing=lambda base: 0) for each, context in contexts.items()}
    assert layouts["/one"].base.key == layouts["/other"].base.key
    assert {base.workspace for base in bases.known()} == {"/one", "/other"}
    changes = [Document(path=documents[0].path, text="changed = 1\n")]
    for workspace, context in contexts.items():
        changed = prompter.documents.changed(context, changes, [], max_tokens=100_000)
        layout = bases.layout(changed, missing=lambda base: 0)
        assert (layout.base.key, layout.base.workspace) == (layouts[workspace].base.key, workspace)


def layouts(prompter: Prompter, bases: Bases, documents: list[Document]) -> Layout:
    """A BASE of all, and after it as HOT the first, changed."""
    first = context(prompter, documents)
    bases.layout(first, missing=unread)
    changed = prompter.documents.changed(
        first, [Document(path=documents[0].path, text=documents[0].text + "# new\n")], [], max_tokens=100_000
    )
    layout = bases.layout(changed, missing=lambda base: 0)
    assert len(layout.hot) == 1
    return layout


def test_what_can_be_stood_on_while_a_context_is_read(
    prompter: Prompter, bases: Bases, documents: list[Document]
) -> None:
    """Never more than was read, and what is missing counts."""
    layout = layouts(prompter, bases, documents)
    n_base, chain = len(layout.base.chain.slices), layout.chain()
    for readable in range(len(chain.slices)):
        grounds = grounds_of(layout, path="elsewhere.py", readable=readable)
        last = grounds[-1]
        assert not last.ready
        assert last.current < 1.0
        assert last.chain.tip == chain.upto(min(n_base, max(1, readable))).tip
        assert last.chain.n_tokens <= max(1, chain.upto(readable).n_tokens)
        if readable < n_base:
            assert len(grounds) == 1
        else:
            assert (grounds[0].chain.tip, grounds[0].ready, grounds[0].current) == (chain.tip, True, 1.0)
            hot = len(layout.hot[0].ids)
            assert last.current == pytest.approx(1.0 - hot / layout.context.n_tokens)
    (done,) = grounds_of(layout, path="elsewhere.py", readable=None)
    assert (done.chain.tip, done.ready, done.current) == (chain.tip, True, 1.0)


def test_shares_grow_while_a_context_is_read(prompter: Prompter, bases: Bases, documents: list[Document]) -> None:
    layout = layouts(prompter, bases, documents)
    readable: list[int | None] = [*range(len(layout.chain().slices)), None]
    shares = [grounds_of(layout, path=None, readable=n)[-1].current for n in readable]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == 1.0


def test_the_file_itself_is_left_out(prompter: Prompter, bases: Bases, documents: list[Document]) -> None:
    layout = layouts(prompter, bases, documents)
    (own,) = grounds_of(layout, path=documents[0].path, readable=None)
    (others,) = grounds_of(layout, path=documents[1].path, readable=None)
    assert own.chain.tip == layout.base.key
    assert others.chain.tip == layout.chain().tip
    assert own.current == others.current == 1.0
