"""`Parallel`: reads parameters and configuration, builds one dispatch, returns its results."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Generator, Iterable
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, Generic, overload

from memmapping.folders import check_temp_folder
from parallel_core import config
from parallel_core.backends.base import (
    Backend,
    BackendUnavailable,
    Session,
    Style,
    WorkerOptions,
)
from parallel_core.backends.cores import check_n_jobs, threads_per_worker
from parallel_core.backends.registry import find_backend
from parallel_core.config import UNSET, Unset, setting
from parallel_core.context.aspect import Place
from parallel_core.context.capturing import aspects_of_call
from parallel_core.context.seeds import Seeded, seed_of_call
from parallel_core.dispatch.aftermath import attach
from parallel_core.dispatch.inline import InlineDispatch
from parallel_core.dispatch.plan import (
    CallPlan,
    Counters,
    ReturnAs,
    check_batch_size,
    check_pre_dispatch,
    check_return_as,
    check_timeout,
    resolve_pre_dispatch,
)
from parallel_core.dispatch.push import PushDispatch
from parallel_core.errors import cut_traceback, warn_caller
from parallel_core.observe.followers import followed, followers
from parallel_core.observe.messages import Messages
from parallel_core.parallel.checks import check_arrays, check_verbose
from parallel_core.parallel.choice import MESSAGE_OF_OVERRIDES, choose_backend, split_params
from parallel_core.parallel.nesting import settings_of_tasks
from parallel_core.parallel.options import CallOptions, call_options, worker_options
from parallel_core.tasks.definitions import Definitions, stored_globals

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    # Known to every type checker without being installed, and never imported by a program.
    from typing_extensions import Never, Self, TypeVar

    from memmapping.reducer import ArrayReducer
    from parallel_core.dispatch.interruption import Interruption
    from parallel_core.journal.store import Journal
    from parallel_core.parallel.asynchronous import Apart, ResultStream
    from parallel_core.tasks.delayed import TaskLike

    _R = TypeVar("_R")
    #: What a call returns: one of the words below.
    _Returns = TypeVar("_Returns", default=Any)
    #: What may stand in the place of a result, besides results.
    _Instead = TypeVar("_Instead", default=Any)
    _List: TypeAlias = Literal["list"]
    _Generator: TypeAlias = Literal["generator", "generator_unordered"]
    _Value: TypeAlias = Literal["value"]
    _Unknown: TypeAlias = Literal["unknown"]
    _NoErrors: TypeAlias = Literal["raise", "skip"]
else:
    from typing import TypeVar

    _Returns = TypeVar("_Returns")
    _Instead = TypeVar("_Instead")

_warned: set[str] = set()


class Parallel(Generic[_Returns, _Instead]):
    """Run independent calls on several workers.

    ``Parallel(n_jobs=2)(delayed(f)(x) for x in xs)`` is ``[f(x) for x in xs]``, with two workers.

    Parameters
    ----------
    n_jobs : int or None, optional
        Number of workers. 1 runs the tasks here, one after the other; -1 stands for all cores
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
        Not applied with one job, where nobody could stop it; threads cannot be stopped either, and
        are left to themselves.
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
        where they are made, and the call returns the one value; see :doc:`/howto/reduce`.
    reduce_ordered : bool, default True
        Whether its left argument is always of earlier tasks, and the value the same to the last
        bit whatever `n_jobs`, the backend and the batch size. Else results are folded as they come.
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
        Further parameters of the backend, such as `inner_max_num_threads`; see `parallel_config`.

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

    #: Whether the tasks of a call with one job may run in the thread that makes it.
    _may_run_here = True

    if not TYPE_CHECKING:  # here, a type variable has no default
        __class_getitem__ = classmethod(GenericAlias)

    # These tell apart what a call returns. Nothing else is checked, so that a dictionary of options
    # with values of any types may be passed; what fits nowhere else fits the last.
    @overload
    def __init__(
        self: Parallel[_List, Never],
        n_jobs: Any = ...,
        backend: Any = ...,
        return_as: _List = ...,
        verbose: Any = ...,
        timeout: Any = ...,
        pre_dispatch: Any = ...,
        batch_size: Any = ...,
        temp_folder: Any = ...,
        max_nbytes: Any = ...,
        mmap_mode: Any = ...,
        prefer: Any = ...,
        require: Any = ...,
        *,
        on_error: _NoErrors = ...,
        reduce: None = ...,
        **params: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[_Generator, Never],
        n_jobs: Any = ...,
        backend: Any = ...,
        *,
        return_as: _Generator,
        on_error: _NoErrors = ...,
        reduce: None = ...,
        **params: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[_List, Exception],
        n_jobs: Any = ...,
        backend: Any = ...,
        *,
        return_as: _List = ...,
        on_error: Literal["return"],
        reduce: None = ...,
        **params: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[_Generator, Exception],
        n_jobs: Any = ...,
        backend: Any = ...,
        *,
        return_as: _Generator,
        on_error: Literal["return"],
        reduce: None = ...,
        **params: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[_Value, Never],
        n_jobs: Any = ...,
        backend: Any = ...,
        *,
        return_as: _List = ...,
        reduce: Callable[[Any, Any], Any],
        **params: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: Parallel[Any, Any],
        n_jobs: Any = ...,
        backend: Any = ...,
        return_as: Any = ...,
        verbose: Any = ...,
        timeout: Any = ...,
        pre_dispatch: Any = ...,
        batch_size: Any = ...,
        temp_folder: Any = ...,
        max_nbytes: Any = ...,
        mmap_mode: Any = ...,
        prefer: Any = ...,
        require: Any = ...,
        **params: Any,
    ) -> None: ...
    def __init__(
        self,
        n_jobs: Any = UNSET["n_jobs"],
        backend: Any = UNSET["backend"],
        return_as: str = "list",
        verbose: Any = UNSET["verbose"],
        timeout: float | None = None,
        pre_dispatch: Any = "2*n_jobs",
        batch_size: Any = "auto",
        temp_folder: Any = UNSET["temp_folder"],
        max_nbytes: Any = UNSET["max_nbytes"],
        mmap_mode: Any = UNSET["mmap_mode"],
        prefer: Any = UNSET["prefer"],
        require: Any = UNSET["require"],
        **params: Any,
    ) -> None:
        settings = config.current_settings()
        jobs = None if isinstance(n_jobs, Unset) else check_n_jobs(n_jobs)
        self.verbose = check_verbose(setting("verbose", verbose, settings))
        self.timeout = check_timeout(timeout)
        self.return_as = return_as
        self.pre_dispatch = pre_dispatch
        self.batch_size = batch_size
        self.temp_folder = setting("temp_folder", temp_folder, settings)
        self.max_nbytes = setting("max_nbytes", max_nbytes, settings)
        self.mmap_mode = setting("mmap_mode", mmap_mode, settings)
        check_arrays(self.temp_folder, self.max_nbytes, self.mmap_mode)
        self._return_as = check_return_as(return_as)
        self._batch_size = check_batch_size(batch_size)
        if pre_dispatch != "2*n_jobs":
            check_pre_dispatch(pre_dispatch)

        given = None if isinstance(backend, Unset) else backend
        of_call, backend_params = _of_call(params)
        self._call_options = call_options(of_call, self._return_as)
        worker_params, factory_params = split_params(backend_params)
        if factory_params and not isinstance(given, str):
            raise TypeError(
                f"unexpected parameters of Parallel: {', '.join(sorted(factory_params))}; only a "
                "backend that is given by name takes parameters of its own"
            )
        if given is None and settings.backend_params:
            worker_params = {**split_params(settings.backend_params)[0], **worker_params}
        self._backend, self.n_jobs, self._remark = choose_backend(
            given, jobs, prefer, require, factory_params
        )
        self._options = worker_options(worker_params)
        self._managed = False
        self._session: Session | None = None
        self._arrays: ArrayReducer | None = None
        self._journal: Journal | None = None
        self.n_resumed_tasks = 0
        self._dispatch: Any = None
        self._generator: weakref.ref[Generator[Any, None, None]] | None = None
        self._running = False
        self._messages: Messages | None = None
        self._apart: Apart | None = None  # a call in a thread of its own
        self._interruption: Interruption | None = None

    @property
    def n_tasks(self) -> int | None:
        """How many tasks there are, once that is known."""
        return None if self._dispatch is None else self._dispatch.total

    @property
    def n_dispatched_tasks(self) -> int:
        """How many tasks were handed to workers."""
        return 0 if self._dispatch is None else self._dispatch.dispatched

    @property
    def n_completed_tasks(self) -> int:
        """How many tasks are done."""
        return 0 if self._dispatch is None else self._dispatch.completed

    def print_progress(self) -> None:
        """Tell how far the call is; called after completions, for subclasses to override.

        It runs in the thread that waits for the results. See `n_completed_tasks`,
        `n_dispatched_tasks` and `n_tasks`.
        """
        if self._messages is not None:
            self._messages.progress(self.n_completed_tasks, self.n_tasks)

    def __enter__(self) -> Self:
        self._managed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._managed = False
        if self._apart is not None:
            self._apart.join()
        generator = self._generator() if self._generator is not None else None
        if generator is not None:
            generator.close()
        self._close_journal()
        self._release()

    # What is not known comes first: Any fits it, and then the result is Any.
    @overload
    def __call__(self: Parallel[_Unknown, Never], iterable: Iterable[TaskLike[Any]]) -> Any: ...
    @overload
    def __call__(
        self: Parallel[_List, _Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | _Instead]: ...
    @overload
    def __call__(
        self: Parallel[_Generator, _Instead], iterable: Iterable[TaskLike[_R]]
    ) -> Generator[_R | _Instead, None, None]: ...
    @overload
    def __call__(self: Parallel[_Value, Never], iterable: Iterable[TaskLike[_R]]) -> _R: ...
    def __call__(self, iterable: Iterable[Any]) -> Any:
        """Run all delayed calls of `iterable`.

        Parameters
        ----------
        iterable : iterable
            Of delayed calls: tuples ``(function, args, kwargs)``.

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
        if self._running:
            self._check_is_free()
        tasks = _check_iterable(iterable)
        self._running = True
        complete = False
        try:
            dispatch = self._dispatch = self._start(tasks)
            if self._return_as is not ReturnAs.LIST:
                return self._generate(dispatch)
            results = dispatch.run()
            complete = True
            return results
        except KeyboardInterrupt as error:
            self._attach_aftermath(error)
            raise cut_traceback(error) from error.__cause__
        except BaseException as error:
            self._attach_aftermath(error)
            raise
        finally:
            if self._return_as is ReturnAs.LIST or self._generator is None:
                self._finish(complete)

    def astream(
        self: Parallel[Any, _Instead], iterable: Iterable[TaskLike[_R]]
    ) -> ResultStream[_R | _Instead]:
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

        return stream(self, _check_iterable(iterable))

    # As for a plain call.
    @overload
    async def acall(self: Parallel[_Unknown, Never], iterable: Iterable[TaskLike[Any]]) -> Any: ...
    @overload
    async def acall(
        self: Parallel[_List, _Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | _Instead]: ...
    @overload
    async def acall(
        self: Parallel[_Generator, _Instead], iterable: Iterable[TaskLike[_R]]
    ) -> list[_R | _Instead]: ...
    @overload
    async def acall(self: Parallel[_Value, Never], iterable: Iterable[TaskLike[_R]]) -> _R: ...
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

        return await call(self, _check_iterable(iterable))

    def _check_is_free(self) -> None:
        if self._running or self._apart is not None:
            raise RuntimeError(
                "this Parallel instance is running a call already, whose generator has not been "
                "exhausted or closed: finish that first, or use another instance"
            )

    def _attach_aftermath(self, error: BaseException) -> None:
        """Have `error`, which ends the call, carry what was done."""
        if self._dispatch is not None and not isinstance(self._dispatch, Counters):
            attach(error, *self._dispatch.aftermath())

    def _generate(self, dispatch: Any) -> Generator[Any, None, None]:
        from parallel_core.parallel.generators import result_generator

        chunks = dispatch.chunks()
        if self._apart is not None:
            chunks = ([chunk] for chunk in chunks)  # it takes them whole
        generator = result_generator(chunks, self._finish, self._attach_aftermath, repr(self))
        self._generator = weakref.ref(generator)
        return generator

    def _start(self, tasks: Iterable[Any]) -> Any:
        """Return a started dispatch on the chosen backend, or on threads where it cannot work."""
        backend = self._backend
        n_jobs = self._effective_n_jobs()
        self._dispatch = None
        is_single = n_jobs == 1 and backend.inline_when_single and self._may_run_here
        if is_single or sys.is_finalizing():
            backend = find_backend("sequential")  # the end: no import, no thread any more
        pre_dispatch = resolve_pre_dispatch(self.pre_dispatch, n_jobs)
        if backend.style is Style.PUSH:
            check_temp_folder(self.temp_folder)
            try:
                session = self._open(n_jobs)
            except BackendUnavailable as error:
                if error.instead is None:
                    _warn_once(
                        backend.name,
                        f"the backend {backend.name!r} cannot be used here ({error}); threads are "
                        "used instead",
                    )
                backend = error.instead or find_backend("threading")
        progress = self._prepare_messages(backend, n_jobs)
        options = self._call_options
        seeded = seed_of_call(options.seed)
        place, settings = _place_of(backend), None
        if backend.style is Style.PUSH:
            settings = settings_of_tasks(backend, n_jobs)
        plan = CallPlan(
            n_jobs,
            options.policy(),
            self._return_as,
            pre_dispatch,
            self._batch_size,
            self.timeout,
            progress,
            options.call_timeout,
            options.stop_when,
            options.pre_dispatch_nbytes,
            self._options.lifespan,
            options.gate(),
            None if options.journal is None else self._open_journal(seeded),
            options.reduction(),
            (
                *options.aspects(),
                *aspects_of_call(place, seeded, settings, backend.opens_files),
            ),
            self._interruption,
        )
        dispatch: Any
        if backend.style is Style.INLINE:
            if self._options.initializer is not None:
                _run_initializer(self._options)
            dispatch = InlineDispatch(tasks, plan)
        elif backend.style is Style.PULL:
            from parallel_core.dispatch.pull import PullDispatch

            initializer = None
            if self._options.initializer is not None:
                initializer = functools.partial(self._options.initializer, *self._options.initargs)
            threads = threads_per_worker(n_jobs, self._options.thread_limit)
            settings = settings_of_tasks(backend, n_jobs, threads)
            level = config.nesting_level() + 1
            dispatch = PullDispatch(tasks, plan, level, initializer, settings)
        else:
            arrays = self._array_reducer if backend.opens_files else None
            own = stored_globals(self._options.initializer)
            definitions = Definitions(own, arrays, backend.passes_descriptors)
            dispatch = PushDispatch(tasks, session, plan, backend.aim_seconds, definitions)
        self._dispatch = dispatch
        dispatch.start()
        return dispatch

    def _open(self, n_jobs: int) -> Session:
        if self._session is not None and not self._session.is_current():
            self._release()
        if self._session is None:
            self._session = self._backend.open(n_jobs, config.nesting_level() + 1, self._options)
        return self._session

    def _open_journal(self, seeded: Seeded | None) -> Journal:
        """Return the journal; within a ``with`` block one for all its calls."""
        if self._journal is None:
            from parallel_core.journal.store import Journal

            given = self._call_options.journal
            own = stored_globals(self._options.initializer)
            seed = None if seeded is None else tuple(seeded.seed)
            self._journal = (
                given if isinstance(given, Journal) else Journal.open(given, seed=seed, own=own)
            )
            self.n_resumed_tasks = self._journal.taken_over
        return self._journal

    def _end_journal(self) -> None:
        journal = self._journal
        if journal is None:
            return
        journal.end_call()
        if self._messages is not None and journal.taken_over > self.n_resumed_tasks:
            taken_over = journal.taken_over - self.n_resumed_tasks
            self._messages.say(f"Took over {taken_over} results from {self._call_options.journal}.")
        self.n_resumed_tasks = journal.taken_over
        if not self._managed:
            self._close_journal()

    def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None and journal is not self._call_options.journal:
            journal.close()

    def _array_reducer(self) -> ArrayReducer:
        """Return what makes references of large arrays, the same for all calls of a session."""
        if self._arrays is None:
            from memmapping.reducer import ArrayReducer

            self._arrays = ArrayReducer(
                self.max_nbytes, self.mmap_mode, self.temp_folder, warn=_warn_of_no_room
            )
        return self._arrays

    def _finish(self, complete: bool) -> None:
        """End the call: with all its results, or by letting nothing of it go on."""
        self._running = False
        self._generator = None
        dispatch = self._dispatch
        if isinstance(dispatch, Counters):
            dispatch = None  # it has been finished before
        if dispatch is not None:  # keep its figures, not its results
            self._dispatch = Counters(dispatch.dispatched, dispatch.completed, dispatch.total)
        try:
            if not complete and dispatch is not None:
                dispatch.abandon()
        finally:
            self._end_journal()
            if not self._managed or not complete:
                self._release()
            else:
                if self._arrays is not None:
                    self._arrays.end_call()
                if self._session is not None:
                    self._session.end()

    def _release(self) -> None:
        if self._arrays is not None:
            arrays, self._arrays = self._arrays, None
            arrays.close()
        if self._session is not None:
            session, self._session = self._session, None
            session.close()

    def _prepare_messages(self, backend: Backend, n_jobs: int) -> Callable[[], None] | None:
        self._messages = None
        if self.verbose:
            self._messages = Messages(self.verbose, repr(self))
            if self._remark is not None and self.verbose >= MESSAGE_OF_OVERRIDES:
                self._messages.say(self._remark)
            self._messages.say(f"Using backend {backend.name} with {n_jobs} concurrent workers.")
        told: Callable[[], None] | None = None
        if self.verbose or getattr(self.print_progress, "__func__", None) is not _print_progress:
            told = self.print_progress
        return followed(self, told) if followers else told

    def _effective_n_jobs(self) -> int:
        """Return how many workers a call would get; libraries ask joblib's `Parallel` this way."""
        wanted = self._backend.default_n_jobs if self.n_jobs is None else self.n_jobs
        return self._backend.effective_n_jobs(wanted)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_jobs={self.n_jobs})"


