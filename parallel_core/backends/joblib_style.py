"""Backends by joblib's conventions, whether they derive from joblib's base class or from ours.

::

    Dispatch ──Batch──▶ JoblibStyleSession ──BatchCall──▶ backend.submit ──▶ wherever
        ▲                    │      ▲                                          │
        └── Completion ◀── wait    Job.__call__ ◀── callback, in any thread ───┘

A batch goes as our bytes, so tasks, results and exceptions travel as with any other engine, and
the backend decides only where they run. What `FuturesSession` does with futures holds here too:
each `Job` has one, which the callback resolves. Without `supports_retrieve_callback` it only says
that the job is done, and `retrieve_result` is called by whoever waits.

- `conventions`: base classes for who has no joblib.
- `joblib_engine`: the methods of such a class; `joblib_session`: a call on it.
- `joblib_batch`: what `submit` is given, or `joblib_held`, where workers share our memory;
  `joblib_job`: what becomes of it.
"""

from __future__ import annotations

from typing import Any

from parallel_core.backends.base import BackendUnavailable, Style, WorkerOptions
from parallel_core.backends.joblib_engine import JoblibEngine
from parallel_core.backends.joblib_session import JoblibStyleSession

#: Classes that stand for backends of ours, and the modules where they are.
_KNOWN_HOMES = frozenset({"joblib._parallel_backends", "parallel_core.backends.conventions"})
_KNOWN = {
    "SequentialBackend": "sequential",
    "ThreadingBackend": "threading",
    "MultiprocessingBackend": "multiprocessing",
    "LokyBackend": "loky",
}


def is_joblib_style(made: object) -> bool:
    """Whether `made` is meant as a backend by joblib's conventions."""
    if isinstance(made, type):
        return False
    names = {kind.__name__ for kind in type(made).__mro__}
    return "ParallelBackendBase" in names or callable(getattr(made, "effective_n_jobs", None))


def name_of_ours(made: object) -> str | None:
    """Return the name of our backend that `made` stands for, if it does."""
    kind = type(made)
    return _KNOWN.get(kind.__name__) if kind.__module__ in _KNOWN_HOMES else None


class JoblibStyleBackend(JoblibEngine):
    """A backend by joblib's conventions, as one of ours; see `JoblibEngine`."""

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> JoblibStyleSession:
        """Have the backend prepare for calls.

        Raises
        ------
        BackendUnavailable
            When it falls back to a backend of ours that runs tasks in this process; it says which.
        """
        self.take_options(options)
        try:
            n_jobs = self.configured_n_jobs(n_jobs)
        except Exception as error:
            if type(error).__name__ != "FallbackToBackend":
                raise
            fallback: Any = error
        else:
            return JoblibStyleSession(self, self.executor(n_jobs, options), n_jobs, level, options)
        found = self._find(fallback.backend)
        if found.style is not Style.PUSH:
            raise BackendUnavailable(f"{self.kind} falls back to {found.name}", found)
        if isinstance(found, JoblibStyleBackend) and found.backend is self.backend:
            raise self.error(f"configure(n_jobs={n_jobs})", "falls back to the same backend")
        opened: Any = found.open(found.effective_n_jobs(n_jobs), level, options)
        return opened  # type: ignore[no-any-return]  # whichever it is, it is a session
