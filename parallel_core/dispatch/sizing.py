"""How many tasks make a batch."""

from __future__ import annotations

import sys

_GROWTH = 16
_MOST = 1 << 17
_PULL_SECONDS = 0.002
_HALF_LIFE = 0.5


class BatchSizer:
    """Adapts the size of batches to how long tasks take.

    A batch should take `aim_seconds` of a worker's time: long enough that handing it over does
    not show, short enough that the last ones end together. Pulling it from the caller's generator
    should not take long either, since workers may be idle meanwhile.

    Parameters
    ----------
    fixed : int or None
        The size, when the caller set one.
    aim_seconds : float
        How long a batch should take.
    most : int, optional
        The most that a batch may have.

    Attributes
    ----------
    size : int
        Tasks for the next batch.
    task_seconds : float or None
        What a task takes, as far as is known.
    """

    __slots__ = ("_aim", "_fixed", "_most", "size", "task_seconds")

    def __init__(self, fixed: int | None, aim_seconds: float, most: int | None = None) -> None:
        self._fixed = fixed
        self._aim = aim_seconds
        self._most = min(most or _MOST, _MOST)
        self.size = min(fixed or 1, most or sys.maxsize)
        self.task_seconds: float | None = None

    @property
    def pull_seconds(self) -> float:
        """For how long to pull for one batch; a size set by the caller has no such limit."""
        return _PULL_SECONDS if self._fixed is None else float("inf")

    @property
    def long_tasks(self) -> bool:
        """Whether tasks take so long that queueing a second batch at a worker gains nothing."""
        return self.task_seconds is None or self.task_seconds * self.size > 2 * self._aim

    def record(self, tasks: int, seconds: float) -> None:
        """Take in that a worker needed `seconds` for `tasks` tasks."""
        if tasks == 0:
            return
        latest = seconds / tasks
        known = self.task_seconds
        if known is None or latest > known:
            self.task_seconds = latest
        else:
            self.task_seconds = known + _HALF_LIFE * (latest - known)
        if self._fixed is None:
            ideal = int(self._aim / max(self.task_seconds, 1e-9))
            self.size = max(1, min(ideal, _GROWTH * max(tasks, self.size // _GROWTH), self._most))
