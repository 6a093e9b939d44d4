"""What bounds a call, and how far it came."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from parallel_core.dispatch.interruption import Interruption
    from parallel_core.dispatch.memory import MemoryGate


class ReturnAs(enum.Enum):
    """What the caller gets."""

    LIST = "list"
    GENERATOR = "generator"
    UNORDERED = "generator_unordered"


class Counters(NamedTuple):
    """How far a call came.

    Attributes
    ----------
    dispatched, completed : int
        Numbers of tasks.
    total : int or None
        How many there are, if that became known.
    """

    dispatched: int = 0
    completed: int = 0
    total: int | None = None


class Limits(NamedTuple):
    """How far one call may go: ahead of its workers, in time, in memory.

    Attributes
    ----------
    pre_dispatch : int or None
        How many batches may be pulled ahead; None for all.
    pre_dispatch_nbytes : int or None
        How many bytes of arguments may be pulled ahead.
    batch_size : int or None
        Tasks in a batch; None to adapt.
    max_tasks : int or None
        The most that a batch may have, whatever its size should be.
    timeout : float or None
        Seconds for a task.
    call_timeout : float or None
        Seconds for the whole call.
    gate : MemoryGate or None
        Closed while too little memory is free.
    interruption : Interruption or None
        Set by another thread when the call is to end.
    order_tasks : bool
        Whether tasks go to the workers in turn.
    """

    pre_dispatch: int | None = None
    pre_dispatch_nbytes: int | None = None
    batch_size: int | None = None
    max_tasks: int | None = None
    timeout: float | None = None
    call_timeout: float | None = None
    gate: MemoryGate | None = None
    interruption: Interruption | None = None
    order_tasks: bool = False
