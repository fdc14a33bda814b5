"""The signatures of a source file: what others need to know of it, in a tenth of its text. Knows syntax trees; does not know repositories, tokens or budgets.

An outline has classes with their members, functions with decorators, parameters and return types, types with their fields, constants, and the first line of
what documents each; bodies are `...`. What a language hides by its name or by `private` is left out. A tree with errors in it gives what could be read: C
with macros and half-typed files have no other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from context.grammars import Grammar, grammar_of, parse

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_SOURCE_BYTES = 300_000  # a repository has no larger files
MAX_CHARS = 24_000  # of an outline
_MAX_HEAD_CHARS = 800
_MAX_TYPE_LINES, _MAX_TYPE_CHARS = 40, 2000
_MAX_VALUE_LINES, _MAX_VALUE_CHARS = 4, 320
_MAX_LINE_CHARS = 160
_MAX_DEPTH = 8  # of containers
_MAX_LOOKS = 24  # through what is around declarations
_INDENT = "    "


class Item(NamedTuple):
    """One declaration outside of all others."""

    head: str  # up to its body: where its name stands
    text: str  # with its members and its documentation's first line, without a newline at the end


def outline(path: str, text: str) -> str | None:
    """The outline, ending in a newline; None: an unknown language, nothing declared, more than `MAX_SOURCE_BYTES`, or no way to parse it.

    Never raises, whatever the text is, and depends on nothing but the two. At most about `MAX_CHARS` long: what comes after is left out.
    """
    items = outline_items(path, text)
    return join(items) if items else None


def outline_items(path: str, text: str) -> tuple[Item, ...]:
    """The declarations of an outline in the order of the file; empty where `outline` has None."""
    grammar = grammar_of(path)
    source = text.encode("utf-8", errors="replace")
    if grammar is None or len(source) > MAX_SOURCE_BYTES:
        return ()
    # A usual file takes a step for 60 bytes or more; a limit keeps texts that are not in the language from taking seconds.
    root = parse(grammar, source, max_steps=1000 + len(source) // 40)
    if root is None:
        return ()
    outliner = _Outliner(grammar, source)
    items = outliner.members(root)
    about = outliner.docstring(root)
    return (Item("", about.rstrip()), *items) if about and items else tuple(items)


def join(items: Sequence[Item]) -> str:
    """The text of an outline; empty for no items."""
    return "".join(f"{item.text}\n" for item in items)


@dataclass(slots=True)
class _Outliner:
    grammar: Grammar
    source: bytes
    n_chars: int = 0  # written so far
    depth: int = 0
    n_looks: int = 0

    def members(self, parent: "Node", doc: str = "") -> list[Item]:
        """The declarations among the children of `parent`, each behind the first line of the comment right above it.

        `doc` is the one above `parent`, for where that is only looked through.
        """
        items: list[Item] = []
        comment, comment_end, last_end = doc, parent.start_point.row - 1 if doc else -2, -1
        for node in parent.named_children:
            if self.n_chars > MAX_CHARS:
                break
            row = node.start_point.row
            if "comment" in node.type:
                if row > comment_end + 1 or not comment:
                    comment = "" if row == last_end else self._first_comment_line(node)
                comment_end = node.end_point.row - (node.end_point.column == 0)
            elif node.type == "attribute_item":
                comment_end = node.end_point.row
            else:
                items += self._declared(node, start=node, doc=comment if row == comment_end + 1 else "")
                comment, last_end = "", node.end_point.row
        return items

    def _declared(self, node: "Node", *, start: "Node", doc: str) -> list[Item]:
        """What `node` declares; its text begins where `start` does."""
        grammar, kind = self.grammar, node.type
        if kind in grammar.wrappers:
            inner = next((child for child in reversed(node.named_children) if self._is_known(child)), None)
            decorators = [child for child in node.named_children if child.type == "decorator"]
            if inner is None:
                return []
            if grammar.closes or not decorators:
                return self._declared(inner, start=start, doc=doc)
            indent = _INDENT * self.depth
            above = "".join(f"{indent}{self._text(each, each, max_chars=_MAX_HEAD_CHARS)}\n" for each in decorators)
            return self._declared(inner, start=inner, doc=doc + above)
        if kind in grammar.functions:
            return self._item(start, node, doc=doc, is_container=False)
        if kind in grammar.containers:
            return self._item(start, node, doc=doc, is_container=True)
        if kind in grammar.types:
            return self._as_it_stands(start, node, doc=doc)
        if kind in grammar.values:
            return self._value(start, node, doc=doc)
        if kind in grammar.around or kind == "ERROR":
            return self._looked_through(node, doc)
        return []

    def _is_known(self, node: "Node") -> bool:
        grammar = self.grammar
        kinds = (grammar.functions, grammar.containers, grammar.types, grammar.values, grammar.wrappers, grammar.around)
        return any(node.type in kind for kind in kinds)

    def _looked_through(self, node: "Node", doc: str) -> list[Item]:
        if self.n_looks >= _MAX_LOOKS:
            return []
        self.n_looks += 1
        items = self.members(node, doc)
        self.n_looks -= 1
        return items

    def _item(self, start: "Node", node: "Node", *, doc: str, is_container: bool) -> list[Item]:
        body = self._body(node)
        head = self._text(start, node, end=body, max_chars=_MAX_HEAD_CHARS)
        if not head or re.match(self.grammar.hidden, head):
            return []
        if body is None:
            return [self._made(head, doc, "")]
        if not is_container:
            return [self._made(head, doc, self._cut(body))]
        if self.depth >= _MAX_DEPTH:
            return []
        self.depth += 1
        inside = self.docstring(body)
        inside += "".join(f"{member.text}\n" for member in self.members(body))
        self.depth -= 1
        opens = " {" if self.grammar.closes == "}" else ""
        closes = self.grammar.closes and f"\n{_INDENT * self.depth}{self.grammar.closes}"
        rest = f"{opens}\n{inside.rstrip()}{closes}" if inside else self._cut(body)
        return [self._made(head, doc, rest)]

    def _cut(self, body: "Node") -> str:
        """What stands for a body."""
        if self.grammar.closes == "}":
            found = re.match(rb"=>?|\{", self._bytes(body.start_byte, body.start_byte + 2))
            mark = found.group().decode() if found else ""
            return self.grammar.cut if mark == "{" else f" {mark} ...".replace("  ", " ")
        self.depth += 1
        doc = self.docstring(body)
        rest = f"\n{doc}{_INDENT * self.depth}..." if doc else self.grammar.cut
        self.depth -= 1
        return rest

    def _as_it_stands(self, start: "Node", node: "Node", *, doc: str) -> list[Item]:
        text = self._text(start, node, max_chars=_MAX_TYPE_CHARS)
        lines = text.split("\n")
        if len(lines) > _MAX_TYPE_LINES:
            text = "\n".join([*lines[:_MAX_TYPE_LINES], f"{_INDENT * (self.depth + 1)}..."])
        return [self._made(text, doc, "")] if text and not re.match(self.grammar.hidden, text) else []

    def _value(self, start: "Node", node: "Node", *, doc: str) -> list[Item]:
        function = self._function_inside(node)
        if function is not None:
            body = self._body(function)
            head = self._text(start, function, end=body, max_chars=_MAX_HEAD_CHARS)
            return [self._made(head, doc, self._cut(body) if body else "")] if head else []
        own = self._text(node, node, max_chars=_MAX_LINE_CHARS + 1)
        is_wanted = self.depth > 0 or re.match(self.grammar.wanted, own)
        if not own or not is_wanted or re.match(self.grammar.hidden, own):
            return []
        text = self._text(start, node, max_chars=_MAX_VALUE_CHARS + 1)
        if len(text) > _MAX_VALUE_CHARS or text.count("\n") >= _MAX_VALUE_LINES:
            text = text.partition("\n")[0][:_MAX_LINE_CHARS] + " ..."
        return [self._made(text, doc, "")]

    def _function_inside(self, node: "Node") -> "Node | None":
        """The function that a name is given, as in `const f = (a) => { ... }`."""
        holder = next((child for child in node.named_children if child.type == "variable_declarator"), node)
        value = holder.child_by_field_name("value") or holder.child_by_field_name("right")
        return value if value is not None and value.type in self.grammar.functions else None

    def _body(self, node: "Node") -> "Node | None":
        body = node.child_by_field_name("body")
        return body or next((child for child in node.named_children if child.type in self.grammar.bodies), None)

    def _made(self, head: str, doc: str, rest: str) -> Item:
        indent = _INDENT * self.depth
        text = f"{doc}{indent}{head}{rest}"
        self.n_chars += len(text) if self.depth == 0 or not rest.count("\n") else len(head)
        return Item(head, text)

    def docstring(self, body: "Node") -> str:
        """Python's; of other languages the comment above is taken."""
        first = _first(body) if self.grammar.closes == "" else None
        string = _first(first) if first is not None and first.type == "expression_statement" else None
        if string is None or string.type != "string":
            return ""
        text = re.sub(
            r"^\w*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$", "", self._decoded(string.start_byte, string.end_byte)
        )
        line = text.strip().partition("\n")[0].rstrip("\\ \"'")[:_MAX_LINE_CHARS]
        return f'{_INDENT * self.depth}"""{line}"""\n' if line and '"""' not in line else ""

    def _first_comment_line(self, node: "Node") -> str:
        text = self._decoded(node.start_byte, min(node.end_byte, node.start_byte + 1000))
        lines = (
            re.sub(r"^\s*(?:/\*[*!]*|\*(?!/)|//[/!]*|#+|--)|\*/\s*$", "", line).strip() for line in text.split("\n")
        )
        line = next((line for line in lines if re.search(r"\w", line)), "")[:_MAX_LINE_CHARS]
        return self._indented(f"{self.grammar.comment} {line}") if line else ""

    def _indented(self, text: str) -> str:
        return "".join(f"{_INDENT * self.depth}{line.strip()}\n" for line in text.splitlines() if line.strip())

    def _text(self, start: "Node", node: "Node", *, end: "Node | None" = None, max_chars: int) -> str:
        """From the beginning of `start` to the end of `node` or the beginning of `end`, its lines indented for where they will stand."""
        first, last = start.start_byte, node.end_byte if end is None else end.start_byte
        text = self._decoded(first, min(last, first + 4 * max_chars))[:max_chars].rstrip()
        line_start = self.source.rfind(b"\n", max(0, first - 200), first) + 1
        before = self._decoded(line_start, first)
        own = before if before.isspace() else ""
        return text.replace(f"\n{own}", f"\n{_INDENT * self.depth}") if "\n" in text else text

    def _decoded(self, first: int, last: int) -> str:
        return self._bytes(first, last).decode("utf-8", errors="ignore")

    def _bytes(self, first: int, last: int) -> bytes:
        return self.source[first:last]


def _first(node: "Node") -> "Node | None":
    return node.named_child(0) if node.named_child_count else None
