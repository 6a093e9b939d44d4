"""How long perfect workers would take: in the order of the tasks, and with no overhead."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from time import perf_counter, sleep


def ideal_seconds(
    durations: Iterable[float], n_jobs: int, *, added: float = 0.0, every: float = 0.0
) -> float:
    """Return the makespan of `n_jobs` workers, each of which takes the next task when it is free.

    Parameters
    ----------
    durations : iterable of float
        Seconds that each task takes.
    n_jobs : int
        Number of workers.
    added : float
        Seconds that each takes longer than it says, as a sleep does.
    every : float
        Seconds from one task to the next, where they do not come all at once.

    Examples
    --------
    >>> ideal_seconds([1, 1, 4], 2)
    5.0
    >>> ideal_seconds([1, 1], 2, every=3.0)
    7.0
    """
    free = [0.0] * n_jobs
    came = 0.0
    for duration in durations:
        came += every
        heapq.heapreplace(free, max(came, free[0]) + duration + added)
    return max(free)


def cost_of_a_sleep(durations: Sequence[float], within: float = 0.5) -> float:
    """Return how much longer than it says a sleep takes here and now, on average.

    Longer sleeps cost more than short ones, so it is measured with as many of `durations`, drawn
    evenly from them, as take about `within` seconds.
    """
    step = max(1, round(sum(durations) / within))
    chosen = durations[::step] if len(durations) >= 20 * step else durations[:20]
    begin = perf_counter()
    for seconds in chosen:
        sleep(seconds)
    return (perf_counter() - begin - sum(chosen)) / len(chosen)
