"""What parent and worker say to each other: tuples with one of these in front.

::

    to the worker                                     to the parent
    (SETUP, state, start settings or None)     (BORN,), then (READY,)
    (BATCH, number, call, base, runs,                 (ANSWER, number, first, values, pickled,
     definitions, forget, carry on, fold,              seconds, finished, failure, folded)
     start, context)
    (LEAVE,)                                          (UNUSABLE, data, text)
    (RELEASE, of a call, tokens)
    (EXPECT,)                                         (EXPECTING,)
    (DESCRIPTORS, numbers)

`number` counts the batches of one worker and `base` its tasks; `first` is the index within the
batch of the first of `values`; `pickled` lists which values are pickles (None: none, True: all);
`failure` is None or ``(index, leg, data, text, call)`` of the task after the last of `values`, the
call in words or None. `finished` says that nothing more will come for this batch: it was run to
its end, or a task failed and it was not to carry on, or a limit cut it short. PARCEL_ANSWER is an
ANSWER with buffers: a value whose pickle has some beside it is a tuple of the pickle and those;
see `serialization.results.Parcel`.

`start` is the position of the first task in the call. `context` is the pickled context of the call,
empty where there is nothing in it; None: the one that this worker was told last. A failure whose
leg is `Phase.CONTEXT` is no task's.

Where results are folded, `fold` is ``(token, in order or not)``, and the `values` of an answer are
what came of `folded` tasks from `first` on; else both are None. Then a failure whose leg is
`Phase.FOLDING` is that of the function that folds, with words for `call`.

``(OUTPUT, pieces)`` comes in front of the answers from an engine that is not ours: what was printed
and logged, see `output.pieces`. Workers of ours have a connection of their own for that, see
`output.connection`.

RELEASE says that a call has ended, whose arrays and functions need not be kept, or that shared
objects were closed, by their `tokens`. EXPECT announces descriptors; then DESCRIPTORS comes before
a BATCH that needs them, with as many beside it as `numbers` name. See `workers.passing`.

To `carry on` (true or false) is to go on with the next task after one that failed; EACH is to do
so, and to answer each task before the next begins, since somebody may wait for just that one.
"""

from __future__ import annotations

SETUP, BATCH, LEAVE, RELEASE, EXPECT, DESCRIPTORS = 0, 1, 2, 3, 4, 5
BORN, READY, ANSWER, UNUSABLE, PARCEL_ANSWER, EXPECTING, OUTPUT = 10, 11, 12, 13, 14, 15, 16
EACH = 2
