"""Parallelism in one call, in the words of sciris: another door to the same calls.

::

    parallelize ─────┐                   ┌─ jobs      iterarg, iterkwargs ... ──▶ argslist
    parallelcmd ─────┼──▶ ParallelRun ───┼─ methods   parallelizer ──▶ a backend, or a map function
    parallel_progress┘        │          ├─ items     what is known of each job in its worker
                              ▼          └─ loads     maxcpu, maxmem ──▶ LoadGate, in dispatch
                             Call ──▶ results, exceptions, times

- `one_call`: the functions; `run`: `ParallelRun`, which makes one call and keeps its outcomes.
- `jobs`: the arguments of each job; `methods`: what runs the jobs, and how many at a time.
- `items`: what surrounds each job: its time, copies of its arguments.
- `loads`: limits of the load, and `loadbalancer`.
- `command`: `parallelcmd`; `block`: the code of one, in a worker.

Each name is imported when it is first used: workers that unpickle a part of this room need no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_core.backends.cores import cpu_count as cpu_count
    from parallel_core.dispatch.load import cpu_load as cpu_load
    from parallel_core.dispatch.load import memory_load as memory_load
    from parallel_core.scripting.command import parallelcmd as parallelcmd
    from parallel_core.scripting.loads import loadbalancer as loadbalancer
    from parallel_core.scripting.one_call import parallel_progress as parallel_progress
    from parallel_core.scripting.one_call import parallelize as parallelize
    from parallel_core.scripting.run import ParallelRun as ParallelRun

_HOMES = {
    "ParallelRun": "scripting.run",
    "cpu_count": "backends.cores",
    "cpu_load": "dispatch.load",
    "loadbalancer": "scripting.loads",
    "memory_load": "dispatch.load",
    "parallel_progress": "scripting.one_call",
    "parallelcmd": "scripting.command",
    "parallelize": "scripting.one_call",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the names are strings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"parallel_core.{_HOMES[name]}"), name)
