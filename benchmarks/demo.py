"""The main job on this repository, as an editor would do it: `make demo`.

Copies the repository's files to a scratch folder with a hole cut into one of them, so that the answer is nowhere to be read; starts the real
`codestral-lsp --stdio`; shows the progress while the repository is read; puts the cursor into the hole; prints the suggestion in place; then types the
missing text key by key and prints what each key cost; then saves another file, ends the daemon, and prints what the next keys cost. Uses a daemon and a cache
of its own and removes both at the end. Exit 0 when every key was answered.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = Path(sys.executable).with_name("codestral-lsp")
# A line of this repository, where in it the hole begins, and how many characters are typed.
HOLES = [
    (
        "daemon/protocol.py",
        "class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):",
        "class CompletionRequest(msgspec.",
    ),
    ("lsp/frontend.py", "        document = self._documents.get(uri)", "        "),
    ("cache/lookup.py", "@dataclass(frozen=True, slots=True)", "@dataclass("),
]
TYPED_KEYS = 12
CONTEXT_LINES = 6
PATIENCE_S = 600
READ_AGAIN_TOKENS = 10_000  # of this repository, that an answer of a daemon which has just started has read
QUARTERS: dict[str, int | None] = {}  # the last one that was printed


@dataclass(frozen=True)
class Hole:
    path: str
    before: str  # the whole file up to the hole
    truth: str  # the rest of the line
    after: str  # from the line end on


def main() -> int:
    if not SCRIPT.exists():
        print(f"{SCRIPT}: no such file, expected the console script; run `make setup` first", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cl-demo-") as folder:  # short: a socket lies below it
        root = Path(folder)
        copy_repository(root / "repository")
        hole = cut_hole(root / "repository")
        environment = os.environ | {
            "XDG_RUNTIME_DIR": str(make_private(root / "run")),
            "XDG_STATE_HOME": str(root / "state"),
            "CODESTRAL_LSP_CACHE": str(root / "cache"),
        }
        environment.pop("CODESTRAL_LSP_DAEMON_COMMAND", None)
        try:
            return asyncio.run(asyncio.wait_for(show(root / "repository", hole, environment), PATIENCE_S))
        finally:
            subprocess.run([str(SCRIPT), "stop"], env=environment, stdout=subprocess.DEVNULL, check=False)


async def show(root: Path, hole: Hole, environment: dict[str, str]) -> int:
    client, read = await started(environment)
    await client.initialize_async(
        types.InitializeParams(
            process_id=os.getpid(),
            root_uri=root.as_uri(),
            workspace_folders=[types.WorkspaceFolder(uri=root.as_uri(), name=root.name)],
            capabilities=types.ClientCapabilities(
                window=types.WindowClientCapabilities(work_done_progress=True),
                text_document=types.TextDocumentClientCapabilities(
                    inline_completion=types.InlineCompletionClientCapabilities()
                ),
            ),
        )
    )
    client.initialized(types.InitializedParams())
    await read.wait()
    editor = Editor(client, (root / hole.path).as_uri(), hole)
    await editor.open()
    suggestion = await editor.suggestion()
    print(f"\n{hole.path}:{editor.line + 1}, the cursor where ⟦ stands; the dimmed text is the suggestion\n")
    print(editor.in_place(suggestion))
    print(f"\n(what stood there: {hole.truth!r})\n\ntyping it, one key at a time:\n")
    print(f"{'key':>5} {'tokens fed':>11} {'reused':>8} {'ms':>7}   suggestion")
    await editor.report_key("open")
    for key in hole.truth[:TYPED_KEYS]:
        await editor.type(key)
        await editor.suggestion()
        await editor.report_key(repr(key))
    await show_changes(root, editor, environment)
    await client.shutdown_async(None)
    client.exit(None)
    await asyncio.wait_for(client.stop(), 10)
    return 0


async def show_changes(root: Path, editor: "Editor", environment: dict[str, str]) -> None:
    """What an editor's day does to a repository: another file is saved, the daemon ends."""
    other = change_another(root, editor.hole.path)
    editor.saved(other)
    await asyncio.sleep(1.0)  # the server waits a moment for more of the kind
    print(f"\n{other.relative_to(root)} was saved; the repository before it is not read again:\n")
    await editor.type("x")
    await editor.suggestion()
    await editor.report_key("x")
    stop = await asyncio.create_subprocess_exec(str(SCRIPT), "stop", env=environment, stdout=subprocess.DEVNULL)
    await stop.wait()
    print("\nthe daemon was ended; the next key starts it again, and the repository's state lies on disk:\n")
    for n in range(40):  # the first answers do not wait for the repository
        await editor.type("yz"[n % 2])
        await editor.suggestion()
        if await editor.report_key("yz"[n % 2]) > READ_AGAIN_TOKENS:
            break
        await asyncio.sleep(0.3)


def change_another(root: Path, path: str) -> Path:
    """A file other than the one in the editor, with a line more than before."""
    other = next(file for file in sorted(root.glob("*/*.py")) if str(file.relative_to(root)) != path)
    other.write_text(other.read_text(encoding="utf-8") + "\n# one more line\n", encoding="utf-8")
    return other


