"""What this machine has to run a model: memory that is free for it, and cores.

Knows /proc, control groups and sysconf; does not know models.
"""

import os
from collections.abc import Iterator
from pathlib import Path

MAX_THREADS = 8  # more of them wait for each other and for memory


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that a new process could take without pushing others out: the kernel's estimate, and at most what is left
    of the memory limits of this process's control groups. Where no kernel says, half of all memory.

    `root` is where /proc and /sys are.
    """
    limits = [_left_of_groups(root)] if (root / "proc/self/cgroup").exists() else []
    return max(0, min([_available(root), *(left for left in limits if left is not None)]))


def total_bytes() -> int:
    """The machine's memory, whatever a control group allows."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_bytes(root: Path = Path("/")) -> int:
    """All of the memory that this process could ever have: the machine's, or the least limit of its control groups."""
    limits = (
        [_limit_of(folder, files[0]) for folder, files in _groups(root)] if (root / "proc/self/cgroup").exists() else []
    )
    return min([total_bytes(), *(limit for limit in limits if limit is not None)])


def n_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """One core less than there are: two threads that wait for each other on a busy machine are slower than one
    (docs/log.md)."""
    return max(1, min(MAX_THREADS, n_cores() - 1))


def _available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return total_bytes() // 2
    kilobytes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.strip()
    }
    return 1024 * kilobytes.get("MemAvailable", kilobytes.get("MemFree", 0))


def _left_of_groups(root: Path) -> int | None:
    """The least that any group on the way up from ours has left; None without limits."""
    left = [_left_of(folder, *files) for folder, files in _groups(root)]
    return min((value for value in left if value is not None), default=None)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Folders of memory control groups, and what limit and usage are called there: version 2, then version 1.

    In a container the path in /proc/self/cgroup may lie outside of what is mounted, whose top is then the container's.
    """
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            top, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, files = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for n_parts in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:n_parts]), files


def _left_of(folder: Path, limit_file: str, usage_file: str) -> int | None:
    """Limit less usage, of which file pages that the kernel would drop do not count; None where there is no limit."""
    limit = _limit_of(folder, limit_file)
    if limit is None:
        return None
    try:
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        statistics = {}
    droppable = int(statistics.get("inactive_file", statistics.get("total_inactive_file", 0)))
    return limit - ((_number(folder / usage_file) or 0) - droppable)


def _limit_of(folder: Path, limit_file: str) -> int | None:
    limit = _number(folder / limit_file)
    return None if limit is None or limit >= 1 << 60 else limit  # version 1 writes "no limit" as a very large number


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
