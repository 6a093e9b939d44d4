"""How often an array is in memory while tasks have it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks import doors
from benchmarks.array_payloads import Array, hold
from benchmarks.arrays import right_total, warm_up, whole_numbers
from benchmarks.bars import AtMost
from benchmarks.looking import Onlooker
from benchmarks.memory import proportional_bytes, shared_memory_bytes
from benchmarks.workload import Figure, Sample, Workload, register

PATIENCE_SECONDS = 0.5
LOOKING_SECONDS = 0.01


@register
class ArrayMemory(Workload):
    """The memory of all processes together, when all workers have tasks that have read the array.

    Whenever as many tasks hold it as there are workers, they stand still and memory is looked at;
    the highest figure counts. The interpreters count as well: some 0.1 GB.
    """

    name = "array-memory"
    place = 180
    title = "an array of {size} held by {tasks} tasks"
    figures = (
        Figure("memory", "GB", label="memory of all processes (PSS)"),
        Figure("beside_two", "", (AtMost(1.1),), "the same, × original and one copy"),
    )
    tasks = 16
    quick_tasks = 4
    nbytes = 1 << 30
    quick_nbytes = 256 << 20
    most_rounds = 2

    def ours(self) -> Sample:
        return self.of_parallel("parallel_core")

    def joblib(self) -> Sample:
        return self.of_parallel("joblib")

    def mpire(self) -> Sample:
        array = whole_numbers(self.size)
        with doors.mpire_sharing(self.n_jobs, array) as call:
            return self.measured(call, ())

    def of_parallel(self, module: str) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        call = doors.parallel_star(module, self.n_jobs)
        warm_up(call, self.n_jobs)
        return self.measured(call, (whole_numbers(self.size),))

    def measured(self, call: doors.StarMap, array: tuple[Array, ...]) -> Sample:
        """Have tasks hold what they inherited, or the `array`, and return what was seen."""
        before = shared_memory_bytes()
        with (
            tempfile.TemporaryDirectory() as folder,
            MemoryOnlooker(folder, self.n_jobs) as onlooker,
        ):
            totals = call(hold, ((*array, number, folder) for number in range(self.n_tasks)))
        if totals != [right_total(self.size)] * self.n_tasks:
            raise AssertionError("wrong sums")
        if not onlooker.seen:
            raise AssertionError("never did all workers have a task")
        memory, shared = max(onlooker.seen)
        return {
            "memory": memory / 1e9,
            "beside_two": memory / (2 * self.size),
            "in_shared_memory": (shared - before) / 1e9,
            "looks": len(onlooker.seen),
        }


class MemoryOnlooker(Onlooker):
    """Looks at memory, in a thread, whenever all workers stand still, and lets their tasks go on.

    A task that waits for too long, as the last one may, is let go without a look.

    Parameters
    ----------
    folder : str
        Where tasks say that they hold the array, and hear that they may go on.
    n_jobs : int
        Number of workers.

    Attributes
    ----------
    seen : list of tuple
        At each look, bytes of all processes and bytes in ``/dev/shm``.
    """

    def __init__(self, folder: str, n_jobs: int) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self._folder = Path(folder)
        self._n_jobs = n_jobs

    def _look_on(self) -> None:
        let_go: set[str] = set()
        since = time.monotonic()
        while not self._ended.wait(LOOKING_SECONDS):
            held = {path.name.removeprefix("held-") for path in self._folder.glob("held-*")}
            waiting = held - let_go
            if len(waiting) >= self._n_jobs:
                self.seen.append((proportional_bytes(), shared_memory_bytes()))
            elif not waiting or time.monotonic() < since + PATIENCE_SECONDS:
                continue
            for number in waiting:
                (self._folder / f"seen-{number}").touch()
            let_go |= waiting
            since = time.monotonic()
