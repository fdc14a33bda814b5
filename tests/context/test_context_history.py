"""How often files are edited, on real git repositories."""

import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from context.history import HALF_LIFE_COMMITS, WIDE_COMMIT_FILES, commit_share, edit_weights, prior_weight, read_commits

Write = Callable[[Path, Mapping[str, str | bytes]], Path]
Git = Callable[..., str]


def commit(git: Git, root: Path, make_tree: Write, tree: Mapping[str, str | bytes], message: str = "x") -> None:
    make_tree(root, tree)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)


@pytest.fixture
def repository(tmp_path: Path, git: Git, make_tree: Write) -> Path:
    """Three commits: of a, b and d/c; of a; of a and d/c."""
    root = tmp_path / "work"
    root.mkdir()
    git(root, "init", "-q")
    commit(git, root, make_tree, {"a.py": "1", "b.py": "1", "d/c.py": "1"})
    commit(git, root, make_tree, {"a.py": "2"})
    commit(git, root, make_tree, {"a.py": "3", "d/c.py": "3"})
    return root


def edits(root: Path, *paths: str, max_commits: int = 2000) -> dict[str, float]:
    """What git adds to the prior."""
    weights = edit_weights(root, paths, max_commits=max_commits)
    return {path: weights[path] - prior_weight(path) for path in paths}


def test_recent_commits_count_more(repository: Path) -> None:
    old = [commit_share(age, n_files=1) for age in range(3)]
    assert edits(repository, "a.py", "b.py", "d/c.py", "none.py") == pytest.approx(
        {"a.py": sum(old), "b.py": old[2], "d/c.py": old[0] + old[2], "none.py": 0}
    )
    assert edits(repository, "a.py", "b.py", max_commits=2) == pytest.approx({"a.py": old[0] + old[1], "b.py": 0})


def test_the_paths_are_those_of_the_workspace(repository: Path) -> None:
    assert read_commits(repository / "d", max_commits=9) == [["c.py"], ["c.py"]]
    assert edits(repository / "d", "c.py", "a.py") == pytest.approx({"c.py": 1 + commit_share(1, n_files=1), "a.py": 0})


def test_shares() -> None:
    assert commit_share(0, n_files=1) == commit_share(0, n_files=WIDE_COMMIT_FILES) == 1
    assert commit_share(HALF_LIFE_COMMITS, n_files=1) == pytest.approx(0.5)
    assert commit_share(0, n_files=10 * WIDE_COMMIT_FILES) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "name", ["a b.py", "\n.py", "\n\nx.py", "ü/漢.py", "-n", "a\tb", '"q".py', "x\\y.py", ":(top)z.py", "*.py"]
)
def test_names_come_as_they_are(name: str, tmp_path: Path, git: Git, make_tree: Write) -> None:
    git(tmp_path, "init", "-q")
    commit(git, tmp_path, make_tree, {"first.py": "1", name: "1"})
    commit(git, tmp_path, make_tree, {name: "2"})
    assert [sorted(names) for names in read_commits(tmp_path, max_commits=9)] == [[name], sorted(["first.py", name])]


def test_a_new_file_counts_as_just_edited(repository: Path, make_tree: Write) -> None:
    make_tree(repository, {"new.py": "1", ".gitignore": "gone.py", "gone.py": "1"})
    assert edits(repository, "new.py", "gone.py") == pytest.approx({"new.py": 1, "gone.py": 0})


