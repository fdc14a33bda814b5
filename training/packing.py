"""Turns repositories into endless streams of token ids in the layout that the product asks in.

A repository is `<s>`, then its files, each behind a header line `+++++ path`. Most files are cut into fill-in-the-middle episodes:

    +++++ path \\n head [SUFFIX] lines below [PREFIX] lines above and the start of a line, the rest of that line </s> [SUFFIX] ...

The suffix stands before the prefix, starts at the line after the hole, and the hole always starts at a token boundary of the whole text: the product
heals the cursor's token before it asks (see model/fim.py). Knows: token ids. Does not know: the network.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """Ids of the control tokens and of the newline."""

    bos: int
    eos: int
    prefix: int
    suffix: int
    newline: int


def stream(repositories: list[list[np.ndarray]], layout: Layout, *, rng: random.Random) -> Iterator[list[int]]:
    """Pieces of token ids without end: the repositories in random order, again and again, with new holes each time.

    A repository is the list of its files' token ids, header included.
    """
    order = list(range(len(repositories)))
    while True:
        rng.shuffle(order)
        for index in order:
            yield [layout.bos]
            for ids in repositories[index]:
                yield from file_pieces(ids, layout, rng=rng)


def file_pieces(ids: np.ndarray, layout: Layout, *, rng: random.Random) -> Iterator[list[int]]:
    """One file, whole or as episodes."""
    if rng.random() < 0.2:
        yield ids.tolist()
        return
    lines = split_lines(ids, layout.newline)
    yield lines[0]  # the header
    row = 1
    head_tokens = rng.choice([0, 0, 64, 256, 768])
    while row < len(lines) and head_tokens > 0:
        yield lines[row]
        head_tokens -= len(lines[row])
        row += 1
    while row < len(lines):
        piece, row = episode(lines, row, layout, rng=rng)
        yield piece


def episode(lines: list[list[int]], row: int, layout: Layout, *, rng: random.Random) -> tuple[list[int], int]:
    """One hole whose prefix window starts at line `row`; returns its ids and the first line after the hole."""
    window: list[int] = []
    wanted = rng.randint(16, 320)
    while row < len(lines) and (len(window) < wanted or not cut_points(lines[row])):
        window += lines[row]
        row += 1
    if row == len(lines):
        return window, row
    cut = rng.choice(cut_points(lines[row]))
    body = lines[row][:-1] if lines[row][-1] == layout.newline else lines[row]
    middle = body[cut:]
    last = row + 1
    if rng.random() < 0.2:  # a block: some whole lines more
        last = min(len(lines), last + rng.randint(1, 4))
        block = [token for line in lines[row:last] for token in line]
        middle = block[cut:-1] if block[-1] == layout.newline else block[cut:]
    below: list[int] = []
    wanted = rng.choice([0, 16, 64, 128])
    for line in lines[last : last + 40]:
        if len(below) >= wanted:
            break
        below += line
    ids = [layout.suffix, *below, layout.prefix, *window, *body[:cut], *middle, layout.eos]
    return ids, last


def cut_points(line: list[int]) -> list[int]:
    """Where in a line a hole may start: before any token but the newline, and not in a blank line."""
    return list(range(len(line) - 1)) if len(line) > 2 else []


def split_lines(ids: np.ndarray, newline: int) -> list[list[int]]:
    """The newline token ends each line but perhaps the last."""
    ends = np.flatnonzero(ids == newline) + 1
    return [part.tolist() for part in np.split(ids, ends) if len(part)]


def batches(streams: list[Iterator[list[int]]], n_tokens: int) -> Iterator[np.ndarray]:
    """Endless (B, n_tokens + 1) blocks; each row goes on where it stopped, the last token of a block being the first of the next."""
    buffers: list[list[int]] = [[] for _ in streams]
    while True:
        for buffer, source in zip(buffers, streams, strict=True):
            while len(buffer) < n_tokens + 1:
                buffer += next(source)
        yield np.array([buffer[: n_tokens + 1] for buffer in buffers], dtype=np.int64)
        for buffer in buffers:
            del buffer[:n_tokens]
