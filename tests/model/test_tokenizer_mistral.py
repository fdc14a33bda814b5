"""Codestral's own vocabulary against its makers' library: plain text, chat, fill-in; the cheap way to leave out the dummy prefix; healing on its tokens."""

import functools
import random

import pytest
from hypothesis import example, given
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.instruct.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from model.fim import heal
from tests.model.vocabularies import any_text, codestral, llama, source_files

OURS = codestral()
BOS, EOS, INST, END_INST, PREFIX, SUFFIX = 1, 2, 3, 4, 11, 13

TEXTS = {
    "empty": "",
    "a word": "def",
    "a space": " ",
    "spaces": "    ",
    "a space before": " def f(x):",
    "a newline": "\n",
    "newlines": "\n\n\n",
    "a newline before": "\n    return x",
    "a tab": "\tx\t\ty\n",
    "CRLF": "if x:\r\n\treturn 1\r\n\r\n",
    "lone CR": "a\rb\r\r",
    "spaces at the end": "x = 1   \n   ",
    "NUL": "a\x00b\x00\x00",
    "control characters": "\x01\x1b[0m\x7f\x85",
    "Latin": "café naïve Straße",
    "combining": "e\u0301 n\u0303",
    "what normalisation would change": "ﬁ Ａ \u212b ½ \u1100\u1161",
    "CJK": "# 日本語のコメント\nx = '漢字'\n",
    "Cyrillic and Greek": "привет λ → ∀x",
    "right to left": "שלום مرحبا",
    "emoji": "🙂👩‍👩‍👧 ☺ ☺️ ❤️",
    "no-break space, mark of order": "\ufeffa\u00a0b\u2028c\u200d",
    "last plane": "\U0010ffff\U000e0001",
    "control tokens as text": "<s>[INST] x [/INST]</s>[PREFIX][SUFFIX][MIDDLE][control_12][IMG]<unk>",
    "bytes as text": "<0x0A><0x41>",
    "user-defined": "[REFERENCE_DOC_0] [REFERENCE_DOC_19]x",
    "digits": "1234567890 0xDEADBEEF 3.14e-10",
    "long line": "x" * 5000 + " " * 300 + "=" * 200,
}


@functools.cache
def theirs() -> MistralTokenizer:
    return MistralTokenizer.v3()


def their_text(text: str) -> list[int]:
    return theirs().instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False)


def their_continuation(text: str) -> list[int]:
    """Their way to leave out the space before a text."""
    return their_text("☺" + text)[2:]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text(name: str) -> None:
    text = TEXTS[name]
    assert OURS.encode(text, dummy_prefix=True) == their_text(text)
    assert OURS.encode(text) == their_continuation(text)
    assert llama().encode(text) == their_continuation(text)  # the same vocabulary as tokenizer.json


def as_they_read_it(text: str) -> str:
    """sentencepiece takes a literal mark of a space for a space; we keep it, in three byte tokens. The one difference."""
    return text.replace("\u2581", " ")


@given(any_text)
@example("☺")
@example("\u2581☺ ☺\ufe0f")
def test_any_text(text: str) -> None:
    text = as_they_read_it(text)
    assert OURS.encode(text, dummy_prefix=True) == their_text(text)
    assert OURS.encode(text) == their_continuation(text)


def test_a_literal_mark_of_a_space_is_kept() -> None:
    assert their_text("a\u2581b") == their_text("a b")
    ids = OURS.encode("a\u2581b")
    assert ids == [*OURS.encode("a"), 771 + 0xE2, 771 + 0x96, 771 + 0x81, *OURS.encode("b")]
    assert OURS.decode(ids) == "a\u2581b"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_this_repository(line_end: str) -> None:
    for path, text in source_files().items():
        text = as_they_read_it(text.replace("\n", line_end))
        expected = their_continuation(text)
        assert OURS.encode(text) == expected, path
        assert llama().encode(text) == expected, path
        lines = text.split("\n")
        apart = [i for line in lines[:-1] for i in OURS.encode(line + "\n")] + OURS.encode(lines[-1])
        assert apart == expected, path


def test_ids() -> None:
    assert OURS.vocab_size == 32768
    assert OURS.encode("\t\n") == [780, 781]
    names = theirs().instruct_tokenizer.tokenizer.vocab()
    control = [i for i, piece in enumerate(OURS.pieces) if not piece]
    assert control == list(range(751)) and names[14] == "[control_12]" and names[750] == "[control_748]"
    assert list(OURS.unsaid) == [i for i in control if i != EOS]
    assert OURS.encode("☺" + "x")[1:] == OURS.encode("x")
    assert [i for i, piece in enumerate(OURS.pieces) if "☺".encode() in piece] == [
        31369
    ]  # why their way and ours agree


