"""A client that cancels, reorders, floods and says garbage: every request is answered exactly once, nothing pops up, the process lives and stays small."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_client import HostileClient, hostile, inline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from lsp_place import PATIENCE_S, Place, make_place, remove_place, uri_of

INLINE = "textDocument/inlineCompletion"
EXECUTE = "workspace/executeCommand"
DEEP = 3_000  # nested lists: more than an interpreter's stack likes
FLOOD_HZ, FLOOD_S = 200, 3.0
BURST = 900  # requests as fast as they can be sent
GROWS_BYTES = 1 << 20  # at most in a burst, after a first one and the flood


def open_text(client: HostileClient, uri: str, text: str, *, version: Any = 1) -> None:
    item = {"uri": uri, "languageId": "python", "version": version, "text": text}
    client.notify("textDocument/didOpen", {"textDocument": item})


def change(client: HostileClient, uri: str, version: Any, *changes: Any) -> None:
    document = {"uri": uri, "version": version}
    client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": list(changes)})


def begun(place: Place) -> HostileClient:
    """Initialized, without a workspace to read and without waiting before something is shown."""
    client = hostile(place)
    client.initialize(None, initializationOptions={"delay_ms": 0, "delay_lines_ms": 0})
    return client


def ended(client: HostileClient) -> None:
    """The end of every test: settled, as it must be, and a clean shutdown."""
    client.settle()
    client.check()
    assert client.stop() == 0


POSITIONS = [
    (-1, 0), (0, -1), (-5, -5), (0, 10**6), (10**6, 0), (2**31 - 1, 2**31 - 1), (2**31, 2**31), (2**64, 2**64),
    (0, 5), (0, 6), (1, 1), (1.5, 0), (0, 0.5), (None, 0), (0, None), ("0", "0"), ([], {}), (True, False),
]  # fmt: skip


def test_positions_that_no_document_has(place: Place) -> None:
    """Of the text below, (0, 5) parts a surrogate pair."""
    client = begun(place)
    uri = uri_of(place)
    open_text(client, uri, "s = 😀\r\n\u2028\n")
    requests = [client.send(INLINE, inline(uri, line, character)) for line, character in POSITIONS]
    for line, character in POSITIONS:
        at = {"line": line, "character": character}
        change(client, uri, 2, {"range": {"start": at, "end": at}, "text": ""})
        change(client, uri, 3, {"range": {"start": {"line": 9, "character": 9}, "end": at}, "text": ""})
    client.settle()
    for request in requests:
        found = client.result_of(request)
        assert found == -32602 or isinstance(found, list), found
    change(client, uri, 4, {"text": "whole = 1\nx"})
    asked = client.result_of(client.send(INLINE, inline(uri, 1, 1)))
    assert isinstance(asked, list) and len(asked) == 1
    assert place.events("complete")[-1]["prompt"] == "whole = 1\nx"
    ended(client)


def test_half_a_character_is_never_sent(place: Place) -> None:
    """A change that parts a surrogate pair leaves halves, which have no UTF-8; the daemon still gets text."""
    client = begun(place)
    uri = uri_of(place)
    open_text(client, uri, "😀x = ")
    at = {"line": 0, "character": 1}
    change(client, uri, 2, {"range": {"start": at, "end": at}, "text": "\ud83d"})
    assert isinstance(client.result_of(client.send(INLINE, inline(uri, 0, 99))), list)
    assert place.wait_events("complete")[-1]["prompt"].endswith("x = ")
    ended(client)


VERSIONS = [7, 3, 3, 0, -1, 2**40, 2**31 - 1, 1]


def test_versions_that_go_back(place: Place) -> None:
    """Messages come in the order in which they were meant; a version is only told."""
    client = begun(place)
    uri = uri_of(place)
    open_text(client, uri, "", version=7)
    for number, version in enumerate(VERSIONS):
        at = {"line": 0, "character": number}
        change(client, uri, version, {"range": {"start": at, "end": at}, "text": str(number)})
        client.send(INLINE, inline(uri, 0, number + 1))
    client.settle()
    prompt = place.events("complete")[-1]["prompt"]
    understood = [str(number) for number, version in enumerate(VERSIONS) if abs(version) < 2**31]
    assert prompt in ("".join(understood), "01234567"), prompt
    ended(client)


def test_documents_opened_twice_closed_twice_and_changed_when_closed(place: Place) -> None:
    client = begun(place)
    uri = uri_of(place)
    at = {"line": 0, "character": 0}
    open_text(client, uri, "first")
    open_text(client, uri, "second")
    assert len(client.result_of(client.send(INLINE, inline(uri, 0, 6)))) == 1
    assert place.events("complete")[-1]["prompt"] == "second"
    for _ in range(2):
        client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        change(client, uri, 9, {"range": {"start": at, "end": at}, "text": "x"})
        client.save(uri)
        assert client.result_of(client.send(INLINE, inline(uri, 0, 1))) == []
    open_text(client, uri, "third")
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    client.notify("$/cancelRequest", {"id": client.send(INLINE, inline(uri, 0, 1))})
    for other in (
        "",
        "x",
        "file://",
        "file:///",
        "file://host/x.py",
        "untitled:",
        "http://[::1",
        "file:///%ff%00.py",
        3,
        None,
    ):
        client.say({"jsonrpc": "2.0", "id": f"uri {other}", "method": INLINE, "params": inline(other, 0, 0)})
        item = {"uri": other, "languageId": "python", "version": 1, "text": "x"}
        client.notify("textDocument/didOpen", {"textDocument": item})
        client.say({"jsonrpc": "2.0", "id": f"open {other}", "method": INLINE, "params": inline(other, 0, 1)})
        client.notify("textDocument/didClose", {"textDocument": {"uri": other}})
    ended(client)


EARLY = [
    INLINE, EXECUTE, "textDocument/completion", "shutdown", "no/such", "codestral-lsp/lastReport", "workspace/symbol",
]  # fmt: skip
TOLD = [
    "textDocument/didOpen",
    "textDocument/didChange",
    "textDocument/didFocus",
    "initialized",
    "textDocument/didClose",
]


def test_before_initialize_and_after_shutdown(place: Place) -> None:
    client = hostile(place)
    document = {"textDocument": {"uri": uri_of(place), "languageId": "python", "version": 1, "text": "x"}}
    early = [client.send(method, document) for method in EARLY]
    for method in TOLD:
        client.notify(method, document)
    for request in early:
        assert client.answer(request)["error"]["code"] in (-32002, -32602), client.answer(request)
    client.initialize(None)
    open_text(client, uri_of(place), "x")
    again = client.send("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
    assert client.answer(again)["error"]["code"] == -32600, "LSP: initialize may only be sent once"
    assert len(client.result_of(client.send(INLINE, inline(uri_of(place), 0, 1)))) == 1
    client.settle()
    client.check()
    client.ask("shutdown", None)
    late = [client.send(method, document) for method in [*EARLY, "shutdown"]]
    for method in TOLD:
        client.notify(method, document)
    for request in late:
        assert client.answer(request)["error"]["code"] in (-32600, -32602), client.answer(request)
    client.notify("exit", None)
    assert client.process.wait(PATIENCE_S) == 0
    assert not [line for line in client.errors if "Traceback" in line]


WRONG: list[Any] = [
    None, True, 3, -1, 1.5, "", "x", [], [1], {}, {"item": None}, {"item": []}, {"item": {}}, {"item": {"insertText": 3}},
    {"item": {"insertText": "x", "range": 3, "command": "codestral.accept"}},
    {"item": {"insertText": "x", "command": {"title": 1, "command": 2, "arguments": 3}}},
    {"item": {"insertText": "x", "command": {"title": "", "command": "codestral.accept", "arguments": []}}},
    {"item": {"insertText": "x", "command": {"title": "", "command": "codestral.accept", "arguments": [None]}}},
    {"item": {"insertText": "x", "command": {"title": "", "command": "codestral.accept", "arguments": ["no such"]}}},
    {"item": {"insertText": "x", "command": {"title": "", "command": "codestral.accept", "arguments": [{}]}}, "acceptedLength": 1},
    {"acceptedLength": "x"}, {"item": {"insertText": "x"}, "acceptedLength": -1}, {"item": {"insertText": "x"}, "acceptedLength": 10**12},
    {"textDocument": None}, {"textDocument": {}}, {"textDocument": {"uri": 3}}, {"textDocument": {"uri": None}}, {"textDocument": [{"uri": "x"}]},
    {"id": None}, {"id": {}}, {"id": 10**30}, {"token": 3}, {"event": {"added": [3]}}, {"changes": [{"uri": 3}]}, {"value": "off"},
]  # fmt: skip
NOTIFICATIONS = [
    "textDocument/didShowCompletion", "textDocument/didPartiallyAcceptCompletion", "textDocument/didRejectCompletion",
    "textDocument/didFocus", "textDocument/didOpen", "textDocument/didChange", "textDocument/didSave", "textDocument/didClose",
    "workspace/didChangeWatchedFiles", "workspace/didChangeWorkspaceFolders", "workspace/didChangeConfiguration",
    "$/cancelRequest", "$/setTrace", "$/progress", "window/workDoneProgress/cancel", "no/such", "", "$/no/such",
]  # fmt: skip
REQUESTS = [INLINE, "textDocument/completion", EXECUTE, "codestral-lsp/lastReport", "no/such", "$/no/such", ""]


def test_wrong_parameters_of_everything(place: Place) -> None:
    client = begun(place)
    uri = uri_of(place)
    open_text(client, uri, "x = ")
    for method in NOTIFICATIONS:
        for params in WRONG:
            client.say({"jsonrpc": "2.0", "method": method, "params": params})
        client.say({"jsonrpc": "2.0", "method": method})
        client.ping()
    for method in REQUESTS:
        for number, params in enumerate(WRONG):
            client.say({"jsonrpc": "2.0", "id": f"{method} {number}", "method": method, "params": params})
        client.say({"jsonrpc": "2.0", "id": f"{method} without", "method": method})
    client.settle()
    client.check()
    assert len(client.result_of(client.send(INLINE, inline(uri, 0, 4)))) == 1
    ended(client)


COMMANDS = ["accept", "restart", "clearCache", "whatIsRead", "log", "pause", "resume", "", "no", "__class__"]
ARGUMENTS: list[Any] = [
    [], None, 3, "x", {}, [None], [3], [-1], ["x"], [{}], [[]], [1, 2, 3], ["workspace"], [10**40], [float(10**9)], ["\ud800"],
]  # fmt: skip


def test_commands_with_arguments_of_any_kind(place: Place) -> None:
    """Last of all `resume`, since a pause holds for all windows of this user."""
    client = begun(place)
    for name in COMMANDS:
        for number, arguments in enumerate(ARGUMENTS):
            if name == "pause" and arguments == [10**40]:
                continue
            params = {"command": f"codestral.{name}" if name else name, "arguments": arguments}
            client.say({"jsonrpc": "2.0", "id": f"{name} {number}", "method": EXECUTE, "params": params})
        client.settle()
        client.check()
    client.say({"jsonrpc": "2.0", "id": "resumed", "method": EXECUTE, "params": {"command": "codestral.resume"}})
    open_text(client, uri_of(place), "x = ")
    assert len(client.result_of(client.send(INLINE, inline(uri_of(place), 0, 4)))) == 1
    ended(client)


BODIES: list[bytes] = [
    b"{}", b"[]", b"null", b"3", b'""', b'[{"jsonrpc": "2.0", "method": "x"}]', b'{"id": 5}', b'{"jsonrpc": "2.0"}',
    b'{"jsonrpc": "2.0", "id": 987654, "result": null}', b'{"jsonrpc": "2.0", "id": "nobody", "error": {"code": 1, "message": "x"}}',
    b'{"jsonrpc": "2.0", "id": 987654, "error": 3}', b'{"jsonrpc": "2.0", "id": null, "result": 3}', b'{"jsonrpc": "2.0", "id": {}, "result": 3}',
    b'{"jsonrpc": "1.0", "method": "textDocument/didFocus", "params": {}}', b'{"method": "textDocument/didFocus"}',
    b'{"jsonrpc": "2.0", "method": 3}', b'{"jsonrpc": "2.0", "method": null}', b'{"jsonrpc": "2.0", "method": []}', b'{"jsonrpc": "2.0", "method": {}}',
    b"", b" ", b"{", b"not json", b"\x00", b"\xff\xfe", b'{"jsonrpc": "2.0", "method": "\xff"}', b'{"jsonrpc": "2.0", "method": "\\ud800"}',
    b"[" * DEEP + b"]" * DEEP, b'{"jsonrpc": "2.0", "method": "x", "params": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"jsonrpc": "2.0", "method": "x", "params": NaN}', b'{"jsonrpc": "2.0", "method": "x", "params": 1e999}',
    b'{"jsonrpc": "2.0", "method": "x", "params": ' + b"9" * 6_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:40])[2:-1])
def test_bodies_that_are_no_messages(shared: HostileClient, body: bytes) -> None:
    shared.say_bytes(body)
    shared.ping()
    assert shared.process.poll() is None
    assert not shared.notified("window/showMessage")
    assert not [line for line in shared.errors if "Traceback" in line], shared.errors[-30:]


IDS: list[Any] = ["x", "", "1", 0, -7, 2**53, "\u2028", "same", "same2"]


def test_ids_of_any_kind_are_given_back_as_they_are(shared: HostileClient) -> None:
    for number in IDS:
        shared.say({"jsonrpc": "2.0", "id": number, "method": "no/such"})
    shared.settle()
    shared.check()


def test_a_flood_is_answered_and_leaves_nothing_behind(place: Place) -> None:
    """200 requests a second in three documents; each change is one more, every third request is cancelled, some wait for ever until they are."""
    client = begun(place)
    uris = [uri_of(place, name) for name in ("a.py", "b.py", "c.py")]
    for number, uri in enumerate(uris):
        open_text(client, uri, "#wait\n" if number == 2 else "")
    _flood(client, uris, n_requests=int(FLOOD_HZ * FLOOD_S), every_s=1 / FLOOD_HZ)
    client.settle()
    client.check()
    sizes = []
    for _ in range(3):
        _flood(client, uris, n_requests=BURST, every_s=0.0)
        client.settle()
        sizes.append(client.rss_bytes)
    assert min(sizes[1] - sizes[0], sizes[2] - sizes[1]) < GROWS_BYTES, [size >> 10 for size in sizes]
    ended(client)


def _flood(client: HostileClient, uris: list[str], *, n_requests: int, every_s: float) -> None:
    started = time.monotonic()
    for number in range(n_requests):
        time.sleep(max(0.0, started + number * every_s - time.monotonic()))
        uri = uris[number % len(uris)]
        at = {"line": 0, "character": 0}
        waits = uri == uris[2]
        text = "" if waits else "x" if number % 7 else "\n"
        change(client, uri, number + 2, {"range": {"start": at, "end": at}, "text": text})
        kind = 1 if number % 5 == 0 else 2
        request = client.send(INLINE, inline(uri, 0, 5 if waits else number % 3, kind=kind))
        if number % 3 == 0:
            client.notify("$/cancelRequest", {"id": request})
        if number % 50 == 0:  # the document is short again
            change(client, uri, number + 3, {"text": "#wait\n" if waits else ""})
    for uri in uris:  # and nothing is left to wait for
        client.send(INLINE, inline(uri, 1, 0))


@pytest.fixture(scope="module")
def shared() -> Iterator[HostileClient]:
    """One server for many examples, ended in good order after them all."""
    place = make_place()
    try:
        client = begun(place)
        yield client
        ended(client)
    finally:
        remove_place(place)


TEXT = some.text(alphabet='ab("\n\r\u20280😀\ud83d\t ', max_size=12)
NUMBER = some.integers(-2, 6) | some.sampled_from([10**6, 2**31 - 1])
POINT = some.fixed_dictionaries({"line": NUMBER, "character": NUMBER})
URI = some.sampled_from(["file:///h/a.py", "file:///h/b.py", "untitled:1"])
ITEM = some.builds(
    lambda text, name: {
        "insertText": text,
        "command": {"title": "", "command": "codestral.accept", "arguments": [name]},
    },
    TEXT,
    some.sampled_from(["x", 1, None]),
)
STEP = some.one_of(
    some.tuples(some.just("open"), URI, TEXT),
    some.tuples(some.just("change"), URI, some.lists(some.tuples(POINT, POINT, TEXT), max_size=3)),
    some.tuples(some.just("whole"), URI, TEXT),
    some.tuples(some.just("close"), URI),
    some.tuples(some.just("save"), URI),
    some.tuples(some.just("ask"), URI, POINT, some.sampled_from([0, 1, 2, 3])),
    some.tuples(some.just("cancel"), some.integers(0, 5)),
    some.tuples(some.just("tell"), some.sampled_from(NOTIFICATIONS[:4]), ITEM, NUMBER),
    some.tuples(some.just("accept"), some.sampled_from(["x", 1, None])),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=some.lists(STEP, min_size=5, max_size=40))
def test_any_sequence(shared: HostileClient, steps: list[tuple[Any, ...]]) -> None:
    for step in steps:
        _play(shared, *step)
    shared.settle()
    shared.check()


def _play(client: HostileClient, what: str, *more: Any) -> None:
    match what, more:
        case "open", (uri, text):
            open_text(client, uri, text)
        case "change", (uri, changes):
            edits = [{"range": {"start": start, "end": end}, "text": text} for start, end, text in changes]
            change(client, uri, len(client.asked), *edits)
        case "whole", (uri, text):
            change(client, uri, len(client.asked), {"text": text})
        case "close", (uri,):
            client.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        case "save", (uri,):
            client.save(uri)
        case "ask", (uri, at, kind):
            client.send(INLINE, inline(uri, at["line"], at["character"], kind=kind))
        case "cancel", (ago,):
            client.notify("$/cancelRequest", {"id": client.asked[-1 - ago] if len(client.asked) > ago else ago})
        case "tell", (method, item, number):
            client.notify(method, {"item": item, "acceptedLength": number, "textDocument": {"uri": "file:///h/a.py"}})
        case "accept", (name,):
            client.send(EXECUTE, {"command": "codestral.accept", "arguments": [name]})
