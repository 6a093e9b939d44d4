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

The loop runs in whoever wants the next result, and pulls the iterable there. No thread is here.

- `loop`: the loop above, for whatever has workers, threads included; `inline`: a plain loop.
- `outcomes`: what has come of tasks, and what follows from it, for both loops.
- `source`: pulls tasks and has them encoded; `sizing`: how many at a time, from figures alone;
  `window`: how far ahead; `limits`: what bounds a call.
- `delivery`: puts results in order, or not; `placeholders`: what stands where there is none.
- `policy`: what becomes of a task that failed; `call_errors`: what an error carries that ends a
  call.
- `deadline`: the time limit of a call; `memory`: holding back while too little is free;
  `interruption`: ending a call from another thread.
- `task_queue`: tasks that come while the call runs, from an executor.
"""
