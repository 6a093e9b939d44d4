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
    """Base class for backends by joblib's conventions.

    Define at least `effective_n_jobs` and `submit` (or `apply_async`, its older name). Other
    methods are called if they are defined: see :doc:`/howto/write-a-backend`.
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
        """Whether joblib supports generators with this backend; here, every backend does."""
        return self.supports_retrieve_callback

    @property
    def supports_timeout(self) -> bool:
        """Whether joblib supports `timeout` with this backend; here, every backend does."""
        return self.supports_retrieve_callback

    @abstractmethod
    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of batches that run at a time if the user asks for `n_jobs`."""

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Any:
        """Start ``func()`` in a worker, call `callback` when it is done, and return the job."""
        return self.apply_async(func, callback)

    def apply_async(self, func: Any, callback: Callable[..., Any] | None = None) -> Any:
        """Do the same as `submit`; this is its older name."""
        raise NotImplementedError(f"{type(self).__name__} has no submit")

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch from the argument of the callback, or raise its error."""
        raise NotImplementedError(f"{type(self).__name__} has no retrieve_result_callback")

    def retrieve_result(self, out: Any, timeout: float | None = None) -> Any:
        """Return the results of a batch from the job, which is done, or raise its error."""
        return out.get() if timeout is None else out.get(timeout=timeout)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any) -> int:
        """Prepare for a call, and return its number of jobs.

        Raises
        ------
        FallbackToBackend
            If another backend should be used.
        """
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:  # noqa: B027 - for those who want it
        """Prepare for the first batch of a call."""

    def stop_call(self) -> None:  # noqa: B027
        """Clean up after the last batch of a call."""

    def terminate(self) -> None:  # noqa: B027
        """Release the resources that `configure` took."""

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: B027
        """End running batches; with `ensure_ready`, more may be submitted afterwards."""

    def compute_batch_size(self) -> int:
        """Return how many tasks the next batch should have."""
        return 1

    def batch_completed(self, batch_size: int, duration: float) -> None:  # noqa: B027
        """Note that a batch was answered `duration` seconds after its submission."""

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return the backend for calls within tasks, and their number of jobs."""
        level = (self.nesting_level or 0) + 1
        if level > 1:
            return SequentialBackend(nesting_level=level), None
        return ThreadingBackend(nesting_level=level), None

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Surround the time in which a call waits for its results."""
        yield


class AutoBatchingMixin:
    """Mixin for backends with batches of any size, which are adapted to the time of tasks.

    Attributes
    ----------
    MIN_IDEAL_BATCH_DURATION : float
        Seconds that a batch should take at least.
    MAX_IDEAL_BATCH_DURATION : float
        Seconds that a batch should take at most; only `compute_batch_size` itself uses it.
    """

    MIN_IDEAL_BATCH_DURATION: float = 0.2
    MAX_IDEAL_BATCH_DURATION: float = 2.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reset_batch_stats()

    def reset_batch_stats(self) -> None:
        """Forget the times of earlier batches."""
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
        """Note the time that a batch took."""
        latest = duration / max(1, batch_size)
        self._seconds = latest if self._seconds is None else (self._seconds + latest) / 2


class SequentialBackend(ParallelBackendBase):
    """Backend that runs a batch where it is submitted.

    An instance of this class stands for the backend ``"sequential"``, also in ``raise
    FallbackToBackend(SequentialBackend())``. Subclasses are backends of their own.
    """

    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return 1."""
        return 1

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Future[Any]:
        """Run ``func()``, and return the future of its result."""
        future: Future[Any] = Future()
        try:
            future.set_result(func())
        except BaseException as error:
            future.set_exception(error)
        return _calling_back(future, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of the batch, or raise its error."""
        return out.result()


class ThreadingBackend(SequentialBackend):
    """Backend that runs batches in threads of its own.

    An instance of this class stands for the backend ``"threading"``. Subclasses are backends of
    their own.
    """

    _threads: ThreadPoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of threads for `n_jobs`."""
        return resolve_n_jobs(n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any) -> int:
        """Create the threads, and return their number."""
        n_jobs = super().configure(n_jobs, parallel, **backend_kwargs)
        self._threads = ThreadPoolExecutor(n_jobs)
        return n_jobs

    def submit(self, func: Any, callback: Callable[..., Any] | None = None) -> Future[Any]:
        """Run ``func()`` in a thread, and return the future of its result."""
        assert self._threads is not None
        return _calling_back(self._threads.submit(func), callback)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drop waiting batches; threads cannot be stopped, and finish theirs."""
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
    """Raised by `configure` if another backend should be used for the call.

    Parameters
    ----------
    backend : object
        Backend to use.
    """

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.backend = backend
