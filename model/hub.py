"""Names on the model hub, and what of it lies on this machine. No network: that is `pull`.

Knows the layout of the hub's cache, which other programs fill and read too: `models--ORG--NAME/{refs,blobs,snapshots}`
below HF_HUB_CACHE, HF_HOME or XDG_CACHE_HOME. Does not know what is in weights.

A snapshot counts as here only when every file that a model needs is; one that was interrupted is not.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from model.config import ConfigError, Mamba2Config, config_from_hf, config_from_mistral, read_json_object

DEFAULT_REVISION = "main"
MISTRAL_CONFIG, MISTRAL_WEIGHTS = "params.json", "consolidated.safetensors"
HF_CONFIG, HF_WEIGHTS, HF_INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# In the order in which a tokenizer is looked for, and the small files that may say more about one of the last kind.
TOKENIZERS = ("tokenizer.model.v3", "tokenizer.model", "tokenizer.model.v*", "tokenizer.json")
BESIDE_TOKENIZER_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubName:
    """`ORG/NAME`, or `ORG/NAME@REVISION` for another branch, tag or commit than main."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def cache(self) -> Path:
        """Where the hub's own library keeps this repository, whether or not it is there."""
        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision on this machine; `missing` names what a model needs besides."""

    name: HubName
    folder: Path
    missing: tuple[str, ...]


def parse_name(text: str) -> HubName | None:
    """None for what is no name of the hub: a word, a path, a file."""
    repo, at, revision = text.partition("@")
    if not _REPO.fullmatch(repo) or ".." in text or "--" in repo or repo.endswith((".gguf", ".git", "-", ".")):
        return None
    if at and not _REVISION.fullmatch(revision):
        return None
    return HubName(repo, revision if at else None)


def local_folder(name: str) -> Path | None:
    """The folder of a pulled model; None when `name` is no hub name or not all of it is here. Asks no network."""
    parsed = parse_name(name)
    snapshot = find(parsed) if parsed is not None else None
    return snapshot.folder if snapshot is not None and not snapshot.missing else None


def explain_absence(name: str) -> str:
    """Why local_folder gives None for a hub name, and what to do: one line."""
    parsed = parse_name(name)
    if parsed is None:
        return f"{name}: is no name on the hub, expected ORG/NAME or ORG/NAME@REVISION"
    revision = f" --revision {parsed.revision}" if parsed.revision is not None else ""
    command = f"codestral-lsp pull {parsed.repo}{revision}"
    snapshot = find(parsed)
    if snapshot is None:
        return f"{name}: is not on this machine; {command} downloads it"
    return f"{name}: is here only in part ({', '.join(snapshot.missing)} missing); {command} goes on with it"


def find(name: HubName) -> Snapshot | None:
    """The snapshot that a name stands for: its revision's; else main's, or the newest, a complete one first."""
    snapshots = list(_snapshots(name))
    complete = [snapshot for snapshot in snapshots if not snapshot.missing]
    return next(iter(complete or snapshots), None)


def pulled() -> list[Snapshot]:
    """All complete models of the cache, one for each repository and revision with a name; others' formats are left out."""
    try:
        folders = sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*"))
    except OSError:  # a cache that cannot be read holds nothing for us
        return []
    found: list[Snapshot] = []
    for folder in folders:
        name = parse_name(folder.name.removeprefix("models--").replace("--", "/", 1))
        if name is not None:
            found += [snapshot for snapshot in _all_snapshots(name) if not snapshot.missing]
    return found


def config_at(path: Path) -> Mamba2Config:
    """The config of a model's folder, or of a config file by its name. Raises ConfigError."""
    if path.is_dir():
        has_mistral = (path / MISTRAL_CONFIG).is_file() and (path / MISTRAL_WEIGHTS).is_file()
        path = path / (MISTRAL_CONFIG if has_mistral or not (path / HF_CONFIG).is_file() else HF_CONFIG)
    read = config_from_mistral if path.name == MISTRAL_CONFIG else config_from_hf
    return read(read_json_object(path), source=str(path))