class Editor:
    """The little that an editor does: one open document, one cursor, incremental changes."""

    def __init__(self, client: LanguageClient, uri: str, hole: Hole) -> None:
        self.client, self.uri, self.hole = client, uri, hole
        self.typed = ""
        self.version = 1
        self.shown = ""

    @property
    def line(self) -> int:
        return self.hole.before.count("\n")

    @property
    def character(self) -> int:
        return len(self.hole.before.rpartition("\n")[2]) + len(self.typed)

    @property
    def position(self) -> types.Position:
        return types.Position(line=self.line, character=self.character)

    async def open(self) -> None:
        text = self.hole.before + self.hole.after
        item = types.TextDocumentItem(uri=self.uri, language_id="python", version=self.version, text=text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    async def type(self, key: str) -> None:
        self.version += 1
        change = types.TextDocumentContentChangePartial(
            range=types.Range(start=self.position, end=self.position), text=key
        )
        document = types.VersionedTextDocumentIdentifier(uri=self.uri, version=self.version)
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(text_document=document, content_changes=[change])
        )
        self.typed += key

    async def suggestion(self) -> str:
        answer = await self.client.text_document_inline_completion_async(
            types.InlineCompletionParams(
                text_document=types.TextDocumentIdentifier(uri=self.uri),
                position=self.position,
                context=types.InlineCompletionContext(trigger_kind=types.InlineCompletionTriggerKind.Automatic),
            )
        )
        items = answer.items if isinstance(answer, types.InlineCompletionList) else answer or []
        self.shown = str(items[0].insert_text) if items else ""
        return self.shown

    def saved(self, file: Path) -> None:
        change = types.FileEvent(uri=file.as_uri(), type=types.FileChangeType.Changed)
        self.client.workspace_did_change_watched_files(types.DidChangeWatchedFilesParams(changes=[change]))

    async def report_key(self, name: str) -> int:
        """Prints a line; returns how many tokens the answer's state has read of the repository."""
        report: Any = await self.client.protocol.send_request_async(
            "codestral-lsp/lastReport", {"textDocument": {"uri": self.uri}}
        )
        report = report if isinstance(report, dict) else vars_of(report)
        ms = vars_of(report["ms"])["total"]
        fed, reused, took = f"{report['tokens_fed']:,}", f"{report['tokens_reused']:,}", f"{ms:.1f}"
        if report["is_reused"]:  # what was typed agrees with what is shown: the model was not asked
            fed, reused, took = "0", "-", "-"
        print(f"{name:>5} {fed:>11} {reused:>8} {took:>7}   {dim(self.shown.replace(chr(10), '⏎')) or '(none)'}")
        return int(report["context_tokens"])

    def in_place(self, suggestion: str) -> str:
        above = self.hole.before.split("\n")[-CONTEXT_LINES:]
        below = self.hole.after.split("\n")[1:CONTEXT_LINES]
        return "\n".join(f"  | {line}" for line in ["\n  | ".join(above) + "⟦" + dim(suggestion) + "⟧", *below])


def vars_of(value: Any) -> dict[str, Any]:
    """A JSON object as pygls hands it over: a named tuple, a dict or an object."""
    if isinstance(value, dict):
        return value
    return value._asdict() if hasattr(value, "_asdict") else vars(value)


async def started(environment: dict[str, str]) -> tuple[LanguageClient, asyncio.Event]:
    """The server, and an event for when it has read the repository."""
    client = LanguageClient("codestral-lsp-demo", "1")
    read = asyncio.Event()

    @client.feature(types.WINDOW_WORK_DONE_PROGRESS_CREATE)
    def create(_: types.WorkDoneProgressCreateParams) -> None:
        return None

    @client.feature(types.PROGRESS)
    def progress(params: types.ProgressParams) -> None:
        value = params.value if isinstance(params.value, dict) else vars_of(params.value)
        show_progress(value)
        if value.get("kind") == "end":
            read.set()

    await client.start_io(str(SCRIPT), "--stdio", env=environment)
    return client, read


def show_progress(value: dict[str, Any]) -> None:
    """One line that is drawn over on a terminal, a line each quarter elsewhere."""
    text, share = value.get("message") or value.get("title") or "", value.get("percentage")
    if sys.stdout.isatty():
        bar = "█" * round(30 * (share or 0) / 100)
        print(f"\r\x1b[2K  {bar:<30} {text}", end="\n" if value.get("kind") == "end" else "", flush=True)
        return
    quarter = None if share is None else share // 25
    if quarter != QUARTERS.get("last") or value.get("kind") == "end":
        QUARTERS["last"] = quarter
        print(f"  {text}", flush=True)


def copy_repository(target: Path) -> None:
    """The tracked files, as a git repository of its own."""
    names = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        source, copy = REPOSITORY / name, target / name
        if source.is_file() and not source.is_symlink() and source.suffix != ".safetensors":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)


def cut_hole(root: Path) -> Hole:
    """Cuts the first of HOLES that this version of the repository has, on disk as well."""
    for path, line, start in HOLES:
        file = root / path
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if f"\n{line}\n" in text:
            at = text.index(f"\n{line}\n") + 1
            before, after = text[: at + len(start)], text[at + len(line) :]
            file.write_text(before + after, encoding="utf-8")
            return Hole(path, before, line[len(start) :], after)
    raise SystemExit("none of the demo's lines is in this repository any more: mend HOLES in benchmarks/demo.py")


def make_private(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def dim(text: str) -> str:
    return f"\x1b[2m{text}\x1b[0m" if sys.stdout.isatty() and text else text


if __name__ == "__main__":
    sys.exit(main())
