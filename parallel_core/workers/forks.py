"""Children that a task forks must not speak for the worker.

A child that should have ended, but came back out of its task (returned, or raised on the way to
its ``os._exit``), would go on with the worker's batch: run tasks twice, and send answers in its
name. So in a child the channel is closed, and the connection for output, and in the place of the
status board there is a page of its own that allows no further task.
"""

from __future__ import annotations

import mmap
import os

from parallel_core.workers.board import SIZE, Board
from parallel_core.workers.channel import Channel
from parallel_core.workers.output import OutputWriter

_MAP_FIXED = 0x10  # sys/mman.h, on Linux and macOS alike; Python does not name it


def cut_off_children(board: Board, channel: Channel, output: OutputWriter) -> None:
    """Have every child that this process forks lose its hold of what is the worker's.

    See `mmap(2)`: a new mapping at the place of an old one replaces it, in the child alone.
    """
    if not hasattr(os, "register_at_fork"):
        return

    def before() -> None:
        import ctypes  # noqa: F401 - so that the child finds it imported

    def after_in_child() -> None:
        channel.close()
        output.close()
        replace_by_private(board)

    os.register_at_fork(before=before, after_in_child=after_in_child)


def replace_by_private(board: Board) -> None:
    """Put empty memory of this process alone where the shared page is: its limit is 0 tasks."""
    import ctypes

    place = ctypes.CDLL(None).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(board.words))
    flags = _MAP_FIXED | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    place(address, SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
