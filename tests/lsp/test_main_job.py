"""The main job for real: the installed program, the real daemon, the bundled model, a repository of more than 20,000 tokens, a client library."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lsp_place import Place, make_place, program, remove_place, write_repository
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities

HOUSE = Path(__file__).parent.parent.parent
FOLDERS = ("cache", "context", "daemon", "lsp", "model")
WORD = "resumed"
ABOVE = "from cache.resume import resume\n\n\ndef state_of(chain, store, feed):\n    "


@pytest.fixture
def real() -> Iterator[Place]:
    """A place whose daemon is the real one, with this project's own packages as the repository."""
    place = make_place()
    del place.env["CODESTRAL_LSP_DAEMON_COMMAND"]
    files = [file for folder in FOLDERS for file in sorted((HOUSE / folder).glob("*.py"))]
    write_repository(place.repository, {str(file.relative_to(HOUSE)): file.read_text() for file in files})
    write_repository(place.repository, {"new.py": ABOVE + "\n    return None\n"})
    try:
        yield place
    finally:
        place.run("stop")
        remove_place(place)


async def opened(place: Place) -> LanguageClient:
    """An editor window whose repository has been read."""
    config = ClientServerConfig(server_command=[*program(), "--stdio"], server_env=place.env)
    client = await config.start()
    assert isinstance(client, LanguageClient)
    capabilities = client_capabilities("visual-studio-code")
    capabilities.window = types.WindowClientCapabilities(work_done_progress=True)
    await client.initialize_session(
        types.InitializeParams(capabilities=capabilities, root_uri=place.repository.as_uri())
    )
    while not any(
        isinstance(report, types.WorkDoneProgressEnd) for token in client.progress_reports.values() for report in token
    ):
        await client.wait_for_notification(types.PROGRESS)
    item = types.TextDocumentItem(uri=uri(place), language_id="python", version=1, text=ABOVE + "\n    return None\n")
    client.text_document_did_open(types.DidOpenTextDocumentParams(item))
    return client


def uri(place: Place) -> str:
    return (place.repository / "new.py").as_uri()


async def typed(client: LanguageClient, place: Place) -> list[dict]:
    """Types WORD key by key, as an editor does; what each key cost."""
    reports = []
    for n_typed, key in enumerate(WORD):
        line, start = ABOVE.count("\n"), len(ABOVE.rpartition("\n")[2]) + n_typed
        at = types.Position(line=line, character=start)
        change = types.TextDocumentContentChangePartial(range=types.Range(start=at, end=at), text=key)
        document = types.VersionedTextDocumentIdentifier(uri=uri(place), version=n_typed + 2)
        client.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))
        answer = await client.text_document_inline_completion_async(
            types.InlineCompletionParams(
                text_document=types.TextDocumentIdentifier(uri(place)),
                position=types.Position(line=line, character=start + 1),
                context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Automatic),
            )
        )
        assert isinstance(answer, types.InlineCompletionList)
        params = {"textDocument": {"uri": uri(place)}}
        report = await client.protocol.send_request_async("codestral-lsp/lastReport", params)
        reports.append(report if isinstance(report, dict) else report._asdict())
    return reports


def fed_by_daemon(place: Place) -> int:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place.socket)), base_url="http://daemon") as client:
        return client.get("/healthz").json()["tokens_fed"]


async def test_a_typed_key_feeds_a_few_tokens_and_a_second_window_none_of_the_repository(real: Place) -> None:
    first = await opened(real)
    reports = await typed(first, real)
    context = reports[0]["context_tokens"]
    assert context >= 20_000
    asked = [report for report in reports[1:] if not report["is_reused"]]  # the others are the rest of what was shown
    assert asked
    for report in asked:
        assert report["tokens_fed"] <= 16
        assert report["tokens_reused"] >= 0.99 * context
        assert report["context_ready"] and report["context_tokens"] == context
    before = fed_by_daemon(real)
    second = await opened(real)
    again = await typed(second, real)
    assert again[0]["context_tokens"] == context
    assert fed_by_daemon(real) == before, "the second window fed something that the first had fed already"
    assert [report["text"] for report in again] == [report["text"] for report in reports]
    for client in (first, second):
        await client.shutdown_session()


def test_complete_on_the_command_line_gives_the_documented_object(real: Place) -> None:
    target = ABOVE.count("\n") + 1
    done = real.run("complete", f"new.py:{target}:5", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    documented = "text model context_tokens tokens_fed tokens_reused stopped_by empty_because ms"
    assert set(answer) == set(documented.split(" "))
    assert set(answer["ms"]) == {"context", "feed", "decode", "total"}
    assert answer["model"] == "bundled" and answer["tokens_fed"] > answer["context_tokens"] >= 20_000
    again = json.loads(real.run("complete", f"new.py:{target}:5", "--json").stdout)
    assert again["text"] == answer["text"]
    assert again["tokens_fed"] == 0 and again["tokens_reused"] >= answer["context_tokens"]


def test_a_hostile_workspace_gets_our_daemon_and_our_model(real: Place) -> None:
    trap = "import pathlib\npathlib.Path(__file__).with_name('SPRUNG').touch()\nraise SystemExit('the workspace ran')\n"
    for folder in FOLDERS:
        shutil.rmtree(real.repository / folder)
    write_repository(real.repository, {f"{folder}/__init__.py": trap for folder in (*FOLDERS, "torch", "numpy")})
    write_repository(real.repository, {"json.py": trap, "new.py": ABOVE})
    done = real.run("complete", f"new.py:{ABOVE.count(chr(10)) + 1}:5", "--json", PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "bundled"
    assert not list(real.repository.rglob("SPRUNG"))
    status = subprocess.run(
        ["git", "-C", str(real.repository), "status", "--porcelain"], capture_output=True, check=True
    )
    assert b"__pycache__" not in status.stdout
