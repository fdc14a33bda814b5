"""The replay's parts at work: the workspace of real code, the client against the real server, the peer's prompts, and a few keys from end to end."""

import contextlib
import itertools
import json
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from benchmarks.editor_client import EditorClient, ServerError
from benchmarks.editor_replay import SCRIPT, Replay
from benchmarks.llama_server import LlamaServer, Setup, setups_of
from benchmarks.prompt_reader import PromptReader, request_of
from benchmarks.scratch_workspace import Code, Place, WorkspaceError, cut_to, find_code, make_place, planned_tokens
from benchmarks.typing_script import Event, HeldOut, edited, write_script
from benchmarks.unix_http import HttpError, UnixHttp

HELD = (
    HeldOut("a.py", "def f():\n    return 1\n\n\n", "def g():\n", "    return f()\n"),
    HeldOut("b.py", "x = 1\n", "y\n", "z = 2\n"),
)
FILES = tuple((f"pkg/m{i}.py", f"def name_{i}(value):\n    return value + {i}\n" * 20) for i in range(12))
CODE = Code(HELD, FILES)


@pytest.fixture(scope="module")
def reader() -> PromptReader:
    return PromptReader.of_model("bundled")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-bt-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def test_code_is_found_and_held_out_files_are_not_in_it() -> None:
    code = find_code(1)
    assert code == find_code(1)
    paths = {path for path, _ in code.files}
    assert len(paths) > 200
    assert not paths & {each.path for each in code.held_out}
    assert all(text.isascii() and "\r" not in text for _, text in code.files)


def test_a_larger_workspace_holds_a_smaller_one(reader: PromptReader) -> None:
    sizes = (600, 1200, 2400)
    cuts = [cut_to(CODE, n, reader.tokenizer) for n in sizes]
    for n, files in zip(sizes, cuts, strict=True):
        assert 0.8 * n < sum(reader.n_document(path, text) for path, text in files) <= n
    for small, large in itertools.pairwise(cuts):
        assert small[:-1] == large[: len(small) - 1]
        assert large[len(small) - 1][1].startswith(small[-1][1])
    assert cut_to(CODE, 10, reader.tokenizer)[0][0] == CODE.other[0], "the file that is saved is always there"
    planned = cut_to(CODE, 2400, reader.tokenizer, most_planned=700)
    assert 500 < sum(planned_tokens(path, text) for path, text in planned) <= 700
    with pytest.raises(WorkspaceError, match="1000000 tokens wanted"):
        cut_to(CODE, 1_000_000, reader.tokenizer)


def test_a_workspace_is_a_clean_git_repository(folder: Path) -> None:
    place = make_place(folder, FILES)
    git = ["git", "-C", str(place.repository), "status", "--porcelain"]
    assert subprocess.run(git, capture_output=True, check=True, env=place.environment).stdout == b""
    assert (place.repository / FILES[0][0]).read_text() == FILES[0][1]
    assert place.environment["XDG_RUNTIME_DIR"].startswith(str(folder))


def test_prompts_are_the_repository_and_then_what_an_event_needs(reader: PromptReader) -> None:
    request = request_of("x = 1\ny = name_3(", 16, "a.py")
    repository = reader.repository(FILES)
    ids = reader.ids(repository, request)
    n_files = sum(reader.n_document(path, text) for path, text in FILES)
    assert len(ids) == n_files + reader.n_own(request)
    text = b"".join(reader.tokenizer.pieces[i] for i in ids if reader.tokenizer.pieces[i] is not None)
    assert text.index(b"name_0") < text.index(b"name_11") < text.index(b"+++++ a.py")


def peer(reader: PromptReader, setup: Setup) -> LlamaServer:
    found = LlamaServer(setup, gguf=Path("m.gguf"), folder=Path(), reader=reader, files=FILES, n_tokens=2000)
    found.texts = {each.path: each.opened for each in HELD}
    found.slots = {path: number for number, path in enumerate(found.texts)}
    return found


def prompt_of(server: LlamaServer, event: Event) -> dict:
    return json.loads(server._body(event, n_predict=7))


