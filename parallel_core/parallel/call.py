"""`Parallel`: what it takes and what it returns, in words and in types."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, overload

from parallel_core.errors import cut_traceback, without_our_frames
from parallel_core.parallel.checks import check_iterable
from parallel_core.parallel.returns import Instead, Returns
from parallel_core.parallel.runner import Runner

if TYPE_CHECKING:
    import os
    from typing import Literal

    from typing_extensions import Never, TypeVar, Unpack

    from parallel_core.dispatch.policy import TaskFailure
    from parallel_core.parallel.asynchronous import ResultStream
    from parallel_core.parallel.parameters import KeywordParams, ParallelParams
    from parallel_core.parallel.returns import Generated, Listed, NoErrors, Unknown, Value
    from parallel_core.tasks.delayed import TaskLike

    _R = TypeVar("_R")


class Parallel(Runner, Generic[Returns, Instead]):
    """Run independent calls on several workers.

    ``Parallel(n_jobs=2)(delayed(f)(x) for x in xs)`` is ``[f(x) for x in xs]``, with two workers.

    Parameters
    ----------
    n_jobs : int or None, optional
        Number of workers. 1 runs the tasks here, one after the other, unless `timeout`,
        `retries`, `on_error` or `max_worker_memory` asks for what only a worker process can give;
        see :doc:`/howto/errors`. -1 stands for all cores
        that this process may use, -2 for all but one, and so on; within a task, all of those that
        the calls around it have left. Floats are rounded down. None means what the surrounding
        `parallel_config` says, else 1.
    backend : str, Backend, Executor or multiprocessing context, optional
        ``"processes"`` (the default), ``"threading"``, ``"sequential"``, ``"loky"``,
        ``"multiprocessing"``, or a name given to `register_parallel_backend`. Libraries had better
        leave this alone and say `prefer` or `require`.
    return_as : {"list", "generator", "generator_unordered"}, default "list"
        Whether to return all results, or a generator of them, in order or as they come.
    verbose : int, default 0
        How much to tell: nothing, ever more, from 11 on every completion; on stderr up to 50, above
        on stdout.
    timeout : float, optional
        Seconds that a task may run, from when it starts; loading its function, which may import
        much, is not counted. It fails with a `TaskTimeoutError`, and only its worker is replaced.
        With one job, too, it runs in a worker, then. Not applied with ``backend="sequential"``,
        where nobody could stop it; threads cannot be stopped either, and are left to themselves.
    pre_dispatch : int, str or "all", default "2*n_jobs"
        How many batches may be pulled from the iterable before earlier ones are done (for a
        generator: taken). An expression may use ``n_jobs`` and arithmetic.
    batch_size : int or "auto", default "auto"
        Tasks that are handed over together; ``"auto"`` follows how long they take.
    temp_folder : path, optional
        Where large arrays are put.
    max_nbytes : int, str or None, default "1M"
        From which size, in bytes, arrays are shared with workers as memory maps.
    mmap_mode : {"r", "r+", "w+", "c", None}, default "r"
        How workers open them.
    check_arrays : {"auto", "always", "never"}, default "auto"
        How to notice that a large array has changed, where the kernel does not tell which memory
        was written. ``"auto"`` compares it in full once a call and at its end, and in part in
        between, for at most a twentieth of the time; a change within the call is an error.
        ``"always"`` compares it in full for each task. ``"never"`` takes it for unchanged, also
        where the kernel could tell, until the call or the ``with`` block ends.
    prefer : {"processes", "threads"}, optional
        A hint for where no backend was chosen from outside.
    require : "sharedmem", optional
        A constraint: tasks must see the caller's own objects.
    initializer : callable, optional
        Called in each worker before its first task. What it assigns to globals is there for the
        tasks.
    initargs : tuple, default ()
        Its arguments.
    idle_worker_timeout : float or None, default 300
        Seconds after which an idle worker ends.
    inner_max_num_threads : int, optional
        Threads that numeric libraries may use in each worker; see `parallel_config`.
    on_error : {"raise", "return", "skip"} or callable, default "raise"
        What a task that fails does to the call: end it with its error, have the exception stand in
        the place of its result, or be left out. A function gets a `TaskFailure`, and returns one of
        these words, ``"retry"``, or ``failure.instead(value)``.
    retries : int, default 0
        How many times a task is run again whose worker died, or that raised one of `retry_on`.
    retry_on : exception class or tuple of them, default ()
        For which exceptions, besides the death of the worker.
    retry_backoff : float, default 0.1
        Seconds before the first retry of a task; each further one waits twice as long.
    call_timeout : float, optional
        Seconds that the whole call may take. Its end is a `CallTimeoutError`.
    stop_when : callable, optional
        Gets each result as it arrives. Where it says yes, the call ends at once, with the results
        that are there.
    pre_dispatch_nbytes : int or str, optional
        How many bytes of arguments may be pulled ahead, besides what `pre_dispatch` says; a task
        that is larger is ahead alone.
    min_free_memory : int or str, optional
        While less memory than this is free, no further tasks are handed over.
    memory_patience : float or None, default 60
        Seconds for which that may go on while no task is at work; then the call ends with a
        `LowMemoryError`.
    max_worker_memory : int or str, optional
        A worker process that holds more than this between two tasks is replaced.
    worker_lifespan : int, optional
        After how many tasks a worker process is replaced.
    preload : str or list of str, optional
        Modules that worker processes have imported before their first task. They are imported
        once, and workers forked from there, in little time and memory; see
        :doc:`/howto/preload`.
    journal : path, optional
        A file to which results are appended as they come. The same call, started again when the
        program has crashed, takes them from there; see :doc:`/howto/journal`.
    reduce : callable, optional
        A function of two results that returns one, and is associative. Results are folded by it
        where they are made, in the order of the tasks, and the call returns the one value. It is
        the same to the last bit for any `n_jobs`, backend and batch size; see
        :doc:`/howto/reduce`.
    reduce_initial : object, optional
        What is returned where there are no results; else the leftmost value.
    seed : int, sequence of int or numpy.random.SeedSequence, optional
        Gives each task random numbers of its own, which depend on it and the position of the task
        alone: by `rng`, and, but in threads, by `random` and `numpy.random` as well; see
        :doc:`/howto/random-numbers`.
    output : {"pass", "capture", "discard"}, default "pass"
        What becomes of what tasks write to ``sys.stdout`` and ``sys.stderr``: it appears where the
        caller's own output would; or comes with the results, each of which is a `TaskOutput`; or
        is dropped. See :doc:`/howto/output-and-logging`.
    **backend_params
        Further parameters of a registered backend that is given by its name. Any other name is a
        `TypeError` that says what may have been meant.

    Attributes
    ----------
    n_tasks : int or None
        How many tasks the iterable has, once that is known.
    n_dispatched_tasks, n_completed_tasks : int
        How far the call is.
    n_resumed_tasks : int
        How many results came from the `journal`.

    Raises
    ------
    ValueError, TypeError
        For parameters that make no sense, when the object is made.

    Notes
    -----
    The arguments of a task are taken when it is yielded; what happens to them later does not
    reach the task (threads and ``n_jobs=1`` share the caller's memory instead). One call runs at
    a time on an instance; different instances may run in different threads.

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
        # The first five tell apart what a call returns; what fits none of them fits the sixth. The
        # last one is for backends of somebody's own, which take further parameters. Types of the
        # same parameter are the same in all: else mypy takes results for Any where it is one.
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

    # What is not known comes first: Any fits it, and then the result is Any.
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
        iterable : iterable
            Of delayed calls: tuples ``(function, args, kwargs)``. The thread that takes the results
            pulls it.

        Returns
        -------
        list, generator or object
            The results, as `return_as` says; or what `reduce` has made of them.

        Raises
        ------
        RuntimeError
            When this instance is still running a call.
        TypeError
            When `iterable` is none, or an item of it is not a delayed call.
        ParallelError
            See `parallel_core.errors`. What a task raises is raised as it is.

        Notes
        -----
        Every exception that ends a call has two attributes more: ``results``, a mapping from
        position to result with all that had arrived, and ``replay``, None or a function that runs
        the task which failed again, in this process, for a debugger.
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

        For ``async for``, in asyncio or trio; the event loop goes on meanwhile. See
        :doc:`/howto/async`.

        Parameters
        ----------
        iterable : iterable
            Of delayed calls, as for a plain call. It is pulled in another thread.

        Returns
        -------
        ResultStream
            Results in order, or as they come with ``return_as="generator_unordered"``. It starts
            when the first one is asked for. Where who waits for it is cancelled, or closes it
            (`aclose`, or the end of an ``async with`` block), the call ends: tasks that run
            are stopped.

        Raises
        ------
        TypeError, ValueError
            When `iterable` is none, or results are folded by `reduce`.

        Notes
        -----
        What a plain call raises is raised where the result is awaited.
        """
        from parallel_core.parallel.asynchronous import stream

        return stream(self, check_iterable(iterable))

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

        To be awaited, in asyncio or trio; the event loop goes on meanwhile. See
        :doc:`/howto/async`.

        Parameters
        ----------
        iterable : iterable
            Of delayed calls, as for a plain call. It is pulled in another thread.

        Returns
        -------
        list or object
            The results; or what `reduce` has made of them. Where who waits for them is cancelled,
            the call ends: tasks that run are stopped.
        """
        from parallel_core.parallel.asynchronous import call

        tasks = check_iterable(iterable)
        try:
            return await call(self, tasks)
        except Exception as error:
            raise without_our_frames(error)  # noqa: B904 - it is the same
