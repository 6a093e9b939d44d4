"""How many cores there are for us, what a number of jobs means, and its share of the cores."""

from __future__ import annotations

import math
import operator
import os
import time
from collections.abc import Mapping

from memmapping.folders import cgroup_folders
from parallel_core import config
from parallel_core.workers.threads import enclosing_limit, general_limit, process_environment

_QUOTA_SECONDS = 1.0  # for which a quota that was read is good; reading takes as long as a call


def cpu_count(only_physical_cores: bool = False) -> int:
    """Return the number of cores that this process may use.

    The scheduler's affinity mask, the quota of the cgroup and ``LOKY_MAX_CPU_COUNT`` limit it.

    Parameters
    ----------
    only_physical_cores : bool, default False
        Whether to count a core with two hardware threads once.

    Returns
    -------
    int
        Number of cores, at least 1.

    Examples
    --------
    >>> from parallel_core import cpu_count
    >>> cpu_count() >= cpu_count(only_physical_cores=True) >= 1
    True
    """
    cores = _usable_cores(process_environment())
    if only_physical_cores:
        from loky.backend.context import cpu_count as count

        cores = min(cores, count(only_physical_cores=True))
    return cores


def cores_here() -> int:
    """Return how many cores the calls around this code have left to what starts here."""
    cores = cpu_count()
    left = config.current_settings().cores
    if left is None:  # a worker that has not been told; what it may use is as good a figure
        left = enclosing_limit(process_environment())
    return cores if left is None else min(left, cores)


def threads_per_worker(n_jobs: int, limit: int | None) -> int:
    """Return how many threads numeric libraries may use in each of `n_jobs` workers.

    Parameters
    ----------
    n_jobs : int
        How many, resolved.
    limit : int or None
        What the caller said.

    Returns
    -------
    int
        `limit`, or a share of the cores such that workers and threads together do not exceed
        them. In a task, no more than it has got itself; by default, its share of that, and no more
        than an ``OMP_NUM_THREADS`` of the user's allows.
    """
    environment = process_environment()
    settings = config.current_settings()
    enclosing = settings.threads or enclosing_limit(environment)
    if limit is not None:
        return limit if enclosing is None else min(limit, enclosing)
    cores = _usable_cores(environment)
    for most in (enclosing, settings.cores):
        if most is not None and most < cores:
            cores = most
    share = cores // n_jobs or 1
    general = general_limit(environment)
    return share if general is None else min(share, general)


def _usable_cores(environment: Mapping[bytes, bytes]) -> int:
    """Return what affinity, the cgroup and the user's variable leave; cheap enough for each call.

    loky counts the same way, and takes longer to import than two workers to start.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on this system
        cores = os.cpu_count() or 1
    quota = _quota()
    if quota is not None and quota < cores:
        cores = quota
    value = environment.get(b"LOKY_MAX_CPU_COUNT")
    if value:
        try:
            cores = min(cores, int(value))
        except ValueError:
            raise ValueError(
                f"LOKY_MAX_CPU_COUNT must be a number, not {os.fsdecode(value)!r}"
            ) from None
    return max(1, cores)


_last_quota: tuple[float, int | None] = (-math.inf, None)


def _quota() -> int | None:
    """Return how many cores the quotas of the cgroups around this process amount to, rounded up."""
    global _last_quota
    now = time.monotonic()
    since, quota = _last_quota
    if now - since > _QUOTA_SECONDS:
        folders = cgroup_folders("cpu")
        quotas = [cores for folder in folders if (cores := _quota_in(folder)) is not None]
        quota = min(quotas, default=None)
        _last_quota = now, quota
    return quota


def _quota_in(folder: str) -> int | None:
    try:
        try:
            with open(f"{folder}/cpu.max") as file:
                quota, period = file.read().split()
        except FileNotFoundError:
            with open(f"{folder}/cpu.cfs_quota_us") as file:
                quota = file.read()
            with open(f"{folder}/cpu.cfs_period_us") as file:
                period = file.read()
        cores = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # there is none, or it says "max"
        return None
    return cores if cores > 0 else None


def check_n_jobs(n_jobs: object) -> int | None:
    """Return `n_jobs` as an integer, floats rounded down, text read as one; None stays None.

    Raises
    ------
    ValueError
        For 0, NaN and infinities.
    TypeError
        For what is no number.
    """
    if n_jobs is None or (type(n_jobs) is int and n_jobs):
        return n_jobs
    if isinstance(n_jobs, (str, bytes)):
        try:
            n_jobs = int(n_jobs if isinstance(n_jobs, str) else "no number")
        except ValueError:
            raise ValueError(
                f"n_jobs must be a number, such as 2, or -1 for all cores, or None; not {n_jobs!r}"
            ) from None
    try:
        number = operator.index(n_jobs)  # type: ignore[arg-type]  # the TypeError is the answer
    except TypeError:
        try:
            value = float(n_jobs)  # type: ignore[arg-type]  # as above
        except (TypeError, ValueError):
            raise TypeError(
                f"n_jobs must be a number or None, not {n_jobs!r} of type {type(n_jobs).__name__!r}"
            ) from None
        if not math.isfinite(value):
            raise ValueError(f"n_jobs must be a finite number, not {n_jobs!r}") from None
        number = math.floor(value)
    if number == 0:
        raise ValueError(
            f"n_jobs={n_jobs!r} means no workers at all: pass 1 for none beside this process, "
            "-1 for all cores, or None for what the context says"
        )
    return number


def resolve_n_jobs(n_jobs: int) -> int:
    """Return how many workers `n_jobs` stands for: ``-1`` all cores, ``-2`` all but one, ...

    Within a task it is all cores, or all but one, of those that the calls around it left to it.
    """
    if n_jobs > 0:
        return n_jobs
    return max(1, cores_here() + 1 + n_jobs)
