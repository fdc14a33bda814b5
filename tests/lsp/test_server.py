"""The language server over stdio, as a real process, with the stub daemon behind it."""

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lsp_client import INLINE
from lsp_place import PATIENCE_S, Place, ready, uri_of, wait_until
from pygls.io_ import StdoutWriter

from lsp.server import make_server

PROGRESS: dict[str, Any] = {**INLINE, "window": {"workDoneProgress": True}}


CAPABILITIES = [
    # what the client can do, whether the plain completion is offered, the encoding
    ({}, True, "utf-16"),
    (INLINE, False, "utf-16"),
    ({"textDocument": {"completion": {}}}, True, "utf-16"),
    ({"general": {"positionEncodings": ["utf-8", "utf-16"]}}, True, "utf-8"),
    ({"general": {"positionEncodings": ["utf-32", "utf-16"]}, **INLINE}, False, "utf-32"),
    ({"general": {"positionEncodings": ["utf-7"]}}, True, "utf-16"),
]


@pytest.mark.parametrize(("client_can", "plain", "encoding"), CAPABILITIES)
async def test_capabilities(client_can: dict[str, Any], plain: bool, encoding: str) -> None:
    server, said = make_server(), io.BytesIO()
    server.protocol.set_writer(StdoutWriter(said))
    params = {"processId": None, "rootUri": None, "capabilities": client_can}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    server.protocol.handle_message(server.protocol.structure_message(message))
    offered = json.loads(said.getvalue().partition(b"\r\n\r\n")[2])["result"]["capabilities"]
    assert offered["inlineCompletionProvider"] == {}
    assert ("completionProvider" in offered) == plain
    assert offered["positionEncoding"] == encoding
    assert (offered["textDocumentSync"]["openClose"], offered["textDocumentSync"]["change"]) == (True, 2)


def test_from_open_to_suggestion_with_the_repository(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "x = first()\ny = ")
    answer = client.answer(client.suggest(uri_of(place), 1, 4))
    at = {"line": 1, "character": 4}
    (item,) = answer["result"]["items"]
    (suggestion_id,) = item.pop("command")["arguments"]
    assert (item, len(suggestion_id)) == ({"insertText": "<1>", "range": {"start": at, "end": at}}, 16)
    (context,) = place.events("context")
    (asked,) = place.events("complete")
    assert asked["context"] == context["id"]
    assert (asked["path"], asked["prompt"], asked["budget_ms"], asked["max_tokens"]) == (
        "b.py", "x = first()\ny = ", 1500, 64,
    )  # fmt: skip
    assert asked["document"].endswith(uri_of(place))
    client.wait_for_error("fed 3, reused")
    assert client.stop() == 0


def test_the_last_report(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "x = ")
    params = {"textDocument": {"uri": uri_of(place)}}
    assert client.ask("codestral-lsp/lastReport", params) is None
    client.suggested(uri_of(place), 0, 4)
    report = client.ask("codestral-lsp/lastReport", params)
    assert report["ms"] == {"context": 0.5, "feed": 1.5, "decode": 2.0, "total": 4.0}
    assert {key: report[key] for key in ("text", "tokens_fed", "segment", "context_ready", "stopped_by")} == {
        "text": "<1>", "tokens_fed": 3, "segment": "line", "context_ready": True, "stopped_by": "line",
    }  # fmt: skip
    assert report["context_tokens"] == report["tokens_reused"] > 0
    assert client.ask("codestral-lsp/lastReport", {}) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_edits_arrive_exactly_in_every_encoding(place: Place, encoding: str) -> None:
    client = place.client()
    client.initialize(None, capabilities={**INLINE, "general": {"positionEncodings": [encoding]}})
    uri = (place.root / "u.py").as_uri()
    client.open(uri, "s = '😀é'\r\n\f\r\nend")
    width = {"utf-8": 4, "utf-16": 2, "utf-32": 1}[encoding]
    at = {"line": 0, "character": 5 + width}
    to = {"line": 1, "character": 1}
    client.change(
        uri, 2, {"range": {"start": at, "end": at}, "text": "𝒳"}, {"range": {"start": to, "end": to}, "text": "€"}
    )
    assert client.suggested(uri, 1, 2 if encoding != "utf-8" else 4) == ["<1>"]
    assert client.suggested(uri, 0, 5 + 2 * width, invoked=True) == ["<2>"]  # in the middle of a word
    first, second = place.events("complete")
    assert (first["prompt"], first["rest_of_line"], first["suffix"]) == ("s = '😀𝒳é'\n\f€", "", "end")
    assert (second["prompt"], second["rest_of_line"]) == ("s = '😀𝒳", "é'")
    client.change(uri, 3, {"text": "new"})
    assert client.suggested(uri, 9, 9) == ["<3>"]
    assert place.events("complete")[2]["prompt"] == "new"


