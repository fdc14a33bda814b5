"""Whether a text still parses once something stands in it, so that of two suggestions the one that breaks nothing can come first.

What somebody is typing does not parse, so "parsed before" has to be said with care:

- A text is as good as its better half: as it stands, or with the cursor's line blank, which is the file as it was before that line was begun. The fewer
  errors of the two are what it had before.
- An insertion may begin what the lines to come will end: `for (...) {`, `call(`, a comment, Ruby's `do`, a decorator. It has the fewest errors of: as it
  stands; with what the inserted text left open closed behind it, as it could be; with what the whole line left open closed at the line's end.
- What goes on with a string or comment of several lines and does not end it breaks nothing.
- It *breaks* the text if it has more errors after than before.

An error is what tree-sitter says it is: a part that fits nowhere, or a token that had to be made up. Knows syntax trees; does not know suggestions, models.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from context.families import family_of
from context.grammars import Grammar, grammar_of, parse_tree
from context.lexing import inside

if TYPE_CHECKING:
    from tree_sitter import Tree

MAX_SOURCE_BYTES = 300_000  # as for outlines: what takes longer than a tenth of a second to parse is not ranked
# Languages as editors name them (Language Server Protocol, TextDocumentItem.languageId) -> an ending of such a file's name.
_ENDS = {
    "python": "py",
    "javascript": "js",
    "javascriptreact": "jsx",
    "typescript": "ts",
    "typescriptreact": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "kotlin": "kt",
    "csharp": "cs",
    "php": "php",
    "ruby": "rb",
    "c": "h",  # C++'s grammar: it reads C as well, and a header that an editor calls C may be either
    "cpp": "cpp",
    "cuda-cpp": "cu",
    "cuda": "cu",
}
_SOMETHING = "x"  # `return ()` is nothing in most languages, and neither is `call(a,)`
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_MULTI = {'"""': '"""', "'''": "'''", "/*": "*/", "`": "`"}  # strings and comments of several lines
_TAG = re.compile(r"(?<![\w)\]])<(?P<begins>[A-Za-z][\w.]*)?(?:\s[^<>]*)?(?<![/=])>|</(?P<ends>[A-Za-z][\w.]*)?>")
_WITH_SEMICOLONS = ("c", "cpp", "csharp", "cuda", "cuda-cpp", "java", "php", "rust")  # that end every statement
# What a line may need below it: Ruby's blocks their end, a decorator what it decorates.
_BELOW = {"ruby": "end", "python": "def x(): pass", "typescript": "class X {}", "javascript": "class X {}"}
_WITH_TAGS = ("javascript", "javascriptreact", "typescriptreact")


def n_errors(text: str, language: str) -> int | None:
    """Errors in a whole text; None: there is no grammar for this language, or the text is too large or too odd to parse. Never raises."""
    parsed = Parsed(text, language)
    return parsed.n_errors


def breaks(text: str, offset: int, inserted: str, *, replaces: int, language: str) -> bool | None:
    """Whether `text` has more errors once `inserted` stands at `offset` in place of `replaces` characters. None: as for `n_errors`.

    For several insertions into one text keep a Parsed: the second and third cost next to nothing.
    """
    return Parsed(text, language).breaks(offset, inserted, replaces=replaces)


class Parsed:
    """A text that was parsed once. What is inserted is parsed with the parts of it that stay as they are. For one thread at a time."""

    def __init__(self, text: str, language: str) -> None:
        """`language`: an LSP languageId. `text`: with any line ends."""
        self._text = text
        self._language = language
        self._source = _bytes(text)
        self._grammar = grammar_of(f".{_ENDS.get(language, '')}")
        self._tree: Tree | None = None
        if self._grammar is not None and len(self._source) <= MAX_SOURCE_BYTES:
            self._tree = _parse(self._grammar, self._source)
        self.n_errors = None if self._tree is None else _errors_in(self._tree)
        self._before: dict[int, int | None] = {}  # by the start of the cursor's line: errors with that line blank

    def breaks(self, offset: int, inserted: str, *, replaces: int) -> bool | None:
        """Whether there are more errors once `inserted` stands at `offset` in place of `replaces` characters."""
        if self.n_errors is None:
            return None
        if self._is_prose(offset, inserted):
            return False
        before = self._errors_before(offset)
        for text, end in self._endings(offset, inserted, replaces=replaces):
            after = self._errors_with(offset, end, text)
            if before is None or after is None:
                return None
            if after <= before:
                return False
        return True

    def _is_prose(self, offset: int, inserted: str) -> bool:
        """Whether it goes on with a string or comment of several lines and does not end it. If nothing ends that yet, it would be read as code."""
        found = inside(self._text, offset, family_of(self._language))
        return found.kind != "code" and found.is_multi and not any(end in inserted for end in _MULTI.values())

    def _errors_before(self, offset: int) -> int | None:
        """The fewer of those of the text as it stands and with the cursor's line blank."""
        assert self.n_errors is not None
        if self.n_errors == 0:
            return 0
        start, end = _line_around(self._text, offset)
        if start not in self._before:
            blank = self._errors_with(start, end, "")
            self._before[start] = None if blank is None else min(self.n_errors, blank)
        return self._before[start]

    def _endings(self, offset: int, inserted: str, *, replaces: int) -> Iterator[tuple[str, int]]:
        """What may be meant by the insertion, as texts to put at `offset` and the ends of what they stand in place of."""
        end = offset + replaces
        yield inserted, end
        fillers = ["", f" {_SOMETHING}"] if inserted.rstrip().endswith(("(", ",")) else [""]
        stops = ["", ";"] if self._language in _WITH_SEMICOLONS else [""]
        closed = _left_open(inserted, self._language)
        if closed:
            yield from ((f"{inserted}{filler}{closed}{stop}", end) for filler in fillers for stop in stops)
        start, line_end = _line_around(self._text, offset)
        typed, rest = self._text[start:offset], self._text[end:line_end]
        also = _left_open(typed + inserted + closed + rest, self._language)
        if also:
            lines = (f"{inserted}{filler}{closed}{rest}{also}" for filler in fillers)
            yield from ((line + stop, line_end) for line in lines for stop in stops)
        below = _BELOW.get(self._language, "")
        if below == "end" or (below and (typed + inserted).lstrip().startswith("@")):
            yield f"{inserted}{closed}{rest}{also}\n{_indent(typed + inserted)}{below}", line_end

    def _errors_with(self, start: int, end: int, text: str) -> int | None:
        """Errors with `text` from `start` to `end`, both in characters."""
        assert self._tree is not None and self._grammar is not None
        source, new = self._source, _bytes(text)
        first = len(_bytes(self._text[:start]))
        last = first + len(_bytes(self._text[start:end]))
        changed = source[:first] + new + source[last:]
        tree = self._tree.copy()
        tree.edit(
            first,
            last,
            first + len(new),
            _point(source, first),
            _point(source, last),
            _point(changed, first + len(new)),
        )
        after = _parse(self._grammar, changed, since=tree)
        return None if after is None else _errors_in(after)


