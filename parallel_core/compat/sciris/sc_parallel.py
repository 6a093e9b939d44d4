"""``sciris.sc_parallel``: parallelism in one call."""

from __future__ import annotations

from parallel_core.scripting import (
    ParallelRun,
    cpu_count,
    cpu_load,
    loadbalancer,
    memory_load,
    parallel_progress,
    parallelcmd,
    parallelize,
)

#: The original's names of these.
Parallel = ParallelRun
cpucount = cpu_count
cpuload = cpu_load
mem_load = memload = memory_load

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
