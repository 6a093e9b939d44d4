"""``from parallel_core.compat import mpire`` replaces ``import mpire``, submodules included."""

from __future__ import annotations

import sys
from multiprocessing import cpu_count

from parallel_core.pool import bars as tqdm_utils
from parallel_core.pool.worker_pool import WorkerPool

from . import async_result, context, exception, utils

# Programs assign the default style of bars there, so it has to be the module that reads the style.
sys.modules[f"{__name__}.tqdm_utils"] = tqdm_utils

__all__ = [
    "WorkerPool",
    "async_result",
    "context",
    "cpu_count",
    "exception",
    "tqdm_utils",
    "utils",
]
