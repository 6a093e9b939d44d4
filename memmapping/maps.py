"""What lies where in the memory of this process; see `proc_pid_maps(5)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class _Area(NamedTuple):
    start: int
    end: int
    is_shared: bool
    inode: int
    path: str


def is_private_memory(span: tuple[int, int]) -> bool:
    """Whether all of `span` is private and anonymous, so that only this process can write it."""
    first, end = span
    for area in _areas():
        if area.end <= first:
            continue
        if area.start > first or area.is_shared or area.inode:
            return False
        if area.end >= end:
            return True
        first = area.end
    return False


def file_at(address: int) -> tuple[str, int] | None:
    """Return path and inode of the file that is mapped and shared at `address`, if one is."""
    for area in _areas():
        if area.start <= address < area.end:
            return (area.path, area.inode) if area.is_shared and area.path else None
    return None


def _areas() -> Iterator[_Area]:
    """Yield the areas in the order of their addresses, as far as they can be read."""
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                bounds, permissions, _, _, inode, *path = line.rstrip("\n").split(None, 5)
                start, _, end = bounds.partition("-")
                is_shared = permissions[3] == "s"
                yield _Area(int(start, 16), int(end, 16), is_shared, int(inode), "".join(path))
    except (OSError, ValueError):
        return
