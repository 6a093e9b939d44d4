"""`map`, `imap` and `as_completed` on the chosen backend, and questions about where code runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, Generic, ParamSpec, TypeVar

from parallel_core.mapping.backends import MappingBackend, MPIBackend
from parallel_core.mapping.chosen import get_parallel_backend
from parallel_core.mapping.parameters import check_if_serial, check_positive
from parallel_core.serialization.pickling import dumps_by_value

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


def imap(
    f: Callable[[_T], _R],
    s: Iterable[_T],
    max_workers: int | None = None,
    use_mpi: bool = False,
    if_serial: str = "raise",
    chunksize: int | None = None,
    **options: Any,
) -> Iterator[_R]:
    """Yield the results of `f` for the items of `s`, in order.

    Items are pulled when results are taken, and only a few batches ahead of them.

    Parameters
    ----------
    f : callable
        Function of one item. It may be a lambda.
    s : iterable
        Items.
    max_workers : int, optional
        Number of workers, at most `get_size`. None stands for as many as there can be. A single
        worker is the calling thread.
    use_mpi : bool, default False
        Whether to use an `MPIBackend` for this call.
    if_serial : {"raise", "warn", "ignore"}, default "raise"
        What to do if there is one core, or one rank of MPI: raise a RuntimeError, or run the tasks
        one after the other, with or without a warning.
    chunksize : int, optional
        Number of items that are sent together. None adapts it to how long tasks take.
    **options
        Any other parameter of `Parallel`, such as `retries` or `progress`. A backend of your own
        gets them, too.

    Yields
    ------
    object
        Results. The call starts when the first one is asked for. It ends when the iterator is
        closed or dropped; tasks that have not begun are not run then.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        For invalid parameters, before anything runs. Exceptions of tasks are raised as themselves.

    Examples
    --------
    >>> from parallel_core.mapping import imap
    >>> list(imap(lambda x: x * x, range(4), max_workers=2))
    [0, 1, 4, 9]
    """
    backend, params = _asked(max_workers, use_mpi, if_serial, chunksize, options)
    return backend.imap(f, s, **params)


def map(
    f: Callable[[_T], _R],
    s: Iterable[_T],
    max_workers: int | None = None,
    use_mpi: bool = False,
    if_serial: str = "raise",
    chunksize: int | None = None,
    **options: Any,
) -> list[_R]:
    """Return the results of `f` for all items of `s`, in order.

    Parameters
    ----------
    f, s, max_workers, use_mpi, if_serial, chunksize, **options
        As for `imap`.

    Returns
    -------
    list
        Results.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for `imap`.

    Examples
    --------
    >>> from parallel_core import mapping
    >>> mapping.map(abs, [-1, 2, -3], max_workers=2)
    [1, 2, 3]
    """
    backend, params = _asked(max_workers, use_mpi, if_serial, chunksize, options)
    return backend.map(f, s, **params)


def as_completed(
    f: Callable[[_T], _R],
    s: Iterable[_T],
    max_workers: int | None = None,
    use_mpi: bool = False,
    if_serial: str = "raise",
    chunksize: int | None = None,
    **options: Any,
) -> Iterator[_R]:
    """Yield the results of `f` for the items of `s`, as they arrive.

    Parameters
    ----------
    f, s, max_workers, use_mpi, if_serial, chunksize, **options
        As for `imap`. A `max_workers` of more than `get_size` is a warning here.

    Yields
    ------
    object
        Results, as for `imap`.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for `imap`.

    Examples
    --------
    >>> from parallel_core.mapping import as_completed
    >>> sorted(as_completed(abs, [-1, 2, -3], max_workers=2))
    [1, 2, 3]
    """
    backend, params = _asked(max_workers, use_mpi, if_serial, chunksize, options)
    return backend.as_completed(f, s, **params)


def _asked(
    max_workers: int | None,
    use_mpi: bool,
    if_serial: str,
    chunksize: int | None,
    options: dict[str, Any],
) -> tuple[MappingBackend, dict[str, Any]]:
    """Return the backend of a call, and the parameters of its method, checked."""
    backend = MPIBackend() if use_mpi else get_parallel_backend()
    params = {
        "max_workers": check_positive(max_workers, "max_workers"),
        "if_serial": check_if_serial(if_serial),
        "chunksize": check_positive(chunksize, "chunksize"),
        **options,
    }
    return backend, params


def get_rank() -> int:
    """Return the number of the worker that this code runs in.

    Returns
    -------
    int
        1 to n in the n workers of a call. Outside of tasks 0, or the rank of this process if the
        program runs in several processes of an MPI job.

    Examples
    --------
    >>> from parallel_core import mapping
    >>> mapping.get_rank()
    0
    >>> set(mapping.imap(lambda _: mapping.get_rank(), range(9), max_workers=2)) <= {1, 2}
    True
    """
    return get_parallel_backend().get_rank()


def get_size() -> int:
    """Return how many workers a call can have.

    Returns
    -------
    int
        Number of cores that this process may use; in an MPI job, number of ranks besides rank 0.

    Examples
    --------
    >>> from parallel_core import cpu_count
    >>> from parallel_core.mapping import get_size
    >>> get_size() == cpu_count()
    True
    """
    return get_parallel_backend().get_size()


def is_master_process() -> bool:
    """Return whether this code runs outside of tasks; in an MPI job, in the process of rank 0.

    Examples
    --------
    >>> from parallel_core import mapping
    >>> mapping.is_master_process()
    True
    >>> mapping.map(lambda _: mapping.is_master_process(), range(2), max_workers=2)
    [False, False]
    """
    return get_parallel_backend().is_master_process()


def get_default_chunksize(s: Sized, max_workers: int) -> int:
    """Return a number of items to send together that gives each worker four batches.

    `imap` does not need it: by default, its batches adapt to how long tasks take.

    Parameters
    ----------
    s : sized
        Items.
    max_workers : int
        Number of workers.

    Returns
    -------
    int
        Number of items, at least 1.

    Examples
    --------
    >>> from parallel_core.mapping import get_default_chunksize
    >>> get_default_chunksize(range(100), 2)
    13
    """
    if not isinstance(s, Sized):
        raise TypeError(f"s must have a length, which {s!r} of type {type(s).__name__!r} has not")
    workers = check_positive(max_workers, "max_workers")
    if workers is None:
        raise TypeError("max_workers must be an integer, not None")
    return max(1, math.ceil(len(s) / (4 * workers)))


class PicklableAndCallable(Generic[_P, _R]):
    """Function that pickles by value if it cannot be imported by its name.

    `imap` does not need it. It is for functions that other libraries pickle.

    Parameters
    ----------
    func : callable
        Function.

    Attributes
    ----------
    func : callable
        Function.

    Examples
    --------
    >>> import pickle
    >>> from parallel_core.mapping import PicklableAndCallable
    >>> double = PicklableAndCallable(lambda x: 2 * x)
    >>> pickle.loads(pickle.dumps(double))(21)
    42
    """

    def __init__(self, func: Callable[_P, _R]) -> None:
        if not callable(func):
            raise TypeError(f"func must be a function, not {func!r}")
        self.func = func

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Call the function."""
        return self.func(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return _unpickled, (dumps_by_value(self.func),)


def _unpickled(data: bytes) -> PicklableAndCallable[..., Any]:
    """Return what was pickled, which needs cloudpickle only if the function has no place."""
    import pickle

    return PicklableAndCallable(pickle.loads(data))
