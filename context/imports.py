"""What a source file imports, resolved to files of its workspace. Knows how languages write and find imports; does not know the disk, texts beyond their import
lines, outlines or budgets.

Import lines are found by patterns and not by a parser, so that nothing else in a file, half-typed as it may be, changes what is found. What cannot be found
below the workspace (a library, a generated file) is left out; where several files fit, the one whose folders are nearest is taken.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from posixpath import basename, dirname, join, normpath, splitext

from context.repository import SourceFile

_MAX_FOLLOWED = 3  # files that only pass names on, one behind the other
_MAX_BRACES = 8  # one in another, in Rust's lists of names
_PYTHON_ROOTS = ("", "src", "lib", "python")
_SCRIPT_ENDS = (".ts", ".tsx", ".mts", ".cts", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".vue", ".svelte")
_JVM_ENDS = (".java", ".kt", ".kts")

_PYTHON = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]*(?:\(([^()]*)\)|([^\n#;(]*))|import[ \t]+([^\n#;]+))",
    re.MULTILINE,
)
_SCRIPT = re.compile(
    r"""\b(?:import|export)\s*(?:type\s)?([\w*\s{},$]{0,4000}?)\bfrom\s*["']([^"'\n]+)["']"""
    r"""|\bimport\s*["']([^"'\n]+)["']|\b(?:require|import)\(\s*["']([^"'\n]+)["']\s*\)"""
)
_GO = re.compile(r"""^import\s*(?:\(([^)]*)\)|[\w.]*[ \t]*("[^"\n]+"))""", re.MULTILINE)
_GO_MODULE = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_RUST = re.compile(r"^[ \t]*(?:pub(?:\([^)\n]*\))?\s+)?(?:mod\s+(\w+)\s*;|use\s+([^;]{1,4000});)", re.MULTILINE)
_CARGO_NAME = re.compile(r"""^name\s*=\s*["']([^"'\n]+)["']""", re.MULTILINE)
_JVM = re.compile(r"^[ \t]*import\s+(?:static\s+)?(\w+(?:\.\w+)*(?:\.\*)?)", re.MULTILINE)
_C = re.compile(r"""^[ \t]*#[ \t]*(?:include|import)[ \t]*(?:"([^"\n]+)"|<([^>\n]+/[^>\n]+)>)""", re.MULTILINE)
_RUBY = re.compile(r"""^[ \t]*require_relative[ (]+["']([^"'\n]+)["']""", re.MULTILINE)

Found = tuple[
    str, tuple[str, ...]
]  # a file and the names that are asked of it; none: the file as a whole, *: each of its names


def imported(path: str, text: str, files: Mapping[str, SourceFile]) -> dict[str, tuple[str, ...]]:
    """Files that `path` imports, with the names that it takes from each (none where it takes the whole), in the order of its import lines.

    `files` are the workspace's, by path. A file that only passes names on (`__init__.py`, `index.ts`) stands for those it has
    them from. `path` itself is never among them.
    """
    found: dict[str, dict[str, None]] = {}
    for target, names in _find(path, text, _Tree(files), n_followed=0):
        if target != path:
            found.setdefault(target, {}).update(dict.fromkeys(name for name in names if name != "*"))
    return {target: tuple(names) for target, names in found.items()}


