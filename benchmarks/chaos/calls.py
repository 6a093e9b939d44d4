"""Makes a call as it was planned, and tells what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.chaos.judge import Outcome, SourceFailed, is_planned
from benchmarks.chaos.plan import Shape, Task
from benchmarks.chaos.saboteur import Saboteur
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.tasks import Flaky, alone, payload_of, position_of, work
from parallel_core import Parallel, TaskFailure, delayed
from parallel_core.errors import TaskTimeoutError, WorkerDiedError

_RETRIES = 3  # where a word is the policy
_MOST_TRIES = 300  # where a function is
_CALM = tuple(Task("quick", "number", "") for _ in range(12))

#: Is told of each call of a step: its shape, what came of it, and when it was begun.
Report = Callable[[Shape, Outcome, float, Path | None], None]


class Interrupter(threading.Thread):
    """Sends one SIGINT to this process, unless it is told in time not to."""

    def __init__(self, seconds: float, tally: Tally) -> None:
        super().__init__(name="interrupter")
        self._seconds = seconds
        self._tally = tally
        self._lock = threading.Lock()
        self._is_cancelled = threading.Event()

    def run(self) -> None:
        """Wait, and send it."""
        if not self._is_cancelled.wait(self._seconds):
            with self._lock:
                if not self._is_cancelled.is_set():
                    self._tally.inject("interrupt")
                    os.kill(os.getpid(), signal.SIGINT)
                    self._is_cancelled.set()

    def cancel(self) -> None:
        """Send none from now on."""
        with self._lock:
            self._is_cancelled.set()
        time.sleep(0)  # one that was sent arrives here at the latest


class CallMaker:
    """Makes the calls of one step.

    Parameters
    ----------
    shape : Shape
        Of the call.
    random : Random
        Where further choices come from.
    folder : Path
        For the diary and for counts of tries.
    saboteur : Saboteur
        Asked for what is to happen between two tasks.
    tally : Tally
        Where planned misdeeds are counted.
    """

    def __init__(
        self, shape: Shape, random: Random, folder: Path, saboteur: Saboteur, tally: Tally
    ) -> None:
        self._shape = shape
        self._random = random
        self._folder = folder
        self._saboteur = saboteur
        self._tally = tally
        self._pulled = 0
        self._seen = 0  # by `stop_when`

    def make(self, report: Report) -> None:
        """Make the call, and `report`; within a block, a calm one before and after it."""
        shape = self._shape
        if not shape.block:
            self._report(report, self._parallel(), shape)
            return
        with self._parallel() as parallel:
            self._report(report, parallel, self._calm(shape, 1))
            if self._random.random() < 0.3:
                self._saboteur.inject(self._random.choice(("kill", "kill all")), self._random)
            self._report(report, parallel, shape)
            self._report(report, parallel, self._calm(shape, 2))

    @staticmethod
    def _calm(shape: Shape, number: int) -> Shape:
        return dataclasses.replace(
            shape,
            call=shape.call + number,
            tasks=_CALM,
            ending="whole",
            events={},
            interrupt_after=None,
            keeps_diary=False,
        )

    def _report(self, report: Report, parallel: Parallel, shape: Shape) -> None:
        began = time.monotonic()
        outcome = self._outcome(parallel, shape)
        report(shape, outcome, began, self._folder if shape.keeps_diary else None)

    def _parallel(self) -> Parallel:
        shape = self._shape
        backend: Any = shape.backend
        if backend in ("spawn", "forkserver"):
            backend = multiprocessing.get_context(backend)
        params = dict(shape.params)
        if shape.ending == "stop_when":
            params["stop_when"] = self._is_wanted
        if shape.policy == "decide":
            params["on_error"] = self._decide
        else:
            params.update(on_error=shape.policy, retries=_RETRIES, retry_on=Flaky)
        return Parallel(shape.n_jobs, backend, shape.return_as, **params)

    def _is_wanted(self, value: Any) -> bool:
        return position_of(self._shape.call, value) == self._shape.ends_at

    def _decide(self, failure: TaskFailure) -> Any:
        """Try again what was not to fail, and let stand what was."""
        position, error = failure.position, failure.error
        tasks = self._shape.tasks
        task = tasks[position] if position < len(tasks) else _CALM[0]
        passing = isinstance(error, (WorkerDiedError, TaskTimeoutError, Flaky))
        if passing and not is_planned(task, error) and failure.attempts < _MOST_TRIES:
            return "retry"
        return failure.replace(("instead", position)) if position % 2 else "return"

    def _outcome(self, parallel: Parallel, shape: Shape) -> Outcome:
        self._pulled = 0
        got: list[Any] = []
        error: BaseException | None = None
        complete = False
        interrupter = None
        try:
            if shape.interrupt_after is not None:
                interrupter = Interrupter(shape.interrupt_after, self._tally)
                interrupter.start()
            complete = self._take(parallel, shape, got)
            if interrupter is not None:
                interrupter.cancel()
        except BaseException as raised:
            error = raised
        if interrupter is not None:
            interrupter.cancel()
            interrupter.join()
        if isinstance(error, (SystemExit, AssertionError)):
            raise error
        return Outcome(got, error, self._pulled, complete and error is None)

    def _take(self, parallel: Parallel, shape: Shape, got: list[Any]) -> bool:
        """Make the call and take what comes; return whether that is all there was."""
        results = parallel(self._source(shape))
        if shape.return_as == "list":
            got += results
            return True
        if shape.ending not in ("closed", "dropped"):
            got.extend(results)
            return True
        for _ in range(shape.ends_at):
            try:
                got.append(next(results))
            except StopIteration:
                return True
        if shape.ending == "closed":
            results.close()
        del results
        gc.collect()
        self._tally.inject("generator " + shape.ending)
        return False

    def _source(self, shape: Shape) -> Iterator[Any]:
        folder = str(self._folder) if shape.keeps_diary else ""
        tries = str(self._folder)
        home = os.getpid()

        def by_value(*arguments: Any) -> Any:
            return work(*arguments)

        function = by_value if shape.call % 5 == 0 else work
        for position, task in enumerate(shape.tasks):
            if shape.ending == "source raises" and position == shape.ends_at:
                self._tally.inject("source raises")
                raise SourceFailed(shape.call)
            if position in shape.events:
                self._saboteur.inject(shape.events[position], self._random)
            self._pulled += 1
            if task.cause:
                self._tally.inject(f"task: {task.cause}")
            if task.payload:
                payload = payload_of(position, task.payload)
                yield delayed(function)(
                    shape.call, position, task.deed, task.form, folder, tries, home,
                    task.payload, payload,
                )  # fmt: skip
            else:
                yield delayed(alone)(
                    shape.call, position, task.deed, task.form, folder, tries, home
                )


@contextlib.contextmanager
def folder_for(parent: Path, call: int) -> Iterator[Path]:
    """Make a folder for a call, and remove it with all that is in it."""
    folder = parent / f"call-{call}"
    folder.mkdir()
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    for _ in range(1000):
        try:
            for name in os.listdir(folder):
                os.unlink(folder / name)
            folder.rmdir()
        except OSError:  # descriptors are short, or a task that nobody waits for writes
            time.sleep(0.01)
        else:
            return
    raise OSError(f"{folder} cannot be removed")
