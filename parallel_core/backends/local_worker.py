"""A worker that is a thread of this process, or the caller's own: its set-up and its end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from parallel_core.backends.options import WorkerSetup
from parallel_core.context.this_worker import ThisWorker, enter_worker
from parallel_core.errors import WorkerExitError
from parallel_core.tasks.description import function_name


class LocalWorker:
    """What a worker here knows of itself, and what was done in it for a session."""

    def __init__(self, slot: int, setup: WorkerSetup | None) -> None:
        self._setup = setup or WorkerSetup()
        self.known = ThisWorker(slot, self._setup.shared_objects)
        self.is_set_up = False
        self.init_began = 0.0  # `time.monotonic`, while the init function runs

    def change_setup(self, setup: WorkerSetup) -> None:
        """Use other functions from now on."""
        self._setup = setup

    def begin(self) -> None:
        """Prepare the worker in this thread, which is the one of its tasks.

        Raises
        ------
        InitializerError
            When the init function raises.
        """
        setup = self._setup
        if self.is_set_up:
            return
        self.is_set_up = True
        if setup.cpu_ids is not None:
            _pin_thread(setup.cpu_ids[self.known.id])
        if setup.init is None:
            return
        self.init_began = time.monotonic()
        try:
            setup.init(*setup.passed.arguments(self.known))
        except BaseException as error:
            from parallel_core.errors import InitializerError

            raise InitializerError(self._words("worker_init", setup.init, error)) from error
        finally:
            self.init_began = 0.0

    def enter(self) -> None:
        """Prepare the worker in the thread of the caller, for tasks one after the other."""
        enter_worker(self.known)
        self.begin()

    def end(self) -> list[Any]:
        """Call the exit function in this thread; return what it returns, if there is one.

        Raises
        ------
        WorkerExitError
            When it raises.
        """
        setup = self._setup
        was_set_up, self.is_set_up = self.is_set_up, False
        if setup.exit is None or not was_set_up:
            return []
        enter_worker(self.known)
        try:
            return [setup.exit(*setup.passed.arguments(self.known))]
        except Exception as error:
            raise WorkerExitError(self._words("worker_exit", setup.exit, error)) from error

    def _words(self, name: str, function: object, error: BaseException) -> str:
        what = f"worker {self.known.id}: {name} {function_name(function)}"
        return f"{what} raised {type(error).__name__}: {error}"

    def is_late(self, now: float) -> bool:
        """Whether its init function takes longer than it may."""
        limit, began = self._setup.init_timeout, self.init_began
        return limit is not None and began > 0 and now - began > limit

    def late(self, name: str, function: object, limit: float | None) -> BaseException:
        """Return the error for a function that takes too long."""
        from parallel_core.errors import TaskTimeoutError

        what = f"worker {self.known.id}: {name} {function_name(function)}"
        return TaskTimeoutError(f"{what} has run for more than {limit:g} s")


def _pin_thread(cpus: tuple[int, ...]) -> None:
    try:
        os.sched_setaffinity(0, cpus)  # of this thread alone
    except OSError as error:
        raise ValueError(f"cpu_ids: no worker can run on {list(cpus)} here: {error}") from error


class SlotThread:
    """A thread that stays for all calls of a session, for what its tasks keep.

    It does one job after the other: the part of a thread in a call, then the exit function.
    """

    def __init__(self, slot: int, setup: WorkerSetup) -> None:
        self.worker = LocalWorker(slot, setup)
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._is_started = False

    def do(self, job: Callable[[], object]) -> None:
        """Have the thread do `job` after the others; raise RuntimeError if it cannot be started."""
        if not self._is_started:
            name = f"parallel-core-{self.worker.known.id}"
            threading.Thread(target=self._run, name=name, daemon=True).start()
            self._is_started = True
        self._jobs.put(job)

    def leave(self) -> None:
        """Have the thread end after its jobs."""
        self._jobs.put(None)

    def finish(self) -> Ending:
        """Have it call the exit function; return what says what came of it."""
        ending = Ending(self.worker)
        self.do(ending.run)
        return ending

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or what it refers to would be there until the next one


class Ending:
    """The exit function of a worker in its thread, and what came of it."""

    def __init__(self, worker: LocalWorker) -> None:
        self._worker = worker
        self._is_done = threading.Event()
        self._values: list[Any] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call it; for the thread."""
        try:
            self._values = self._worker.end()
        except BaseException as error:
            self._error = error
        finally:
            self._is_done.set()

    def results(self, limit: float | None, function: object) -> list[Any]:
        """Wait for it, for `limit` seconds at most; return what it returned, or raise its error."""
        if not self._is_done.wait(limit):
            raise self._worker.late("worker_exit", function, limit)
        if self._error is not None:
            raise self._error
        return self._values
