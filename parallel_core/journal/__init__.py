"""Journal: the results of a call in a file, for the same call to go on from after a crash.

::

    caller's iterable ──▶ Journal.look_up ──task, or Known(result)──▶ dispatch
                            │     │    ▲                                 │
              FunctionDigests   digest └─rows─ SQLite file ◀─rows─ Journal.record
                            │     │                                 (results, as they arrive)
                            └──┬──┘
                  object ──▶ forms ──Form: what it is, and its parts──▶ graph ──▶ 16 bytes
                               ├─ functions: code, and what it uses
                               └─ arrays: their elements

A row has the position of a task, digests of its function and of its arguments, and its result.
The task of a later call that stands at the same place must have the same digests; then its result
is taken from the row.

- `store`: the journal.
- `rows`: what is in a row; `results`: how results are pickled for another program.
- `file`: makes the SQLite file or takes it up, for one program at a time, or says why not.
- `digest`: digests of values and of functions; the latter are kept while nothing they use changes.
- `graph`: from an object's parts, and theirs, to one digest, whatever refers to what.
- `forms`: what any object is made of.
- `arrays`: numpy's; `functions`: code, functions and classes.
- `watching`: whether what a function uses is as it was.
"""
