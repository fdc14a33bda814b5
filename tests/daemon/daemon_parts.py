"""Parts of the daemon's tests: engines that note what they feed, a thread that can be held, a worker driven step by step, files. Does not know: cases."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from cache.chain import SLICE_TOKENS, Chain
from cache.disk import DiskTier
from daemon.completion import Completion, Engine
from daemon.keeper import Keeper
from daemon.protocol import CompletionRequest, ContextStatus, Document
from daemon.worker import CompletionJob, Worker
from model.checkpoint import LoadedModel
from model.network import Network
from model.state import Mamba2State

PLENTY = 256 << 20
PATIENCE_S = 100.0
WORKSPACE = "/home/someone/work"


class WatchedNetwork:
    """The real network, as the feeder sees it: `before_piece` is called before each piece, and each piece is noted. Decoding has the network itself."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.fed: list[np.ndarray] = []
        self.before_piece: Callable[[], None] = lambda: None
        self.config, self.numerics = network.config, network.numerics
        self.weight_bytes, self.any_cut = network.weight_bytes, network.any_cut

    def __call__(self, ids: Tensor, state: Mamba2State | None = None, **options: Any) -> tuple[Tensor, Mamba2State]:
        self.before_piece()
        self.fed.append(ids[0].numpy())
        return self.network(ids, state, **options)


class WatchedEngine(Engine):
    """The real engine; each piece it feeds can be seen and held. Pieces are slices of 256 tokens: smaller ones have their own tests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.watched = WatchedNetwork(self.feeder.network)
        self.feeder.network = self.watched
        self.feeder.piece_tokens = lambda: SLICE_TOKENS  # type: ignore[method-assign]

    @property
    def fed(self) -> list[np.ndarray]:
        return self.watched.fed

    @property
    def n_fed(self) -> int:
        return sum(map(len, self.fed))

    def hold(self, before_piece: Callable[[], None]) -> None:
        self.watched.before_piece = before_piece


class Hold:
    """Holds the model's thread before its n-th piece until it is let go."""

    def __init__(self, engine: WatchedEngine, *, at: int = 1) -> None:
        self.engine, self.left = engine, at
        self.reached, self.go = threading.Event(), threading.Event()
        engine.hold(self)

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            assert self.go.wait(PATIENCE_S)

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE_S)


class Driven:
    """A worker whose steps are made here, on the test's own thread: what was fed by which of them is known to the token."""

    def __init__(self, engine: WatchedEngine, *, max_context_tokens: int = 100_000) -> None:
        self.engine = engine
        self.worker = Worker(engine, max_context_tokens=max_context_tokens)
        self.texts: dict[str, str] = {}  # what is saved, by path
        self.context = ""

    def post(self, texts: dict[str, str], *, workspace: str | None = WORKSPACE) -> ContextStatus:
        """All files of a workspace."""
        self.texts = dict(texts)
        status = self.worker.add_context(documents_of(texts), workspace=workspace)
        self.context = status.id
        return status

    def save(self, changes: dict[str, str], *, removed: Sequence[str] = ()) -> ContextStatus:
        """Changed files."""
        self.texts = {path: text for path, text in self.texts.items() if path not in removed} | changes
        status = self.worker.add_context(documents_of(changes), workspace=WORKSPACE, on=self.context, removed=removed)
        self.context = status.id
        return status

    def settle(self, *, most: int = 10_000) -> int:
        """All background work that is due; returns the tokens it fed."""
        before = self.engine.n_fed
        for _ in range(most):
            if not self.worker.step():
                self.engine.store.check()
                return self.engine.n_fed - before
        raise AssertionError("there is no end of background work")

    def key(self, path: str, prompt: str, *, speed: float = 1000.0, **changes: Any) -> Completion:
        """One keystroke in a document, answered at once; nothing is read in the background meanwhile. `speed`: tokens fed in a second, as measured."""
        self.engine.feeder.tokens_per_s = speed
        job = self.worker.submit(ask(prompt, path=path, document=path, **({"context": self.context} | changes)))
        self.worker.step()
        made = job.future.result(0)
        self.engine.store.check()
        return made

    def status(self) -> ContextStatus:
        return self.worker.context(self.context)


class Answers:
    """How often each future was resolved, in which order."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def watch(self, name: str, job: CompletionJob) -> CompletionJob:
        job.future.add_done_callback(lambda _: self.order.append(name))
        return job


def ask(prompt: str = "import ", **changes: Any) -> CompletionRequest:
    return msgspec.structs.replace(CompletionRequest(prompt=prompt, max_tokens=2), **changes)


def wait_ready(worker: Worker, context_id: str) -> ContextStatus:
    """Asks for a completion until the context was read: each answer comes after at least one more slice or none is left."""
    for _ in range(1000):
        status = worker.context(context_id)
        if status.state == "ready":
            return status
        worker.submit(ask()).future.result(PATIENCE_S)
    raise AssertionError(f"still reading: {status}")


def quiet(worker: Worker) -> None:
    """Until nothing is left to read in the background, of a worker that runs."""
    for _ in range(1000):
        if not worker.busy:
            return
        worker.submit(ask()).future.result(PATIENCE_S)
    raise AssertionError("still busy")


def documents_of(texts: dict[str, str]) -> list[Document]:
    return [Document(path=path, text=text) for path, text in texts.items()]


def module_text(number: int, *, n_methods: int = 4) -> str:
    body = "".join(
        f"    def method_{n}(self, value_{n}: int) -> int:\n        return self.total + {n} * value_{n}\n\n"
        for n in range(n_methods)
    )
    return f'"""Part {number}."""\n\nimport os\n\n\nclass Part{number}:\n    total = {number}\n\n{body}'


def keeper_in(folder: Path, model: LoadedModel, **settings: Any) -> Callable[[Chain], Keeper]:
    """For Engine's `keeper_of`: a disk tier in a folder, in fp32 unless the settings say otherwise."""
    chosen = {"snapshot_format": "fp32", "budget_bytes": 1 << 30} | settings
    snapshot_format = chosen.pop("snapshot_format")

    def make(root: Chain) -> Keeper:
        tier = DiskTier(folder, fingerprint=root.root.hex(), root=root.root, **chosen)
        return Keeper(tier, folder, config=model.network.config, snapshot_format=snapshot_format)

    return make


def same_as_cold(engine: Engine, cold: Engine, made: Completion, request: CompletionRequest) -> bool:
    """Whether the state that a completion was answered from has the bits that an engine which keeps nothing gives it."""
    plan = made.plan
    value = engine.read(plan.prompt.chain)
    other = cold.read(cold.prompt(request, plan.ground, with_head=plan.has_head).chain)
    assert value is not None and other is not None
    return all(map(torch.equal, (value.logits, *value.state), (other.logits, *other.state)))