def choose_files(paths: Collection[str]) -> list[str]:
    """What a model needs of a repository's files, small ones first, Mistral's format before Hugging Face's.

    Only files at the top count, and never a pickle. Raises ConfigError with what is missing of the nearer format.
    """
    here = {path for path in paths if "/" not in path}
    tokenizers = _tokenizers(here)
    if {MISTRAL_CONFIG, MISTRAL_WEIGHTS} <= here:
        files, missing = [MISTRAL_CONFIG, *tokenizers, MISTRAL_WEIGHTS], []
    else:
        weights = sorted(path for path in here if path.endswith(".safetensors") and path != MISTRAL_WEIGHTS)
        shards = [path for path in weights if path != HF_WEIGHTS]
        weights = (
            [HF_INDEX, *shards] if HF_INDEX in here and shards else [path for path in weights if path == HF_WEIGHTS]
        )
        files = [*[path for path in (HF_CONFIG,) if path in here], *tokenizers, *weights]
        missing = [*([] if HF_CONFIG in here else [HF_CONFIG]), *([] if weights else [HF_WEIGHTS])]
    missing += [] if tokenizers else [" or ".join(TOKENIZERS[::3])]
    if missing:
        raise ConfigError(f"expected {' and '.join(missing)}{_instead(here)}")
    return files


def missing_files(folder: Path) -> tuple[str, ...]:
    """What a folder lacks for a model in Mistral's or Hugging Face's format; the index says which shards there must be."""
    here = {path.name for path in folder.iterdir() if path.is_file()}  # a link whose blob has gone is no file
    tokenizer = () if _tokenizers(here) else (TOKENIZERS[0],)
    if MISTRAL_WEIGHTS in here or (MISTRAL_CONFIG in here and HF_CONFIG not in here):
        needed = [MISTRAL_CONFIG, MISTRAL_WEIGHTS]
    else:
        needed = [HF_CONFIG, *(_shards(folder / HF_INDEX) if HF_INDEX in here else [HF_WEIGHTS])]
    return (*(name for name in needed if name not in here), *tokenizer)


def _shards(index: Path) -> list[str]:
    try:
        return sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return [HF_INDEX + " that can be read"]


def _tokenizers(names: set[str]) -> list[str]:
    """The file that a tokenizer is read from, and what belongs to it."""
    for pattern in TOKENIZERS:
        found = sorted((name for name in names if Path(name).match(pattern)), key=lambda name: (len(name), name))
        if found:
            beside = BESIDE_TOKENIZER_JSON if pattern == TOKENIZERS[-1] else ()
            return [*(name for name in beside if name in names), found[-1]]
    return []


def _instead(names: set[str]) -> str:
    """What there is instead, where that helps to see why."""
    if any(name.endswith(".gguf") for name in names):
        return "; this one has .gguf files: download one and give its path"
    if any(name.endswith(PICKLES) for name in names):
        return "; this one has its weights as pickles, which could run code and are never loaded"
    return ""


def _snapshots(name: HubName) -> Iterator[Snapshot]:
    """Those that the name may stand for, the likeliest first."""
    revisions = [name.revision] if name.revision is not None else [DEFAULT_REVISION]
    folders = [folder for revision in revisions if (folder := _folder_of(name, revision)) is not None]
    if name.revision is None:
        folders += sorted(_subfolders(name.cache / "snapshots"), key=lambda path: -path.stat().st_mtime)
    for folder in dict.fromkeys(folders):
        yield Snapshot(name, folder, missing_files(folder))


def _all_snapshots(name: HubName) -> Iterator[Snapshot]:
    """Each snapshot once, called by its branch or tag where it has one."""
    names = {folder: folder.name for folder in _subfolders(name.cache / "snapshots")}
    refs = name.cache / "refs"
    for ref in sorted(path for path in refs.rglob("*") if path.is_file()) if refs.is_dir() else []:
        folder = _folder_of(name, ref.relative_to(refs).as_posix())
        if folder in names and names[folder] != DEFAULT_REVISION:
            names[folder] = ref.relative_to(refs).as_posix()
    for folder, revision in names.items():
        is_default = revision == DEFAULT_REVISION
        yield Snapshot(HubName(name.repo, None if is_default else revision), folder, missing_files(folder))


def _folder_of(name: HubName, revision: str) -> Path | None:
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (name.cache / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not _COMMIT.fullmatch(commit):
            return None
    folder = name.cache / "snapshots" / commit
    return folder if folder.is_dir() else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
