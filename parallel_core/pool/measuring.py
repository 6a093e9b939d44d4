"""What workers measure for insights; so nothing is imported here that they do not have anyway."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from heapq import heappush, heappushpop
from time import monotonic
from typing import Any, NamedTuple

from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.context.this_worker import this_worker
from parallel_core.tasks.description import short_repr

#: How many of the slowest tasks are kept.
SLOWEST = 5
_LONGEST_ARGUMENT = 500  # characters


class BatchTimes(NamedTuple):
    """What a worker tells of a batch, as the note of a plain tuple."""

    pid: int
    #: Number of the worker; -1 where the engine has none.
    worker: int
    tasks: int
    #: Seconds within the function.
    working: float
    #: Seconds since the batch before.
    waiting: float
    #: `time.monotonic` of its beginning, where it is the worker's first one for its pool; else 0.
    first_began: float
    #: Seconds that the init function took, with the first batch.
    init: float
    #: Duration and arguments of tasks that are among the slowest so far.
    slowest: tuple[tuple[float, str], ...]


class TimedExit(NamedTuple):
    """What a measured exit function returns."""

    worker: int
    seconds: float
    result: Any


class _Measured:
    """What this worker, a thread or a process, has measured for one pool."""

    def __init__(self, session: str, init: float) -> None:
        self.session = session
        self.init = init
        self.ended = 0.0  # when its last batch did
        self.slowest: list[tuple[float, int, Any, Any]] = []  # a heap
        self.number = 0


#: By process and thread, since a fork has what its parent had.
_of_worker: dict[tuple[int, int], _Measured] = {}
_init_seconds: dict[tuple[int, int], float] = {}


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


class TaskTimes(ContextItem):
    """Measures the tasks of all calls of one `session` of a pool."""

    name = "insights"
    places = (Place.THREAD, Place.WORKER, Place.FOREIGN_PROCESS)
    is_kept = True

    def __init__(self, session: str) -> None:
        self._session = session

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Begin to measure a batch."""
        del position, place
        here = _here()
        measured = _of_worker.get(here)
        is_first = measured is None or measured.session != self._session
        if measured is None or is_first:
            measured = _of_worker[here] = _Measured(self._session, _init_seconds.pop(here, 0.0))
        return _Timed(measured, is_first)


class _Timed(Part):
    """Measures the tasks of one batch."""

    def __init__(self, measured: _Measured, is_first: bool) -> None:
        self._measured = measured
        self._began = monotonic()
        self._is_first = is_first
        self._seconds: list[float] = []
        self._new: list[tuple[float, int, Any, Any]] = []

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return what calls `function` and notes how long it took."""
        del position
        note, slowest, clock = self._seconds.append, self._measured.slowest, monotonic
        keep = self._keep

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            result = function(*args, **kwargs)
            seconds = clock() - began
            note(seconds)
            if len(slowest) < SLOWEST or seconds > slowest[0][0]:
                keep(seconds, args, kwargs)
            return result

        return timed

    def _keep(self, seconds: float, args: Any, kwargs: Any) -> None:
        measured = self._measured
        measured.number += 1  # so that arguments are never compared
        entry = seconds, measured.number, args, kwargs
        if len(measured.slowest) < SLOWEST:
            heappush(measured.slowest, entry)
        else:
            heappushpop(measured.slowest, entry)
        self._new.append(entry)

    def end(self) -> object:
        """Return the times of the batch, as a plain tuple."""
        measured, is_first = self._measured, self._is_first
        kept = sorted(self._new, key=lambda entry: entry[0])[-SLOWEST:]
        times = BatchTimes(
            os.getpid(),
            _number(),
            len(self._seconds),
            sum(self._seconds),
            0.0 if is_first else self._began - measured.ended,
            self._began if is_first else 0.0,
            measured.init if is_first else 0.0,
            tuple((seconds, _shown(args, kwargs)) for seconds, _, args, kwargs in kept),
        )
        measured.slowest[:] = [(*entry[:2], (), {}) for entry in measured.slowest]
        measured.ended = monotonic()
        return tuple(times)


def _number() -> int:
    try:
        return this_worker().id
    except RuntimeError:
        return -1


def _shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the arguments of a task in words."""
    named = [*enumerate(args), *kwargs.items()]
    shown = (f"Arg {name}: {short_repr(value, _LONGEST_ARGUMENT)}" for name, value in named)
    return " | ".join(shown)


class TimedInit:
    """An init function that is measured; equal to another one of the same function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = self.__qualname__ = getattr(function, "__qualname__", repr(function))

    def __call__(self, *args: Any) -> None:
        """Call it, and note how long that took."""
        began = monotonic()
        try:
            self._function(*args)
        finally:
            _of_worker.pop(_here(), None)
            _init_seconds[_here()] = monotonic() - began

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._function == vars(other)["_function"]

    def __hash__(self) -> int:
        return hash(self._function)


class TimedEnd(TimedInit):
    """An exit function that is measured likewise."""

    def __call__(self, *args: Any) -> Any:
        """Call it; return what it returns with how long that took."""
        began = monotonic()
        result = self._function(*args)
        return TimedExit(this_worker().id, monotonic() - began, result)
