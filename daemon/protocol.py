"""The wire: what is asked of the daemon and what it answers, as plain values. Both processes import this file; it imports no torch.

JSON over HTTP on a Unix socket. `/v1/fim/completions` has Mistral's shape with our own keys beside it; `/v1/contexts` is our own resource: an ordered
list of documents whose recurrent state is wanted.

    POST /v1/contexts              ContextRequest     -> ContextStatus   (202; feeding goes on in the background; 404 when `on` is unknown)
    GET  /v1/contexts/{id}?wait_s= -                  -> ContextStatus   (404 when unknown, as after a restart; waits for news up to wait_s)
    POST /v1/fim/completions       CompletionRequest  -> CompletionResponse
    GET  /healthz                  -                  -> Health
    GET  /v1/models                -                  -> {"object": "list", "data": [ModelCard]}
    GET  /v1/cache                 -                  -> CacheReport     (what is kept, in memory and on disk)
    POST /v1/cache/purge           PurgeRequest       -> PurgeReport
    POST /v1/shutdown              -                  -> {}

A client that closes its connection cancels its request. Errors are {"error": {"message": one line, "type": a word}} with status 400, 404, 409, 499 or 503.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec

PROTOCOL_VERSION = 3


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the context: a path relative to the workspace with forward slashes, and its text with \\n line ends."""

    path: str
    text: str
    edits: float = 0.0  # how often it is edited, as a weight beside the other documents': decides where checkpoints are worth keeping


class ContextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Documents in the order in which the model shall read them: the least likely to change first.

    With `on`, a change of a context: its documents, without those `removed`, and with those given here in place of their older text, the one
    changed last at the end.
    """

    documents: list[Document]
    workspace: str | None = (
        None  # absolute path of the folder they come from: whose states they are, for `cache ls` and `cache purge`
    )
    on: str | None = None
    removed: list[str] = []  # paths


class ContextStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is a key of the content: equal documents of a workspace have equal ids, in every window."""

    id: str
    state: str  # "feeding" | "ready"
    n_documents: int
    tokens: int  # of the whole context
    tokens_fed: int  # run through the model for this context so far
    tokens_reused: int  # found in the cache instead
    left_out: list[str] = []  # paths of documents beyond the model's token budget
    hot_tokens: int = 0  # of the documents that are read after BASE, since it has an older text of them or none
    current: float = (
        1.0  # share of the documents' tokens that completions are answered with in their current text by now
    )
    compacting: bool = False  # a new BASE is being read beside the one that serves

    @property
    def share(self) -> float:
        """Done, 0 to 1."""
        return 1.0 if not self.tokens else (self.tokens_fed + self.tokens_reused) / self.tokens


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`prompt` is the text right before the cursor (a window that starts at a line), `suffix` the text from the line after the cursor's on."""

    prompt: str
    suffix: str = ""
    model: str | None = None  # None: whatever the daemon has loaded
    max_tokens: int = 64
    stop: list[str] = []
    temperature: float = 0.0  # only 0, greedy, is served
    # Our own keys.
    context: str | None = None  # id of a context; None: no repository
    path: str | None = None  # of the document, relative to the workspace; its own copy in the context is not looked up
    related: list[Document] = []  # outlines of what the document imports, read right before it
    head: str = ""  # the document's text from its first line up to where `prompt` starts
    rest_of_line: str = ""  # the text between the cursor and the end of its line
    indent: str = ""  # whitespace before the cursor on a line that has nothing else; it is not in `prompt`, and what is answered goes on behind it
    max_lines: int = 1  # of the answer: with 1 the cursor's line (or one whole line below, at its end), else up to so many while the place asks for it
    may_replace: bool = False  # the client can put the text in place of closers right of the cursor: Choice.replaces
    min_confidence: float = 0.0  # 0 to 1: below it nothing is answered; see Report.confidence
    n: int = 1  # different answers wanted, the likeliest first
    document: str | None = None  # names the editor's document: a newer request for it cancels an older one
    budget_ms: int | None = None  # for feeding and decoding; None: as long as it takes


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    context: float = 0.0  # waiting for the model and finding the nearest state
    feed: float = 0.0
    decode: float = 0.0
    total: float = 0.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(msgspec.Struct, frozen=True, kw_only=True):
    content: str
    role: str = "assistant"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    message: Message
    finish_reason: str  # Mistral's words: "stop" or "length"
    index: int = 0
    replaces: int = 0  # characters right of the cursor that the text stands in place of


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a completion cost; the keys beside Mistral's."""

    context_tokens: int  # repository tokens that the answer's state has read
    tokens_fed: int
    tokens_reused: int
    segment: (
        str  # where the state was resumed: "root" | "base" | "hot" | "related" | "head" | "suffix" | "prefix" | "line"
    )
    context_ready: bool  # False: the answer came from what had been read by then
    current: float = 1.0  # share of the context's tokens that the answer's state has read in their current text
    drafted: int = 0  # tokens that a lookup proposed and the model checked
    accepted: int = 0  # of those, the ones it would have said itself
    stopped_by: str  # "line" | "eos" | "stop" | "repetition" | "max_tokens" | "time" | "cancelled" | "nothing", or a word of daemon.overrun.Overrun
    ms: Timings
    # Why nothing is suggested, though the model was asked to the end: "blank": it ends the line here; "rest_of_line": what it says does not lead
    # up to the text right of the cursor; "present": all that it says stands there already; "next_line": the line below would stand there twice;
    # "leaves": it goes on with what does not belong to the gap; "unsure": it is less certain than `min_confidence`.
    # None: there is a text, or time or a newer request cut it off.
    empty_because: str | None = None
    confidence: float = 1.0  # 0 to 1: geometric mean of the probabilities of the tokens that are shown


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    created: int
    choices: list[Choice]
    usage: Usage
    report: Report
    object: str = "chat.completion"


class WindowSizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a document a completion request holds, in characters, as context.window.WindowSize has it."""

    step: Annotated[
        int, msgspec.Meta(ge=1, le=100_000)
    ]  # above the cursor's line at least so much, at most about twice that
    suffix_chars: Annotated[int, msgspec.Meta(ge=1, le=100_000)]  # below it


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """That a model is asked as its profile says. The profile is the model's: it holds in every repository."""

    n_holes: int
    date: str  # YYYY-MM-DD


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    bytes_per_token: float  # of source code, for planning
    max_context_tokens: int
    precision: str | None = None  # of the weights, as asked for or chosen
    strategy: str | None = None  # how the model is asked: "spm" | "instruct" | "plain"
    window: WindowSizes | None = None  # the best found by calibration; None: the client's own
    calibrated: Calibrated | None = None  # None: no profile is kept
    object: str = "model"


class BackgroundReading(msgspec.Struct, frozen=True, kw_only=True):
    """The context that is being read, the one asked for last."""

    context: str
    tokens: int
    tokens_done: int  # fed or found
    tokens_per_s: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    service: str  # always "codestral-lsp": how a client knows that the socket is ours
    protocol: int
    version: str
    pid: int
    state: str  # "loading" | "ready" | "failed"
    model: ModelCard | None = None  # once ready
    error: str | None = None  # one line, when failed
    contexts: int = 0
    tokens_fed: int = 0  # through the model since the start, for contexts and prompts
    store_bytes: int = 0
    store_budget_bytes: int = 0
    uptime_s: float = 0.0
    idle_timeout_s: float = 0.0
    asked_model: str = ""  # as it was named when the daemon was started, also while it loads
    asked_precision: str = ""
    reading: BackgroundReading | None = None  # None: nothing is being read


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """One state that is kept. `about` says what it covers, for people: a path, or how many files."""

    key: str
    tier: str  # "memory" | "disk"
    kind: str  # the segment it ends
    tokens: int  # read by it
    cost_tokens: int  # to be fed to have it again, from the nearest other state that is kept
    nbytes: int
    uses: int
    pinned: bool  # in use by a live document
    about: str
    workspaces: list[str]
    age_s: float


class TierReport(msgspec.Struct, frozen=True, kw_only=True):
    tier: str  # "memory" | "disk"
    states: int
    nbytes: int
    budget_bytes: int
    hits: int
    misses: int
    evictions: int


class CacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon keeps. `tokens_per_s` turns `cost_tokens` into seconds."""

    model: str
    tiers: list[TierReport]
    states: list[KeptState]
    tokens_per_s: float
    folder: str  # of the disk tier; "" where nothing is kept on disk
    not_persisting: str | None = None  # why nothing is written to disk at present, in one line


class PurgeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`workspace` None: everything."""

    workspace: str | None = None


