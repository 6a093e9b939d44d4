"""Who gets what of a busy worker's tasks, when another worker has nothing to do."""

from __future__ import annotations

#: Seconds of work below which it costs more to take tasks back than to let them be.
WORTH_SECONDS = 3e-4


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
