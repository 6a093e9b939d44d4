"""The bounds of a call, and its progress."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from parallel_core.dispatch.ending import Interruption


class ReturnAs(enum.Enum):
    """The kind of return value of a call."""

    LIST = "list"
    GENERATOR = "generator"
    UNORDERED = "generator_unordered"


class Counters(NamedTuple):
    """The progress of a call, in tasks."""

    dispatched: int = 0
    completed: int = 0
    total: int | None = None  #: None while it is not known


class Gate(Protocol):
    """What holds tasks back for a while: `MemoryGate`, `LoadGate`."""

    def hold(self, at_work: int) -> bool:
        """Whether to hold back, with so many batches `at_work`."""

    @property
    def again(self) -> float:
        """The time to look again, by `time.monotonic`."""


class Limits(NamedTuple):
    """The bounds of one call: ahead of its workers, in time, in memory. None: no bound."""

    pre_dispatch: int | None = None  #: batches ahead
    pre_dispatch_nbytes: int | None = None  #: bytes of arguments ahead
    batch_size: int | None = None  #: None adapts it
    max_tasks: int | None = None  #: in a batch, whatever its size should be
    timeout: float | None = None  #: seconds for each task
    call_timeout: float | None = None  #: seconds for the whole call
    gate: Gate | None = None
    interruption: Interruption | None = None
    order_tasks: bool = False  #: whether tasks go to the workers in turn
