"""A backend for joblib over our workers: joblib's loop, our processes and shared memory.

::

    Parallel of joblib                        our executor
      submit(batch, callback) ──▶ Job ──▶ future ──▶ manager's thread ──▶ worker
      │                            │         │
      │ get: waits for this one, ◀─┘         └──▶ callback: joblib dispatches the next batch
      ▼ or for a failure of any
    results in order

joblib has two ways to wait. It looks every 10 ms whether the callback has brought the next
result, or it blocks in `get` of the job that is next. The second is taken wherever results are
wanted in order; there `get` also ends when any other job has failed, as the first way does.

joblib uses one backend object for all calls in a `parallel_config` block, which may overlap. So
what `configure` finds falls back to a copy of its own, which has the executor of that one call.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from types import ModuleType
from typing import TYPE_CHECKING, Any

from parallel_core.backends.cores import check_n_jobs, resolve_n_jobs
from parallel_core.bridge.joblib_patch import import_joblib
from parallel_core.bridge.slimming import register_slimmers
from parallel_core.calls.checks import check_of_arrays
from parallel_core.calls.parameters import WORKER_PARAMS
from parallel_core.calls.spec import worker_options
from parallel_core.errors import without_our_frames
from parallel_core.executor.futures import get_executor
from parallel_core.observe.observers import observer_factories

if TYPE_CHECKING:
    from parallel_core.executor.futures import ParallelExecutor

NAME = "parallel_core"
_CHECK = "check_arrays"
_ARRAYS = ("max_nbytes", "mmap_mode", "temp_folder")
_JOBLIBS = (*_ARRAYS, "context", "prefer", "require", "verbose")  # what joblib always passes


def register_joblib() -> None:
    """Register the workers of this library with joblib, as the backend ``"parallel_core"``.

    ``joblib.parallel_config(backend="parallel_core")`` then runs scikit-learn, and other libraries
    that use joblib, on these workers. joblib still makes the batches; to replace joblib's loop as
    well, see `parallel_core.compat.joblib.install`. A second call does nothing.

    Raises
    ------
    ImportError
        If joblib is not installed.

    Notes
    -----
    joblib's `parallel_config` then also takes `initializer`, `initargs`, `idle_worker_timeout`,
    `inner_max_num_threads`, `max_worker_memory`, `preload` and `worker_lifespan`, as
    `parallel_core.Parallel` does, and `check_arrays`, as `get_executor` does.

    Examples
    --------
    >>> import joblib
    >>> from parallel_core import register_joblib
    >>> register_joblib()
    >>> with joblib.parallel_config(backend="parallel_core", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(abs)(x) for x in [-1, -2, -3])
    [1, 2, 3]
    """
    parallel = import_joblib("joblib.parallel")
    if NAME not in parallel.BACKENDS:
        parallel.BACKENDS[NAME] = _backend_class(parallel)
        observer_factories.append(register_slimmers)


class Call:
    """What one call of joblib's has under way on an executor."""

    def __init__(self, executor: ParallelExecutor) -> None:
        self.executor = executor
        self.awaited: Future[Any] | None = None
        self.failed: Future[Any] | None = None
        self._bell = threading.Event()
        self._is_over = False

    def submit(self, batch: Any, callback: Any, tell_failures: bool) -> Job:
        """Hand over `batch`; `callback` gets the future when it is done, if it has not failed."""
        future = self.executor.submit(batch)

        def note(done: Future[Any]) -> None:
            if self._is_over:
                return
            has_failed = done.cancelled() or done.exception() is not None
            if has_failed and self.failed is None:
                self.failed = done
            if callback is not None and (tell_failures or not has_failed):
                callback(done)
            if has_failed or done is self.awaited:
                self._bell.set()

        job = Job(self, future)
        future.add_done_callback(note)
        return job

    def result(self, future: Future[Any], seconds: float | None) -> Any:
        """Return the result of `future`, or raise what any of the call's futures has raised."""
        until = None if seconds is None else time.monotonic() + seconds
        self.awaited = future
        while not future.done() and self.failed is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                from multiprocessing import TimeoutError

                raise TimeoutError(f"a batch of tasks has not come within timeout={seconds:g} s")
            self._bell.wait(left)
            self._bell.clear()
        return (future if future.done() else self.failed or future).result()

    def abort(self) -> None:
        """End it; nothing of it goes on."""
        self._is_over = True
        self.executor.abort()

    def end(self) -> None:
        """Let go of the executor: all is done."""
        self._is_over = True
        self.executor.shutdown()


