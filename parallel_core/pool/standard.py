"""`Pool` and `ThreadPool` with the methods of the standard library's, on the workers of a pool.

::

    apply_async ──▶ PoolResult ──────────────┐
    map_async ────▶ MapResult ◀─ its _Chunks ┼─▶ Applies ──▶ workers
    imap ─────────▶ an iterator over _Chunks ┘
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parallel_core.backends.processes import start_method_of
from parallel_core.backends.registry import find_backend
from parallel_core.errors import RemoteTraceback, SerializationError
from parallel_core.executor.chunks import run_calls
from parallel_core.pool.applying import Applies
from parallel_core.pool.async_result import AsyncResult
from parallel_core.pool.lease import PoolWorkers
from parallel_core.pool.parameters import MapParams, PoolParams, wanted_of

if TYPE_CHECKING:
    from typing import Self

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"
_CHUNKS = 4  # for each worker, of a map whose chunk size is not given
_AHEAD = 4  # chunks for each worker that an iterator runs ahead of whoever takes its results


class PoolResult(AsyncResult):
    """What `Pool.apply_async` returns."""

    __slots__ = ()

    def get(self, timeout: float | None = None) -> Any:
        """Return the result; raise `multiprocessing.TimeoutError` when it has not come in time."""
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError(f"the result has not come after {timeout:g} s")
        return super().get()

    def set_exception(self, error: BaseException) -> None:
        """Take in an error; one of pickling is raised as pickling raised it."""
        super().set_exception(_as_theirs(error))


class MapResult(PoolResult):
    """What `Pool.map_async` returns: done when all of its chunks are."""

    __slots__ = ("_chunks", "_first_error", "_left", "_lock")

    def __init__(
        self,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        super().__init__(callback, error_callback)
        self._lock = threading.Lock()
        self._chunks: list[list[Any]] = []
        self._left = 1  # until all chunks are there
        self._first_error: BaseException | None = None

    def new_chunk(self) -> _Chunk:
        """Return what takes in the outcome of the next chunk."""
        with self._lock:
            self._left += 1
            number = len(self._chunks)
            self._chunks.append([])

        def take_in(chunk: _Chunk) -> None:
            with self._lock:
                if chunk.error is None:
                    self._chunks[number] = chunk.values
                else:
                    self._first_error = self._first_error or chunk.error
            self.settle_one()

        return _Chunk(take_in)

    def settle_one(self) -> None:
        """Note that a chunk is done, or that there are no more; with the last one, so is this."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
            chunks, self._chunks = self._chunks, []
        if self._first_error is not None:
            self.set_exception(self._first_error)
        else:
            self.set_result(list(itertools.chain.from_iterable(chunks)))


class _Chunk:
    """The outcome of a chunk; settled like a future, and then handed to `then`."""

    __slots__ = ("error", "then", "values")

    def __init__(self, then: Callable[[_Chunk], object]) -> None:
        self.values: list[Any] = []
        self.error: BaseException | None = None
        self.then = then

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def cancel(self) -> bool:
        self.set_exception(RuntimeError("the pool was terminated"))
        return True

    def set_result(self, result: list[Any], /) -> None:
        self.values = result
        self.then(self)

    def set_exception(self, exception: BaseException, /) -> None:
        self.error = exception
        self.then(self)


