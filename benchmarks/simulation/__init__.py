"""The shipped dispatcher, driven by workers that are not there, in time that does not pass.

::

    model: durations, latency, failures, deaths ─▶ SimulatedSession ◀── submit, wait ── BatchLoop
                                                      │  virtual clock                     (shipped)
                                                      │  heap of events
                                                      ▼
    study: makespan beside `ideal`, CPU seconds of the dispatcher for a task

- `model`: what happens, and when.
- `workers`: one worker, and the heap that finds whom to take tasks from.
- `session`: the interface of a backend over them.
- `ideal`: list scheduling, to compare with.
- `study`, `__main__`: ``python -m benchmarks.simulation``.
"""
