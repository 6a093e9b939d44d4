"""Sums and shares of a call that has ended, for its report and for advice."""

from __future__ import annotations

from typing import NamedTuple

from parallel_core.insights.record import CallRecord, SlowTask
from parallel_core.insights.totals import Slice, WorkerTotals

#: What a worker does, in the order in which it is shown.
PARTS = ("start_up", "waiting", "loading", "working", "pickling", "sending")
#: What the thread does that runs the loop.
CALLER_PARTS = ("starting", "pulling", "encoding", "submitting", "waiting", "reading", "rest")


class WorkerFigures(NamedTuple):
    """What one worker did; seconds of each of `PARTS`, and more."""

    worker: int
    pid: int
    tasks: int
    start_up: float
    waiting: float
    loading: float
    working: float
    pickling: float
    sending: float
    nbytes: int
    slices: tuple[Slice, ...]


class Figures(NamedTuple):
    """A call in numbers."""

    record: CallRecord
    seconds: float  #: duration of the call
    workers: tuple[WorkerFigures, ...]
    caller: dict[str, float]  #: seconds of each of `CALLER_PARTS`
    slowest: list[SlowTask]

    @property
    def n_workers(self) -> int:
        """Number of workers that there were to be."""
        return max(self.record.n_workers, 1)

    @property
    def tasks(self) -> int:
        """Number of tasks that workers ran."""
        return sum(worker.tasks for worker in self.workers)

    @property
    def available(self) -> float:
        """Seconds that all workers had."""
        return self.seconds * self.n_workers

    def total(self, part: str) -> float:
        """Return the seconds of all workers in one of `PARTS`."""
        return float(sum(getattr(worker, part) for worker in self.workers))

    def share(self, part: str) -> float:
        """Return the share of the time of all workers."""
        return self.total(part) / self.available if self.available else 0.0

    @property
    def efficiency(self) -> float:
        """Share of the time of all workers that they spent in tasks, at most 1."""
        return min(self.share("working"), 1.0)

    @property
    def task_seconds(self) -> float:
        """Seconds of a task on average, in its worker."""
        return self.total("working") / self.tasks if self.tasks else 0.0

    @property
    def received_nbytes(self) -> int:
        """Bytes of results."""
        return sum(worker.nbytes for worker in self.workers)


def figures_of(record: CallRecord) -> Figures:
    """Add up what was counted."""
    seconds = record.seconds
    ended = record.began + seconds
    workers = tuple(_figures_of(totals, record, ended) for totals in record.workers())
    caller = {part: getattr(record, part) for part in CALLER_PARTS[:-1]}
    caller["rest"] = max(seconds - sum(caller.values()), 0.0)
    return Figures(record, seconds, workers, caller, record.slowest)


def _figures_of(totals: WorkerTotals, record: CallRecord, ended: float) -> WorkerFigures:
    """Return the figures of a worker; its start-up is a part of what it waited for."""
    start_up = 0.0
    if record.is_local and not record.runs_here:
        ready_at = record.ready_at.get(totals.slot, 0.0)
        start_up = min(max(ready_at - record.began, 0.0), totals.waiting)
    waiting = totals.waiting - start_up + max(ended - totals.ended, 0.0)
    return WorkerFigures(
        totals.number,
        totals.pid,
        totals.tasks,
        start_up,
        waiting,
        totals.loading,
        totals.working,
        totals.pickling,
        totals.sending,
        totals.nbytes,
        tuple(totals.slices),
    )


def duration_of(seconds: float) -> str:
    """Return a duration as people write it.

    >>> duration_of(3e-6), duration_of(0.0123), duration_of(1.5), duration_of(200)
    ('3 µs', '12.3 ms', '1.5 s', '3.3 min')
    """
    if seconds >= 100:
        return f"{seconds / 60:.1f} min"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def count_of(number: int, what: str) -> str:
    """Return a number with the word for what was counted.

    >>> count_of(1, "task"), count_of(2000, "task")
    ('1 task', '2,000 tasks')
    """
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"
