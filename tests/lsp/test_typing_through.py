"""Typing through a suggestion, unsaved texts, watched files, outlines and reports, over stdio with the stub daemon."""

import subprocess
import sys
from typing import Any

import pytest
from lsp_client import INLINE, LspClient
from lsp_place import Place, ready, uri_of, wait_until

WATCHING: dict[str, Any] = {**INLINE, "workspace": {"didChangeWatchedFiles": {"dynamicRegistration": True}}}
REPORTS = {"reports": True}


def type_all(client: LspClient, uri: str, at: tuple[int, int], text: str, *, version: int = 2) -> list[list[str]]:
    """What is suggested after each of the keys."""
    suggested = []
    for n, key in enumerate(text):
        client.type(uri, version + n, (at[0], at[1] + n), key)
        suggested.append(client.suggested(uri, at[0], at[1] + n + 1))
    return suggested


def test_what_is_typed_through_does_not_ask_the_model(place: Place) -> None:
    client = ready(place)
    order = "#say foo(bar)#"
    client.open(uri_of(place), f"{order}\ny\n")
    end = len(order)
    assert client.suggested(uri_of(place), 0, end) == ["foo(bar)"]
    assert type_all(client, uri_of(place), (0, end), "foo(bar") == [["foo(bar)"[n:]] for n in range(1, 8)]
    assert len(place.events("complete")) == 1
    back = {"start": {"line": 0, "character": end + 3}, "end": {"line": 0, "character": end + 7}}
    client.wait_for_error("answered without the model (7 so far)")
    client.change(uri_of(place), 20, {"range": back, "text": ""})
    assert client.suggested(uri_of(place), 0, end + 3) == []  # taken back is turned down
    assert len(place.events("complete")) == 1
    client.type(uri_of(place), 21, (0, end + 3), "x")
    client.suggested(uri_of(place), 0, end + 4)
    client.suggested(uri_of(place), 1, 1)
    assert len(place.events("complete")) == 3
    assert client.stop() == 0


def test_asked_by_name_the_model_answers_again(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "x")
    assert client.suggested(uri_of(place), 0, 1) == ["<1>"]
    assert client.suggested(uri_of(place), 0, 1) == ["<1>"]
    assert client.suggested(uri_of(place), 0, 1, invoked=True) == ["<2>"]


def test_what_is_shown_is_never_replaced_by_another_text(place: Place) -> None:
    """It was cut off, so the model is asked near its end; its answer goes on from it, or is not shown."""
    client = ready(place)
    order = "#cut 0123456789#"
    client.open(uri_of(place), f"{order}\n")
    assert client.suggested(uri_of(place), 0, len(order)) == ["0123456789"]
    assert type_all(client, uri_of(place), (0, len(order)), "012") == [["0123456789"[n:]] for n in (1, 2, 3)]
    assert len(place.events("complete")) == 2  # only the third left fewer characters than it takes
    client.open(uri_of(place, "a.py"), "#cut aaaaaaaaa#\n")
    assert client.suggested(uri_of(place, "a.py"), 0, 15) == ["aaaaaaaaa"]
    assert type_all(client, uri_of(place, "a.py"), (0, 15), "aa") == [["aaaaaaaa"], ["aaaaaaaaa"]]


def test_a_request_that_is_answered_at_once_ends_the_older_one(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "#say foo#\n#wait\n")
    assert client.suggested(uri_of(place), 0, 9) == ["foo"]
    older = client.suggest(uri_of(place), 1, 5)
    place.wait_events("complete", 2)
    newer = client.suggest(uri_of(place), 1, 0)  # asks anew: the cursor was elsewhere
    assert client.answer(older)["result"] == {"items": []}
    assert client.answer(newer)["result"]["items"]
    place.wait_events("disconnected")


def test_reports_are_sent_when_they_are_wanted(place: Place) -> None:
    client = place.client(CODESTRAL_LSP_LOG="debug")
    client.initialize(place.repository, initializationOptions=REPORTS)
    client.wait_for_error("tokens of context")
    order = "#say foo(bar)#"
    client.open(uri_of(place), order)
    client.suggested(uri_of(place), 0, len(order))
    type_all(client, uri_of(place), (0, len(order)), "f", version=7)
    first, second = client.notified("codestral/report")
    assert [first[key] for key in ("uri", "version", "is_reused")] == [uri_of(place), 1, False]
    assert [second[key] for key in ("uri", "version", "is_reused")] == [uri_of(place), 7, True]
    assert second["position"] == {"line": 0, "character": len(order) + 1}
    assert first["report"] == second["report"]
    assert {"tokens_fed", "tokens_reused", "segment", "current", "ms"} <= first["report"].keys()
    assert 0 < second["ms"] < first["ms"]
    last = client.ask("codestral-lsp/lastReport", {"textDocument": {"uri": uri_of(place)}})
    assert (last["text"], last["is_reused"]) == ("oo(bar)", True)


def test_reports_are_not_sent_otherwise(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "x")
    client.suggested(uri_of(place), 0, 1)
    assert not client.notified("codestral/report")


