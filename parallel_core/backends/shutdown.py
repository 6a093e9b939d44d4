"""Ending idle workers before their time."""

from __future__ import annotations

from memmapping.modules import loaded
from parallel_core.workers.pool import end_idle_workers


def shutdown_workers() -> int:
    """End the idle workers of this process now, and free their memory.

    Shared memory that is kept for the arrays of the next call is freed as well. Running calls keep
    their workers and memory. The next call starts new workers. Idle workers on engines such as dask
    end as well, and so does a local cluster that was started for them. If ``"loky"`` was used,
    loky's reusable executor is shut down, too, unless it is running tasks.

    Returns
    -------
    int
        Number of the library's own workers that were ended.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed, shutdown_workers
    >>> Parallel(n_jobs=2)(delayed(abs)(x) for x in (-1, -2))
    [1, 2]
    >>> shutdown_workers() >= 2
    True
    """
    loky = loaded("parallel_core.backends.loky")
    if loky is not None:
        loky.LokyBackend.shutdown()
    ended = end_idle_workers()
    teams = loaded("parallel_core.backends.cluster.teams")
    if teams is not None:
        ended += teams.end_remote_workers()
    dask = loaded("parallel_core.backends.cluster.dask")
    if dask is not None:
        dask.close_dask()
    ray = loaded("parallel_core.backends.cluster.ray")
    if ray is not None:
        ray.close_ray()
    store = loaded("memmapping.store")
    if store is not None:
        store.free_kept_memory()
    return ended
