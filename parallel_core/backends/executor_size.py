"""How many workers an executor of the user's has, as far as it tells."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

from parallel_core.errors import PerformanceWarning, warn_caller

#: Where executors keep their size: the standard library's, loky's, ipyparallel's and ours;
#: executorlib's; mpi4py's.
_ATTRIBUTES = ("_max_workers", "max_workers", "num_workers")

_told: set[type] = set()


def executor_size(executor: Executor) -> int | None:
    """Return the number of workers; None where `executor` does not tell."""
    for name in _ATTRIBUTES:
        size = _attribute(executor, name)
        if type(size) is int and size > 0:
            return size
    ncores = _attribute(_attribute(executor, "_client"), "ncores")  # of dask's client
    if not callable(ncores):
        return None
    try:
        return sum(ncores().values()) or None  # a cluster may have no workers yet
    except Exception:
        return None


def _attribute(obj: object, name: str) -> Any:
    try:
        return getattr(obj, name, None)
    except Exception:  # a property, of an executor that has been shut down say
        return None


def tell_size_is_unknown(executor: Executor, n_jobs: int, taken: int) -> None:
    """Say once for each class of executors what `n_jobs` was taken to mean."""
    kind = type(executor)
    if kind in _told:
        return
    _told.add(kind)
    warn_caller(
        f"n_jobs={n_jobs} with an executor that does not tell its size: {kind.__name__} is given "
        f"{taken} batches at a time, by the cores of this machine; pass n_jobs, the number of its "
        "workers",
        PerformanceWarning,
    )
