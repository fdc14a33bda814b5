"""The training program from its command line, for two steps: what it writes is a model that the daemon loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.checkpoint import load_model
from model.source import BUNDLED
from training.packing import Layout
from training.train import row_streams

HOUSE = Path(__file__).parent.parent.parent


def test_two_steps_give_a_model_that_loads(tmp_path: Path) -> None:
    for role, folders in (("train", ("model", "daemon")), ("fit", ("cache",))):
        packages = [{"package": folder, "files": texts_of(HOUSE / folder)} for folder in folders]
        (tmp_path / f"{role}.jsonl").write_text("".join(json.dumps(package) + "\n" for package in packages))
    shape = ["--d-model", "64", "--layers", "2", "--d-state", "16", "--batch", "2", "--seq", "64"]
    paths = ["--corpus", str(tmp_path), "--tokenizer", str(BUNDLED / "tokenizer.model"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "training.train", *paths, *shape, "--steps", "2", "--no-compile"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (history["steps"], history["tokens"], history["seed"]) == (2, 2 * 2 * 64, 0)
    assert 0 < history["bits_per_byte_fit"] < 8
    shutil.copy(BUNDLED / "tokenizer.model", tmp_path / "out")
    model = load_model(str(tmp_path / "out"))
    assert (model.config.d_model, model.config.n_layers, model.config.tie_embeddings) == (64, 2, True)


def texts_of(folder: Path) -> list[tuple[str, str]]:
    return [(file.name, file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.py"))]


def test_fewer_packages_than_rows_is_one_line() -> None:
    with pytest.raises(SystemExit, match="1 packages for 2 rows of a batch, expected at least as many"):
        row_streams([[]], Layout(bos=1, eos=2, prefix=3, suffix=4, newline=5), rows=2, seed=0)
