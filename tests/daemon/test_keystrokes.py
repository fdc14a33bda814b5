"""What an editor's events cost: tokens fed at most, and from where. The requests are made by the front end's own split of a text at a cursor."""

from dataclasses import dataclass, field

import pytest

from context.window import WindowSize, split
from daemon.completion import Completion, Engine
from daemon.live import LIVE_DOCUMENTS
from daemon.prompt import WINDOW_GRID
from daemon.protocol import CompletionRequest, Document
from daemon.upcoming import AGAIN_DOCUMENTS
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import PLENTY, Driven, WatchedEngine, documents_of, module_text, same_as_cold

FILES = {f"part_{n}.py": module_text(n, n_methods=40) for n in range(6)}
WINDOW = WindowSize(step=600, suffix_chars=200)
WINDOWS_TOKENS = 450  # that both windows have at most
GAP = 256  # tokens between two states in a file's head


@dataclass
class Editor:
    """Open files, each with a cursor; every event is followed by one key's request."""

    driven: Driven
    texts: dict[str, str] = field(default_factory=lambda: dict(FILES))
    path: str = "part_2.py"
    at: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, text in self.texts.items():
            self.at.setdefault(path, text.index("method_12"))

    def edit(self, text: str, *, back: int = 0) -> None:
        now, at = self.texts[self.path], self.at[self.path]
        self.texts[self.path] = now[: at - back] + text + now[at:]
        self.at[self.path] = at - back + len(text)

    def move(self, to: str) -> None:
        """The cursor to before the first place of a text."""
        self.at[self.path] = self.texts[self.path].index(to)

    def request(self, **changes: object) -> CompletionRequest:
        at = split(self.texts[self.path], self.at[self.path], size=WINDOW)
        known = {"path": self.path, "document": self.path, "context": self.driven.context, "max_tokens": 2}
        return CompletionRequest(
            prompt=at.prefix, suffix=at.suffix, head=at.head, rest_of_line=at.rest_of_line, **(known | changes)
        )

    def key(self, **changes: object) -> Completion:
        self.driven.engine.feeder.tokens_per_s = 1000.0
        job = self.driven.worker.submit(self.request(**changes))
        self.driven.worker.step()
        return job.future.result(0)

    def type(self, text: str, **changes: object) -> list[Completion]:
        """One character after the other, each answered."""
        made = []
        for character in text:
            self.edit(character)
            made.append(self.key(**changes))
        return made


@pytest.fixture(params=["tiny", "coarse"])
def editor(request: pytest.FixtureRequest) -> Editor:
    """The repository and the file's first key are read; where the cut changes no bit, and where it does."""
    driven = Driven(WatchedEngine(request.getfixturevalue(request.param), store_budget_bytes=PLENTY))
    driven.post(FILES)
    driven.settle()
    made = Editor(driven)
    made.key()
    driven.settle()
    return made


def key_costs(editor: Editor) -> int:
    return 8 if editor.driven.engine.merges else 16


def last_slice(editor: Editor) -> int:
    """Of the window above the cursor's line, that a new line changes."""
    return 0 if editor.driven.engine.merges else WINDOW_GRID


def test_a_word_is_typed(editor: Editor) -> None:
    for made in editor.type("self.value_of(argument)"):
        assert made.report.tokens_fed <= key_costs(editor)
        assert made.report.segment in ("prefix", "line")
        assert (made.report.current, made.report.context_ready) == (1.0, True)


def test_a_file_is_read_to_its_end_so_that_a_jump_finds_a_state_near(editor: Editor) -> None:
    """At once it reads the way there; with some idle time before, a checkpoint's gap and the windows at most."""
    editor.path = "part_4.py"
    editor.texts[editor.path] = text = FILES["part_4.py"]
    editor.move("class")
    editor.key()
    editor.driven.settle()
    editor.at[editor.path] = len(text)
    n_tokens = len(editor.driven.engine.prompter.documents.piece(Document(path=editor.path, text=text)).ids)
    windows = len(editor.driven.engine.model.tokenizer.encode(text[-2 * WINDOW.step - WINDOW.suffix_chars :]))
    made = editor.key()
    assert made.report.tokens_fed <= windows + 256
    assert made.report.segment == "head"
    assert made.report.tokens_fed < n_tokens


