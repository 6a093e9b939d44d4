"""A `concurrent.futures.Executor`: another door to the same dispatch.

::

    submit, map ──▶ FutureTasks ◀── pulls ── Dispatch ◀── Parallel: one call after the other
        │           (a queue)                   │              ▲
        ▼                                       │ outcomes     │ runs
     Future ◀───────── result, exception ───────┴────────── Manager, a thread while there is work

The thread is there only while there is something to do, and a moment longer. Then its call is over,
the workers are back with the pool, for this or any other call, and nothing is left to clean up.

- `futures`: `get_executor`, and the executor.
- `manager`: the queue, and the thread that runs calls until it is empty.
- `chunks`: what a worker runs for several items of `map`.
"""
