"""Which files of a workspace are read: git, ignore rules, links and special files, on real folders."""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from context.repository import Snapshot, find_root, read_repository

Write = Callable[[Path, Mapping[str, str | bytes]], Path]
Start = Callable[[Path], Path]
Git = Callable[..., str]


def paths(snapshot: Snapshot) -> list[str]:
    return [file.path for file in snapshot.files]


def reason(snapshot: Snapshot, path: str) -> str:
    """Why `path` was left out; a path must have one reason only and be in one of the two lists only."""
    (why,) = [left.reason for left in snapshot.left_out if left.path == path]
    assert path not in paths(snapshot)
    assert "\n" not in why
    return why


RULES: list[tuple[str, dict[str, str], list[str], list[str]]] = [
    ("a name", {".gitignore": "gone.py"}, ["a.py", "d/b.py"], ["gone.py", "d/gone.py"]),
    ("a path is anchored", {".gitignore": "/gone.py\nd/e"}, ["d/gone.py", "x/d/e"], ["gone.py", "d/e"]),
    ("a folder", {".gitignore": "out/"}, ["a/out"], ["out/x.py", "d/out/y.py"]),
    ("a negation", {".gitignore": "*.txt\n!keep.txt"}, ["keep.txt", "d/keep.txt"], ["a.txt", "d/a.txt"]),
    ("no return into an ignored folder", {".gitignore": "out/\n!out/keep.py"}, ["a.py"], ["out/keep.py"]),
    ("a whitelist", {".gitignore": "*\n!*/\n!*.py"}, ["a.py", "d/e/b.py"], ["a.md", "d/e/b.md"]),
    ("nested rules", {"d/.gitignore": "gone.py"}, ["gone.py", "e/gone.py"], ["d/gone.py", "d/e/gone.py"]),
    ("a nested negation", {".gitignore": "*.md", "d/.gitignore": "!a.md"}, ["d/a.md", "d/e/a.md"], ["a.md", "d/b.md"]),
    ("stars over folders", {".gitignore": "d/**/x.py\ne/**"}, ["x.py"], ["d/x.py", "d/a/b/x.py", "e/a", "e/f/b"]),
    ("classes and marks", {".gitignore": "[ab]?.py\n[[:digit:]]*"}, ["c1.py"], ["a1.py", "b2.py", "7up"]),
    (
        "escapes and comments",
        {".gitignore": "#a.py\n\\#b.py\n\\!c.py\nend\\ "},
        ["#a.py", "end"],
        ["#b.py", "!c.py", "end "],
    ),
    ("nonsense", {".gitignore": "!\n\\\n[\n/\n\ngone.py\r\n"}, ["a.py", "["], ["gone.py"]),
    (
        "our own rules",
        {".codestralignore": "private/\n*.md\n!ok.md"},
        ["a.py", "ok.md"],
        ["private/x.py", "d/private/y.py", "b.md"],
    ),
    ("our own nested rules", {"d/.codestralignore": "x.py"}, ["x.py"], ["d/x.py", "d/e/x.py"]),
]


@pytest.mark.parametrize(("rules", "kept", "ignored"), [row[1:] for row in RULES], ids=[row[0] for row in RULES])
def test_rules(
    rules: dict[str, str], kept: list[str], ignored: list[str], tmp_path: Path, start: Start, make_tree: Write
) -> None:
    root = make_tree(start(tmp_path / "w"), dict.fromkeys([*kept, *ignored], "text\n") | rules)
    read = paths(read_repository(root))
    assert [path for path in kept if path not in read] == []
    assert [path for path in ignored if path in read] == []


def test_who_listed(tmp_path: Path, start: Start, mode: str, make_tree: Write) -> None:
    snapshot = read_repository(make_tree(start(tmp_path / "w"), {"a.py": "a\n"}))
    assert paths(snapshot) == ["a.py"]
    if mode == "git refuses":
        assert snapshot.listed_by.startswith("walk (fatal: detected dubious ownership")
    else:
        assert snapshot.listed_by == mode


