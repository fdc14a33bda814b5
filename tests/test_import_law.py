"""The import law and the sizes of ARCHITECTURE.md and the house style, checked on the source; then the checker itself, on made-up trees.

Every import counts: inside functions, under TYPE_CHECKING, and by `import_module("name")`.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]

# What each may import besides itself and other people's packages; a name stands for all below it.
LAW: Mapping[str, tuple[str, ...]] = {
    "lsp": ("context", "daemon.protocol"),
    "daemon": ("cache", "model"),
    "cache": (),
    "context": (),
    "model": (),
    "codestral_lsp_entry": (),
}
NOT_INSTALLED = ("training", "benchmarks", "tests", "editors")  # these may import all of the above
WITHOUT_TORCH = ("lsp", "context", "daemon.protocol", "codestral_lsp_entry")
TORCH_AND_ITS_LIKE = ("torch", "safetensors", "sentencepiece", "tokenizers", "transformers")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


@dataclass(frozen=True)
class Module:
    """A source file. `name` is dotted; a package's own name stands for its `__init__.py`."""

    name: str
    path: str  # below the house, for messages
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def imports(self, names: set[str]) -> Iterator[tuple[str, int]]:
        """(dotted name, line) of each import; `from package import module` names the module, where `names` has it."""
        package = self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            match node:
                case ast.Import():
                    yield from ((alias.name, node.lineno) for alias in node.names)
                case ast.ImportFrom():
                    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                    source = ".".join([*above, *([node.module] if node.module else [])])
                    for alias in node.names:
                        whole = f"{source}.{alias.name}"
                        yield (whole if whole in names else source), node.lineno
                case ast.Call(func=function, args=[ast.Constant(value=str(target)), *_]):
                    if ast.unparse(function).split(".")[-1] in ("import_module", "__import__"):
                        yield target, node.lineno


