"""`parallel_config` and `parallel_backend`, and questions about the configuration."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.cores import check_n_jobs
from parallel_core.backends.registry import find_backend, takes_params
from parallel_core.calls.checks import (
    check_hints,
    check_nested,
    check_of_arrays,
    check_output,
    check_verbose,
)
from parallel_core.calls.choice import choose_backend
from parallel_core.calls.parameters import names_of, unexpected
from parallel_core.calls.spec import worker_options
from parallel_core.config import DEFAULTS, UNSET, Settings, only_given, setting
from parallel_core.observe.messages import MESSAGE_OF_OVERRIDES, Messages
from parallel_core.observe.observers import check_observers
from parallel_core.observe.progress import check_progress
from parallel_core.parallel.runner import Runner

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, KeysView, Mapping, Sequence
    from typing import Literal

    from parallel_core.observe.observers import Observer
    from parallel_core.observe.progress import ProgressLike
    from parallel_core.trace.target import TraceLike


class parallel_config:
    """Set the defaults of `Parallel` for the code inside a ``with`` block.

    The settings take effect when the object is created, for this thread or async task. Blocks can
    be nested; an inner block keeps settings of the outer block that it does not change. Within the
    tasks of a call, all settings apply except `backend`, its parameters and `n_jobs`.

    Parameters
    ----------
    backend : str, Backend, Executor or multiprocessing context, optional
        As for `Parallel`; further keyword arguments go to the factory of a registered name.
    n_jobs : int, optional
        As for `Parallel`.
    verbose : int, default 0
        As for `Parallel`.
    temp_folder : path, optional
        As for `Parallel`.
    max_nbytes : int, str or None, default "1M"
        As for `Parallel`, in bytes.
    mmap_mode : {"r", "r+", "w+", "c", None}, default "r"
        As for `Parallel`.
    check_arrays : {"auto", "always", "never"}, default "auto"
        As for `Parallel`.
    prefer : {"processes", "threads"}, optional
        As for `Parallel`.
    require : "sharedmem", optional
        As for `Parallel`.
    nested : list of str or str, optional
        Names of backends for calls within tasks that name none: the first for calls within tasks,
        the second for calls within the tasks of those, and so on. The last one applies to all
        further levels. By default ``("threading", "sequential")``.
    output : {"pass", "discard"}, default "pass"
        As for `Parallel`. ``"capture"`` changes the results, so only a call itself can choose it.
    observers : list of Observer, optional
        Objects that are told what happens in each call; see `Observer`.
    progress : bool, str, callable or dict, optional
        As for `Parallel`, for calls that are not within tasks.
    trace : path or dict, optional
        As for `Parallel`. All calls in the block that are not within tasks are in the file.
    inner_max_num_threads : int, optional
        Number of threads that numeric libraries may use in each worker, thread or process. By
        default, and in calls that name a backend, it is the worker's share of the cores. Variables
        such as ``OMP_NUM_THREADS`` that you have set take precedence. Warm workers follow a change.
    initializer, initargs, idle_worker_timeout, max_worker_memory, preload, worker_lifespan
        As for `Parallel`.
    worker_init, worker_exit, cpu_ids, worker_env
        As for `Parallel`.
    **backend_params
        Parameters of the factory of a registered backend.

    Raises
    ------
    ValueError, TypeError
        For invalid parameters, when the object is created.

    Examples
    --------
    >>> from operator import neg
    >>> from parallel_core import Parallel, delayed, parallel_config
    >>> with parallel_config(backend="threading", n_jobs=2):
    ...     Parallel()(delayed(neg)(i + 1) for i in range(5))
    [-1, -2, -3, -4, -5]
    """

    def __init__(
        self,
        backend: Any = UNSET["backend"],
        *,
        n_jobs: float | None = UNSET["n_jobs"],
        verbose: float = UNSET["verbose"],
        temp_folder: str | os.PathLike[str] | None = UNSET["temp_folder"],
        max_nbytes: float | str | None = UNSET["max_nbytes"],
        mmap_mode: Literal["r", "r+", "w+", "c"] | None = UNSET["mmap_mode"],
        prefer: Literal["processes", "threads"] | None = UNSET["prefer"],
        require: Literal["sharedmem"] | None = UNSET["require"],
        nested: str | list[str] | tuple[str, ...] | None = UNSET["nested"],
        output: Literal["pass", "discard"] = UNSET["output"],
        observers: Sequence[Observer] | None = UNSET["observers"],
        progress: ProgressLike = UNSET["progress"],
        trace: TraceLike = UNSET["trace"],
        check_arrays: Literal["auto", "always", "never"] = UNSET["check_arrays"],
        initializer: Callable[..., object] | None = UNSET["initializer"],
        initargs: tuple[Any, ...] = UNSET["initargs"],
        idle_worker_timeout: float | None = UNSET["idle_worker_timeout"],
        inner_max_num_threads: int | None = None,
        max_worker_memory: int | str | None = UNSET["max_worker_memory"],
        preload: str | list[str] | tuple[str, ...] | None = UNSET["preload"],
        worker_lifespan: int | None = UNSET["worker_lifespan"],
        worker_init: Callable[..., object] | None = UNSET["worker_init"],
        worker_exit: Callable[..., object] | None = UNSET["worker_exit"],
        cpu_ids: Sequence[int | Sequence[int]] | None = UNSET["cpu_ids"],
        worker_env: Sequence[Mapping[str, str]] | None = UNSET["worker_env"],
        **backend_params: Any,
    ) -> None:
        values = only_given(
            backend=backend,
            n_jobs=n_jobs,
            verbose=verbose,
            temp_folder=temp_folder,
            max_nbytes=max_nbytes,
            mmap_mode=mmap_mode,
            prefer=prefer,
            require=require,
            nested=nested,
            output=output,
            observers=observers,
            progress=progress,
            trace=trace,
            check_arrays=check_arrays,
        )
        _check(values)
        if values.get("backend", "") is None:
            del values["backend"]
        workers = only_given(
            initializer=initializer,
            initargs=initargs,
            idle_worker_timeout=idle_worker_timeout,
            max_worker_memory=max_worker_memory,
            preload=preload,
            worker_lifespan=worker_lifespan,
            worker_init=worker_init,
            worker_exit=worker_exit,
            cpu_ids=cpu_ids,
            worker_env=worker_env,
        )
        if inner_max_num_threads is not None:
            workers["inner_max_num_threads"] = inner_max_num_threads
        worker_options(workers)
        if backend_params and not takes_params(values.get("backend")):
            raise unexpected(
                type(self).__name__,
                backend_params,
                names_of(parallel_config.__init__),
                names_of(Runner.__init__),
            )
        if "backend" in values:
            values["backend"] = find_backend(values["backend"], backend_params)
        self._token: Token[Settings] | None = config.push_settings(values, workers)
        self._settings = config.current_settings()

    def __enter__(self) -> parallel_config:
        return self

    def __getitem__(self, name: str) -> Any:
        """Return a setting of the block, as in ``config["n_jobs"]``."""
        value = self._settings.values.get(name, DEFAULTS[name])
        return value.given if isinstance(value, Backend) else value

    def keys(self) -> KeysView[str]:
        """Return the names of all settings, so that ``dict(config)`` works."""
        return DEFAULTS.keys()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.unregister()

    def unregister(self) -> None:
        """Restore the earlier settings, for use without ``with``."""
        if self._token is not None:
            config.pop_settings(self._token)
            self._token = None


class parallel_backend(parallel_config):
    """Choose the backend of `Parallel` inside a ``with`` block, by default with all cores.

    `parallel_config` does the same, and can set other defaults, too.

    Parameters
    ----------
    backend : str, Backend, Executor or multiprocessing context
        As for `Parallel`.
    n_jobs : int, default -1
        As for `Parallel`; -1 stands for all cores.
    inner_max_num_threads : int, optional
        As for `parallel_config`.
    initializer, initargs, idle_worker_timeout, max_worker_memory, preload, worker_lifespan
        As for `Parallel`.
    worker_init, worker_exit, cpu_ids, worker_env
        As for `Parallel`.
    **backend_params
        Parameters of the backend, as in ``parallel_backend("custom", endpoint="http://compute")``.

    Examples
    --------
    >>> from operator import neg
    >>> from parallel_core import Parallel, delayed, parallel_backend
    >>> with parallel_backend("threading"):
    ...     print(Parallel()(delayed(neg)(i + 1) for i in range(5)))
    [-1, -2, -3, -4, -5]
    """

    def __init__(
        self,
        backend: Any,
        n_jobs: float | None = -1,
        inner_max_num_threads: int | None = None,
        *,
        initializer: Callable[..., object] | None = UNSET["initializer"],
        initargs: tuple[Any, ...] = UNSET["initargs"],
        idle_worker_timeout: float | None = UNSET["idle_worker_timeout"],
        max_worker_memory: int | str | None = UNSET["max_worker_memory"],
        preload: str | list[str] | tuple[str, ...] | None = UNSET["preload"],
        worker_lifespan: int | None = UNSET["worker_lifespan"],
        worker_init: Callable[..., object] | None = UNSET["worker_init"],
        worker_exit: Callable[..., object] | None = UNSET["worker_exit"],
        cpu_ids: Sequence[int | Sequence[int]] | None = UNSET["cpu_ids"],
        worker_env: Sequence[Mapping[str, str]] | None = UNSET["worker_env"],
        **backend_params: Any,
    ) -> None:
        super().__init__(
            backend,
            n_jobs=n_jobs,
            inner_max_num_threads=inner_max_num_threads,
            initializer=initializer,
            initargs=initargs,
            idle_worker_timeout=idle_worker_timeout,
            max_worker_memory=max_worker_memory,
            preload=preload,
            worker_lifespan=worker_lifespan,
            worker_init=worker_init,
            worker_exit=worker_exit,
            cpu_ids=cpu_ids,
            worker_env=worker_env,
            **backend_params,
        )

    def __enter__(self) -> Any:
        return self["backend"], self["n_jobs"]


def get_active_backend(
    prefer: Any = UNSET["prefer"], require: Any = UNSET["require"], verbose: Any = UNSET["verbose"]
) -> tuple[Any, int]:
    """Return the backend that `Parallel` would use now, and its number of jobs.

    Parameters
    ----------
    prefer : {"processes", "threads"}, optional
        Hint, as for `Parallel`.
    require : "sharedmem", optional
        Constraint, as for `Parallel`.
    verbose : int, default 0
        Verbosity. From 10 on, a message on stderr names settings that are overridden.

    Returns
    -------
    tuple of Backend and int
        Backend and number of jobs. A backend by joblib's conventions is returned as the object that
        was given. Both kinds have the attributes `supports_sharedmem`, `uses_threads` and
        `nesting_level`. The number of jobs is that of the context. It is 1 if the context sets
        none, or if hint or constraint select threads instead of another backend.

    Examples
    --------
    >>> from parallel_core import get_active_backend
    >>> get_active_backend(prefer="threads")
    (<ThreadingBackend 'threading'>, 1)
    """
    verbose = check_verbose(setting("verbose", verbose, config.current_settings()))
    backend, n_jobs, remark = choose_backend(None, None, prefer, require, {})
    if remark is not None and verbose >= MESSAGE_OF_OVERRIDES:
        Messages(verbose, "get_active_backend()").say(remark)
    return backend.given, backend.default_n_jobs if n_jobs is None else n_jobs


def effective_n_jobs(n_jobs: int | None = -1) -> int:
    """Return the number of tasks that `Parallel` would run at a time if called now with `n_jobs`.

    Parameters
    ----------
    n_jobs : int or None, default -1
        As for `Parallel`.

    Returns
    -------
    int
        Number of tasks, at least 1.

    Examples
    --------
    >>> from parallel_core import effective_n_jobs
    >>> effective_n_jobs(3)
    3
    """
    wanted = check_n_jobs(n_jobs)
    if wanted == 1:
        return 1
    backend, wanted, _ = choose_backend(None, wanted, UNSET["prefer"], UNSET["require"], {})
    return backend.effective_n_jobs(backend.default_n_jobs if wanted is None else wanted)


def _check(values: dict[str, Any]) -> None:
    check_hints(values.get("prefer"), values.get("require"))
    check_of_arrays(
        values.get("temp_folder"),
        values.get("max_nbytes", "1M"),
        values.get("mmap_mode", "r"),
        values.get("check_arrays", "auto"),
    )
    if "n_jobs" in values:
        values["n_jobs"] = check_n_jobs(values["n_jobs"])
    if values.get("nested") is not None:
        values["nested"] = check_nested(values["nested"])
    if "verbose" in values:
        values["verbose"] = check_verbose(values["verbose"])
    if "observers" in values:
        values["observers"] = check_observers(values["observers"])
    if "progress" in values:
        check_progress(values["progress"])
    if values.get("trace") is not None:
        from parallel_core.trace.file import TraceFile, trace_of
        from parallel_core.trace.target import Target

        trace = trace_of(values["trace"])
        values["trace"] = TraceFile(trace) if isinstance(trace, Target) else trace
    if "output" in values:
        check_output(values["output"])
        if values["output"] == "capture":
            raise ValueError(
                "output='capture' changes what a call returns, which code in the block does not "
                "expect: give it to the call, Parallel(output='capture')"
            )
