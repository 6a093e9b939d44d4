"""Output, log records and warnings of tasks: they appear in the caller as if made there.

::

         where tasks run                                              the caller
    print ──▶ sys.stdout ─┐                                     ┌─▶ sys.stdout, sys.stderr
    logging ──▶ Relay ────┼─▶ OutputWriter ═ socket ═▶ reader ──┼─▶ loggers and handlers
    warnings ─────────────┤   (a worker of ours)                └─▶ warning filters
                          └─▶ BatchOutput ══ answers ═▶ session ──▶ (the same)
                              (another engine's worker)

    output="capture"    print ──▶ Captured ──▶ TaskOutput, the task's result
    output="discard"    print ──▶ Discarded

- `pieces`: what travels, and how the caller shows it.
- `records`: log records, on both ends; `task_warnings`: warnings.
- `streams`: ``sys.stdout`` of our own workers; `connection`: the socket to the parent.
- `batch_output`: what a batch has printed in the worker of another engine.
- `capture`: text that goes elsewhere: into the result of its task, with its batch, nowhere.
"""