def test_merges_and_renames(repository: Path, git: Git, make_tree: Write) -> None:
    git(repository, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(git, repository, make_tree, {"b.py": "side"})
    git(repository, "checkout", "-q", "main")
    git(repository, "merge", "-q", "side", "-m", "merge")
    git(repository, "mv", "b.py", "e.py")
    git(repository, "commit", "-q", "-m", "move")
    assert sorted(read_commits(repository, max_commits=2)[0]) == ["b.py", "e.py"]
    assert len(read_commits(repository, max_commits=99)) == 5


PRIOR = {"a.py": prior_weight("a.py"), "b.md": prior_weight("b.md")}


def no_repository(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def no_commits(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "init", "-q")


def no_git(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "init", "-q")
    monkeypatch.setenv("PATH", str(root))


def a_damaged_repository(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    git(root, "init", "-q")
    (root / ".git" / "HEAD").write_bytes(b"\xff nonsense")


def no_folder(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(root)


def a_git_that_hangs(root: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    program = root.parent / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("context.history.TIMEOUT_S", 0.3)


@pytest.mark.parametrize(
    "fault", [no_repository, no_commits, no_git, a_damaged_repository, no_folder, a_git_that_hangs]
)
def test_without_a_history_the_prior_is_all(
    fault: Callable[..., None], tmp_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "work"
    root.mkdir()
    fault(root, git, monkeypatch)
    start = time.monotonic()
    assert edit_weights(root, PRIOR) == PRIOR
    assert time.monotonic() - start < 10  # of the 60 s of the one that hangs


def test_a_shallow_clone(repository: Path, tmp_path: Path, git: Git) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", "shallow")
    # git shows the oldest commit it has as if all files had been added by it.
    assert edits(tmp_path / "shallow", "a.py", "b.py") == pytest.approx({"a.py": 1, "b.py": 1})


def test_the_prior() -> None:
    by_kind = [prior_weight(path) for path in ("README.md", "a.json", "a.py", "test_a.py")]
    assert by_kind == sorted(by_kind, reverse=True)
    assert prior_weight("a.py", 100) < prior_weight("a.py", 10_000) < 100 * prior_weight("a.py", 100)
    assert prior_weight("a.py", 0) > 0
    assert edit_weights(Path("/none"), ["a.py", "b.py"], sizes={"a.py": 10}) == {
        "a.py": prior_weight("a.py", 10),
        "b.py": prior_weight("b.py"),
    }


def test_a_repository_cannot_make_git_run_a_program(repository: Path, tmp_path: Path, git: Git) -> None:
    """Every setting by which a log or a list could start something, each with a program that leaves a trace."""
    trace, program = tmp_path / "trace", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {trace}\nexit 0\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (repository / ".gitattributes").write_text("* diff=evil filter=evil textconv=evil\n")
    settings = """core.pager core.fsmonitor core.editor core.sshCommand gpg.program gpg.ssh.program diff.external pager.log
        diff.evil.command diff.evil.textconv filter.evil.clean filter.evil.smudge filter.evil.process credential.helper
        core.alternateRefsCommand interactive.diffFilter"""
    for name in settings.split():
        git(repository, "config", name, str(program))
    for name in ("log.showSignature", "log.follow", "log.showRoot", "commit.gpgSign"):
        git(repository, "config", name, "true")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "format.pretty", "raw")
    git(repository, "config", "diff.renames", "copies")
    git(repository, "config", "diff.noprefix", "true")
    # A commit that says it is signed, so that a check of signatures would run gpg.program.
    tree = git(repository, "rev-parse", "HEAD^{tree}").strip()
    parent = git(repository, "rev-parse", "HEAD").strip()
    who = "t <t@example.org> 1700000000 +0000"
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
    raw = repository / "raw"
    raw.write_text(f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n{signature}\n\nsigned\n")
    signed = git(repository, "hash-object", "-t", "commit", "-w", "raw").strip()
    git(repository, "update-ref", "refs/heads/main", signed)
    raw.unlink()
    trace.unlink(missing_ok=True)

    assert [sorted(names) for names in read_commits(repository, max_commits=9)] == [
        ["a.py", "d/c.py"],
        ["a.py"],
        ["a.py", "b.py", "d/c.py"],
    ]
    assert edit_weights(repository, ["a.py"])["a.py"] > 2
    assert not trace.exists()
    git(repository, "-c", "core.pager=cat", "log", "-1")  # the trap does spring where nobody takes care
    assert trace.exists()