def read_modules(root: Path) -> list[Module]:
    """All Python files of LAW and of the programs beside it. Tests and editors' plugins may do what they like."""
    paths = [root / f"{top}.py" for top in LAW]
    for top in (*LAW, "training", "benchmarks"):
        paths += sorted((root / top).rglob("*.py"))
    modules = []
    for path in filter(Path.is_file, paths):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(name, path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")))
    return modules


def is_below(name: str, tops: tuple[str, ...]) -> bool:
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def broken_imports(modules: list[Module]) -> list[str]:
    """One line for each import that the law does not allow."""
    names = {module.name for module in modules}
    ours = (*LAW, *NOT_INSTALLED)
    return [
        f"{module.path}:{line}: imports {target}, allowed: {', '.join(LAW[module.top]) or 'nothing of ours'}"
        for module in modules
        if module.top in LAW
        for target, line in module.imports(names)
        if is_below(target, ours) and not is_below(target, (module.top, *LAW[module.top]))
    ]


def torch_in_front_end(modules: list[Module]) -> list[str]:
    """One line for each road from a module that must stay light to an import of torch, in whatever module it ends."""
    by_name = {module.name: module for module in modules}
    names, broken = set(by_name), []
    for start in modules:
        if not is_below(start.name, WITHOUT_TORCH):
            continue
        roads, seen = [[start]], {start.name}
        for road in roads:
            for target, line in road[-1].imports(names):
                if is_below(target, TORCH_AND_ITS_LIKE):
                    broken.append(f"{road[-1].path}:{line}: imports {target}: {' -> '.join(m.name for m in road)}")
                elif target in names - seen:
                    seen.add(target)
                    roads.append([*road, by_name[target]])
    return broken


def circles(modules: list[Module]) -> list[str]:
    """The circles among modules, each once, as `a -> b -> a`."""
    names = {module.name for module in modules}
    arrows = {
        module.name: sorted({target for target, _ in module.imports(names)} & names - {module.name})
        for module in modules
    }
    found, done = [], set()

    def visit(name: str, road: list[str]) -> None:
        if name in road:
            found.append(" -> ".join([*road[road.index(name) :], name]))
        elif name not in done:
            for target in arrows[name]:
                visit(target, [*road, name])
            done.add(name)

    for name in arrows:
        visit(name, [])
    return found


def full_inits(modules: list[Module]) -> list[str]:
    """One line for each `__init__.py` that holds more than a docstring, or none."""
    broken = []
    for module in modules:
        body = module.tree.body
        is_docstring = len(body) == 1 and ast.get_docstring(module.tree) is not None
        if module.path.endswith("__init__.py") and not is_docstring:
            broken.append(f"{module.path}: holds {len(body)} statements, expected a docstring only")
    return broken


def oversized(modules: list[Module]) -> list[str]:
    """One line for each installed file or function that is too long."""
    broken = []
    for module in modules:
        if module.top not in LAW:
            continue
        if (n_lines := len(module.source.splitlines())) > MAX_FILE_LINES:
            broken.append(
                f"{module.path}: {n_lines} lines, at most {MAX_FILE_LINES}: give one of its duties its own file"
            )
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if n_lines > MAX_FUNCTION_LINES:
                    broken.append(
                        f"{module.path}:{node.lineno}: {node.name} has {n_lines} lines, at most {MAX_FUNCTION_LINES}"
                    )
    return broken


CHECKS = (broken_imports, torch_in_front_end, circles, full_inits, oversized)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house(check) -> None:
    modules = read_modules(HOUSE)
    assert {module.top for module in modules} >= set(LAW)
    broken = check(modules)
    assert not broken, "\n" + "\n".join(broken)


GOOD = {
    "lsp/__init__.py": '"""Edge."""\n',
    "lsp/server.py": "import asyncio\nfrom context.plan import plan\nfrom daemon import protocol\nfrom lsp import wire\n",
    "lsp/wire.py": "import lsprotocol\n",
    "context/plan.py": "import os.path\n",
    "daemon/protocol.py": "import msgspec\n",
    "daemon/worker.py": "import torch\nfrom cache.store import Store\nimport model.network\nfrom . import protocol\n",
    "cache/store.py": "import numpy\n",
    "model/network.py": "import torch\n",
    "training/train.py": "import lsp.server, model.network, cache.store\nfrom tests import anything\n",
    "codestral_lsp_entry.py": "import os\n",
}

# (one file put into the good tree, what is said about it)
BAD = [
    ("lsp/a.py", "import cache", ["lsp/a.py:1: imports cache, allowed: context, daemon.protocol"]),
    ("lsp/a.py", "import daemon", ["lsp/a.py:1: imports daemon, allowed: context, daemon.protocol"]),
    (
        "lsp/a.py",
        "def f():\n    from cache import store",
        ["lsp/a.py:2: imports cache.store, allowed: context, daemon.protocol"],
    ),
    (
        "lsp/a.py",
        "import daemon.protocolled",
        ["lsp/a.py:1: imports daemon.protocolled, allowed: context, daemon.protocol"],
    ),
    (
        "context/a.py",
        "if TYPE_CHECKING:\n    from lsp.wire import x",
        ["context/a.py:2: imports lsp.wire, allowed: nothing of ours"],
    ),
    (
        "cache/a.py",
        "importlib.import_module('daemon.protocol')",
        ["cache/a.py:1: imports daemon.protocol, allowed: nothing of ours"],
    ),
    ("model/a.py", "from cache.store import Store", ["model/a.py:1: imports cache.store, allowed: nothing of ours"]),
    ("daemon/a.py", "import context.plan", ["daemon/a.py:1: imports context.plan, allowed: cache, model"]),
    (
        "daemon/a.py",
        "from training.train import main",
        ["daemon/a.py:1: imports training.train, allowed: cache, model"],
    ),
    ("model/a.py", "import tests.conftest", ["model/a.py:1: imports tests.conftest, allowed: nothing of ours"]),
    (
        "model/deep/a.py",
        "from .. import network\nfrom ...cache import store",
        ["model/deep/a.py:2: imports cache.store, allowed: nothing of ours"],
    ),
    (
        "codestral_lsp_entry.py",
        "import lsp.server",
        ["codestral_lsp_entry.py:1: imports lsp.server, allowed: nothing of ours"],
    ),
    (
        "context/plan.py",
        "import torch.nn",
        [
            "context/plan.py:1: imports torch.nn: lsp.server -> context.plan",
            "context/plan.py:1: imports torch.nn: context.plan",
        ],
    ),
    (
        "daemon/protocol.py",
        "def f():\n    import daemon.worker",
        [
            "daemon/worker.py:1: imports torch: lsp.server -> daemon.protocol -> daemon.worker",
            "model/network.py:1: imports torch: lsp.server -> daemon.protocol -> daemon.worker -> model.network",
            "daemon/worker.py:1: imports torch: daemon.protocol -> daemon.worker",
            "model/network.py:1: imports torch: daemon.protocol -> daemon.worker -> model.network",
            "daemon.protocol -> daemon.worker -> daemon.protocol",
        ],
    ),
    ("lsp/wire.py", "if TYPE_CHECKING:\n    import lsp.server", ["lsp.server -> lsp.wire -> lsp.server"]),
    (
        "cache/__init__.py",
        '"""Docstring."""\nfrom cache.store import Store',
        ["cache/__init__.py: holds 2 statements, expected a docstring only"],
    ),
    ("cache/__init__.py", "", ["cache/__init__.py: holds 0 statements, expected a docstring only"]),
    ("cache/a.py", "\n" * 401, ["cache/a.py: 401 lines, at most 400: give one of its duties its own file"]),
    ("cache/a.py", "class A:\n    async def f():\n" + "        0\n" * 60, ["cache/a.py:2: f has 61 lines, at most 60"]),
    ("cache/a.py", "def f():\n" + "    0\n" * 59 + "\n" * 340, []),
]


@pytest.mark.parametrize(("path", "source", "said"), [("cache/a.py", "", []), *BAD])
def test_the_checker(path: str, source: str, said: list[str], tmp_path: Path) -> None:
    for name, text in (GOOD | {path: source}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    modules = read_modules(tmp_path)
    assert [line for check in CHECKS for line in check(modules)] == said


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in requirements}


def test_every_dependency_is_declared_used_locked_and_explained() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))
    modules = [module for module in read_modules(HOUSE) if module.top in LAW]
    optional = names_of(project["project"]["optional-dependencies"]["cuda"])
    imported = {
        top
        for module in modules
        for top in (target.partition(".")[0] for target, _ in module.imports(set()))
        if top not in optional or not module.name.startswith("model.kernels_cuda")
    }
    runtime = names_of(project["project"]["dependencies"])
    # For each of these, the package and the import have one name, but for the dash.
    assert imported - set(LAW) - sys.stdlib_module_names == {name.replace("-", "_") for name in runtime}

    lock = [
        line for line in (HOUSE / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
    ]
    assert [line for line in lock if not re.fullmatch(r"[a-z0-9-]+==[0-9.]+(post[0-9]+)?", line)] == []
    declared = runtime.union(*map(names_of, project["project"]["optional-dependencies"].values()))
    assert declared - {line.partition("==")[0] for line in lock} == set()
    assert set(project["build-system"]["requires"]) <= set(lock)

    explained = re.findall(
        r"^\| ([a-z0-9-]+) \|", (HOUSE / "docs" / "dependencies.md").read_text(encoding="utf-8"), re.M
    )
    assert set(explained) - {"package"} == declared


def test_installed_packages_are_those_of_the_law() -> None:
    setuptools = tomllib.loads((HOUSE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {*setuptools["packages"], *setuptools["py-modules"]} == set(LAW)
