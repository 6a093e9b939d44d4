"""``mpire.async_result``: the outcome of a single call."""

from parallel_core.pool.async_result import AsyncResult as AsyncResult
