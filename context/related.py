"""What a file imports, as outlines to be read right before it. Knows outlines and a budget; does not know how imports are found, the disk, git or LSP.

The outlines are part of the chain in front of the file, so whatever changes them makes the model read them again: they depend on the file's import lines and
on what the imported files declare, and on nothing else that is typed.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from context.imports import distance, imported
from context.outline import Item, outline_items
from context.plan import estimate_tokens
from context.repository import SourceFile

MAX_TOKENS = 1000
_KEPT_OUTLINES = 256  # a few files' imports; made anew when a text has changed
_NEWLINE_TOKENS = 1
_MIN_CUT_TOKENS = 100  # a declaration cut to less says nothing
_CUT = "    ..."


def related(
    path: str, text: str, files: Mapping[str, SourceFile], *, max_tokens: int = MAX_TOKENS, bytes_per_token: float
) -> list[SourceFile]:
    """Outlines of files that `path`, whose text is `text`, imports: the most telling last, since a recurrent state remembers that best.

    `files` are the workspace's, by path, relative with forward slashes like `path`. Most telling is the file of which most names are imported, of
    equals the one whose folder is nearest. First come the names that are imported, of each file; then, as long as there is room, what else the files declare.
    One file's turn may take half of the room that there is, so that the first does not take it all.
    """
    names_of = imported(path, text, files)
    order = sorted(names_of, key=lambda target: (-max(1, len(names_of[target])), distance(path, target), target))
    items = {target: _items(target, files[target].text) for target in order}
    kept: dict[str, dict[int, str]] = {target: {} for target in order}
    left = float(max_tokens)
    for is_second in (False, True):
        for n, target in enumerate(order):
            room = left if n == len(order) - 1 else left / 2
            names = None if is_second else frozenset(names_of[target])
            left -= _add(kept[target], target, items[target], names=names, room=room, bytes_per_token=bytes_per_token)
    briefs = {target: "".join(f"{text}\n" for _, text in sorted(kept[target].items())) for target in reversed(order)}
    return [SourceFile(target, brief) for target, brief in briefs.items() if brief]


@lru_cache(maxsize=_KEPT_OUTLINES)
def _items(path: str, text: str) -> tuple[Item, ...]:
    return outline_items(path, text)


def _add(
    kept: dict[int, str],
    path: str,
    items: Sequence[Item],
    *,
    names: frozenset[str] | None,
    room: float,
    bytes_per_token: float,
) -> float:
    """Adds to `kept`, by number, those items that have one of `names` (None: of all) and fit into `room` tokens; returns the tokens that they take.

    When not even the first one fits, it is cut at a line's end.
    """
    used = 0.0
    for n, item in enumerate(items):
        if n in kept or not (names is None or names & set(re.findall(r"\w+", item.head))):
            continue
        header = 0 if kept else estimate_tokens(SourceFile(path, ""), bytes_per_token=bytes_per_token)
        text = item.text
        if not used and room - header >= _MIN_CUT_TOKENS:
            text = _cut(text, max_bytes=int((room - header - _NEWLINE_TOKENS) * bytes_per_token))
        cost = header + len(text.encode()) / bytes_per_token + _NEWLINE_TOKENS
        if used + cost <= room:
            used += cost
            kept[n] = text
    return used


def _cut(text: str, *, max_bytes: int) -> str:
    """As many lines as fit, with a mark for those that do not."""
    if len(text.encode()) <= max_bytes:
        return text
    lines: list[str] = []
    left = max_bytes - len(_CUT)
    for line in text.split("\n"):
        left -= len(line.encode()) + 1
        if left < 0:
            break
        lines.append(line)
    return "\n".join([*lines, _CUT])
