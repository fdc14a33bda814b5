"""Fits the gate of the lookup mixture on the `fit` packages, which the model was not trained on, and writes gate.json beside the weights.

    python -m training.gate --corpus build/corpus --model model/bundled

The gate is a softmax over the model and the sources whose logits are sums of small tables (model/mixture.py); the tables minimise the mixture's nats a
token over the tokens of holes and some lines after them. `lookup_tables` are the same without a model: the baseline of the model card.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from daemon.completion import Engine
from model.checkpoint import load_model
from model.mixture import FEATURES, SOURCES, feature_bins
from training.holes import Row, read_repository, rows, sample_holes

SPAN_TOKENS = 96  # of each hole's truth and what follows it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--holes", type=int, default=100, help="of each package")
    parser.add_argument("--context-tokens", type=int, default=131_072)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    engine = Engine(load_model(str(args.model), precision="fp32"), store_budget_bytes=1 << 30)
    found: list[Row] = []
    for package in (args.corpus / "fit.jsonl").read_text(encoding="utf-8").splitlines():
        repository = json.loads(package)
        before = len(found)
        holes = sample_holes(repository["files"], n_holes=args.holes, per_file=8, seed=args.seed)
        base = read_repository(engine, repository["files"], holes, max_tokens=args.context_tokens)
        for hole in holes:
            found += rows(engine, hole, base, max_tokens=SPAN_TOKENS)
        print(f"{repository['package']}: {len(found) - before} tokens", flush=True)
    tables, nats = fit_tables(found)
    lookup_tables, lookup_nats = fit_tables(found, with_model=False)
    model_nats = -sum(math.log(max(row.p_model, 1e-9)) for row in found) / len(found)
    print(f"nats a token: lookup {lookup_nats:.3f}, model {model_nats:.3f}, mixture {nats:.3f}")
    gate = {
        "sources": SOURCES,
        "tables": tables,
        "lookup_tables": lookup_tables,
        "fitted_on_tokens": len(found),
        "nats": round(nats, 4),
    }
    text = json.dumps(gate, indent=1)
    (args.model / "gate.json").write_text(text + "\n", encoding="utf-8")


def fit_tables(found: Sequence[Row], *, with_model: bool = True) -> tuple[dict[str, dict[str, list[float]]], float]:
    """The tables and the nats a token they reach. Without the model its place is taken by a floor of one in ten thousand."""
    torch.manual_seed(0)
    p = torch.tensor([[row.p_model if with_model else 1e-4, *row.p_sources] for row in found], dtype=torch.float64)
    there = torch.tensor([[True, *(match.length > 0 for match in row.matches)] for row in found])
    bins = torch.zeros(len(found), len(SOURCES), len(FEATURES), dtype=torch.long)
    for i, row in enumerate(found):
        for s, match in enumerate(row.matches):
            if match.length:
                known = (row.confidence, row.favourites[s]) if with_model else (0.0, 0.0)
                bins[i, s] = torch.tensor(feature_bins(match, *known))
    tables = [[torch.zeros(size, dtype=torch.float64, requires_grad=True) for _, size in FEATURES] for _ in SOURCES]
    parameters = [table for source in tables for table in source]
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def nats() -> torch.Tensor:
        sums = [sum(table[bins[:, s, f]] for f, table in enumerate(source)) for s, source in enumerate(tables)]
        logits = torch.stack([torch.zeros(len(found), dtype=torch.float64), *sums], dim=1)  # type: ignore[list-item]
        weights = torch.softmax(logits.masked_fill(~there, -torch.inf), dim=1)
        return -torch.log((weights * p).sum(1) + 1e-9).mean()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nats() + 1e-4 * sum(table.square().sum() for table in parameters)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    names = [name for name, _ in FEATURES]
    rounded = {
        source: {name: [round(v, 4) for v in table.tolist()] for name, table in zip(names, tables[s], strict=True)}
        for s, source in enumerate(SOURCES)
    }
    return rounded, nats().item()


if __name__ == "__main__":
    main()
