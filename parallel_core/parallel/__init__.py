"""The front door: `Parallel`, and the configuration around it.

::

    Parallel(n_jobs, backend, ...) ──▶ CallSpec
         │            ▲
         │            └── parallel_config (contexts)
         ▼
    __call__(tasks) ──▶ Call ──▶ list, or generator (generators)
    acall, astream ───▶ BackgroundCall: a Call in a thread of its own (asynchronous)

- `call`: `Parallel`: its parameters and results, in words and types; `returns`: types of results.
- `runner`: its work.
- `contexts`: `parallel_config`, `parallel_backend` and questions about the configuration.
- `generators`: the generator of ``return_as="generator"``.
- `asynchronous`: a call in a thread of its own, for an event loop; `loops`: waiting in one.
"""