@pytest.mark.parametrize(("capabilities", "is_asked"), [(INLINE, False), (WATCHING, True)])
def test_the_editor_is_asked_to_watch_files_where_it_can(
    capabilities: dict[str, Any], is_asked: bool, place: Place
) -> None:
    client = place.client()
    client.initialize(place.repository, capabilities=capabilities)
    place.wait_events("context")
    registrations = [
        each for params in client.notified("client/registerCapability") for each in params["registrations"]
    ]
    assert [each["method"] for each in registrations] == ["workspace/didChangeWatchedFiles"] * is_asked
    assert [each["registerOptions"]["watchers"][0]["globPattern"] for each in registrations] == ["**/*"] * is_asked


def test_watched_and_saved_files_are_one_post(place: Place) -> None:
    client = ready(place)
    (place.repository / "b.py").write_text("y = 1\n")
    (place.repository / "new.py").write_text("z = 1\n")
    (place.repository / "a.py").unlink()
    changes = [{"uri": uri_of(place, name), "type": kind} for name, kind in (("b.py", 2), ("new.py", 1), ("a.py", 3))]
    client.notify("workspace/didChangeWatchedFiles", {"changes": [*changes, {"uri": "untitled:x", "type": 1}]})
    client.open(uri_of(place), "y = 1\n")
    client.save(uri_of(place))
    second = place.wait_events("context", 2)[1]
    assert (sorted(second["posted"]), second["removed"]) == (["b.py", "new.py"], ["a.py"])
    client.ask("shutdown", None)
    assert len(place.events("context")) == 2


def test_an_edited_document_is_posted_when_its_user_turns_to_another(place: Place) -> None:
    client = ready(place)
    client.open(uri_of(place), "y = 1\n")
    client.type(uri_of(place), 2, (0, 5), "0")
    client.suggested(uri_of(place), 0, 6)
    client.open(uri_of(place, "a.py"), "first\n")
    second = place.wait_events("context", 2)[1]
    assert (second["posted"], second["texts"]["b.py"]) == (["b.py"], "y = 10\n")
    client.suggested(uri_of(place), 0, 6)
    client.suggested(uri_of(place, "a.py"), 0, 5)
    client.notify("textDocument/didClose", {"textDocument": {"uri": uri_of(place)}})
    third = place.wait_events("context", 3)[2]
    assert (third["posted"], third["id"]) == (["b.py"], place.events("context")[0]["id"])


def test_what_a_document_imports_is_read_before_it(place: Place) -> None:
    (place.repository / "other.py").write_text("class Other:\n    pass\n")
    client = ready(place)
    client.open(uri_of(place), "from a import first\nx = \n")
    client.wait_for_error("files that it imports are read before it")
    client.suggested(uri_of(place), 1, 4)
    (related,) = place.events("complete")[-1]["related"]
    assert related["path"] == "a.py"
    assert "def first" in related["text"]
    client.type(uri_of(place), 2, (1, 4), "f")
    client.suggested(uri_of(place), 1, 5)
    assert place.events("complete")[-1]["related"] == [related]
    client.type(uri_of(place), 3, (1, 0), "from other import Other\n")
    wait_until(
        lambda: (
            client.suggested(uri_of(place), 2, 5, invoked=True) != []
            and [each["path"] for each in place.events("complete")[-1]["related"]] == ["other.py", "a.py"]
        ),
        "the other file",
    )


def test_another_branch_is_noticed_without_a_watcher(place: Place) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=place.repository, check=True, capture_output=True)

    git("add", ".")
    git("commit", "-q", "-m", "one")
    client = ready(place)
    git("checkout", "-q", "-b", "side")
    (place.repository / "new.py").write_text("z = 1\n")
    git("add", ".")
    git("commit", "-q", "-m", "two")
    second = place.wait_events("context", 2)[1]
    assert (second["posted"], second["removed"]) == (["new.py"], [])
    assert client.stop() == 0


def test_complete_on_the_command_line_posts_the_same(place: Place) -> None:
    (place.repository / "b.py").write_text("from a import first\nx = \n")
    client = ready(place)
    client.open(uri_of(place), "from a import first\nx = \n")
    client.wait_for_error("files that it imports are read before it")
    client.suggested(uri_of(place), 1, 4)
    assert place.run("complete", "b.py:2:5").stdout == "<2>\n"
    first, second = place.events("context")
    assert first == second | {"pid": first["pid"]}
    assert first["workspace"] == str(place.repository)
    asked = place.events("complete")
    assert asked[0]["related"] == asked[1]["related"] != []


def test_an_edited_document_is_posted_when_it_is_left_alone(place: Place) -> None:
    """In a process of its own, whose idle time is short."""
    code = "import lsp.frontend as f, lsp.server as s; f.IDLE_S = 0.3; s.run_stdio()"
    client = LspClient([sys.executable, "-I", "-c", code], env=place.env, cwd=place.repository)
    place.clients.append(client)
    client.initialize(place.repository)
    place.wait_events("context")
    client.open(uri_of(place), "y = 1\n")
    for n in range(5):  # typing puts it off
        client.type(uri_of(place), 2 + n, (0, 5 + n), str(n))
    second = place.wait_events("context", 2)[1]
    assert (second["posted"], second["texts"]["b.py"]) == (["b.py"], "y = 101234\n")
    (place.repository / "b.py").write_text("y = 2\n")
    client.save(uri_of(place))
    assert place.wait_events("context", 3)[2]["texts"]["b.py"] == "y = 2\n"
    assert client.stop() == 0