class _Tree:
    """The workspace's files. What is gathered from all of them is gathered once, and only for languages that need it."""

    def __init__(self, files: Mapping[str, SourceFile]) -> None:
        self.files = files

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        return self._grouped(basename)

    @cached_property
    def by_folder(self) -> dict[str, list[str]]:
        return self._grouped(dirname)

    def first(self, *candidates: str) -> str | None:
        return next((path for path in candidates if path in self.files), None)

    def ending(self, end: str, *, near: str) -> str | None:
        """The file whose path ends in the whole names `end`, the one nearest to `near`."""
        fitting = [path for path in self.by_name.get(basename(end), []) if f"/{path}".endswith(f"/{end}")]
        return min(fitting, key=lambda path: (distance(near, path), path), default=None)

    def _grouped(self, key: Callable[[str], str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for path in sorted(self.files):
            groups.setdefault(key(path), []).append(path)
        return groups


def distance(path: str, other: str) -> int:
    """Steps from one file's folder up and down to the other's."""
    a, b = dirname(path).split("/"), dirname(other).split("/")
    a, b = [name for name in a if name], [name for name in b if name]
    n_common = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return len(a) + len(b) - 2 * n_common


def _find(path: str, text: str, tree: _Tree, *, n_followed: int) -> Iterator[Found]:
    finder = _FINDERS.get(splitext(path)[1].lower())
    for target, names in finder(path, text, tree) if finder else ():
        yield from _followed(target, names, tree, n_followed=n_followed)


def _followed(target: str, names: tuple[str, ...], tree: _Tree, *, n_followed: int) -> Iterator[Found]:
    """`target`, or where it has the names from, if all that it does is pass them on."""
    passes_on = splitext(basename(target))[0] in ("__init__", "index")
    if not passes_on or n_followed == _MAX_FOLLOWED:
        yield target, names
        return
    sources = list(_find(target, tree.files[target].text, tree, n_followed=n_followed + 1))
    if not names or "*" in names:
        yield from ((target, ()), *sources)
        return
    left = []
    for name in names:
        named = next((source for source, its in sources if name in its and source != target), None)
        if named:
            yield named, (name,)
        else:
            left.append(name)
    if left:
        yield target, tuple(left)
        yield from ((source, tuple(left)) for source, its in sources if "*" in its and source != target)


def _python(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    for line in _PYTHON.finditer(text):
        module, several, one, whole = line.groups()
        if whole is not None:
            for name in _names(whole):
                parts = name.split(".")
                if target := _python_module(path, parts, tree, level=0):
                    yield target, ()
            continue
        level = len(module) - len(module.lstrip("."))
        parts = [part for part in module.split(".") if part]
        target = _python_module(path, parts, tree, level=level) if parts or level else None
        own: list[str] = []
        for name in _names(several if several is not None else one):
            below = _python_module(path, [*parts, name], tree, level=level) if name.isidentifier() else None
            if below:
                yield below, ()
            else:
                own.append(name)
        if target and own:
            yield target, tuple(own)


def _python_module(path: str, parts: list[str], tree: _Tree, *, level: int) -> str | None:
    if level:
        folder = dirname(path)
        for _ in range(level - 1):
            folder = dirname(folder)
        return _python_file(join(folder, *parts), tree)
    if not parts or parts[0] in sys.stdlib_module_names:
        return None
    folder = dirname(path)
    while True:
        # A folder inside a package is not where imports start.
        if join(folder, "__init__.py") not in tree.files:
            for root in _PYTHON_ROOTS:
                if target := _python_file(join(folder, root, *parts), tree):
                    return target
        if not folder:
            return None
        folder = dirname(folder)


def _python_file(stem: str, tree: _Tree) -> str | None:
    return tree.first(f"{stem}.py", f"{stem}.pyi", join(stem, "__init__.py"), join(stem, "__init__.pyi"))


def _names(listed: str) -> list[str]:
    """`a, b as c  # why` -> a, b."""
    words = (re.sub(r"#[^\n]*", "", listed)).replace("\\", " ").split(",")
    return [word.split()[0] for word in words if word.split()]


def _script(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    for line in _SCRIPT.finditer(text):
        clause, source, bare, called = line.groups()
        target = _script_file(path, source or bare or called, tree)
        if target:
            taken = re.sub(r"\btype\b|\*\s*as\s+[\w$]+", " ", clause or "")
            yield target, tuple(_names(taken.replace("{", ",").replace("}", ",")))


def _script_file(path: str, source: str, tree: _Tree) -> str | None:
    if source.startswith("."):
        stems = [normpath(join(dirname(path), source))]
    elif source.startswith(("@/", "~/")):
        stems, folder = [], dirname(path)
        while True:
            stems += [normpath(join(folder, root, source[2:])) for root in ("", "src", "app")]
            if not folder:
                break
            folder = dirname(folder)
    else:
        stems = [normpath(source)] if "/" in source else []
    for stem in stems:
        bare = splitext(stem)[0] if stem.endswith((".js", ".jsx", ".mjs", ".cjs")) else stem
        ends = [*(f"{bare}{end}" for end in _SCRIPT_ENDS), *(f"{stem}/index{end}" for end in _SCRIPT_ENDS)]
        if splitext(stem)[1] in _SCRIPT_ENDS:
            ends.insert(0, stem)
        if target := tree.first(*(end.removeprefix("./") for end in ends)):
            return target
    return None


def _go(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    sources = [name for line in _GO.finditer(text) for name in re.findall(r'"([^"\n]+)"', line[1] or line[2])]
    modules = sorted(tree.by_name.get("go.mod", []), key=lambda file: (distance(path, file), file)) if sources else []
    for source in sources:
        for file in modules:
            module = _GO_MODULE.search(tree.files[file].text)
            if module and f"{source}/".startswith(f"{module[1]}/"):
                folder = join(dirname(file), source[len(module[1]) + 1 :]).rstrip("/")
                beside = tree.by_folder.get(folder, [])
                yield from ((name, ()) for name in beside if name.endswith(".go") and not name.endswith("_test.go"))
                break


def _rust(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    stem = splitext(path)[0]
    here = dirname(path) if basename(stem) in ("mod", "lib", "main") else stem
    for line in _RUST.finditer(text):
        uses = [[line[1]]] if line[1] else _rust_paths(line[2])
        for parts in uses:
            base, rest, is_known = (here, parts, False) if line[1] else _rust_base(path, here, parts, tree)
            for n in range(len(rest), 0, -1):
                deep = join(base, *rest[:n])
                if target := tree.first(f"{deep}.rs", f"{deep}/mod.rs"):
                    yield target, tuple(name for name in rest[n : n + 1] if name != "*")
                    break
            else:
                target = tree.first(f"{base}.rs", *(join(base, f"{name}.rs") for name in ("mod", "lib", "main")))
                if target and is_known:
                    yield target, tuple(name for name in rest[:1] if name != "*")


def _rust_paths(use: str, depth: int = 0) -> list[list[str]]:
    """`a::{b, c::D as E}` -> [[a, b], [a, c, D]]."""
    paths: list[list[str]] = []
    for part in _split(use):
        before, brace, inside = part.partition("{")
        steps = [word.split()[0] for word in before.split("::") if word.split()]
        steps = [step for step in steps if step != "self"] or steps
        if not brace or depth == _MAX_BRACES:
            paths += [steps] if steps else []
        else:
            ends = _rust_paths(inside.rpartition("}")[0] or inside, depth + 1)
            paths += [[*steps, *(() if steps and end == ["self"] else end)] for end in ends]
    return paths


def _split(listed: str) -> list[str]:
    """At the commas outside of all braces."""
    parts, depth = [""], 0
    for char in listed:
        depth += (char == "{") - (char == "}")
        if char == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _rust_base(path: str, here: str, parts: list[str], tree: _Tree) -> tuple[str, list[str], bool]:
    """The folder of the module where `parts` start, those of them that go on from there, and whether that is sure: a library's name could be a module's."""
    first, rest = parts[0], parts[1:]
    if first == "super":
        folder = dirname(here)
        while rest and rest[0] == "super":
            folder, rest = dirname(folder), rest[1:]
        return folder, rest, True
    if first == "crate":
        folder = dirname(path)
        while folder and not tree.first(join(folder, "lib.rs"), join(folder, "main.rs")):
            folder = dirname(folder)
        return folder, rest, True
    for manifest in tree.by_name.get("Cargo.toml", []):
        name = _CARGO_NAME.search(tree.files[manifest].text)
        if name and name[1].replace("-", "_") == first:
            return join(dirname(manifest), "src"), rest, True
    return here, parts, False


def _jvm(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    for line in _JVM.finditer(text):
        parts = line[1].split(".")
        # A static import and one of a nested class have more behind the file's name.
        for n in range(len(parts), max(0, len(parts) - 3), -1):
            stem = "/".join(parts[:n])
            found = [target for end in _JVM_ENDS if (target := tree.ending(f"{stem}{end}", near=path))]
            if found:
                yield found[0], tuple(name for name in (parts[n - 1], *parts[n:]) if name != "*")
                break
        else:
            yield from _jvm_package(parts, tree)


def _jvm_package(parts: list[str], tree: _Tree) -> Iterator[Found]:
    """A whole package, or a function that Kotlin lets stand in any file of it."""
    end = f"/{'/'.join(parts[:-1])}"
    declares = re.compile(rf"\b(?:fun|val|var|class|object|interface|typealias)\b.*\b{re.escape(parts[-1])}\b")
    for folder in tree.by_folder:
        if f"/{folder}".endswith(end):
            for target in tree.by_folder[folder]:
                if target.endswith(_JVM_ENDS) and (parts[-1] == "*" or declares.search(tree.files[target].text)):
                    yield target, () if parts[-1] == "*" else (parts[-1],)


def _c(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    for line in _C.finditer(text):
        beside = normpath(join(dirname(path), line[1])) if line[1] else ""
        name = normpath(line[1] or line[2])
        target = beside if beside in tree.files else tree.ending(name, near=path) if not name.startswith(".") else None
        if target:
            yield target, ()


def _ruby(path: str, text: str, tree: _Tree) -> Iterator[Found]:
    for line in _RUBY.finditer(text):
        stem = normpath(join(dirname(path), line[1]))
        if target := tree.first(stem, f"{stem}.rb"):
            yield target, ()


_FINDERS: dict[str, Callable[[str, str, _Tree], Iterator[Found]]] = {
    **dict.fromkeys((".py", ".pyi", ".pyw"), _python),
    **dict.fromkeys((".ts", ".tsx", ".mts", ".cts", ".js", ".jsx", ".mjs", ".cjs", ".vue", ".svelte"), _script),
    ".go": _go,
    ".rs": _rust,
    **dict.fromkeys(_JVM_ENDS, _jvm),
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inl", ".cu", ".cuh", ".m", ".mm"), _c),
    ".rb": _ruby,
}
