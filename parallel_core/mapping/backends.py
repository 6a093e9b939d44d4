"""Backends of `map`, `imap` and `as_completed`: their base class, and those on `Parallel`."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from parallel_core.backends.registry import find_backend
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import cut_traceback, warn_caller, without_our_frames
from parallel_core.mapping.parameters import (
    check_function,
    check_if_serial,
    check_items,
    check_options,
    check_positive,
    meet_serial,
)
from parallel_core.mapping.ranks import mpi_size, rank_here, workers_here
from parallel_core.parallel.call import Parallel

_T = TypeVar("_T")
_R = TypeVar("_R")
_NO_KEYWORDS: dict[str, Any] = {}


class MappingBackend(ABC):
    """Base class of the backends for `map`, `imap` and `as_completed`.

    Subclass it for an engine of your own, and give an instance to `set_parallel_backend`.

    Examples
    --------
    >>> from parallel_core import mapping
    >>> class Loop(mapping.MappingBackend):
    ...     def imap(self, f, s, max_workers=None, **kwargs):
    ...         return (f(item) for item in s)
    ...
    ...     def as_completed(self, f, s, max_workers=None, **kwargs):
    ...         return self.imap(f, s)
    ...
    ...     def is_master_process(self):
    ...         return True
    ...
    ...     def get_rank(self):
    ...         return 0
    ...
    ...     def get_size(self):
    ...         return 1
    >>> mapping.set_parallel_backend(Loop())
    >>> mapping.map(abs, [-1, -2])
    [1, 2]
    >>> mapping.set_parallel_backend(None)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> MappingBackend:
        """Raise TypeError for a class that lacks methods; the message names them."""
        if cls.__abstractmethods__:
            lacking = ", ".join(f"{name}()" for name in sorted(cls.__abstractmethods__))
            raise TypeError(
                f"the backend {cls.__name__!r} lacks {lacking}: a backend defines imap, "
                "as_completed, is_master_process, get_rank and get_size"
            )
        return super().__new__(cls)

    def map(
        self, f: Callable[[_T], _R], s: Iterable[_T], max_workers: int | None = None, **kwargs: Any
    ) -> list[_R]:
        """Return the results of `f` for all items of `s`, in order."""
        return list(self.imap(f, s, max_workers=max_workers, **kwargs))

    @abstractmethod
    def imap(
        self, f: Callable[[_T], _R], s: Iterable[_T], max_workers: int | None = None, **kwargs: Any
    ) -> Iterator[_R]:
        """Yield the results of `f` for the items of `s`, in order."""

    @abstractmethod
    def as_completed(
        self, f: Callable[[_T], _R], s: Iterable[_T], max_workers: int | None = None, **kwargs: Any
    ) -> Iterator[_R]:
        """Yield the results of `f` for the items of `s`, as they arrive."""

    @abstractmethod
    def is_master_process(self) -> bool:
        """Return whether this code runs outside of tasks."""

    @abstractmethod
    def get_rank(self) -> int:
        """Return the number of this worker, from 1; 0 outside of tasks."""

    @abstractmethod
    def get_size(self) -> int:
        """Return how many workers there can be."""


class _Wanted(NamedTuple):
    """What a call of `map`, `imap` or `as_completed` was asked for."""

    f: Callable[[Any], Any]
    s: Iterable[Any]
    max_workers: int | None
    use_mpi: bool
    if_serial: str
    chunksize: int | None
    options: dict[str, Any]


