"""A call as an object: what it was asked to do, what it runs on, and its course.

::

    parameters ──▶ checks ──▶ CallSpec ──┐
    parallel_config, hints ─▶ choice ────┤
                                         ▼
    tasks ─────────────────────────▶   Call ──▶ BatchLoop or InlineLoop ──▶ list, chunks
                                         ▲           ▲
    CallResources: session, arrays, journal ─────────┘

`Parallel`, the executor and the calls of event loops make calls, and do nothing else with tasks.

- `spec`: the parameters, checked, in groups; `parameters`: which there are.
- `checks`: the checks of all of them; `pre_dispatch`: arithmetic with ``n_jobs``.
- `choice`: which backend, from hints, constraints, context and nesting.
- `call`: one call, from its start to its end; `nesting`: what its tasks are told of it.
- `resources`: what it runs on, which calls of a ``with`` block share.
"""
