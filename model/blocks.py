"""How packed weights are cut: the two numbers that files, kernels and sizes in memory agree on. Does not know tensors."""

GROUP = 64  # inputs that share one scale; of activations too
ROWS = 16  # output rows of one block


def padded(n: int, unit: int) -> int:
    return -(-n // unit) * unit
