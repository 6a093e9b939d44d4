"""`ParallelRun`: one call with its jobs, their outcomes and their times.

::

    parameters ── checked at once ──▶ Jobs, Method, CallSpec
                                              │ run: in this thread; run_async: in another one
                                              ▼
    results, exceptions, times ◀── _take ◀── Call, or a map function of the user's
                                     └──▶ callback, which may stop it
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from memmapping.modules import loaded
from parallel_core.backends.base import Style
from parallel_core.calls.call import Call
from parallel_core.calls.parameters import defaults_of
from parallel_core.calls.resources import CallResources
from parallel_core.calls.spec import CallSpec, spec_of
from parallel_core.context.seeds import check_seed, seed_of_call
from parallel_core.dispatch.call_errors import PartialResults
from parallel_core.dispatch.ending import CallInterrupted, Interruption
from parallel_core.errors import cut_traceback, warn_caller, without_our_frames
from parallel_core.observe.observers import observers_of
from parallel_core.parallel.runner import Runner
from parallel_core.scripting.items import (
    CopiesArguments,
    JobOutcome,
    MappedJob,
    TimesJobs,
    failed_outcome,
    outcome_of,
)
from parallel_core.scripting.jobs import make_jobs, number_of_workers
from parallel_core.scripting.loads import gate_maker, with_former_name
from parallel_core.scripting.methods import find_method

if TYPE_CHECKING:
    from typing import Self

    from parallel_core.context.item import ContextItem
    from parallel_core.dispatch.policy import TaskFailure
    from parallel_core.observe.progress import ProgressLike
    from parallel_core.scripting.jobs import Job

_numbers = itertools.count(1)


class Record(dict[str, Any]):
    """Values by name, which are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class ParallelRun:
    """Jobs to run in parallel, with their results, errors and times.

    `parallelize` is for results alone. A `ParallelRun` can run in the background, be watched and
    be stopped.

    Parameters
    ----------
    func, iterarg, ..., start_method, **func_kwargs
        See `parallelize`. All are checked at once.
    label : str, optional
        Name of the run in messages.

    Attributes
    ----------
    results : list
        Results in the order of the jobs. None for a job that has none; its exception for a job that
        has failed.
    success : list of bool
        Whether each job has returned.
    exceptions : list
        Exception of each job, or None.
    skipped : list of bool
        Whether each job has no outcome, since the run was stopped.
    stdout : list of str
        Text that each job has printed, with `capture`.
    times : Record
        `started` and `finished` (`datetime`), `elapsed` in seconds, and `jobs`, a list of the
        seconds of each job.
    njobs, ncpus : int
        Numbers of jobs, and of workers.
    method : str
        What runs the jobs.
    is_async, already_run : bool
        Whether `parallelizer` asked for a run in the background; whether there has been a run.

    Examples
    --------
    >>> from parallel_core import ParallelRun
    >>> run = ParallelRun(pow, [(2, 5), (3, 2)], ncpus=2, label="powers")
    >>> run.run().results
    [32, 9]
    >>> run
    ParallelRun("powers"; jobs=2; cpus=2; method=default; status=done)

    In the background:

    >>> run = ParallelRun(abs, [-1, 2, -3], parallelizer="thread-async")
    >>> run.run_async().finalize().results
    [1, 2, 3]
    """

    def __init__(
        self,
        func: Callable[..., Any],
        iterarg: Any = None,
        iterkwargs: Any = None,
        args: Any = None,
        kwargs: dict[str, Any] | None = None,
        ncpus: float | None = None,
        maxcpu: float | None = None,
        maxmem: float | None = None,
        interval: float | None = None,
        parallelizer: Any = None,
        serial: bool = False,
        progress: ProgressLike = False,
        callback: Callable[[Record], object] | None = None,
        globaldict: dict[Any, Any] | None = None,
        label: str | None = None,
        capture: bool = False,
        die: bool = True,
        lbkwargs: dict[str, Any] | None = None,
        start_method: str | None = None,
        **func_kwargs: Any,
    ) -> None:
        maxcpu = with_former_name(maxcpu, func_kwargs)
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of a record, not {callback!r}")
        if globaldict is not None and not isinstance(globaldict, dict):
            raise TypeError(f"globaldict must be a dictionary or None, not {globaldict!r}")
        self._method = find_method(parallelizer, serial, start_method)
        self._make_gate = gate_maker(maxcpu, maxmem, interval, lbkwargs or {})
        if self._method.map_function is not None:
            given = {"ncpus": ncpus, "maxcpu or maxmem": self._make_gate, "progress": progress}
            for name in (name for name, value in given.items() if value):
                raise ValueError(
                    f"{name} has no meaning with a map function of your own as parallelizer: what "
                    "is behind it decides how many jobs run, and when"
                )
        self.func = func
        self._jobs = make_jobs(func, iterarg, iterkwargs, args, kwargs, func_kwargs)
        self.njobs = len(self._jobs)
        self.method = self._method.name
        self.is_async = self._method.is_async
        self.callback = callback
        self.globaldict = globaldict
        self.label = label
        self.die = die
        self._spec = self._make_spec(ncpus, progress, capture)
        self.ncpus = self._spec.n_jobs
        self.already_run = False
        self._only_results = False  # whether nobody wants to know more than the results
        self.reset()

    def _make_spec(self, ncpus: Any, progress: Any, capture: bool) -> CallSpec:
        """Return what the engine is asked to do, with as many workers as there is use for."""
        params = defaults_of(Runner.__init__)
        params.update(
            backend=self._method.backend,
            return_as="list" if self.callback is None else "generator_unordered",
            on_error="raise" if self.die else _as_outcome,
        )
        if progress:
            params["progress"] = progress
        if capture:
            params["output"] = "capture"
        spec = spec_of("parallelize", params, {}, default_n_jobs=-1)
        if ncpus is None:
            n_workers = spec.effective_n_jobs()
        else:
            n_workers = number_of_workers(ncpus, spec.backend.effective_n_jobs(-1))
        return spec._replace(n_jobs=min(n_workers, self.njobs))

    @functools.cached_property
    def argslist(self) -> list[Job]:
        """Positional and keyword arguments of each job."""
        return self._jobs.argslist

    @property
    def n_done(self) -> int:
        """Number of jobs that have an outcome."""
        if self._engine_call is None:
            return self.njobs - sum(self.skipped)
        return self._engine_call.counters.completed

    @property
    def running(self) -> bool:
        """Whether jobs are running."""
        return self.status == "running"

    @property
    def ready(self) -> bool:
        """Whether a run has ended."""
        return self.status == "done"

    @property
    def status(self) -> str:
        """State: ``"not run"``, ``"running"`` or ``"done"``."""
        if not self.already_run:
            return "not run"
        return "done" if self._ended.is_set() else "running"

    def reset(self) -> Self:
        """Forget the outcomes, so that it can run again; return this object."""
        if self.running:
            raise RuntimeError(f"{self!r} is running: finalize() it or close() it first")
        self.results: list[Any] = [None] * self.njobs
        self.success = [False] * self.njobs
        self.exceptions: list[BaseException | None] = [None] * self.njobs
        self.skipped = [True] * self.njobs
        self.stdout = [""] * self.njobs
        self.times = Record(started=None, finished=None, elapsed=None, jobs=[None] * self.njobs)
        self._engine_call: Call | None = None
        self.already_run = False
        self._ended = threading.Event()
        self._interruption = Interruption()
        self._error: BaseException | None = None
        self._shared: Any = self.globaldict  # what jobs see of it
        return self

    def run_for_results(self) -> list[Any]:
        """Run all jobs, and return their results, with less effort where that is all."""
        captures = self._spec.results.output == "capture"
        self._only_results = self.callback is None and self.die and not captures
        return self.run().results

    def run(self) -> Self:
        """Run all jobs; return this object when they are done, or raise the error of one."""
        self._begin()
        self._work()
        return self.finalize()

    def run_async(self) -> Self:
        """Start the jobs in the background; return this object at once."""
        self._begin()
        context = copy_context()
        name = f"parallel-core-run-{next(_numbers)}"
        threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True).start()
        return self

    def monitor(self, interval: float = 0.1) -> Self:
        """Print how many jobs are done, until all are; return this object."""
        shown = -1
        while not self._wait(interval) or shown < self.n_done:
            if shown != self.n_done:
                shown = self.n_done
                seconds = (datetime.datetime.now() - self.times.started).total_seconds()
                print(f"{shown}/{self.njobs} jobs done ({seconds:.1f} s)")
        return self

    def finalize(self) -> Self:
        """Wait for the end of the run; return this object, or raise the error that ended it."""
        if not self.already_run:
            raise RuntimeError(f"{self!r} has not run: call run() or run_async() first")
        self._wait(None)
        error = self._error
        if isinstance(error, Exception):
            raise without_our_frames(error)
        if error is not None:
            raise cut_traceback(error)
        self._warn_of_failures()
        return self

    def stop(self) -> None:
        """Start no more jobs, and stop those that run; their results are None."""
        self._interruption.set()

    def close(self) -> None:
        """Stop the run, and wait for its end."""
        if self.already_run:
            self.stop()
            self._wait(None)

    def _wait(self, seconds: float | None) -> bool:
        """Wait for the end of the run; return whether it has ended."""
        try:
            return self._ended.wait(seconds)
        except BaseException:  # Ctrl-C
            self.stop()
            raise

    def _begin(self) -> None:
        if self.already_run:
            self.reset()
        self.already_run = True
        self.times.started = datetime.datetime.now()

    def _work(self) -> None:
        """Run the jobs in this thread, and keep what ends them."""
        began = time.perf_counter()
        try:
            with self._shared_dictionary() as shared:
                if self._method.map_function is None:
                    self._call(shared)
                else:
                    self._map(self._method.map_function, shared)
        except CallInterrupted:
            pass  # by `stop`
        except BaseException as error:
            self._error = error
        self.times.finished = datetime.datetime.now()
        self.times.elapsed = time.perf_counter() - began
        self._ended.set()

    def _call(self, shared: dict[str, Any]) -> None:
        """Run the jobs by a call of the engine."""
        spec = self._spec._replace(seed=check_seed(_draw_seed()))
        observers = [*spec.observers, *observers_of(self)]
        if spec.progress is not None:
            from parallel_core.observe.bars import observer_of

            observers.append(observer_of(spec.progress))
        items = () if self._only_results else (_TIMES,)
        call = self._engine_call = Call(
            self._jobs.with_shared(shared),
            spec,
            CallResources(spec),
            label=repr(self),
            interruption=self._interruption,
            observers=observers,
            context_items=(*items, _COPIES) if self._method.copies else items,
            gate=None if self._make_gate is None else self._make_gate(),
        )
        if self.callback is not None:
            self._take_as_they_come(call)
        elif self._only_results:
            self.results = call.run()
        else:
            values: Iterable[Any] = ()
            try:
                values = call.run()
            except BaseException as error:
                arrived = getattr(error, "results", None)
                values = arrived.values() if isinstance(arrived, PartialResults) else ()
                raise
            finally:
                for value in values:
                    self._take(outcome_of(value))

    def _take_as_they_come(self, call: Call) -> None:
        """Run the jobs, and keep each outcome when it arrives."""
        is_complete = False
        try:
            call.start()
            for values in call.chunks():
                for value in values:
                    self._take(outcome_of(value))
                    self._interruption.check()
            is_complete = True
        except BaseException as error:
            call.attach_to(error)
            raise
        finally:
            call.close(is_complete)

    def _map(self, function: Callable[..., Any], shared: dict[str, Any]) -> None:
        """Run the jobs by a map function of the user's."""
        seeded = seed_of_call(check_seed(_draw_seed()))
        seeds: tuple[ContextItem, ...] = () if seeded is None else (seeded,)
        items = (*self._spec.results.context_items(), *seeds, _TIMES)
        jobs = list(enumerate(self._jobs.with_shared(shared).argslist))
        outcomes = function(MappedJob(self.func, items, not self.die), jobs)
        for outcome in outcomes:
            if type(outcome) is not JobOutcome:
                raise TypeError(
                    f"parallelizer {self.method!r} must call its first argument for each item of "
                    f"its second, and return the results, as map does; it returned {outcome!r}"
                )
            self._take(outcome)
            self._interruption.check()

    def _take(self, outcome: JobOutcome) -> None:
        """Keep the outcome of a job; end the run soon if the callback says so."""
        index, value, error, seconds, stdout = outcome
        self.results[index] = value if error is None else error
        self.success[index] = error is None
        self.exceptions[index] = error
        self.skipped[index] = False
        self.stdout[index] = stdout
        self.times.jobs[index] = seconds
        if self.callback is not None and self._call_back(outcome):
            self._interruption.set()

    def _call_back(self, outcome: JobOutcome) -> bool:
        """Tell the callback of an outcome; return whether the run is to stop."""
        index, value, error, seconds, stdout = outcome
        args, kwargs = self.argslist[index]
        told = Record(
            index=index,
            njobs=self.njobs,
            args=args,
            kwargs=kwargs,
            globaldict=self._shared,
            outdict=Record(
                result=value if error is None else error,
                success=error is None,
                exception=error,
                elapsed=seconds,
                skipped=False,
                stdout=stdout,
            ),
            stop=False,
        )
        assert self.callback is not None
        self.callback(told)
        return bool(told.stop)

    @contextlib.contextmanager
    def _shared_dictionary(self) -> Iterator[dict[str, Any]]:
        """Return the argument `globaldict` of jobs, if there is one; processes get a proxy."""
        own, backend = self.globaldict, self._spec.backend
        if own is None:
            yield {}
            return
        here = backend.runs_here or backend.style is Style.INLINE
        if here and self._method.map_function is None:
            yield {"globaldict": own}
            return
        import multiprocessing

        # A fork needs no guard around the main program, as the other start methods would.
        with multiprocessing.get_context("fork").Manager() as manager:
            self._shared = proxy = manager.dict(own)
            try:
                yield {"globaldict": proxy}
            finally:
                own.clear()
                own.update(proxy.copy())
                self._shared = own

    def _warn_of_failures(self) -> None:
        """Warn of the jobs that have failed, where that does not end the run."""
        for index, error in enumerate(self.exceptions):
            if error is not None:
                warn_caller(f"job {index} failed: {type(error).__name__}: {error}", RuntimeWarning)
        if any(error is not None for error in self.exceptions):
            done = sum(self.success)
            warn_caller(f"only {done} of {self.njobs} jobs succeeded", RuntimeWarning)

    def __repr__(self) -> str:
        label = "" if self.label is None else f'"{self.label}"; '
        return (
            f"{type(self).__name__}({label}jobs={self.njobs}; cpus={self.ncpus}; "
            f"method={self.method}; status={self.status})"
        )


_TIMES = TimesJobs()
_COPIES = CopiesArguments()


def _as_outcome(failure: TaskFailure) -> Any:
    """Have the outcome of a job that failed take the place of its result."""
    return failure.replace(failed_outcome(failure.position, failure.error))


def _draw_seed() -> int | None:
    """Return a number from the caller's generator of numpy; None if numpy is not in use."""
    numpy_random = loaded("numpy.random")
    return None if numpy_random is None else int(numpy_random.randint(2**63 - 1, dtype="int64"))
