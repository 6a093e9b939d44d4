"""Events of a call, and their observers.

::

    Call, dispatch, session ── events ──▶ observers ──▶ progress ──▶ bars ──▶ terminal
                                 └──────▶ Parallel.print_progress ──▶ messages (``verbose``)

- `events`: what happens, and who is told; `messages`: those of ``verbose``.
- `progress`: the numbers of a call; `bars`: who draws them; `terminal`: what is printed meanwhile.
"""
