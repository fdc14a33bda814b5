"""A small repository, the models that the daemon's tests run on, and workers that are seen to end."""

from collections.abc import Callable, Iterator

import pytest

from benchmarks.random_checkpoint import RandomSource
from benchmarks.random_steps import CONFIG, tiny_model
from daemon.completion import Engine
from daemon.protocol import Document
from daemon.worker import Worker
from model.build import build_network
from model.checkpoint import LoadedModel
from tests.daemon.daemon_parts import PATIENCE_S, PLENTY, WatchedEngine, module_text


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """About a thousand tokens: a few slices."""
    return [Document(path=f"parts/part_{number}.py", text=module_text(number)) for number in range(6)]


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    """Random weights on the native kernels where there are any, with the bundled tokenizer; a feed costs next to nothing."""
    return tiny_model()


@pytest.fixture(scope="session")
def coarse() -> LoadedModel:
    """The same weights in torch, whose bits depend on how tokens are cut into calls."""
    source = RandomSource(CONFIG)
    network = build_network(source, "fp32", backend="torch")
    assert not network.any_cut
    return LoadedModel("random in torch", CONFIG, network, source.tokenizer(), None, source.digest, "fp32")


@pytest.fixture
def make_engine(bundled) -> Callable[..., WatchedEngine]:
    return lambda budget_bytes=PLENTY, **named: WatchedEngine(bundled, store_budget_bytes=budget_bytes, **named)


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
