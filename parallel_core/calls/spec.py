"""What a call was asked to do: the parameters of `Parallel`, checked, in groups.

::

    keywords of Parallel or get_executor ──▶ spec_of ──▶ CallSpec: backend, n_jobs, verbose
                                               │           ├─ Results    what the caller gets
    parallel_config, nesting level ────────────┘           ├─ Failures   what becomes of tasks
                                                           ├─ Bounds     time, memory, how far ahead
                                                           ├─ Arrays     how large ones travel
                                                           └─ WorkerOptions

A parameter stands in three places: the signature and docstring of `Parallel`, a field here, and
whatever uses that field.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.options import WorkerOptions, WorkerSetup
from parallel_core.backends.registry import default_backend_name, takes_params
from parallel_core.calls import checks
from parallel_core.calls.choice import choose_backend
from parallel_core.calls.parameters import unexpected
from parallel_core.config import WORKER_DEFAULTS, Unset, setting
from parallel_core.context.seeds import check_seed
from parallel_core.context.this_worker import NOTHING_PASSED, Passed
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.dispatch.policy import Policy
from parallel_core.observe.observers import check_observers
from parallel_core.observe.progress import wanted_progress
from parallel_core.tasks.placeholders import NO_RESULT

if TYPE_CHECKING:
    from parallel_core.context.item import ContextItem
    from parallel_core.dispatch.memory import MemoryGate
    from parallel_core.observe.observers import Observer
    from parallel_core.observe.progress import Wanted
    from parallel_core.reduction.results import Reduction
    from parallel_core.trace.file import TraceFile
    from parallel_core.trace.target import Target


class Results(NamedTuple):
    """The return value of a call; the parameters of `Parallel` of the same names."""

    return_as: ReturnAs = ReturnAs.LIST
    stop_when: Callable[[Any], object] | None = None
    reduce: Callable[[Any, Any], Any] | None = None
    reduce_initial: Any = NO_RESULT
    output: str = "pass"

    def reduction(self) -> Reduction | None:
        """Return how the results of one call are folded."""
        if self.reduce is None:
            return None
        from copy import deepcopy

        from parallel_core.reduction.results import Reduction

        initial = deepcopy(self.reduce_initial)  # what is folded into it is for one call
        return Reduction(self.reduce, initial)

    def context_items(self) -> tuple[ContextItem, ...]:
        """Return what surrounds each task on behalf of `output`."""
        if self.output == "pass":
            return ()
        from parallel_core.output.capture import CapturesOutput, DiscardsOutput

        return (CapturesOutput() if self.output == "capture" else DiscardsOutput(),)


class Failures(NamedTuple):
    """The treatment of failures; the parameters of `Parallel` of the same names."""

    on_error: Any = "raise"
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    retry_backoff: float = checks.RETRY_BACKOFF

    def policy(self) -> Policy:
        """Return the policy for one call."""
        return Policy(*self)


class Bounds(NamedTuple):
    """Limits of time, memory and distance; the parameters of `Parallel` of the same names."""

    timeout: float | None = None
    call_timeout: float | None = None
    pre_dispatch: float | str = "2*n_jobs"  #: as given, since its value depends on the workers
    pre_dispatch_nbytes: int | None = None
    batch_size: int | None = None  #: None adapts it
    min_free_memory: int | None = None
    low_memory_timeout: float | None = checks.LOW_MEMORY_TIMEOUT
    order_tasks: bool = False

    def gate(self) -> MemoryGate | None:
        """Return what holds one call back while too little memory is free."""
        if self.min_free_memory is None:
            return None
        from parallel_core.dispatch.memory import MemoryGate

        return MemoryGate(self.min_free_memory, self.low_memory_timeout)


class Arrays(NamedTuple):
    """How large arrays travel; the parameters of `Parallel` of the same names."""

    temp_folder: Any = None
    max_nbytes: Any = "1M"
    mmap_mode: Any = "r"
    check_arrays: str = "auto"


class CallSpec(NamedTuple):
    """What a call was asked to do."""

    backend: Backend
    n_jobs: int  #: as requested
    is_named: bool = False  #: whether the call itself names its backend
    remark: str | None = None  #: a request that is not met, for a message
    verbose: int = 0
    results: Results = Results()
    failures: Failures = Failures()
    bounds: Bounds = Bounds()
    arrays: Arrays = Arrays()
    workers: WorkerOptions = WorkerOptions()
    journal: Any = None
    seed: Any = None
    observers: tuple[Observer, ...] = ()
    progress: Wanted | None = None
    trace: Target | TraceFile | None = None  #: the latter for all calls of a block

    def effective_n_jobs(self) -> int:
        """Return the number of workers that a call gets if it begins now."""
        return self.backend.effective_n_jobs(self.n_jobs)

    @property
    def trace_path(self) -> str | None:
        """The path of the trace, without links; None if there is none."""
        return None if self.trace is None else os.path.realpath(self.trace.path)

    def features(self) -> list[str]:
        """Return the given parameters of single workers, which not every backend supports."""
        setup = self.workers.setup
        asked_for = [] if setup is None else setup.asked_for()
        return [*asked_for, "order_tasks"] if self.bounds.order_tasks else asked_for


#: Specs that were made from values of these types alone are kept: `Parallel(n_jobs=2)` in a loop is
#: a common program. Nothing that a caller made is kept alive by it.
_PLAIN = {int, float, bool, str, type(None), Unset, type(NO_RESULT), type(())}
_MOST_KEPT = 64
_kept: dict[tuple[Any, ...], CallSpec] = {}


def spec_of(
    door: str,
    params: dict[str, Any],
    backend_params: dict[str, Any],
    default_n_jobs: int | None = None,
) -> CallSpec:
    """Return the spec of a call; raise ValueError or TypeError for invalid parameters.

    `door` is the class or function that got them, for errors. `params` has all parameters of
    `Parallel`, in the order of its signature.
    """
    settings = config.current_settings()
    backend = params["backend"]
    if backend_params or takes_params(default_backend_name() if backend is None else backend):
        return _make_spec(door, params, backend_params, default_n_jobs, settings)
    values = params.values()
    types = tuple(map(type, values))  # 1, 1.0 and True are equal
    if not _PLAIN.issuperset(types):
        return _make_spec(door, params, backend_params, default_n_jobs, settings)
    context = settings, config.nesting_level(), default_backend_name(), default_n_jobs
    key = (types, *values, *context)
    try:
        found = _kept.get(key)
    except TypeError:  # a tuple of something that has no hash
        return _make_spec(door, params, backend_params, default_n_jobs, settings)
    if found is None:
        found = _make_spec(door, params, backend_params, default_n_jobs, settings)
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[key] = found
    return found


def _make_spec(
    door: str,
    params: dict[str, Any],
    backend_params: dict[str, Any],
    default_n_jobs: int | None,
    settings: config.Settings,
) -> CallSpec:
    given = params["backend"]
    if backend_params and not takes_params(given):
        raise unexpected(door, backend_params, params)
    jobs = checks.check_n_jobs(params["n_jobs"])
    of_context = {
        name: setting(name, params[name], settings)
        for name in ("verbose", *Arrays._fields, "output", "observers")
    }
    arrays = Arrays(*(of_context[name] for name in Arrays._fields))
    checks.check_of_arrays(*arrays)
    workers = {name: params[name] for name in WORKER_DEFAULTS if type(params[name]) is not Unset}
    if given is None and settings.backend_params:
        workers = {**settings.backend_params, **workers}
    results = Results(
        checks.check_return_as(params["return_as"]),
        params["stop_when"],
        params["reduce"],
        params["reduce_initial"],
        of_context["output"],
    )
    failures = Failures(*checks.check_failures(*(params[name] for name in Failures._fields)))
    checks.check_results(**results._asdict(), on_error=failures.on_error, journal=params["journal"])
    backend, n_jobs, remark = choose_backend(
        given, jobs, params["prefer"], params["require"], backend_params
    )
    if n_jobs is None:
        n_jobs = backend.default_n_jobs if default_n_jobs is None else default_n_jobs
    passed = Passed(state=checks.check_flag(params["use_worker_state"], "use_worker_state"))
    spec = CallSpec(
        backend=backend,
        n_jobs=n_jobs,
        is_named=given is not None,
        remark=remark,
        verbose=checks.check_verbose(of_context["verbose"]),
        results=results,
        failures=failures,
        bounds=_bounds(params),
        arrays=arrays,
        workers=worker_options(workers, passed),
        journal=params["journal"],
        seed=check_seed(params["seed"]),
        observers=check_observers(of_context["observers"]),
        progress=wanted_progress(
            setting("progress", params["progress"], settings),
            is_explicit=type(params["progress"]) is not Unset,
        ),
        trace=_trace(setting("trace", params["trace"], settings)),
    )
    if features := spec.features():
        backend.check_features(features)
        if spec.workers.setup is not None:
            spec.workers.setup.check_n_jobs(spec.effective_n_jobs())
    return spec


def _trace(given: Any) -> Target | TraceFile | None:
    if given is None:
        return None
    from parallel_core.trace.file import trace_of

    return trace_of(given)


def _bounds(params: dict[str, Any]) -> Bounds:
    checks.check_pre_dispatch(params["pre_dispatch"])
    return Bounds(
        timeout=checks.check_timeout(params["timeout"]),
        call_timeout=checks.check_timeout(params["call_timeout"], "call_timeout"),
        pre_dispatch=params["pre_dispatch"],
        pre_dispatch_nbytes=checks.check_size(params["pre_dispatch_nbytes"], "pre_dispatch_nbytes"),
        batch_size=checks.check_batch_size(params["batch_size"]),
        min_free_memory=checks.check_size(params["min_free_memory"], "min_free_memory"),
        low_memory_timeout=checks.check_timeout(params["low_memory_timeout"], "low_memory_timeout"),
        order_tasks=checks.check_flag(params["order_tasks"], "order_tasks"),
    )


def worker_options(given: dict[str, Any], passed: Passed = NOTHING_PASSED) -> WorkerOptions:
    """Return the checked parameters of workers, with defaults for those that were not given."""
    params = {**WORKER_DEFAULTS, **given} if given else WORKER_DEFAULTS
    checks.check_initializer(params["initializer"], params["initargs"])
    return WorkerOptions(
        initializer=params["initializer"],
        initargs=tuple(params["initargs"]),
        idle_seconds=checks.check_idle_seconds(params["idle_worker_timeout"]),
        thread_limit=checks.check_count(params["inner_max_num_threads"], "inner_max_num_threads"),
        lifespan=checks.check_count(params["worker_lifespan"], "worker_lifespan"),
        max_memory=checks.check_size(params["max_worker_memory"], "max_worker_memory"),
        preload=checks.check_preload(params["preload"]),
        setup=_setup(params, passed),
    )


def _setup(params: dict[str, Any], passed: Passed) -> WorkerSetup | None:
    """Return what is to be done for each worker by itself; None where that is nothing."""
    setup = WorkerSetup(
        init=checks.check_function(params["worker_init"], "worker_init"),
        exit=checks.check_function(params["worker_exit"], "worker_exit"),
        passed=passed,
        cpu_ids=checks.check_cpu_ids(params["cpu_ids"]),
        env=checks.check_worker_env(params["worker_env"]),
    )
    return setup if setup.asked_for() else None
