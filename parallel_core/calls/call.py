"""One call, from its start to its end."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from memmapping.folders import check_temp_folder
from parallel_core import config
from parallel_core.backends.base import Backend, BackendUnavailable, Session, Style
from parallel_core.backends.cores import cpu_count, threads_per_worker
from parallel_core.backends.options import WorkerOptions
from parallel_core.backends.registry import find_backend
from parallel_core.calls.choice import settings_of_tasks
from parallel_core.calls.pre_dispatch import resolve_pre_dispatch
from parallel_core.calls.resources import CallResources, globals_set_by
from parallel_core.context.capturing import context_items_of_call
from parallel_core.context.item import ContextItem, Place
from parallel_core.context.seeds import Seeded, seed_of_call
from parallel_core.context.this_worker import leading_arguments
from parallel_core.dispatch.call_errors import PartialResults, attach
from parallel_core.dispatch.inline import InlineLoop
from parallel_core.dispatch.limits import Counters, Gate, Limits, ReturnAs
from parallel_core.dispatch.loop import BatchLoop
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.source import expected_length
from parallel_core.dispatch.task_queue import TaskQueue
from parallel_core.errors import warn_caller
from parallel_core.insights.record import CallRecord
from parallel_core.observe.events import CallEnded, CallStarted, Emit
from parallel_core.observe.observers import Looks, Observer, emit_to
from parallel_core.observe.reporting import find_reporter
from parallel_core.serialization.definitions import Definitions

if TYPE_CHECKING:
    from parallel_core.calls.spec import CallSpec
    from parallel_core.dispatch.ending import Interruption
    from parallel_core.dispatch.policy import Policy

_numbers = itertools.count(1)
_warned: set[str] = set()


class Dispatch(Protocol):
    """What runs the tasks of a call: `BatchLoop` on a session, or `InlineLoop`."""

    outcomes: Outcomes

    @property
    def dispatched(self) -> int:
        """How many tasks were handed to workers."""

    def start(self) -> None:
        """Pull the first tasks and hand them over."""

    def run(self) -> Any:
        """Return what the call returns."""

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come."""

    def sum_up(self) -> None:
        """Put into the record of the call what was counted elsewhere."""

    def abandon(self) -> None:
        """End the call now, and stop what still runs."""


