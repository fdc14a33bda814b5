"""Healing: what stands before the cursor is never changed by it, wherever the cursor stands, inside a token, a name or a character's bytes.

The daemon's text is what is typed after the cursor. What the model said begins with the bytes that healing took back, and the editor has those already.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.random_steps import tiny_model
from cache.chain import Chain
from daemon.completion import Completion, Engine
from daemon.prompt import Prompt, Prompter
from daemon.protocol import CompletionRequest
from model.checkpoint import LoadedModel
from model.fim import STRATEGIES, heal, layout_of
from model.source import BUNDLED
from model.tokenizer_files import read_tokenizer
from tests.daemon.daemon_parts import PLENTY, Driven, WatchedEngine

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")
SOURCES = ("model/fim.py", "daemon/trim.py", "cache/chain.py")
ODD = "naïve_façade = 'Ωμέγα 漢字 🙂👩‍👩‍👧 \u2581 \ufeff'  # 𝔘𝔫𝔦𝔠𝔬𝔡𝔢\n\té́ = \"\\u00e9\"\n"
texts = st.text(alphabet="ab_ .(=\t'#éß漢🙂\u2581\u200d", max_size=40)


def lines() -> list[str]:
    root = Path(__file__).resolve().parents[2]
    real = [line for path in SOURCES for line in (root / path).read_text(encoding="utf-8").splitlines()]
    return [*ODD.splitlines(), *real[::23]]


def prompt_of(prompter: Prompter, line: str) -> Prompt:
    return prompter.completion(prompter.root, CompletionRequest(prompt="x = 1\n" + line))


def bytes_of(made: Prompt) -> bytes:
    """What is fed of the cursor's line, and what is forced after it."""
    fed = [int(i) for part in made.chain.slices[made.line_start :] for i in part.tokens]
    return b"".join(TOKENIZER.pieces[i] for i in fed) + made.forced


@pytest.mark.parametrize("any_cut", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_line_cut_anywhere_is_fed_or_forced_whole(strategy: str, any_cut: bool) -> None:
    prompter = Prompter(TOKENIZER, Chain.start(b"test"), layout_of(TOKENIZER, strategy), any_cut=any_cut)
    for line in lines():
        for end in range(len(line) + 1):
            assert bytes_of(prompt_of(prompter, line[:end])) == line[:end].encode()


@given(texts)
@settings(max_examples=200)
def test_any_text_is_fed_or_forced_whole(text: str) -> None:
    """Characters that are no tokens of their own are fed as bytes: healing may stop between two bytes of one."""
    ids = TOKENIZER.encode(text)
    healed = heal(TOKENIZER, ids)
    assert list(healed.ids) == list(ids[: len(healed.ids)])
    assert b"".join(TOKENIZER.pieces[i] for i in healed.ids) + healed.forced == text.encode()


def test_cuts_inside_the_bytes_of_a_character() -> None:
    """No cursor stands there, but tokens end there: what is left of the character is forced, never lost."""
    ids = TOKENIZER.encode("x = '漢🙂é𝔘")
    partial = 0
    for end in range(len(ids) + 1):
        healed = heal(TOKENIZER, ids[:end])
        whole = b"".join(TOKENIZER.pieces[i] for i in ids[:end])
        assert b"".join(TOKENIZER.pieces[i] for i in healed.ids) + healed.forced == whole
        try:
            whole.decode()
        except UnicodeDecodeError:
            partial += 1
    assert partial > 3, "nothing was cut inside a character"


TINY = tiny_model()


@pytest.fixture(scope="module")
def driven() -> Driven:
    made = Driven(WatchedEngine(TINY, store_budget_bytes=PLENTY))
    made.post({"a.py": ODD, "b.py": "value = 1\n"})
    made.settle()
    return made


def check_answer(engine: Engine, made: Completion, typed: str) -> None:
    """The model's bytes begin with those that were taken back; what is shown is none of them."""
    said = b"".join(engine.model.tokenizer.pieces[i] for i in made.generated.ids)
    forced = made.plan.prompt.forced
    assert bytes_of(made.plan.prompt) == typed.encode()
    n_same = min(len(said), len(forced))
    assert said[:n_same] == forced[:n_same], "other bytes than were typed"
    if len(said) >= len(forced):
        assert said == forced + made.generated.text
    else:
        assert made.generated.text == b""
    text = made.generated.text.decode(errors="ignore")
    # A blank behind one that was typed is left out.
    assert any(each.startswith(made.text) for each in (text, text[1:] if text[:1] == " " else text)) or made.text == ""


def test_every_answer_continues_what_was_typed(driven: Driven) -> None:
    """Every cut of every line, warm: typed character by character, and with few tokens, so that some end before the forced bytes do."""
    for number, line in enumerate(lines()[:24]):
        for end in range(len(line) + 1):
            n_tokens = 1 + (end + number) % 4
            made = driven.key("a.py", "x = 1\n" + line[:end], max_tokens=n_tokens)
            check_answer(driven.engine, made, line[:end])
            assert "\ufffd" not in made.text


@given(texts.map(lambda text: text.replace("\n", "")), st.integers(1, 5))
@settings(max_examples=60)
def test_every_answer_continues_any_text(text: str, n_tokens: int) -> None:
    engine = Engine(TINY, store_budget_bytes=PLENTY)
    driven = Driven(WatchedEngine(TINY, store_budget_bytes=1 << 20))
    made = driven.key("a.py", text, max_tokens=n_tokens, context=None)
    check_answer(engine, made, text)


def test_the_bundled_model_goes_on_inside_a_word(bundled: LoadedModel) -> None:
    """A cursor inside a name gets what completes it: the text before it and the answer are one text."""
    driven = Driven(WatchedEngine(bundled, store_budget_bytes=PLENTY))
    above = "def remove_duplicates(values):\n    remaining = []\n    for value in values:\n"
    line = "        if value not in remaining:"
    for end in range(12, len(line)):
        made = driven.key("a.py", above + line[:end], max_tokens=12, context=None)
        check_answer(driven.engine, made, line[:end])
        whole = line[:end] + made.text
        assert whole.startswith(line[:end])
        assert "\n" not in made.text
