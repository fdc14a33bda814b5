"""The torch network from a source of weights, tensor by tensor. Knows: Mamba2LM's names. Does not know: files, other backends."""

import torch
from torch import Tensor

from model.layout import EMBEDDINGS, HEAD
from model.network import Mamba2LM
from model.progress import Progress
from model.source import Source


def build_torch(source: Source, *, dtype: torch.dtype = torch.float32, progress: Progress | None = None) -> Mamba2LM:
    """Matrices become `dtype`, everything smaller fp32: that is read into fp32 mathematics anyway.

    At its largest it holds the network and one tensor as stored. Raises CheckpointError.
    """
    with torch.device("meta"):
        network = Mamba2LM(source.config)
    tensors: dict[str, Tensor] = {}
    done, n_bytes = 0, source.stored_bytes
    for name in source.names():
        tensor = source.read(name)
        done += tensor.nbytes
        tensors[name] = tensor.to(dtype if tensor.dim() == 2 else torch.float32)
        if progress is not None:
            progress(min(done, n_bytes), n_bytes, "reading the weights")
    if source.config.tie_embeddings:
        tensors[HEAD] = tensors[EMBEDDINGS]
    network.load_state_dict(tensors, strict=True, assign=True)
    if source.config.tie_embeddings:
        network.lm_head.weight = network.backbone.embeddings.weight
    return network.requires_grad_(False).eval()
