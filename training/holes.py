"""Holes in held-out repositories, asked the way the product asks: context, head, windows, healed cursor.

A hole is the rest of a line from the start of a lexical token on. Knows: the product's prompts. Does not know: how figures are shown.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from context.window import split
from daemon.bases import Ground, ground_of
from daemon.completion import Engine
from daemon.matcher import Matcher
from daemon.protocol import CompletionRequest, Document
from model.mixture import Match

LEXICAL = re.compile(r"[A-Za-z_]\w*|\d+|[^\w\s]")
MIN_TRUTH = 3  # characters that are worth completing
Files = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Hole:
    """`truth` is the rest of the line; `following` the text after it, which the answer must not have seen but for the suffix window."""

    request: CompletionRequest
    truth: str
    following: str


@dataclass(frozen=True, slots=True)
class Row:
    """One token of a truth: what each party said of it. `line_end`: the token ends the line, where </s> counts as well."""

    matches: tuple[Match, ...]
    confidence: float
    favourites: tuple[float, ...]  # the model's probability of each source's most frequent continuation
    p_model: float
    p_sources: tuple[float, ...]
    in_line: bool  # belongs to the rest of the cursor's line, its end included


def sample_holes(files: Files, *, n_holes: int, per_file: int, seed: int) -> list[Hole]:
    """At most `per_file` holes in each of some files of 1,000 characters and more."""
    rng = random.Random(seed)
    order = [(path, text) for path, text in files if len(text) > 1000]
    rng.shuffle(order)
    holes: list[Hole] = []
    for path, text in order:
        found = [hole for hole in candidates(path, text) if len(hole[1]) >= MIN_TRUTH]
        for offset, truth in sorted(rng.sample(found, min(per_file, len(found)))):
            window = split(text[:offset] + text[offset + len(truth) :], offset)
            following = text[offset + len(truth) :]
            request = CompletionRequest(
                prompt=window.prefix, suffix=window.suffix, head=window.head, path=path, max_tokens=48
            )
            holes.append(Hole(request, truth, following))
            if len(holes) == n_holes:
                return holes
    return holes


def candidates(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(offset, rest of the line) for each lexical token after the first twentieth of a file, comments and blank lines left out."""
    start = 0
    for line in text.split("\n"):
        body = line.rstrip()
        if start > len(text) // 20 and body and not body.lstrip().startswith("#"):
            for match in LEXICAL.finditer(body):
                yield start + match.start(), body[match.start() :]
        start += len(line) + 1


def read_repository(engine: Engine, files: Files, holes: Sequence[Hole], *, max_tokens: int) -> Ground:
    """The files without any that has a hole, as the context: no hole's own text is in the state or in the index."""
    holed = {hole.request.path for hole in holes}
    documents = [Document(path=path, text=text) for path, text in files if path not in holed]
    return ground_of(engine.prompter, documents, max_tokens=max_tokens)


@torch.no_grad()
def rows(engine: Engine, hole: Hole, ground: Ground, *, max_tokens: int) -> list[Row]:
    """The tokens of the truth and of what follows it, up to `max_tokens`, each with what was said of it before it was known.

    Empty where the healed cursor does not stand at a token boundary of the whole line.
    """
    tokenizer, control = engine.model.tokenizer, engine.model.tokenizer.control
    prompt = engine.plan(hole.request, [ground]).prompt
    value = engine.read(prompt.chain)
    assert value is not None, "a prompt is never empty"
    line_start = hole.request.prompt.rfind("\n") + 1
    line = tokenizer.encode(hole.request.prompt[line_start:] + hole.truth)
    fed = [int(t) for part in prompt.chain.slices[prompt.line_start :] for t in part.tokens]
    n_healed = len(fed)
    if line[:n_healed] != fed:
        return []
    truth = line[n_healed:]
    targets = (truth + tokenizer.encode(hole.following))[:max_tokens]
    logits, _ = engine.model.network(torch.tensor([targets]), value.state)
    logits = torch.cat([value.logits[None], logits[0, :-1]])
    logits[:, tokenizer.unsaid] = -torch.inf
    probabilities = torch.softmax(logits, -1).numpy()
    matcher = Matcher(prompt.buffer, ground.index, hole.request.path)
    found = []
    for i, target in enumerate(targets):
        p, matches = probabilities[i], matcher(targets[:i])
        p_model = float(p[target] + (p[control.eos] if target == tokenizer.newline else 0.0))
        found.append(
            Row(
                matches=matches,
                confidence=float(p.max()),
                favourites=tuple(float(p[m.tokens[0]]) if m.length else 0.0 for m in matches),
                p_model=p_model,
                p_sources=tuple(share(m, target) for m in matches),
                in_line=i <= len(truth),
            )
        )
    return found


def share(match: Match, token: int) -> float:
    hits = match.counts[match.tokens == token]
    return float(hits.sum() / match.counts.sum()) if match.length else 0.0


def edit_similarity(a: str, b: str) -> float:
    """1 - Levenshtein distance / the longer length."""
    if not a and not b:
        return 1.0
    previous = np.arange(len(b) + 1)
    for i, character in enumerate(a, start=1):
        current = [i]
        for j, other in enumerate(b, start=1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (character != other)))
        previous = current
    return 1.0 - float(previous[-1]) / max(len(a), len(b))
