"""The training layout must be the one that the product asks in: holes put back together give the file again."""

import random
from pathlib import Path

import numpy as np
import pytest

from model.fim import document_ids
from model.source import BUNDLED
from model.tokenizer_files import read_tokenizer
from training.packing import Layout, batches, file_pieces, split_lines, stream

TOKENIZER = read_tokenizer(BUNDLED / "tokenizer.model")
CONTROL = TOKENIZER.control
LAYOUT = Layout(
    bos=CONTROL.bos, eos=CONTROL.eos, prefix=CONTROL.prefix, suffix=CONTROL.suffix, newline=TOKENIZER.newline
)
FILES = [Path(__file__).parent.parent.parent / "model" / f"{name}.py" for name in ("ssd", "network", "config", "state")]
IDS = [np.array(document_ids(TOKENIZER, path.name, path.read_text(encoding="utf-8"))) for path in FILES]


def put_together(pieces: list[list[int]]) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """The file without control tokens and suffix windows, and (suffix window, text after the hole's line) for each hole."""
    text: list[int] = []
    holes: list[tuple[list[int], int]] = []
    for piece in pieces:
        if LAYOUT.suffix in piece:
            prefix = piece.index(LAYOUT.prefix)
            body = piece[prefix + 1 :]
            assert piece[0] == LAYOUT.suffix and body[-1] == LAYOUT.eos
            text += [*body[:-1], LAYOUT.newline]
            holes.append((piece[1:prefix], len(text)))
        else:
            text += piece
    return text, [(window, text[at : at + len(window)]) for window, at in holes]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("number", range(len(IDS)))
def test_episodes_put_together_are_the_file(number: int, seed: int) -> None:
    pieces = list(file_pieces(IDS[number], LAYOUT, rng=random.Random(seed)))
    text, holes = put_together(pieces)
    assert text == IDS[number].tolist()
    for window, below in holes:
        assert window == below, "the suffix window is not what stands below the hole"


def test_most_files_are_cut_and_some_are_whole() -> None:
    cut = [
        any(LAYOUT.suffix in piece for piece in file_pieces(IDS[0], LAYOUT, rng=random.Random(seed)))
        for seed in range(100)
    ]
    assert 60 < sum(cut) < 95


def test_a_stream_begins_each_repository_with_bos_and_never_ends() -> None:
    source = stream([IDS[:2], IDS[2:4]], LAYOUT, rng=random.Random(0))
    seen = [next(source) for _ in range(2000)]
    assert seen[0] == [LAYOUT.bos]
    assert sum(piece == [LAYOUT.bos] for piece in seen) >= 3


def test_batches_go_on_where_they_stopped() -> None:
    rows = [stream([IDS], LAYOUT, rng=random.Random(seed)) for seed in range(3)]
    source = batches(rows, 64)
    first, second = next(source), next(source)
    assert first.shape == second.shape == (3, 65)
    assert (first[:, -1] == second[:, 0]).all()


def test_lines_keep_their_newline() -> None:
    lines = split_lines(IDS[0], LAYOUT.newline)
    assert [token for line in lines for token in line] == IDS[0].tolist()
    assert all(line[-1] == LAYOUT.newline and LAYOUT.newline not in line[:-1] for line in lines)
