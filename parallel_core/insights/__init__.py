"""Where the time of a call went, and what to do about it.

::

    loop, outcomes ──▶ CallRecord ── fold, now and then ──▶ WorkerTotals, one for each worker
                           │                                     │
    Parallel.report() ─────┴──▶ Figures ◀────────────────────────┘
                                   ├──▶ Report: text, a mapping, a frame
                                   ├──▶ advice: sentences
                                   └──▶ picture: SVG, for notebooks

A call is recorded always, since it costs a few tuples for each batch. Everything else is computed
when somebody asks for the report. `Parallel` keeps the record of its last call: figures and words,
never arguments or results.

- `record`: what a call counts while it runs. `totals`: the same of each worker.
- `figures`: sums and shares. `advice`: what they say. `report`, `picture`: what people see.
"""
