"""The figures of the model card, on the `test` packages, which neither the model nor the gate has seen.

    python -m training.evaluate --corpus build/corpus --model model/bundled

Holes are the rest of a line in real files; the repository is the package without the files that have holes. Four suggesters are compared on the same
holes: lookup alone (with weights of its own, fitted on the `fit` packages as the gate was), the model alone, the mixture, and the mixture as shipped.
Prints a table, then one JSON line; with --card writes README.md beside the weights.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from daemon.bases import Ground
from daemon.completion import Engine
from daemon.matcher import Matcher
from daemon.trim import line_stop, trimmed
from model.checkpoint import LoadedModel, load_model
from model.fim import document_ids
from model.generate import generate
from model.mixture import Gate, read_gate
from training.card import write_card
from training.holes import Hole, Row, edit_similarity, read_repository, rows, sample_holes
from training.measure import stream_nats

MODES = ("lookup", "model", "mixture")
FLOOR = 1e-4  # lookup alone gives every other token this much, else one surprise would cost it everything


@dataclass(frozen=True, slots=True)
class Answer:
    package: str
    mode: str
    truth: str
    text: str
    log_probability: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--holes", type=int, default=120, help="of each package")
    parser.add_argument("--context-tokens", type=int, default=131_072)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--training", type=Path, default=None, help="training.json, for the card")
    parser.add_argument("--card", action="store_true")
    args = parser.parse_args()
    if args.card and args.training is None:
        parser.error("--card needs --training FILE, the training.json of the weights")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as the daemon's thread does
    model = load_model(str(args.model), precision="fp32")
    engine = Engine(model, store_budget_bytes=1 << 30)
    lookup_gate = read_gate(args.model / "gate.json", key="lookup_tables")
    results, examples, started = {}, [], time.monotonic()
    for line in (args.corpus / "test.jsonl").read_text(encoding="utf-8").splitlines():
        repository = json.loads(line)
        holes = sample_holes(repository["files"], n_holes=args.holes, per_file=6, seed=args.seed)
        ground = read_repository(engine, repository["files"], holes, max_tokens=args.context_tokens)
        answers = [
            answer for hole in holes for answer in answer_all(engine, hole, ground, lookup_gate, repository["package"])
        ]
        told = [row for hole in holes for row in rows(engine, hole, ground, max_tokens=64) if row.in_line]
        results[repository["package"]] = measure(answers, told, model, lookup_gate) | {
            "bits_per_byte": bits_per_byte(model, repository)
        }
        examples += [(hole, answer) for hole, answer in zip(holes, answers[2::3], strict=True)]
        print_row(repository["package"], results[repository["package"]])
    summary = total(results)
    print_row("all", summary)
    print(f"{time.monotonic() - started:.0f} s")
    if args.card:
        write_card(
            args.model,
            summary=summary,
            packages=results,
            examples=examples,
            corpus=args.corpus,
            training=args.training,
            context_tokens=args.context_tokens,
        )
    print(json.dumps({"all": summary, "packages": results}))


def answer_all(engine: Engine, hole: Hole, ground: Ground, lookup_gate: Gate, package: str) -> list[Answer]:
    """One answer for each of MODES, from the same state."""
    prompt = engine.plan(hole.request, [ground]).prompt
    model, value = engine.model, engine.read(prompt.chain)
    assert value is not None, "a prompt is never empty"
    answers = []
    for mode in MODES:
        gate = {"lookup": lookup_gate, "model": None, "mixture": model.gate}[mode]
        made = generate(
            LookupOnly(model) if mode == "lookup" else model.network,  # type: ignore[arg-type]
            model.tokenizer,
            value.state,
            torch.zeros(model.config.vocab_size) if mode == "lookup" else value.logits,
            stop=line_stop(hole.request),
            cancelled=lambda: False,
            max_tokens=hole.request.max_tokens,
            forced=prompt.forced,
            gate=gate,
            matches_of=Matcher(prompt.buffer, ground.index, hole.request.path),
        )
        answers.append(
            Answer(package, mode, hole.truth.rstrip(), trimmed(made.text, hole.request), made.log_probability)
        )
    return answers


class LookupOnly:
    """Stands in for the network where only the lookup shall speak: every token is as likely as every other."""

    any_cut = False

    def __init__(self, model: LoadedModel) -> None:
        self.logits = torch.zeros(1, 1, model.config.vocab_size)

    def __call__(self, ids: torch.Tensor, state: object, **_: object) -> tuple[torch.Tensor, object]:
        return self.logits, state


def measure(answers: Sequence[Answer], told: Sequence[Row], model: LoadedModel, lookup_gate: Gate) -> dict:
    assert model.gate is not None
    figures: dict = {"holes": len(answers) // len(MODES), "tokens": len(told)}
    for mode in MODES:
        mine = [answer for answer in answers if answer.mode == mode]
        figures[mode] = {
            "exact_match": sum(a.text.rstrip() == a.truth for a in mine) / len(mine),
            "edit_similarity": sum(edit_similarity(a.text.rstrip(), a.truth) for a in mine) / len(mine),
            "shown": sum(bool(a.text) for a in mine) / len(mine),
        }
    uniform = [replace(row, p_model=FLOOR, confidence=0.0, favourites=(0.0, 0.0)) for row in told]
    figures["lookup"]["nats"] = mean_nats(probability(row, lookup_gate) for row in uniform)
    figures["model"]["nats"] = mean_nats(row.p_model for row in told)
    figures["mixture"]["nats"] = mean_nats(probability(row, model.gate) for row in told)
    return figures


def probability(row: Row, gate: Gate) -> float:
    """Of the target under the mixture. Rebuilds a distribution of the few tokens that matter, so that the product's own `mix` is what is measured."""
    highest = max([int(m.tokens.max()) for m in row.matches if m.length] + [0])
    p = np.zeros(highest + 3, dtype=np.float32)
    p[highest + 1] = row.confidence
    for match, favourite in zip(row.matches, row.favourites, strict=True):
        if match.length:
            p[match.tokens[0]] = favourite
    weights = gate.weights(p, row.matches)
    return float(weights[0] * row.p_model + sum(w * s for w, s in zip(weights[1:], row.p_sources, strict=True)))


