"""The backends that stay in this process: ``"sequential"`` and ``"threading"``."""

from __future__ import annotations

from parallel_core.backends.base import Backend, Style


class SequentialBackend(Backend):
    """A plain loop in the thread that wants the results."""

    name = "sequential"
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
    style = Style.PULL
    inline_when_single = True
    supports_sharedmem = True
    uses_threads = True
