"""What workers should be like, from the parameters that every backend with workers understands."""

from __future__ import annotations

import operator
import os
from typing import Any

from parallel_core.backends.base import WorkerOptions
from parallel_core.parallel.checks import check_idle_seconds, check_initializer

#: Variables that limit the threads of numeric libraries; read at their first import.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

_PLAIN = WorkerOptions()


def worker_options(params: dict[str, Any]) -> WorkerOptions:
    """Return `params`, checked.

    Raises
    ------
    ValueError, TypeError
        For parameters that make no sense.
    """
    if not params:
        return _PLAIN
    initializer, initargs = params.get("initializer"), params.get("initargs", ())
    check_initializer(initializer, initargs)
    limit = check_thread_limit(params.get("inner_max_num_threads"))
    return WorkerOptions(
        initializer=initializer,
        initargs=tuple(initargs),
        idle_seconds=check_idle_seconds(params.get("idle_worker_timeout", _PLAIN.idle_seconds)),
        environment=thread_environment(limit),
    )


def thread_environment(limit: int | None) -> tuple[tuple[str, str], ...]:
    """Return the variables that limit threads in workers; one that the user has set wins."""
    if limit is None:
        return ()
    return tuple((name, str(limit)) for name in THREAD_VARIABLES if name not in os.environ)


def check_thread_limit(limit: Any) -> int | None:
    """Return `inner_max_num_threads` checked."""
    if limit is None:
        return None
    try:
        number = 0 if isinstance(limit, bool) else operator.index(limit)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"inner_max_num_threads must be a positive integer or None, not {limit!r}")
    return number
