"""Calls within the tasks of calls: what holds there, who runs them, how much they may use."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from parallel_core import Parallel, delayed, parallel_config
from parallel_core.config import current_settings, task_settings

core = pytest.mark.core


# The configuration within tasks.


def what_is_in_force() -> tuple[Any, ...]:
    parallel = Parallel()
    hints = [current_settings().values.get(name) for name in ("prefer", "require")]
    return (parallel.verbose, parallel.max_nbytes, parallel.n_jobs or 1, *hints)


@core
@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_the_configuration_holds_within_tasks(backend: str) -> None:
    """All of it, but what said who runs the outer call."""
    with parallel_config(max_nbytes=77, require="sharedmem"):
        got = Parallel(2, backend=backend)([delayed(what_is_in_force)() for _ in range(3)])
        assert got == [(0, 77, 1, None, "sharedmem")] * 3
    with parallel_config("threading", n_jobs=2, idle_worker_timeout=5, max_nbytes=77):
        seen = Parallel()([delayed(current_settings)()])[0]
    assert (seen.values, seen.backend_params) == ({"max_nbytes": 77}, {})


class UnpicklablePath(type(Path())):  # type: ignore[misc]  # which one depends on the system
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def test_settings_of_tasks_can_be_pickled_whatever_is_in_them() -> None:
    with parallel_config(temp_folder=UnpicklablePath("/tmp"), max_nbytes=77):
        settings = pickle.loads(pickle.dumps(task_settings(cores=3)))
    assert (settings.values, settings.cores) == ({"max_nbytes": 77}, 3)
