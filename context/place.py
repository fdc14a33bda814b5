"""What stands around a cursor, and so how much may be suggested there: one line, or several.

Several lines where a block begins or is empty, on a blank line inside a block, and in a comment or docstring that goes on; one line everywhere else. It
reads the text only as far as comments, strings, brackets, indentation and the words that open blocks go.
Knows: text, LSP's names of languages. Does not know: editors, models, settings.
"""

import re
from typing import NamedTuple

from context.families import LANGUAGE_BY_END, LANGUAGE_BY_NAME, LISPS, PROSE_LANGUAGES, family_of
from context.lexing import Inside, inside

CLOSERS = re.compile(r"[\s)\]}>\"'`,;:]*")  # right of the cursor, these do not keep a line from ending here
TAB_SIZE = 4
MAX_BLANK = 200  # lines that are looked at to find the next one with something in it

COLON_LANGUAGES = frozenset(
    [
        "python",
        "cython",
        "starlark",
        "bazel",
        "gdscript",
        "nim",
        "mojo",
        "yaml",
        "dockercompose",
        "github-actions-workflow",
    ]
)
_WORDS = {
    "ruby crystal": r"\b(?:do|then|begin|else|ensure)$|\bdo *\|[^|]*\|$"
    r"|^\s*(?:def|class|module|if|elsif|unless|while|until|case|when|for|rescue)\b(?!.*\bend$)",
    "lua luau": r"\b(?:do|then|else|repeat)$|\bfunction\b[^()]*\([^()]*\)$",
    "shellscript sh bash zsh": r"(?:\{|\b(?:do|then|else|in))$",
    "fish": r"^\s*(?:if|for|while|function|switch|case|begin|else)\b",
    "elixir": r"(?:\bdo|->|\belse|\brescue|\bafter)$",
    "julia": r"\b(?:do|else|begin|try|catch|finally)$|^\s*(?:if|for|while|function|struct|module|elseif|let|macro|mutable)\b(?!.*\bend$)",
    "haskell elm purescript idris": r"(?:\b(?:where|do|of|let|then|else)|=|->)$",
    "ocaml fsharp": r"(?:=|->|\b(?:begin|do|then|else|struct|sig|with|function))$",
    "sql plsql mysql postgres sqlite": r"(?i:\b(?:begin|as|then|loop|else|select|from|where|values|set))$",
    "pascal ada vhdl verilog systemverilog": r"(?i:\b(?:begin|then|else|do|is|loop|repeat|record|of))$",
    "matlab octave fortran": r"^\s*(?i:if|for|while|function|switch|case|else|elseif|do|subroutine|module|program)\b",
    "vb vbscript": r"(?i:\bthen|\belse|\bdo)$|^\s*(?i:sub|function|for|while|class|if|public sub|private sub)\b",
    "vim viml": r"^\s*(?:function!?|if|for|while|try|else|elseif|augroup)\b",
    "html xml vue svelte astro xsl svg handlebars": r"<[A-Za-z][^<>]*(?<!/)>$|\{$",
    "erlang": r"(?:->|\bof|\bbegin)$",
    "makefile": r"^[^\s#=][^=]*:[^=]*$",
    "pug coffeescript": r"(?:->|=>)$",
}
_BRACES = r"(?:\{|=>|\bdo)$|\bcase\b.*:$|\bdefault *:$|^\s*(?:public|private|protected) *:$"
_OPENERS = {language: re.compile(words) for languages, words in _WORDS.items() for language in languages.split()}
_COLON, _OTHER = re.compile(r":$"), re.compile(_BRACES)
_LAMBDA = re.compile(r"[{)] *\w*(?:, *\w+)* *->$")  # its parameters, in Kotlin and Java
_DOCSTRING = re.compile(r"\s*[rRuU]?")


class Place(NamedTuple):
    """`kind`: "code", "comment" (a docstring is one) or "string". `is_multi`: several lines may be suggested.

    `why`: "rest_of_line" and "mid_word" (text stands right of the cursor), "comment", "string", "arguments" (in round or square brackets), "line_end" (behind
    a statement), "block_start" and "empty_body" (behind what opens a block, with something in it or nothing), "blank_line" (inside a block), "top_level" (a
    blank line outside of blocks), "prose".
    """

    kind: str
    is_multi: bool
    why: str


