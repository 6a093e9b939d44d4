"""The backends over our own worker pool: ``"processes"``, and ``"multiprocessing"`` contexts."""

from __future__ import annotations

from typing import Any

from parallel_core import config
from parallel_core.backends.base import OF_PROCESSES, Backend, BackendUnavailable, Session, Style
from parallel_core.backends.channel_session import ChannelSession
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.leased_workers import LeasedWorkers
from parallel_core.backends.options import WorkerOptions, pickle_initializer
from parallel_core.backends.session_setup import SessionSetup
from parallel_core.workers.pool import worker_pool
from parallel_core.workers.setup import WorkerKey, process_state
from parallel_core.workers.starting import Spawn, WorkerStartError, spawn_from
from parallel_core.workers.threads import import_only_variables


class _PoolBackend(Backend):
    """Base of the backends over our own worker pool."""

    style = Style.PUSH
    opens_files = True
    tells_process_state = True
    passes_descriptors = True
    can_answer_each = True
    aim_seconds = 0.02
    inline_when_single = True
    worker_features = OF_PROCESSES

    def __init__(self, start_method: str, spawn: Spawn | None = None) -> None:
        self._start_method = start_method
        self._spawn = spawn
        self._plain_key = WorkerKey(self._start_method)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Lease workers of the local pool."""
        threads = threads_per_worker(n_jobs, options.thread_limit)
        environment = import_only_variables(threads)
        key = self._plain_key
        hooks = config.worker_hooks
        if options.initializer is not None or environment or options.preload or hooks:
            initializer = None if options.initializer is None else pickle_initializer(options)
            key = WorkerKey(self._start_method, initializer, environment, options.preload, hooks)
        now = process_state(options.idle_seconds, level, threads, options.max_memory)
        setup = None
        if options.setup is not None:
            setup = SessionSetup(options.setup, inherits=self._spawn is not None)
        try:
            workers = LeasedWorkers(worker_pool(), n_jobs, key, now, self._spawn, setup)
            return ChannelSession(workers, setup)
        except WorkerStartError as error:
            raise BackendUnavailable(str(error)) from error


class ProcessesBackend(_PoolBackend):
    """Worker processes of our own; the default."""

    name = "processes"

    def __init__(self) -> None:
        super().__init__("subprocess")


class MultiprocessingBackend(_PoolBackend):
    """Worker processes of our own that a context of multiprocessing starts."""

    name = "multiprocessing"

    def __init__(self, context: Any) -> None:
        method = f"{type(context).__module__}:{start_method_of(context)}"
        super().__init__(method, spawn_from(context))


def start_method_of(context: Any) -> str:
    """Return the name of the start method that `context` uses."""
    method = context.get_start_method()
    return str(method) if method else type(context).__name__


def multiprocessing_backend(context: Any = None) -> MultiprocessingBackend:
    """Return the backend over `context`; by default that of ``PARALLEL_CORE_START_METHOD``."""
    if context is None:
        import multiprocessing

        method = config.environment("PARALLEL_CORE_START_METHOD")
        if method == "loky":
            from loky.backend.context import get_context

            return MultiprocessingBackend(get_context("loky"))
        try:
            context = multiprocessing.get_context(method)
        except ValueError as error:
            raise ValueError(
                f"PARALLEL_CORE_START_METHOD or JOBLIB_START_METHOD is {method!r}: {error}; known "
                f"are {', '.join([*multiprocessing.get_all_start_methods(), 'loky'])}"
            ) from None
    return MultiprocessingBackend(context)