def test_a_peer_reads_a_saved_file_in_place_or_after_the_repository(reader: PromptReader) -> None:
    defaults, best = (peer(reader, setup) for setup in setups_of(("defaults", "best"), n_documents=2))
    event = Event("typed", "a.py", 0, 0, "", 5, 0)
    before = prompt_of(defaults, event)["prompt"]
    assert before == prompt_of(best, event)["prompt"]
    path, text = FILES[5]
    for server in (defaults, best):
        server._replace(path, text + "added = 1\n")
    in_place, after = prompt_of(defaults, event)["prompt"], prompt_of(best, event)["prompt"]
    n_repository = sum(reader.n_document(*file) for file in FILES) + 1
    assert after[:n_repository] == before[:n_repository] != in_place[:n_repository]
    assert len(after) == len(before) + reader.n_document(path, text + "added = 1\n")


def test_a_peer_is_asked_for_as_much_as_we_say_in_its_documents_slot(reader: PromptReader) -> None:
    defaults, best = (peer(reader, setup) for setup in setups_of(("defaults", "best"), n_documents=2))
    event = Event("typed", "b.py", 0, 0, "", 3, 0)
    asked = prompt_of(best, event)
    assert (asked["n_predict"], asked["temperature"], asked["cache_prompt"], asked["id_slot"]) == (7, 0.0, True, 1)
    assert "id_slot" not in prompt_of(defaults, event)


class Answering(BaseHTTPRequestHandler):
    """Says what it was asked; closes the connection after each answer if told so."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(404 if self.path == "/no" else 200, json.dumps({"asked": body.decode()}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def address_string(self) -> str:
        return "unix"


def test_http_over_a_socket_finds_a_closed_connection_again(folder: Path) -> None:
    path = folder / "s.sock"
    http = UnixHttp(path, timeout_s=5)
    with pytest.raises(HttpError, match=r"s\.sock: POST /a: "):
        http.ask("POST", "/a", b"1")
    assert http.is_up("/a") is None
    with socketserver.ThreadingUnixStreamServer(
        str(path), Answering
    ) as server:  # HTTP/1.0: each answer ends its connection
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert [http.ask("POST", "/a", word)["asked"] for word in (b"1", b"2")] == ["1", "2"]
        with pytest.raises(HttpError, match="status 404"):
            http.ask("POST", "/no", b"3")
        server.shutdown()
    http.close()


async def started(place: Place) -> EditorClient:
    return await EditorClient.start(
        [str(SCRIPT), "--stdio"], environment=place.environment, cwd=place.repository, log=place.root / "log"
    )


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
async def test_the_client_speaks_with_the_real_server(folder: Path) -> None:
    place = make_place(folder, FILES)
    client = await started(place)
    await client.initialize(place.repository, {"enable": False})  # no daemon is needed for this
    with pytest.raises(ServerError, match="refused"):
        await client.ask("textDocument/nothing", {})
    assert await client.ask("codestral-lsp/lastReport", {"textDocument": {"uri": "file:///a.py"}}) is None
    await client.close()
    assert client.process.returncode == 0
    dead = await started(place)
    dead.process.kill()
    await dead.process.wait()
    with pytest.raises(ServerError, match="the language server"):
        await dead.ask("shutdown", None)


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
async def test_a_few_keys_from_end_to_end(folder: Path, reader: PromptReader) -> None:
    place = make_place(folder, FILES)
    script = write_script(HELD, other=CODE.other, seed=1, rounds=1, restarts=0)
    options = {"context_max_tokens": 20_000, "precision": "int8"}
    replay = Replay(place, options=options, threads=1, reader=reader)
    try:
        assert await replay.start(script) > 0
        replay.freeze(True)
        replay.freeze(False)
        samples = [await replay.play(event) for event in script.events[:8]]
    finally:
        await replay.close()
    assert [sample.kind for sample in samples] == [event.kind for event in script.events[:8]]
    text = script.opened["a.py"]
    for event in script.events[:8]:
        text = edited(text, event)
    assert replay.texts["a.py"] == text
    assert all(sample.report is not None and sample.report["context_tokens"] > 1000 for sample in samples)
    assert all(sample.ms > 0 and not sample.feeds_base for sample in samples)
    assert all(sample.fed <= 16 for sample in samples[2:] if sample.kind == "typed" and sample.asked_model)
    assert not replay.health(), "its daemon is gone"
    with contextlib.suppress(FileNotFoundError):
        assert "Traceback" not in (place.root / "server.log").read_text()