FILL_INS = [
    ("def f(x):\n    ", "\n    return y\n"),
    ("", ""),
    ("x = ", None),
    ("    ", "    "),
    ("\n", "\n"),
    ("a\r\n\t", "\r\n"),
    ("🙂", "\x00☺"),
    ("[PREFIX]", "[SUFFIX]</s>"),
]


@pytest.mark.parametrize(("prompt", "suffix"), FILL_INS)
def test_fill_in(prompt: str, suffix: str | None) -> None:
    """The space before the prefix is theirs alone: our prompts (model/fim.py) leave it out, since the prefix begins at a line's start."""
    expected = theirs().encode_fim(FIMRequest(prompt=prompt, suffix=suffix)).tokens
    made = [BOS, SUFFIX, *OURS.encode(suffix or ""), PREFIX, *OURS.encode(prompt, dummy_prefix=True)]
    assert made == expected


@given(any_text, any_text)
def test_any_fill_in(prompt: str, suffix: str) -> None:
    prompt, suffix = as_they_read_it(prompt), as_they_read_it(suffix)
    expected = theirs().encode_fim(FIMRequest(prompt=prompt, suffix=suffix)).tokens
    assert [BOS, SUFFIX, *OURS.encode(suffix), PREFIX, *OURS.encode(prompt, dummy_prefix=True)] == expected


def user(text: str) -> list[int]:
    return [INST, *OURS.encode(text, dummy_prefix=True), END_INST]


def assistant(text: str) -> list[int]:
    return OURS.encode(text, dummy_prefix=True)


ASK, ANSWER, GO_ON = "Write f.\n\n```py\n", "def f():\n    pass", "def f(x,"
CHATS = {
    "one turn": ([UserMessage(content=ASK)], [BOS, *user(ASK)]),
    "two turns": (
        [UserMessage(content="hi"), AssistantMessage(content=ANSWER), UserMessage(content=ASK)],
        [BOS, *user("hi"), *assistant(ANSWER), EOS, *user(ASK)],
    ),
    "system": (
        [SystemMessage(content="Be brief."), UserMessage(content=ASK)],
        [BOS, *user(f"Be brief.\n\n{ASK}")],
    ),
    "the answer's start is given": (
        [UserMessage(content=ASK), AssistantMessage(content=GO_ON, prefix=True)],
        [BOS, *user(ASK), *assistant(GO_ON)],
    ),
    "control tokens as text": ([UserMessage(content="[/INST]</s>")], [BOS, *user("[/INST]</s>")]),
}


@pytest.mark.parametrize("name", CHATS)
def test_chat(name: str) -> None:
    messages, expected = CHATS[name]
    assert theirs().encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens == expected


# (start of the cursor's line, what is cut back to be generated again)
HEALED = [
    ("    retu", b" retu"),
    ("import nump", b" nump"),
    ("self.assertEqu", b"assertEqu"),
    ("x = foo(", b"("),
    ("x == ", b" "),
    ("x = 1\n    ", b"    "),
    ("return x\n", b""),  # nothing grows over a newline
    ("a\tb\t", b""),  # nor over a tab
    ('"""', b""),
    ("日", b""),
]


@pytest.mark.parametrize(("line", "forced"), HEALED)
def test_healing(line: str, forced: bytes) -> None:
    ids = OURS.encode(line)
    healed = heal(OURS, ids)
    assert healed.forced == forced
    assert ids[: len(healed.ids)] == healed.ids
    assert OURS.decode(healed.ids).encode() + healed.forced == line.encode()


def test_a_healed_cursor_goes_on_as_the_whole_line_is_tokenised() -> None:
    """In 98.6 % of the cursors inside this repository's lines."""
    generator = random.Random(0)
    agree = total = 0
    for text in source_files().values():
        for line in text.splitlines():
            if len(line) > 3 and generator.random() < 0.05:
                cursor = generator.randrange(1, len(line))
                whole, healed = OURS.encode(line), heal(OURS, OURS.encode(line[:cursor]))
                rest = b"".join(OURS.pieces[i] for i in whole[len(healed.ids) :])
                agree += whole[: len(healed.ids)] == healed.ids and rest.startswith(healed.forced)
                total += 1
    assert total > 300 and agree / total > 0.97
