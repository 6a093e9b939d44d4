"""``from parallel_core.compat import joblib`` replaces ``import joblib`` for parallelism."""

from __future__ import annotations

from typing import Any

from parallel_core import (
    Parallel,
    cpu_count,
    delayed,
    effective_n_jobs,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
    wrap_non_picklable_objects,
)
from parallel_core import __version__ as __version__
from parallel_core.backends.conventions import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)
from parallel_core.bridge.joblib_patch import install as install
from parallel_core.bridge.joblib_patch import uninstall as uninstall

__all__ = [
    "AutoBatchingMixin",
    "FallbackToBackend",
    "Parallel",
    "ParallelBackendBase",
    "SequentialBackend",
    "ThreadingBackend",
    "cpu_count",
    "delayed",
    "effective_n_jobs",
    "parallel_backend",
    "parallel_config",
    "register_parallel_backend",
    "wrap_non_picklable_objects",
]


def __getattr__(name: str) -> Any:
    """Raise AttributeError, which says where to have what joblib has by that `name`."""
    if name in ("dump", "load"):
        where = f"memmapping.{name} has its place; joblib.load reads the files of joblib.dump"
    else:
        where = "only what runs calls is here; import everything else from joblib itself"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {where}")
