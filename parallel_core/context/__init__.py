"""Settings of the caller that apply inside tasks.

::

       the caller's process                               where tasks run
    ┌────────────────────────┐                         ┌─────────────────────────────┐
    │ ContextItem ▶ pickle   │ ── once a call and ───▶ │ PickledContext              │
    │    │                   │    worker               │    └─▶ BatchContext         │
    │    └── n_jobs=1 and ───┼───────────────────────▶ │          begin              │
    │        threads: as is  │                         │          bind ▶ tasks       │
    │                        │                         │          end                │
    └────────────────────────┘                         └─────────────────────────────┘

- `item`: a context item, and its part in one batch; `batch_context`: all items around the tasks of
  one batch, and how they travel; `capturing`: the items of a call that begins.
- `process`: warning filters, logging levels, working directory, import path, configuration.
- `variables`: context variables, decimal's context, numpy's handling of errors.
- `registered`: settings that libraries and users have registered.
- `seeds`: a stream of random numbers for each task; `legacy`: the global generators.
- `this_worker`: number, state and shared objects of a worker, for its tasks.
"""
