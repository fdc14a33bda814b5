"""What becomes of suggestions, over stdio with the stub daemon: alternatives, events, statistics, the pause, commands and the status."""

import json
import time
from typing import Any

import pytest
from lsp_client import INLINE, LspClient
from lsp_place import Place, uri_of, wait_until

NEOVIM: dict[str, Any] = {"clientInfo": {"name": "Neovim"}}
CODE: dict[str, Any] = {"clientInfo": {"name": "Visual Studio Code"}}


def begun(place: Place, **params: Any) -> LspClient:
    client = place.client(CODESTRAL_LSP_LOG="debug")
    client.initialize(place.repository, **params)
    client.wait_for_error("tokens of context")
    return client


def items(client: LspClient, uri: str, line: int, character: int, *, invoked: bool = False) -> list[dict[str, Any]]:
    return client.answer(client.suggest(uri, line, character, invoked=invoked))["result"]["items"]


def counted(place: Place, client: LspClient) -> dict[str, Any]:
    """What `stats` says once this window has written everything."""
    assert client.stop() == 0
    said = place.run("stats", "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)["all"]


def test_asked_by_name_there_are_several(place: Place) -> None:
    client = begun(place)
    order = "#any foo(|foo()|bar#"
    client.open(uri_of(place), f"{order}\n")
    given = items(client, uri_of(place), 0, len(order), invoked=True)
    assert sorted(item["insertText"] for item in given) == ["bar", "foo(", "foo()"]
    assert len({item["command"]["arguments"][0] for item in given}) == 3
    assert place.events("complete")[-1]["n"] == 3
    client.type(uri_of(place), 2, (0, len(order)), "b")  # goes on with one that was not the first
    assert client.suggested(uri_of(place), 0, len(order) + 1) == ["ar"]
    assert len(place.events("complete")) == 1
    client.notify(
        "textDocument/didChange", {"textDocument": {"uri": uri_of(place), "version": 3}, "contentChanges": []}
    )
    (second,) = [item for item in given if item["insertText"] == "bar"]
    client.ask("workspace/executeCommand", second["command"])
    assert counted(place, client)["accepted"] == 1, "the second of them, which was taken"


def test_one_that_does_not_break_the_file_comes_first(place: Place) -> None:
    client = begun(place)
    client.open(uri_of(place), "#any foo(]|foo()#\nx = 1\n")
    client.change(uri_of(place), 2, {"text": "x = 1\n\nz = 1  # \n'#any foo(]|foo()#';y = \n"})
    given = client.suggested(uri_of(place), 3, len("'#any foo(]|foo()#';y = "), invoked=True)
    assert given == ["foo()", "foo(]"]


def test_closers_right_of_the_cursor_are_replaced(place: Place) -> None:
    client = begun(place)
    order = "#over 1 a, b):#"
    client.open(uri_of(place), f"{order}foo()\n")
    at = len(order) + 4
    (item,) = items(client, uri_of(place), 0, at)
    assert item["insertText"] == "a, b):"
    assert item["range"] == {"start": {"line": 0, "character": at}, "end": {"line": 0, "character": at + 1}}
    assert place.events("complete")[-1]["may_replace"] is True
    client.type(uri_of(place), 2, (0, at), "a, b")
    (item,) = items(client, uri_of(place), 0, at + 4)
    assert (item["insertText"], item["range"]["end"]["character"]) == ("):", at + 5)
    over = {"start": {"line": 0, "character": at + 4}, "end": {"line": 0, "character": at + 5}}
    client.change(uri_of(place), 3, {"range": over, "text": ")"})  # typed over, as editors do
    (item,) = items(client, uri_of(place), 0, at + 5)
    assert (item["insertText"], item["range"]["end"]["character"]) == (":", at + 5)
    assert len(place.events("complete")) == 1


@pytest.mark.parametrize("is_told", [True, False])
def test_a_suggestion_counts_once_whoever_tells(place: Place, is_told: bool) -> None:
    client = begun(place, **CODE)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}\n")
    (item,) = items(client, uri_of(place), 0, len(order))
    if is_told:
        client.notify("textDocument/didShowCompletion", {"item": item})
        client.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": 4})
    client.type(uri_of(place), 2, (0, len(order)), "foo(")
    (item,) = items(client, uri_of(place), 0, len(order) + 4)
    client.type(uri_of(place), 3, (0, len(order) + 4), "bar)")
    if is_told:
        assert client.ask("workspace/executeCommand", item["command"]) is None
    client.suggested(uri_of(place), 1, 0)
    all_ = counted(place, client)
    assert {name: all_[name] for name in ("accepted", "partly", "rejected")} == {
        "accepted": 1,
        "partly": 0,
        "rejected": 0,
    }
    assert all_["shown"] == (1 if is_told else 2)


