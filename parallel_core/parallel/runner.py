"""The work of `Parallel`: it reads its parameters, and makes one call at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parallel_core.calls.call import Call
from parallel_core.calls.checks import LOW_MEMORY_TIMEOUT, RETRY_BACKOFF, check_iterable
from parallel_core.calls.resources import CallResources
from parallel_core.calls.spec import spec_of
from parallel_core.config import UNSET
from parallel_core.dispatch.limits import Counters, ReturnAs
from parallel_core.observe.events import (
    BatchAnswered,
    CallEnded,
    CallStarted,
    Event,
    ResultsResumed,
    TaskFailed,
)
from parallel_core.observe.messages import MESSAGE_OF_OVERRIDES, Messages
from parallel_core.observe.observers import observers_of
from parallel_core.tasks.placeholders import NO_RESULT

if TYPE_CHECKING:
    import os
    from typing import Literal, Self

    from parallel_core.dispatch.ending import Interruption
    from parallel_core.dispatch.policy import TaskFailure
    from parallel_core.insights.record import CallRecord
    from parallel_core.insights.report import Report
    from parallel_core.observe.observers import Observer
    from parallel_core.observe.progress import ProgressLike
    from parallel_core.parallel.asynchronous import Background, BackgroundCall
    from parallel_core.trace.target import TraceLike


class Runner:
    """`Parallel` without its types, which describe the parameters."""

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
        worker_init: Callable[..., object] | None = UNSET["worker_init"],
        worker_exit: Callable[..., object] | None = UNSET["worker_exit"],
        cpu_ids: Sequence[int | Sequence[int]] | None = UNSET["cpu_ids"],
        worker_env: Sequence[Mapping[str, str]] | None = UNSET["worker_env"],
        use_worker_state: bool = False,
        order_tasks: bool = False,
        on_error: str | Callable[[TaskFailure], object] = "raise",
        retries: int = 0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        retry_backoff: float = RETRY_BACKOFF,
        call_timeout: float | None = None,
        stop_when: Callable[[Any], object] | None = None,
        pre_dispatch_nbytes: int | str | None = None,
        min_free_memory: int | str | None = None,
        low_memory_timeout: float | None = LOW_MEMORY_TIMEOUT,
        journal: str | os.PathLike[str] | None = None,
        reduce: Callable[[Any, Any], Any] | None = None,
        reduce_initial: Any = NO_RESULT,
        seed: Any = None,
        output: Literal["pass", "capture", "discard"] = UNSET["output"],
        check_arrays: Literal["auto", "always", "never"] = UNSET["check_arrays"],
        observers: Sequence[Observer] | None = UNSET["observers"],
        progress: ProgressLike = UNSET["progress"],
        trace: TraceLike = UNSET["trace"],
        **backend_params: Any,
    ) -> None:
        params = locals()  # the parameters by name: what a call is asked to do stands in its spec
        del params["self"], params["backend_params"]
        self._spec = spec_of("Parallel", params, backend_params)
        self._resources = CallResources(self._spec)
        self._return_as = return_as
        self._batch_size = batch_size
        self._call: Call | None = None
        self._counters = Counters()
        self._record: CallRecord | None = None
        self._messages: Messages | None = None
        self._generator: weakref.ref[Generator[Any, None, None]] | None = None
        self._background: Background | None = None

    @property
    def n_jobs(self) -> int:
        """Number of jobs, as requested."""
        return self._spec.n_jobs

    @property
    def return_as(self) -> str:
        """Kind of return value."""
        return self._return_as

    @property
    def batch_size(self) -> int | str:
        """Number of tasks that are handed over together."""
        return self._batch_size

    @property
    def verbose(self) -> int:
        """Verbosity."""
        return self._spec.verbose

    @property
    def timeout(self) -> float | None:
        """Seconds that a task may run."""
        return self._spec.bounds.timeout

    @property
    def pre_dispatch(self) -> float | str:
        """Number of batches that may be pulled ahead."""
        return self._spec.bounds.pre_dispatch

    @property
    def temp_folder(self) -> Any:
        """Folder for large arrays."""
        return self._spec.arrays.temp_folder

    @property
    def max_nbytes(self) -> Any:
        """Size from which arrays are shared."""
        return self._spec.arrays.max_nbytes

    @property
    def mmap_mode(self) -> Any:
        """Mode in which workers open shared arrays."""
        return self._spec.arrays.mmap_mode

    @property
    def check_arrays(self) -> str:
        """How changes of arrays are noticed."""
        return self._spec.arrays.check_arrays

    @property
    def n_tasks(self) -> int | None:
        """Number of tasks, once that is known."""
        return self._progress.total

    @property
    def n_dispatched_tasks(self) -> int:
        """Number of tasks that were handed to workers."""
        return self._progress.dispatched

    @property
    def n_completed_tasks(self) -> int:
        """Number of tasks that are done."""
        return self._progress.completed

    @property
    def n_resumed_tasks(self) -> int:
        """Number of results that came from the journal."""
        return self._resources.n_resumed_tasks

    @property
    def exit_results(self) -> list[Any]:
        """Return values of `worker_exit` from all workers, after a call or ``with`` block."""
        return self._resources.exit_results

    @property
    def _progress(self) -> Counters:
        return self._counters if self._call is None else self._call.counters

    def _print(self, message: str) -> None:
        """Write a message of `verbose`; subclasses that were written for joblib override it."""
        if self._messages is not None:
            self._messages.write(message)

    def print_progress(self) -> None:
        """Report the progress of the call; called after completions, for subclasses to override.

        It runs in the thread that waits for the results. See `n_completed_tasks`,
        `n_dispatched_tasks` and `n_tasks`.
        """
        if self._messages is not None:
            self._messages.progress(self.n_completed_tasks, self.n_tasks)

    def report(self) -> Report:
        """Return where the time of the last call went, and what to do about it.

        Every call is recorded, at no cost that could be felt. During a call whose results are taken
        one by one, the report is about the call so far. See :doc:`/howto/why-slow`.

        Returns
        -------
        Report
            Print it, or read it as a mapping. In a notebook it is shown with a picture.

        Raises
        ------
        RuntimeError
            If there was no call yet.

        Examples
        --------
        >>> from parallel_core import Parallel, delayed
        >>> parallel = Parallel(n_jobs=2)
        >>> total = sum(parallel(delayed(abs)(x) for x in range(-3, 3)))
        >>> report = parallel.report()
        >>> report["tasks"], report["failed"], report["backend"]
        (6, 0, 'processes')
        """
        from parallel_core.insights.report import report_of

        record = self._record if self._call is None else self._call.record
        return report_of(record, "make a call of this Parallel object first")

    def __enter__(self) -> Self:
        self._resources.is_kept = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.is_kept = False
        if self._background is not None and self._background.call is not None:
            self._background.call.join()
        generator = self._generator() if self._generator is not None else None
        if generator is not None:
            generator.close()
        self._resources.close(calls_exit=error is None or isinstance(error, Exception))

    def _run(self, iterable: Any) -> Any:
        """Run a call, and return its result."""
        call = self._begin(check_iterable(iterable))
        if call.is_list:
            try:
                return call.run()
            finally:
                self._end(call)
        return self._generate(call)

    def _begin(
        self,
        tasks: Iterable[Any],
        return_as: ReturnAs | None = None,
        interruption: Interruption | None = None,
    ) -> Call:
        """Return a call that has not started; it is the one call of this instance from now on."""
        if self._call is not None:
            raise RuntimeError(
                "This Parallel instance is already running a call, whose generator has not been "
                "exhausted or closed: finish that first, or use another instance"
            )
        spec = self._spec
        shown = []
        if spec.progress is not None:
            from parallel_core.observe.bars import observer_of

            shown = [observer_of(spec.progress)]
        call = Call(
            tasks,
            spec,
            self._resources,
            label=repr(self),
            return_as=return_as,
            interruption=interruption,
            observers=(*spec.observers, *observers_of(self), *shown),
            hook=self._tell if self.verbose or not self._has_own("print_progress") else None,
        )
        self._call = call
        return call

    def _end(self, call: Call) -> None:
        """Let go of a call that was closed."""
        self._counters = call.counters
        self._record = call.record
        self._call = None

    def _in_background(self, tasks: Iterable[Any], return_as: ReturnAs) -> BackgroundCall:
        """Return a call for an event loop, not started."""
        from parallel_core.parallel.asynchronous import Background, BackgroundCall

        if self._background is None:
            self._background = Background(self._begin, self._end)
        return BackgroundCall(self._background, tasks, return_as)

    def _generate(self, call: Call) -> Generator[Any, None, None]:
        from parallel_core.parallel.generators import result_generator

        def finish(is_complete: bool) -> None:
            self._generator = None
            try:
                call.close(is_complete)
            finally:
                self._end(call)

        try:
            call.start()
        except BaseException as error:
            call.attach_to(error)
            finish(False)
            raise
        generator = result_generator(call.chunks(), finish, call.attach_to, repr(self))
        self._generator = weakref.ref(generator)
        return generator

    def _tell(self, event: Event) -> None:
        """Report what happens, by messages and by `print_progress`."""
        messages = self._messages
        if isinstance(event, CallStarted):
            if self.verbose:
                divert = None if self._has_own("_print") else self._print
                messages = self._messages = Messages(self.verbose, event.label, divert)
                if self._spec.remark is not None and self.verbose >= MESSAGE_OF_OVERRIDES:
                    messages.say(self._spec.remark)
                words = f"{event.backend} with {event.n_jobs} concurrent workers"
                messages.say(f"Using backend {words}.")
        elif isinstance(event, CallEnded):
            if messages is not None and event.resumed:
                journal = self._spec.journal
                messages.say(f"Took over {event.resumed} results from {journal}.")
            if event.error is None:
                self.print_progress()
        elif isinstance(event, (BatchAnswered, ResultsResumed, TaskFailed)):
            self.print_progress()

    @property
    def _backend(self) -> Any:
        """The backend, for libraries that read this attribute of joblib's; see `Backend.given`."""
        return self._spec.backend.given

    def _has_own(self, name: str) -> bool:
        """Whether neither a subclass nor this instance has replaced the method `name`."""
        return getattr(getattr(self, name), "__func__", None) is getattr(Runner, name)

    def _effective_n_jobs(self) -> int:
        """Return how many workers a call would get; libraries ask joblib's `Parallel` this way."""
        return self._spec.effective_n_jobs()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_jobs={self.n_jobs})"
