"""`WorkerPool`: workers with numbers, state, and functions for their start and end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parallel_core.dispatch.limits import ReturnAs
from parallel_core.pool.async_result import AsyncResult
from parallel_core.pool.chunking import concatenated
from parallel_core.pool.core import PLAIN, PoolCore
from parallel_core.pool.insights import NOTHING
from parallel_core.pool.parameters import MapParams, PoolParams, check_pool, context_of
from parallel_core.pool.running import as_shown

if TYPE_CHECKING:
    from typing import Literal, Self

    from parallel_core.insights.report import Report

    StartMethod = Literal["fork", "forkserver", "spawn", "threading", "processes", "loky", "mpi"]
    Init = Callable[..., object]


class WorkerPool:
    """Run functions over items on a pool of workers, each with a number and a state of its own.

    Parameters
    ----------
    n_jobs : int, optional
        Number of workers. None and 0 stand for the number of CPUs, -1 for those that this process
        may use, -2 for all but one of these, and so on.
    daemon : bool, default True
        Accepted for programs that set it: tasks may start processes, and pools, either way.
    cpu_ids : list of int or list of list of int, optional
        CPUs that each worker may run on: an entry for each worker, or one for all.
    shared_objects : object, optional
        Object to pass to all functions that run in workers, unless it is None. Workers started by a
        fork share its memory until a process writes to it. For other workers it is pickled once a
        worker. Threads get the object itself. It may hold locks, queues and arrays of
        `multiprocessing`.
    pass_worker_id : bool, default False
        Whether functions that run in workers get the number of their worker, from 0.
    use_worker_state : bool, default False
        Whether functions that run in workers get a dictionary that lives as long as their worker.
        Each worker then runs its tasks in the order of the input.
    start_method : str, default "fork"
        Way to start workers: ``"fork"``, ``"forkserver"`` or ``"spawn"`` of `multiprocessing`;
        ``"processes"`` for workers like those of `Parallel`; ``"threading"`` for threads of this
        process; ``"loky"`` for workers of loky, which have no number, state, init or exit function;
        ``"mpi"`` for the ranks of an MPI program, whose numbers begin at 1.
    keep_alive : bool, default False
        Whether workers stay from one map to the next.
    use_dill : bool, default False
        Whether dill pickles functions, arguments and results. Lambdas, and functions of a notebook,
        work without it.
    enable_insights : bool, default False
        Whether to measure what workers do; see `get_insights`.
    order_tasks : bool, default False
        Whether chunk i goes to worker ``i % n_jobs``.
    **options
        Defaults of parameters that maps have in common with `Parallel`: ``on_error``, ``retries``,
        ``retry_on``, ``retry_backoff``, ``journal``, ``seed``, ``output``, ``call_timeout``,
        ``stop_when``, ``max_worker_memory``, ``min_free_memory``, ``low_memory_timeout``,
        ``initializer``, ``initargs``, ``preload``, ``inner_max_num_threads``,
        ``idle_worker_timeout``, ``max_nbytes``, ``mmap_mode``, ``temp_folder``, ``check_arrays``,
        ``pre_dispatch_nbytes``, ``observers``, ``verbose``, ``worker_env``, ``worker_lifespan``.

    Raises
    ------
    ValueError, TypeError
        For invalid parameters.

    Notes
    -----
    Functions get their arguments in this order: worker number, shared objects, worker state (each
    only if requested), then the arguments of the task.

    At the end of a ``with`` block, tasks of `apply_async` are finished, exit functions run, and
    workers end. If the block ends with an exception, tasks are stopped instead. One map runs at a
    time; a map of another thread waits for its end. Single calls can run beside a map, in workers
    of their own.

    Examples
    --------
    >>> from parallel_core import WorkerPool
    >>> def add(state, x):
    ...     state["sum"] = state.get("sum", 0) + x
    >>> def total(state):
    ...     return state.get("sum", 0)
    >>> with WorkerPool(n_jobs=2, use_worker_state=True) as pool:
    ...     _ = pool.map(add, range(10), worker_exit=total)
    >>> sum(pool.get_exit_results())
    45
    """

    def __init__(
        self,
        n_jobs: int | None = None,
        daemon: bool = True,
        cpu_ids: list[int] | list[list[int]] | None = None,
        shared_objects: Any = None,
        pass_worker_id: bool = False,
        use_worker_state: bool = False,
        start_method: StartMethod = "fork",
        keep_alive: bool = False,
        use_dill: bool = False,
        enable_insights: bool = False,
        order_tasks: bool = False,
        **options: Any,
    ) -> None:
        rest = {
            "shared_objects": shared_objects,
            "pass_worker_id": pass_worker_id,
            "use_worker_state": use_worker_state,
            "keep_alive": keep_alive,
            "enable_insights": enable_insights,
            "order_tasks": order_tasks,
        }
        self._core = PoolCore(
            check_pool(n_jobs, daemon, cpu_ids, start_method, use_dill, options, rest)
        )

    @property
    def pool_params(self) -> PoolParams:
        """The parameters of the pool."""
        return self._core.params

    @property
    def ctx(self) -> Any:
        """Context that creates locks, events, values and the like for workers of this pool."""
        return context_of(self._core.params.start_method)

    def pass_on_worker_id(self, pass_on: bool = True) -> None:
        """Set `pass_worker_id`.

        Parameters
        ----------
        pass_on : bool, default True
            Whether functions that run in workers get the number of their worker.
        """
        self._core.change(pass_worker_id=pass_on)

    def set_shared_objects(self, shared_objects: Any = None) -> None:
        """Set the shared objects; workers that are kept alive are restarted.

        Parameters
        ----------
        shared_objects : object, optional
            Object to pass to all functions that run in workers, unless it is None.
        """
        self._core.change(shared_objects=shared_objects)

    def set_use_worker_state(self, use_worker_state: bool = True) -> None:
        """Set `use_worker_state`.

        Parameters
        ----------
        use_worker_state : bool, default True
            Whether functions that run in workers get the state of their worker.
        """
        self._core.change(use_worker_state=use_worker_state)

    def set_keep_alive(self, keep_alive: bool = True) -> None:
        """Set `keep_alive`.

        Parameters
        ----------
        keep_alive : bool, default True
            Whether workers stay from one map to the next.
        """
        self._core.change(keep_alive=keep_alive)

    def set_order_tasks(self, order_tasks: bool = True) -> None:
        """Set `order_tasks`.

        Parameters
        ----------
        order_tasks : bool, default True
            Whether chunk i goes to worker ``i % n_jobs``.
        """
        self._core.change(order_tasks=order_tasks)

    def map(
        self,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        concatenate_numpy_output: bool = True,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        **options: Any,
    ) -> Any:
        """Return the results of `func` for all items, in their order.

        Parameters
        ----------
        func : callable
            Function to run in the workers.
        iterable_of_args : iterable
            Items. A dictionary gives keyword arguments, an iterable gives positional arguments, and
            any other object is a single argument; so are strings, bytes and numpy arrays. See
            `make_single_arguments`. If the whole input is a numpy array, it is cut into slices.
        iterable_len : int, optional
            Number of items to take, and the total of a progress bar. By default the length of the
            iterable, if it has one.
        max_tasks_active : int, optional
            Number of tasks that may be ahead of the results.
        chunk_size : int or float, optional
            Number of tasks that are handed over together. By default it is adapted to the time of
            tasks; the length of the iterable need not be known.
        n_splits : int, optional
            Number of chunks, if no `chunk_size` is given. By default, an array is cut into
            ``4 * n_jobs`` slices.
        worker_lifespan : int, optional
            Number of tasks after which a worker is replaced.
        progress_bar : bool, default False
            Whether to show a progress bar, which needs tqdm.
        concatenate_numpy_output : bool, default True
            Whether results that are all numpy arrays are joined to one.
        worker_init, worker_exit : callable, optional
            Functions to call in each worker before its first task, and before it ends.
            `get_exit_results` returns the values of `worker_exit`.
        task_timeout, worker_init_timeout, worker_exit_timeout : float, optional
            Seconds that a task, or one of these functions, may run.
        progress_bar_options : dict, optional
            Options of tqdm.
        progress_bar_style : {"std", "rich", "notebook", "dashboard"}, optional
            Style of the progress bar.
        **options
            Parameters in common with `Parallel`, which override those of the pool.

        Returns
        -------
        list or numpy.ndarray
            Results.

        Raises
        ------
        RuntimeError
            If this thread has a map whose results were not all taken.
        ParallelError
            See `parallel_core.errors`. Exceptions of tasks are raised as themselves.
        """
        params = _map_params(locals())
        try:
            results = self._core.run_map(
                "map", func, iterable_of_args, params, ReturnAs.LIST, options
            )
        except BaseException as error:
            raise as_shown(error)  # noqa: B904 - it is the same
        return concatenated(results) if concatenate_numpy_output else results

    def map_unordered(
        self,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        **options: Any,
    ) -> list[Any]:
        """Return the results of `func` for all items, in the order in which they come; see `map`.

        Returns
        -------
        list
            The results.
        """
        params = _map_params(locals())
        kind = ReturnAs.UNORDERED
        try:
            return self._core.run_map(
                "map_unordered", func, iterable_of_args, params, kind, options
            )
        except BaseException as error:
            raise as_shown(error)  # noqa: B904 - it is the same

    def imap(
        self,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        **options: Any,
    ) -> Generator[Any, None, None]:
        """Yield the results of `func` for all items, in their order; see `map`.

        The map starts when the first result is requested. Then it runs ahead of the consumer until
        all results are taken or the pool ends.

        Yields
        ------
        object
            Result of an item.
        """
        params = _map_params(locals())
        kind = ReturnAs.GENERATOR
        try:
            yield from self._core.stream_map("imap", func, iterable_of_args, params, kind, options)
        except BaseException as error:
            raise as_shown(error)  # noqa: B904 - it is the same

    def imap_unordered(
        self,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        **options: Any,
    ) -> Generator[Any, None, None]:
        """Yield the results of `func` for all items as they come; see `map` and `imap`.

        Yields
        ------
        object
            Result of an item.
        """
        params = _map_params(locals())
        kind = ReturnAs.UNORDERED
        try:
            yield from self._core.stream_map(
                "imap_unordered", func, iterable_of_args, params, kind, options
            )
        except BaseException as error:
            raise as_shown(error)  # noqa: B904 - it is the same

    def apply(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Return the result of one call in a worker; see `apply_async`.

        Returns
        -------
        object
            Return value of `func`.
        """
        if self._core.is_in_callback():
            raise RuntimeError(
                "a callback cannot wait for another call of its pool: use apply_async"
            )
        return self.apply_async(
            func,
            args,
            kwargs,
            callback,
            error_callback,
            worker_init,
            worker_exit,
            task_timeout,
            worker_init_timeout,
            worker_exit_timeout,
            **options,
        ).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        worker_init: Init | None = None,
        worker_exit: Init | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Have a worker make one call, and return at once.

        Parameters
        ----------
        func : callable
            Function to run in a worker.
        args : iterable or object, default ()
            Arguments of `func`. An object that is not iterable, a string, bytes or an array is a
            single argument.
        kwargs : dict, optional
            Keyword arguments of `func`.
        callback, error_callback : callable, optional
            Functions to call with the result, or with the exception, in a thread of the pool before
            `get` returns. If one raises, this is reported and has no other effect.
        worker_init, worker_exit, worker_init_timeout, worker_exit_timeout
            As for `map`. Those of the first call apply until the workers end, at the end of the
            ``with`` block, by `stop_and_join` or after the next map.
        task_timeout : float, optional
            Seconds that this task may run. Other tasks continue if it exceeds them.
        **options
            Parameters in common with `Parallel`; those of the first call apply, too.

        Returns
        -------
        AsyncResult
            Present or future outcome of the call.
        """
        of_workers = worker_init, worker_exit, worker_init_timeout, worker_exit_timeout
        is_plain = task_timeout is None and of_workers == (None, None, None, None)
        params = PLAIN if is_plain else _map_params(locals())
        return self._core.submit(func, args, kwargs, callback, error_callback, params, options)

    def stop_and_join(self, keep_alive: bool = False) -> None:
        """Wait until all tasks are done, have exit functions run, and end the workers.

        Parameters
        ----------
        keep_alive : bool, default False
            Whether to keep the workers, and only wait.
        """
        self._core.join(keep_alive)

    join = stop_and_join

    def terminate(self) -> None:
        """Stop all tasks, and end the workers without their exit functions."""
        self._core.terminate()

    def get_exit_results(self) -> list[Any]:
        """Return the values of exit functions, in the order of the workers' numbers.

        Returns
        -------
        list
            One entry for each worker that had a task, and more if workers were replaced.
        """
        return list(self._core.workers.exit_results)

    def get_insights(self) -> dict[str, Any]:
        """Return how workers have spent their time since their start.

        Returns
        -------
        dict
            ``n_completed_tasks`` for each worker; for each part of the time (``start_up``,
            ``init``, ``waiting``, ``working``, ``exit``), as ``H:MM:SS.mmm``: ``{part}_time`` for
            each worker, ``total_{part}_time``, ``{part}_time_mean``, ``{part}_time_std``, and
            ``{part}_ratio``; ``total_time``; ``top_5_max_task_durations`` and
            ``top_5_max_task_args``. Empty without `enable_insights`, and before the first task.
        """
        return {} if self._core.insights is None else self._core.insights.figures()

    def print_insights(self) -> None:
        """Print what `get_insights` returns, as a report."""
        print(NOTHING if self._core.insights is None else self._core.insights.report())

    def report(self) -> Report:
        """Return where the time of the last map went, and what to do about it.

        Every map is recorded; `enable_insights` is not needed. See :doc:`/howto/why-slow`.

        Returns
        -------
        Report
            Print it, or read it as a mapping. In a notebook it is shown with a picture.

        Raises
        ------
        RuntimeError
            If no map has ended yet.

        Examples
        --------
        >>> from parallel_core import WorkerPool
        >>> with WorkerPool(n_jobs=2) as pool:
        ...     _ = pool.map(abs, range(-5, 0))
        >>> pool.report()["tasks"]
        5
        """
        from parallel_core.insights.report import report_of

        return report_of(self._core.workers.record, "no map of this pool has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop_and_join()
        else:
            self.terminate()

    def __repr__(self) -> str:
        params = self._core.params
        return f"WorkerPool(n_jobs={params.n_jobs}, start_method={params.start_method!r})"


def _map_params(given: dict[str, Any]) -> MapParams:
    """Return the parameters of a map that are among `given`."""
    return MapParams(**{name: given[name] for name in MapParams._fields if name in given})
