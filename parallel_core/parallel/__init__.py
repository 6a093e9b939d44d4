"""The front door: `Parallel`, and the configuration around it.

::

    Parallel(n_jobs, backend, ...) ──▶ CallSpec
         │            ▲
         │            └── parallel_config (contexts)
         ▼
    __call__(tasks) ──▶ Call ──▶ list, or generator (generators)
    acall, astream ───▶ BackgroundCall: a Call in a thread of its own (asynchronous)

- `call`: `Parallel` itself: what it takes and returns, in words and types; `returns`: the latter.
- `runner`: what it does.
- `contexts`: `parallel_config`, `parallel_backend` and questions about what is in force.
- `generators`: what ``return_as="generator"`` returns.
- `asynchronous`: a call in a thread of its own, for an event loop; `loops`: waiting in one.
"""
