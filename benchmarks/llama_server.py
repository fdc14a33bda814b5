"""llama.cpp's own server under the same events: the same weights, the same token ids, on a Unix socket.

It gets what suits it: prompts in the order in which typing only appends, its prompt cache, no tokenizing on the clock, and as many tokens to generate as our
answer had, and one for its end. Knows: its command line and `/completion`. Does not know: our server.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import PeerError, program
from benchmarks.prompt_reader import PromptReader, request_of
from benchmarks.typing_script import RESTARTS, Event, Script, edited
from benchmarks.unix_http import HttpError, UnixHttp

START_S = 120.0
SETUPS = ("defaults", "flags", "best")
ROOM_TOKENS = 32_768  # beside the repository, for documents and what is generated


@dataclass(frozen=True, slots=True)
class Setup:
    """How a server is run and asked.

    `own_slots`: that many documents have a slot of their own each, instead of the one that the server picks. `saves_slot`: the state after the repository
    is saved to disk when it has been read, and restored after a restart. `overlay`: a file that has been saved is read again after the repository, as our
    daemon does it, so that the tokens before it stay the same; else it is replaced where it stands.
    """

    name: str
    flags: tuple[str, ...] = ()
    own_slots: int = 0
    saves_slot: bool = False
    overlay: bool = False


def setups_of(names: Sequence[str], *, n_documents: int) -> list[Setup]:
    """Some of SETUPS, in their order.

    "defaults": no flag. "flags": checkpoints close to each other and large micro-batches, which serve a client that knows nothing of slots. "best": the same
    under a client that drives it as well as its interface allows, which no editor plugin does: a slot for each document, the repository's state saved to
    disk and restored after a restart, saved files after the repository.
    """
    flags = ("-ub", "2048", "-b", "2048", "-ctxcp", "128", "-cms", "256", "-t", str(os.cpu_count()))
    slots = ("-np", str(n_documents), "--no-kv-unified", "--no-cache-idle-slots")
    known = (
        Setup("defaults"),
        Setup("flags", flags),
        Setup("best", (*flags, *slots), own_slots=n_documents, saves_slot=True, overlay=True),
    )
    return [setup for setup in known if setup.name in names]


@dataclass(frozen=True, slots=True)
class PeerSample:
    """`ms`: key to answer; of a restart that has to start the process first, that too. `fed`: prompt tokens that it processed."""

    kind: str
    round: int
    ms: float
    fed: int


class LlamaServer:
    """One server process and the texts as they are after the events so far. Raises PeerError where it fails."""

    def __init__(
        self,
        setup: Setup,
        *,
        gguf: Path,
        folder: Path,
        reader: PromptReader,
        files: Sequence[tuple[str, str]],
        n_tokens: int,
    ) -> None:
        self.setup, self.gguf, self.folder, self.reader = setup, gguf, folder, reader
        self.files = dict(files)
        self.n_context = (n_tokens + ROOM_TOKENS) * max(1, setup.own_slots)
        self.overlaid: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.repository = reader.repository(self.files.items())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, script: Script) -> float:
        """Seconds until the repository has been read: the process's start and a first prompt."""
        self.texts = dict(script.opened)
        self.slots = {path: number for number, path in enumerate(self.texts)}
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        self._run()
        if self.setup.saves_slot:
            self._ask(self._body_of(self.reader.ids_of(self.repository), n_predict=0, slot=0))
            self._slot(0, "save")
        self._ask(self._body(script.events[0], n_predict=1))
        return time.perf_counter() - started

    def play(self, event: Event, *, n_predict: int) -> PeerSample:
        if event.written is not None:
            self._replace(*event.written)
        self.texts[event.path] = edited(self.texts[event.path], event)
        body = self._body(event, n_predict=n_predict)  # not on the clock: our client makes its request on it
        if event.kind in RESTARTS:
            self.close()
        started = time.perf_counter()
        if event.kind in RESTARTS:
            self._run()
            if event.kind == "restart_ready":
                started = time.perf_counter()
            if self.setup.saves_slot:
                self._slot(self.slots[event.path], "restore")
        fed = self._ask(body)
        return PeerSample(event.kind, event.round, 1000 * (time.perf_counter() - started), fed)

    def close(self) -> None:
        if self._process is None:
            return
        self._http.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _run(self) -> None:
        socket = self.folder / f"{self.setup.name}.sock"
        socket.unlink(missing_ok=True)
        command = [str(program("llama-server")), "-m", str(self.gguf), "--host", str(socket), "-c", str(self.n_context)]
        command += [*self.setup.flags, *(("--slot-save-path", str(self.folder)) if self.setup.saves_slot else ())]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OMP_", "GOMP_", "KMP_", "LLAMA_"))
        }
        log = self.folder / f"{self.setup.name}.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=kept)
        self._http = UnixHttp(socket)
        end = time.monotonic() + START_S
        while self._http.is_up("/health") is None:
            if self._process.poll() is not None or time.monotonic() > end:
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
                raise PeerError(f"{' '.join(command)}: is not ready: {lines[-1]}")
            time.sleep(0.01)

    def _replace(self, path: str, text: str) -> None:
        if self.setup.overlay:
            self.overlaid.pop(path, None)
            self.overlaid[path] = text
        else:
            self.files[path] = text
        self.repository = self.reader.repository([*self.files.items(), *self.overlaid.items()])

    def _body(self, event: Event, *, n_predict: int) -> bytes:
        ids = self.reader.ids(self.repository, request_of(self.texts[event.path], event.cursor, event.path))
        return self._body_of(ids, n_predict=n_predict, slot=self.slots[event.path])

    def _body_of(self, ids: list[int], *, n_predict: int, slot: int) -> bytes:
        wanted = {"prompt": ids, "n_predict": n_predict, "temperature": 0.0, "cache_prompt": True}
        return json.dumps(wanted | ({"id_slot": slot} if self.setup.own_slots else {})).encode()

    def _ask(self, body: bytes) -> int:
        """Prompt tokens that were processed."""
        try:
            return int(self._http.ask("POST", "/completion", body)["timings"]["prompt_n"])
        except HttpError as error:
            raise PeerError(str(error)) from None

    def _slot(self, number: int, action: str) -> None:
        try:
            self._http.ask("POST", f"/slots/{number}?action={action}", b'{"filename": "repository.bin"}')
        except HttpError as error:
            raise PeerError(str(error)) from None
