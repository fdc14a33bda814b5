"""The cases of this folder's text files, read. Knows their format; knows nothing of how a suggestion is made.

    @@@ name of the case | option, option=value
    a buffer with ‸ for the cursor
    => what the model says, token by token
    == the ghost text
    >> the whole buffer after it was accepted

The name stands for the case in pytest: `pytest -k "rest of a return"`. What stands before the first `@@@` of a file is for people.

A part begins behind its mark and one space, and goes on in the lines below, up to the next mark: a text that begins with a line break has nothing behind its
mark. Blank lines before the next `@@@` belong to nobody. `!!` instead of `==` means that nothing is shown; a word behind it is the daemon's reason
(daemon.protocol.Report.empty_because). `>>` may be left out. Characters that cannot be seen may be written: ␠ a blank, ␉ a tab, ␊ a line break, ␍ a carriage
return, and ␄ at the very end of a part, to keep blanks and blank lines before it.
A buffer ends in a line break.

The ghost is what an editor draws: what is inserted, without what it replaces right of the cursor; where something is drawn on both sides of that, it stands
between ‹ and ›. A text in which more than a prefix is replaced is drawn as ⟪old→new⟫.

Options:
    lang=ID        an LSP language id; else the file's name says it, as javascript.txt does
    crlf           the buffer has \\r\\n line ends, and so has the one behind `>>`
    eof            the buffer ends where its last line does, without a line break
    max_lines=N    as the setting
    place=WHY      what context.place must say of the cursor
    open           only for a model that does not know where a gap ends; closed: only for one that does
    fenced         the model answers in a Markdown block of code, and does not know where a gap ends
    menu=TEXT      the menu's selected item, in place of what stands between ⟦ and the cursor, or ⟧ behind it
    tab_size=N, insert_spaces=yes|no    what the editor is set to
    xfail=REASON   what is expected is right, and is not so yet
    loose          brackets are not counted, as in prose
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
LANGUAGES = {"shell": "shellscript", "react": "typescriptreact"}  # where a file's name is not an LSP id
FLAGS = {"crlf", "eof", "open", "closed", "fenced", "loose"}
VALUES = {"lang", "max_lines", "place", "menu", "tab_size", "insert_spaces", "xfail"}
VISIBLE = str.maketrans({"␠": " ", "␉": "\t", "␊": "\n", "␍": "\r", "␄": None})
MARKS = ("=>", "==", "!!", ">>")
CURSOR, ITEM, ITEM_END = "‸", "⟦", "⟧"


class CaseError(Exception):
    """A file of cases has a mistake. One line: the file, the line and what was expected."""


@dataclass(frozen=True)
class Case:
    """Texts have \\n line ends unless they say otherwise; offsets are indices into `text`."""

    name: str
    file: str
    options: dict[str, str]
    text: str
    offset: int
    item: tuple[int, int] | None  # what the menu's item replaces
    said: str
    ghost: str  # "": nothing is shown
    reason: str  # why nothing is; "": for any reason
    after: str | None

    @property
    def language(self) -> str:
        stem = Path(self.file).stem
        return self.options.get("lang", LANGUAGES.get(stem, stem))

    @property
    def menu(self) -> str | None:
        return self.options.get("menu")

    def has(self, flag: str) -> bool:
        return flag in self.options

    def number(self, option: str, default: int) -> int:
        return int(self.options.get(option, default))


def all_cases() -> list[Case]:
    """Those of every text file here. Raises CaseError."""
    return [case for path in sorted(FOLDER.glob("*.txt")) for case in cases_of(path.read_text("utf-8"), path.name)]


def cases_of(source: str, file: str) -> list[Case]:
    """The cases of one file. Raises CaseError."""
    lines = source.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith("@@@ ")]
    cases = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        try:
            cases.append(_case(lines[start], lines[start + 1 : end], file))
        except ValueError as error:
            raise CaseError(f"{file}:{start + 1}: {error}") from None
    return cases


def _case(header: str, body: list[str], file: str) -> Case:
    name, _, options_text = header.removeprefix("@@@ ").partition(" | ")
    options = _options(options_text)
    parts = _parts(body)
    if "=>" not in parts or ("==" in parts) == ("!!" in parts):
        raise ValueError(f"found the parts {' '.join(parts)}, expected a buffer, => and one of == and !!")
    text = parts[""] if "eof" in options else parts[""] + "\n"
    if text.count(CURSOR) != 1:
        raise ValueError(f"found {text.count(CURSOR)} times {CURSOR} in the buffer, expected it once")
    if (ITEM in text) != ("menu" in options):
        raise ValueError(f"expected {ITEM} in the buffer where a menu's item is given, and nowhere else")
    start = text.replace(CURSOR, "").find(ITEM)
    text = text.replace(ITEM, "")
    offset = text.replace(ITEM_END, "").index(CURSOR)
    text = text.replace(CURSOR, "")
    end = text.index(ITEM_END) if ITEM_END in text else offset
    after = parts.get(">>")
    if after is not None and "eof" not in options:
        after += "\n"
    return Case(
        name=name.strip(),
        file=file,
        options=options,
        text=_ends(text.replace(ITEM_END, ""), options),
        offset=offset,
        item=(start, end) if start >= 0 else None,
        said=parts["=>"],
        ghost=parts.get("==", ""),
        reason=parts.get("!!", ""),
        after=after if after is None else _ends(after, options),
    )


def _options(text: str) -> dict[str, str]:
    options = {}
    for part in filter(None, text.strip().split(", ")):
        key, equals, value = part.partition("=")
        if key not in (VALUES if equals else FLAGS):
            raise ValueError(f"found the option {part}, expected one of {', '.join(sorted(FLAGS | VALUES))}")
        options[key] = value.translate(VISIBLE)
    return options


def _parts(body: list[str]) -> dict[str, str]:
    """By mark; the buffer has none."""
    parts: dict[str, list[str]] = {"": []}
    current = parts[""]
    for line in body:
        mark = line[:2]
        if mark in MARKS and line[2:3] in ("", " "):
            if mark in parts:
                raise ValueError(f"found {mark} twice, expected it once")
            current = parts[mark] = [line[3:]]
        else:
            current.append(line)
    while current and not current[-1]:
        current.pop()
    return {mark: "\n".join(lines).translate(VISIBLE) for mark, lines in parts.items()}


def _ends(text: str, options: dict[str, str]) -> str:
    """In a buffer with \\r\\n the offsets stay those of \\n: a document's `text` has them."""
    return text.replace("\n", "\r\n") if "crlf" in options else text
