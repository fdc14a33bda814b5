"""An editor gone mad against a cold recomputation: whatever was kept, the answer is the same.

    python benchmarks/random_steps.py [--steps 100000] [--seed 0]

Random edits, cursor moves, pastes, undos, saves, file and branch switches drive the daemon's own worker, with a store so small that states are evicted all the
time, a disk tier (fp32, so that it must be exact too), compactions and background reading interrupted anywhere. After every step the completion is compared
with one by an engine that has kept nothing: the state's and the logits' bits, the tokens, the text. A tiny random network on the native kernels, the bundled
tokenizer. Prints a table, then one JSON line; ends with 1 at the first difference.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.random_checkpoint import RandomSource
from benchmarks.stats import print_json, table
from cache.chain import Chain
from cache.disk import DiskTier
from context.window import WindowSize, split
from daemon.completion import Engine
from daemon.inventory import purge
from daemon.keeper import Keeper
from daemon.protocol import CompletionRequest, Document
from daemon.reading import Compaction
from daemon.trim import Trim
from daemon.worker import Worker
from model.build import build_network
from model.checkpoint import LoadedModel
from model.config import Mamba2Config

WORKSPACE = "/workspace"
EPISODE = 2000  # steps of one editor
CONFIG = Mamba2Config(d_model=32, n_layers=2, vocab_size=8192, d_state=16, n_heads=4, head_dim=16)
WORD_LIST = "self return value items for in if else import def class None x y data = == ( ) [ ] : , . é 🙂"
WORDS = (*WORD_LIST.split(" "), "\n", "\n", "    ")
WINDOW = WindowSize(step=200, suffix_chars=80)
STEPS = {
    "type": 40,
    "backspace": 10,
    "enter": 8,
    "paste": 4,
    "undo": 5,
    "move": 12,
    "switch": 8,
    "save": 5,
    "save another": 4,
    "delete": 1,
    "branch": 1,
    "forget": 1,
}


@dataclass
class Buffer:
    """One open file: its text, where the cursor stands, and what it was before each edit."""

    text: str
    at: int = 0
    undo: list[tuple[str, int]] = field(default_factory=list)

    def edit(self, start: int, end: int, text: str) -> None:
        self.undo.append((self.text, self.at))
        self.text = self.text[:start] + text + self.text[end:]
        self.at = start + len(text)


class Editor:
    """A workspace and a window on it. `disk` is what is saved, and what is posted to the daemon."""

    def __init__(self, rng: random.Random, *, n_files: int = 6) -> None:
        self.rng = rng
        self.branches = [self._files(n_files) for _ in range(2)]
        for path, text in self.branches[0].items():  # two branches differ in some files only
            if rng.random() < 0.6:
                self.branches[1][path] = text
        self.branch = 0
        self.disk = dict(self.branches[0])
        self.buffers = {path: Buffer(text) for path, text in self.disk.items()}
        self.path = next(iter(self.disk))

    def _files(self, n_files: int) -> dict[str, str]:
        return {f"part_{n}.py": self._text(self.rng.randrange(20, 220)) for n in range(n_files)}

    def _text(self, n_words: int) -> str:
        return " ".join(self.rng.choice(WORDS) for _ in range(n_words))

    @property
    def buffer(self) -> Buffer:
        return self.buffers[self.path]

    def request(self, context: str | None) -> CompletionRequest:
        at = split(self.buffer.text, self.buffer.at, size=WINDOW)
        related = (
            [Document(path="outline", text="def f(x): ...\n" * self.rng.randrange(1, 3))]
            if self.rng.random() < 0.9
            else []
        )
        return CompletionRequest(
            prompt=at.prefix,
            suffix=at.suffix,
            head=at.head,
            rest_of_line=at.rest_of_line,
            path=self.path,
            document=self.path,
            related=related,
            context=context,
            max_tokens=4,
            budget_ms=self.rng.choice([None, 60_000]),
        )

    def edit(self, step: str) -> None:
        """Any step that changes the buffers or the cursor alone."""
        rng, buffer = self.rng, self.buffer
        if step == "type":
            buffer.edit(buffer.at, buffer.at, rng.choice(WORDS)[:1] or " ")
        elif step == "enter":
            buffer.edit(buffer.at, buffer.at, "\n" + "    " * rng.randrange(3))
        elif step == "paste":
            buffer.edit(buffer.at, buffer.at, self._text(rng.randrange(1, 30)))
        elif step == "backspace" and buffer.at:
            buffer.edit(max(0, buffer.at - rng.choice([1, 1, 1, 5])), buffer.at, "")
        elif step == "undo" and buffer.undo:
            buffer.text, buffer.at = buffer.undo.pop()
        elif step == "move":
            near = rng.random() < 0.5
            target = buffer.at + rng.randrange(-30, 31) if near else rng.randrange(len(buffer.text) + 1)
            buffer.at = min(max(0, target), len(buffer.text))
        elif step == "switch":
            self.path = rng.choice(list(self.buffers))

    def change(self, step: str) -> tuple[list[Document], list[str]] | None:
        """Any step that changes what is saved: the changed documents and the paths that are gone."""
        before = dict(self.disk)
        if step == "save":
            self.disk[self.path] = self.buffer.text
        elif step == "save another":
            self.disk[self.rng.choice(list(self.disk))] = self._text(self.rng.randrange(5, 200))
        elif step == "delete" and len(self.disk) > 2:
            self.disk.pop(self.rng.choice(list(self.disk)))
        elif step == "branch":
            self.branches[self.branch], self.branch = dict(self.disk), 1 - self.branch
            self.disk = dict(self.branches[self.branch])
        else:
            return None
        changed = [Document(path=p, text=t) for p, t in self.disk.items() if before.get(p) != t]
        return changed, [path for path in before if path not in self.disk]


@dataclass
class Outcome:
    steps: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    stale: int = 0  # answered from an older state, and said so
    tokens_fed: int = 0
    tokens_reused: int = 0
    compactions: int = 0

    def add(self, other: "Outcome") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Mismatch(AssertionError):
    """A kept state gave another answer than a computed one."""


class Madness:
    """The worker under test, driven step by step on this thread, and the engine that keeps nothing."""

    def __init__(self, model: LoadedModel, folder: Path, *, seed: int, n_states: int = 40) -> None:
        self.rng = random.Random(seed)
        self.editor = Editor(self.rng)
        state_bytes = model.network.config.state_bytes + 4 * model.network.config.vocab_size

        def keeper_of(root: Chain) -> Keeper:
            tier = DiskTier(folder, fingerprint=root.root.hex(), root=root.root, budget_bytes=60 * state_bytes)
            return Keeper(tier, folder, config=model.network.config, snapshot_format="fp32")

        self.engine = Engine(model, store_budget_bytes=n_states * state_bytes, keeper_of=keeper_of)
        self.cold = Engine(model, store_budget_bytes=0)
        self.worker = Worker(self.engine, max_context_tokens=50_000)
        self.outcome = Outcome()
        self.context = self._post_all()

    def run(self, n_steps: int) -> Outcome:
        """Raises Mismatch."""
        names, weights = zip(*STEPS.items(), strict=True)
        for n in range(n_steps):
            step = self.rng.choices(names, weights)[0]
            self.outcome.steps[step] += 1
            self.editor.edit(step)
            change = self.editor.change(step)
            if change is not None:
                self._post(*change)
            elif step == "forget":
                self._forget()
            for _ in range(self.rng.choice([0, 0, 1, 3, 30])):
                self._background()
            self._compare(n, step)
        return self.outcome

    def close(self) -> None:
        assert self.engine.keeper is not None
        self.engine.keeper.close(10.0)

    def _forget(self) -> None:
        """All states in memory go, and at times those on disk; or only those in memory, as when the daemon is started again."""
        worker, store = self.worker, self.engine.store
        if self.rng.random() < 0.5:
            store.drop([entry.key for entry in store.entries()])
        else:
            worker.live.forget()
            purge(self.engine, worker.contexts, worker.reader, self.rng.choice([None, WORKSPACE]))
        self.context = self._post_all()

    def _post_all(self) -> str:
        documents = [Document(path=path, text=text, edits=1.0) for path, text in self.editor.disk.items()]
        return self.worker.add_context(documents, workspace=WORKSPACE).id

    def _post(self, changed: list[Document], removed: list[str]) -> None:
        status = self.worker.add_context(changed, workspace=WORKSPACE, on=self.context, removed=removed)
        self.context = status.id

    def _background(self) -> None:
        """A step of background work, interrupted in its middle now and then."""
        countdown = self.rng.choice([1, 2, 1000])

        def interrupted() -> bool:
            nonlocal countdown
            countdown -= 1
            return countdown <= 0

        compacting = self.worker.contexts.compaction is not None
        known, self.engine.feeder.interrupted = self.engine.feeder.interrupted, interrupted
        job = self.worker.contexts.get(self.context)
        if job is not None and not compacting and not job.layout.is_compact and self.rng.random() < 0.1:
            self.worker.contexts.compaction = Compaction(self.worker.bases.compacted(job.layout))
        self.worker.step()
        self.engine.feeder.interrupted = known
        self.outcome.compactions += compacting and self.worker.contexts.compaction is None

    def _compare(self, n: int, step: str) -> None:
        request = self.editor.request(self.context if self.rng.random() < 0.95 else None)
        self.engine.feeder.tokens_per_s = self.rng.choice([0.001, 1e6])  # of which a budget leaves little or all
        job = self.worker.submit(request)
        self.worker.step()
        made = job.future.result(0)
        self.engine.store.check()
        plan = made.plan
        cold = self.cold.prompt(request, plan.ground, with_head=plan.has_head)
        value, other = self.engine.read(plan.prompt.chain), self.cold.read(cold.chain)
        assert value is not None and other is not None
        same = torch.equal(value.logits, other.logits) and all(map(torch.equal, value.state, other.state))
        trim = Trim(request)
        again, *_ = self.cold.decode(
            request, plan.ground, cold, other, trim=trim, cancelled=lambda: False, started=time.monotonic()
        )
        if not same or trim.outcome(again.text).text != made.text or again.ids != made.generated.ids:
            where = f"step {n} ({step}), from {made.report.segment}, equal bits: {same}"
            raise Mismatch(f"{where}: {made.text!r} {made.generated.ids}, expected {again.text!r} {again.ids}")
        report = made.report
        self.outcome.answers += 1
        self.outcome.segments[report.segment] += 1
        self.outcome.stale += report.current < 1.0
        self.outcome.tokens_fed += report.tokens_fed
        self.outcome.tokens_reused += report.tokens_reused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    started = time.monotonic()
    outcome, model = Outcome(), tiny_model()
    for first in range(0, args.steps, EPISODE):  # texts grow, so an editor starts afresh now and then
        with tempfile.TemporaryDirectory() as folder:
            madness = Madness(model, Path(folder), seed=args.seed + first)
            try:
                outcome.add(madness.run(min(EPISODE, args.steps - first)))
            except Mismatch as error:
                print(f"\nseed {args.seed + first}: {error}", file=sys.stderr)
                return 1
            finally:
                madness.close()
        print(f"\r{min(first + EPISODE, args.steps)} steps", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - started
    fed = outcome.tokens_fed / max(1, outcome.answers)
    print()
    print(table(["step", "times"], [[name, count] for name, count in outcome.steps.most_common()]))
    print(table(["resumed from", "answers"], [[name, count] for name, count in outcome.segments.most_common()]))
    print(
        f"{outcome.answers} answers equal to a cold recomputation, bit for bit; {fed:.0f} tokens fed for each, "
        f"{outcome.stale} from an older state, {outcome.compactions} compactions, {seconds:.0f} s"
    )
    print_json(
        {
            "steps": args.steps,
            "mismatches": 0,
            "segments": dict(outcome.segments),
            "stale": outcome.stale,
            "compactions": outcome.compactions,
            "tokens_fed": outcome.tokens_fed,
            "tokens_reused": outcome.tokens_reused,
            "seconds": seconds,
        }
    )
    return 0


def tiny_model() -> LoadedModel:
    source = RandomSource(CONFIG)
    network = build_network(source, "fp32")
    return LoadedModel("random", CONFIG, network, source.tokenizer(), None, source.digest, "fp32")


if __name__ == "__main__":
    sys.exit(main())
