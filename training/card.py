"""Writes the bundled model's card from measured results. Knows: numbers and files of training. Does not know: how anything was measured."""

import json
from collections.abc import Sequence
from pathlib import Path

TEMPLATE = Path(__file__).with_name("card_template.md")  # filled with str.format


def write_card(
    folder: Path,
    *,
    summary: dict,
    packages: dict,
    examples: Sequence,
    corpus: Path,
    training: Path,
    context_tokens: int,
) -> None:
    """`examples` are (Hole, Answer); `training` is the training.json that training/train.py wrote."""
    from training.corpus import MAX_FILE_BYTES, MAX_PACKAGE_BYTES, MIN_FILE_BYTES

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    history = json.loads(training.read_text(encoding="utf-8"))
    every = max(1, len(examples) // 30)
    card = TEMPLATE.read_text(encoding="utf-8").format(
        parameters=history["parameters"] / 1e6,
        d_model=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_heads"],
        head_dim=config["head_dim"],
        d_state=config["state_size"],
        n_groups=config["n_groups"],
        vocab=config["vocab_size"],
        tokens=history["tokens"] / 1e6,
        loss=history["loss"],
        minutes=history["seconds"] / 60,
        torch=history["torch"],
        seed=history["seed"],
        context=f"{context_tokens:,}",
        table=table(summary, packages),
        margin=margin(summary),
        holes=summary["holes"],
        error=100
        * (2 * summary["lookup"]["exact_match"] * (1 - summary["lookup"]["exact_match"]) / summary["holes"]) ** 0.5,
        every=every,
        examples="\n".join(example(hole, answer) for hole, answer in examples[::every]),
        command=history["command"],
        min_bytes=MIN_FILE_BYTES,
        max_bytes=f"{MAX_FILE_BYTES:,}",
        package_mb=MAX_PACKAGE_BYTES / 1e6,
        corpus=corpus_table(corpus),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def table(summary: dict, packages: dict) -> str:
    lines = [
        "| package | holes | bits/byte | exact match: lookup | model | mixture | edit similarity: lookup | model | mixture | nats: lookup | model | mixture |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in [*packages.items(), ("**all**", summary)]:
        cells = [name, str(figures["holes"]), f"{figures['bits_per_byte']:.2f}"]
        cells += [f"{100 * figures[mode]['exact_match']:.1f} %" for mode in ("lookup", "model", "mixture")]
        cells += [f"{figures[mode]['edit_similarity']:.2f}" for mode in ("lookup", "model", "mixture")]
        cells += [f"{figures[mode]['nats']:.2f}" for mode in ("lookup", "model", "mixture")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def margin(summary: dict) -> str:
    difference = 100 * (summary["mixture"]["exact_match"] - summary["lookup"]["exact_match"])
    return f"{difference:+.1f} points of lookup alone"


def example(hole, answer) -> str:
    """The line with the suggestion in it, and below it the truth where it differs."""
    before = hole.request.prompt[hole.request.prompt.rfind("\n") + 1 :]
    shown = f"{before.lstrip() or '(start of the line) '}⟦{answer.text}⟧"
    return shown if answer.text.rstrip() == answer.truth else f"{shown}\n        # really: {answer.truth}"


def corpus_table(corpus: Path) -> str:
    lines = ["| role | package | version | licence |", "|---|---|---|---|"]
    for role in ("test", "fit", "train"):
        for line in (corpus / f"{role}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            lines.append(f"| {role} | {row['package']} | {row['version']} | {row['licence']} |")
    return "\n".join(lines)
