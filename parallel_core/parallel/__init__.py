"""The front door: parameters and configuration in, one dispatch, results out.

::

    Parallel(n_jobs, backend, ...) ──▶ choice ──▶ Backend, number of workers
         │            ▲                               │
         │            └── parallel_config (contexts)  │ open
         ▼                                            ▼
    __call__(tasks) ──▶ CallPlan ──▶ Dispatch ◀──── Session
                                        │
                                        └──▶ list, or generator (generators)

- `call`: `Parallel` itself.
- `asynchronous`: `acall` and `astream`, the same in a thread; `loops`: what wakes event loops.
- `checks`, `options`: every parameter is checked when it is given, not when it first matters.
- `choice`: which backend, from hints, constraints, context and nesting.
- `nesting`: what the tasks of a call are told of it, for calls of their own.
- `contexts`: `parallel_config`, `parallel_backend` and questions about what is in force.
- `generators`: what ``return_as="generator"`` returns.
"""