def test_backspace_and_undo(editor: Editor) -> None:
    editor.type("self.value")
    for _ in range(8):
        editor.edit("", back=1)
        made = editor.key()
        assert made.report.tokens_fed <= key_costs(editor)
        assert made.report.segment in ("prefix", "line")
    editor.edit("lf.value")  # as an editor undoes all of it at once
    assert editor.key().report.tokens_fed <= key_costs(editor)


def test_enter_keeps_what_stands_below(editor: Editor) -> None:
    """In coarse slices the window's last one is fed again, which then ends with the line that was finished."""
    editor.move("\n        return self.total + 11")
    editor.key()
    editor.type("  # one")
    for _ in range(3):
        made = editor.type("\n")[-1]
        assert made.report.tokens_fed <= key_costs(editor) + last_slice(editor)
        assert made.report.segment in ("prefix", "line", "suffix")
        editor.type("        x = 1")


def test_a_paste_feeds_what_was_pasted(editor: Editor) -> None:
    pasted = "first = self.compute(1)\n        second = self.compute(2)\n        third = 3"
    editor.edit(pasted)
    made = editor.key()
    n_pasted = len(editor.driven.engine.model.tokenizer.encode(pasted))
    assert made.report.tokens_fed <= n_pasted + key_costs(editor) + last_slice(editor)
    assert made.report.segment in ("prefix", "line", "suffix")


def test_a_moved_cursor_feeds_the_windows_and_at_most_one_gap(editor: Editor) -> None:
    """Once the head of the file has been read in the background: whatever the size of file and repository."""
    editor.move("method_15")
    editor.key()
    editor.driven.settle()
    for target in ("method_6", "value_13", "method_3", "class", "method_14"):
        editor.move(target)
        made = editor.key(budget_ms=None)
        assert made.report.tokens_fed <= WINDOWS_TOKENS + GAP, target
        assert made.report.segment in ("head", "hot", "base", "suffix", "prefix")
        editor.driven.settle()
        assert editor.key().report.tokens_fed <= key_costs(editor)


def test_back_where_the_cursor_was_feeds_next_to_nothing(editor: Editor) -> None:
    places = ("value_13", "method_3", "method_14")
    for target in places:
        editor.move(target)
        editor.key()
    for target in places * 2:
        editor.move(target)
        assert editor.key().report.tokens_fed <= key_costs(editor)


def test_an_edit_above_the_window_feeds_what_comes_after_it_in_the_file(editor: Editor) -> None:
    """Not the repository; and within the budget the key does not wait for that."""
    editor.move("method_15")
    editor.key()
    editor.driven.settle()
    editor.texts[editor.path] = editor.texts[editor.path].replace("import os", "import sys", 1)
    editor.move("method_15")
    hurried = editor.key(budget_ms=300)
    n_file = len(editor.driven.engine.model.tokenizer.encode(editor.texts[editor.path]))
    assert hurried.report.tokens_fed <= WINDOWS_TOKENS < n_file
    assert (hurried.plan.has_head, hurried.report.context_ready, hurried.report.current) == (False, True, 1.0)
    assert editor.driven.settle() <= n_file + GAP
    made = editor.key(budget_ms=300)
    assert made.plan.has_head
    assert made.report.tokens_fed <= key_costs(editor)


def test_switching_between_two_files_feeds_nothing(editor: Editor) -> None:
    for path in ("part_4.py", "part_2.py"):
        editor.path = path
        editor.key()
        editor.driven.settle()
    for path in ("part_4.py", "part_2.py") * 3:
        editor.path = path
        made = editor.key()
        assert made.report.tokens_fed <= key_costs(editor)
        assert (made.report.current, made.plan.has_head) == (1.0, True)
        assert editor.driven.settle() == 0


def test_saving_and_switching_back_and_forth(editor: Editor) -> None:
    """Edited, saved, the other file edited and saved: when the background has done its part, each first key costs what any key costs."""
    for turn in range(3):
        for path in ("part_4.py", "part_2.py"):
            editor.path = path
            editor.type(f"x{turn}")
            editor.driven.save({path: editor.texts[path]})
            editor.driven.settle()
            made = editor.key()
            assert made.report.tokens_fed <= key_costs(editor)
            assert (made.report.current, made.plan.has_head, made.report.context_ready) == (1.0, True, True)
    n_base = len(editor.driven.worker.contexts.job(editor.driven.context).layout.base.manifest)
    assert n_base == len(FILES)


