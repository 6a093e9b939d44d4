"""What a task can learn of the worker that it runs in: number, state, shared objects.

Each worker has a `ThisWorker`. A worker process has one for life, whose state is emptied when the
worker goes back to the pool. A thread has one of its own, kept in a context variable. So has the
caller's thread while tasks run in it one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from parallel_core.context.item import ContextItem, Part, Place


class ThisWorker:
    """Number, state and shared objects of a worker; `this_worker` returns it.

    Attributes
    ----------
    id : int
        Number of the worker in the call, from 0. A worker that replaces another has its number.
    state : dict
        Values that tasks of this worker keep for later tasks of the same call, or ``with`` block.
    shared : object
        Objects that a pool gives to all of its workers; otherwise None.
    """

    __slots__ = ("_globals", "id", "shared", "state")

    def __init__(self, id: int, shared: Any = None) -> None:
        self.id = id
        self.state: dict[Any, Any] = {}
        self.shared = shared
        self._globals: dict[str, Any] = {}  # what functions that prepare this worker have set

    def __repr__(self) -> str:
        return f"<worker {self.id} with state {sorted(map(str, self.state))}>"


class Passed(NamedTuple):
    """Which arguments are put in front of those of a function, in this order."""

    id: bool = False
    shared: bool = False
    state: bool = False

    def arguments(self, worker: ThisWorker) -> tuple[Any, ...]:
        """Return what to put in front in `worker`."""
        values = (worker.id, worker.shared, worker.state)
        return tuple(value for value, is_passed in zip(values, self, strict=True) if is_passed)


NOTHING_PASSED = Passed()

_of_thread: ContextVar[ThisWorker | None] = ContextVar("parallel_core_worker", default=None)
_of_process: ThisWorker | None = None
_note_use: Callable[[], None] | None = None


def this_worker() -> ThisWorker:
    """Return the number, state and shared objects of the worker that runs this task.

    Call it in tasks of the backends ``"processes"``, ``"multiprocessing"``, ``"mpi"``,
    ``"threading"`` and ``"sequential"``, and in functions given as `worker_init` or `worker_exit`.

    Returns
    -------
    ThisWorker
        Object of this worker.

    Raises
    ------
    RuntimeError
        If it is called elsewhere.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed, this_worker
    >>> def count(x):
    ...     state = this_worker().state
    ...     state["seen"] = state.get("seen", 0) + 1
    ...     return state["seen"]
    >>> Parallel(n_jobs=1)(delayed(count)(x) for x in range(3))
    [1, 2, 3]
    """
    worker = _of_thread.get()
    if worker is not None:
        return worker
    if _of_process is None:
        raise RuntimeError(
            "this_worker() is for tasks, and no task of a backend whose workers have numbers runs "
            "here: those are 'processes', 'multiprocessing', 'mpi', 'threading' and 'sequential'"
        )
    if _note_use is not None:
        _note_use()
    return _of_process


def enter_worker(worker: ThisWorker) -> None:
    """Run what follows in this context in `worker`."""
    _of_thread.set(worker)


def become_worker(worker: ThisWorker, note_use: Callable[[], None]) -> None:
    """Make `worker` that of this whole process; `note_use` is called whenever it is asked for."""
    global _of_process, _note_use
    _of_process, _note_use = worker, note_use


def globals_of(worker: ThisWorker) -> dict[str, Any]:
    """Return the globals that functions which prepare `worker` have set; tasks see them."""
    return worker._globals


class LeadingArguments(ContextItem):
    """Puts what a worker knows of itself in front of the arguments of each task."""

    name = "worker arguments"
    places = (Place.CALLER, Place.THREAD, Place.WORKER)
    is_kept = True

    def __init__(self, passed: Passed) -> None:
        self._passed = passed

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Find the arguments; a task that is replayed in the caller gets those of a new worker."""
        del position
        is_outside = place is Place.CALLER and _of_thread.get() is None
        worker = ThisWorker(0) if is_outside else this_worker()
        return _Leading(self._passed.arguments(worker))


class _Leading(Part):
    """The arguments that lead those of each task of a batch."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._arguments = arguments

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return `function` with its leading arguments."""
        del position
        return functools.partial(function, *self._arguments)


@functools.cache
def leading_arguments(passed: Passed) -> LeadingArguments:
    """Return the item for `passed`, the same one for all calls, so that it is pickled once."""
    return LeadingArguments(passed)
