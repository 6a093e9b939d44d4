"""Limits of the load: for the jobs of a run, and for whoever calls `loadbalancer` itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from parallel_core.dispatch.load import WINDOW_SECONDS, LoadGate, cpu_load, memory_load
from parallel_core.errors import warn_caller

_INTERVAL = 0.5
_SHORTEST_INTERVAL = 0.001
_LONGEST_WAIT = 36_000.0
_OPTIONS = ("maxcpu", "maxmem", "interval", "maxtime")
#: Options of `loadbalancer` that have no meaning where nothing sleeps and nothing is printed.
_UNUSED = ("cpu_interval", "index", "label", "verbose")


def loadbalancer(
    maxcpu: float | None = 0.9,
    maxmem: float | None = 0.9,
    index: int | None = None,
    interval: float | None = None,
    cpu_interval: float = WINDOW_SECONDS,
    maxtime: float | None = _LONGEST_WAIT,
    label: str | None = None,
    verbose: bool | None = None,
    maxload: float | None = None,
) -> str:
    """Wait while the load of this machine is too high.

    `parallelize` has no need of it: with `maxcpu` or `maxmem`, it holds jobs back itself.

    Parameters
    ----------
    maxcpu : float or None, default 0.9
        Load of all processors above which to wait, from 0 to 1. Numbers above 1 are percentages.
        None or False: no limit.
    maxmem : float or None, default 0.9
        The same for the part of the memory that is in use.
    index : int, optional
        Number of this process. It first waits for `index` times `interval`, so that processes that
        start together look one after the other; without it, for a random time.
    interval : float, default 0.5
        Seconds between two looks.
    cpu_interval : float, default 0.1
        Seconds for which the load is measured.
    maxtime : float or None, default 36000
        Seconds after which to go on whatever the load is. None: never.
    label : str, optional
        Words in front of messages.
    verbose : bool, optional
        Whether to print all messages. By default, only that it waits; False prints nothing.
    maxload : float, optional
        Former name of `maxcpu`.

    Returns
    -------
    str
        Last message: what the load was when it went on.

    Examples
    --------
    >>> from parallel_core import loadbalancer
    >>> loadbalancer(maxcpu=None, maxmem=0.999, index=0).startswith("memory")
    True
    """
    limits = {
        "CPU": check_load(_renamed(maxcpu, maxload, default=0.9), "maxcpu"),
        "memory": check_load(maxmem, "maxmem"),
    }
    pause = _INTERVAL if interval is None else _seconds(interval, "interval")
    if pause < _SHORTEST_INTERVAL:
        pause = _SHORTEST_INTERVAL
        warn_caller(f"interval={interval!r} is too short; it is {pause} s now", UserWarning)
    longest = float("inf") if maxtime is None else _seconds(maxtime, "maxtime")
    began = time.monotonic()
    time.sleep(random.uniform(0, 2 * pause) if index is None else index * pause)
    front = "" if label is None else f"{label}: "
    while True:
        told, is_high = _look(limits, cpu_interval)
        if not is_high or time.monotonic() - began > longest:
            break
        if verbose is not False:
            print(f"{front}{told}: waiting for {pause:g} s")
        time.sleep(pause)
    words = f"{front}{told}: {f'going on after {longest:g} s' if is_high else 'starting'}"
    if verbose:
        print(words)
    return words


def _look(limits: dict[str, float | None], cpu_interval: float) -> tuple[str, bool]:
    """Return the loads in words, and whether one of them is too high."""
    told, is_high = [], False
    for what, limit in limits.items():
        if limit is not None:
            load = cpu_load(cpu_interval) if what == "CPU" else memory_load()
            is_high |= load > limit
            told.append(f"{what} {load:.0%} {'>' if load > limit else '≤'} {limit:.0%}")
    return ", ".join(told) or "no limit", is_high


def gate_maker(
    maxcpu: Any, maxmem: Any, interval: Any, options: dict[str, Any]
) -> Callable[[], LoadGate] | None:
    """Return what makes the gate that holds the jobs of a run back; None without a limit."""
    if unknown := sorted(options.keys() - {*_OPTIONS, *_UNUSED}):
        known = ", ".join(map(repr, _OPTIONS))
        raise TypeError(f"lbkwargs has no option {unknown[0]!r}; known are {known}")
    given = {"maxcpu": maxcpu, "maxmem": maxmem, "interval": interval, "maxtime": _LONGEST_WAIT}
    given.update({name: options[name] for name in _OPTIONS if name in options})
    max_cpu = check_load(given["maxcpu"], "maxcpu")
    max_memory = check_load(given["maxmem"], "maxmem")
    pause = WINDOW_SECONDS if given["interval"] is None else _seconds(given["interval"], "interval")
    patience = None if given["maxtime"] is None else _seconds(given["maxtime"], "maxtime")
    if max_cpu is None and max_memory is None:
        return None
    memory_load()  # raises where nothing can measure
    return partial(LoadGate, max_cpu, max_memory, max(pause, _SHORTEST_INTERVAL), patience)


def check_load(given: Any, name: str) -> float | None:
    """Return a limit as a part of 1; None for no limit. Raise unless a machine can have it."""
    if given is None or given is False:
        return None
    if isinstance(given, (bool, str)) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} must be a number between 0 and 1, a percentage or None: {given!r}")
    limit = float(given)
    if not 0 < limit <= 100:
        raise ValueError(
            f"no machine can have {name}={given!r}: give a number between 0 and 1, a percentage up "
            "to 100, or None for no limit"
        )
    return limit / 100 if limit > 1 else limit


def with_former_name(maxcpu: Any, func_kwargs: dict[str, Any]) -> Any:
    """Return `maxcpu`, or its value by the former name, which is taken out of `func_kwargs`."""
    return _renamed(maxcpu, func_kwargs.pop("maxload", None))


def _renamed(maxcpu: Any, maxload: Any, default: Any = None) -> Any:
    if maxload is None:
        return maxcpu
    warn_caller("maxload has a new name: write maxcpu", FutureWarning)
    if maxcpu != default:
        raise TypeError("give maxcpu or maxload, which is its former name, not both")
    return maxload


def _seconds(given: Any, name: str) -> float:
    """Return a number of seconds; raise TypeError or ValueError for anything else."""
    if isinstance(given, (bool, str)) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} must be a number of seconds, not {given!r}")
    seconds = float(given)
    if not seconds >= 0:
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {given!r}")
    return seconds
