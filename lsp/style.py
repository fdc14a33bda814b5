"""Indentation as the document has it: tabs or spaces, and how many.

Knows lines and languages; knows no editors, positions or models.

A model has read other files too, and may indent as they do. Only the kind of indentation is put right, tabs or spaces. How deep a line stands is the
model's to say, and widths stay as they are.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

CLEAR = 0.9  # share of the indented lines that must agree, for a document to have a style of its own
LINES_LOOKED_AT = 1000  # around the cursor, so that a key costs the same in any document
WIDTHS = (4, 2, 3)  # of one step, when nothing says how wide it is; the most common first
BLANKS = " \t"

# Where the other kind of indentation is an error or means something else, whatever an editor is set to.
NEVER_TABS = frozenset({"yaml", "dockercompose", "github-actions-workflow", "haskell", "elm", "fsharp"})
NEVER_SPACES = frozenset({"makefile", "go"})


@dataclass(frozen=True, slots=True)
class Style:
    """LSP's FormattingOptions, as an editor sends them or a document shows them."""

    insert_spaces: bool
    tab_size: int = 4  # columns of a tab, and spaces of one step of indentation


def style_of(lines: Sequence[str], *, row: int = 0) -> Style | None:
    """What the indented lines around `row` agree on; None when there are none, or they do not."""
    first = max(0, row - LINES_LOOKED_AT // 2)
    leads = [lead for lead in map(_evidence, lines[first : first + LINES_LOOKED_AT]) if lead]
    tabbed = sum(lead[0] == "\t" for lead in leads)
    if not leads or CLEAR > tabbed / len(leads) > 1 - CLEAR:
        return None
    if tabbed > len(leads) / 2:
        return Style(insert_spaces=False)
    return Style(insert_spaces=True, tab_size=_step([len(lead) for lead in leads]))


def styled(text: str, *, lines: Sequence[str], row: int, language: str, editor: Style | None, is_first: bool) -> str:
    """`text`, with \\n line ends, indented by what the document's lines are indented by.

    `editor`: what the editor is set to, for a document that does not show it. `is_first`: the first line's indentation is the text's too, since
    nothing else stands before the cursor.
    """
    if not any(lead for lead in _leads(text, is_first=is_first)):
        return text  # as most are, without a look at the document
    style = style_of(lines, row=row) or editor
    if style is None:
        return text
    if style.insert_spaces:
        return text if language in NEVER_SPACES else _with_spaces(text, style.tab_size, is_first=is_first)
    if language in NEVER_TABS:
        return text
    # A document of tabs does not say how wide its tabs are; the editor may.
    return _with_tabs(text, editor.tab_size if editor is not None else None, is_first=is_first)


def lead_of(line: str) -> str:
    """The tabs and spaces that a line begins with."""
    return line[: len(line) - len(line.lstrip(BLANKS))]


def _evidence(line: str) -> str:
    """The indentation that tells a document's style; "" of lines that tell nothing: blank ones, and the inner lines of a /* comment."""
    lead = lead_of(line)
    body = line[len(lead) :].rstrip()
    if not body or lead == " " or (body[0] == "*" and len(lead) % 2):
        return ""
    return lead


def _step(widths: list[int]) -> int:
    """How much deeper a line mostly stands than the line above it."""
    steps = Counter(
        after - before for before, after in zip([0, *widths], widths, strict=False) if 2 <= after - before <= 8
    )
    return steps.most_common(1)[0][0] if steps else WIDTHS[0]


def _leads(text: str, *, is_first: bool) -> Iterator[str]:
    lines = text.split("\n")
    yield from (lead_of(line) for line in (lines if is_first else lines[1:]))


def _with_spaces(text: str, width: int, *, is_first: bool) -> str:
    return _relaid(text, lambda lead: lead.expandtabs(width) if "\t" in lead else lead, is_first=is_first)


def _with_tabs(text: str, tab_size: int | None, *, is_first: bool) -> str:
    spaces = [len(lead) for lead in _leads(text, is_first=is_first) if lead.startswith("  ")]
    common = math.gcd(*spaces)
    sizes = (tab_size, *WIDTHS) if tab_size else WIDTHS
    width = next((size for size in sizes if common % size == 0), tab_size or WIDTHS[0])

    def relaid(lead: str) -> str:
        if not lead.startswith("  "):
            return lead
        columns = len(lead.expandtabs(width))
        return "\t" * (columns // width) + " " * (columns % width)

    return _relaid(text, relaid, is_first=is_first)


def _relaid(text: str, relaid: Callable[[str], str], *, is_first: bool) -> str:
    first, *others = text.split("\n")
    lines = [relaid(lead := lead_of(line)) + line[len(lead) :] for line in others]
    if is_first:
        lead = lead_of(first)
        first = relaid(lead) + first[len(lead) :]
    return "\n".join([first, *lines])
