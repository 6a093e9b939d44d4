"""Dispatch: from the caller's iterable to results in their places.

::

    caller's iterable ──▶ TaskSource ──Batch──▶ backlog ──▶ Session.submit ──▶ workers
          ▲               (pulled while the       │  ▲                            │
          │                Window is not full)    │  └─ unrun, retries            │
          │                  ▲    │ what it took  │                               ▼
          │        how many  │    ▼               └────────────── Completion ◀─ Session.wait
          │                BatchSizer ◀── what tasks took             │
          │                                                           ▼
          └── results ◀── Delivery, or FoldedResults ◀──────────── Outcomes ──▶ journal
                (list, or chunks for a generator)                     │   └───▶ events
                                                                      └─ Policy: retry, go on, end

The loop runs in the thread that wants the next result, and pulls the iterable there. It starts no
thread.

- `loop`: the loop above, for all sessions, threads included; `inline`: a plain loop.
- `outcomes`: the outcomes of tasks, and what follows from them, for both loops.
- `source`: pulls tasks and has them encoded; `sizing`: how many at a time, from figures alone;
  `window`: how far ahead; `backlog`: what waits for a worker; `limits`: the bounds of a call.
- `delivery`: results on their way to the caller, in order or not.
- `policy`: what to do about a failed task; `call_errors`: what an error carries that ends a call.
- `ending`: the time limit of a call; ending it from another thread.
- `memory`, `load`: holding tasks back while too little memory is free, or the load is too high.
- `task_queue`: tasks that come while the call runs, from an executor.
"""
