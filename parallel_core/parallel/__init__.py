"""The front door: parameters and configuration in, one dispatch, results out.

::

    Parallel(n_jobs, backend, ...) ──▶ choice ──▶ Backend, number of workers
         │            ▲                               │
         │            └── parallel_config (contexts)  │ open
         ▼                                            ▼
    __call__(tasks) ──▶ CallPlan ──▶ Dispatch ◀──── Session
                (runner)            │ (starting)       (holdings)
                                    │
                                    └──▶ list, or generator (generators)

- `call`: `Parallel` itself: what it takes and returns, in words and types; `returns`: the latter.
- `runner`: what it does: checks its parameters, and makes one call at a time.
- `starting`: the dispatch of a call; `holdings`: session, arrays and journal, which calls of a
  ``with`` block share.
- `checks`, `options`: every parameter is checked when it is given, not when it first matters.
- `choice`: which backend, from hints, constraints, context and nesting.
- `nesting`: what the tasks of a call are told of it, for calls of their own.
- `contexts`: `parallel_config`, `parallel_backend` and questions about what is in force.
- `generators`: what ``return_as="generator"`` returns.
- `asynchronous`: a call in a thread of its own, for an event loop; `loops`: waking one.
"""