class Pool:
    """Pool of workers with the methods of `multiprocessing.pool.Pool`.

    Parameters
    ----------
    processes : int, optional
        Number of workers. By default one for each CPU.
    initializer : callable, optional
        Function to call in each worker before its first task.
    initargs : iterable, default ()
        Arguments of `initializer`.
    maxtasksperchild : int, optional
        Number of tasks after which a worker is replaced.
    context : multiprocessing context, optional
        Context that starts the workers. By default the one that `multiprocessing` would use.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._state = TERMINATE  # where the next lines raise, there is nothing to warn of
        n_jobs = _check_processes(processes)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._of_calls = MapParams(worker_lifespan=_check_tasks(maxtasksperchild))
        method, backend = self._find_backend(context)
        options = {"initializer": initializer, "initargs": tuple(initargs)}
        self._params = PoolParams(n_jobs=n_jobs, start_method=method, options=options)
        self._backend = find_backend(backend)
        self._workers = PoolWorkers()
        self._applies = Applies(self._workers)
        self._state = RUN

    def _find_backend(self, context: Any) -> tuple[str, Any]:
        """Return the start method, and what a backend is found by."""
        found = multiprocessing.get_context() if context is None else context
        return start_method_of(found), found

    @property
    def _pool(self) -> range:
        """The workers, as many as there are; programs ask for their number."""
        return range(self._params.n_jobs)

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """Return ``func(*args, **kwds)``."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> PoolResult:
        """Have a worker call `func`, and return at once."""
        result = PoolResult(callback, error_callback)
        self._submit((func, tuple(args), dict(kwds)), result)
        return result

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Return ``list(map(func, iterable))``."""
        found: list[Any] = self.map_async(func, iterable, chunksize).get()
        return found

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """Return ``list(itertools.starmap(func, iterable))``."""
        found: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return found

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Have workers call `func` for each item, and return at once."""
        result = MapResult(callback, error_callback)
        return self._map(func, zip(_as_list(iterable)), chunksize, result)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Have workers call `func` with the arguments in each item, and return at once."""
        result = MapResult(callback, error_callback)
        return self._map(func, _as_list(iterable), chunksize, result)

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> OrderedResults:
        """Return an iterator over the results of `func` for each item, in order."""
        return OrderedResults(self._submit, func, iterable, _check_size(chunksize), self._ahead)

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> UnorderedResults:
        """Return an iterator over the results of `func` for each item, as they come."""
        return UnorderedResults(self._submit, func, iterable, _check_size(chunksize), self._ahead)

    @property
    def _ahead(self) -> int:
        self._check_running()
        return _AHEAD * self._params.n_jobs

    def close(self) -> None:
        """Refuse further tasks; those that were submitted are finished."""
        if self._state == RUN:
            self._state = CLOSE

    def terminate(self) -> None:
        """Stop the tasks and end the workers."""
        self._state = TERMINATE
        self._applies.abort()
        self._workers.stop(at_once=True)

    def join(self) -> None:
        """Wait until all tasks are done and the workers have ended; call `close` first."""
        if self._state == RUN:
            raise ValueError("Pool is still running: close() or terminate() it first")
        self._applies.drain()
        self._workers.stop()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        kind = type(self)
        size = self._params.n_jobs
        return f"<{kind.__module__}.{kind.__qualname__} state={self._state} pool_size={size}>"

    def __del__(self) -> None:
        if self._state == RUN:
            warnings.warn(
                f"unclosed running multiprocessing pool {self!r}", ResourceWarning, 2, self
            )

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running: it was closed or terminated")

    def _submit(self, task: tuple[Any, Any, Any], result: Any) -> None:
        self._check_running()
        if not callable(task[0]):
            raise TypeError(f"a pool takes a function and its arguments, not {task[0]!r}")
        params, backend, of_calls = self._params, self._backend, self._of_calls
        self._applies.submit(lambda: wanted_of(params, backend, of_calls, {}), task, result)

    def _map(
        self,
        func: Callable[..., Any],
        calls: Iterable[Iterable[Any]],
        chunksize: int | None,
        result: MapResult,
    ) -> MapResult:
        """Submit the `calls`, in chunks; return their `result`."""
        self._check_running()
        arguments = list(map(tuple, calls))
        size = chunksize or -(-len(arguments) // (_CHUNKS * self._params.n_jobs)) or 1
        for first in range(0, len(arguments), size):
            chunk = arguments[first : first + size]
            self._submit((run_calls, (func, chunk), {}), result.new_chunk())
        result.settle_one()
        return result


class ThreadPool(Pool):
    """Pool of threads of this process with the methods of `multiprocessing.pool.ThreadPool`.

    Parameters
    ----------
    processes : int, optional
        Number of threads. By default one for each CPU.
    initializer : callable, optional
        Function to call in each thread before its first task.
    initargs : iterable, default ()
        Arguments of `initializer`.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(processes, initializer, initargs)

    def _find_backend(self, context: Any) -> tuple[str, Any]:
        return "threading", "threading"


