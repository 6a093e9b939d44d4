"""``scinexus.parallel``: the same functions and classes, on this library's workers."""

from __future__ import annotations

from typing import Any

from parallel_core.mapping import (
    BackendType,
    LokyBackend,
    MPIBackend,
    MultiprocessBackend,
    PicklableAndCallable,
    ThreadBackend,
    as_completed,
    get_default_chunksize,
    get_parallel_backend,
    get_rank,
    get_size,
    imap,
    is_master_process,
    map,
    set_parallel_backend,
)
from parallel_core.mapping import MappingBackend as Parallel

__all__ = [
    "BackendType",
    "LokyBackend",
    "MPIBackend",
    "MultiprocessBackend",
    "Parallel",
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


def __getattr__(name: str) -> Any:
    """Raise AttributeError, which says what to write instead of the original's `name`."""
    instead = {
        "SIZE": "call get_size()",
        "USING_MPI": "call get_size()",
        "MPI": "import mpi4py.MPI",
    }
    hint = f": {instead[name]}" if name in instead else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