class Job:
    """A batch that was handed over, as joblib wants to see it."""

    def __init__(self, call: Call, future: Future[Any]) -> None:
        self._call = call
        self._future = future

    def get(self, timeout: float | None = None) -> Any:
        """Return the results of the batch; see `Call.result`."""
        try:
            return self._call.result(self._future, timeout)
        except Exception as error:
            raise without_our_frames(error)  # noqa: B904 - it is the same


def _backend_class(parallel: ModuleType) -> type:
    """Return the backend, a subclass of what only joblib has."""
    base: Any = parallel.ParallelBackendBase
    batching: Any = parallel.AutoBatchingMixin
    fallback: Any = parallel.FallbackToBackend
    sequential: Any = parallel.SequentialBackend

    class ParallelCoreBackend(batching, base):  # type: ignore[misc]  # untyped bases
        """The workers of parallel_core, for joblib."""

        supports_inner_max_num_threads = True
        supports_retrieve_callback = False
        supports_return_generator = True
        supports_timeout = True

        def __init__(self, nesting_level: int | None = None, **params: Any) -> None:
            super().__init__(nesting_level=nesting_level)
            self._params = _checked(params)
            self._call: Call | None = None
            self._of: Any = None

        def effective_n_jobs(self, n_jobs: Any) -> int:
            """Return how many workers a request for `n_jobs` gets."""
            return resolve_n_jobs(check_n_jobs(n_jobs) or 1)

        def configure(self, n_jobs: Any = 1, parallel: Any = None, **options: Any) -> int:
            """Make ready for a call of `parallel`."""
            workers = self.effective_n_jobs(n_jobs)
            if workers == 1:
                raise fallback(sequential(nesting_level=self.nesting_level))
            if self._of is not parallel:
                raise fallback(self._copy_for(parallel))
            arrays = {name: options[name] for name in _ARRAYS if name in options}
            given = {name: options[name] for name in options if name not in _JOBLIBS}
            params = {**self._params, **_checked(given), **arrays}
            if self.inner_max_num_threads is not None:
                params["inner_max_num_threads"] = self.inner_max_num_threads
            self.parallel = parallel
            self.supports_retrieve_callback = not getattr(parallel, "return_ordered", True)
            self._call = Call(get_executor(workers, backend="processes", **params))
            return workers

        def _copy_for(self, parallel: Any) -> ParallelCoreBackend:
            copy = type(self)(self.nesting_level, **self._params)
            copy.inner_max_num_threads = self.inner_max_num_threads
            copy._of = parallel
            return copy

        def submit(self, func: Any, callback: Any = None) -> Job:
            """Hand over a batch."""
            assert self._call is not None
            return self._call.submit(func, callback, self.supports_retrieve_callback)

        apply_async = submit  # what it was called before joblib 1.5

        def retrieve_result_callback(self, out: Future[Any]) -> Any:
            """Return the results of a batch, or raise what it has raised."""
            return out.result()

        def abort_everything(self, ensure_ready: bool = True) -> None:
            """End what runs; be ready for another call if there may be one."""
            call, self._call = self._call, None
            if call is not None:
                call.abort()
            _drop_batches(self.parallel)
            if ensure_ready:
                self.configure(self.parallel.n_jobs, self.parallel, **self.parallel._backend_kwargs)

        def terminate(self) -> None:
            """Let go of the workers."""
            call, self._call = self._call, None
            if call is not None:
                call.end()
            self.reset_batch_stats()

    return ParallelCoreBackend


def _drop_batches(parallel: Any) -> None:
    """Have the next call not begin with what the last one had ready, and did not hand over.

    joblib keeps these batches, and returns their results among those of the next call of a
    ``with`` block.
    """
    ready = getattr(parallel, "_ready_batches", None)
    if isinstance(ready, queue.Queue):
        with contextlib.suppress(queue.Empty):
            while True:
                ready.get_nowait()


def _checked(params: dict[str, Any]) -> dict[str, Any]:
    """Return `params`; a TypeError or ValueError says which workers of ours do not take."""
    unknown = params.keys() - {*WORKER_PARAMS, _CHECK}
    if unknown:
        raise TypeError(
            f"the backend {NAME!r} has no parameters {', '.join(sorted(unknown))}; it has "
            f"{', '.join((*WORKER_PARAMS, _CHECK))}"
        )
    worker_options({name: params[name] for name in params if name != _CHECK})
    check_of_arrays(check=params.get(_CHECK, "auto"))
    return params
