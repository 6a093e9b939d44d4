"""What there is of processes, descriptors, threads, memory and files; what there is too much."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_TRACKERS = ("resource_tracker", "forkserver")  # one each, for as long as this process lives
#: Megabytes by which the resident memory may grow after the first epochs.
MEMORY_TOLERANCE = 32
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # malloc.h


def descendants() -> dict[int, str]:
    """Return the state and command line of all processes below this one."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
                line = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            fields = stat.rsplit(")", 1)[1].split()
            shown = line.replace(bytes(1), b" ").decode(errors="replace")
            parents[int(entry)] = int(fields[1])
            names[int(entry)] = f"{fields[0]} {shown}"
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() and pid != ancestor:
            found[pid] = names[pid]
    return found


def workers() -> list[int]:
    """Return the process numbers of all workers that live, whoever started them."""
    return list(_workers())


def _workers() -> dict[int, str]:
    below = descendants()
    servers = {pid for pid, name in below.items() if "forkserver" in name}
    words = ("workers.main", "workers.forkserver_main", "spawn_main", "popen_loky")
    found = {}
    for pid, name in below.items():
        is_worker = any(word in name for word in words) or (
            pid in servers and _parent(pid) in servers
        )
        if is_worker and "resource_tracker" not in name:
            found[pid] = name
    return found


def own_workers() -> list[int]:
    """Return those of them that are not loky's."""
    return [pid for pid, name in _workers().items() if "popen_loky" not in name]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def descriptors() -> Counter[str]:
    """Return how many descriptors refer to what, without numbers that are never the same."""
    found: Counter[str] = Counter()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target != f"/proc/{os.getpid()}/fd":
            found[re.sub(r"\[\d+\]|#\d+|\d{3,}", "", target)] += 1
    return found


def tame_allocator() -> None:
    """Have what is freed go back to the system, so that memory which grows is memory in use.

    glibc would have threads keep arenas of their own, and put ever larger arrays into them.
    """
    library = _c_library()
    if hasattr(library, "mallopt"):
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, 1 << 16)


def _c_library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def resident_megabytes() -> float:
    """Return the resident memory of this process, when what is free is given back."""
    gc.collect()
    library = _c_library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _shared() -> set[str]:
    """Return the names in shared memory that no other living process has its number in."""
    if not _SHARED_MEMORY.is_dir():
        return set()
    own = {os.getpid(), *descendants()}
    found = set()
    for name in os.listdir(_SHARED_MEMORY):
        numbers = set(map(int, re.findall(r"[-_](\d+)(?=[-_])", name)))
        if numbers and numbers <= own:
            found.add(name)
    return found


@dataclass(frozen=True)
class Inventory:
    """What there is at a moment of rest.

    Attributes
    ----------
    descriptors, threads, processes : Counter
        By what they are.
    shared, files : set of str
        Names in shared memory, and below the temporary folder.
    """

    descriptors: Counter[str]
    threads: Counter[str]
    processes: Counter[str]
    shared: set[str]
    files: set[str]

    @staticmethod
    def take(folder: Path) -> Inventory:
        """Look around; `folder` is the temporary folder of the run."""
        threads = Counter(re.sub(r"[\d(].*", "", item.name) for item in threading.enumerate())
        processes = Counter(
            name[:60]
            for name in descendants().values()
            if not any(tracker in name for tracker in _TRACKERS)
        )
        files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        return Inventory(descriptors(), threads, processes, _shared(), files)

    def beyond(self, before: Inventory) -> list[str]:
        """Return in words what is here and was not there `before`."""
        found = []
        for kind in ("descriptors", "threads", "processes"):
            more = getattr(self, kind) - getattr(before, kind)
            found += [f"{kind[:-1]} {name} x {count}" for name, count in sorted(more.items())]
        found += [f"shared memory {name}" for name in sorted(self.shared - before.shared)]
        found += [f"file {name}" for name in sorted(self.files - before.files)]
        return found
