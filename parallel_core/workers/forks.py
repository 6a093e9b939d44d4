"""Children that a task forks must not speak for the worker.

A child that should have ended, but came back out of its task (returned, or raised on the way to
its ``os._exit``), would go on with the worker's batch: run tasks twice, and send answers in its
name. So in a child the channel is closed, and the connection for output, and in the place of the
status board there is a page of its own that allows no further task. Where its task is over, it
ends as a program of its own would, whose last line the task was.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from typing import NoReturn

from memmapping.forks import around_forks, in_child
from parallel_core.output.connection import OutputWriter
from parallel_core.serialization.failure import traceback_text
from parallel_core.workers.board import SIZE, Board
from parallel_core.workers.channel import Channel

_MAP_FIXED = 0x10  # sys/mman.h, on Linux and macOS alike; Python does not name it


_generation = 0


def generation() -> int:
    """Return a number that a child has and its parent has not; `os.getpid` takes its time."""
    return _generation


@in_child
def _count() -> None:
    global _generation
    _generation += 1


def cut_off_children(board: Board, channel: Channel, output: OutputWriter) -> None:
    """Have every child that this process forks lose its hold of what is the worker's.

    See `mmap(2)`: a new mapping at the place of an old one replaces it, in the child alone.
    """

    def before() -> None:
        import ctypes  # noqa: F401 - so that the child finds it imported

    @in_child
    def after_in_child() -> None:
        channel.close()
        output.close()
        replace_by_private(board)

    around_forks(before)


def replace_by_private(board: Board) -> None:
    """Put empty memory of this process alone where the shared page is: its limit is 0 tasks."""
    import ctypes

    place = ctypes.CDLL(None).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(board.words))
    flags = _MAP_FIXED | mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    place(address, SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)


def end_child(error: BaseException | None = None) -> NoReturn:
    """End this process, a forked child whose task has returned, or has raised `error`.

    No handlers of `atexit` run: they are those of the process that it was forked from.
    """
    status = 0
    try:
        if isinstance(error, SystemExit):
            status = _exit_status(error.code)
        elif error is not None:
            status = 1
            sys.stderr.write(traceback_text(error))
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # there is none, or it is closed
                stream.flush()
        os._exit(status)


def _exit_status(code: object) -> int:
    """Return what the system is told for ``sys.exit(code)``; words are printed."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1
