"""`map`, `imap` and `as_completed` on a backend that a package chooses: another door to calls.

::

    map, imap, as_completed ──▶ the chosen MappingBackend ──▶ Parallel ──▶ results, one by one
                                   ▲        │
    set_parallel_backend ──────────┘        └──▶ an engine of the user's own
    get_rank, get_size, is_master_process ◀── where this code runs

- `functions`: the functions that run on the chosen backend, and what they take.
- `chosen`: which backend that is.
- `backends`: the base class of backends, and those that run on `Parallel`.
- `ranks`: the number of a worker, and how many there are.
"""

from __future__ import annotations

from parallel_core.mapping.backends import (
    EngineBackend,
    LokyBackend,
    MappingBackend,
    MPIBackend,
    MultiprocessBackend,
    ThreadBackend,
)
from parallel_core.mapping.chosen import (
    BackendType,
    get_parallel_backend,
    set_parallel_backend,
)
from parallel_core.mapping.functions import (
    PicklableAndCallable,
    as_completed,
    get_default_chunksize,
    get_rank,
    get_size,
    imap,
    is_master_process,
    map,
)

__all__ = [
    "BackendType",
    "EngineBackend",
    "LokyBackend",
    "MPIBackend",
    "MappingBackend",
    "MultiprocessBackend",
    "PicklableAndCallable",
    "ThreadBackend",
    "as_completed",
    "get_default_chunksize",
    "get_parallel_backend",
    "get_rank",
    "get_size",
    "imap",
    "is_master_process",
    "map",
    "set_parallel_backend",
]
