"""How a repository and a hole in a file are asked of the model, in token ids: three strategies; and token healing.

    spm       <s> files, head [SUFFIX] lines below [PREFIX] lines above, start of the line -> the rest </s>
    instruct  <s>[INST] files, head, an instruction with the lines below [/INST] ``` lines above, start of the line -> the rest
    plain     <s> files, head, lines above, start of the line -> whatever comes next

A file is `+++++ path \\n text`. The repository stands first, so an edit below the cursor leaves it read; the prefix stands last, so typing only appends. The
bundled model is trained on exactly `spm` (training/packing.py). The other two are for models that no one trained to fill in: `instruct` says in words what
lies below, `plain` does not say it at all, so there the lines below only stop, trim and rank (daemon/trim.py, daemon/rank.py).
Knows: the tokenizer. Does not know: where the texts come from, caches.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from model.config import ConfigError
from model.tokenizer import ControlIds, Tokenizer

STRATEGIES = ("spm", "instruct", "plain")
HEADER_MARK = "+++++ "
MAX_HEALED_TOKENS = 6  # with 8192 pieces 0.4 % of cursors inside a line need more than 3, none of 23,707 more than 5

# Part of every key: a change of a layout below is a new version. `spm` and `plain` begin alike, so what is read before the windows serves both: their
# keys differ from the first token that differs.
FILES_FIRST, FILES_ASKED = b"spm-1", b"instruct-1"

# The space is the one that Mistral's chat format puts after [INST] and [/INST].
OPENING = " Here are files of a repository, each behind a line with its path.\n\n"
BREAK = "\n\nThe last file breaks off here. Below the gap it goes on with these lines:\n\n```\n"
QUESTION = (
    "```\n\nContinue the last file from where it breaks off up to these lines, in its own style. "
    "Answer with the missing code alone, and do not repeat the lines below the gap."
)
ANSWER = " ```\n"
# Mistral's third vocabulary: [INST], [/INST], [PREFIX], [MIDDLE], [SUFFIX].
MISTRAL_V3 = (3, 4, 11, 12, 13)


class StrategyError(ConfigError):
    """A model cannot be asked in the way that was wanted. One line, for people."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The ids around the texts of one strategy. What is fed, in this order (each text encoded on its own, as each begins at a line's start):

    root, files, head, [before_suffix, lines below, after_suffix,] before_prefix, lines above, start of the line. The part in brackets is missing
    where `shows_suffix` is False.
    """

    strategy: str
    version: bytes  # of how the files stand; the ids behind them tell the strategies apart
    root: tuple[int, ...]
    before_suffix: tuple[int, ...] = ()
    after_suffix: tuple[int, ...] = ()
    before_prefix: tuple[int, ...] = ()
    shows_suffix: bool = True
    whole_lines: bool = False  # the lines below must end with a newline, since words follow

    @property
    def knows_its_end(self) -> bool:
        """Whether a model that is asked so says itself where the hole ends."""
        return self.strategy == "spm"

    @property
    def is_fenced(self) -> bool:
        """Whether the answer stands in a block of code, whose closing fence ends it."""
        return self.strategy == "instruct"


class Words(NamedTuple):
    """The control tokens that a strategy needs, as people write them, and their ids."""

    names: tuple[str, ...]
    ids: tuple[int | None, ...]


def layout_of(tokenizer: Tokenizer, strategy: str) -> Layout:
    """Raises StrategyError for an unknown strategy, and for one whose control tokens the tokenizer lacks."""
    control = tokenizer.control
    if strategy not in STRATEGIES:
        raise StrategyError(f"strategy is {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    names, ids = words_of(control, strategy)
    missing = [name for name, i in zip(names, ids, strict=True) if i is None]
    if missing:
        raise StrategyError(
            f"strategy {strategy}: the model's tokenizer has no {' and no '.join(missing)}; possible here: "
            f"{', '.join(possible_strategies(control))}"
        )
    present = [i for i in ids if i is not None]
    start = start_id(tokenizer)
    if strategy == "spm":
        prefix, suffix = present
        return Layout("spm", FILES_FIRST, root=(start,), before_suffix=(suffix,), before_prefix=(prefix,))
    if strategy == "plain":
        return Layout("plain", FILES_FIRST, root=(start,), shows_suffix=False)
    inst, end_inst = present
    return Layout(
        "instruct",
        FILES_ASKED,
        root=(start, inst, *tokenizer.encode(OPENING)),
        before_suffix=tuple(tokenizer.encode(BREAK)),
        after_suffix=(*tokenizer.encode(QUESTION), end_inst, *tokenizer.encode(ANSWER)),
        whole_lines=True,
    )


def possible_strategies(control: ControlIds) -> tuple[str, ...]:
    """Those whose control tokens are there. `plain` needs none."""
    return tuple(strategy for strategy in STRATEGIES if None not in words_of(control, strategy).ids)


def default_strategy(control: ControlIds, *, name: str) -> str:
    """The strategy of a model that was not calibrated.

    Control tokens for filling in are a sign that a model was trained with them. Codestral Mamba is the known exception: its maker says that it has "only
    Instruct support and not FIM", so [PREFIX] and [SUFFIX] may be untrained. There `instruct` is the one way of asking that its training knows and that
    shows it the lines below the cursor; how it may go wrong, by talking or by going on too long, is what trimming and ranking are for.
    """
    possible = possible_strategies(control)
    is_codestral_mamba = {"codestral", "mamba"} <= set(name.lower().replace("/", "-").split("-")) or (
        control.inst,
        control.end_inst,
        control.prefix,
        control.middle,
        control.suffix,
    ) == MISTRAL_V3
    wanted = ("instruct", "plain") if is_codestral_mamba else ("spm", "instruct", "plain")
    return next(strategy for strategy in wanted if strategy in possible)


def words_of(control: ControlIds, strategy: str) -> Words:
    if strategy == "spm":
        return Words(("[PREFIX]", "[SUFFIX]"), (control.prefix, control.suffix))
    if strategy == "instruct":
        return Words(("[INST]", "[/INST]"), (control.inst, control.end_inst))
    return Words((), ())


def start_id(tokenizer: Tokenizer) -> int:
    """What every prompt begins with: <s>; where a model has none, what ended the text before in its training, else a line break."""
    control: Iterable[int | None] = (tokenizer.control.bos, tokenizer.control.eos)
    return next((i for i in control if i is not None and i >= 0), tokenizer.newline)


def header_ids(tokenizer: Tokenizer, path: str) -> list[int]:
    """The line that names a file."""
    name = path.replace("\n", " ")  # a file name may hold anything, a header is one line
    return tokenizer.encode(f"{HEADER_MARK}{name}\n")


def document_ids(tokenizer: Tokenizer, path: str, text: str) -> list[int]:
    """A whole file behind its header; it always ends with a newline."""
    return header_ids(tokenizer, path) + tokenizer.encode(text if text.endswith("\n") else text + "\n")


@dataclass(frozen=True, slots=True)
class HealedLine:
    """The start of the cursor's line, cut back to where the tokens of the whole line must agree with those of its start.

    `forced` are the bytes cut off: what is generated must begin with them.
    """

    ids: list[int]
    forced: bytes


def heal(tokenizer: Tokenizer, ids: list[int]) -> HealedLine:
    """Backs up over the last tokens of a line that a longer token could swallow, at most MAX_HEALED_TOKENS.

    A token that spans the cursor begins at or before the last token's start and begins with the bytes from there to the cursor. So the furthest start
    from which some longer token fits is where to back up to; none fits: nothing to heal.
    """
    tail = b""
    cut = len(ids)
    for back in range(1, min(MAX_HEALED_TOKENS, len(ids)) + 1):
        tail = tokenizer.pieces[ids[-back]] + tail
        if tokenizer.extends(tail):
            cut = len(ids) - back
    return HealedLine(ids=ids[:cut], forced=b"".join(tokenizer.pieces[i] for i in ids[cut:]))