def _parse(grammar: Grammar, source: bytes, *, since: "Tree | None" = None) -> "Tree | None":
    # As many steps as an outline may take: a text that is not in the language at all could take seconds.
    return parse_tree(grammar, source, max_steps=1000 + len(source) // 40, since=since)


def _errors_in(tree: "Tree") -> int:
    count, waiting = 0, [tree.root_node]
    while waiting:
        node = waiting.pop()
        count += node.is_error or node.is_missing
        if node.has_error:
            waiting += node.children
    return count


def _left_open(text: str, language: str) -> str:
    """What closes the strings, comments, tags and brackets that `text` leaves open."""
    found = inside(text, len(text), family_of(language))
    closers = "".join(_CLOSES[bracket] for bracket, _ in reversed(found.brackets))
    if found.kind != "code":
        opened = text[found.start :]
        return next((end for start, end in _MULTI.items() if opened.startswith(start)), "") + closers
    tags: list[str] = []
    for match in _TAG.finditer(text) if language in _WITH_TAGS else ():
        if not match[0].startswith("</"):
            tags.append(match["begins"] or "")
        elif (match["ends"] or "") in tags:
            while tags.pop() != (match["ends"] or ""):
                continue
    return "".join(f"</{tag}>" for tag in reversed(tags)) + closers


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _line_around(text: str, offset: int) -> tuple[int, int]:
    """Where the line of `offset` begins, and where it ends before its line break."""
    start = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    ends = [at for at in (text.find("\r", offset), text.find("\n", offset)) if at >= 0]
    return start, min(ends, default=len(text))


def _point(source: bytes, at: int) -> tuple[int, int]:
    """Row and column, in bytes."""
    return source.count(b"\n", 0, at), at - (source.rfind(b"\n", 0, at) + 1)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")
