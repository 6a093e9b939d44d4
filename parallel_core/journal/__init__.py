"""Journal: the results of a call in a file, from which the same call continues after a crash.

::

    caller's iterable ──▶ Journal.look_up ──task, or KnownResult(result)──▶ dispatch
                            │     │    ▲                                 │
              FunctionDigests   digest └─rows─ SQLite file ◀─rows─ Journal.record
                            │     │                                 (results, as they arrive)
                            └──┬──┘
            object ──▶ values: tokens of its parts ──▶ 16 bytes
                         ├─ functions: code, and what it uses
                         ├─ arrays: their elements
                         └─ tokens: numbers, text, names, code

A row has the position of a task, a digest of its function, a key for each of its arguments, and its
result. The task of a later call that stands at the same place must have the same digest and keys;
then its result is taken from the row. A row that is damaged counts as none.

- `store`: the journal.
- `rows`: what is in a row, and how results are pickled for another program.
- `file`: makes the SQLite file or takes it up, for one program at a time, or says why not.
- `digest`: digests of values and of functions; the latter are kept while nothing they use changes.
- `differences`: keys of arguments, and what of a task has changed, in words.
- `values`: from any object to one token, whatever the order of sets and dictionaries.
- `functions`: what functions and classes are made of; `arrays`: numpy's; `tokens`: what has no
  parts.
"""
