"""Mixing the model's next-token distribution with what followed the same text elsewhere in the repository and in the file.

p = w_model p_model + sum over sources of w_source p_source, where p_source is the share of each continuation of the longest match and the weights are a
softmax of small fitted tables over: match length, number of occurrences, agreement, how sure the model is, and how likely it finds the source's favourite.
Prior art: neural cache models (Grave et al., ICLR 2017), kNN-LM (Khandelwal et al., ICLR 2020), infini-gram (Liu et al., COLM 2024).
Knows: arrays and the gate's tables. Does not know: how matches are found (cache/lookup.py).
"""

import bisect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.config import ConfigError

SOURCES = ("buffer", "documents")
LENGTH_EDGES = (1, 2, 3, 4, 6, 9, 14, 20, 32)  # a bin holds the values up to the next edge
COUNT_EDGES = (1, 2, 3, 5, 9, 33)
AGREEMENT_EDGES = (0.0, 0.35, 0.6, 0.85, 0.999)
CONFIDENCE_EDGES = (0.0, 0.1, 0.25, 0.5, 0.8, 0.95)
FAVOURITE_EDGES = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 0.4, 0.8)
FEATURES = (
    ("length", len(LENGTH_EDGES)),
    ("count", len(COUNT_EDGES)),
    ("agreement", len(AGREEMENT_EDGES)),
    ("confidence", len(CONFIDENCE_EDGES)),
    ("favourite", len(FAVOURITE_EDGES)),
)


class Match(Protocol):
    """Continuations of the longest match, most frequent first; `length` 0 means none."""

    @property
    def length(self) -> int: ...
    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def counts(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Gate:
    """`tables[source][feature]` are the logits of a source against the model's, which is 0; the features' logits add up."""

    tables: dict[str, dict[str, list[float]]]

    def weights(self, probabilities: np.ndarray, matches: Sequence[Match]) -> np.ndarray:
        """(1 + sources,) weights that add up to 1: the model's first. A source without a match has weight 0."""
        logits = np.zeros(1 + len(matches))
        confidence = float(probabilities.max())
        for i, (source, match) in enumerate(zip(SOURCES, matches, strict=True), start=1):
            if match.length == 0:
                logits[i] = -np.inf
                continue
            bins = feature_bins(match, confidence, float(probabilities[match.tokens[0]]))
            tables = self.tables[source]
            logits[i] = sum(tables[name][b] for (name, _), b in zip(FEATURES, bins, strict=True))
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()


def mix(probabilities: np.ndarray, matches: Sequence[Match], gate: Gate) -> np.ndarray:
    """probabilities (V,) of the model -> (V,) of the mixture, as a new array."""
    weights = gate.weights(probabilities, matches)
    mixed = probabilities * weights[0]
    for weight, match in zip(weights[1:], matches, strict=True):
        if match.length:
            mixed[match.tokens] += weight * match.counts / match.counts.sum()
    return mixed


def feature_bins(match: Match, confidence: float, favourite: float) -> tuple[int, ...]:
    """The row of each table in FEATURES. `favourite`: the model's probability of the source's most frequent continuation."""
    total = int(match.counts.sum())
    return (
        bisect.bisect_right(LENGTH_EDGES, match.length) - 1,
        bisect.bisect_right(COUNT_EDGES, total) - 1,
        bisect.bisect_right(AGREEMENT_EDGES, float(match.counts[0]) / total) - 1,
        bisect.bisect_right(CONFIDENCE_EDGES, confidence) - 1,
        bisect.bisect_right(FAVOURITE_EDGES, favourite) - 1,
    )


def read_gate(path: Path, *, key: str = "tables") -> Gate:
    """Reads gate.json; raises ConfigError naming the table that has the wrong size. `key`: which of the file's sets of tables."""
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))[key]
        for source in SOURCES:
            for name, size in FEATURES:
                if len(tables[source][name]) != size:
                    raise ConfigError(
                        f"{path}: table {source}.{name} has {len(tables[source][name])} rows, expected {size}"
                    )
                if not all(isinstance(row, (int, float)) and math.isfinite(row) for row in tables[source][name]):
                    raise ConfigError(f"{path}: table {source}.{name} has a row that is no finite number")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a gate table ({error!r})") from None
    return Gate(tables)
