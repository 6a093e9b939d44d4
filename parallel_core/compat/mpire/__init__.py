"""``from parallel_core.compat import mpire`` replaces ``import mpire``, submodules included."""

from __future__ import annotations

from multiprocessing import cpu_count

from parallel_core.pool.worker_pool import WorkerPool

from . import async_result, context, exception, tqdm_utils, utils

__all__ = [
    "WorkerPool",
    "async_result",
    "context",
    "cpu_count",
    "exception",
    "tqdm_utils",
    "utils",
]
