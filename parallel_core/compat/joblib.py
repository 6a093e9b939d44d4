"""``from parallel_core.compat import joblib`` replaces ``import joblib`` for parallelism."""

from __future__ import annotations

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
from parallel_core.bridge.places import install as install
from parallel_core.bridge.places import uninstall as uninstall

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