class Call:
    """One call: tasks, a spec, and the resources that it runs on.

    `start` it, then `run` it or take its `chunks`, and `close` it, however it ended.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        spec: CallSpec,
        resources: CallResources,
        *,
        label: str,
        return_as: ReturnAs | None = None,
        policy: Policy | None = None,
        interruption: Interruption | None = None,
        may_run_here: bool = True,
        observers: Iterable[Observer] = (),
        hook: Emit | None = None,
        context_items: Sequence[ContextItem] = (),
        gate: Gate | None = None,
    ) -> None:
        self._tasks: Iterable[Any] = tasks
        self._spec = spec
        self._resources = resources
        self._label = label  # the call in words
        self._return_as = spec.results.return_as if return_as is None else return_as
        self._policy = policy
        self._interruption = interruption
        self._may_run_here = may_run_here  # the tasks of one job, in the thread of the call
        self._own_items = context_items  # besides those of the caller's settings
        self._gate = gate  # in the place of the spec's
        self._trace = resources.trace()
        self._reporter = find_reporter(label)  # to a dashboard, if there is one
        self._began = 0.0
        own = (self._trace, self._reporter)
        observers = (*observers, *(observer for observer in own if observer is not None))
        self._emit = emit_to(observers, hook)  # an exception of the hook ends the call
        self._looks = Looks.wanted(observers, hook)
        self._number = next(_numbers) if self._emit is not None else 0
        self._dispatch: Dispatch | None = None
        self._counters = Counters()
        self._error: BaseException | None = None
        self._record: CallRecord | None = None

    @property
    def record(self) -> CallRecord | None:
        """The record of the call, from its start on."""
        record = self._record
        if record is not None and self._dispatch is not None:
            self._complete(record, self._dispatch)
        return record

    def _complete(self, record: CallRecord, dispatch: Dispatch) -> None:
        """Put into the record how far the call is."""
        dispatch.sum_up()
        _, record.completed, record.total = self.counters

    @property
    def counters(self) -> Counters:
        """The progress of the call, or its progress when it ended."""
        dispatch = self._dispatch
        if dispatch is None:
            return self._counters
        outcomes = dispatch.outcomes
        return Counters(dispatch.dispatched, outcomes.completed, outcomes.total)

    @property
    def is_list(self) -> bool:
        """Whether the caller gets all results at the end."""
        return self._return_as is ReturnAs.LIST

    def start(self) -> None:
        """Take workers, or do without them; pull the first tasks and hand them over."""
        spec = self._spec
        if self._trace is not None:
            self._trace.open()
        n_jobs = spec.effective_n_jobs()
        self._began = monotonic()
        backend, session = self._place(n_jobs)
        record = self._record = self._begin_record(backend, session, n_jobs)
        if self._emit is not None:
            total = expected_length(self._tasks)
            self._emit(CallStarted(self._number, backend.name, n_jobs, self._label, total))
        limits = self._limits(n_jobs)
        seeded = seed_of_call(spec.seed)
        settings = _settings_for(backend, n_jobs, spec.workers)
        outcomes = Outcomes(
            self._return_as,
            spec.failures.policy() if self._policy is None else self._policy,
            stop_when=spec.results.stop_when,
            journal=self._resources.open_journal(seeded),
            reduction=spec.results.reduction(),
            context_items=self._context_items(backend, seeded, settings),
            emit=self._emit,
            looks=self._looks,
            record=record,
            call=self._number,
            is_live=isinstance(self._tasks, TaskQueue) and self._tasks.answers_each,
        )
        if self._reporter is None:
            outcomes.find_listener = functools.partial(
                self._find_listener, backend, n_jobs, session
            )
        elif session is not None:
            self._reporter.control = session.control()
        self._dispatch = self._dispatch_on(backend, session, outcomes, limits, settings)
        backend.start_call()
        self._dispatch.start()

    def _begin_record(self, backend: Backend, session: Session | None, n_jobs: int) -> CallRecord:
        """Return the record of a call that has its workers now."""
        record = CallRecord(backend.name, n_jobs, self._label, self._began)
        record.is_stream = not self.is_list
        record.is_local = backend.opens_files or backend.runs_here
        record.starting = monotonic() - self._began
        if session is not None and session.runs_here:
            record.begin_here()
        return record

    def _limits(self, n_jobs: int) -> Limits:
        """Return the bounds of the call on so many workers."""
        bounds = self._spec.bounds
        return Limits(
            resolve_pre_dispatch(bounds.pre_dispatch, n_jobs),
            bounds.pre_dispatch_nbytes,
            bounds.batch_size,
            self._spec.workers.lifespan,
            bounds.timeout,
            bounds.call_timeout,
            self._gate or bounds.gate(),
            self._interruption,
            bounds.order_tasks,
        )

    def _dispatch_on(
        self,
        backend: Backend,
        session: Session | None,
        outcomes: Outcomes,
        limits: Limits,
        settings: config.Settings | None,
    ) -> Dispatch:
        """Return what runs the tasks: on the session, or in this thread where there is none."""
        spec = self._spec
        tasks, self._tasks = self._tasks, ()
        if session is None:
            _initialize_here(spec.workers)
            return InlineLoop(tasks, outcomes, limits, self._resources.worker_here().known)
        arrays = functools.partial(self._resources.array_reducer, spec.arrays)
        definitions = Definitions(
            globals_set_by(spec.workers),
            arrays if backend.opens_files else None,
            backend.passes_descriptors,
        )
        aim = backend.aim_seconds
        return BatchLoop(tasks, session, outcomes, limits, aim, definitions, settings)

    # It finds the outcomes by way of the call, which lets go of them when it ends: held by what
    # they hold, the results would stay until the garbage collector comes.
    def _find_listener(self, backend: Backend, n_jobs: int, session: Session | None) -> None:
        """Have a dashboard be told that was started after the call."""
        reporter = find_reporter(self._label)
        if reporter is None or self._dispatch is None:
            return
        outcomes = self._dispatch.outcomes
        outcomes.find_listener = None
        if self._number == 0:
            self._number = outcomes.call = next(_numbers)
        started = CallStarted(self._number, backend.name, n_jobs, self._label, outcomes.total)
        reporter.join(started, self._began, outcomes.completed)
        reporter.control = None if session is None else session.control()
        self._emit = outcomes.emit = emit_to([reporter], self._emit)
        seconds = min(outcomes.looks.seconds, reporter.look_seconds)
        outcomes.looks = outcomes.looks._replace(seconds=seconds)

    def run(self) -> Any:
        """Return all results, in order, or what they were folded to; the call is over then."""
        is_complete = False
        try:
            self.start()
            assert self._dispatch is not None
            result = self._dispatch.run()
            is_complete = True
            return result
        except BaseException as error:
            self.attach_to(error)
            raise
        finally:
            self.close(is_complete)

    def chunks(self) -> Iterator[list[Any]]:
        """Return an iterator over results as they come, in lists."""
        assert self._dispatch is not None
        return self._dispatch.chunks()

    def attach_to(self, error: BaseException) -> None:
        """Have `error`, which ends the call, carry the results."""
        self._error = error
        if self._dispatch is None:
            attach(error, PartialResults(), None)  # the call ended before any worker was ready
        else:
            attach(error, *self._dispatch.outcomes.partial())

    def close(self, is_complete: bool = False) -> None:
        """End the call: with all its results, or by stopping what still runs."""
        self._counters = self.counters
        record = self.record
        # A generator that was left open is closed while Python ends, when nothing can be imported.
        if record is not None and record.end() and not sys.is_finalizing():
            from parallel_core.insights.machine import look_at_workers

            record.cores = cpu_count()
            look_at_workers(record)
        dispatch, self._dispatch = self._dispatch, None  # keep its figures, not its results
        self._tasks = ()
        resumed = 0
        try:
            if not is_complete and dispatch is not None:
                dispatch.abandon()
        finally:
            try:
                resumed = self._resources.end_call(is_complete)
            except BaseException as error:
                if is_complete and dispatch is not None:  # an exit function has raised
                    self._error = error
                    attach(error, dispatch.outcomes.partial()[0], None)
                raise
            finally:
                if record is not None:
                    record.resumed = resumed
                if self._emit is not None:
                    emit, self._emit = self._emit, None
                    _, completed, total = self._counters
                    emit(CallEnded(self._number, completed, total, resumed, self._error))

    def _place(self, n_jobs: int) -> tuple[Backend, Session | None]:
        """Return the backend, or a working one in its place, and its session if it has one."""
        backend, setup = self._spec.backend, self._spec.workers.setup
        if setup is not None:
            setup.check_n_jobs(n_jobs)
        if self._needs_no_worker(n_jobs) or sys.is_finalizing():
            return find_backend("sequential"), None  # the end: no import, no thread any more
        while backend.style is not Style.INLINE:
            if not backend.runs_here:
                check_temp_folder(self._spec.arrays.temp_folder)
            try:
                return backend, self._resources.open(backend, n_jobs)
            except BackendUnavailable as error:
                backend = _instead_of(backend, error)
                backend.check_features(self._spec.features())
        return backend, None

    def _needs_no_worker(self, n_jobs: int) -> bool:
        """Whether there is one job only, and no parameter that needs a worker."""
        spec, backend = self._spec, self._spec.backend
        if n_jobs != 1 or not backend.inline_when_single or not self._may_run_here:
            return False
        setup = spec.workers.setup
        if spec.bounds.timeout is not None or (setup is not None and setup.needs_worker):
            return False
        if backend.runs_here:
            return True  # a thread protects from nothing else
        if spec.is_named and spec.n_jobs < 0:
            return False  # of processes, as many as there are cores
        is_protected = spec.failures.retries or spec.failures.on_error != "raise"
        return not (is_protected or spec.workers.max_memory)

    def _context_items(
        self, backend: Backend, seeded: Seeded | None, settings: config.Settings | None
    ) -> tuple[ContextItem, ...]:
        """Return what is to hold inside the tasks, the outermost first."""
        captured = context_items_of_call(_place_of(backend), seeded, settings, backend.opens_files)
        items = (*self._spec.results.context_items(), *captured, *self._own_items)
        setup = self._spec.workers.setup
        if setup is not None and any(setup.passed):
            items += (leading_arguments(setup.passed),)
        return items


def _place_of(backend: Backend) -> Place:
    """Return where the tasks of a call on `backend` run, seen from here."""
    if backend.style is Style.INLINE:
        return Place.CALLER
    if backend.runs_here:
        return Place.THREAD
    return Place.WORKER if backend.tells_process_state else Place.FOREIGN_PROCESS


def _settings_for(backend: Backend, n_jobs: int, workers: WorkerOptions) -> config.Settings | None:
    """Return what of the configuration holds inside the tasks; None where that is the caller's."""
    if backend.style is Style.INLINE:
        return None
    if backend.runs_here:
        threads = threads_per_worker(n_jobs, workers.thread_limit)
        return settings_of_tasks(backend, n_jobs, threads)
    return settings_of_tasks(backend, n_jobs)


def _instead_of(backend: Backend, error: BackendUnavailable) -> Backend:
    """Return the backend to use where `backend` cannot work, for `error`."""
    if error.instead is None and backend.name not in _warned:
        _warned.add(backend.name)
        warn_caller(
            f"the backend {backend.name!r} cannot be used here ({error}); threads are used instead",
            RuntimeWarning,
        )
    return error.instead or find_backend("threading")


def _initialize_here(options: WorkerOptions) -> None:
    if options.initializer is None:
        return
    try:
        options.initializer(*options.initargs)
    except (Exception, SystemExit) as error:
        from parallel_core.errors import InitializerError

        raise InitializerError(
            f"the initializer raised: {type(error).__name__}: {error}"
        ) from error
