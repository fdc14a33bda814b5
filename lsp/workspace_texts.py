"""What is read of a workspace, and which of it the model gets. Knows files through `context`, and the documents of the wire; knows no daemon, no tasks, no LSP.

Everything here may wait for a disk, so it is run in threads; all values are immutable and replaced as a whole.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from context.history import edit_weights, prior_weight
from context.plan import estimate_tokens, plan_base
from context.repository import SourceFile, is_fit, read_repository, read_some
from daemon.protocol import Document, Health
from lsp.documents import encodable

MAX_TOUCHED_TOKENS = 24_000  # of files edited here that are read whole whatever the plan says

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    budget_tokens: int
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Texts:
    """A workspace as it was at one time. Paths are relative to it, with forward slashes."""

    files: Mapping[str, SourceFile]  # all that may be read
    documents: Mapping[str, Document]  # what the model shall read of it, in order; some of it as an outline
    weights: Mapping[str, float]  # how often files are edited, as git has it


class Difference(NamedTuple):
    documents: list[Document]
    removed: list[str]


def limits_of(health: Health, *, max_tokens: int) -> Limits:
    """What the daemon's model can read, within what the user wants."""
    model = health.model
    assert model is not None, "a daemon that is ready names its model"
    return Limits(min(max_tokens, model.max_context_tokens), model.bytes_per_token)


def read_files(
    root: Path, *, buffers: Mapping[str, str], weights: Mapping[str, float] | None = None
) -> tuple[dict[str, SourceFile], Mapping[str, float]]:
    """All files that may be read, by path, and how often they are edited, which git is asked for unless `weights` are given.

    `buffers` are unsaved texts, which stand in place of their files. Raises ReadError.
    """
    snapshot = read_repository(root)
    files = {file.path: file for file in snapshot.files}
    for path in files.keys() & buffers.keys():
        file = SourceFile(path, buffers[path])
        if is_fit(file):
            files[path] = file
        else:
            del files[path]
    for path, reason in snapshot.left_out:
        logger.debug("%s is not read: %s", encodable(path), reason)
    if weights is None:
        weights = edit_weights(root, files, sizes={path: len(file.text) for path, file in files.items()})
    return files, weights


def plan_texts(
    files: Mapping[str, SourceFile], *, limits: Limits, touched: Mapping[str, int], weights: Mapping[str, float]
) -> Texts:
    """The plan of all files but those edited here lately, which come last and whole.

    `touched` are the files edited here and how often, the last one last.
    """
    left = min(MAX_TOUCHED_TOKENS, limits.budget_tokens // 2)
    budget = limits.budget_tokens
    own: list[SourceFile] = []
    for path in reversed(list(touched)):
        file = files.get(path)
        cost = estimate_tokens(file, bytes_per_token=limits.bytes_per_token) if file is not None else 0
        if file is not None and cost <= left:
            left -= cost
            budget -= cost
            own.insert(0, file)
    taken = {file.path for file in own}
    others = [file for path, file in files.items() if path not in taken]
    plan = plan_base(others, budget_tokens=budget, bytes_per_token=limits.bytes_per_token, weights=weights)
    for path, reason in plan.left_out:
        logger.debug("%s is not read: %s", encodable(path), reason)
    documents = [
        _document(file, weights=plan.weights, n_edits=touched.get(file.path, 0)) for file in (*plan.files, *own)
    ]
    return Texts(files, {document.path: document for document in documents}, weights)


def read_again(
    root: Path, paths: Collection[str], had: Texts, *, buffers: Mapping[str, str], touched: Mapping[str, int]
) -> Texts:
    """`had` with `paths` as they are by now. A file that has become unfit, or a folder that is gone, is in it no longer; a file that has changed is read whole.

    Raises ReadError.
    """
    read = {file.path: file for file in read_some(root, paths, texts=buffers)}
    files, documents = dict(had.files), dict(had.documents)
    for path in paths:
        file = read.get(path)
        if file is None:
            for gone in _at_or_below(path, files):
                files.pop(gone)
                documents.pop(gone, None)
        elif files.get(path) != file:
            files[path] = file
            documents.pop(path, None)
            documents[path] = _document(file, weights=had.weights, n_edits=touched.get(path, 0) + 1)
    return Texts(files, documents, had.weights)


def difference(had: Mapping[str, Document], now: Mapping[str, Document]) -> Difference:
    """What a daemon that has `had` must be told to have `now`."""
    changed = [document for path, document in now.items() if path not in had or had[path].text != document.text]
    return Difference(changed, sorted(path for path in had if path not in now))


def _document(file: SourceFile, *, weights: Mapping[str, float], n_edits: int) -> Document:
    weight = weights[file.path] if file.path in weights else prior_weight(file.path, len(file.text))
    return Document(path=encodable(file.path), text=file.text, edits=weight + n_edits)


def _at_or_below(path: str, paths: Collection[str]) -> list[str]:
    return [each for each in paths if each == path or each.startswith(f"{path}/")]