def test_what_was_dismissed_is_not_offered_again_at_that_place(place: Place) -> None:
    client = begun(place)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}\n{order}\n")
    end = len(order)
    (item,) = items(client, uri_of(place), 0, end)
    client.notify("textDocument/didRejectCompletion", {"item": item})
    assert client.suggested(uri_of(place), 0, end) == []
    assert client.suggested(uri_of(place), 1, end) == ["foo(bar)"], "elsewhere it is"
    assert client.suggested(uri_of(place), 0, end, invoked=True) == ["foo(bar)"], "and whoever asks for it gets it"
    assert counted(place, client)["rejected"] == 1


def test_backspace_turns_down_what_is_shown(place: Place) -> None:
    client = begun(place)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}\n")
    end = len(order)
    client.suggested(uri_of(place), 0, end)
    client.type(uri_of(place), 2, (0, end), "fo")
    assert client.suggested(uri_of(place), 0, end + 2) == ["o(bar)"]
    back = {"start": {"line": 0, "character": end + 1}, "end": {"line": 0, "character": end + 2}}
    client.change(uri_of(place), 3, {"range": back, "text": ""})
    assert client.suggested(uri_of(place), 0, end + 1) == []
    assert len(place.events("complete")) == 1
    assert counted(place, client)["rejected"] == 1


def test_after_an_accept_the_next_one_is_asked_for_at_once(place: Place) -> None:
    client = begun(place)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}\n")
    client.suggested(uri_of(place), 0, len(order))
    client.type(uri_of(place), 2, (0, len(order)), "foo(bar)")
    place.wait_events("complete", 2)  # nobody has asked
    assert client.suggested(uri_of(place), 0, len(order) + 8) == ["foo(bar)"]
    assert len(place.events("complete")) == 2


def test_a_pause_holds_in_every_window(place: Place) -> None:
    first, second = begun(place), begun(place)
    first.open(uri_of(place), "x = \n")
    second.open(uri_of(place), "x = \n")
    told = first.ask("workspace/executeCommand", {"command": "codestral.pause", "arguments": [5]})
    assert told["until"] is not None
    assert [client.suggested(uri_of(place), 0, 4) for client in (first, second)] == [[], []]
    assert place.run("resume").returncode == 0
    assert [len(client.suggested(uri_of(place), 0, 4)) for client in (first, second)] == [1, 1]


SETTINGS = [
    ({"enable": False}, 0, False),
    ({"automatic": False}, 0, True),
    ({"languages": {"python": False}}, 0, False),
    ({"languages": {"*": False, "python": True}}, 1, True),
    ({"exclude": ["b.*"]}, 0, False),
    ({"disable_in": ["comment"]}, 1, True),
]


@pytest.mark.parametrize(("settings", "n_items", "is_by_name"), SETTINGS)
def test_settings_say_where_nothing_is_suggested(
    place: Place, settings: dict[str, Any], n_items: int, is_by_name: bool
) -> None:
    client = place.client()
    client.initialize(place.repository, initializationOptions=settings)
    client.open(uri_of(place), "x = \n# y\n")
    assert len(client.suggested(uri_of(place), 0, 4)) == n_items
    assert bool(client.suggested(uri_of(place), 0, 4, invoked=True)) is is_by_name
    if "disable_in" in settings:
        assert client.suggested(uri_of(place), 1, 3) == []


def test_the_status_is_told_to_who_knows_it(place: Place) -> None:
    client = begun(place, **NEOVIM)
    other = begun(place)
    client.open(uri_of(place), "x = \n")
    client.open(uri_of(place, "notes.py"), "\0\0")
    wait_until(lambda: client.notified("didChangeStatus")[-1:][0]["codestral"].get("reason") == "binary", "the reason")
    client.notify("textDocument/didFocus", {"textDocument": {"uri": uri_of(place)}})
    wait_until(lambda: client.notified("didChangeStatus")[-1]["codestral"]["state"] == "ready", "ready again")
    said = client.notified("didChangeStatus")
    assert {"starting", "ready", "off"} <= {each["codestral"]["state"] for each in said}
    assert all(isinstance(each["busy"], bool) and each["message"] for each in said)
    assert not other.notified("didChangeStatus")


