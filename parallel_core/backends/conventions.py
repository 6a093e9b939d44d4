"""Base classes for backends by joblib's conventions, without joblib.

Who derives from joblib's own classes needs none of these: `joblib_style` goes by the methods that
an object has. Where these classes leave a method as it is, ours is used in its place: batches are
sized by our own sizer, nested calls follow our own policy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from parallel_core.backends.cores import resolve_n_jobs


class ParallelBackendBase(ABC):
    """What a backend by joblib's conventions has; derive from it, and give it two methods at least.

    These are `effective_n_jobs` and `submit`, or `apply_async` by its older name. Further ones are
    called if they are there: see :doc:`/howto/write-a-backend`.
    """

    #: How many jobs, where the user does not say.
    default_n_jobs: int = 1
    #: Whether the callback gets what `retrieve_result_callback` makes the result of. Else it says
    #: only that the job is done, and `retrieve_result` is asked for its result.
    supports_retrieve_callback: bool = False
    #: Whether it does something about `inner_max_num_threads`.
    supports_inner_max_num_threads: bool = False
    #: Whether its workers share the memory of the caller.
    supports_sharedmem: bool = False
    #: Whether they are threads.
    uses_threads: bool = False
    #: How many parallel calls surround those that it will run; found out if not given.
    nesting_level: int | None = None
    #: Threads that numeric libraries may use in each worker.
    inner_max_num_threads: int | None = None

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **backend_kwargs: Any,
    ) -> None:
        super().__init__()
        self.nesting_level = nesting_level
        self.inner_max_num_threads = inner_max_num_threads
        self.backend_kwargs = backend_kwargs

    @property
    def supports_return_generator(self) -> bool:
        """Whether joblib gives generators with it; here every backend can."""
        return self.supports_retrieve_callback

    @property
    def supports_timeout(self) -> bool:
        """Whether joblib applies `timeout` with it; here every backend can."""
        return self.supports_retrieve_callback

    @abstractmethod
    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many batches run at a time when the user asks for `n_jobs`."""

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Any:
        """Start ``func()`` somewhere, have `callback` called when it is done, return the job."""
        return self.apply_async(func, callback)

    def apply_async(self, func: Any, callback: Callable[..., Any] | None = None) -> Any:
        """Do what `submit` does; the older name."""
        raise NotImplementedError(f"{type(self).__name__} has no submit")

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return what the batch returned, from what the callback was called with, or raise."""
        raise NotImplementedError(f"{type(self).__name__} has no retrieve_result_callback")

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """Return what the batch returned, from the job that is done, or raise."""
        return out.get() if timeout is None else out.get(timeout=timeout)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any) -> int:
        """Prepare for a call, and return how many jobs it gets.

        Raises
        ------
        FallbackToBackend
            Where another backend had better be used.
        """
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:  # noqa: B027 - for those who want it
        """Do what a call needs before its first batch."""

    def stop_call(self) -> None:  # noqa: B027
        """Do what a call needs after its last batch."""

    def terminate(self) -> None:  # noqa: B027
        """Let go of what `configure` took."""

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: B027
        """End what runs; more may be submitted afterwards if it is to `ensure_ready`."""

    def compute_batch_size(self) -> int:
        """Return how many tasks the next batch should have."""
        return 1

    def batch_completed(self, batch_size: int, duration: float) -> None:  # noqa: B027
        """Take in that a batch was answered `duration` seconds after it had been submitted."""

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return the backend for calls within its tasks, and their number of jobs."""
        level = (self.nesting_level or 0) + 1
        if level > 1:
            return SequentialBackend(nesting_level=level), None
        return ThreadingBackend(nesting_level=level), None

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Surround the time in which a call waits for its results."""
        yield


class AutoBatchingMixin:
    """Says that batches may be of any size; ours are sized by what is measured.

    Attributes
    ----------
    MIN_IDEAL_BATCH_DURATION : float
        Seconds that a batch should take at least.
    MAX_IDEAL_BATCH_DURATION : float
        Seconds that it should take at most; only `compute_batch_size` itself goes by it.
    """

    MIN_IDEAL_BATCH_DURATION: float = 0.2
    MAX_IDEAL_BATCH_DURATION: float = 2.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reset_batch_stats()

    def reset_batch_stats(self) -> None:
        """Forget how long batches took."""
        self._size = 1
        self._seconds: float | None = None  # what a task takes

    def compute_batch_size(self) -> int:
        """Return how many tasks the next batch should have."""
        if self._seconds is not None:
            least = self.MIN_IDEAL_BATCH_DURATION / max(self._seconds, 1e-9)
            most = self.MAX_IDEAL_BATCH_DURATION / max(self._seconds, 1e-9)
            self._size = int(max(1, min(max(self._size, min(least, 2 * self._size)), most)))
        return self._size

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Take in how long a batch took."""
        latest = duration / max(1, batch_size)
        self._seconds = latest if self._seconds is None else (self._seconds + latest) / 2


class SequentialBackend(ParallelBackendBase):
    """Runs a batch where it is submitted; an instance of this class itself stands for ours.

    So does ``raise FallbackToBackend(SequentialBackend())``. Subclasses are backends of their own.
    """

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return 1."""
        return 1

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Future[Any]:
        """Run ``func()``; return the future of its result."""
        future: Future[Any] = Future()
        try:
            future.set_result(func())
        except BaseException as error:
            future.set_exception(error)
        return _calling_back(future, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what the batch returned, or raise."""
        return out.result()


class ThreadingBackend(SequentialBackend):
    """Threads of its own; an instance of this class itself stands for ours.

    Subclasses are backends of their own.
    """

    _threads: ThreadPoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many threads a request for `n_jobs` gets."""
        return resolve_n_jobs(n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any) -> int:
        """Make the threads, and return how many there are."""
        n_jobs = super().configure(n_jobs, parallel, **backend_kwargs)
        self._threads = ThreadPoolExecutor(n_jobs)
        return n_jobs

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Future[Any]:
        """Run ``func()`` in a thread; return the future of its result."""
        assert self._threads is not None
        return _calling_back(self._threads.submit(func), callback)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drop what waits; a thread cannot be stopped, and is left to itself."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)

    def terminate(self) -> None:
        """End the threads."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()


def _calling_back(future: Future[Any], callback: Callable[..., Any] | None) -> Future[Any]:
    if callback is not None:
        future.add_done_callback(callback)
    return future


class FallbackToBackend(Exception):
    """Raised by `configure`: another backend had better be used for this call.

    Parameters
    ----------
    backend : object
        That.
    """

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.backend = backend
