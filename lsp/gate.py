"""When nothing is suggested, and why not, in a few words for people.

Knows settings, documents and cursors; asks no model and reads no file. Secrets are judged where texts are sent (`completion`), the pause is `pause`'s.

A look costs what has changed: all counts are sums over lines, and lines are the same objects from one version of a document to the next, so only those
that differ from the version that was judged last are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from pathspec import GitIgnoreSpec

from context.families import PROSE_LANGUAGES
from context.place import Place
from lsp.documents import Document, Edit, Position
from lsp.settings import Settings

MAX_BYTES = 1 << 20
MAX_LINE_CHARS = 5000  # of the cursor's line
# As files of the workspace are judged that are not read: nobody writes lines of such a mean length, unless it is prose with one line for each paragraph.
MAX_MEAN_LINE_CHARS, MIN_MINIFIED_CHARS = 300, 2000
MAX_REPLACED_SHARE = 0.2  # of a text's characters that no decoder could make sense of

Before = Literal["typed", "deleted"]

# What editors show in a text field or a buffer that holds no code. Cells of notebooks, unsaved and other buffers are none of these.
_SCHEMES = {
    "vscode-scm": "a commit message",
    "comment": "a comment in a review",
    "output": "a program's output",
    "term": "a terminal",
    "git": "an older version",
    "fugitive": "an older version",
    "search-editor": "search results",
    "debug": "the debugger's input",
    "oil": "a list of files",
}
_LANGUAGES = {
    "scminput": "a commit message",
    "search-result": "search results",
    "log": "a log",
    "code-text-binary": "binary",
}
_CHUNK = 256  # lines compared at once
_MAX_JUDGED = 256  # documents; an editor that never closes one must not make this grow for ever
_OFF = "off in your settings"


class _Counts(NamedTuple):
    """Of some lines; those of a document are the sum of its lines'."""

    n_bytes: int = 0
    n_chars: int = 0
    n_nul: int = 0
    n_replaced: int = 0  # characters that stand for what could not be decoded


@dataclass(frozen=True, slots=True)
class _Judged:
    """What is known of a document's version, as its path and folder were then."""

    document: Document
    path: Path | None
    root: Path | None
    counts: _Counts
    by_name: str | None
    why: str | None