def test_while_something_newer_is_read_the_answer_says_how_much_is_current(editor: Editor) -> None:
    editor.type("x")
    others = {path: FILES[path] + "# more\n" for path in ("part_0.py", "part_1.py")}
    editor.driven.save(others)
    layout = editor.driven.worker.contexts.job(editor.driven.context).layout
    own = len(layout.context.pieces[editor.path].ids)  # which the request has
    missing = sum(len(piece.ids) for piece in layout.hot) / (layout.context.n_tokens - own)
    seen = []
    while True:
        made = editor.type("y", budget_ms=10_000)[-1]
        seen.append(made.report.current)
        assert made.report.tokens_fed <= (key_costs(editor) if made.report.current < 1.0 else 60)
        assert made.report.context_ready
        if not editor.driven.worker.step():
            break
    assert seen[0] == pytest.approx(1.0 - missing)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_files_that_are_being_edited_are_read_again_under_a_changed_context(editor: Editor) -> None:
    """The last of them, in the background, so that none waits for it: not even one that another's save has put behind HOT."""
    paths = [f"part_{n}.py" for n in range(1, AGAIN_DOCUMENTS + 2)]
    for path in paths:
        editor.path = path
        editor.key()
        editor.driven.settle()
    editor.driven.save({"part_0.py": FILES["part_0.py"] + "# more\n"})
    editor.driven.settle()
    for path in paths[1:]:
        editor.path = path
        made = editor.key()
        assert made.report.tokens_fed <= key_costs(editor), path
        assert (made.report.current, made.plan.has_head) == (1.0, True)


def test_every_answer_has_the_bits_of_a_cold_run(editor: Editor) -> None:
    cold = Engine(editor.driven.engine.model, store_budget_bytes=0)

    def check() -> None:
        request = editor.request(budget_ms=10_000)
        job = editor.driven.worker.submit(request)
        editor.driven.worker.step()
        assert same_as_cold(editor.driven.engine, cold, job.future.result(0), request)

    for text in ("s", "e", "lf.é🙂", "\n", "        pasted(1)\n        pasted(2)\n", " "):
        editor.edit(text)
        check()
    editor.driven.save({editor.path: editor.texts[editor.path]})
    for target in ("method_3", "class", "method_14"):
        editor.move(target)
        check()
        editor.driven.worker.step()


# Eviction.


def test_what_live_documents_stand_on_is_not_evicted(tiny: LoadedModel) -> None:
    """A store of few states, filled over and over by another workspace."""
    n_states = 24
    value = Engine(tiny, store_budget_bytes=0).read(Engine(tiny, store_budget_bytes=0).prompter.root)
    assert value is not None
    driven = Driven(WatchedEngine(tiny, store_budget_bytes=n_states * value.nbytes))
    driven.post(FILES)
    driven.settle()
    editor = Editor(driven)
    editor.key()
    driven.settle()
    editor.key()
    for n in range(12):
        driven.worker.add_context(documents_of({f"{n}.py": module_text(n + 100, n_methods=30)}), workspace="/other")
        driven.settle()
        driven.engine.store.check()
    assert driven.engine.store.evictions > 0
    made = editor.key()
    assert made.report.segment not in ("root", "base", "hot")
    assert made.report.tokens_fed <= WINDOWS_TOKENS
    assert made.report.context_ready


def test_only_the_last_documents_are_live(tiny: LoadedModel) -> None:
    driven = Driven(WatchedEngine(tiny, store_budget_bytes=PLENTY))
    driven.post(FILES)
    driven.settle()
    for n in range(LIVE_DOCUMENTS + 3):
        driven.key(f"new_{n}.py", "x = ")
    live = driven.worker.live
    assert [each.document for each in live.requests()] == [f"new_{n}.py" for n in range(LIVE_DOCUMENTS + 2, 2, -1)]
    pinned = [entry for entry in driven.engine.store.entries() if driven.engine.store.pinned(entry.key)]
    assert 0 < len(pinned) <= 4 * LIVE_DOCUMENTS
    live.forget()
    assert not any(driven.engine.store.pinned(entry.key) for entry in driven.engine.store.entries())
    assert live.requests() == []
