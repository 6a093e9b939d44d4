"""What the caller has set up, and that holds inside the tasks.

::

       the caller's process                               where tasks run
    ┌────────────────────────┐                         ┌─────────────────────────────┐
    │ ContextItem ▶ pickle   │ ── once a call and ───▶ │ PickledContext              │
    │    │                   │    worker               │    └─▶ BatchContext         │
    │    └── n_jobs=1 and ───┼───────────────────────▶ │          begin              │
    │        threads: as is  │                         │          bind ▶ tasks       │
    │                        │                         │          end                │
    └────────────────────────┘                         └─────────────────────────────┘

- `item`: one thing that holds there, and its part in one batch; where which is needed.
- `batch_context`: all of them around the tasks of one batch; how they travel.
- `capturing`: which there are for a call that begins.
- `process`: warning filters, logging levels, folder and import path, the configuration in force.
- `variables`: context variables, decimal's context, numpy's handling of errors.
- `registered`: what libraries and users have registered.
- `seeds`: a stream of random numbers for each task; `legacy`: the global generators.
"""