_print_progress = Parallel.print_progress


def _place_of(backend: Backend) -> Place:
    """Return where the tasks of a call on `backend` run, seen from here."""
    if backend.style is Style.INLINE:
        return Place.CALLER
    if backend.style is Style.PULL:
        return Place.THREAD
    return Place.WORKER if backend.tells_surroundings else Place.ENGINE


def _of_call(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a call among `params`, and those of its backend."""
    if not params:
        return params, params
    of_call = {name: value for name, value in params.items() if name in CallOptions._fields}
    return of_call, {name: value for name, value in params.items() if name not in of_call}


def _check_iterable(iterable: Any) -> Iterable[Any]:
    kind = type(iterable)
    if hasattr(kind, "__iter__") or (hasattr(kind, "__getitem__") and kind is not type):
        tasks: Iterable[Any] = iterable
        return tasks
    hint = ""
    if callable(iterable):
        hint = ": write Parallel(...)(delayed(f)(x) for x in xs), not Parallel(...)(f)"
    elif hasattr(kind, "__aiter__"):
        hint = ", which is asynchronous: submit its items to get_executor() instead"
    raise TypeError(
        f"Parallel takes an iterable of delayed calls, not {iterable!r} of type "
        f"{type(iterable).__name__!r}{hint}"
    )


def _run_initializer(options: WorkerOptions) -> None:
    assert options.initializer is not None
    try:
        options.initializer(*options.initargs)
    except (Exception, SystemExit) as error:
        from parallel_core.errors import InitializerError

        raise InitializerError(
            f"the initializer raised: {type(error).__name__}: {error}"
        ) from error


def _warn_of_no_room(message: str) -> None:
    warn_caller(message, RuntimeWarning)


def _warn_once(about: str, message: str) -> None:
    if about not in _warned:
        _warned.add(about)
        warn_caller(message, RuntimeWarning)