class PurgeReport(msgspec.Struct, frozen=True, kw_only=True):
    states: int
    nbytes: int


class DamagedState(msgspec.Struct, frozen=True, kw_only=True):
    """A file on disk that is not to be believed."""

    path: str
    nbytes: int
    why: str


class ModelOnDisk(msgspec.Struct, frozen=True, kw_only=True):
    """The states of one model in one precision, whether a daemon runs for it or not: an item of what `python -m daemon.cache_command ls` answers."""

    in_use: bool  # a daemon writes there at present
    model: str  # as its daemon named it; "" where that was not noted
    tokens_per_s: float  # as its daemon noted it; 0: it did not
    states: list[KeptState]
    damaged: list[DamagedState]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """`states` and `nbytes` were read, the damaged ones among them."""

    states: int
    nbytes: int
    damaged: list[DamagedState]
    removed: int


class CalibrationStart(msgspec.Struct, frozen=True, kw_only=True):
    """The first line that `python -m daemon.calibrate` reads. `windows`: the default first; `documents`: files without a hole, in reading order."""

    windows: list[WindowSizes]
    documents: list[Document]


class CalibrationHole(msgspec.Struct, frozen=True, kw_only=True):
    """Each further line: the rest of a line that was cut out, and what is asked for it, one request for each of the windows."""

    truth: str
    where: str  # "start" of the line's text | "token" start | "inside" a name
    requests: list[CompletionRequest]


class CalibrationProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    what: str
    done: int
    total: int


class CalibrationRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of asking has given. Each `_error` is a standard error; `gain` is the similarity above the default's on the same holes."""

    strategy: str
    window: WindowSizes
    n_holes: int
    exact: float  # share of holes filled exactly
    exact_error: float
    similarity: float  # mean of 1 - edit distance / longer length
    similarity_error: float | None  # None: one hole has none
    gain: float
    gain_error: float | None
    log_probability: float | None  # mean nats of a token of the true line
    tokens_per_move: float  # fed when the cursor is somewhere new; means
    ms_per_move: float  # medians
    tokens_per_key: float  # fed for one more typed character
    ms_per_key: float


class CalibrationResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    model: str
    precision: str
    rows: list[CalibrationRow]
    strategy: str  # what is kept
    window: WindowSizes
    default_strategy: str
    default_window: WindowSizes
    notes: list[str]  # why nothing else was tried or chosen, one line each
    feed_tokens_per_s: float
    decode_tokens_per_s: float
    context_tokens: int
    n_holes: int
    profile: str  # its path; "" where nothing was kept


class CalibrationReset(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """A model's profile was removed, or there was none."""

    model: str
    profile: str  # its path
    was_there: bool


class CalibrationFailure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    message: str  # one line


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str


class ErrorResponse(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorBody


class SocketError(Exception):
    """The folder or socket of the daemon cannot be used. One line, for people."""


def socket_folder() -> Path:
    """Where the sockets of this user's daemons are; makes the folder (0700) and refuses one that others own. Raises SocketError."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = (
        Path(runtime) / "codestral-lsp" if runtime else Path(tempfile.gettempdir()) / f"codestral-lsp-{os.getuid()}"
    )
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError as error:
        raise SocketError(
            f"{folder}: cannot be made or read ({error.strerror}), expected a folder of your own"
        ) from None
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise SocketError(f"{folder}: expected a folder that only you can open (mode 0700)")
    return folder


def socket_path(model: str, precision: str = "auto") -> Path:
    """Where the daemon of this user and this model listens, in `socket_folder`.

    `model` is a name such as "bundled" or ORG/NAME, or an absolute path. A precision that was asked for is a daemon of its own.
    Raises SocketError.
    """
    folder = socket_folder()
    wanted = model if precision == "auto" else f"{model}\0{precision}"
    digest = hashlib.blake2b(wanted.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    # A socket's path has at most 107 bytes, and letters of other scripts take more than one.
    name = Path(model).name.encode(errors="replace")[:24].decode(errors="ignore")
    return folder / f"{name}-{digest}.sock"