class Gate:
    """Of one editor window: remembers the version of each document that it has judged last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # The settings have seen to it that pathspec understands every pattern.
        self._excluded = GitIgnoreSpec.from_lines(settings.exclude) if settings.exclude else None
        self._judged: dict[str, _Judged] = {}

    def why_off(self, document: Document, *, path: Path | None, root: Path | None) -> str | None:
        """Why nothing is suggested anywhere in a document; None: something may be.

        `path` None: it is no file. `root`: the folder of its workspace, which patterns are relative to.
        """
        if not self._settings.enable:
            return _OFF
        had = self._judged.get(document.uri)
        if had is not None and had.document is document and (had.path, had.root) == (path, root):
            return had.why
        counts = _counted(document.lines, had)
        if had is not None and (had.document.language, had.path, had.root) == (document.language, path, root):
            by_name = had.by_name
        else:
            by_name = self._why_by_name(document, path=path, root=root)
        why = by_name or _why_by_text(document, counts)
        self._judged.pop(document.uri, None)
        self._judged[document.uri] = _Judged(document, path, root, counts, by_name, why)
        if len(self._judged) > _MAX_JUDGED:
            del self._judged[next(iter(self._judged))]
        return why

    def why_not(
        self,
        document: Document,
        position: Position,
        place: Place,
        *,
        path: Path | None,
        root: Path | None,
        is_automatic: bool,
        before: Before = "typed",
    ) -> str | None:
        """Why nothing is suggested at a position; None: the model may be asked.

        `is_automatic`: nobody has asked for it by name. `before`: what the user did right before, see `only_deletes`.
        """
        why = self.why_off(document, path=path, root=root)
        if why is None and place.kind in self._settings.disable_in:
            why = f"{place.kind}s are off in your settings"
        if why is None:
            row, column = document.place(position)
            line = document.lines[row].rstrip("\r\n")
            if len(line) > MAX_LINE_CHARS:
                return f"a line of over {MAX_LINE_CHARS} characters"
            if is_automatic:
                return self._why_not_unasked(line, column, before=before)
        return why

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self._judged.pop(uri, None)

    def _why_not_unasked(self, line: str, column: int, *, before: Before) -> str | None:
        if not self._settings.automatic:
            return "only when asked for, by your settings"
        if column < len(line) and _is_of_word(line[column]):
            return "in the middle of a word"
        if before == "deleted":
            return "right after a deletion"
        return None

    def _why_by_name(self, document: Document, *, path: Path | None, root: Path | None) -> str | None:
        language, languages = document.language, self._settings.languages
        if not languages.get(language, languages.get("*", True)):
            return f"{language or 'this language'} is {_OFF}"
        if path is not None and self._excluded is not None and self._excluded.match_file(_name(path, root)):
            return "excluded in your settings"
        scheme = "file" if path is not None else urlsplit(document.uri).scheme
        if (why := _SCHEMES.get(scheme)) is not None:
            return why
        return _LANGUAGES.get(language) if language not in languages else None


def only_deletes(edits: Sequence[Edit]) -> bool:
    """Whether nothing was typed: Backspace, Delete, a cut, or an undone insertion."""
    return bool(edits) and all(not edit.text and edit.start != edit.end for edit in edits)


def _why_by_text(document: Document, counts: _Counts) -> str | None:
    if counts.n_bytes > MAX_BYTES:
        return "over 1 MB"
    if counts.n_nul or counts.n_replaced > MAX_REPLACED_SHARE * counts.n_chars:
        return "binary"
    is_prose = document.language in PROSE_LANGUAGES
    if (
        not is_prose
        and counts.n_chars > MIN_MINIFIED_CHARS
        and counts.n_chars > MAX_MEAN_LINE_CHARS * len(document.lines)
    ):
        return "minified"
    if urlsplit(document.uri).scheme == "untitled" and len(document.lines) <= 2 and not "".join(document.lines).strip():
        return "empty and without a name"
    return None


def _name(path: Path, root: Path | None) -> str:
    """As patterns see it. Editors resolve symbolic links or do not."""
    if root is not None:
        for folder, file in ((root, path), (root.resolve(), path.resolve())):
            if file.is_relative_to(folder):
                return file.relative_to(folder).as_posix()
    return path.as_posix()


def _is_of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _counted(lines: tuple[str, ...], had: _Judged | None) -> _Counts:
    if had is None:
        return _count(lines)
    old = had.document.lines
    n_before = _n_same(old, lines)
    most = min(len(old), len(lines)) - n_before
    n_after = _n_same_at_end(old, lines, most)
    gone = _count(old[n_before : len(old) - n_after])
    new = _count(lines[n_before : len(lines) - n_after])
    return _Counts(*(a - b + c for a, b, c in zip(had.counts, gone, new, strict=True)))


def _count(lines: Sequence[str]) -> _Counts:
    n_bytes = sum(len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass")) for line in lines)
    return _Counts(
        n_bytes,
        sum(map(len, lines)),
        sum(line.count("\0") for line in lines),
        sum(line.count("\ufffd") for line in lines if not line.isascii()),
    )


def _n_same(old: tuple[str, ...], new: tuple[str, ...]) -> int:
    """How many lines both begin with; tuples are compared by their items' identity first, so that this is quick."""
    most, n = min(len(old), len(new)), 0
    while n + _CHUNK <= most and old[n : n + _CHUNK] == new[n : n + _CHUNK]:
        n += _CHUNK
    while n < most and old[n] == new[n]:
        n += 1
    return n


def _n_same_at_end(old: tuple[str, ...], new: tuple[str, ...], most: int) -> int:
    n = 0
    while n + _CHUNK <= most and old[-n - _CHUNK : len(old) - n] == new[-n - _CHUNK : len(new) - n]:
        n += _CHUNK
    while n < most and old[-n - 1] == new[-n - 1]:
        n += 1
    return n
