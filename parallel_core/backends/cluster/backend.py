"""The base of backends whose workers are started by an engine, and then talk to the caller."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from parallel_core import config
from parallel_core.backends.base import IN_PLACE, Backend, Session, Style
from parallel_core.backends.channel_session import ChannelSession
from parallel_core.backends.cluster.engine import Engine, total
from parallel_core.backends.cluster.remote_workers import state_of_caller
from parallel_core.backends.cluster.teams import lease
from parallel_core.backends.options import WorkerOptions, pickle_initializer
from parallel_core.backends.session_setup import SessionSetup
from parallel_core.errors import EngineError
from parallel_core.workers.setup import WorkerKey
from parallel_core.workers.starting import WorkerStartError


class ClusterBackend(Backend):
    """Workers that an engine places."""

    style = Style.PUSH
    opens_files = True
    tells_process_state = True
    can_answer_each = True
    aim_seconds = 0.02
    default_n_jobs = -1
    worker_features = IN_PLACE

    @abstractmethod
    def engine(self) -> Engine:
        """Return the engine, connected.

        Raises
        ------
        EngineError
            When it cannot be reached.
        """

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return `n_jobs`; for a negative number, as many as the engine has room for, or fewer."""
        if n_jobs > 0:
            return n_jobs
        return max(1, total(self.engine().places()) + 1 + n_jobs)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Lease workers of the engine."""
        engine = self.engine()
        threads = options.thread_limit or max(1, total(engine.places()) // n_jobs)
        initializer = None if options.initializer is None else pickle_initializer(options)
        key = WorkerKey(self.name, initializer, (), options.preload, config.worker_hooks)
        idle_seconds = options.idle_seconds
        setup: Any = None
        if options.setup is not None:
            setup = SessionSetup(options.setup, inherits=False)
            key = setup.key(key)
            idle_seconds = None  # for what it keeps, a worker is to stay
        state = state_of_caller(idle_seconds, level, threads, options.max_memory)
        try:
            return ChannelSession(lease(engine, n_jobs, key, state), setup)
        except WorkerStartError as error:
            raise EngineError(str(error)) from error