def place_of(text: str, offset: int, *, language: str) -> Place:
    """What is at `offset` of `text`, whose lines end in \\n. `language`: an LSP `languageId`; of an unknown one what is so in most languages."""
    language = language.lower()
    found = inside(text, offset, family_of(language))
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    before, rest = text[start:offset], text[offset : end if end >= 0 else len(text)]
    is_docstring = found.kind == "string" and _is_docstring(text, found, language)
    kind = "comment" if is_docstring else found.kind
    if rest and (rest[0].isalnum() or rest[0] == "_"):
        return Place(kind, False, "mid_word")
    if not CLOSERS.fullmatch(rest) and not (kind == "comment" and found.is_multi and _ends_comment(rest)):
        return Place(kind, False, "rest_of_line")
    if kind == "comment":
        return Place(kind, found.is_multi, "comment")
    if kind == "string":
        return Place(kind, False, "string")
    if language in PROSE_LANGUAGES:
        return Place(kind, False, "prose")
    is_listed = language not in LISPS and bool(found.brackets) and found.brackets[-1][0] in "(["
    if before.strip():
        # In brackets a colon belongs to a slice or to a dictionary.
        is_colon = language in COLON_LANGUAGES and bool(found.brackets)
        if not is_colon and _opens(before, language) and _is_in_block(rest, before):
            return Place(kind, True, _why_block(text, end, before, rest))
        return Place(kind, False, "arguments" if is_listed else "line_end")
    if is_listed:
        return Place(kind, False, "arguments")
    return _blank(text, start, end, before, rest, language=language)


def language_of(path: str) -> str:
    """The LSP `languageId` by the end of a file's name; "" where that is unknown."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    if name in LANGUAGE_BY_NAME:
        return LANGUAGE_BY_NAME[name]
    return LANGUAGE_BY_END.get(name.rpartition(".")[2], "") if "." in name else ""


def indentation(line: str) -> int:
    """Columns of white space at its start."""
    expanded = line[: len(line) - len(line.lstrip())].expandtabs(TAB_SIZE)
    return len(expanded)


def _blank(text: str, start: int, end: int, before: str, rest: str, *, language: str) -> Place:
    """A line with nothing before the cursor."""
    above, below = _line_above(text, start), _line_below(text, end)
    if _opens(above.rstrip(), language):
        return Place("code", True, "empty_body" if _is_empty(above, rest or below) else "block_start")
    if rest.strip() and language not in LISPS:
        return Place("code", False, "line_end")
    # Someone who has typed or been given less indentation than the line above has left its block.
    if indentation(before) > 0 or (not before and above[:1].isspace() and below[:1].isspace()):
        return Place("code", True, "blank_line")
    return Place("code", False, "top_level")


def _opens(line: str, language: str) -> bool:
    """Whether what is indented more may follow a line."""
    line = line.rstrip()
    if language in COLON_LANGUAGES:
        return _COLON.search(line) is not None
    pattern = _OPENERS.get(language)
    if pattern is not None and pattern.search(line) is not None:
        return True
    return _OTHER.search(line) is not None or _LAMBDA.search(line) is not None


def _is_in_block(rest: str, before: str) -> bool:
    """Whether a block can begin between an opener and `rest`, which has closers only: behind a brace its own closer may stand."""
    rest = rest.strip()
    return not rest or (rest[0] == "}" and before.rstrip().endswith(("{", "->")))


def _why_block(text: str, end: int, before: str, rest: str) -> str:
    return "empty_body" if _is_empty(before, rest if rest.strip() else _line_below(text, end)) else "block_start"


def _is_empty(opener: str, below: str) -> bool:
    """Whether nothing stands in the block of a line yet: what is below is not indented more, or closes it at once."""
    return indentation(below) <= indentation(opener) or not below.strip()


def _is_docstring(text: str, found: Inside, language: str) -> bool:
    """Whether a string of several lines says something about the code: it begins a line, and not as an argument."""
    if not found.is_multi or found.brackets or language not in ("python", "cython", "starlark", "elixir", "julia"):
        return False
    line = text[text.rfind("\n", 0, found.start) + 1 : found.start]
    return _DOCSTRING.fullmatch(line) is not None or (language == "elixir" and line.strip().startswith("@"))


def _ends_comment(rest: str) -> bool:
    """Whether nothing but the end of a comment stands there."""
    return rest.strip() in ("*/", "-->", "-}", "*)", "]]", "|#", "#>", "=#", "**/")


def _line_above(text: str, start: int) -> str:
    """The nearest line above with something in it."""
    end = start - 1
    for _ in range(MAX_BLANK):
        if end < 0:
            break
        at = text.rfind("\n", 0, end) + 1
        if line := text[at:end].strip():
            return text[at:end] if line else ""
        end = at - 1
    return ""


def _line_below(text: str, end: int) -> str:
    """The nearest line below with something in it. `end`: of the line above it; -1 where that is the last."""
    for _ in range(MAX_BLANK):
        if end < 0:
            break
        after = text.find("\n", end + 1)
        line = text[end + 1 : after if after >= 0 else len(text)]
        if line.strip():
            return line
        end = after
    return ""
