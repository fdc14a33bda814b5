"""Ignore rules such as those of `.gitignore`, at every level of a folder tree.

Knows the syntax and where such files lie; does not know git, or which files are wanted.

pathspec translates the patterns. Who wins is decided here, one entry at a time, since git judges an entry by itself and
never looks into an ignored folder: the last fitting rule of the deepest file that has one. (`GitIgnoreSpec` as a whole
judges a path together with its folders, and so ignores everything under the usual `*`, `!*/`, `!*.py`.)
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from context.disk import Unfit, load_bytes

_MAX_BYTES = 1_000_000
_POSIX_CLASSES = {
    "[:alpha:]": "a-zA-Z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:space:]": r" \t",
    "[:xdigit:]": "0-9a-fA-F",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    negated: bool
    folders_only: bool
    pattern: re.Pattern[str] | None  # of a whole path, relative to the rule's folder; None: fits everything


@dataclass(frozen=True, slots=True)
class _Level:
    """The rules of one file, the last first."""

    folder: str  # "" or with a "/" at the end, relative to the top
    rules: tuple[_Rule, ...]


class Rules:
    """The rule files of `top` and the folders below it, read when first asked about. Paths are relative to `top`.

    `names` are the names of rule files in a folder; the first wins over the second. One that is there and cannot be
    read (a link, a folder, not permitted) has no rules, as for git; with `strict` it hides its whole folder.
    """

    def __init__(self, top: Path, *names: str, strict: bool = False) -> None:
        self._top = top
        self._names = names
        self._strict = strict
        self._levels: dict[str, tuple[_Level, ...]] = {}
        self._whole_folders: dict[str, bool] = {"": False}

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Whether a rule ignores this very entry. Its folders are not asked about."""
        for level in self._levels_of(_folder(path)):
            relative = path[len(level.folder) :]
            for rule in level.rules:
                if (is_folder or not rule.folders_only) and (rule.pattern is None or rule.pattern.fullmatch(relative)):
                    return not rule.negated
        return False

    def ignores_within(self, path: str) -> bool:
        """Whether a rule ignores this file or a folder that it is in."""
        return self.ignores_folder(_folder(path)) or self.ignores(path, is_folder=False)

    def ignores_folder(self, folder: str) -> bool:
        """Whether a rule ignores this folder or one that it is in. "" is the top itself, which nothing ignores."""
        # A loop, since folders can be nested deeper than Python calls.
        for place in _unknown(folder, self._whole_folders):
            outer = self._whole_folders[_folder(place)]
            self._whole_folders[place] = outer or self.ignores(place, is_folder=True)
        return self._whole_folders[folder]

    def _levels_of(self, folder: str) -> tuple[_Level, ...]:
        """The deepest first."""
        for place in _unknown(folder, self._levels):
            files = [self._top / place / name for name in self._names]
            levels = [_read_level(file, folder=place and place + "/", strict=self._strict) for file in files]
            outer = self._levels[_folder(place)] if place else ()
            self._levels[place] = (*(level for level in levels if level.rules), *outer)
        return self._levels[folder]


def _unknown(folder: str, known: Mapping[str, object]) -> list[str]:
    """Of a folder and those that it is in, the ones that are not known yet, the outermost first."""
    unknown: list[str] = []
    while folder not in known:
        unknown.append(folder)
        if not folder:
            break
        folder = _folder(folder)
    return unknown[::-1]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _read_level(file: Path, *, folder: str, strict: bool) -> _Level:
    if not os.path.lexists(file):
        return _Level(folder, ())
    try:
        # File names that are not UTF-8 come with surrogates, so the patterns must come in the same way.
        text = load_bytes(file, max_bytes=_MAX_BYTES).decode("utf-8", errors="surrogateescape")
    except Unfit:
        return _Level(folder, (_Rule(negated=False, folders_only=False, pattern=None),) if strict else ())
    rules = (_parse(line) for line in reversed(text.removeprefix("\ufeff").split("\n")))
    return _Level(folder, tuple(rule for rule in rules if rule))


def _parse(line: str) -> _Rule | None:
    """None: a comment, a blank line, or what neither git nor pathspec takes for a pattern."""
    if line.startswith("#"):
        return None
    pattern = re.sub(r"(?<!\\) +$", "", line.removesuffix("\r"))
    negated = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    if pattern in ("*", "**", "/**"):
        return _Rule(negated, folders_only, None)
    if pattern.endswith("/**"):
        pattern += "/*"  # pathspec's form of it fits by its beginning; here a rule must fit the entry as a whole
    if negated and pattern.startswith(("!", "#")):
        pattern = "\\" + pattern
    for name, characters in _POSIX_CLASSES.items():
        pattern = pattern.replace(name, characters)
    try:
        compiled = GitIgnoreSpec.from_lines([pattern]).patterns[0].regex
    except (ValueError, re.error):  # pathspec's word for a pattern such as "\", which git lets fit nothing
        return None
    return _Rule(negated, folders_only, compiled) if compiled else None
