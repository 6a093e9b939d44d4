"""The parameters of a pool and of its maps, checked; and the spec of a call that they make."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core.backends.options import WorkerSetup
from parallel_core.backends.registry import find_backend
from parallel_core.calls.parameters import defaults_of, unexpected
from parallel_core.calls.spec import spec_of
from parallel_core.context.this_worker import Passed
from parallel_core.errors import warn_caller
from parallel_core.parallel.runner import Runner
from parallel_core.pool.chunking import Cut, default_chunk_size
from parallel_core.pool.insights import Insights
from parallel_core.pool.lease import Wanted
from parallel_core.pool.measuring import TimedEnd, TimedInit

if TYPE_CHECKING:
    from parallel_core.backends.base import Backend

#: Start methods of `multiprocessing`, and ours.
START_METHODS = ("fork", "forkserver", "spawn", "threading", "processes", "loky", "mpi")
_OF_MULTIPROCESSING = ("fork", "forkserver", "spawn")
_SHORTEST = 1e-8  # seconds

#: Parameters of `Parallel` that a pool and its maps take as well, under the same names.
OF_PARALLEL = (
    "call_timeout",
    "check_arrays",
    "idle_worker_timeout",
    "inner_max_num_threads",
    "initargs",
    "initializer",
    "journal",
    "low_memory_timeout",
    "max_nbytes",
    "max_worker_memory",
    "min_free_memory",
    "mmap_mode",
    "observers",
    "on_error",
    "output",
    "pre_dispatch_nbytes",
    "preload",
    "retries",
    "retry_backoff",
    "retry_on",
    "seed",
    "stop_when",
    "temp_folder",
    "verbose",
    "worker_env",
    "worker_lifespan",
)
#: Those of them that single calls by `apply` have no use for.
_OF_MAPS = ("call_timeout", "journal", "seed", "stop_when", "pre_dispatch_nbytes", "verbose")


class PoolParams(NamedTuple):
    """What a pool was asked to be; the parameters of `WorkerPool` of the same names.

    `cpu_ids` has one tuple for each worker, or is empty. `options` are those of `Parallel`.
    """

    n_jobs: int
    daemon: bool = True
    cpu_ids: tuple[tuple[int, ...], ...] = ()
    shared_objects: Any = None
    pass_worker_id: bool = False
    use_worker_state: bool = False
    start_method: str = "fork"
    keep_alive: bool = False
    use_dill: bool = False
    enable_insights: bool = False
    order_tasks: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


class MapParams(NamedTuple):
    """What one map was asked to do; the parameters of the maps of the same names."""

    iterable_len: int | None = None
    max_tasks_active: int | None = None
    chunk_size: float | None = None
    n_splits: int | None = None
    worker_lifespan: int | None = None
    progress_bar: bool = False
    worker_init: Callable[..., object] | None = None
    worker_exit: Callable[..., object] | None = None
    task_timeout: float | None = None
    worker_init_timeout: float | None = None
    worker_exit_timeout: float | None = None
    progress_bar_options: dict[str, Any] | None = None
    progress_bar_style: str | None = None

    def check(self) -> None:
        """Raise TypeError or ValueError unless all of it makes sense."""
        _check_number("iterable_len", self.iterable_len, 0, (int,))
        _check_number("max_tasks_active", self.max_tasks_active, 1, (int,))
        _check_number("chunk_size", self.chunk_size, 1, (int, float))
        _check_number("n_splits", self.n_splits, 1, (int,))
        _check_number("worker_lifespan", self.worker_lifespan, 1, (int,))
        for name in ("task_timeout", "worker_init_timeout", "worker_exit_timeout"):
            _check_number(name, getattr(self, name), _SHORTEST, (int, float))
        for name in ("worker_init", "worker_exit"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function or None, not {function!r}")


def _check_number(name: str, given: Any, least: float, kinds: tuple[type, ...]) -> None:
    """Raise unless `given` is None, or a number of these `kinds` that is not below `least`."""
    if given is None:
        return
    is_whole = hasattr(given, "__index__") and not isinstance(given, bool)
    if not (is_whole or (float in kinds and isinstance(given, float))):
        words = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be of type {words}, or None, not {given!r}")
    if not given >= least:
        raise ValueError(f"{name} must be at least {least:g}, not {given!r}")


def check_pool(
    n_jobs: Any,
    daemon: Any,
    cpu_ids: Any,
    start_method: Any,
    use_dill: bool,
    options: dict[str, Any],
    rest: dict[str, Any],
) -> PoolParams:
    """Return the parameters of a pool; raise TypeError or ValueError unless they make sense."""
    jobs = _check_jobs(n_jobs, start_method)
    if start_method not in START_METHODS:
        known = ", ".join(map(repr, START_METHODS))
        raise ValueError(f"Unknown start method: {start_method!r}; known are {known}")
    if start_method in _OF_MULTIPROCESSING:
        import multiprocessing

        if start_method not in multiprocessing.get_all_start_methods():
            raise ValueError(f"Start method {start_method!r} is not available on this system")
    if use_dill:
        from parallel_core.pool.dilled import check_dill

        check_dill()
    check_options("WorkerPool", options)
    return PoolParams(
        n_jobs=jobs,
        daemon=bool(daemon),
        cpu_ids=_check_cpu_ids(cpu_ids, jobs, start_method),
        start_method=start_method,
        use_dill=bool(use_dill) and start_method != "threading",
        options=options,
        **rest,
    )


def _check_jobs(n_jobs: Any, start_method: Any = None) -> int:
    """Return the number of workers; None and 0 stand for one for each CPU, or each rank of MPI."""
    is_default = n_jobs is None or (type(n_jobs) is int and n_jobs == 0)
    if start_method == "mpi" and (is_default or type(n_jobs) is int):
        return backend_of("mpi").effective_n_jobs(-1 if is_default else n_jobs)
    if is_default:
        return os.cpu_count() or 1
    try:
        number = -1 if isinstance(n_jobs, bool) else operator.index(n_jobs)
    except TypeError:
        raise TypeError(f"n_jobs must be an integer or None, not {n_jobs!r}") from None
    if isinstance(n_jobs, bool):
        raise TypeError(f"n_jobs must be an integer or None, not {n_jobs!r}")
    if number < 0:
        from parallel_core.backends.cores import resolve_n_jobs

        return resolve_n_jobs(number)
    return number


def _check_cpu_ids(given: Any, n_jobs: int, start_method: str) -> tuple[tuple[int, ...], ...]:
    """Return the CPUs of each worker; raise unless there are such."""
    if given is None or (isinstance(given, (list, tuple, range)) and len(given) == 0):
        return ()
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(f"cpu_ids must be a list of integers or of lists of them, not {given!r}")
    if len(given) not in (1, n_jobs):
        raise ValueError(
            f"Number of CPU IDs ({len(given)}) does not match number of jobs ({n_jobs}): give one "
            "entry for each worker, or a single one for all"
        )
    entries = [_check_cpu_entry(entry) for entry in given]
    if len(entries) == 1:
        entries *= n_jobs
    if start_method == "threading":
        warn_caller("cpu_ids has no effect on threads, which share their process", RuntimeWarning)
        return ()
    if not hasattr(os, "sched_setaffinity"):
        warn_caller("cpu_ids has no effect: this system cannot pin processes", RuntimeWarning)
        return ()
    return tuple(entries)


def _check_cpu_entry(entry: Any) -> tuple[int, ...]:
    ids = list(entry) if isinstance(entry, (list, tuple, range)) else [entry]
    for number in ids:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise TypeError(f"a CPU ID must be an integer or a list of integers, not {entry!r}")
        if number < 0:
            raise ValueError(f"CPU IDs cannot be negative: {entry!r}")
        if number >= (os.cpu_count() or 1):
            raise ValueError(
                f"CPU ID {number} exceeds the maximum CPU ID available on this system: "
                f"{(os.cpu_count() or 1) - 1}"
            )
    if not ids:
        raise ValueError("an entry of cpu_ids must name at least one CPU")
    return tuple(map(operator.index, ids))


def check_options(door: str, options: dict[str, Any], of_maps: bool = True) -> None:
    """Raise TypeError for options that are none of `Parallel`'s which pools take."""
    known = set(OF_PARALLEL)
    if not of_maps:
        known.difference_update(_OF_MAPS)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise unexpected(door, unknown, [*MapParams._fields, *PoolParams._fields[:-1], *known])


