"""How many tasks make a batch, and how many to pull at a time.

::

    what workers needed ──▶ record ──────┐
    submitting a batch ───▶ handed_over ─┼─▶ BatchSizer ──▶ to_pull, look_after, share
    tasks, bytes, seconds ▶ pulled ──────┘

No clock is read here, and nothing is called for each task: the sizer is fed figures of batches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

_GROWTH = 16
_MOST = 1 << 17
_MOST_NBYTES = 1 << 20
_MOST_RESULT_NBYTES = 4 << 20  # for more, new memory takes longer to get than to fill
_MOST_SECONDS = 0.5  # longer batches keep results back and end far apart
_DISPATCH_SHARE = 0.01  # of a worker's time, for the submission of its work
_BUSY_SHARE = 0.25  # of the dispatcher's time, for that; reading the answers costs as much again
_LEAST_WEIGHT = 1 / 1024
_BYTES_WEIGHT = 0.5
_PULL_SECONDS = 0.002  # workers may be idle meanwhile
_LOOK_SECONDS = 1e-4  # how long to pull without looking at the clock
_LOOK_TASKS = 64
_LOOK_SHARE = 8  # and one for so many that came at once in this batch
_BLOCKED_SECONDS = 0.02  # whatever held pulling up for so long may do so again
_SLOW = 10  # if pulling a task takes so many times longer than submitting it, it goes by itself
_HELD_SHARE = 4  # one task in so many is held back, at most, where the input blocks now and then
_LEAST_SHARE = 8  # the last batches of a call get smaller, to an eighth of what they aim at


# The aim. A batch should take a worker so long that submitting it is 1 % of that, and half a
# second at most, so that the last batches end together. The cheapest submission that was seen
# counts, up to 5 ms. Others cost more for their bytes, which larger batches do not save, or because
# another program had its turn on the processor. With very many workers a batch takes longer, since
# the one thread that serves them all must not be what they wait for.
#
# Growth. Sizes start with 1. With few workers a slower answer counts at once, and a faster one by
# half. With many, each answer counts for 2/n, as one slow task among thousands says little. Sizes
# grow only when half as many answers have come as there are workers: workers with short tasks
# answer first, and sizes that followed them gave most workers fifty times too much.
#
# The end. If the input has a length, batches get smaller when half of what is left is less than a
# full batch for each worker. A length that is wrong makes small batches, and nothing worse. Uneven
# ends are for stealing.
#
# Pulling. Workers may be idle while a batch is pulled, so that takes 2 ms at most, and the batch
# holds at most 1 MiB of arguments. Tasks of a slow iterable go one by one, which costs nothing
# beside waiting for them. An iterable that has blocked is asked for a quarter of what it has
# yielded since: so of one that comes in bursts, at most a fifth of a burst is held back, and one
# that paused once is soon asked for full batches again.
class BatchSizer:
    """Adapts the size of batches to the time that tasks take."""

    __slots__ = (
        "_aim",
        "_answers",
        "_ask",
        "_down",
        "_fixed",
        "_handing_over",
        "_least_aim",
        "_left",
        "_look",
        "_most",
        "_most_nbytes",
        "_n_workers",
        "_pull_seconds",
        "_pulling",
        "_recorded",
        "_result_nbytes",
        "_since_blocked",
        "_task_nbytes",
        "_up",
        "size",
        "task_seconds",
    )

    def __init__(
        self,
        fixed: int | None,
        aim_seconds: float,
        most: int | None = None,
        n_workers: int = 1,
        total: int | None = None,
        most_nbytes: int = _MOST_NBYTES,
        ask: Callable[[], int] | None = None,
    ) -> None:
        self._ask = ask if fixed is None else None  # of an engine that knows better
        self._fixed = fixed  # by the caller: kept whatever the input does
        self._aim = self._least_aim = aim_seconds
        self._most = min(most or _MOST, _MOST)
        self._most_nbytes = min(most_nbytes, _MOST_NBYTES)
        self._n_workers = n_workers
        self._up = max(min(1.0, 2 / max(1, n_workers)), _LEAST_WEIGHT)  # of an answer
        self._down = min(self._up, 0.5)
        self._answers = 0  # since sizes last grew
        self._recorded = 0
        self._left = total  # tasks; an estimate
        self._handing_over = _MOST_SECONDS * _DISPATCH_SHARE  # the least that was seen
        self._task_nbytes = 0.0
        self._result_nbytes = 0.0
        self._pulling = 0.0  # seconds for a task
        self._look = 1
        self._since_blocked: int | None = None  # tasks that were pulled; None: it never has
        self._pull_seconds = _PULL_SECONDS if fixed is None else float("inf")
        self.size = min(fixed or 1, most or sys.maxsize)  #: tasks that a batch should have
        self.task_seconds: float | None = None  #: of one task, as far as is known

    @property
    def aim_seconds(self) -> float:
        """The time that a batch should take, as far as is known."""
        return self._aim

    @property
    def long_tasks(self) -> bool:
        """Whether tasks take so long that queueing a second batch at a worker gains nothing."""
        return self.task_seconds is None or self.task_seconds * self.size > 2 * self._aim

    def handed_over(self, seconds: float) -> None:
        """Take in the time that submitting a batch took."""
        if seconds < self._handing_over:
            self._handing_over = max(seconds, 0.0)
            cheap = self._handing_over / _DISPATCH_SHARE
            busy = self._handing_over * self._n_workers / _BUSY_SHARE
            self._aim = max(self._least_aim, cheap, busy)

    def record(self, tasks: int, seconds: float, nbytes: int = 0) -> None:
        """Take in that a worker needed `seconds` for `tasks` tasks.

        Their results had `nbytes`; 0 where each is sent as soon as it is large.
        """
        if tasks == 0:
            return
        latest = seconds / tasks
        known = self.task_seconds
        self._recorded += 1
        if known is None:
            self.task_seconds = latest
        else:
            weight = max(self._up if latest > known else self._down, 1 / self._recorded)
            self.task_seconds = known + weight * (latest - known)
        if self._fixed is not None:
            return
        size = min(int(self._aim / max(self.task_seconds, 1e-9)), self._most)
        if nbytes:
            known_nbytes, latest_nbytes = self._result_nbytes, nbytes / tasks
            change = latest_nbytes - known_nbytes
            self._result_nbytes = max(latest_nbytes, known_nbytes + _BYTES_WEIGHT * change)
            size = min(size, int(_MOST_RESULT_NBYTES / self._result_nbytes))
        size = max(1, size)
        self._answers += 1
        if size > self.size:
            if self._answers * 2 < self._n_workers:
                return  # workers that answer first had short tasks
            size = min(size, _GROWTH * max(tasks, self.size // _GROWTH))
            if size <= self.size:
                return
            self._answers = 0
        self.size = size

    def to_pull(self) -> int:
        """Return how many tasks to pull for the next batch, at most."""
        if self._ask is not None:
            self._fixed = self.size = min(self._ask(), self._most)
        most = self.size
        if self._fixed is not None or most == 1:
            return most
        if self._left is not None:
            most = self.share(self._left // 2)
        if self._task_nbytes:
            most = min(most, int(self._most_nbytes / self._task_nbytes) + 1)
        if self._pulling > _SLOW * self._handing_over and self._workers_wait():
            return 1
        if self._since_blocked is not None:
            most = min(most, self._since_blocked // _HELD_SHARE + 1)
        return most

    def _workers_wait(self) -> bool:
        """Whether they finish tasks sooner than tasks can be pulled."""
        return self._pulling * self._n_workers > (self.task_seconds or 0.0)

    def look_after(self, most: int, pulled: int, nbytes: int, seconds: float) -> int:
        """Return how many of `most` to pull before asking again; 0 for no more."""
        if pulled:
            if seconds > self._pull_seconds or nbytes > self._most_nbytes:
                return 0
            look = max(1, int(_LOOK_SECONDS * pulled / max(seconds, 1e-9)))
            self._look = min(look, _LOOK_TASKS)
            look = min(look, _LOOK_TASKS + pulled // _LOOK_SHARE, most - pulled)
        else:
            look = min(self._look, most)
        if nbytes:  # the tasks to come are thought to be like those before them
            look = min(look, (self._most_nbytes - nbytes) * pulled // nbytes + 1)
        return look

    def pulled(self, tasks: int, nbytes: int, seconds: float) -> None:
        """Take in the time that pulling a batch took."""
        if self._left is not None:
            self._left = max(0, self._left - tasks)
        if tasks:
            latest = nbytes / tasks
            known = self._task_nbytes
            self._pulling = seconds / tasks
            self._task_nbytes = max(latest, known + _BYTES_WEIGHT * (latest - known))
        if seconds > _BLOCKED_SECONDS:
            self._since_blocked, self._look = 0, 1
        elif self._since_blocked is not None:
            self._since_blocked += tasks

    def share(self, left: int) -> int:
        """Return how many tasks a batch may have when `left` are left: all workers get some."""
        # Not so small that submitting it shows.
        each = left // max(1, self._n_workers)
        return min(self.size, max(each, self.size // _LEAST_SHARE, 1))
