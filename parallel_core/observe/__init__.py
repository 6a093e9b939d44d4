"""What happened in a call, for whoever wants to know.

::

    dispatch ──progress()──▶ Parallel.print_progress ──▶ messages.Messages (``verbose``)
                    └─────▶ followers
"""
