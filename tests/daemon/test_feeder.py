"""Feeding in pieces: the same bits, every token once, and never long before somebody more urgent is noticed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cache.chain import SLICE_TOKENS, Tokens, as_tokens
from daemon.feeder import MIN_PIECE_TOKENS, PIECE_S, Feeder, Interrupted, Value
from model.checkpoint import LoadedModel
from model.native import NativeLM
from model.state import Mamba2State

SLOW = 20.5 / PIECE_S  # tokens a second: pieces of 20


@pytest.fixture
def feeder(bundled: LoadedModel) -> Feeder:
    if not isinstance(bundled.network, NativeLM):
        pytest.skip("without kernels slices are not cut")
    made = Feeder(bundled.network, tokens_per_s=SLOW)
    made._account = lambda n_tokens, seconds: setattr(made, "tokens_fed", made.tokens_fed + n_tokens)  # the speed stays
    return made


def tokens(n: int, *, seed: int = 0) -> Tokens:
    return as_tokens(np.random.default_rng(seed).integers(300, 8000, n))


def after(n: int) -> Callable[[], bool]:
    """Says yes the n-th time it is asked."""
    left = iter([*[False] * (n - 1), True])
    return lambda: next(left, False)


def same(one: Value, other: Value) -> bool:
    return all(torch.equal(a, b) for a, b in zip((*one.state, one.logits), (*other.state, other.logits), strict=True))


@pytest.mark.parametrize("pieces", [1, 2, 7, 12])
def test_an_interrupted_slice_goes_on_where_it_was_left(pieces: int, feeder: Feeder, bundled: LoadedModel) -> None:
    start = feeder.feed(tokens(30), None)
    kept = Mamba2State(start.state.conv.clone(), start.state.ssm.clone())
    slice_ = tokens(256, seed=1)
    whole = Feeder(bundled.network, tokens_per_s=1e9).feed(slice_, start)
    feeder.interrupted = after(pieces)
    with pytest.raises(Interrupted):
        feeder.feed(slice_, start)
    assert feeder.tokens_fed == 30 + 20 * pieces
    assert same(feeder.feed(slice_, start), whole)
    assert feeder.tokens_fed == 30 + 256, "a token was fed twice or not at all"
    assert torch.equal(start.state.ssm, kept.ssm) and torch.equal(start.state.conv, kept.conv), "a kept state changed"


def test_what_was_begun_serves_only_the_same_slice_after_the_same_state(feeder: Feeder, bundled: LoadedModel) -> None:
    start, other = feeder.feed(tokens(30), None), feeder.feed(tokens(30, seed=2), None)
    slice_ = tokens(100, seed=1)
    fresh = Feeder(bundled.network, tokens_per_s=1e9)
    for next_slice, next_start in ((slice_, other), (tokens(100, seed=3), start), (slice_[:60], start), (slice_, None)):
        feeder.interrupted = after(1)
        with pytest.raises(Interrupted):
            feeder.feed(slice_, start)
        feeder.interrupted = lambda: False
        assert same(feeder.feed(next_slice, next_start), fresh.feed(next_slice, next_start))


def test_what_was_begun_outlives_what_a_key_feeds(feeder: Feeder, bundled: LoadedModel) -> None:
    """Steady typing does not keep a longer slice from its end: each turn in the background takes it one piece further."""
    start, slice_, other = feeder.feed(tokens(30), None), tokens(256, seed=1), feeder.feed(tokens(9), None)
    feeder.tokens_fed, n_keys = 0, 0
    while True:
        feeder.interrupted = after(1)
        try:
            made = feeder.feed(slice_, start)
            break
        except Interrupted:
            feeder.feed(tokens(2, seed=n_keys), other)
            n_keys += 1
            assert n_keys < 20
    assert (n_keys, feeder.tokens_fed) == (12, 256 + 2 * 12)
    assert same(made, Feeder(bundled.network, tokens_per_s=1e9).feed(slice_, start))


def test_what_was_begun_is_forgotten_when_asked(feeder: Feeder) -> None:
    start, slice_ = feeder.feed(tokens(30), None), tokens(256, seed=1)
    feeder.interrupted = after(1)
    with pytest.raises(Interrupted):
        feeder.feed(slice_, start)
    feeder.forget()
    feeder.tokens_fed = 0
    feeder.interrupted = lambda: False
    feeder.feed(slice_, start)
    assert feeder.tokens_fed == 256


def test_pieces_follow_the_speed(bundled: LoadedModel) -> None:
    for speed, piece in ((1.0, MIN_PIECE_TOKENS), (40.5 / PIECE_S, 40), (1e6, SLICE_TOKENS)):
        assert Feeder(bundled.network, tokens_per_s=speed).piece_tokens() == piece or not bundled.network.any_cut


def test_a_network_whose_bits_depend_on_the_cut_gets_whole_slices(bundled: LoadedModel) -> None:
    calls: list[int] = []

    class Whole:
        config, any_cut, numerics, weight_bytes = bundled.config, False, "", 0

        def __call__(self, ids: torch.Tensor, *args: object, **options: object) -> object:
            calls.append(ids.shape[1])
            return bundled.network(ids, *args, **options)

    feeder = Feeder(Whole(), tokens_per_s=1.0)  # type: ignore[arg-type]
    feeder.interrupted = lambda: True
    feeder.feed(tokens(256), None)
    assert calls == [256]