def test_cancelling_closes_the_daemons_connection(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "#wait")
    request = client.suggest(uri_of(place), 0, 5)
    place.wait_events("complete")
    client.notify("$/cancelRequest", {"id": request})
    assert client.answer(request)["error"]["code"] == -32800
    place.wait_events("disconnected")
    assert client.stop() == 0
    assert len(client.answers(request)) == 1
    assert not client.notified("window/showMessage")


def test_a_newer_request_of_a_document_ends_the_older_one(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "#wait\nx")
    client.open(uri_of(place, "a.py"), "#wait")
    other = client.suggest(uri_of(place, "a.py"), 0, 5)
    older = client.suggest(uri_of(place), 0, 5)
    place.wait_events("complete", 2)
    newer = client.suggest(uri_of(place), 1, 1)
    assert client.answer(older)["result"] == {"items": []}
    assert [item["insertText"] for item in client.answer(newer)["result"]["items"]] == ["<3>"]
    place.wait_events("disconnected")
    assert not client.answers(other)
    assert client.ask("shutdown", None) is None
    assert client.answer(other)["result"] == {"items": []} or client.answer(other)["error"]["code"] == -32800
    assert [len(client.answers(request)) for request in (other, older, newer)] == [1, 1, 1]


def test_a_burst_of_keystrokes_is_answered_one_by_one(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "")
    requests = []
    for typed in range(1, 21):
        end = {"line": 0, "character": typed - 1}
        client.change(uri_of(place), typed + 1, {"range": {"start": end, "end": end}, "text": "x"})
        requests.append(client.suggest(uri_of(place), 0, typed))
    assert len(client.answer(requests[-1])["result"]["items"]) == 1
    assert all(set(client.answer(request)) == {"id", "jsonrpc", "result"} for request in requests)
    assert place.events("complete")[-1]["prompt"] == "x" * 20


def test_a_document_that_is_not_open(place: Place) -> None:
    client = place.client()
    client.initialize(None)
    assert client.suggested("file:///never.py", 0, 0) == []
    client.wait_for_error("file:///never.py: asked for a suggestion without having been opened")
    client.change("file:///never.py", 2, {"text": "x"})
    client.notify("textDocument/didClose", {"textDocument": {"uri": "file:///never.py"}})
    assert client.stop() == 0
    assert not client.notified("window/showMessage")


def test_a_closed_document_is_forgotten(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "#wait")
    request = client.suggest(uri_of(place), 0, 5)
    place.wait_events("complete")
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri_of(place)}})
    assert client.answer(request)["result"] == {"items": []}
    assert client.suggested(uri_of(place), 0, 5) == []


def test_secrets_are_never_sent(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place, ".env"), "TOKEN=")
    client.open(uri_of(place, "k.py"), "K = '''-----BEGIN RSA PRIVATE " + "KEY-----\n")
    (place.repository / ".env").write_text("TOKEN=")
    (place.repository / "innocent.py").symlink_to(".env")
    client.open(uri_of(place, "innocent.py"), "TOKEN=")
    assert client.suggested(uri_of(place, ".env"), 0, 6) == []
    assert client.suggested(uri_of(place, "innocent.py"), 0, 6) == []
    assert client.suggested(uri_of(place, "k.py"), 1, 0) == []
    assert not place.events("complete")
    client.wait_for_error(".env is never sent: a secret")


@pytest.mark.parametrize("kind", [0, 3, "x", None])
def test_odd_trigger_kinds_are_tolerated(place: Place, kind: Any) -> None:
    client = place.client()
    client.initialize(None)
    client.open("untitled:1", "x = ")
    position = {"textDocument": {"uri": "untitled:1"}, "position": {"line": 0, "character": 4}}
    for context in ({"context": {"triggerKind": kind}}, {"context": {}}, {}):
        result = client.ask("textDocument/inlineCompletion", {**position, **context})
        assert len(result["items"]) == 1
    assert place.events("complete")[0]["path"] is None


ORDERS = [("#two", ["<1>\n<more>"], "#two<1>"), ("#nothing", [], None), ("#fail", [], None)]


