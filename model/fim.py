"""How a repository and a hole in a file are asked of the model, in token ids; and token healing.

    <s> {+++++ path \\n text}* +++++ path \\n head [SUFFIX] lines below [PREFIX] lines above, start of the line -> the rest </s>

The repository stands before [SUFFIX], so an edit below the cursor leaves it read; the prefix stands last, so typing only appends. The bundled model is
trained on exactly this (training/packing.py). Knows: the tokenizer. Does not know: where the texts come from, caches.
"""

from dataclasses import dataclass

from model.tokenizer import Tokenizer

LAYOUT_VERSION = b"spm-1"
HEADER_MARK = "+++++ "
MAX_HEALED_TOKENS = 6  # with 8192 pieces 0.4 % of cursors inside a line need more than 3, none of 23,707 more than 5


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
