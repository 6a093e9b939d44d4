"""Write a CSV of when each task ran, and on which worker, by an observer.

Run it with ``python examples/tasks_csv.py tasks.csv``. Tasks shorter than half a millisecond share
a line with others.
"""

from __future__ import annotations

import csv
import sys
import time
from typing import IO

from parallel_core import BatchAnswered, Parallel, delayed


class TaskTable:
    """Writes a line for each task."""

    def __init__(self, file: IO[str]) -> None:
        self._began = time.monotonic()
        self._rows = csv.writer(file)
        self._rows.writerow(
            ["call", "task", "tasks", "function", "worker", "pid", "began", "seconds"]
        )

    def notify(self, event: object) -> None:
        """Write the tasks that have ended."""
        if isinstance(event, BatchAnswered) and event.times is not None:
            for span in event.times.spans(event.first, event.tasks, event.seconds):
                began, seconds = span.began - self._began, span.ended - span.began
                where = event.worker, event.times.pid, f"{began:.6f}", f"{seconds:.6f}"
                self._rows.writerow([event.call, span.first, span.tasks, event.function, *where])


if __name__ == "__main__":
    with open(sys.argv[1], "w", newline="", encoding="utf-8") as file:
        parallel = Parallel(n_jobs=2, observers=[TaskTable(file)])
        parallel(delayed(time.sleep)(0.01) for _ in range(20))
