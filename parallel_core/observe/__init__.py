"""What happened in a call, for whoever wants to know; what its tasks print and log.

::

    dispatch ──progress()──▶ Parallel.print_progress ──▶ messages.Messages (``verbose``)
                    └─────▶ followers

    a worker ──pieces: text──────▶ outlet ──▶ sys.stdout, sys.stderr
             ├─pieces: records ──▶ records ─▶ logging
             └─pieces: warnings ─▶ warned ──▶ warnings

    a task's print ──▶ capturing ──▶ TaskOutput, or nowhere

- `followers`: who else wants to hear of completions.
- `pieces`: what travels; `outlet`: where it appears.
- `records`: log records, on both ends; `warned`: warnings likewise.
- `capturing`: what is printed goes elsewhere while somebody wants that.
"""