@pytest.mark.parametrize(("order", "inline", "label"), ORDERS)
def test_inline_and_plain_answers(place: Place, order: str, inline: list[str], label: str | None) -> None:
    client = place.client()
    client.initialize(None, capabilities={})
    client.open("untitled:1", order)
    assert client.suggested("untitled:1", 0, len(order)) == inline
    position = {"textDocument": {"uri": "untitled:1"}, "position": {"line": 0, "character": len(order)}}
    listed = client.ask("textDocument/completion", position)
    assert listed["isIncomplete"] is True
    at = position["position"]
    assert [(item["label"], item["textEdit"]) for item in listed["items"]] == (
        [("two<1>", {"range": {"start": at, "end": at}, "newText": "<1>"})] if label else []
    )
    if order == "#fail":
        client.wait_for_error("no suggestion: the completion failed: as ordered")
    assert not client.notified("window/showMessage")


def test_bad_requests_are_answered_once_and_nothing_pops_up(place: Place) -> None:
    client = place.client()
    early = client.send("textDocument/inlineCompletion", {})
    assert client.answer(early)["error"]["code"] in (-32002, -32602)
    assert client.answer(client.send("shutdown", None))["error"]["code"] == -32002
    client.initialize(place.repository)
    for method, params, code in [
        ("textDocument/inlineCompletion", 3, -32602),
        ("textDocument/inlineCompletion", {"textDocument": {"uri": "file:///x"}}, -32602),
        ("no/such", {}, -32601),
    ]:
        request = client.send(method, params)
        assert client.answer(request)["error"]["code"] == code
    client.notify("no/such", {})
    client.notify("textDocument/didOpen", {"textDocument": 3})
    client.notify("$/cancelRequest", {"id": 12345})
    client.ask("shutdown", None)
    late = client.suggest("file:///x", 0, 0)
    assert client.answer(late)["error"]["code"] == -32600
    client.notify("exit", None)
    assert client.process.wait(PATIENCE_S) == 0
    assert not client.notified("window/showMessage")
    assert not [line for line in client.errors if "Traceback" in line]


def test_settings_that_are_wrong_are_one_message(place: Place) -> None:
    client = place.client()
    client.initialize(place.repository, initializationOptions={"max_tokens": 7, "speed": 1, "enable": "no"})
    client.wait_for(lambda message: message.get("method") == "window/logMessage")
    (message,) = client.notified("window/logMessage")
    assert message["type"] == 2
    assert "speed: unknown setting" in message["message"]
    assert "enable: expected true or false, found 'no'; True is used" in message["message"]
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1) == ["<1>"]
    assert place.events("complete")[0]["max_tokens"] == 7


def test_disabled_starts_no_daemon(place: Place) -> None:
    client = place.client()
    client.initialize(place.repository, initializationOptions={"enable": False})
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1) == []
    assert client.stop() == 0
    assert not place.events("serving")


def test_progress_is_shown(place: Place) -> None:
    client = place.client(STUB_FEED_STEPS="4")
    client.initialize(place.repository, capabilities=PROGRESS)
    client.wait_for(lambda message: message.get("params", {}).get("value", {}).get("kind") == "end")
    created = client.notified("window/workDoneProgress/create")
    shown = client.notified("$/progress")
    assert {params["token"] for params in shown} == {params["token"] for params in created}
    assert len(created) == 1
    values = [params["value"] for params in shown]
    assert [value["kind"] for value in values] == ["begin", *["report"] * (len(values) - 2), "end"]
    assert values[0]["title"] == "codestral-lsp: repo"
    total = place.run("complete", "b.py:1:1", "--json").stdout.split('"context_tokens":')[1].split(",")[0]
    assert [value["message"] for value in values] == [
        "reading the repository",
        *(f"reading the repository: {int(total) * n // 4} of {total} tokens, {25 * n} % current" for n in range(5)),
        f"{total} tokens read, up to date",
    ]


def test_without_progress_support_nothing_is_sent(place: Place) -> None:
    client = ready(place)
    assert not client.notified("$/progress")
    assert not client.notified("window/workDoneProgress/create")


def test_a_completion_does_not_wait_for_the_context(place: Place) -> None:
    client = place.client(STUB_FEED_STEPS="1000000000")
    client.initialize(place.repository)
    place.wait_events("status", 3)
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1) == ["<1>"]
    assert place.events("complete")[0]["context"] == place.events("context")[0]["id"]
    assert client.stop() == 0


