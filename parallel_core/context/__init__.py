"""What the caller has set up, and that holds inside the tasks.

::

       the caller's process                               where tasks run
    ┌────────────────────────┐                         ┌─────────────────────────────┐
    │ aspects ──seal──▶ bytes│ ── once a call and ───▶ │ Capsule ──▶ Envelope        │
    │    │                   │    worker               │               begin          │
    │    └── n_jobs=1 and ───┼───────────────────────▶ │               bind ▶ tasks   │
    │        threads: as is  │                         │               end            │
    └────────────────────────┘                         └─────────────────────────────┘

- `aspect`: one thing that holds there, and its part in one batch; where which is needed.
- `envelope`: all of them around the tasks of one batch; how they travel.
- `printed`: what tasks print, kept with their results, or dropped.
"""
