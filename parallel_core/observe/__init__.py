"""What happens in a call, for whoever wants to know.

::

    Call, dispatch, session ── events ──▶ observers
                                 └──────▶ Parallel.print_progress ──▶ messages (``verbose``)

- `events`: what happens, and who is told; `messages`: those of ``verbose``.
"""
