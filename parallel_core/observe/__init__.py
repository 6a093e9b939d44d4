"""Events of a call, and their observers.

::

    Call, dispatch, session ── events ──▶ observers
                                 └──────▶ Parallel.print_progress ──▶ messages (``verbose``)

- `events`: what happens, and who is told; `messages`: those of ``verbose``.
"""
