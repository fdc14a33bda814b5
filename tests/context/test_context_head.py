"""The mark of what is checked out: other with another commit or branch, the same otherwise; on real repositories."""

from collections.abc import Callable
from pathlib import Path

from context.head import head_mark, is_checking_out

Git = Callable[..., str]


def commit(git: Git, root: Path, text: str) -> None:
    (root / "a.py").write_text(text)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "m")


def test_marks(tmp_path: Path, git: Git) -> None:
    root = tmp_path / "w"
    root.mkdir()
    assert head_mark(root) is None
    git(root, "init", "-q")
    marks = [head_mark(root)]
    commit(git, root, "1\n")
    marks.append(head_mark(root))
    (root / "b.py").write_text("not committed\n")
    git(root, "add", "b.py")
    assert head_mark(root) == marks[-1]
    commit(git, root, "2\n")
    marks.append(head_mark(root))
    git(root, "checkout", "-q", "-b", "other")
    marks.append(head_mark(root))
    git(root, "checkout", "-q", "--detach", "HEAD~1")
    marks.append(head_mark(root))
    assert None not in marks
    assert len(set(marks)) == 5
    git(root, "checkout", "-q", "main")
    assert head_mark(root) == marks[2]


def test_packed_branches_worktrees_and_submodules(tmp_path: Path, git: Git) -> None:
    root, tree = tmp_path / "w", tmp_path / "tree"
    root.mkdir()
    git(root, "init", "-q")
    commit(git, root, "1\n")
    git(root, "worktree", "add", "-q", "-b", "side", str(tree))
    before = head_mark(tree)
    commit(git, root, "2\n")
    assert head_mark(tree) == before  # another branch of the same repository
    commit(git, tree, "3\n")
    assert head_mark(tree) not in (before, None)
    git(root, "pack-refs", "--all")
    packed = head_mark(root)
    assert packed is not None
    git(root, "checkout", "-q", "--detach")
    assert head_mark(root) not in (packed, None)


def test_odd_heads_are_no_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for content in (b"", b"\xff\xfe", b"ref: ../../../etc/passwd\n", b"x" * 10_000):
        (tmp_path / ".git/HEAD").write_bytes(content)
        head_mark(tmp_path)
    (tmp_path / ".git/HEAD").unlink()
    (tmp_path / ".git/HEAD").mkdir()
    assert head_mark(tmp_path) is None
    (tmp_path / "x").mkdir()
    (tmp_path / "x/.git").write_text("gitdir: nowhere\n")
    assert head_mark(tmp_path / "x") is None


def test_a_checkout_under_way_holds_a_lock(tmp_path: Path, git: Git) -> None:
    git(tmp_path, "init", "-q")
    assert not is_checking_out(tmp_path)
    (tmp_path / ".git/index.lock").touch()
    assert is_checking_out(tmp_path)
    assert not is_checking_out(tmp_path / "nowhere")
