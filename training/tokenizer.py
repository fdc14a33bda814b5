"""Trains the bundled model's sentencepiece tokenizer on a sample of the training packages.

    python -m training.tokenizer --corpus build/corpus --out build/tokenizer.model

Byte fallback, so any text survives; a newline is always a token of its own, so tokens never span lines; runs of spaces are tokens; the control
tokens are control symbols of sentencepiece, which no text can produce.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import sentencepiece

CONTROL_TOKENS = ["[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
SPACE_RUNS = [" " * width for width in (2, 4, 8, 12, 16, 20, 24)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with (args.corpus / "train.jsonl").open(encoding="utf-8") as file:
        texts = [text for line in file for _, text in json.loads(line)["files"]]
    random.Random(args.seed).shuffle(texts)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as sample:
        size = 0
        for text in texts:
            size += sample.write(text if text.endswith("\n") else text + "\n")
            if size > 24_000_000:
                break
        sample.flush()
        train(Path(sample.name), args.out, args.vocab_size)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(args.out))
    n_chars = sum(map(len, texts[-200:]))
    n_tokens = sum(len(processor.encode(text)) for text in texts[-200:])
    print(f"{args.out}: {processor.vocab_size()} pieces, {n_chars / n_tokens:.2f} characters a token")


def train(sample: Path, out: Path, vocab_size: int) -> None:
    sentencepiece.SentencePieceTrainer.train(
        input=str(sample),
        model_prefix=str(out.with_suffix("")),
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        max_sentence_length=600,
        input_sentence_size=500_000,
        shuffle_input_sentence=True,
        user_defined_symbols=["\n", "\t", "+++++", *SPACE_RUNS],
        control_symbols=CONTROL_TOKENS,
        character_coverage=0.9999,
        num_threads=2,
        minloglevel=2,
    )


if __name__ == "__main__":
    main()
