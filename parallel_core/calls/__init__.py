"""A call as an object: what it was asked to do, what it runs on, and its course.

::

    parameters ──▶ checks ──▶ CallSpec ──┐
    parallel_config, hints ─▶ choice ────┤
                                         ▼
    tasks ─────────────────────────▶   Call ──▶ BatchLoop or InlineLoop ──▶ list, chunks
                                         ▲           ▲
    CallResources: session, arrays, journal ─────────┘

`Parallel`, the executor and the calls of event loops make calls, and do nothing else with tasks.

- `spec`: the checked parameters, in groups; `parameters`: their names and types.
- `checks`: the checks of all parameters; `pre_dispatch`: arithmetic with ``n_jobs``.
- `choice`: the choice of a backend, from hints, constraints, context and nesting; and what calls
  within the tasks choose from.
- `call`: one call, from its start to its end.
- `resources`: what it runs on, shared by the calls of a ``with`` block.
"""
