"""`Parallel`: its parameters and return values, in words and in types."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, overload

from parallel_core.calls.checks import check_iterable
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import cut_traceback, without_our_frames
from parallel_core.parallel.returns import Instead, Returns
from parallel_core.parallel.runner import Runner

if TYPE_CHECKING:
    import os
    from typing import Literal, Never

    from typing_extensions import TypeVar, Unpack

    from parallel_core.calls.parameters import KeywordParams, ParallelParams
    from parallel_core.dispatch.policy import TaskFailure
    from parallel_core.parallel.asynchronous import ResultStream
    from parallel_core.parallel.returns import Generated, Listed, NoErrors, Unknown, Value
    from parallel_core.tasks.delayed import TaskLike

    _R = TypeVar("_R")


class Parallel(Runner, Generic[Returns, Instead]):
    """Run independent calls on several workers.

    ``Parallel(n_jobs=2)(delayed(f)(x) for x in xs)`` is ``[f(x) for x in xs]``, with two workers.

    Parameters
    ----------
    n_jobs : int or None, optional
        Number of workers. With 1, tasks run in the calling thread, one after the other, unless
        `timeout`, `retries`, `on_error` or `max_worker_memory` asks for what only a worker can
        give; see :doc:`/howto/errors`. -1 stands for all cores that this process may use, -2 for
        all but one, and so on; within a task, for the cores that the surrounding calls have left.
        Floats are rounded down. None means the value of the surrounding `parallel_config`, else 1.
    backend : str, Backend, Executor or multiprocessing context, optional
        Where tasks run: ``"processes"`` (the default), ``"threading"``, ``"sequential"``,
        ``"loky"``, ``"multiprocessing"``, ``"mpi"``, or a name given to
        `register_parallel_backend`.
        Libraries should not set it, but give `prefer` or `require`.
    return_as : {"list", "generator", "generator_unordered"}, default "list"
        Return type: a list of all results, or a generator of them, in the order of the tasks or as
        they arrive.
    verbose : int, default 0
        Verbosity. 0 is silent; higher values report more often, and above 10 after every
        completion. Messages go to stderr, or to stdout above 50.
    timeout : float, optional
        Seconds that each task may run, counted from its start; loading its function is not
        counted. A task that takes longer fails with a `TaskTimeoutError`, and its worker is
        replaced. With one job, the task runs in a worker, too. Threads cannot be stopped: they are
        abandoned. ``backend="sequential"`` ignores the limit.
    pre_dispatch : int, str or "all", default "2*n_jobs"
        Number of batches that may be pulled from the iterable before earlier ones are done, or,
        for a generator, taken. A string may use ``n_jobs`` and arithmetic.
    batch_size : int or "auto", default "auto"
        Number of tasks that are handed over together. ``"auto"`` adapts it to their duration.
    temp_folder : path, optional
        Folder for large arrays. By default, shared memory.
    max_nbytes : int, str or None, default "1M"
        Size in bytes from which arrays are shared with workers as memory maps. None: never.
    mmap_mode : {"r", "r+", "w+", "c", None}, default "r"
        Mode in which workers open these memory maps.
    check_arrays : {"auto", "always", "never"}, default "auto"
        How to notice that a large array has changed, where the kernel does not tell which memory
        was written. ``"auto"`` compares the array in full once a call and at its end, and in part
        in between, for at most a twentieth of the time; a change within the call is an error.
        ``"always"`` compares it in full for each task. ``"never"`` takes it for unchanged until
        the call or the ``with`` block ends, even where the kernel could tell.
    prefer : {"processes", "threads"}, optional
        Hint: which kind of worker to use if no backend was chosen from outside.
    require : "sharedmem", optional
        Constraint: tasks must see the caller's own objects.
    initializer : callable, optional
        Function that is called in each worker before its first task. Tasks see the globals that it
        assigns.
    initargs : tuple, default ()
        Arguments of `initializer`.
    idle_worker_timeout : float or None, default 300
        Seconds after which an idle worker ends. None: never.
    inner_max_num_threads : int, optional
        Threads that numeric libraries may use in each worker; see `parallel_config`.
    on_error : {"raise", "return", "skip"} or callable, default "raise"
        What a failed task does: end the call with its error, put the exception in the place of the
        result, or leave the result out. A function gets a `TaskFailure` and returns one of these
        words, ``"retry"``, or ``failure.replace(value)``.
    retries : int, default 0
        How often to rerun a task whose worker died or that raised one of `retry_on`.
    retry_on : exception class or tuple of them, default ()
        Exceptions after which a task is rerun.
    retry_backoff : float, default 0.1
        Seconds before the first retry of a task; each further retry waits twice as long.
    call_timeout : float, optional
        Seconds that the whole call may take; then it raises a `CallTimeoutError`.
    stop_when : callable, optional
        Function of a result. The call ends at once when it returns a true value, with the results
        that have arrived.
    pre_dispatch_nbytes : int or str, optional
        Bytes of arguments that may be pulled ahead, in addition to the limit of `pre_dispatch`. A
        larger task is pulled alone.
    min_free_memory : int or str, optional
        Bytes of free memory below which no further task is handed over.
    low_memory_timeout : float or None, default 60
        Seconds for which memory may stay below `min_free_memory` while no task runs; then the call
        raises a `LowMemoryError`. None: for ever.
    max_worker_memory : int or str, optional
        Bytes over which a worker process is replaced, looked at between two tasks.
    worker_lifespan : int, optional
        Number of tasks after which a worker process is replaced.
    worker_init : callable, optional
        Function that each worker calls before its first task of a call, or of a ``with`` block. See
        :doc:`/howto/worker-state` for this and the next five parameters.
    worker_exit : callable, optional
        Function that each worker calls after its last task, at the end of the call or of the
        ``with`` block, and before a worker is replaced for its age or memory. Its return values are
        in `exit_results`. It is not called in a worker that died, or after a call that failed.
    cpu_ids : list of int or list of lists of int, optional
        CPUs that each worker may run on, with one entry for each worker.
    worker_env : list of mappings, optional
        Environment variables of each worker process, set before anything is imported in it. One
        mapping for each worker.
    use_worker_state : bool, default False
        Whether each task, `worker_init` and `worker_exit` get a dictionary that belongs to the
        worker as their first argument. Each worker then runs its tasks in the order of the input:
        no other takes over what it has not begun.
    order_tasks : bool, default False
        Whether workers take turns: task ``i`` goes to worker ``i % n_jobs``. With a `batch_size`,
        each worker gets that many tasks at a time.
    preload : str or list of str, optional
        Modules that are imported once, in a process from which workers are forked: many workers
        then start quickly and share memory; see :doc:`/howto/preload`.
    journal : path, optional
        File to which results are appended as they arrive. The same call in a restarted program
        takes them from there; see :doc:`/howto/journal`.
    reduce : callable, optional
        Associative function of two results. Workers combine their results with it, in the order of
        the tasks, and the call returns one value, the same to the last bit for any `n_jobs`,
        backend and batch size; see :doc:`/howto/reduce`.
    reduce_initial : object, optional
        Leftmost value for `reduce`, returned as it is if there are no results.
    seed : int, sequence of int or numpy.random.SeedSequence, optional
        Seed from which each task gets its own random numbers, by its position: through `rng`, and,
        except in threads, through `random` and `numpy.random`; see :doc:`/howto/random-numbers`.
    output : {"pass", "capture", "discard"}, default "pass"
        What happens to what tasks write to ``sys.stdout`` and ``sys.stderr``: it appears where the
        caller's own output would, comes with each result as a `TaskOutput`, or is dropped. See
        :doc:`/howto/output-and-logging`.
    observers : list of Observer, optional
        Objects that are told what happens in the call; see :doc:`/howto/observe`.
    progress : bool, str, callable or dict, optional
        What shows how far the call is: True for a bar, ``"tqdm"``, ``"rich"`` or ``"notebook"`` for
        one of that kind, ``"log"`` for a line now and then, a class of tqdm's, or a function that
        gets a `Progress`. A dictionary has options, and one of these as ``"style"``. Bars are drawn
        only where standard error is a terminal. By default, what `parallel_config` or the variable
        ``PARALLEL_CORE_PROGRESS`` says. See :doc:`/howto/progress`.
    trace : path or dict, optional
        File for what happened when, to be opened in a viewer such as https://ui.perfetto.dev;
        compressed if its name ends in ``.gz``. All calls of this object are in it. A dictionary has
        the ``"path"`` and ``"max_events"``, after which events are left out, by default two
        million; None for no limit. See :doc:`/howto/trace`.
    **backend_params
        Parameters of a registered backend that is given by its name. Any other unknown name raises
        a `TypeError` that suggests the closest parameter.

    Attributes
    ----------
    n_tasks : int or None
        Number of tasks in the iterable, once that is known.
    n_dispatched_tasks, n_completed_tasks : int
        Numbers of tasks that were handed to workers, and that are done.
    n_resumed_tasks : int
        Number of results that came from the `journal`.
    exit_results : list
        Return values of `worker_exit`, in the order of the workers.

    Raises
    ------
    ValueError, TypeError
        For invalid parameters, when the object is created.

    Notes
    -----
    The arguments of a task are taken when it is yielded: later changes do not reach the task.
    (Threads and ``n_jobs=1`` share the caller's memory instead.) An instance runs one call at a
    time; different instances may run in different threads.

    Examples
    --------
    >>> from math import modf, sqrt
    >>> from parallel_core import Parallel, delayed
    >>> Parallel(n_jobs=2)(delayed(sqrt)(i**2) for i in range(10))
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]

    Several results of one function:

    >>> fractions, wholes = zip(*Parallel(n_jobs=2)(delayed(modf)(i / 2) for i in range(4)))
    >>> fractions
    (0.0, 0.5, 0.0, 0.5)

    One value from all results, folded by the workers:

    >>> Parallel(n_jobs=2, reduce=max)(delayed(abs)(i) for i in range(-9, 5))
    9

    Several calls on the same workers:

    >>> with Parallel(n_jobs=2) as parallel:
    ...     total = 0.0
    ...     while total < 1000:
    ...         total += sum(parallel(delayed(sqrt)(total + i**2) for i in range(5)))
    >>> round(total, 3)
    1136.597
    """

    if not TYPE_CHECKING:  # here, a type variable has no default
        __class_getitem__ = classmethod(GenericAlias)
    else:
        # The first five distinguish the kinds of results; all other parameters fit the sixth. The
        # last one is for backends that take parameters of their own. A parameter has the same type
        # in all of them: otherwise mypy takes results for Any if the parameter is one.
        @overload
        def __init__(
            self: Parallel[Listed, Never],
            n_jobs: float | None = ...,
            backend: Any = ...,
            return_as: Listed = ...,
            verbose: float = ...,
            timeout: float | None = ...,
            pre_dispatch: float | str = ...,
            batch_size: int | Literal["auto"] = ...,
            temp_folder: str | os.PathLike[str] | None = ...,
            max_nbytes: float | str | None = ...,
            mmap_mode: Literal["r", "r+", "w+", "c"] | None = ...,
            prefer: Literal["processes", "threads"] | None = ...,
            require: Literal["sharedmem"] | None = ...,
            *,
            on_error: NoErrors = ...,
            reduce: None = ...,
            **params: Unpack[KeywordParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Generated, Never],
            n_jobs: float | None = ...,
            backend: Any = ...,
            *,
            return_as: Generated,
            on_error: NoErrors = ...,
            reduce: None = ...,
            **params: Unpack[ParallelParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Listed, Exception],
            n_jobs: float | None = ...,
            backend: Any = ...,
            *,
            return_as: Listed = ...,
            on_error: Literal["return"],
            reduce: None = ...,
            **params: Unpack[ParallelParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Generated, Exception],
            n_jobs: float | None = ...,
            backend: Any = ...,
            *,
            return_as: Generated,
            on_error: Literal["return"],
            reduce: None = ...,
            **params: Unpack[ParallelParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Value, Never],
            n_jobs: float | None = ...,
            backend: Any = ...,
            *,
            return_as: Listed = ...,
            on_error: NoErrors = ...,
            reduce: Callable[[Any, Any], Any],
            **params: Unpack[ParallelParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Any, Any],
            n_jobs: float | None = ...,
            backend: Any = ...,
            return_as: str = ...,
            verbose: float = ...,
            timeout: float | None = ...,
            pre_dispatch: float | str = ...,
            batch_size: int | Literal["auto"] = ...,
            temp_folder: str | os.PathLike[str] | None = ...,
            max_nbytes: float | str | None = ...,
            mmap_mode: Literal["r", "r+", "w+", "c"] | None = ...,
            prefer: Literal["processes", "threads"] | None = ...,
            require: Literal["sharedmem"] | None = ...,
            *,
            on_error: str | Callable[[TaskFailure], object] = ...,
            reduce: Callable[[Any, Any], Any] | None = ...,
            **params: Unpack[KeywordParams],
        ) -> None: ...
        @overload
        def __init__(
            self: Parallel[Any, Any],
            n_jobs: float | None = ...,
            *,
            backend: Any,
            **params: Any,
        ) -> None: ...

        def __init__(self, *args: Any, **params: Any) -> None: ...

    # The unknown kind comes first: Any fits it, and then the result is Any.
    @overload
    def __call__(self: Parallel[Unknown, Never], iterable: Iterable[TaskLike[Any]]) -> Any: ...
    @overload
    def __call__(
        self: Parallel[Listed, Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | Instead]: ...
    @overload
    def __call__(
        self: Parallel[Generated, Instead], iterable: Iterable[TaskLike[_R]]
    ) -> Generator[_R | Instead, None, None]: ...
    @overload
    def __call__(self: Parallel[Value, Never], iterable: Iterable[TaskLike[_R]]) -> _R: ...
    def __call__(self, iterable: Iterable[Any]) -> Any:
        """Run all delayed calls of `iterable`.

        Parameters
        ----------
        iterable : iterable of tuple
            Delayed calls ``(function, args, kwargs)``. The thread that takes the results pulls it.

        Returns
        -------
        list, generator or object
            Results in the form of `return_as`, or the one value of `reduce`.

        Raises
        ------
        RuntimeError
            If this instance is still running a call.
        TypeError
            If `iterable` is not iterable, or an item of it is not a delayed call.
        ParallelError
            See `parallel_core.errors`. Exceptions of tasks are raised as themselves.

        Notes
        -----
        Every exception that ends a call gets two attributes: ``results``, a mapping from position
        to result of all results that had arrived, and ``replay``, a function that runs the failed
        task again in this process, for a debugger, or None.
        """
        try:
            return self._run(iterable)
        except KeyboardInterrupt as error:
            raise cut_traceback(error) from error.__cause__
        except Exception as error:
            raise without_our_frames(error)  # noqa: B904 - it is the same

    def astream(
        self: Parallel[Any, Instead], iterable: Iterable[TaskLike[_R]]
    ) -> ResultStream[_R | Instead]:
        """Run all delayed calls of `iterable`, and return an asynchronous iterator over results.

        Use it with ``async for``, in asyncio or trio. The event loop continues meanwhile. See
        :doc:`/howto/async`.

        Parameters
        ----------
        iterable : iterable of tuple
            Delayed calls, as for a plain call. Another thread pulls it.

        Returns
        -------
        ResultStream
            Results in order, or as they arrive with ``return_as="generator_unordered"``. The call
            starts when the first result is requested. It ends, and running tasks are stopped, if
            the waiting task is cancelled or the stream is closed (by `aclose`, or at the end of an
            ``async with`` block).

        Raises
        ------
        TypeError
            If `iterable` is not iterable.
        ValueError
            If the instance has a `reduce`.

        Notes
        -----
        Exceptions of a plain call are raised where the result is awaited.
        """
        from parallel_core.parallel.asynchronous import ResultStream

        results = self._spec.results
        if results.reduce is not None:
            raise ValueError("a call with reduce has one value: await acall() instead of astream()")
        return_as = results.return_as
        if return_as is ReturnAs.LIST:
            return_as = ReturnAs.GENERATOR
        call = self._in_background(check_iterable(iterable), return_as)
        return ResultStream(call, repr(self))

    # As for a plain call.
    @overload
    async def acall(self: Parallel[Unknown, Never], iterable: Iterable[TaskLike[Any]]) -> Any: ...
    @overload
    async def acall(
        self: Parallel[Listed, Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | Instead]: ...
    @overload
    async def acall(
        self: Parallel[Generated, Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | Instead]: ...
    @overload
    async def acall(self: Parallel[Value, Never], iterable: Iterable[TaskLike[_R]]) -> _R: ...
    async def acall(self, iterable: Iterable[Any]) -> Any:
        """Run all delayed calls of `iterable`, and return a list of all results.

        Await it in asyncio or trio. The event loop continues meanwhile. See :doc:`/howto/async`.

        Parameters
        ----------
        iterable : iterable of tuple
            Delayed calls, as for a plain call. Another thread pulls it.

        Returns
        -------
        list or object
            Results, or the one value of `reduce`. If the waiting task is cancelled, the call ends,
            and running tasks are stopped.
        """
        call = self._in_background(check_iterable(iterable), ReturnAs.LIST)
        try:
            await call.start()
            return await call.take()
        except Exception as error:
            raise without_our_frames(error)  # noqa: B904 - it is the same
