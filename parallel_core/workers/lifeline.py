"""A lifeline for workers that another engine starts, who can be given nothing at their start.

::

    this process            pipe            worker of loky, or of an executor of the user's
    ┌──────────────┐  ┌───────────────┐     ┌──────────────────────────────────────────┐
    │ write end ───│─▶│               │     │ opens /proc/<pid>/fd/<read end>,         │
    │ read end ────│─▶│ never written │◀─ ─ │ armed: SIGKILL when the write end closes │
    └──────────────┘  └───────────────┘     └──────────────────────────────────────────┘

To open a pipe under ``/proc`` gives a new end of the same pipe (`proc(5)`). The write end must be
open nowhere else: programs that are started do not inherit it, forked children close it. Where a
worker cannot open the pipe, it goes without.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from memmapping.forks import in_child
from parallel_core.workers.system import arm_lifeline


class Lifeline(NamedTuple):
    """Where a worker finds the pipe of a process, and which it must be."""

    pid: int
    descriptor: int
    device: int
    inode: int


class _Pipe:
    """The two ends in this process, if it has them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: tuple[int, int] | None = None
        self.lifeline: Lifeline | None = None
        self.held: Lifeline | None = None  # that of the process which this one works for


_pipe = _Pipe()


def own_lifeline() -> Lifeline | None:
    """Return what workers should hold on to; None when there can be no pipe."""
    if _pipe.lifeline is None:
        with _pipe.lock:
            if _pipe.lifeline is None:
                try:
                    _pipe.ends = os.pipe()
                    status = os.fstat(_pipe.ends[0])
                except OSError:  # no descriptors left; the next call may have more luck
                    return None
                where = os.getpid(), _pipe.ends[0]
                _pipe.lifeline = Lifeline(*where, status.st_dev, status.st_ino)
    return _pipe.lifeline


def hold_on(lifeline: Lifeline | None) -> None:
    """Have this process killed when the one that `lifeline` belongs to ends."""
    if lifeline is None or lifeline == _pipe.held or lifeline.pid == os.getpid():
        return
    _pipe.held = lifeline
    path = f"/proc/{lifeline.pid}/fd/{lifeline.descriptor}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        _end_if_gone(lifeline.pid)
        return
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) == (lifeline.device, lifeline.inode):
        arm_lifeline(descriptor)
    else:
        os.close(descriptor)


def _end_if_gone(pid: int) -> None:
    """End with a process that ended while this worker was being started."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            is_gone = file.read().rpartition(b")")[2].split()[0] in b"ZX"  # not yet waited for
    except ProcessLookupError:
        is_gone = True
    except OSError:
        is_gone = False
    if is_gone:
        os._exit(1)


@in_child
def _let_go_in_child() -> None:
    global _pipe
    ends, held = _pipe.ends, _pipe.held
    _pipe = _Pipe()
    _pipe.held = held
    for end in ends or ():
        try:
            os.close(end)
        except OSError:
            continue
