"""What a file is for, by its name. Knows paths; does not know texts, the disk, git or tokens."""

import functools
from enum import IntEnum
from pathlib import PurePosixPath


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DATA_ENDS = _words("""
    json jsonc json5 yaml yml toml ini cfg conf properties xml xsd xsl plist pbtxt rc in lst dic
    editorconfig gitignore gitattributes gitmodules dockerignore npmignore codestralignore mailmap
""")
_PROSE_ENDS = _words("md markdown mdx rst txt adoc asciidoc org tex texi bib wiki")
_PROSE_NAMES = _words(
    "readme license licence copying notice authors contributors changelog changes news history todo thanks"
)
# Names that look like text and are programs.
_SOURCE_NAMES = _words("cmakelists.txt meson_options.txt")
_TEST_FOLDERS = _words("""
    test tests testing spec specs __tests__ __mocks__ e2e testdata fixtures example examples demo demos sample samples
    bench benches benchmark benchmarks
""")


class Kind(IntEnum):
    """In the order in which kinds are given up when there is not room for all."""

    DATA = 0
    PROSE = 1
    ROOT_README = 2
    TEST = 3  # and examples, demonstrations, benchmarks
    SOURCE = 4


@functools.lru_cache(maxsize=65_536)
def kind_of(path: str) -> Kind:
    """`path` is relative to the workspace, with forward slashes."""
    *folders, name = path.lower().split("/")
    _, dot, extension = name.rpartition(".")
    if name not in _SOURCE_NAMES:
        if dot and extension in _DATA_ENDS:
            return Kind.DATA
        if (extension in _PROSE_ENDS) if dot else (name.partition("-")[0] in _PROSE_NAMES):
            return Kind.PROSE if folders or name.partition(".")[0] != "readme" else Kind.ROOT_README
    if not _TEST_FOLDERS.isdisjoint(folders) or _is_test_name(PurePosixPath(path).stem):
        return Kind.TEST
    return Kind.SOURCE


def is_code(path: str) -> bool:
    """Whether the name is that of a program or a test, rather than of data or documentation."""
    return kind_of(path) in (Kind.TEST, Kind.SOURCE)


def _is_test_name(stem: str) -> bool:
    lower = stem.lower()
    starts_or_ends = lower.startswith("test_") or lower.endswith(("_test", ".test", "_spec", ".spec"))
    # FooTest.java and FooTests.cs, but not latest.py.
    return starts_or_ends or lower == "conftest" or stem.endswith(("Test", "Tests"))
