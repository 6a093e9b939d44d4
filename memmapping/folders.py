"""Where files for arrays go, in order of preference, and how much room is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

SHARED_MEMORY = "/dev/shm"
_CGROUPS = "/sys/fs/cgroup"


class Folder(NamedTuple):
    """A place for arrays."""

    path: str
    reason: str  #: why it is considered
    free: int | None  #: bytes that fit, as far as the file system and the memory cgroup tell
    problem: str | None  #: why it cannot be used


def candidate_folders(temp_folder: str | None = None) -> list[Folder]:
    """Return the folders to try, best first, with what is wrong with each, if anything.

    The user's `temp_folder` comes first, the system's temporary folder last.
    """
    found: list[tuple[str, str]] = []
    if temp_folder is not None:
        found.append((os.path.abspath(os.path.expanduser(temp_folder)), "temp_folder"))
    for variable in ("MEMMAPPING_TEMP_FOLDER", "JOBLIB_TEMP_FOLDER"):
        value = os.environ.get(variable, "").strip()
        if value:
            found.append((os.path.abspath(os.path.expanduser(value)), variable))
    if os.path.isdir(SHARED_MEMORY):
        found.append((SHARED_MEMORY, "shared memory"))
    import tempfile

    try:
        found.append((tempfile.gettempdir(), "the system's temporary folder"))
    except FileNotFoundError:  # there is none that can be written to
        found.append((os.curdir, "the current folder, for want of a temporary one"))
    return [examine(path, reason) for path, reason in found]


def check_temp_folder(folder: str | os.PathLike[str] | None) -> None:
    """Make `folder` if it is missing, and raise ValueError unless arrays can be put into it.

    None is nobody's choice.
    """
    if folder is None:
        return
    path = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    problem: object
    try:
        if not os.path.exists(path):
            os.makedirs(path, exist_ok=True)
        problem = examine(path, "temp_folder").problem
    except OSError as error:
        problem = error
    if problem is not None:
        raise ValueError(
            f"temp_folder {path!r} is no place for arrays: {problem}. Choose another, or leave "
            "temp_folder out to have them in shared memory"
        )


def examine(path: str, reason: str) -> Folder:
    """Return `path` with its room, or what is wrong with it, as it is now."""
    if not os.path.exists(path):
        return Folder(path, reason, None, "it does not exist")
    if not os.path.isdir(path):
        return Folder(path, reason, None, "it is not a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        return Folder(path, reason, None, "it is not writable")
    try:
        room = os.statvfs(path)
    except (OSError, AttributeError) as error:
        return Folder(path, reason, None, f"its room is unknown: {error}")
    free = room.f_bavail * room.f_frsize
    if path == SHARED_MEMORY:
        left = cgroup_room()
        free = free if left is None else min(free, left)
    return Folder(path, reason, free, None)


def cgroup_room() -> int | None:
    """Return the bytes that the memory cgroups of this process have left, if there is a limit.

    What only caches files counts as room: the kernel gives it up before it calls for a victim.
    """
    rooms = [room for folder in cgroup_folders("memory") if (room := _room_in(folder)) is not None]
    return min(rooms, default=None)


def _room_in(folder: str) -> int | None:
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            with open(f"{folder}/{limit_file}") as limit, open(f"{folder}/{used_file}") as used:
                return max(0, int(limit.read()) - int(used.read()) + _cached(folder))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return None


def _cached(folder: str) -> int:
    """Return the bytes of files in memory that are no shared memory."""
    total = 0
    try:
        with open(f"{folder}/memory.stat") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name in ("active_file", "inactive_file"):
                    total += int(value)
    except (OSError, ValueError):
        return 0
    return total


def cgroup_folders(controller: str) -> Iterator[str]:
    """Yield the folders of this process's cgroup and of those around it.

    The controller is ``"memory"`` or ``"cpu"``: under version 1 each has groups of its own.
    """
    try:
        with open("/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = _CGROUPS
        elif controller in controllers.split(","):
            root = f"{_CGROUPS}/{controller}"
        else:
            continue
        while path.strip("/"):
            yield root + path
            path = os.path.dirname(path)
        yield root
