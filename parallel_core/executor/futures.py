"""`get_executor`, and the executor that it returns."""

from __future__ import annotations

import operator
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from parallel_core.backends.registry import takes_params
from parallel_core.calls.checks import LOW_MEMORY_TIMEOUT, RETRY_BACKOFF
from parallel_core.calls.parameters import defaults_of, unexpected
from parallel_core.calls.spec import spec_of
from parallel_core.config import UNSET, Unset
from parallel_core.errors import without_our_frames
from parallel_core.executor.chunks import run_chunk
from parallel_core.executor.manager import LiveCalls, Manager, Work
from parallel_core.parallel.runner import Runner

if TYPE_CHECKING:
    from typing import Literal

_T = TypeVar("_T")

#: Parameters of `Parallel` about a call as a whole, of which an executor knows nothing.
_OF_A_CALL = {
    "call_timeout": "give futures a time: future.result(timeout=...)",
    "journal": "its results are those of one call",
    "on_error": "each future has its own result or exception",
    "pre_dispatch": "submit() takes what it is given; see buffersize of map()",
    "pre_dispatch_nbytes": "submit() takes what it is given; see buffersize of map()",
    "reduce": "each future has its own result",
    "reduce_initial": "each future has its own result",
    "return_as": "it returns futures",
    "seed": "tasks have no position here; pass each a seed of numpy's SeedSequence.spawn()",
    "stop_when": "look at the futures, and cancel() them",
    "verbose": "look at the futures",
}


_ALWAYS: Any = Unset("always")


#: What calls of an executor are asked for, beyond what its user has said.
_OF_EXECUTORS = {"verbose": 0, "return_as": "generator_unordered", "pre_dispatch": "all"}


def get_executor(
    n_jobs: float | None = None,
    *,
    backend: Any = None,
    prefer: Literal["processes", "threads"] | None = UNSET["prefer"],
    require: Literal["sharedmem"] | None = UNSET["require"],
    timeout: float | None = None,
    retries: int = 0,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
    retry_backoff: float = RETRY_BACKOFF,
    batch_size: int | Literal["auto"] | None = None,
    output: Literal["pass", "capture", "discard"] = UNSET["output"],
    temp_folder: str | os.PathLike[str] | None = UNSET["temp_folder"],
    max_nbytes: float | str | None = UNSET["max_nbytes"],
    mmap_mode: Literal["r", "r+", "w+", "c"] | None = UNSET["mmap_mode"],
    check_arrays: Literal["auto", "always", "never"] = _ALWAYS,
    initializer: Callable[..., object] | None = UNSET["initializer"],
    initargs: tuple[Any, ...] = UNSET["initargs"],
    idle_worker_timeout: float | None = UNSET["idle_worker_timeout"],
    inner_max_num_threads: int | None = UNSET["inner_max_num_threads"],
    max_worker_memory: int | str | None = UNSET["max_worker_memory"],
    min_free_memory: int | str | None = None,
    low_memory_timeout: float | None = LOW_MEMORY_TIMEOUT,
    preload: str | list[str] | tuple[str, ...] | None = UNSET["preload"],
    worker_lifespan: int | None = UNSET["worker_lifespan"],
    **backend_params: Any,
) -> ParallelExecutor:
    """Return a `concurrent.futures.Executor` over the workers of `Parallel`.

    Parameters
    ----------
    n_jobs : int, optional
        Number of workers, as for `Parallel`. None means the value of the surrounding
        `parallel_config`, else all cores.
    backend, prefer, require
        As for `Parallel`.
    timeout : float, optional
        Seconds that each task may run.
    retries, retry_on, retry_backoff
        As for `Parallel`.
    batch_size : int or "auto", optional
        Number of tasks that are handed over together. A future gets its outcome when its task is
        done, whatever the batch size. On engines that answer whole batches (loky, other executors),
        the default is therefore 1.
    output : {"pass", "capture", "discard"}, default "pass"
        As for `Parallel`.
    temp_folder, max_nbytes, mmap_mode
        As for `Parallel`.
    check_arrays : {"always", "auto", "never"}, default "always"
        How to notice that a large array has changed, as for `Parallel`. Each task may get another
        state of an array, so it is compared in full. ``"auto"`` is for programs that do not change
        arrays while their tasks are pending.
    initializer, initargs, idle_worker_timeout, inner_max_num_threads, preload
        As for `Parallel`.
    max_worker_memory, worker_lifespan, min_free_memory, low_memory_timeout
        As for `Parallel`.
    **backend_params
        Further parameters of a backend that is given by its name.

    Returns
    -------
    ParallelExecutor
        Executor with ``submit``, ``map`` and ``shutdown`` as in the standard library.

    Raises
    ------
    ValueError, TypeError
        For invalid parameters.

    Notes
    -----
    A future whose worker dies fails with a `WorkerDiedError`, which is also a `BrokenExecutor`. The
    executor continues with a new worker. Functions may be lambdas or come from ``__main__``, and
    large arrays are in shared memory. As in the standard library, arguments are pickled some time
    after ``submit``: a change before that may reach the task.

    An idle executor has no workers; other calls can use them.

    Examples
    --------
    >>> from parallel_core import get_executor
    >>> with get_executor(2) as executor:
    ...     future = executor.submit(pow, 2, 5)
    ...     print(future.result(), list(executor.map(abs, [-1, -2])))
    32 [1, 2]
    """
    given = locals()
    del given["backend_params"]
    for name, why in _OF_A_CALL.items():
        if name in backend_params:
            raise TypeError(f"get_executor has no parameter {name!r}, which is about a call: {why}")
    if backend_params and not takes_params(backend):
        raise unexpected("get_executor", backend_params, given)
    params = {**defaults_of(Runner.__init__), **given, **_OF_EXECUTORS}
    if batch_size is None:
        params["batch_size"] = "auto"
    spec = spec_of("get_executor", params, backend_params, default_n_jobs=-1)
    label = f"get_executor({spec.n_jobs})"
    return ParallelExecutor(LiveCalls(spec, batch_size is not None, label))


