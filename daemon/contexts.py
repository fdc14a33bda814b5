"""The contexts that are known, which of them are wanted, and what is read next in the background.

Knows: layouts, who succeeds whom, compactions. Does not know: keystrokes, threads' turns; whoever calls holds the worker's lock.
"""

from collections import OrderedDict

from daemon.documents import Context
from daemon.layout import fit, is_due
from daemon.protocol import ContextStatus
from daemon.reading import Compaction, ContextJob

MAX_CONTEXTS = 16  # remembered; the least recently asked for is forgotten first


class UnknownContext(Exception):
    """A context that this daemon does not know, for instance since it was restarted."""


class Contexts:
    """By id, the one asked for last at the end."""

    def __init__(self) -> None:
        self.compaction: Compaction | None = None
        self._jobs: OrderedDict[str, ContextJob] = OrderedDict()
        self._newest: dict[str | None, str] = {}  # by workspace

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, context_id: str | None) -> ContextJob | None:
        return self._jobs.get(context_id) if context_id is not None else None

    def job(self, context_id: str) -> ContextJob:
        """Raises UnknownContext."""
        if context_id not in self._jobs:
            raise UnknownContext(context_id)
        return self._jobs[context_id]

    def status(self, context_id: str) -> ContextStatus:
        """Raises UnknownContext."""
        job = self.job(context_id)
        compaction = self.compaction
        return job.status(compacting=compaction is not None and compaction.base.workspace == job.context.workspace)

    def used(self, context_id: str) -> None:
        """Raises UnknownContext. A context that is asked for is read to its end, whatever came after it."""
        self.job(context_id).superseded = False
        self._jobs.move_to_end(context_id)

    def put(self, job: ContextJob, compaction: Compaction | None) -> None:
        """Makes a context the newest of its workspace. An older one that was still being read no longer needs to be; neither does a compaction that
        would leave more to be read after it than a new one."""
        context_id, workspace = job.context.id, job.context.workspace
        self._jobs[context_id] = job
        self._jobs.move_to_end(context_id)
        job.superseded = False
        self._newest[workspace] = context_id
        if workspace is not None:
            for other in self._jobs.values():
                other.superseded = other.superseded or (other is not job and other.context.workspace == workspace)
        while len(self._jobs) > MAX_CONTEXTS:
            self.drop(next(iter(self._jobs)))
        running = self.compaction
        if compaction is not None and not self.is_compacting(job.context):
            self.compaction = compaction
        elif running is not None and running.base.workspace == workspace and job.layout.is_compact:
            self.compaction = None  # for instance back on the branch of before

    def drop(self, context_id: str) -> None:
        job = self._jobs.pop(context_id, None)
        if job is not None and self._newest.get(job.context.workspace) == context_id:
            del self._newest[job.context.workspace]

    def next(self) -> ContextJob | None:
        """The context asked for last of those that are wanted and not read yet."""
        return next((job for job in reversed(self._jobs.values()) if job.is_wanted), None)

    def newest(self) -> list[ContextJob]:
        """One for each workspace, the one asked for last first."""
        ids = set(self._newest.values())
        return [job for context_id, job in reversed(self._jobs.items()) if context_id in ids]

    def all(self) -> list[ContextJob]:
        return list(self._jobs.values())

    def is_compacting(self, context: Context) -> bool:
        """Whether a compaction is on its way that still serves a context: little has changed since it began."""
        running = self.compaction
        if running is None or running.base.workspace != context.workspace:
            return False
        how = fit(running.base, context)
        return not is_due(running.base, hot=how.hot, stale=how.stale)
