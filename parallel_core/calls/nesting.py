"""What the tasks of a call are told of it, for the calls that they make themselves."""

from __future__ import annotations

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.cores import cores_here


def settings_of_tasks(backend: Backend, n_jobs: int, threads: int | None = None) -> config.Settings:
    """Return what is in force in the tasks of a call that begins here.

    Parameters
    ----------
    backend : Backend
        That runs them.
    n_jobs : int
        How many of them run at a time; each gets an equal share of the cores.
    threads : int, optional
        How many threads numeric libraries may use in each, for threads of this process; for other
        workers, which may have been told themselves, what was said here.
    """
    outer = config.current_settings()
    if threads is None:
        said = (outer.threads, outer.backend_params.get("inner_max_num_threads"))
        threads = min((number for number in said if number is not None), default=None)
    nested = None
    if outer.values.get("nested") is None:
        nested = backend.nested(config.nesting_level() + 1)
    return config.task_settings(cores_here() // n_jobs or 1, threads, nested)
