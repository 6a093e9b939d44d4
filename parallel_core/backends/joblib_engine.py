"""What a class by joblib's conventions has, looked at, checked and called."""

from __future__ import annotations

import operator
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from parallel_core import config
from parallel_core.backends.base import Backend, WorkerOptions
from parallel_core.backends.futures import FuturesBackend
from parallel_core.errors import BackendError, PerformanceWarning, warn_caller

#: Classes whose methods are there to be overridden; what is left as it is counts as not given.
_BASES = frozenset({"ParallelBackendBase", "AutoBatchingMixin"})


def overrides(made: object, name: str) -> bool:
    """Whether `made` has a method `name` of its own, besides what base classes offer."""
    for kind in type(made).__mro__:
        if name in vars(kind):
            return kind.__name__ not in _BASES
    return hasattr(made, name)


class ParallelView:
    """What a backend by joblib's conventions may read of the `parallel` that it works for.

    Parameters
    ----------
    backend : object
        By joblib's conventions.
    n_jobs : int
        What it is asked for.
    """

    def __init__(self, backend: object, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self.verbose: int = config.current_settings().values.get("verbose", 0)
        self.timeout: float | None = None
        self.batch_size = "auto"
        self.pre_dispatch = "2*n_jobs"
        self._backend = backend
        self._backend_kwargs: dict[str, Any] = {}
        self._backend_args = self._backend_kwargs  # the older name
        self._id = uuid.uuid4().hex

    def _print(self, message: str, args: tuple[Any, ...] = ()) -> None:
        if self.verbose:
            text = message % args if args else message
            print(text, file=sys.stderr if self.verbose < 50 else sys.stdout)


class _Configured(Executor):
    """Stands where other engines have an executor: the backend has prepared for a call."""


class JoblibEngine(FuturesBackend):
    """A backend by joblib's conventions.

    Parameters
    ----------
    backend : object
        That. What is asked of this object and not here is asked of it.
    name : str or None
        Under which it is registered.
    find : callable
        Returns the `Backend` that anything stands for.

    Attributes
    ----------
    backend : object
        As given.
    by_callback : bool
        Whether the callback brings the result.

    Raises
    ------
    BackendError
        When it lacks a method that it must have.
    """

    def __init__(self, backend: Any, name: str | None, find: Callable[[Any], Backend]) -> None:
        self.backend = backend
        self.kind = type(backend).__name__
        self.name = name or self.kind
        self._find = find
        self._submit_name = self._name_of_submit()
        self.supports_sharedmem = bool(getattr(backend, "supports_sharedmem", False))
        self.uses_threads = bool(getattr(backend, "uses_threads", self.supports_sharedmem))
        self.by_callback = bool(getattr(backend, "supports_retrieve_callback", False))
        if self.by_callback and not overrides(backend, "retrieve_result_callback"):
            raise self.error(
                "retrieve_result_callback", "is missing, and supports_retrieve_callback asks for it"
            )
        if any(kind.__name__ == "AutoBatchingMixin" for kind in type(backend).__mro__):
            self.aim_seconds = float(backend.MIN_IDEAL_BATCH_DURATION)
        self.default_n_jobs = getattr(backend, "default_n_jobs", None) or 1
        if getattr(backend, "nesting_level", 0) is None:
            backend.nesting_level = config.nesting_level()
        if getattr(backend, "data_futures", None):  # dask's
            warn_caller(
                f"scatter has no effect with {self.kind}: every task goes there encoded, with its "
                "arguments. Where these are large, and scattering them pays, make the call with "
                "joblib's own Parallel",
                PerformanceWarning,
            )

    @property
    def given(self) -> Any:
        """The object by joblib's conventions."""
        return self.backend

    def _name_of_submit(self) -> str:
        if not overrides(self.backend, "effective_n_jobs"):
            raise self.error("effective_n_jobs", "is missing: it says how many jobs run at a time")
        for name in ("submit", "apply_async"):
            if overrides(self.backend, name):
                return name
        raise self.error("submit", "is missing: it starts a batch, and returns the job")

    def error(self, method: str, what: str) -> BackendError:
        """Return an error that says `what` is wrong with a method of the backend."""
        return BackendError(f"backend {self.name!r}: {self.kind}.{method} {what}")

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return what the backend says."""
        said = self.backend.effective_n_jobs(n_jobs)
        return self._number(f"effective_n_jobs({n_jobs})", said, "jobs")

    def configured_n_jobs(self, n_jobs: int) -> int:
        """Have the backend prepare for calls; return how many jobs these get."""
        if not hasattr(self.backend, "configure"):
            return n_jobs
        said = self.backend.configure(n_jobs=n_jobs, parallel=ParallelView(self.backend, n_jobs))
        return self._number(f"configure(n_jobs={n_jobs})", said, "jobs")

    def wanted_batch_size(self) -> int:
        """Return how many tasks the next batch should have, as the backend says."""
        return self._number("compute_batch_size()", self.backend.compute_batch_size(), "tasks")

    def _number(self, call: str, said: Any, of_what: str) -> int:
        try:
            number = 0 if isinstance(said, bool) else operator.index(said)
        except TypeError:
            number = 0
        if number < 1:
            raise self.error(
                call, f"returned {said!r}; it must be the number of {of_what}, 1 or more"
            )
        return number

    def nested(self, level: int) -> tuple[Backend | str, int | None] | None:
        """Return the backend for calls within its tasks, where it has a word in that."""
        del level
        if not overrides(self.backend, "get_nested_backend"):
            return None
        said = self.backend.get_nested_backend()
        found, n_jobs = said if isinstance(said, tuple) else (said, None)
        if found is None:
            raise self.error("get_nested_backend()", "returned no backend")
        return self._find(found), n_jobs

    def take_options(self, options: WorkerOptions) -> None:
        """Tell the backend what workers should be like, as far as its conventions know of it.

        Raises
        ------
        TypeError
            For what they do not know.
        """
        if options.initializer is not None:
            raise TypeError(
                f"initializer cannot be given with {self.kind}: by its conventions, nobody would "
                "call it in the workers"
            )
        if options.thread_limit is not None:
            if not getattr(self.backend, "supports_inner_max_num_threads", False):
                raise TypeError(
                    f"inner_max_num_threads cannot be given with {self.kind}, which does not say "
                    "supports_inner_max_num_threads"
                )
            self.backend.inner_max_num_threads = options.thread_limit

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return what stands for the backend, which has been configured."""
        del n_jobs, options
        return _Configured()

    def submit_call(self, call: Any, callback: Any) -> Any:
        """Hand a batch to the backend; return its job."""
        return getattr(self.backend, self._submit_name)(call, callback=callback)

    def tell_end(self, method: str, **kwargs: Any) -> None:
        """Call a method that ends something, if there is one; what it raises becomes a warning.

        The results are there, or an error that matters more.
        """
        found = getattr(self.backend, method, None)
        if found is None:
            return
        try:
            found(**kwargs)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warn_caller(f"{self.kind}.{method} raised {reason}", RuntimeWarning)

    def abort(self, executor: Executor, futures: list[Future[Any]]) -> bool:
        """Have the backend end what runs; for more calls it will be configured again."""
        del executor, futures
        self.tell_end("abort_everything", ensure_ready=False)
        return True

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Have the backend prepare for calls once more."""
        del options
        self.tell_end("terminate")
        self.configured_n_jobs(n_jobs)
        return executor

    def __getattr__(self, name: str) -> Any:
        if name == "backend" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.backend, name)

    def __reduce__(self) -> Any:
        return type(self), (self.backend, self.name, self._find)
