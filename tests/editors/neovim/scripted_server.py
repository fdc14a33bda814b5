"""A language server that answers what a test has written down, and notes all that it hears. Run as a program with a folder as its argument.

Knows the standard library only, so that it starts in milliseconds.

The folder holds `script.json`, read anew for each request: {"encoding"?, "commands"?, "says"?, "rules": [{"after", "kind"?,
"delay_s"?, "items"}]}. The first rule whose `after` ends the text left of the cursor on its line (and whose `kind` is the request's)
answers. An item is {"text", "back"?, "forward"?}: the last two say how far its range reaches, in characters. `says` are notifications
that follow a document's opening. `heard.jsonl` gets one line for each message.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
CANCELLED = -32800
UNITS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}

texts: dict[str, list[str]] = {}
pending: dict[Any, threading.Timer] = {}
lock = threading.Lock()


def main() -> None:
    while (message := read()) is not None:
        with (FOLDER / "heard.jsonl").open("a", encoding="utf-8") as heard:
            heard.write(json.dumps(message) + "\n")
        method, params = message.get("method"), message.get("params")
        if method == "exit":
            return
        if method == "$/cancelRequest":
            end(params["id"])
        elif method in ("textDocument/didOpen", "textDocument/didChange"):
            document = params["textDocument"]
            text = document["text"] if "text" in document else params["contentChanges"][-1]["text"]
            texts[document["uri"]] = text.replace("\r\n", "\n").split("\n")
            for notification in script().get("says", []) if method.endswith("Open") else []:
                send(notification)
        elif "id" in message and method is not None:
            answer(message)


def script() -> dict[str, Any]:
    return json.loads((FOLDER / "script.json").read_text(encoding="utf-8"))


def answer(message: dict[str, Any]) -> None:
    method, params, name = message["method"], message["params"], message["id"]
    if method == "textDocument/inlineCompletion":
        return suggest(name, params)
    result: Any = None
    if method == "initialize":
        capabilities: dict[str, Any] = {"textDocumentSync": 1, "inlineCompletionProvider": True}
        if "encoding" in script():
            capabilities["positionEncoding"] = script()["encoding"]
        result = {"capabilities": capabilities}
    elif method == "workspace/executeCommand":
        result = script().get("commands", {}).get(params["command"])
    return send({"id": name, "result": result})


def suggest(name: Any, params: dict[str, Any]) -> None:
    position = params["position"]
    line = texts[params["textDocument"]["uri"]][position["line"]]
    codec, width = UNITS[script().get("encoding", "utf-16")]
    left = line.encode(codec)[: position["character"] * width].decode(codec)
    for rule in script()["rules"]:
        if (
            left.endswith(rule["after"])
            and rule.get("kind", params["context"]["triggerKind"]) == params["context"]["triggerKind"]
        ):
            items = [
                item_of(item, n, position["line"], left, line, codec, width) for n, item in enumerate(rule["items"])
            ]
            return later(name, {"items": items}, rule.get("delay_s", 0.0))
    return send({"id": name, "result": {"items": []}})


def item_of(item: dict[str, Any], n: int, row: int, left: str, line: str, codec: str, width: int) -> dict[str, Any]:
    def at(n_characters: int) -> dict[str, int]:
        return {"line": row, "character": len(line[:n_characters].encode(codec)) // width}

    return {
        "insertText": item["text"],
        "range": {"start": at(len(left) - item.get("back", 0)), "end": at(len(left) + item.get("forward", 0))},
        "command": {"title": "", "command": "codestral.accept", "arguments": [f"id {n}"]},
    }


def later(name: Any, result: Any, delay_s: float) -> None:
    def due() -> None:
        with lock:
            if pending.pop(name, None) is None:
                return
        send({"id": name, "result": result})

    timer = threading.Timer(delay_s, due)
    timer.daemon = True
    pending[name] = timer
    timer.start()


def end(name: Any) -> None:
    with lock:
        timer = pending.pop(name, None)
    if timer is not None:
        timer.cancel()
        send({"id": name, "error": {"code": CANCELLED, "message": "cancelled"}})


def read() -> Any:
    length = 0
    while (line := sys.stdin.buffer.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = sys.stdin.buffer.read(length)
    return json.loads(body) if length and len(body) == length else None


def send(message: dict[str, Any]) -> None:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    with lock:
        os.write(1, b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


if __name__ == "__main__":
    main()
