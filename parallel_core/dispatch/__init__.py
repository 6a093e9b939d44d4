"""Dispatch: from the caller's iterable to results in their places.

::

    caller's iterable ──▶ TaskSource ──Batch──▶ backlog ──▶ Session.submit
          ▲               (pulls no more than       (parent)        │
          │                pre_dispatch batches)                    ▼
          │                  ▲    │ what that took             workers run
          │        how many  │    ▼                                 │
          │                BatchSizer ◀── what tasks took,          │
          │                               and handing over          ▼
          └── results ◀── Delivery ◀───────── Completion ◀── Session.wait
                (list, or chunks     ▲            │ failures; what is left: backlog
                 for a generator;    └── Policy ◀─┘
                 or FoldedResults)  or the backlog, again; or the end of the call

The loop runs in whoever wants the next result, and pulls the iterable there. No thread is here.

- `plan`: what a call was asked to do.
- `source`: pulls tasks and has them encoded; `sizing`: how many at a time, from figures alone.
- `push`: the loop above, for whatever has workers, threads included.
- `inline`: a plain loop.
- `delivery`: puts results in order, or not; `gaps`: what stands where there is none.
- `policy`: what becomes of a task that failed; `aftermath`: what an error that ends a call carries.
- `reduction`: takes in what was folded already, where a call returns one value.
- `deadline`: the time limit of a call; `memory`: holding back while too little is free;
  `interruption`: ending a call from another thread.
- `live`: tasks that come while the call runs, from an executor.
"""
