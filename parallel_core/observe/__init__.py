"""What happened in a call, for whoever wants to know; what its tasks print and log.

::

    Call, dispatch, session ── events ──▶ observers
                                 └──────▶ Parallel.print_progress ──▶ messages (``verbose``)

    a worker ──pieces: text──────▶ outlet ──▶ sys.stdout, sys.stderr
             ├─pieces: records ──▶ records ─▶ logging
             └─pieces: warnings ─▶ warned ──▶ warnings

    a task's print ──▶ capturing ──▶ TaskOutput, or nowhere

- `events`: what happens in a call, and who is told; `messages`: those of ``verbose``.
- `pieces`: what travels; `outlet`: where it appears.
- `records`: log records, on both ends; `warned`: warnings likewise.
- `capturing`: what is printed goes elsewhere while somebody wants that.
"""
