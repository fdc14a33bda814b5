"""What a file imports, found in its workspace and cut to a budget."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from context.imports import _FINDERS, distance, imported
from context.outline import outline
from context.plan import estimate_tokens
from context.related import related
from context.repository import SourceFile


def tree(names: str, **texts: str) -> dict[str, SourceFile]:
    """Files with these names; `a__b_py="..."` is the text of a/b.py."""
    named = dict.fromkeys(names.split(), "x = 1\n")
    for name, text in texts.items():
        named[name if "/" in name else name.replace("__", "/").replace("_", ".")] = text
    return {path: SourceFile(path, text) for path, text in named.items()}


PYTHON = tree(
    "a/b.py a/__init__.py a/c.py a/d/__init__.py a/d/e.py src/p/q.py src/p/__init__.py top.py tests/test_x.py json.py tests/helpers.py a/b.pyi"
)
PACKAGE = tree(
    "p/deep.py use.py",
    **{"p/__init__.py": "from .deep import A as A\nfrom . import other\nB = 1\n", "p/other.py": "x = 1"},
)
SCRIPT = tree("src/a.ts src/b.tsx src/c/index.ts src/d.js src/e.d.ts lib/x.mjs index.js src/v.vue types.json")
INDEX = tree(
    "src/use.ts src/w/one.ts src/w/two.ts", src__w__index_ts="export { A } from './one'\nexport * from './two'\n"
)
GO = tree(
    "cmd/main.go pkg/a/a.go pkg/a/b.go pkg/a/a_test.go pkg/a/readme.md root.go sub/x/x.go",
    go_mod="module example.org/m\n\ngo 1.22\n",
    sub__go_mod="module example.org/m/sub\n",
)
RUST = tree(
    "src/main.rs src/a.rs src/b/mod.rs src/b/c.rs src/lib.rs crates/x/src/lib.rs crates/x/src/y.rs src/a/inner.rs",
    **{"crates/x/Cargo.toml": '[package]\nname = "my-x"\n'},
)
JVM = tree(
    "m/src/main/java/o/a/A.java n/src/main/java/o/a/A.java m/src/main/java/o/a/B.java m/src/test/java/o/T.java k/o/k/K.kt",
    **{"k/o/k/Tools.kt": "fun tool(a: Int) = 1\nval other = 2\n"},
)
C = tree("src/a.c src/a.h include/lib/b.h src/deep/c.h other/deep/c.h src/c.cpp")

# the workspace, the file, its text, what it imports: "path" or "path:name,name"
ROWS: list[tuple[Mapping[str, SourceFile], str, str, str]] = [
    (PYTHON, "top.py", "import a.b", "a/b.py"),
    (PYTHON, "top.py", "import a.b as x, top, a.d.e  # why", "a/b.py a/d/e.py"),
    (PYTHON, "top.py", "from a.b import X, Y as Z", "a/b.py:X,Y"),
    (PYTHON, "top.py", "from a.b import (\n    X,  # why\n    Y,\n)\n", "a/b.py:X,Y"),
    (PYTHON, "top.py", "from a import b, c", "a/b.py a/c.py"),
    (PYTHON, "top.py", "from a.b import *", "a/b.py"),
    (PYTHON, "top.py", "def f():\n    from a.b import X\n", "a/b.py:X"),
    (PYTHON, "top.py", "from a.b import X\nfrom a.b import Y", "a/b.py:X,Y"),
    (PYTHON, "a/c.py", "from . import b\nfrom .d.e import X\nfrom ..top import Y", "a/b.py a/d/e.py:X top.py:Y"),
    (PYTHON, "a/d/e.py", "from ..b import X\nfrom ...a.c import Y", "a/b.py:X a/c.py:Y"),
    (PYTHON, "top.py", "import json, os, sys, numpy\nfrom typing import Any", ""),
    (PYTHON, "tests/test_x.py", "from p.q import X\nimport helpers", "src/p/q.py:X tests/helpers.py"),
    (PYTHON, "top.py", "from a.b import (\n", ""),
    (PYTHON, "top.py", "from\nimport\nfrom . import\nfrom a.b import\nimport .x", ""),
    (PYTHON, "top.py", "from ..... import x\nfrom ....b import y", ""),
    (PACKAGE, "use.py", "from p import A, B", "p/deep.py:A p/__init__.py:B"),
    (PACKAGE, "use.py", "import p", "p/__init__.py p/deep.py:A p/other.py"),
    (SCRIPT, "src/a.ts", "import { A, type B as C } from './b'", "src/b.tsx:A,B"),
    (SCRIPT, "src/a.ts", 'import D, { A } from "./b"', "src/b.tsx:D,A"),
    (SCRIPT, "src/a.ts", "import * as x from './c'\nimport type { T } from './e'", "src/c/index.ts src/e.d.ts:T"),
    (SCRIPT, "src/a.ts", "import './b.js'\nexport { A } from '../lib/x.mjs'", "src/b.tsx lib/x.mjs:A"),
    (SCRIPT, "src/d.js", "const { a } = require('./a');\nconst b = require('..')\nawait import('./v')", "src/a.ts index.js src/v.vue"),
    (SCRIPT, "src/c/index.ts", "import { A } from '@/a'\nimport B from 'src/b'", "src/a.ts:A src/b.tsx:B"),
    (SCRIPT, "src/a.ts", "import {\n  A,\n  B,\n} from './b'\nimport x from 'react'\nimport('./none')", "src/b.tsx:A,B"),
    (INDEX, "src/use.ts", "import { A, C } from './w'", "src/w/one.ts:A src/w/index.ts:C src/w/two.ts:C"),
    (GO, "cmd/main.go", 'import "fmt"\nimport x "example.org/m/pkg/a"', "pkg/a/a.go pkg/a/b.go"),
    (GO, "cmd/main.go", 'import (\n\t"os"\n\n\t_ "example.org/m/pkg/a"\n\t"example.org/m"\n)', "pkg/a/a.go pkg/a/b.go root.go"),
    (GO, "sub/y.go", 'import "example.org/m/sub/x"', "sub/x/x.go"),
    (GO, "cmd/main.go", 'import "example.org/mm/pkg/a"', ""),
    (RUST, "src/main.rs", "mod a;\npub(crate) mod b;\nmod none;", "src/a.rs src/b/mod.rs"),
    (RUST, "src/a.rs", "use crate::b::c::{D, E as F};\nuse crate::b::g;", "src/b/c.rs:D,E src/b/mod.rs:g"),
    (RUST, "src/b/c.rs", "use super::X;\nuse super::super::a;\nmod none;", "src/b/mod.rs:X src/a.rs"),
    (RUST, "src/a.rs", "use std::fmt;\nuse my_x::{self, y::Z};\nuse self::inner::*;", "crates/x/src/lib.rs crates/x/src/y.rs:Z src/a/inner.rs"),
    (RUST, "src/main.rs", "use {crate::a::{A, inner::{B, C}}, crate::b::c};", "src/a.rs:A src/a/inner.rs:B,C src/b/c.rs"),
    (JVM, "m/src/test/java/o/T.java", "import o.a.A;\nimport java.util.List;", "m/src/main/java/o/a/A.java:A"),
    (JVM, "n/src/main/java/o/U.java", "import static o.a.A.f;\nimport o.a.B.Inner;", "n/src/main/java/o/a/A.java:A,f m/src/main/java/o/a/B.java:B,Inner"),
    (JVM, "k/o/Main.kt", "import o.k.K\nimport o.k.tool\nimport o.k.none", "k/o/k/K.kt:K k/o/k/Tools.kt:tool"),
    (JVM, "k/o/Main.kt", "import o.k.*", "k/o/k/K.kt k/o/k/Tools.kt"),
    (C, "src/a.c", '#include "a.h"\n# include "lib/b.h"\n#include <stdio.h>\n#include <lib/b.h>', "src/a.h include/lib/b.h"),
    (C, "src/c.cpp", '#include "deep/c.h"\n#include "../other/deep/c.h"\n#include "../../x.h"', "src/deep/c.h other/deep/c.h"),
    (tree("lib/a.rb lib/b/c.rb"), "lib/a.rb", "require 'json'\nrequire_relative 'b/c'\nrequire_relative './none'", "lib/b/c.rb"),
    (PYTHON, "notes.md", "import a.b", ""),
]  # fmt: skip


@pytest.mark.parametrize(("files", "path", "text", "expected"), ROWS)
def test_what_is_imported(files: Mapping[str, SourceFile], path: str, text: str, expected: str) -> None:
    rows = [row.partition(":") for row in expected.split()]
    wanted = {target: tuple(name for name in names.split(",") if name) for target, _, names in rows}
    assert imported(path, text, files) == {
        target: names for target, names in wanted.items() if target != "a/b.py" or text != "from a.b import (\n"
    }


def test_distances() -> None:
    pairs = [
        ("a/b.py", "a/c.py"),
        ("b.py", "c.py"),
        ("a/b.py", "c.py"),
        ("a/b/x.py", "a/c/y.py"),
        ("a/x.py", "b/c/d/x.py"),
    ]
    assert [distance(*pair) for pair in pairs] == [0, 0, 1, 2, 4]


ONE = "class A:\n    def f(self) -> int: return 1\n\ndef other(a: int) -> int: return a\n"
TWO = "def b(): return 1\n\ndef c(): return 2\n"
WORKSPACE = tree("", one_py=ONE, two_py=TWO, far__away_py=TWO, far_py="x", main_py="", empty_py="print(1)\n")
MAIN = "from one import A\nfrom two import b, c\nimport far.away\nimport empty\n\n\ndef f():\n    pass\n"


def names(found: list[SourceFile]) -> str:
    return " ".join(file.path for file in found)


def test_the_most_telling_come_last() -> None:
    found = related("main.py", MAIN, WORKSPACE, bytes_per_token=3.5)
    assert names(found) == "far/away.py one.py two.py"
    assert [file.text for file in found] == [outline(file.path, WORKSPACE[file.path].text) for file in found]


@pytest.mark.parametrize("max_tokens", [-1, 0, 20, 60, 100, 150, 200])
def test_the_budget(max_tokens: int) -> None:
    found = related("main.py", MAIN, WORKSPACE, max_tokens=max_tokens, bytes_per_token=1.0)
    assert sum(estimate_tokens(file, bytes_per_token=1.0) for file in found) <= max(0, max_tokens)
    assert (names(found)[-6:] == "two.py") if max_tokens >= 60 else not found
    assert (names(found) == "far/away.py one.py two.py") is (max_tokens >= 150)


def test_what_is_named_comes_before_the_rest() -> None:
    text = "".join(f"def f{n}(a: int, b: str) -> int: return {n}\n\n" for n in range(200))
    files = tree("", big_py=text, small_py="def g(): pass\n", main_py="")
    (small, big) = related(
        "main.py", "from big import f150, f7\nfrom small import g\n", files, max_tokens=200, bytes_per_token=3.5
    )
    assert (small.path, big.path) == ("small.py", "big.py")
    assert "def f150(" in big.text and "def f7(" in big.text
    lines = big.text.splitlines()
    assert lines == sorted(lines, key=lambda line: int(line[5 : line.index("(")]))


def test_one_large_class_is_cut_at_a_line() -> None:
    text = "class A:\n" + "".join(f"    def f{n}(self, a: int) -> int: return a\n" for n in range(500))
    (found,) = related(
        "main.py", "from big import A\n", tree("main.py", big_py=text), max_tokens=300, bytes_per_token=3.5
    )
    assert 200 < estimate_tokens(found, bytes_per_token=3.5) <= 300
    lines = found.text.splitlines()
    assert lines[0] == "class A:" and lines[-1] == "    ..."
    assert all(line.endswith("-> int: ...") for line in lines[1:-1])


def test_typing_elsewhere_changes_nothing() -> None:
    before = related("main.py", MAIN, WORKSPACE, bytes_per_token=3.5)
    rng = random.Random(5)
    start = MAIN.index("def f")
    for _ in range(200):
        text = list(MAIN)
        for _ in range(rng.randrange(1, 6)):
            where = rng.randrange(start, len(text) + 1)
            text[where : where + rng.randrange(2)] = rng.choice(
                ["(", ")", "\n", "b", "A.", '"', "'''", "{", "# ", "two", " ", "é"]
            )
        assert related("main.py", "".join(text), WORKSPACE, bytes_per_token=3.5) == before
    shuffled = list(WORKSPACE.items())
    rng.shuffle(shuffled)
    assert related("main.py", MAIN, dict(shuffled), bytes_per_token=3.5) == before


lines = st.sampled_from(
    [line for _, _, text, _ in ROWS for line in text.split("\n")]
    + ["(", "{{{", "use {a::{b,{c", "from " * 50, "\ud800"]
)


@given(st.lists(lines, max_size=12).map("\n".join), st.sampled_from([*_FINDERS, ""]), st.integers(-5, 300))
def test_any_text(text: str, end: str, max_tokens: int) -> None:
    files = {**PYTHON, **PACKAGE, **SCRIPT, **INDEX, **GO, **RUST, **JVM, **C}
    path = f"src/b/any{end}"
    files[path] = SourceFile(path, text)
    found = related(path, text, files, max_tokens=max_tokens, bytes_per_token=2.0)
    assert sum(estimate_tokens(file, bytes_per_token=2.0) for file in found) <= max(0, max_tokens)
    assert path not in {file.path for file in found} <= files.keys()
