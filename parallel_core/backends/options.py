"""What the workers of a call are to be like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.context.this_worker import Passed
from parallel_core.errors import SerializationError
from parallel_core.serialization.pickling import dumps, explain, why_not_picklable
from parallel_core.tasks.description import function_name


class WorkerSetup(NamedTuple):
    """Steps for each worker, before its first task and after its last one.

    Workers are numbered by slots from 0. A worker that replaces another takes its slot.

    Attributes
    ----------
    init : callable or None
        Function to call in each worker before its first task; see `worker_init` of `Parallel`.
    exit : callable or None
        Function to call in each worker after its last task.
    passed : Passed
        Arguments that are put in front of those of both functions, and of each task.
    shared_objects : object
        Object for all workers.
    cpu_ids : tuple of tuple of int, or None
        CPUs for each slot.
    env : tuple of tuple of (str, str), or None
        Environment variables for each slot, set when its worker starts.
    init_timeout, exit_timeout : float or None
        Seconds that the functions may take.
    is_exclusive : bool
        Whether the workers are started for this session and end with it.
    """

    init: Callable[..., object] | None = None
    exit: Callable[..., object] | None = None
    passed: Passed = Passed()
    shared_objects: Any = None
    cpu_ids: tuple[tuple[int, ...], ...] | None = None
    env: tuple[tuple[tuple[str, str], ...], ...] | None = None
    init_timeout: float | None = None
    exit_timeout: float | None = None
    is_exclusive: bool = False

    @property
    def needs_request(self) -> bool:
        """Whether a worker needs a request before its first task."""
        return self.init is not None or self.shared_objects is not None

    @property
    def needs_worker(self) -> bool:
        """Whether the caller's thread cannot be the worker."""
        return self.cpu_ids is not None or self.env is not None

    def asked_for(self) -> list[str]:
        """Return the names of the parameters that were given."""
        given = {
            "worker_init": self.init is not None,
            "worker_exit": self.exit is not None,
            "use_worker_state": self.passed.state,
            "cpu_ids": self.cpu_ids is not None,
            "worker_env": self.env is not None,
            "pass_worker_id": self.passed.id,
            "shared_objects": self.passed.shared or self.shared_objects is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def check_n_jobs(self, n_jobs: int) -> None:
        """Raise ValueError unless lists for each worker have `n_jobs` entries."""
        for name, each in (("cpu_ids", self.cpu_ids), ("worker_env", self.env)):
            if each is not None and len(each) != n_jobs:
                raise ValueError(
                    f"{name} must have one entry for each worker: it has {len(each)}, and "
                    f"n_jobs={n_jobs}"
                )


class WorkerOptions(NamedTuple):
    """Requested properties of workers.

    Attributes
    ----------
    initializer : callable or None
        Function to call once in each worker, before its first task.
    initargs : tuple
        Arguments of `initializer`.
    idle_seconds : float or None
        Seconds after which an idle worker may end; None: never.
    thread_limit : int or None
        Threads that numeric libraries may use in each worker; None: its share of the cores.
    lifespan : int or None
        Number of tasks after which a worker is replaced.
    max_memory : int or None
        Bytes over which a worker is replaced, looked at between two tasks.
    preload : tuple of str
        Modules to import in each worker before its first task.
    setup : WorkerSetup or None
        Steps for single workers.
    """

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    idle_seconds: float | None = 300.0
    thread_limit: int | None = None
    lifespan: int | None = None
    max_memory: int | None = None
    preload: tuple[str, ...] = ()
    setup: WorkerSetup | None = None


def pickle_initializer(options: WorkerOptions) -> bytes:
    """Return the pickle of ``(initializer, initargs)``.

    Raises
    ------
    SerializationError
        When it does not pickle; it names the part at fault.
    """
    task = (options.initializer, tuple(options.initargs))
    try:
        return dumps(task)
    except Exception as error:
        what = f"the initializer {function_name(options.initializer)}"
        parts = [(options.initializer, "it"), (task[1], "initargs")]
        at_fault = [part for part in parts if why_not_picklable(*part) is not None]
        explained: SerializationError = explain(what, *(at_fault or parts)[-1], error)
        raise explained from error
