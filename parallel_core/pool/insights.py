"""What the workers of a pool spend their time on, from the events of its calls.

::

    workers: TaskTimes ──note of a batch──▶ BatchAnswered ──▶ Insights ──▶ get_insights
             TimedInit ──with the first one──┘                   ▲
             TimedEnd ───exit results────────────────────────────┘
"""

from __future__ import annotations

import heapq
import os
import statistics
import time
from collections.abc import Iterable
from typing import Any

from parallel_core.observe.events import BatchAnswered, CallEnded, CallStarted, Event
from parallel_core.pool.measuring import SLOWEST, BatchTimes, TaskTimes, TimedExit

PARTS = ("start_up", "init", "waiting", "working", "exit")
_FEW = 0.8  # of the time: who works for less is told so


class Insights:
    """An observer of all calls of a pool, until its workers are started anew."""

    def __init__(self, n_jobs: int) -> None:
        self.items = (TaskTimes(os.urandom(8).hex()),)
        self._tasks = [0] * n_jobs
        self._seconds = {part: [0.0] * n_jobs for part in PARTS}
        self._slowest: list[tuple[float, int, str]] = []  # a heap
        self._number = 0
        self._started = 0.0
        self._pids: dict[int, int] = {}  # of workers whose engine tells no slots

    def notify(self, event: Event) -> None:
        """Take in what was measured of a batch."""
        if isinstance(event, CallStarted):
            self._started = time.monotonic()
        elif isinstance(event, BatchAnswered):
            for name, note in event.notes:
                if name == TaskTimes.name and isinstance(note, tuple):
                    self._take(BatchTimes(*note))
        elif isinstance(event, CallEnded):
            self._started = 0.0

    def _take(self, times: BatchTimes) -> None:
        slot = times.worker
        if slot < 0:
            slot = self._pids.setdefault(times.pid, len(self._pids))
        slot %= len(self._tasks)  # a worker that took the place of another one
        self._tasks[slot] += times.tasks
        seconds = self._seconds
        seconds["working"][slot] += times.working
        seconds["waiting"][slot] += times.waiting
        seconds["init"][slot] += times.init
        if times.first_began and self._started:
            start = times.first_began - self._started - times.init
            seconds["start_up"][slot] += max(0.0, start)
        for duration, words in times.slowest:
            self._number += 1
            entry = duration, self._number, words
            if len(self._slowest) < SLOWEST:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heappushpop(self._slowest, entry)

    def take_exits(self, results: Iterable[Any]) -> list[Any]:
        """Return what exit functions returned, and take in how long they took."""
        found = []
        for timed in results:
            if isinstance(timed, TimedExit):
                self._seconds["exit"][timed.worker % len(self._tasks)] += timed.seconds
                found.append(timed.result)
            else:
                found.append(timed)
        return found

    def figures(self) -> dict[str, Any]:
        """Return what `WorkerPool.get_insights` returns."""
        if not any(self._tasks):
            return {}
        totals = {part: sum(seconds) for part, seconds in self._seconds.items()}
        total = sum(totals.values())
        found: dict[str, Any] = {"n_completed_tasks": list(self._tasks)}
        found |= {f"total_{part}_time": _shown(totals[part]) for part in PARTS}
        found["total_time"] = _shown(total)
        for part, seconds in self._seconds.items():
            found[f"{part}_time"] = list(map(_shown, seconds))
            found[f"{part}_time_mean"] = _shown(statistics.fmean(seconds))
            found[f"{part}_time_std"] = _shown(statistics.pstdev(seconds))
            found[f"{part}_ratio"] = totals[part] / total if total else 0.0
        slowest = sorted(self._slowest, key=lambda entry: -entry[0])
        found["top_5_max_task_durations"] = [_shown(duration) for duration, _, _ in slowest]
        found["top_5_max_task_args"] = [words for _, _, words in slowest]
        return found

    def report(self) -> str:
        """Return what `WorkerPool.print_insights` prints."""
        found = self.figures()
        if not found:
            return NOTHING
        lines = ["WorkerPool insights", "-------------------"]
        lines.append(f"Tasks completed: {sum(found['n_completed_tasks'])}")
        for part in PARTS:
            name = part.replace("_", "-")
            mean, deviation = found[f"{part}_time_mean"], found[f"{part}_time_std"]
            ratio = f"{found[f'{part}_ratio']:.2%}"
            lines.append(
                f"Total {name} time: {found[f'total_{part}_time']} "
                f"(mean {mean}, std {deviation}, ratio {ratio})"
            )
        if found["working_ratio"] < _FEW:
            lines += ["", f"Efficiency warning: the working ratio is below {_FEW:.0%}"]
        lines += ["", "Workers", "-------"]
        for slot, tasks in enumerate(found["n_completed_tasks"]):
            times = ", ".join(
                f"{part.replace('_', '-')} {found[f'{part}_time'][slot]}" for part in PARTS
            )
            lines.append(f"Worker {slot}: {tasks} tasks, {times}")
        lines += ["", "Slowest tasks", "-------------"]
        slowest = zip(found["top_5_max_task_durations"], found["top_5_max_task_args"], strict=True)
        lines += [f"{rank}. {took}: {args}" for rank, (took, args) in enumerate(slowest, 1)]
        return "\n".join(lines)


NOTHING = "No insights available: run a map of a pool that was made with enable_insights=True first"


def _shown(seconds: float) -> str:
    """Return a duration as ``H:MM:SS.mmm``."""
    if not seconds:
        return "0:00:00"
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 1000:06.3f}"
