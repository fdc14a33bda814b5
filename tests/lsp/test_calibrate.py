"""`codestral-lsp calibrate`: which holes are cut, what it may read, and the command on a real repository with the bundled model."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from click import ClickException
from click.testing import CliRunner
from lsp_client import PATIENCE_S
from lsp_place import Place, program, ready, uri_of, wait_until, write_repository

from context.kinds import is_code
from context.listing import tracked_files
from context.repository import SourceFile
from context.window import DEFAULT, WindowSize
from daemon.protocol import CalibrationResult, CalibrationRow, Health, ModelCard, WindowSizes
from lsp.calibrate import job_of, report_of
from lsp.holes import HELD_OUT_SHARE, MIN_TRUTH, PLACES, WINDOWS, Hole, cut_holes, requests_for
from lsp.session import window_size

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
NAMES = ("bisect.py", "fnmatch.py", "heapq.py", "json/decoder.py", "json/encoder.py", "shlex.py", "textwrap.py")
TEXTS = {name: (STANDARD_LIBRARY / name).read_text(encoding="utf-8") for name in NAMES}
FILES = [SourceFile(name, text) for name, text in TEXTS.items()]
SECRET = "AKIAIOSFODNN7EXAMPLE_and_more"


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


@pytest.fixture
def repository(place: Place) -> Path:
    """Real programs, tracked, with things beside them that are not to be read or not to be cut."""
    folder = place.root / "programs"
    ignored = {".gitignore": "ignored.py\n", "ignored.py": TEXTS["shlex.py"] + f"# {SECRET}\n"}
    write_repository(
        folder, TEXTS | ignored | {".env": f"KEY={SECRET}\n" * 30, "data.json": "[\n" + "1,\n" * 60 + "1]\n"}
    )
    git(folder, "add", "-f", *TEXTS, ".gitignore", ".env", "data.json")
    (folder / "untracked.py").write_text(TEXTS["heapq.py"])
    return folder


# Holes.


def check_hole(hole: Hole, text: str) -> None:
    """It is the rest of a line, at a place where someone could be typing, and the rest of the file is as it was."""
    assert hole.text[: hole.offset] + hole.truth + hole.text[hole.offset :] == text
    assert len(hole.truth) >= MIN_TRUTH
    assert "\n" not in hole.truth
    assert hole.truth == hole.truth.rstrip()
    assert hole.text[hole.offset :].partition("\n")[0].strip() == ""
    before = hole.text[hole.text.rfind("\n", 0, hole.offset) + 1 : hole.offset]
    if hole.where == "start":
        assert before.strip() == ""
        assert not hole.truth[0].isspace()
    elif hole.where == "inside":
        assert (before[-1] + hole.truth[0]).isidentifier() or before[-1].isalnum()
    else:
        assert before.strip()
        assert not hole.truth[0].isspace()


@pytest.mark.parametrize("n_holes", [1, 2, 3, 12, 40])
def test_holes_are_cut_where_people_type(n_holes: int) -> None:
    holes = cut_holes(FILES, n_holes=n_holes, seed=0)
    assert len(holes) == n_holes
    for hole in holes:
        check_hole(hole, TEXTS[hole.path])
    assert len({hole.path for hole in holes}) <= max(1, int(HELD_OUT_SHARE * len(FILES)))
    counts = [sum(hole.where == where for hole in holes) for where in PLACES]
    assert max(counts) - min(counts) <= 2
    assert len({(hole.path, hole.text.count("\n", 0, hole.offset)) for hole in holes}) == n_holes  # a line has one hole


@pytest.mark.parametrize(
    ("n_holes", "n_repository", "n_files"),
    [(24, 48, 24), (4, 8, 4), (40, 20, 10), (7, 100, 7), (3, 2, 1), (24, 30, 15)],
)
def test_holes_are_spread_over_many_files(n_holes: int, n_repository: int, n_files: int) -> None:
    files = [SourceFile(f"{n}.py", TEXTS["shlex.py"]) for n in range(n_repository)]
    for seed in range(3):
        holes = cut_holes(files, n_holes=n_holes, seed=seed)
        by_file = Counter(hole.path for hole in holes)
        assert (len(holes), len(by_file)) == (n_holes, n_files)
        assert max(by_file.values()) <= n_holes // n_files + 1
    # Small ones leave theirs to others, not all to one.
    small = [SourceFile(f"s{n}.py", "x = 1\n" * 10 + f"y_{n} = 1\n") for n in range(n_repository)]
    by_file = Counter(hole.path for hole in cut_holes([*files, *small], n_holes=n_holes, seed=0))
    assert max(by_file.values()) <= n_holes // n_files + 1


def test_the_same_seed_cuts_the_same_holes() -> None:
    first, again, other = (cut_holes(FILES, n_holes=20, seed=seed) for seed in (0, 0, 1))
    assert first == again == cut_holes(FILES[::-1], n_holes=20, seed=0)
    assert first != other


@pytest.mark.parametrize(
    ("files", "n"),
    [
        ([], 0),
        ([SourceFile("a.py", "x = 1\n")], 0),  # too short
        ([SourceFile("a.py", "# only words\n\n" * 50)], 0),
        ([SourceFile("a.py", "x = 1\n" * 50)], 9),
        ([SourceFile("a.md", "Some words in a line.\n" * 50)], 9),  # better than nothing
    ],
)
def test_small_repositories(files: list[SourceFile], n: int) -> None:
    assert len(cut_holes(files, n_holes=9, seed=0)) == n


def test_programs_come_before_other_files() -> None:
    prose = [SourceFile(f"{n}.md", "Some words in a line.\n" * 50) for n in range(50)]
    assert {hole.path for hole in cut_holes([*prose, *FILES], n_holes=20, seed=0)} <= set(TEXTS)
    names = [("a.py", True), ("tests/a.rs", True), ("a.md", False), ("a.json", False), ("LICENSE", False)]
    assert [(name, is_code(name)) for name, _ in names] == names


def test_a_hole_is_asked_as_the_product_asks() -> None:
    for hole in cut_holes(FILES, n_holes=9, seed=3):
        made = requests_for(hole)
        assert len(made) == len(WINDOWS)
        for request, size in zip(made, WINDOWS, strict=True):
            assert request.head + request.prompt == hole.text[: hole.offset]
            assert len(request.suffix) <= size.suffix_chars
            assert hole.text[hole.offset :].lstrip().startswith(request.suffix.lstrip()) or not request.suffix.strip()
            assert (request.path, request.rest_of_line.strip(), request.budget_ms) == (hole.path, "", None)
    assert WINDOWS[0] == DEFAULT


# What may be read.


def test_holes_are_in_tracked_files_and_their_files_are_no_context(repository: Path) -> None:
    documents, holes = job_of(repository, n_holes=12, seed=0)
    holed, read = {hole.path for hole in holes}, {document.path for document in documents}
    assert holed <= set(TEXTS)
    assert not holed & read
    assert "untracked.py" in read  # as when it completes
    assert not {"ignored.py", ".env"} & (holed | read)
    job = msgspec.json.encode([documents, [requests_for(hole) for hole in holes]])
    assert SECRET.encode() not in job


def test_what_git_tracks(repository: Path, tmp_path: Path) -> None:
    assert tracked_files(repository) == {*TEXTS, ".gitignore", ".env", "data.json"}
    assert tracked_files(repository / "json") == {"decoder.py", "encoder.py"}
    assert tracked_files(tmp_path) is None


def test_nothing_to_cut_is_one_line(place: Place) -> None:
    git(place.repository, "add", ".")
    with pytest.raises(ClickException, match=r"no tracked file is long enough for a hole, expected some of 10 lines"):
        job_of(place.repository, n_holes=9, seed=0)


# What is said.

WINDOW = WindowSizes(step=1200, suffix_chars=400)
ROW = CalibrationRow(
    strategy="spm",
    window=WINDOW,
    n_holes=40,
    exact=0.25,
    exact_error=0.07,
    similarity=0.5,
    similarity_error=0.05,
    gain=0.0,
    gain_error=0.0,
    log_probability=-1.5,
    tokens_per_move=300.0,
    ms_per_move=40.0,
    tokens_per_key=1.6,
    ms_per_key=8.0,
)
RESULT = CalibrationResult(
    model="bundled",
    precision="fp32",
    rows=[ROW, msgspec.structs.replace(ROW, strategy="plain", gain=0.1, gain_error=None, log_probability=None)],
    strategy="plain",
    window=WINDOW,
    default_strategy="spm",
    default_window=WINDOW,
    notes=["a note"],
    feed_tokens_per_s=6000.0,
    decode_tokens_per_s=300.0,
    context_tokens=12_345,
    n_holes=40,
    profile="/cache/profiles/1.json",
)


def test_the_table() -> None:
    assert report_of(RESULT) == [
        "model bundled (fp32) on this machine: feeds 6,000 and decodes 300 tokens a second",
        "40 holes, 12,345 tokens of other files as context; ± is one standard error",
        "",
        "   strategy  window    exact line  similarity     gain       nats/token  key               move",
        "   spm       1200+400  25 % ± 7    0.500 ± 0.050  (default)  -1.50       1.6 tokens, 8 ms  300 tokens, 40 ms",
        "*  plain     1200+400  25 % ± 7    0.500 ± 0.050  +0.100     -           1.6 tokens, 8 ms  300 tokens, 40 ms",
        "window A+B: characters above+below the cursor's line; nats/token: log-probability of the true rest, nearer 0 is better; "
        "key, move: what one more typed character costs, and a cursor somewhere new",
        "",
        "kept: plain with window 1200+400; the profile is the model's, for every repository",
        "profile: /cache/profiles/1.json",
        "- a note",
    ]
    default = msgspec.structs.replace(RESULT, strategy="spm")
    assert "kept: spm with window 1200+400, the default; the profile is the model's, for every repository" in report_of(
        default
    )
    few = report_of(msgspec.structs.replace(RESULT, n_holes=1, profile=""))
    assert few[1].startswith("1 hole, ")
    assert few[-2:] == ["nothing was kept", "- a note"]


# What the front end makes of it.


def health(window: WindowSizes | None) -> Health:
    card = ModelCard(id="m", bytes_per_token=3.0, max_context_tokens=10, window=window)
    return Health(service="codestral-lsp", protocol=1, version="0", pid=1, state="ready", model=card)


def test_the_window_is_the_daemons_if_it_has_one() -> None:
    assert window_size(health(None)) == DEFAULT
    assert window_size(health(WindowSizes(step=7, suffix_chars=9))) == WindowSize(step=7, suffix_chars=9)


@pytest.mark.parametrize("size", [None, WindowSize(step=120, suffix_chars=40)])
def test_requests_have_the_daemons_window(place: Place, size: WindowSize | None) -> None:
    """In the editor and on the command line."""
    env = {"STUB_WINDOW": f'{{"step": {size.step}, "suffix_chars": {size.suffix_chars}}}'} if size else {}
    expected = size or DEFAULT
    text = "x = 1\n" * 300
    (place.repository / "b.py").write_text(text)
    client = ready(place, **env)
    client.open(uri_of(place), text)
    client.suggest(uri_of(place), 150, 4, invoked=True)
    place.run("complete", "b.py:151:5", **env)
    for asked in place.wait_events("complete", 2):
        assert expected.suffix_chars - 6 <= len(asked["suffix"]) <= expected.suffix_chars
        assert asked["head"] + asked["prompt"] == text[: 150 * 6 + 4]
        assert expected.step <= len(asked["prompt"]) <= 2 * expected.step + 6


# The command itself, with the bundled model.


def calibrate(place: Place, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(), "calibrate", *arguments],
        env=place.env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
    )


def profiles(place: Place) -> list[Path]:
    return sorted((place.root / "home").rglob("profiles/*"))


def test_on_a_repository_spm_is_kept_for_the_bundled_model(place: Place, repository: Path) -> None:
    """It was trained for that. Within a minute on a quiet machine; a daemon that runs is ended, so that the next one knows."""
    assert place.run("complete", "b.py:2:5").returncode == 0  # starts the stub
    started = time.monotonic()
    done = calibrate(place, "--holes", "24", "--json", cwd=repository / "json")
    print(f"{time.monotonic() - started:.1f} s")
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout, type=CalibrationResult)
    assert (result.strategy, result.n_holes, result.default_strategy) == ("spm", 24, "spm")
    by_strategy = {row.strategy: row for row in result.rows if row.window == result.default_window}
    assert set(by_strategy) == {"spm", "instruct", "plain"}
    for row in result.rows:
        assert row.tokens_per_key <= 16
        assert row.gain <= 2.5 * (row.gain_error or 0.0) or row.strategy == "spm"
    (profile,) = profiles(place)
    assert (str(profile), oct(profile.stat().st_mode & 0o777)) == (result.profile, "0o600")
    assert json.loads(profile.read_text())["strategy"] == "spm"
    assert "24 holes in " in done.stderr
    assert "asking as instruct" in done.stderr
    assert "1 running daemon of this model stopped: the next one uses this" in done.stderr
    assert "\r" not in done.stderr  # no terminal is there to rewrite a line


def test_a_table_for_people(place: Place, repository: Path) -> None:
    done = calibrate(place, ".", "--holes", "2", cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model bundled (")
    assert "\n*  spm " in done.stdout
    assert "2 holes are too few to choose by: fewer than 20; nothing was kept" in done.stdout
    assert "\nnothing was kept\n" in done.stdout
    assert f"{repository}: 2 holes in 2 files\n" in done.stderr
    assert "nothing was kept: a profile that the model had before stays, and so does a running daemon" in done.stderr
    assert profiles(place) == []


def test_a_profile_can_be_removed_and_few_holes_do_not_overwrite_it(place: Place, repository: Path) -> None:
    """The stub stands for the daemon that has it."""
    from model.source import open_source

    cache = place.root / "home" / ".cache" / "codestral-lsp"
    kept = cache / "profiles" / f"{open_source('bundled').digest.hex()}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("an earlier, better one")
    assert place.run("complete", "b.py:2:5").returncode == 0
    assert calibrate(place, "--holes", "1", cwd=repository).returncode == 0
    assert kept.read_text() == "an earlier, better one"
    assert place.run("status").stdout.startswith("daemon")
    done = calibrate(place, "--reset", cwd=repository)
    assert (done.returncode, kept.exists()) == (0, False)
    assert done.stdout == f"{kept}: removed, model bundled is asked in its default way again\n"
    assert done.stderr == "1 running daemon of this model stopped\n"
    assert calibrate(place, "--reset", cwd=repository).stdout == "model bundled has no profile\n"
    again = json.loads(calibrate(place, "--reset", "--json", cwd=repository).stdout)
    assert (again["model"], again["was_there"]) == ("bundled", False)
    bad = calibrate(place, "--reset", "--model", "/nope", cwd=repository)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (1, "", 1)
    assert "/nope: no such folder or file" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/nowhere",), "/nowhere: no such file or folder"),
        (("/",), "/: not in a git repository, expected one"),
        (("--model", "no/such/folder.gguf"), "no/such/folder.gguf"),
        (("--holes", "0"), "Invalid value for '--holes'"),
        (("--strategy", "spm"), "No such option"),
    ],
)
def test_what_cannot_be_done_is_one_line(place: Place, repository: Path, arguments: tuple[str, ...], said: str) -> None:
    done = calibrate(place, *arguments, cwd=repository)
    assert done.returncode in (1, 2)
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith("codestral-lsp: ")
    assert said in last
    assert done.stdout == ""
    assert profiles(place) == []


def test_ctrl_c_keeps_nothing_and_leaves_nothing_running(place: Place, repository: Path) -> None:
    process = subprocess.Popen(
        [*program(), "calibrate", "--holes", "200"],
        env=place.env,
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while "asking as" not in (line := process.stderr.readline()):
        assert line, "it ended before it had asked anything"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to both processes
    assert process.wait(PATIENCE_S) == 130
    assert "Traceback" not in process.stderr.read()
    assert profiles(place) == []
    wait_until(lambda: not is_group(process.pid), "the end of both processes")
    process.stderr.close()
    assert process.stdout is not None
    process.stdout.close()


def is_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_torch_in_the_front_end() -> None:
    """Its own process stays light: the help comes at once."""
    code = "import sys, lsp.calibrate, lsp.holes; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help() -> None:
    from lsp.__main__ import program as group

    made = CliRunner().invoke(group, ["calibrate", "--help"])
    assert made.exit_code == 0
    assert "Find the best way of asking the model" in made.output
