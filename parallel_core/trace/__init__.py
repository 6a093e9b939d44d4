"""A file of what happened when, for the viewers of Perfetto and Chrome.

::

    trace=... ──▶ Target ──▶ TraceFile ◀── slices, counters, instants ── TraceObserver ◀── events
                                │              a row for each worker ──── Rows             of a call
                                └─▶ run.json, run.json.gz

- `target`: what may be passed as `trace`; `file`: the file, complete at any moment.
- `rows`: which row of the viewer a worker or a thread has; `observer`: turns events into slices.
"""