def test_git_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path, {"a.py": "a\n", "b.py": "b\n", "c.py": "c\n", ".gitignore": "b.py\n"})
    git(root, "init", "-q")
    (root / ".git/info/exclude").write_text("c.py\n")
    # A program of the workspace called git, found through "." in PATH, must not run.
    (root / "git").write_text(f"#!/bin/sh\ntouch {root}/ran\n")
    (root / "git").chmod(0o755)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f".{os.pathsep}{tmp_path / 'nowhere'}")
    snapshot = read_repository(root)
    assert paths(snapshot) == [".gitignore", "a.py", "git"]
    assert snapshot.listed_by == "walk (git is not installed)"
    assert not (root / "ran").exists()


def test_settings_of_a_repository_run_nothing(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path / "w", {"a.py": "a\n"})
    program = make_tree(tmp_path, {"evil": f"#!/bin/sh\ntouch {tmp_path}/ran\n"}) / "evil"
    program.chmod(0o755)
    git(root, "init", "-q")
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "core.editor", "filter.evil.clean"):
        git(root, "config", name, str(program))
    git(root, "config", "core.hooksPath", str(tmp_path))
    assert paths(read_repository(root)) == ["a.py"]
    assert not (tmp_path / "ran").exists()


def test_variables_of_a_git_hook_do_not_lead_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git, make_tree: Write
) -> None:
    for name in ("one", "two"):
        git(make_tree(tmp_path / name, {f"{name}.py": "x\n"}), "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "two/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "two"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "two/.git/index"))
    assert paths(read_repository(tmp_path / "one")) == ["one.py"]


def test_tracked_files_count_though_ignored_and_deleted_ones_are_named(
    tmp_path: Path, git: Git, make_tree: Write
) -> None:
    root = make_tree(tmp_path, {"kept.log.py": "x\n", "gone.py": "x\n", ".gitignore": "kept*\n"})
    git(root, "init", "-q")
    git(root, "add", "--force", ".")
    (root / "gone.py").unlink()
    snapshot = read_repository(root)
    assert paths(snapshot) == [".gitignore", "kept.log.py"]
    assert reason(snapshot, "gone.py") == "no such file"


def test_a_conflict_lists_a_file_once(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path, {"a.py": "base\n"})
    git(root, "init", "-q")
    for branch, text in (("main", "base\n"), ("left", "left\n"), ("right", "right\n")):
        if branch != "main":
            git(root, "checkout", "-q", "-b", branch, "main")
        (root / "a.py").write_text(text)
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", branch)
    with pytest.raises(Exception, match="merge"):
        git(root, "merge", "left")
    assert paths(read_repository(root)) == ["a.py"]


def test_a_subfolder_shows_its_own_files_under_the_rules_above(
    tmp_path: Path, start: Start, make_tree: Write, mode: str
) -> None:
    tree = {
        "out.py": "x\n",
        ".gitignore": "*.log.py\n",
        "sub/in.py": "x\n",
        "sub/a.log.py": "x\n",
        "sub/deep/b.py": "x\n",
    }
    root = make_tree(start(tmp_path / "w"), tree | {".codestralignore": "sub/deep\n"})
    expected = ["a.log.py", "deep/b.py", "in.py"] if mode == "walk" else ["in.py"]
    assert paths(read_repository(root / "sub")) == expected


