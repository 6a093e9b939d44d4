"""Reduction: the results of a call become one value, ``Parallel(reduce=…)``.

::

    worker                                        caller
    results of a batch ──Fold──▶ nodes ─────────▶ FoldTree ──▶ one value
                                 of the tree      in FoldedResults

- `tree`: the tree over the positions of the tasks, the same whatever the batches were.
- `results`: what is asked for, and what the results of a call were folded to so far.
"""
