"""What a worker has been sent and has not answered, and what is known of its end."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from parallel_core.serialization.batch import Batch


class SentBatch:
    """A batch at a worker."""

    __slots__ = ("answered", "at", "base", "batch", "is_directed", "number")

    def __init__(self, batch: Batch, number: int, base: int) -> None:
        self.batch = batch
        self.number = number  #: among the batches of this worker
        self.base = base  #: number of the worker's task before its first
        self.answered = 0  #: how many of its results have arrived
        self.at = time.monotonic()
        self.is_directed = False  #: whether it is for this worker alone


class TimedOutTask:
    """A task that has run for too long, until it or its worker has ended."""

    __slots__ = ("due", "index", "limit", "sent", "steps")

    def __init__(
        self,
        sent: SentBatch,
        index: int,
        limit: float,
        steps: list[Callable[[], object]],
        due: float,
    ) -> None:
        self.sent = sent
        self.index = index  #: of the task in the batch
        self.limit = limit  #: how many seconds it was given
        self.steps = deque(steps)  #: what is still to be done about it, the mildest first
        self.due = due  #: when the next of these is to be done, `time.monotonic`


class Source(enum.Enum):
    """What a descriptor of a worker tells of."""

    CHANNEL = 1  #: messages, or room for them
    OUTPUT = 2  #: what its tasks print and log
    END = 3  #: that it has ended
    START = 4  #: that it has joined the session


class ExitInfo(NamedTuple):
    """What is known of a worker that has ended."""

    words: str  #: how it ended, to follow "a worker process"
    exitcode: int | None  #: ``-n`` for signal n; None if it is not known
    memory: int  #: how many bytes it held, as far as is known; else 0
    stack: str  #: what it wrote as it died; mostly nothing
