"""Serialization: how tasks, functions, results and exceptions cross to another process.

::

    delayed(f)(x) ──▶ (f, args, kwargs) ──▶ Encoder ──▶ Batch ──▶ frames to a worker
    tasks.delayed                             │
                                              ├─ values that cannot change ride as they are
                                              ├─ everything else: pickled alone, at once
                                              └─ functions and classes: Definitions, once a
                                                 call, again when what they use has changed

- `capture`: the variables that a function or class sent by value captures, and their changes;
  `large`: large ones, which each worker loads once a call.
- `definitions`: the functions and classes of one call, by number; `received`: in a worker;
  `resolving`: references to them; `lasting`: those that are kept from call to call.
- `encoding`: takes arguments at the moment when the task is yielded.
- `batch`: consecutive tasks in encoded form; `held`: as they are, for threads.
- `pickling`: pickling with a fallback to cloudpickle, and the part at fault when it failed.
- `variables`: context variables in another process.
- `results`: how results are pickled; `buffers`: bytes beside a pickle; `memory`: memory to receive
  them into.
- `failure`: an exception on its way from a worker to the caller.
- `open_files`: how open files and sockets cross; `met_files`: those that pickling meets; `opened`:
  those of the running task.
- `handles`: shared objects as arguments; `read_only`, `repeats`: hints about writes to a memory
  map, and about the same large object in task after task.
- `preview`: looking into a pickle without running it.
- `wrapping`: `wrap_non_picklable_objects`.
"""
