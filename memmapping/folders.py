"""Where files for arrays go, in order of preference, and how much room is there."""

from __future__ import annotations

import os
from typing import NamedTuple

SHARED_MEMORY = "/dev/shm"


class Folder(NamedTuple):
    """A place for arrays.

    Attributes
    ----------
    path : str
        The folder.
    reason : str
        Why it is considered.
    free : int or None
        Bytes that fit, as far as the file system and the memory cgroup tell.
    problem : str or None
        Why it cannot be used.
    """

    path: str
    reason: str
    free: int | None
    problem: str | None


def candidate_folders(temp_folder: str | None = None) -> list[Folder]:
    """Return the folders to try, best first.

    Parameters
    ----------
    temp_folder : str, optional
        The user's choice; it comes first.

    Returns
    -------
    list of Folder
        With what is wrong with each, if anything; the last one is the system's temporary folder.
    """
    found: list[tuple[str, str]] = []
    if temp_folder is not None:
        found.append((os.path.abspath(os.path.expanduser(temp_folder)), "temp_folder"))
    for variable in ("PARALLEL_CORE_TEMP_FOLDER", "JOBLIB_TEMP_FOLDER"):
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
    return [_examine(path, reason) for path, reason in found]


def _examine(path: str, reason: str) -> Folder:
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
        left = _cgroup_room()
        free = free if left is None else min(free, left)
    return Folder(path, reason, free, None)


def _cgroup_room() -> int | None:
    """Return the bytes that the memory cgroup of this process has left, if it has a limit."""
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            with open(limit_file) as limit, open(used_file) as used:
                return max(0, int(limit.read()) - int(used.read()))
        except (OSError, ValueError):  # no such cgroup, or "max"
            continue
    return None
