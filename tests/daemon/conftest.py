"""A small repository, and engines that run the bundled model and remember what they fed."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from cache.chain import SLICE_TOKENS
from daemon.completion import Engine, Value
from daemon.protocol import Document
from daemon.worker import Worker

PLENTY = 256 << 20
PATIENCE_S = 120.0


class WatchedEngine(Engine):
    """The real engine; it also notes each slice it feeds, and calls `before_slice` first."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.fed: list[np.ndarray] = []
        self.before_slice: Callable[[], None] = lambda: None
        self.feeder.piece_tokens = lambda: SLICE_TOKENS  # type: ignore[method-assign]  # pieces have their own tests
        self.feed = self.watched

    def watched(self, tokens: np.ndarray, value: Value | None) -> Value:
        self.before_slice()
        self.fed.append(tokens)
        return self.feeder.feed(tokens, value)

    @property
    def n_fed(self) -> int:
        return sum(map(len, self.fed))


def module_text(number: int) -> str:
    body = "".join(
        f"    def method_{n}(self, value_{n}: int) -> int:\n        return self.total + {n} * value_{n}\n\n"
        for n in range(4)
    )
    return f'"""Part {number}."""\n\nimport os\n\n\nclass Part{number}:\n    total = {number}\n\n{body}'


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """About a thousand tokens: a few slices."""
    return [Document(path=f"parts/part_{number}.py", text=module_text(number)) for number in range(6)]


@pytest.fixture
def make_engine(bundled) -> Callable[..., WatchedEngine]:
    return lambda budget_bytes=PLENTY: WatchedEngine(bundled, store_budget_bytes=budget_bytes)


@pytest.fixture
def engine(make_engine: Callable[..., WatchedEngine]) -> WatchedEngine:
    return make_engine()


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Starts workers, and at the end stops them and sees that they have ended."""
    workers: list[Worker] = []

    def run(engine: Engine, *, max_context_tokens: int = 100_000) -> Worker:
        workers.append(Worker(engine, max_context_tokens=max_context_tokens))
        workers[-1].start()
        return workers[-1]

    yield run
    for worker in workers:
        worker.stop()
        worker.join(PATIENCE_S)
        assert not worker.is_alive()
        worker.engine.store.check()