@functools.cache
def _defaults() -> dict[str, Any]:
    return defaults_of(Runner.__init__)


def wanted_of(
    pool: PoolParams,
    backend: Backend,
    params: MapParams,
    options: dict[str, Any],
    pieces: Cut | None = None,
    insights: Insights | None = None,
) -> Wanted:
    """Return the spec of a call, and what its workers are to be like.

    Parameters of `Parallel` that are given for the call come before those of the pool.
    """
    given = {**_defaults(), **pool.options, **options}
    given.update(backend=backend, n_jobs=pool.n_jobs, timeout=params.task_timeout)
    given.update(order_tasks=pool.order_tasks)
    if params.worker_lifespan is not None:
        given["worker_lifespan"] = params.worker_lifespan
    if pieces is not None:
        size, active = pieces.chunk_size, params.max_tasks_active
        if size is None and (pool.order_tasks or active is not None):
            size = default_chunk_size(pieces.total, pool.n_jobs)
            if active is not None:
                size = max(1, min(size, active // (2 * pool.n_jobs)))
        if size is not None:
            given["batch_size"] = size
            if active is not None:
                given["pre_dispatch"] = max(1, active // size)
    spec = spec_of("WorkerPool", given, {})
    has_shared = pool.shared_objects is not None
    init, exit = params.worker_init, params.worker_exit
    if insights is not None:
        init = None if init is None else TimedInit(init)
        exit = None if exit is None else TimedEnd(exit)
    setup: WorkerSetup | None = (spec.workers.setup or WorkerSetup())._replace(
        init=init,
        exit=exit,
        passed=Passed(pool.pass_worker_id, has_shared, pool.use_worker_state),
        shared_objects=pool.shared_objects,
        cpu_ids=pool.cpu_ids or None,
        init_timeout=params.worker_init_timeout,
        exit_timeout=params.worker_exit_timeout,
        # A fork has the globals and the shared objects of the moment in which it was made.
        is_exclusive=pool.start_method == "fork",
    )
    if setup is not None and not backend.worker_features:
        backend.check_features(setup.asked_for())
        setup = None
    workers = spec.workers._replace(setup=setup)
    passed = None if setup is None else setup.passed
    kind = passed, id(pool.shared_objects), workers._replace(setup=None, lifespan=None)
    spec = spec._replace(workers=workers)
    if insights is None:
        return Wanted(spec, kind)
    spec = spec._replace(observers=(*spec.observers, insights))
    return Wanted(spec, kind, insights.items)


def backend_of(start_method: str) -> Backend:
    """Return the backend whose workers are started in this way."""
    if start_method not in _OF_MULTIPROCESSING:
        return find_backend(start_method)
    import multiprocessing

    return find_backend(multiprocessing.get_context(start_method))


def context_of(start_method: str) -> Any:
    """Return what makes locks, events and the like for workers that are started in this way."""
    import multiprocessing

    is_known = start_method in _OF_MULTIPROCESSING
    context = multiprocessing.get_context(start_method if is_known else "spawn")
    if start_method != "threading":
        return context
    import multiprocessing.dummy

    # Its values and arrays have no lock, which programs for processes ask for.
    own = {"Value": context.Value, "Array": context.Array}
    return SimpleNamespace(**{**vars(multiprocessing.dummy), **own})