Submit = Callable[[tuple[Any, Any, Any], Any], None]


class _Results:
    """Base of the iterators over results: keeps chunks ahead of whoever takes the results."""

    def __init__(
        self,
        submit: Submit,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        size: int,
        ahead: int,
    ) -> None:
        self._submit = submit
        self._func = func
        self._items: Iterator[Any] | None = iter(iterable)
        self._size = size
        self._done: queue.SimpleQueue[_Chunk] = queue.SimpleQueue()
        self._in_flight = 0
        self._values: deque[Any] = deque()
        self._error: BaseException | None = None  # of the iterable, for after its items
        for _ in range(ahead):
            self._submit_next()

    def _submit_next(self) -> None:
        """Submit the next chunk; what the iterable raises is raised in its place."""
        if self._items is None:
            return
        try:
            chunk = [(item,) for item in itertools.islice(self._items, self._size)]
        except Exception as error:
            self._error = error
            chunk = []
        if not chunk:
            self._items = None
            return
        self._in_flight += 1
        self._submit((run_calls, (self._func, chunk), {}), self._expect())

    def _expect(self) -> _Chunk:
        return _Chunk(self._done.put)

    def _next_chunk(self, timeout: float | None) -> _Chunk:
        try:
            return self._done.get(timeout=timeout)
        except queue.Empty:
            raise multiprocessing.TimeoutError(f"no result has come after {timeout:g} s") from None

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result; raise `multiprocessing.TimeoutError` if it is not in time."""
        while not self._values:
            if not self._in_flight:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopIteration
            chunk = self._next_chunk(timeout)
            self._in_flight -= 1
            self._submit_next()
            if chunk.error is not None:
                raise _as_theirs(chunk.error)
            self._values.extend(chunk.values)
        return self._values.popleft()

    __next__ = next

    def __iter__(self) -> Self:
        return self


class UnorderedResults(_Results):
    """What `Pool.imap_unordered` returns."""


class OrderedResults(_Results):
    """What `Pool.imap` returns."""

    def __init__(
        self,
        submit: Submit,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        size: int,
        ahead: int,
    ) -> None:
        self._expected: deque[tuple[_Chunk, threading.Event]] = deque()
        super().__init__(submit, func, iterable, size, ahead)

    def _expect(self) -> _Chunk:
        ready = threading.Event()
        chunk = _Chunk(lambda _: ready.set())
        self._expected.append((chunk, ready))
        return chunk

    def _next_chunk(self, timeout: float | None) -> _Chunk:
        chunk, ready = self._expected[0]
        if not ready.wait(timeout):
            raise multiprocessing.TimeoutError(f"the next result has not come after {timeout:g} s")
        self._expected.popleft()
        return chunk


def _check_processes(processes: Any) -> int:
    if processes is None:
        return os.cpu_count() or 1
    if processes < 1:
        raise ValueError("Number of processes must be at least 1")
    return int(processes)


def _check_tasks(given: Any) -> int | None:
    if given is not None and (not isinstance(given, int) or given <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    return given


def _check_size(chunksize: int) -> int:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
    return chunksize


def _as_list(iterable: Iterable[Any]) -> Iterable[Any]:
    """Return `iterable` as something with a length, as its items are counted before any runs."""
    return iterable if hasattr(iterable, "__len__") else list(iterable)


def _as_theirs(error: BaseException) -> BaseException:
    """Return what a pool of the standard library raises for `error`.

    That is what pickling raised, for an error that says so, with its words as a note; and a
    worker's traceback is of the class that programs look for.
    """
    if isinstance(error.__cause__, RemoteTraceback):
        from multiprocessing import pool

        private: Any = pool
        error.__cause__ = private.RemoteTraceback(error.__cause__.text)
    if isinstance(error, SerializationError) and isinstance(error.__cause__, Exception):
        error.__cause__.add_note(str(error))
        return error.__cause__
    return error