def test_a_daemon_that_dies_is_started_again_and_fed_again(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1, invoked=True) == ["<1>"]
    os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
    assert client.suggested(uri_of(place), 0, 1, invoked=True) == ["<1>"]
    assert len(place.wait_events("serving", 2)) == 2
    first, second = place.wait_events("context", 2)
    assert first["id"] == second["id"]
    wait_until(lambda: len([line for line in client.errors if "tokens of context" in line]) == 2, "the second feed")
    assert client.suggested(uri_of(place), 0, 1, invoked=True) == ["<2>"]
    assert place.events("complete")[-1]["context"] == first["id"]
    assert client.stop() == 0


def test_a_daemon_that_dies_in_the_middle_of_a_request(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "#wait")
    request = client.suggest(uri_of(place), 0, 5)
    place.wait_events("complete")
    os.kill(place.events("serving")[0]["pid"], signal.SIGKILL)
    place.wait_events("complete", 2)
    client.notify("$/cancelRequest", {"id": request})
    assert client.answer(request)["error"]["code"] == -32800


def test_a_daemon_that_cannot_start_is_told_once_and_answers_are_empty(place: Place) -> None:
    client = place.client(STUB_DIES="weights.safetensors: truncated")
    client.initialize(place.repository)
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1) == []
    client.wait_for(lambda message: message.get("method") == "window/logMessage")
    (message,) = client.notified("window/logMessage")
    reason = "the daemon ended with status 3: weights.safetensors: truncated"
    assert message["message"] == f"{place.repository}: {reason}"
    assert client.suggested(uri_of(place), 0, 1) == []
    assert client.stop() == 0


def test_two_windows_share_one_daemon_and_one_context(place: Place) -> None:
    first, second = ready(place), ready(place)
    for client in (first, second):
        client.open(uri_of(place), "#wait")
    requests = [client.suggest(uri_of(place), 0, 5) for client in (first, second)]
    asked = place.wait_events("complete", 2)
    assert asked[0]["document"] != asked[1]["document"]
    assert len({event["id"] for event in place.events("context")}) == 1
    assert len(place.events("serving")) == 1
    assert not place.events("disconnected")
    for client, request in zip((first, second), requests, strict=True):
        client.notify("$/cancelRequest", {"id": request})
    place.wait_events("disconnected", 2)


def test_each_folder_has_its_own_context(place: Place) -> None:
    other = place.root / "other"
    other.mkdir()
    (other / "only.py").write_text("here = 1\n")
    client = place.client(CODESTRAL_LSP_LOG="debug")
    folders = [{"uri": folder.as_uri(), "name": folder.name} for folder in (place.repository, other)]
    client.initialize(place.repository, workspaceFolders=folders)
    contexts = place.wait_events("context", 2)
    assert sorted(context["paths"] for context in contexts) == [["a.py", "b.py"], ["only.py"]]
    wait_until(lambda: len([line for line in client.errors if "tokens of context" in line]) == 2, "both contexts")
    uri = (other / "only.py").as_uri()
    client.open(uri, "here")
    client.suggested(uri, 0, 4)
    (asked,) = place.events("complete")
    assert (asked["path"], [asked["context"]]) == ("only.py", [c["id"] for c in contexts if c["paths"] == ["only.py"]])
    client.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [folders[1]]}})
    client.suggested(uri, 0, 4, invoked=True)
    assert place.events("complete")[1]["context"] is None


def test_a_file_opened_alone_finds_its_repository(place: Place) -> None:
    client = place.client()
    client.initialize(None)
    client.open(uri_of(place), "x")
    assert place.wait_events("context")[0]["paths"] == ["a.py", "b.py"]


def test_a_file_of_no_repository_reads_nothing_around_it(place: Place) -> None:
    (place.root / "alone.py").write_text("x")
    (place.root / "private.py").write_text("y")
    client = place.client()
    client.initialize(None)
    client.open((place.root / "alone.py").as_uri(), "x")
    assert client.suggested((place.root / "alone.py").as_uri(), 0, 1) == ["<1>"]
    assert not place.events("context")
    assert place.events("complete")[0]["path"] == "alone.py"


def test_a_folder_that_cannot_be_read(place: Place) -> None:
    missing = place.root / "missing"
    client = place.client()
    client.initialize(missing)
    client.wait_for(lambda message: message.get("method") == "window/logMessage")
    (message,) = client.notified("window/logMessage")
    assert message["message"] == f"{missing}: {missing}: no such folder"
    uri = Path(missing / "x.py").as_uri()
    client.open(uri, "x")
    assert client.suggested(uri, 0, 1) == ["<1>"]
