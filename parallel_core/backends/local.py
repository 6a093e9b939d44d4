"""The backends that stay in this process: ``"sequential"`` and ``"threading"``."""

from __future__ import annotations

from parallel_core.backends.base import IN_PLACE, OF_THREADS, Backend, Session, Style
from parallel_core.backends.options import WorkerOptions


class SequentialBackend(Backend):
    """A plain loop in the thread that wants the results."""

    name = "sequential"
    worker_features = IN_PLACE
    style = Style.INLINE
    supports_sharedmem = True
    uses_threads = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return 1."""
        del n_jobs
        return 1


class ThreadingBackend(Backend):
    """Threads of this process; they share its memory, and its interpreter lock."""

    name = "threading"
    worker_features = OF_THREADS
    style = Style.PUSH
    runs_here = True
    can_answer_each = True
    inline_when_single = True
    supports_sharedmem = True
    uses_threads = True
    # The caller's thread may wait for the interpreter's lock as long as that may be kept.
    aim_seconds = 0.005

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Return threads that are started when there are tasks for them."""
        from parallel_core.backends.threads import ThreadSession

        return ThreadSession(n_jobs, level, options)
