"""Pools with state: another door to the same calls.

::

    map, imap ────▶ Run: a Call ────┐
                    of delayed calls│       ┌──▶ CallResources: a session of the start method,
    apply_async ──▶ Applies: a      ├──▶ PoolWorkers   kept as long as the workers are to live
      AsyncResult   Manager's calls ┘       └──▶ exit results
    progress bars, insights ◀── events of the calls

- `worker_pool`: `WorkerPool`; `parameters`: what it takes, and the spec of a call.
- `chunking`: items to arguments, and their chunks.
- `lease`: who has the workers; `running`: a map; `applying`, `async_result`: single calls.
- `bars`: progress bars; `dilled`: what dill pickles.
- `standard`: `Pool` and `ThreadPool`, as in the standard library; `mapping`: `pmap`, `pstarmap`.
"""

from __future__ import annotations

from parallel_core.pool.async_result import AsyncResult as AsyncResult
from parallel_core.pool.chunking import chunk_tasks as chunk_tasks
from parallel_core.pool.chunking import make_single_arguments as make_single_arguments
from parallel_core.pool.worker_pool import WorkerPool as WorkerPool