@pytest.mark.parametrize("inner", ["", "/deeper"])
def test_an_ignored_workspace_is_walked(inner: str, tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(
        tmp_path, {".gitignore": "ignored/\n", f"ignored{inner}/a.py": "x\n", f"ignored{inner}/b.log": "x\n"}
    )
    git(root, "init", "-q")
    snapshot = read_repository(root / f"ignored{inner}")
    assert paths(snapshot) == ["a.py"]
    assert snapshot.listed_by == "walk (the git repository around the folder ignores it)"


def test_our_own_rules_above_hide_a_workspace(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path, {".codestralignore": "private/\n", "private/a.py": "x\n"})
    git(root, "init", "-q")
    snapshot = read_repository(root / "private")
    assert (paths(snapshot), reason(snapshot, "./")) == ([], "ignored by .codestralignore")


@pytest.mark.parametrize("unreadable", ["link", "folder"])
def test_our_own_rules_that_cannot_be_read_hide_their_folder(
    unreadable: str, tmp_path: Path, start: Start, make_tree: Write
) -> None:
    root = make_tree(start(tmp_path / "w"), {"a.py": "x\n", "d/b.py": "x\n", "d/e/c.py": "x\n", "rules": "b.py\n"})
    if unreadable == "link":
        (root / "d/.codestralignore").symlink_to("../rules")
    else:
        (root / "d/.codestralignore").mkdir()
    assert paths(read_repository(root)) == ["a.py", "rules"]


def test_folders_deeper_than_python_calls(tmp_path: Path, start: Start, make_tree: Write) -> None:
    deep = "/".join(["a"] * 400)
    root = make_tree(start(tmp_path / "w"), {f"{deep}/b.py": "x\n"})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        assert paths(read_repository(root)) == [f"{deep}/b.py"]
    finally:
        sys.setrecursionlimit(limit)


def test_many_repositories_inside(tmp_path: Path, make_tree: Write) -> None:
    names = [f"{number:03}" for number in range(203)]
    # A .git without content: git refuses it, so each is walked.
    root = make_tree(tmp_path, {f"{name}/.git": "no\n" for name in names} | {f"{name}/a.py": "x\n" for name in names})
    snapshot = read_repository(root)
    assert paths(snapshot) == [f"{name}/a.py" for name in names[:200]]
    assert [left.path for left in snapshot.left_out] == ["200/", "201/", "202/"]


def test_submodules_and_repositories_inside(tmp_path: Path, git: Git, make_tree: Write) -> None:
    library = make_tree(tmp_path / "library", {"lib.py": "x\n", ".gitignore": "skip.py\n"})
    git(library, "init", "-q")
    git(library, "add", ".")
    git(library, "commit", "-q", "-m", "x")
    root = make_tree(
        tmp_path / "w", {"a.py": "x\n", "own/b.py": "x\n", "own/skip.py": "x\n", "own/.gitignore": "skip.py"}
    )
    git(root, "init", "-q")
    for name in ("sub", "empty"):
        git(root, "submodule", "add", "-q", str(library), name)
    git(root, "submodule", "deinit", "-q", "--force", "empty")
    make_tree(root, {"sub/skip.py": "x\n", "sub/new.py": "x\n"})
    git(root / "own", "init", "-q")
    snapshot = read_repository(root)
    assert [path for path in paths(snapshot) if path.endswith(".py")] == [
        "a.py",
        "own/b.py",
        "sub/lib.py",
        "sub/new.py",
    ]
    assert reason(snapshot, "empty/") == "a submodule that is not checked out"
    # A folder of several clones, itself no repository: each keeps its own rules.
    clones = paths(read_repository(tmp_path))
    assert [path for path in clones if "skip" in path] == []
    assert "w/own/b.py" in clones


def test_a_worktree(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path / "w", {"a.py": "x\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x")
    git(root, "worktree", "add", "-q", str(tmp_path / "tree"))
    snapshot = read_repository(tmp_path / "tree")
    assert (paths(snapshot), snapshot.listed_by) == (["a.py"], "git")
    assert find_root(tmp_path / "tree" / "a.py") == (tmp_path / "tree").resolve()


def test_links_are_never_followed(tmp_path: Path, start: Start, make_tree: Write) -> None:
    make_tree(tmp_path / "outside", {"canary.py": "CANARY\n", "folder/canary.py": "CANARY\n"})
    root = make_tree(start(tmp_path / "w"), {"a.py": "a\n", "folder/b.py": "b\n", ".env": "CANARY=1\n"})
    links = {
        "out.py": "../outside/canary.py",
        "absolute.py": str(tmp_path / "outside/canary.py"),
        "out_folder": "../outside/folder",
        "in.py": "a.py",
        "innocent.py": ".env",
        "in_folder": "folder",
        "up": ".",
        "loop": "loop",
        "nowhere": "nothing",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    snapshot = read_repository(root)
    assert paths(snapshot) == ["a.py", "folder/b.py"]
    assert "CANARY" not in "".join(file.text for file in snapshot.files)
    assert {reason(snapshot, name) for name in ("out.py", "absolute.py", "out_folder")} == {
        "a symbolic link that leads out of the workspace"
    }
    assert reason(snapshot, "in_folder") == "a symbolic link to a folder"
    assert all("symbolic link" in reason(snapshot, name) for name in links)


def test_a_tracked_folder_that_became_a_link(tmp_path: Path, git: Git, make_tree: Write) -> None:
    make_tree(tmp_path / "outside", {"b.py": "CANARY\n"})
    root = make_tree(tmp_path / "w", {"a.py": "a\n", "folder/b.py": "b\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    (root / "folder/b.py").unlink()
    (root / "folder").rmdir()
    (root / "folder").symlink_to("../outside")
    snapshot = read_repository(root)
    assert paths(snapshot) == ["a.py"]
    assert reason(snapshot, "folder/b.py") == "folder/ is reached through a symbolic link"


def test_a_workspace_opened_through_a_link(tmp_path: Path, start: Start, make_tree: Write) -> None:
    root = make_tree(start(tmp_path / "w"), {"a.py": "a\n"})
    (tmp_path / "link").symlink_to(root)
    snapshot = read_repository(tmp_path / "link")
    assert (paths(snapshot), snapshot.root) == (["a.py"], root.resolve())


def test_special_files_are_not_opened(tmp_path: Path, start: Start, mode: str, make_tree: Write) -> None:
    root = make_tree(start(tmp_path / "w"), {"a.py": "a\n"})
    os.mkfifo(root / "pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.py"))  # a short path: there is a limit of about 100 characters
        snapshot = read_repository(root)
    assert paths(snapshot) == ["a.py"]
    if mode != "git":  # git does not list them at all
        assert reason(snapshot, "pipe.py") == "a FIFO, expected a regular file"
        assert reason(snapshot, "socket.py") == "a socket, expected a regular file"


def test_a_tracked_file_that_became_a_fifo(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path, {"a.py": "a\n"})
    git(root, "init", "-q")
    git(root, "add", ".")
    (root / "a.py").unlink()
    os.mkfifo(root / "a.py")
    assert reason(read_repository(root), "a.py") == "a FIFO, expected a regular file"


def test_odd_names(tmp_path: Path, start: Start, make_tree: Write) -> None:
    names = [
        " lead.py",
        "a b.py",
        "a\nb.py",
        "a\tb.py",
        "a\\b.py",
        "d'é/日本.py",
        "q'uo\"te.py",
        "$(x).py",
        "-rf.py",
        "é.py",
    ]
    root = make_tree(start(tmp_path / "w"), dict.fromkeys(names, "x\n"))
    (Path(os.fsdecode(os.fsencode(root) + b"/bad\xff.py"))).write_text("x\n")
    snapshot = read_repository(root)
    assert paths(snapshot) == sorted(names)
    assert reason(snapshot, "bad\\udcff.py") == "its name is not UTF-8"


def test_folders_of_tools_are_not_entered(tmp_path: Path, make_tree: Write) -> None:
    root = make_tree(
        tmp_path, {"a.py": "x\n", "node_modules/x/i.js": "x\n", "lib/site-packages/y.py": "x\n", ".git/config": "x\n"}
    )
    snapshot = read_repository(root)
    assert paths(snapshot) == ["a.py"]
    assert [left.path for left in snapshot.left_out] == ["lib/site-packages/", "node_modules/"]


@pytest.mark.parametrize("place", [".ssh", ".aws/sso", "w/.git/hooks"])
def test_secret_places_opened_as_a_workspace(place: str, tmp_path: Path, make_tree: Write) -> None:
    snapshot = read_repository(make_tree(tmp_path / place, {"config": "CANARY\n"}))
    assert (paths(snapshot), len(snapshot.left_out)) == ([], 1)


def test_find_root(tmp_path: Path, git: Git, make_tree: Write) -> None:
    root = make_tree(tmp_path / "w", {"d/e/a.py": "x\n", "hollow/.git/": "", "hollow/b.py": "x\n"}).resolve()
    plain = make_tree(tmp_path / "plain", {"d/a.py": "x\n"}).resolve()
    git(root, "init", "-q")
    git(root, "config", "core.worktree", "/")  # must not widen the workspace
    (tmp_path / "link").symlink_to(root / "d")
    rows = [
        (root, root),
        (root / "d/e", root),
        (root / "d/e/a.py", root),
        (root / "d/e/missing.py", root),
        (root / "hollow/b.py", root),
        (tmp_path / "link/e", root),
        (plain / "d", plain / "d"),
        (plain / "d/a.py", plain / "d"),
    ]
    assert [(path, find_root(path)) for path, _ in rows] == rows
