"""``from parallel_core.compat import sciris`` replaces ``import sciris`` for parallelism."""

from __future__ import annotations

from typing import Any

from .sc_parallel import (
    Parallel,
    cpu_count,
    cpu_load,
    cpucount,
    cpuload,
    loadbalancer,
    mem_load,
    memload,
    parallel_progress,
    parallelcmd,
    parallelize,
)

__all__ = [
    "Parallel",
    "cpu_count",
    "cpu_load",
    "cpucount",
    "cpuload",
    "loadbalancer",
    "mem_load",
    "memload",
    "parallel_progress",
    "parallelcmd",
    "parallelize",
]


def __getattr__(name: str) -> Any:
    """Raise AttributeError, which says where to have what sciris has by that `name`."""
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: only what runs functions in parallel is "
        "here; import everything else from sciris itself"
    )