class EngineBackend(MappingBackend):
    """Backend on `parallel_core.Parallel`.

    Its methods have the parameters of the functions `map`, `imap` and `as_completed`.

    Parameters
    ----------
    engine : str, Backend, Executor or multiprocessing context
        Backend of `Parallel`.

    Examples
    --------
    >>> from parallel_core.mapping import EngineBackend
    >>> EngineBackend("sequential").map(abs, [-1, -2])
    [1, 2]
    """

    def __init__(self, engine: Any) -> None:
        self._engine: Any = find_backend(engine)

    def map(
        self,
        f: Callable[[_T], _R],
        s: Iterable[_T],
        max_workers: int | None = None,
        use_mpi: bool = False,
        if_serial: str = "raise",
        chunksize: int | None = None,
        **options: Any,
    ) -> list[_R]:
        """Return the results of `f` for all items of `s`, in order."""
        wanted = _Wanted(f, s, max_workers, use_mpi, if_serial, chunksize, options)
        parallel = self._parallel(ReturnAs.LIST, wanted)
        try:
            results: list[_R] = parallel(_tasks(wanted))
        except KeyboardInterrupt as error:
            raise cut_traceback(error) from error.__cause__
        except Exception as error:
            raise without_our_frames(error)  # noqa: B904 - it is the same
        return results

    def imap(
        self,
        f: Callable[[_T], _R],
        s: Iterable[_T],
        max_workers: int | None = None,
        use_mpi: bool = False,
        if_serial: str = "raise",
        chunksize: int | None = None,
        **options: Any,
    ) -> Generator[_R, None, None]:
        """Yield the results of `f` for the items of `s`, in order."""
        wanted = _Wanted(f, s, max_workers, use_mpi, if_serial, chunksize, options)
        return _stream(self._parallel(ReturnAs.GENERATOR, wanted), wanted)

    def as_completed(
        self,
        f: Callable[[_T], _R],
        s: Iterable[_T],
        max_workers: int | None = None,
        use_mpi: bool = False,
        if_serial: str = "raise",
        chunksize: int | None = None,
        **options: Any,
    ) -> Generator[_R, None, None]:
        """Yield the results of `f` for the items of `s`, as they arrive."""
        wanted = _Wanted(f, s, max_workers, use_mpi, if_serial, chunksize, options)
        return _stream(self._parallel(ReturnAs.UNORDERED, wanted), wanted)

    def is_master_process(self) -> bool:
        """Return whether this code runs outside of tasks; with MPI, in the process of rank 0."""
        return self.get_rank() == 0

    def get_rank(self) -> int:
        """Return the number of this worker, from 1; 0 outside of tasks."""
        return rank_here()

    def get_size(self) -> int:
        """Return how many workers there can be: one for each core, or each other rank of MPI."""
        return workers_here()

    def _parallel(self, return_as: ReturnAs, wanted: _Wanted) -> Parallel[Any, Any]:
        """Return what runs a call; raise ValueError or TypeError for invalid parameters."""
        if wanted.use_mpi and not isinstance(self, MPIBackend):
            return MPIBackend()._parallel(return_as, wanted)
        check_function(wanted.f)
        check_items(wanted.s)
        check_options(wanted.options)
        if_serial = check_if_serial(wanted.if_serial)
        size = check_positive(wanted.chunksize, "chunksize")
        max_workers = check_positive(wanted.max_workers, "max_workers")
        if reason := self._why_serial():
            meet_serial(if_serial, reason)
        n_jobs = self._n_jobs(max_workers, return_as)
        return Parallel(
            n_jobs, self._where(), return_as.value, batch_size=size or "auto", **wanted.options
        )

    def _n_jobs(self, max_workers: int | None, return_as: ReturnAs) -> int:
        """Return the number of jobs, which is no more than there can be workers."""
        if max_workers is None:
            return -1
        if max_workers <= (most := self.get_size()):
            return max_workers
        words = f"max_workers={max_workers} is too many, since there can be {most} here"
        if return_as is not ReturnAs.UNORDERED:
            raise ValueError(f"{words}: pass fewer, or None for all")
        warn_caller(f"{words}; {most} are used", UserWarning)
        return most

    def _why_serial(self) -> str | None:
        """Return why tasks cannot run at the same time, if so."""
        return "there is one core" if self.get_size() == 1 else None

    def _where(self) -> Any:
        """Return the backend of `Parallel`."""
        return self._engine


class MultiprocessBackend(EngineBackend):
    """Backend with worker processes, which stay warm between calls.

    Examples
    --------
    >>> from parallel_core.mapping import MultiprocessBackend
    >>> MultiprocessBackend().map(lambda x: x + 1, range(3), max_workers=2)
    [1, 2, 3]
    """

    def __init__(self) -> None:
        super().__init__("processes")


class DefaultBackend(MultiprocessBackend):
    """The backend if none was set: processes, unless a `parallel_config` names another one."""

    def _where(self) -> Any:
        """Return None, or threads on a Python without a global lock, which may come and go."""
        has_lock = getattr(sys, "_is_gil_enabled", None)
        return None if has_lock is None or has_lock() else "threading"


class LokyBackend(EngineBackend):
    """Backend with the reusable executor of loky.

    Examples
    --------
    >>> from parallel_core.mapping import LokyBackend
    >>> LokyBackend().map(abs, [-1, -2], max_workers=2)
    [1, 2]
    """

    def __init__(self) -> None:
        super().__init__("loky")


class ThreadBackend(EngineBackend):
    """Backend with threads of this process.

    Examples
    --------
    >>> from parallel_core.mapping import ThreadBackend
    >>> ThreadBackend().map(abs, [-1, -2], max_workers=2)
    [1, 2]
    """

    def __init__(self) -> None:
        super().__init__("threading")


class MPIBackend(EngineBackend):
    """Backend with the ranks of an MPI job; the process of rank 0 runs the program.

    Raises
    ------
    RuntimeError
        If MPI cannot be used here; the message says why.
    """

    def __init__(self) -> None:
        self._size = mpi_size()
        super().__init__("mpi")

    def get_size(self) -> int:
        """Return how many workers there are: the ranks of the job, without rank 0."""
        return max(1, self._size - 1)

    def _n_jobs(self, max_workers: int | None, return_as: ReturnAs) -> int:
        """Return the number of jobs; how many ranks there are is the launcher's choice."""
        if self._size == 1:
            return 1
        return super()._n_jobs(max_workers, ReturnAs.UNORDERED)

    def _why_serial(self) -> str | None:
        """Return why tasks cannot run at the same time, if so."""
        if self._size > 1:
            return None
        return (
            "this MPI job has one rank; start the program by "
            "'mpiexec -n <number of ranks> python -m parallel_core.mpi <script>'"
        )

    def _where(self) -> Any:
        """Return the backend of `Parallel`; without further ranks, the calling thread."""
        if self._size == 1:
            return "sequential"
        self._engine.effective_n_jobs(-1)  # it says so if no other rank works for this one
        return self._engine


def _tasks(wanted: _Wanted) -> Iterator[tuple[Callable[[Any], Any], tuple[Any], dict[str, Any]]]:
    """Return the tasks of a call."""
    f = wanted.f
    return ((f, (item,), _NO_KEYWORDS) for item in wanted.s)


def _stream(parallel: Parallel[Any, Any], wanted: _Wanted) -> Generator[Any, None, None]:
    """Start a call when its first result is asked for, and yield its results."""
    try:
        yield from parallel(_tasks(wanted))
    except KeyboardInterrupt as error:
        raise cut_traceback(error) from error.__cause__
    except Exception as error:
        raise without_our_frames(error)  # noqa: B904 - it is the same
