"""``from parallel_core.compat.multiprocessing import Pool`` replaces that of `multiprocessing`."""

from __future__ import annotations

from multiprocessing import TimeoutError as TimeoutError

from parallel_core.pool.async_result import AsyncResult as AsyncResult
from parallel_core.pool.standard import MapResult as MapResult
from parallel_core.pool.standard import Pool as Pool
from parallel_core.pool.standard import ThreadPool as ThreadPool

__all__ = ["AsyncResult", "MapResult", "Pool", "ThreadPool", "TimeoutError"]
