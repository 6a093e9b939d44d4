"""Pools with state: another door to the same calls.

::

    map, imap ────▶ Run: a Call ────┐
                    of delayed calls│       ┌──▶ CallResources: a session of the start method,
    apply_async ──▶ Applies: a      ├──▶ PoolWorkers   kept as long as the workers are to live
      AsyncResult   Manager's calls ┘       └──▶ exit results
    progress bars, insights ◀── events of the calls

- `worker_pool`: `WorkerPool`; `core`: what it does; `parameters`: what it takes, and the spec of a
  call.
- `chunking`: items to arguments, and their chunks.
- `lease`: who has the workers; `running`: a map; `applying`, `async_result`: single calls.
- `bars`: progress bars; `dilled`: what dill pickles.
- `standard`: `Pool` and `ThreadPool`, as in the standard library; `mapping`: `pmap`, `pstarmap`.
- `insights`: what workers spend their time on; `measuring`: what they measure for that.

Nothing is imported here: workers that unpickle a part of this room need no more of it.
"""
