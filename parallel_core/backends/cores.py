"""How many cores there are for us, and what a number of jobs means."""

from __future__ import annotations

import math
import operator


def cpu_count(only_physical_cores: bool = False) -> int:
    """Return the number of cores that this process may use.

    Counts what the scheduler's affinity mask, the cgroup's quota and ``LOKY_MAX_CPU_COUNT``
    leave, by way of loky.

    Parameters
    ----------
    only_physical_cores : bool, default False
        Count a core with two hardware threads once.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from parallel_core import cpu_count
    >>> cpu_count() >= cpu_count(only_physical_cores=True) >= 1
    True
    """
    from loky.backend.context import cpu_count as count

    cores: int = count(only_physical_cores=only_physical_cores)
    return cores


def check_n_jobs(n_jobs: object) -> int | None:
    """Return `n_jobs` as an integer, floats rounded down; None stays None.

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
        raise ValueError(
            f"n_jobs must be a number, such as 2, or -1 for all cores, or None; not {n_jobs!r}"
        )
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
    """Return how many workers `n_jobs` stands for: ``-1`` all cores, ``-2`` all but one, ..."""
    if n_jobs > 0:
        return n_jobs
    return max(1, cpu_count() + 1 + n_jobs)