class ParallelExecutor(Executor):
    """Executor over the workers of `Parallel`; see `get_executor`."""

    def __init__(self, calls: LiveCalls) -> None:
        self._max_workers = calls.n_workers
        self._captures = calls.captures
        self._pid = os.getpid()
        self._manager = Manager(calls, "executor")
        # When nobody has it any more, nothing can come, and the thread need not wait for it.
        weakref.finalize(self, self._manager.tasks.close).atexit = False

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Return the future of ``fn(*args, **kwargs)``, which a worker will call.

        Raises
        ------
        RuntimeError
            After `shutdown`, at the end of the program, and in a forked process.
        """
        if not callable(fn):
            raise TypeError(f"submit() takes a function and its arguments, not {fn!r}")
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this executor belongs to process {self._pid}, of which this one is a fork: "
                "make another one here"
            )
        future: Future[_T] = Future()
        self._manager.submit(Work(future, (fn, args, kwargs)))
        return future

    def map(
        self,
        fn: Callable[..., _T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[_T]:
        """Return an iterator over ``fn(*items)`` for the items of `iterables`, in order.

        Parameters
        ----------
        fn : callable
            Function that workers call.
        *iterables : iterable
            Arguments of `fn`, as for the built-in `map`.
        timeout : float, optional
            Seconds from now after which a missing result raises a `TimeoutError`.
        chunksize : int, default 1
            Number of calls in a task.
        buffersize : int, optional
            Number of tasks that may be ahead of the consumer. By default, all are submitted now.
        """
        size = _check_positive("chunksize", chunksize)
        if self._captures:
            size = 1  # each call has an output of its own
        most = None if buffersize is None else _check_positive("buffersize", buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables)  # noqa: B905 - as long as the shortest, like the builtin
        futures: Iterator[Future[Any]]
        if size == 1:
            futures = (self.submit(fn, *args) for args in calls)
        else:
            chunks = iter(lambda: list(islice(calls, size)), [])
            futures = (self.submit(run_chunk, fn, chunk) for chunk in chunks)
        first = deque(islice(futures, most))
        return _results(first, None if most is None else futures, deadline, size > 1)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further tasks.

        Parameters
        ----------
        wait : bool, default True
            Whether to wait until all submitted tasks are done.
        cancel_futures : bool, default False
            Whether to cancel futures whose tasks were not handed to a worker yet.
        """
        if os.getpid() != self._pid:
            self._manager.disown()
        else:
            self._manager.shutdown(wait, cancel_futures)

    def abort(self) -> None:
        """Stop running tasks and refuse further ones; return when that is done.

        Futures in the queue are cancelled. Futures of running tasks get an exception.
        """
        if os.getpid() != self._pid:
            self._manager.disown()
        else:
            self._manager.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._max_workers} workers>"


def _check_positive(name: str, given: Any) -> int:
    try:
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {given!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {given!r}")
    return number


def _results(
    waiting: deque[Future[Any]],
    more: Iterator[Future[Any]] | None,
    deadline: float | None,
    are_chunks: bool,
) -> Iterator[Any]:
    """Yield the results of `waiting`, and of `more`; nothing here keeps what was yielded."""
    try:
        while waiting:
            result = _result_of(waiting, deadline)
            if more is not None:
                waiting.extend(islice(more, 1))
            if not are_chunks:
                yield result.pop()
                continue
            chunk = result.pop()
            while chunk:
                yield chunk.pop()
    except Exception as error:
        raise without_our_frames(error)  # noqa: B904 - it is the same
    finally:
        for future in waiting:
            future.cancel()


def _result_of(waiting: deque[Future[Any]], deadline: float | None) -> list[Any]:
    """Return the result of the first future, alone in a list, and forget the future."""
    future = waiting.popleft()
    try:
        left = None if deadline is None else deadline - time.monotonic()
        return [future.result(left)]
    except BaseException:
        future.cancel()
        raise
    finally:
        del future  # an exception that it holds refers to this frame