def test_the_daemon_can_be_started_again(place: Place) -> None:
    client = begun(place, **NEOVIM)
    client.open(uri_of(place), "x = \n")
    assert client.suggested(uri_of(place), 0, 4) == ["<1>"]
    assert "again" in client.ask("workspace/executeCommand", {"command": "codestral.restart"})["message"]
    place.wait_events("context", 2)
    assert client.suggested(uri_of(place), 0, 4, invoked=True) == ["<1>"], "of another process, which counts anew"


def test_what_is_read_can_be_seen(place: Place) -> None:
    client = begun(place)
    (workspace,) = client.ask("workspace/executeCommand", {"command": "codestral.whatIsRead"})["workspaces"]
    assert (workspace["root"], workspace["stage"], workspace["left_out"]) == (str(place.repository), "ready", [])
    assert [each["path"] for each in workspace["documents"]] == sorted(each["path"] for each in workspace["documents"])
    assert workspace["n_documents"] == len(workspace["documents"]) > 0
    assert workspace["done"] == workspace["tokens"] > 0
    assert client.ask("workspace/executeCommand", {"command": "codestral.log"})["daemon"].endswith("daemon.log")


def test_the_cache_can_be_cleared(place: Place) -> None:
    client = begun(place)
    for scope in ("all", "workspace"):
        told = client.ask("workspace/executeCommand", {"command": "codestral.clearCache", "arguments": [scope]})
        assert told["message"].endswith("the repository is read again when it is needed")
    assert [each["workspace"] for each in place.events("purge")] == [None, str(place.repository)]


WRONG = [
    ("codestral.pause", ["x"], "expected a number of minutes"),
    ("codestral.pause", [-1], "expected more than 0"),
    ("codestral.clearCache", ["x"], 'expected "workspace" or "all"'),
    ("codestral.nothing", [], "not defined"),
]


@pytest.mark.parametrize(("command", "arguments", "words"), WRONG)
def test_a_wrong_command_is_one_line(place: Place, command: str, arguments: list[Any], words: str) -> None:
    client = begun(place)
    params = {"command": command, "arguments": arguments}
    error = client.answer(client.send("workspace/executeCommand", params))["error"]
    assert words in error["message"] + str(error.get("data", ""))
    assert client.ask("workspace/executeCommand", {"command": "codestral.accept", "arguments": ["unknown"]}) is None
    assert not client.notified("window/showMessage")


def test_a_menu_item_that_is_selected_counts_as_typed(place: Place) -> None:
    client = begun(place)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}os.pa\n")
    at, start = len(order) + 5, len(order) + 3
    selected = {
        "range": {"start": {"line": 0, "character": start}, "end": {"line": 0, "character": at}},
        "text": "path",
    }
    params = {
        "textDocument": {"uri": uri_of(place)},
        "position": {"line": 0, "character": at},
        "context": {"triggerKind": 2, "selectedCompletionInfo": selected},
    }
    (item,) = client.ask("textDocument/inlineCompletion", params)["items"]
    assert (item["insertText"], item["range"]) == ("pathfoo(bar)", selected["range"])
    assert place.events("complete")[-1]["prompt"].endswith("os.path")


def test_new_text_waits_until_typing_has_paused(place: Place) -> None:
    client = place.client()
    client.initialize(place.repository, capabilities=INLINE, initializationOptions={"delay_ms": 400})
    client.open(uri_of(place), "x = \n")
    client.suggested(uri_of(place), 0, 4)  # everything is there
    client.type(uri_of(place), 2, (0, 0), "y\n")
    started = time.monotonic()
    assert client.suggested(uri_of(place), 1, 4)
    waited_s = time.monotonic() - started
    assert waited_s > 0.3
    asked_after = len(place.events("complete"))
    client.type(uri_of(place), 3, (0, 0), "y\n")
    started = time.monotonic()
    assert client.suggested(uri_of(place), 2, 4, invoked=True)
    assert time.monotonic() - started < 0.3, "asked by name it does not"
    assert len(place.events("complete")) == asked_after + 1