def mean_nats(probabilities) -> float:
    values = [-math.log(max(p, 1e-9)) for p in probabilities]
    return sum(values) / max(1, len(values))


def bits_per_byte(model: LoadedModel, repository: dict, *, budget: int = 60_000) -> float:
    """The model alone, left to right over up to `budget` tokens of the repository's files."""
    ids = [model.tokenizer.control.bos]
    for path, text in repository["files"]:
        ids += document_ids(model.tokenizer, path, text)
        if len(ids) > budget:
            break
    ids = ids[: budget + 1]
    return stream_nats(model.network, ids) / math.log(2) / sum(len(model.tokenizer.pieces[i]) for i in ids[1:])


def total(results: dict[str, dict]) -> dict:
    """Means over all holes (exact match, similarity), all tokens (nats) and packages (bits per byte)."""
    holes = sum(figures["holes"] for figures in results.values())
    tokens = sum(figures["tokens"] for figures in results.values())
    summary: dict = {"holes": holes, "tokens": tokens}
    for mode in MODES:
        summary[mode] = {
            key: sum(f[mode][key] * f["tokens" if key == "nats" else "holes"] for f in results.values())
            / (tokens if key == "nats" else holes)
            for key in ("exact_match", "edit_similarity", "shown", "nats")
        }
    return summary | {"bits_per_byte": sum(f["bits_per_byte"] for f in results.values()) / len(results)}


def print_row(name: str, figures: dict) -> None:
    cells = [f"{name:12} {figures['holes']:4} holes  {figures['bits_per_byte']:.3f} bits/byte"]
    for mode in MODES:
        f = figures[mode]
        cells.append(
            f"{mode}: exact {100 * f['exact_match']:.1f} % similar {f['edit_similarity']:.3f} nats {f['nats']:.3f}"
        )
    print(" | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
