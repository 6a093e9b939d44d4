"""Serialization: how tasks, functions, results and exceptions cross to another process.

::

    delayed(f)(x) ──▶ (f, args, kwargs) ──▶ Encoder ──▶ Batch ──▶ frames to a worker
    tasks.delayed                             │
                                              ├─ values that cannot change ride as they are
                                              ├─ everything else: pickled alone, at once
                                              └─ functions and classes: Definitions, once a
                                                 call, again when what they use has changed

- `capture`: what a function or class that goes by value holds, and whether it changed.
- `definitions`: the functions and classes of one call, by number; `received`: in a worker.
- `encoding`: arguments are taken at the moment when the task is yielded.
- `batch`: consecutive tasks in encoded form; `held`: as they are, for threads.
- `pickling`: pickling with a fallback to cloudpickle, and what was at fault when it failed.
- `variables`: context variables, known again in another process.
- `results`: how results are pickled; `buffers`: what of them travels beside the pickle, and
  `memory`, which that is received into.
- `failure`: an exception on its way from a worker to the caller.
- `open_files`: how open files and sockets cross; `opened`: which they are, and what the running
  task was given of them.
- `handles`: shared objects as arguments; `read_only`, `repeats`: hints for who writes to a memory
  map, or passes the same large object again and again.
- `preview`: looking into a pickle without running it.
- `wrapping`: `wrap_non_picklable_objects`.
"""
