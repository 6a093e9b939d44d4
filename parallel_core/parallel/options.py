"""What workers should be like, from the parameters that every backend with workers understands."""

from __future__ import annotations

import operator
from typing import Any

from parallel_core.backends.base import WorkerOptions
from parallel_core.parallel.checks import check_idle_seconds, check_initializer

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
    return WorkerOptions(
        initializer=initializer,
        initargs=tuple(initargs),
        idle_seconds=check_idle_seconds(params.get("idle_worker_timeout", _PLAIN.idle_seconds)),
        thread_limit=check_thread_limit(params.get("inner_max_num_threads")),
    )


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
