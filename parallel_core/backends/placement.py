"""Who gets the next batch, and who gives what it has not begun: rules without workers or clocks.

The session of worker processes asks for all its workers, the simulation for the few that its heaps
find; the answers are the same. (Threads see less of each other: see `thread_worker`.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from parallel_core.backends.base import NEVER

W = TypeVar("W")

#: Seconds of work below which it costs more to take tasks back than to let them be.
WORTH_SECONDS = 3e-4
_UNPROVEN = 1 << 20  # more batches than any worker may have


def load(queued: int, has_answered: bool, takes_no_more: bool) -> int:
    """Return how bad a choice a worker with `queued` batches is for the next one.

    One that has not answered in this call yet may be on a long task, so a batch goes behind another
    only after its first answer. A worker `takes_no_more` before it has answered what it has, or at
    all; such a one is taken where there is no other.

    Examples
    --------
    >>> load(0, False, False) < load(1, True, False) < load(1, False, False)
    True
    """
    if takes_no_more:
        return queued + 2 * _UNPROVEN
    return queued if has_answered or not queued else queued + _UNPROVEN


def choose_victim(
    candidates: Iterable[tuple[W, int, float]],
    now: float,
    task_seconds: float,
    least: float = WORTH_SECONDS,
) -> tuple[W | None, int, float]:
    """Return from whom to take tasks: from the worker that has the most, in time.

    Parameters
    ----------
    candidates : iterable of tuple
        Busy workers; for each, how many tasks it has not started, and for how many seconds it has
        been on the one before them.
    now : float
        The time.
    task_seconds : float
        What a task takes, as far as is known; else 0.
    least : float
        Seconds of work that are worth it.

    Returns
    -------
    victim : object or None
        The worker; None when it is not worth it, now.
    keep : int
        How many of its tasks it keeps.
    again : float
        When it may be worth it, if there is no victim.

    Examples
    --------
    >>> choose_victim([("a", 4, 0.0), ("b", 9, 0.0)], now=5.0, task_seconds=1.0)
    ('b', 4, inf)
    """
    most, again = 0.0, NEVER
    victim, keep = None, 0
    for worker, unstarted, running_for in candidates:
        if not unstarted:
            continue
        worth = unstarted * task_seconds
        share = tasks_to_leave(unstarted, running_for, task_seconds, least)
        if share is None:
            again = min(again, now + max(worth, least) + WORTH_SECONDS)
        elif (size := max(worth, running_for)) > most:
            most, victim, keep = size, worker, share
    return victim, keep, again


def tasks_to_leave(
    unstarted: int, running_for: float, task_seconds: float, least: float = WORTH_SECONDS
) -> int | None:
    """Return how many of its tasks a busy worker keeps; None where they are better left to it.

    It keeps half of them, so that both end together, and the answer to what was taken back is
    rarely waited for. It keeps none when the task that it is on has taken longer than all those
    behind it are thought to take: nobody knows how long it still will.

    Parameters
    ----------
    unstarted : int
        How many it has not started, at least one.
    running_for : float
        For how many seconds it has been on the task before them.
    task_seconds : float
        What a task takes, as far as is known; else 0.
    least : float
        Seconds of work that are worth it.

    Examples
    --------
    >>> tasks_to_leave(100, running_for=0.001, task_seconds=0.01)
    50
    >>> tasks_to_leave(100, running_for=2.0, task_seconds=0.01)
    0
    >>> tasks_to_leave(2, running_for=0.0, task_seconds=1e-6) is None
    True
    """
    if running_for > max(unstarted * task_seconds, least):
        return 0
    keep = unstarted // 2
    return None if (unstarted - keep) * task_seconds < least else keep
