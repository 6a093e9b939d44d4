"""Settings that the tasks of a call get, for the calls that they make themselves."""

from __future__ import annotations

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.cores import cores_here


def settings_of_tasks(backend: Backend, n_jobs: int, threads: int | None = None) -> config.Settings:
    """Return the settings that apply in the tasks of a call that begins here."""
    outer = config.current_settings()
    if threads is None:  # workers other than threads, which may have been told themselves
        said = (outer.threads, outer.backend_params.get("inner_max_num_threads"))
        threads = min((number for number in said if number is not None), default=None)
    nested = None
    if outer.values.get("nested") is None:
        nested = backend.nested(config.nesting_level() + 1)
    return config.task_settings(cores_here() // n_jobs or 1, threads, nested)
