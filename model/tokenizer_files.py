"""Which file of a model's folder its tokenizer is read from. Knows: file names. Does not know: how text is split."""

from pathlib import Path

from model.config import ConfigError, Mamba2Config
from model.tokenizer import Tokenizer
from model.tokenizer_hf import read_hf_tokenizer
from model.tokenizer_spm import SentencePieceTokenizer


def load_tokenizer(folder: Path, config: Mamba2Config) -> Tokenizer:
    """The tokenizer of the model in `folder`: tokenizer.model.v3, tokenizer.model, the newest tokenizer.model.v*, tokenizer.json, whichever is there first.

    Mistral's own name comes first: a folder may hold both downloads of Codestral, and `tokenizer.model` is then the copy that converters ask for, or an
    older one. Other versions of Mistral's come after the plain name, which is the better guess for a model that is not Mistral's. sentencepiece models
    come before tokenizer.json, which is made from them where both are there. Raises ConfigError, one line, also where the vocabulary is larger than the
    model's (a smaller one is usual: models are padded to round sizes).
    """
    path = tokenizer_path(folder)
    return fitted(read_tokenizer(path), config, str(path))


def fitted(tokenizer: Tokenizer, config: Mamba2Config, source: str) -> Tokenizer:
    """The tokenizer for a model of this config. Raises ConfigError where it has more tokens than the model has rows."""
    if tokenizer.vocab_size > config.vocab_size:
        raise ConfigError(
            f"{source}: {tokenizer.vocab_size} pieces, expected at most the model's vocab_size {config.vocab_size}"
        )
    return tokenizer.padded(config.vocab_size)


def tokenizer_path(folder: Path) -> Path:
    """The file that `load_tokenizer` reads. Raises ConfigError where there is none."""
    versions = sorted(folder.glob("tokenizer.model.v*"), key=lambda path: (len(path.name), path.name), reverse=True)
    names = [folder / "tokenizer.model.v3", folder / "tokenizer.model", *versions, folder / "tokenizer.json"]
    for path in names:
        if path.is_file():
            return path
    raise ConfigError(f"{folder / 'tokenizer.model'}: no such file, expected it, tokenizer.model.v3 or tokenizer.json")


def read_tokenizer(path: Path) -> Tokenizer:
    """A sentencepiece model, or a tokenizer.json by its name's end. Raises ConfigError, one line that begins with the path."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, expected a sentencepiece model or tokenizer.json") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix == ".json":
        return read_hf_tokenizer(data, path)
    return SentencePieceTokenizer(data, str(path))
