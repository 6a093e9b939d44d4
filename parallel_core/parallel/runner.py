"""Calls with parameters that were given once: one at a time, from its start to its end."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from memmapping.folders import check_temp_folder
from parallel_core import config
from parallel_core.backends.base import Backend, BackendUnavailable, Session, Style
from parallel_core.backends.cores import check_n_jobs, threads_per_worker
from parallel_core.backends.registry import find_backend, takes_params
from parallel_core.config import UNSET, setting
from parallel_core.context.capturing import aspects_of_call
from parallel_core.context.seeds import seed_of_call
from parallel_core.dispatch.aftermath import ArrivedResults, attach
from parallel_core.dispatch.gaps import Gap
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
from parallel_core.observe.followers import followed, followers
from parallel_core.observe.messages import Messages
from parallel_core.parallel.checks import check_iterable, check_of_arrays, check_verbose
from parallel_core.parallel.choice import MESSAGE_OF_OVERRIDES, choose_backend
from parallel_core.parallel.holdings import Holdings
from parallel_core.parallel.nesting import settings_of_tasks
from parallel_core.parallel.options import (
    MEMORY_PATIENCE,
    RETRY_BACKOFF,
    call_options,
    given_workers,
    worker_options,
)
from parallel_core.parallel.parameters import names_of, unexpected
from parallel_core.parallel.starting import instead_of, new_dispatch, place_of

if TYPE_CHECKING:
    import os
    from typing import Literal

    from typing_extensions import Self

    from parallel_core.dispatch.interruption import Interruption
    from parallel_core.dispatch.policy import TaskFailure
    from parallel_core.parallel.asynchronous import Apart


class Runner:
    """What `Parallel` is behind its types, which say what its parameters are.

    It checks them when they are given. Then it makes calls, one at a time, each of which it leaves
    to a dispatch.
    """

    #: Whether the tasks of a call with one job may run in the thread that makes it.
    _may_run_here = True
    #: What ``n_jobs=None`` means where the context does not say; None: what the backend says.
    _default_n_jobs: int | None = None

    def __init__(
        self,
        n_jobs: float | None = None,
        backend: Any = None,
        return_as: str = "list",
        verbose: float = UNSET["verbose"],
        timeout: float | None = None,
        pre_dispatch: float | str = "2*n_jobs",
        batch_size: int | Literal["auto"] = "auto",
        temp_folder: str | os.PathLike[str] | None = UNSET["temp_folder"],
        max_nbytes: float | str | None = UNSET["max_nbytes"],
        mmap_mode: Literal["r", "r+", "w+", "c"] | None = UNSET["mmap_mode"],
        prefer: Literal["processes", "threads"] | None = UNSET["prefer"],
        require: Literal["sharedmem"] | None = UNSET["require"],
        *,
        initializer: Callable[..., object] | None = UNSET["initializer"],
        initargs: tuple[Any, ...] = UNSET["initargs"],
        idle_worker_timeout: float | None = UNSET["idle_worker_timeout"],
        inner_max_num_threads: int | None = UNSET["inner_max_num_threads"],
        max_worker_memory: int | str | None = UNSET["max_worker_memory"],
        preload: str | list[str] | tuple[str, ...] | None = UNSET["preload"],
        worker_lifespan: int | None = UNSET["worker_lifespan"],
        on_error: str | Callable[[TaskFailure], object] = "raise",
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        retry_backoff: float = RETRY_BACKOFF,
        call_timeout: float | None = None,
        stop_when: Callable[[Any], object] | None = None,
        pre_dispatch_nbytes: int | str | None = None,
        min_free_memory: int | str | None = None,
        memory_patience: float | None = MEMORY_PATIENCE,
        journal: str | os.PathLike[str] | None = None,
        reduce: Callable[[Any, Any], Any] | None = None,
        reduce_initial: Any = Gap.MISSING,
        seed: Any = None,
        output: Literal["pass", "capture", "discard"] = UNSET["output"],
        check_arrays: Literal["auto", "always", "never"] = UNSET["check_arrays"],
        **backend_params: Any,
    ) -> None:
        settings = config.current_settings()
        jobs = check_n_jobs(n_jobs)
        self.verbose = check_verbose(setting("verbose", verbose, settings))
        self.timeout = check_timeout(timeout)
        self.return_as = return_as
        self.pre_dispatch = pre_dispatch
        self.batch_size = batch_size
        self.temp_folder = setting("temp_folder", temp_folder, settings)
        self.max_nbytes = setting("max_nbytes", max_nbytes, settings)
        self.mmap_mode = setting("mmap_mode", mmap_mode, settings)
        self.check_arrays = setting("check_arrays", check_arrays, settings)
        check_of_arrays(self.temp_folder, self.max_nbytes, self.mmap_mode, self.check_arrays)
        self._return_as = check_return_as(return_as)
        self._batch_size = check_batch_size(batch_size)
        if pre_dispatch != "2*n_jobs":
            check_pre_dispatch(pre_dispatch)
        self._call_options = call_options(
            (
                on_error,
                retries,
                retry_on,
                retry_backoff,
                call_timeout,
                stop_when,
                pre_dispatch_nbytes,
                min_free_memory,
                memory_patience,
                journal,
                reduce,
                reduce_initial,
                seed,
                setting("output", output, settings),
            ),
            self._return_as,
        )

        if backend_params and not takes_params(backend):
            raise unexpected("Parallel", backend_params, names_of(Runner.__init__))
        workers = given_workers(
            (
                initializer,
                initargs,
                idle_worker_timeout,
                inner_max_num_threads,
                max_worker_memory,
                preload,
                worker_lifespan,
            )
        )
        if backend is None and settings.backend_params:
            workers = {**settings.backend_params, **workers}
        self._options = worker_options(workers)
        self._is_named = backend is not None
        self._engine, wanted, self._remark = choose_backend(
            backend, jobs, prefer, require, backend_params
        )
        if wanted is None:
            default = self._default_n_jobs
            wanted = self._engine.default_n_jobs if default is None else default
        self.n_jobs = wanted
        self._managed = False
        self._held = Holdings(self._options, self._call_options.journal)
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

    @property
    def n_resumed_tasks(self) -> int:
        """How many results came from the journal."""
        return self._held.n_resumed_tasks

    def print_progress(self) -> None:
        """Tell how far the call is; called after completions, for subclasses to override.

        It runs in the thread that waits for the results. See `n_completed_tasks`,
        `n_dispatched_tasks` and `n_tasks`.
        """
        if self._messages is not None:
            self._messages.progress(self.n_completed_tasks, self.n_tasks)

    def _print(self, message: str) -> None:
        """Write a message of `verbose`; subclasses that were written for joblib override it."""
        if self._messages is not None:
            self._messages.write(message)

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
        self._held.close_journal()
        self._held.release()

    def _run(self, iterable: Any) -> Any:
        """Return what a call returns."""
        if self._running:
            self._check_is_free()
        tasks = check_iterable(iterable)
        self._running = True
        complete = False
        try:
            dispatch = self._dispatch = self._start(tasks)
            if self._return_as is not ReturnAs.LIST:
                return self._generate(dispatch)
            results = dispatch.run()
            complete = True
            return results
        except BaseException as error:
            self._attach_aftermath(error)
            raise
        finally:
            if self._return_as is ReturnAs.LIST or self._generator is None:
                self._finish(complete)

    def _check_is_free(self) -> None:
        if self._running or self._apart is not None:
            raise RuntimeError(
                "This Parallel instance is already running a call, whose generator has not been "
                "exhausted or closed: finish that first, or use another instance"
            )

    def _attach_aftermath(self, error: BaseException) -> None:
        """Have `error`, which ends the call, carry what was done."""
        if self._dispatch is None or isinstance(self._dispatch, Counters):
            attach(error, ArrivedResults(), None)  # it ended before any worker was ready
        else:
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
        backend = self._engine
        n_jobs = self._effective_n_jobs()
        self._dispatch = None
        if self._needs_no_worker(n_jobs) or sys.is_finalizing():
            backend = find_backend("sequential")  # the end: no import, no thread any more
        pre_dispatch = resolve_pre_dispatch(self.pre_dispatch, n_jobs)
        session: Session | None = None
        while session is None and backend.style is Style.PUSH:
            if not backend.runs_here:
                check_temp_folder(self.temp_folder)
            try:
                session = self._held.open(backend, n_jobs)
            except BackendUnavailable as error:
                backend = instead_of(backend, error)
        progress = self._prepare_messages(backend, n_jobs)
        plan = self._plan(backend, n_jobs, pre_dispatch, progress)
        make_arrays = functools.partial(
            self._held.array_reducer,
            self.max_nbytes,
            self.mmap_mode,
            self.temp_folder,
            self.check_arrays,
        )
        dispatch = new_dispatch(backend, session, tasks, plan, self._options, make_arrays)
        self._dispatch = dispatch
        backend.start_call()
        dispatch.start()
        return dispatch

    def _needs_no_worker(self, n_jobs: int) -> bool:
        """Whether one job is all, and nothing is asked for that only a worker can give."""
        backend = self._engine
        if n_jobs != 1 or not backend.inline_when_single or not self._may_run_here:
            return False
        if self.timeout is not None:
            return False
        if backend.style is not Style.PUSH or backend.runs_here:
            return True  # a thread protects from nothing else
        if self._is_named and self.n_jobs < 0:
            return False  # of processes, as many as there are cores
        options = self._call_options
        is_protected = options.retries or options.on_error != "raise" or self._options.most_memory
        return not is_protected

    def _plan(
        self,
        backend: Backend,
        n_jobs: int,
        pre_dispatch: int | None,
        progress: Callable[[], None] | None,
    ) -> CallPlan:
        options = self._call_options
        seeded = seed_of_call(options.seed)
        place, settings = place_of(backend), None
        if backend.runs_here:
            threads = threads_per_worker(n_jobs, self._options.thread_limit)
            settings = settings_of_tasks(backend, n_jobs, threads)
        elif backend.style is Style.PUSH:
            settings = settings_of_tasks(backend, n_jobs)
        return CallPlan(
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
            None if options.journal is None else self._held.open_journal(seeded),
            options.reduction(),
            (
                *options.aspects(),
                *aspects_of_call(place, seeded, settings, backend.opens_files),
            ),
            settings if backend.runs_here else None,
            self._interruption,
        )

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
            self._held.end_journal(self._messages)
            if not self._managed:
                self._held.close_journal()
            if not self._managed or not complete:
                self._held.release()
            else:
                self._held.end_call()

    def _prepare_messages(self, backend: Backend, n_jobs: int) -> Callable[[], None] | None:
        self._messages = None
        if self.verbose:
            is_own = getattr(self._print, "__func__", None) is _print
            self._messages = Messages(self.verbose, repr(self), None if is_own else self._print)
            if self._remark is not None and self.verbose >= MESSAGE_OF_OVERRIDES:
                self._messages.say(self._remark)
            self._messages.say(f"Using backend {backend.name} with {n_jobs} concurrent workers.")
        told: Callable[[], None] | None = None
        if self.verbose or getattr(self.print_progress, "__func__", None) is not _print_progress:
            told = self.print_progress
        return followed(self, told) if followers else told

    @property
    def _backend(self) -> Any:
        """What libraries that know joblib's `Parallel` look at; see `Backend.given`."""
        return self._engine.given

    def _effective_n_jobs(self) -> int:
        """Return how many workers a call would get; libraries ask joblib's `Parallel` this way."""
        return self._engine.effective_n_jobs(self.n_jobs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_jobs={self.n_jobs})"


_print = Runner._print
_print_progress = Runner.print_progress
