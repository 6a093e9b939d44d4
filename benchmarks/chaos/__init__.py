"""Calls of random shape under random faults: ``python -m benchmarks.chaos --seconds 120 --seed 1``.

How a run goes::

    run                 epochs of some seconds; in each, one to three threads make calls, then all
         │              is ended and looked at: what is there that was not there before?
         │ plan.draw(): the shape of a call, its tasks, and what is to go wrong, by the seed
         ▼
    calls               makes the call, ends it as planned  ◀── saboteur: kills, stops, fills,
         │                                                       forks, shuts down, starves
         │ what came back, or was raised
         ▼
    judge               each result right, in its place, once?  ──▶  tally

`tasks`
    What the workers run; the right outcome of each is known from its number.
`inventory`
    Processes, descriptors, threads, memory, shared memory and files of a run.
`watch`
    A limit of time for each call: one that hangs ends the run, with all stacks.
"""
