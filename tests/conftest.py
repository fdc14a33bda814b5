"""What holds for every test: one thread for torch, and no settings of whoever runs them.

Two threads that wait for each other on a busy machine are slower than one. Child processes inherit it.
"""

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is imported, so before any test file is
for name in [name for name in os.environ if name.startswith("CODESTRAL_LSP_")]:
    del os.environ[name]

# The machine may be busy, so examples have no deadline; the same examples every time, so that a failure can be run again.
settings.register_profile("codestral-lsp", deadline=None, derandomize=True, database=None)
settings.load_profile("codestral-lsp")


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Programs that run in this process flush them to zero for good, which would leave hypothesis without some of its numbers."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is derived from weights is kept apart from whatever the user of this machine has; child processes inherit it."""
    os.environ["CODESTRAL_LSP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def random_network() -> Callable:
    """A factory: config -> a network with random weights, the same for the same config and seed."""
    import torch

    from model.network import Mamba2LM

    torch.set_num_threads(1)

    def make(config, *, seed: int = 0) -> Mamba2LM:
        generator = torch.Generator().manual_seed(seed)
        network = Mamba2LM(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if name.endswith("A_log"):
                    value = torch.log(torch.linspace(1, 16, len(noise)))
                elif name.endswith("dt_bias"):
                    value = -4 + noise  # steps of 0.002 to 0.1: heads that forget and heads that remember
                elif name.endswith("conv1d.weight"):
                    value = 0.5 * noise
                elif parameter.dim() == 1:  # norms, biases, D
                    value = 0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise
                else:
                    value = noise / parameter.shape[-1] ** 0.5
                parameter.copy_(value)
        return network.requires_grad_(False).eval()

    return make


@pytest.fixture(scope="session")
def bundled():
    """The bundled model. What it suggests is nobody's business here."""
    import torch

    from model.checkpoint import load_model

    torch.set_num_threads(1)
    return load_model("bundled")
