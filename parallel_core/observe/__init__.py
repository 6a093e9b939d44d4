"""Events of a call, and their observers.

::

    Call, dispatch, session ── events ──▶ observers ──▶ progress ──▶ bars ──▶ terminal
                                 ├──▶ reporting ── listener ──▶ a dashboard
                                 └──────▶ Parallel.print_progress ──▶ messages (``verbose``)

- `events`: what happens; `observers`: who is told; `messages`: those of ``verbose``.
- `reporting`: tells a dashboard of a call; `listener`: the way to the dashboard.
- `progress`: the numbers of a call; `bars`: who draws them; `terminal`: what is printed meanwhile.
"""
