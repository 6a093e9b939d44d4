"""Backends by joblib's conventions, whether they derive from joblib's base class or from ours.

::

    Dispatch ──Batch──▶ JoblibStyleSession ──BatchCall──▶ backend.submit ──▶ wherever
        ▲                    │      ▲                                          │
        └── Completion ◀── wait    Job.__call__ ◀── callback, in any thread ───┘

A batch goes as our bytes, so tasks, results and exceptions travel as with any other engine, and
the backend decides only where they run. Where its workers share our memory, it goes as it is. What
`FuturesSession` does with futures holds here too: each `Job` has one, which the callback resolves.
Without `supports_retrieve_callback` it only says that the job is done, and `retrieve_result` is
called by whoever waits.

- `joblib_batch`: `BatchCall` and `Job`.
- `conventions`: base classes for backends where joblib is not installed.
"""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack
from types import SimpleNamespace
from typing import Any

from parallel_core import config
from parallel_core.backends.base import Backend, BackendUnavailable, CallTerms, Style
from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.futures import FuturesBackend, FuturesSession
from parallel_core.backends.joblib_batch import BatchCall, EncodedRun, HeldRun, Job
from parallel_core.backends.options import WorkerOptions
from parallel_core.errors import BackendError, PerformanceWarning, WorkerDiedError, warn_caller
from parallel_core.observe.messages import Messages
from parallel_core.serialization.batch import HELD, NO_TOKEN, Batch
from parallel_core.serialization.pickling import dumps
from parallel_core.tasks.description import function_name

#: Classes that stand for backends of ours, and the modules where they are.
_KNOWN_HOMES = frozenset({"joblib._parallel_backends", "parallel_core.backends.conventions"})
_KNOWN = {
    "SequentialBackend": "sequential",
    "ThreadingBackend": "threading",
    "MultiprocessingBackend": "multiprocessing",
    "LokyBackend": "loky",
}
#: Classes whose methods are there to be overridden; what is left as it is counts as not given.
_BASES = frozenset({"ParallelBackendBase", "AutoBatchingMixin"})
#: Its `submit` is not to be called: joblib itself runs what is left to it, one after the other.
_NEVER_SUBMITS = ("joblib._parallel_backends", "SequentialBackend")
_LOOK_SECONDS = 0.01  # between looks at jobs that nobody tells of
_MOST_PARTS = 64  # of a batch, for engines that want its tasks one by one


def is_joblib_style(made: object) -> bool:
    """Whether `made` is meant as a backend by joblib's conventions."""
    if isinstance(made, type):
        return False
    names = {kind.__name__ for kind in type(made).__mro__}
    return "ParallelBackendBase" in names or callable(getattr(made, "effective_n_jobs", None))


def name_of_ours(made: object) -> str | None:
    """Return the name of our backend that `made` stands for, if it does."""
    kind = type(made)
    return _KNOWN.get(kind.__name__) if kind.__module__ in _KNOWN_HOMES else None


def _home(made: object, name: str) -> type | None:
    """Return the class that gives `made` its method `name`."""
    return next((kind for kind in type(made).__mro__ if name in vars(kind)), None)


def _overrides(made: object, name: str) -> bool:
    """Whether `made` has a method `name` of its own, besides what base classes offer."""
    home = _home(made, name)
    return hasattr(made, name) if home is None else home.__name__ not in _BASES


def _view(backend: object, n_jobs: int) -> SimpleNamespace:
    """Return what `backend` may read of the `parallel` that it works for."""
    verbose: int = config.current_settings().values.get("verbose", 0)
    messages = Messages(verbose, f"Parallel(n_jobs={n_jobs})")
    kwargs: dict[str, Any] = {}
    return SimpleNamespace(
        n_jobs=n_jobs,
        verbose=verbose,
        timeout=None,
        batch_size="auto",
        pre_dispatch="2*n_jobs",
        _backend=backend,
        _backend_kwargs=kwargs,
        _backend_args=kwargs,  # the older name
        _id=uuid.uuid4().hex,
        _print=lambda text, args=(): messages.say(text % args if args else text),
    )


class JoblibStyleBackend(FuturesBackend):
    """A backend by joblib's conventions, as one of ours.

    What is asked of this object and not here is asked of `backend`. `name` is that under which it
    is registered; `find` returns the `Backend` that anything stands for. BackendError is raised
    when a method is missing.
    """

    def __init__(self, backend: Any, name: str | None, find: Callable[[Any], Backend]) -> None:
        self.backend = backend
        self.kind = type(backend).__name__
        self.name = name or self.kind
        self._find = find
        self._submit_name = self._name_of_submit()
        home = _home(backend, self._submit_name)
        if home is not None and (home.__module__, home.__name__) == _NEVER_SUBMITS:
            self.style = Style.INLINE
        self.supports_sharedmem = bool(getattr(backend, "supports_sharedmem", False))
        self.uses_threads = bool(getattr(backend, "uses_threads", self.supports_sharedmem))
        self.by_callback = bool(getattr(backend, "supports_retrieve_callback", False))
        if self.by_callback and not _overrides(backend, "retrieve_result_callback"):
            raise self.error(
                "retrieve_result_callback", "is missing, and supports_retrieve_callback asks for it"
            )
        if any(kind.__name__ == "AutoBatchingMixin" for kind in type(backend).__mro__):
            self.aim_seconds = float(backend.MIN_IDEAL_BATCH_DURATION)
        self.default_n_jobs = getattr(backend, "default_n_jobs", None) or 1
        if getattr(backend, "nesting_level", 0) is None:
            backend.nesting_level = config.nesting_level()
        if getattr(backend, "data_futures", None):  # dask's
            warn_caller(
                f"scatter has no effect with {self.kind}: every task goes there encoded, with its "
                "arguments. Where these are large, and scattering them pays, make the call with "
                "joblib's own Parallel",
                PerformanceWarning,
            )

    @property
    def given(self) -> Any:
        """The object by joblib's conventions."""
        return self.backend

    def _name_of_submit(self) -> str:
        if not _overrides(self.backend, "effective_n_jobs"):
            raise self.error("effective_n_jobs", "is missing: it says how many jobs run at a time")
        for name in ("submit", "apply_async"):
            if _overrides(self.backend, name):
                return name
        raise self.error("submit", "is missing: it starts a batch, and returns the job")

    def error(self, method: str, what: str) -> BackendError:
        """Return an error that says `what` is wrong with a method of the backend."""
        return BackendError(f"backend {self.name!r}: {self.kind}.{method} {what}")

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return what the backend says."""
        said = self.backend.effective_n_jobs(n_jobs)
        return self._number(f"effective_n_jobs({n_jobs})", said, "jobs")

    def configured_n_jobs(self, n_jobs: int) -> int:
        """Have the backend prepare for calls; return how many jobs these get."""
        if not hasattr(self.backend, "configure"):
            return n_jobs
        said = self.backend.configure(n_jobs=n_jobs, parallel=_view(self.backend, n_jobs))
        return self._number(f"configure(n_jobs={n_jobs})", said, "jobs")

    def wanted_batch_size(self) -> int:
        """Return how many tasks the next batch should have, as the backend says."""
        return self._number("compute_batch_size()", self.backend.compute_batch_size(), "tasks")

    def _number(self, call: str, said: Any, of_what: str) -> int:
        try:
            number = 0 if isinstance(said, bool) else operator.index(said)
        except TypeError:
            number = 0
        if number < 1:
            why = f"; it must be the number of {of_what}, 1 or more"
            if of_what == "jobs" and type(said) is int and said == 0:
                why = ": it has no active worker"
            raise self.error(call, f"returned {said!r}{why}")
        return number

    def nested(self, level: int) -> tuple[Backend | str, int | None] | None:
        """Return the backend for calls within its tasks, where it has a word in that."""
        del level
        if not _overrides(self.backend, "get_nested_backend"):
            return None
        said = self.backend.get_nested_backend()
        found, n_jobs = said if isinstance(said, tuple) else (said, None)
        if found is None:
            raise self.error("get_nested_backend()", "returned no backend")
        return self._find(found), n_jobs

    def take_options(self, options: WorkerOptions) -> None:
        """Tell the backend what workers should be like; raise TypeError for what it cannot do."""
        if options.initializer is not None:
            raise TypeError(
                f"initializer cannot be given with {self.kind}: by its conventions, nobody would "
                "call it in the workers"
            )
        if options.thread_limit is not None:
            if not getattr(self.backend, "supports_inner_max_num_threads", False):
                raise TypeError(
                    f"inner_max_num_threads cannot be given with {self.kind}, which does not say "
                    "supports_inner_max_num_threads"
                )
            self.backend.inner_max_num_threads = options.thread_limit

    def submit_call(self, call: Any, callback: Any) -> Any:
        """Hand a batch to the backend; return its job."""
        return getattr(self.backend, self._submit_name)(call, callback=callback)

    def tell_end(self, method: str, **kwargs: Any) -> None:
        """Call a method that ends something, if there is one; what it raises becomes a warning.

        The results are there, or an error that matters more.
        """
        found = getattr(self.backend, method, None)
        if found is None:
            return
        try:
            found(**kwargs)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            warn_caller(f"{self.kind}.{method} raised {reason}", RuntimeWarning)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> JoblibStyleSession:
        """Have the backend prepare for calls.

        BackendUnavailable is raised, and says so, when it falls back to a backend of ours that runs
        tasks in this process.
        """
        self.take_options(options)
        try:
            n_jobs = self.configured_n_jobs(n_jobs)
        except Exception as error:
            if type(error).__name__ != "FallbackToBackend":
                raise
            fallback: Any = error
        else:
            return JoblibStyleSession(self, Executor(), n_jobs, level, options)
        found = self._find(fallback.backend)
        if found.runs_here or found.style is not Style.PUSH:
            raise BackendUnavailable(f"{self.kind} falls back to {found.name}", found)
        if isinstance(found, JoblibStyleBackend) and found.backend is self.backend:
            raise self.error(f"configure(n_jobs={n_jobs})", "falls back to the same backend")
        opened: Any = found.open(found.effective_n_jobs(n_jobs), level, options)
        return opened  # type: ignore[no-any-return]  # whichever it is, it is a session

    def abort(self, executor: Executor, futures: list[Future[Any]]) -> bool:
        """Have the backend end what runs; for more calls it will be configured again."""
        del executor, futures
        self.tell_end("abort_everything", ensure_ready=False)
        return True

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Have the backend prepare for calls once more."""
        del options
        self.tell_end("terminate")
        self.configured_n_jobs(n_jobs)
        return executor

    def __getattr__(self, name: str) -> Any:
        if name == "backend" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.backend, name)

    def __reduce__(self) -> Any:
        return type(self), (self.backend, self.name, self._find)


class JoblibStyleSession(FuturesSession):
    """Batches as jobs of a backend by joblib's conventions; see `FuturesSession`."""

    _backend: JoblibStyleBackend

    def __init__(self, backend: JoblibStyleBackend, *args: Any) -> None:
        super().__init__(backend, *args)
        self._raw = backend.backend
        self._jobs: dict[Future[Any], Job] = {}  # to be looked at
        self._nested: tuple[Backend | str, int | None] | None = None
        self._nested_data: bytes | None = None
        self.holds_tasks = self._holds = backend.supports_sharedmem
        self._has_begun = False
        self._waiting: AbstractContextManager[Any] | None = None
        if _overrides(self._raw, "compute_batch_size"):
            self.batch_size = backend.wanted_batch_size
        self._notes_batches = _overrides(self._raw, "batch_completed")

    def begin(self, terms: CallTerms) -> None:
        """Start a call."""
        super().begin(terms)
        self._holds = self.holds_tasks and terms.folding is None  # what is folded is encoded
        nested = None
        if config.current_settings().values.get("nested") is None:  # the user's word goes first
            nested = self._backend.nested(self._level)
        self._nested = nested
        if not self.holds_tasks:
            self._nested_data = None if nested is None else dumps(nested)
        self._has_begun = True
        if hasattr(self._raw, "start_call"):
            self._raw.start_call()

    def end(self) -> None:
        """End a call."""
        super().end()
        self._stop_waiting()
        if self._has_begun:
            self._has_begun = False
            self._backend.tell_end("stop_call")

    def close(self) -> None:
        """End what is left of a call, and have the backend let go of what it took."""
        with ExitStack() as stack:
            stack.callback(self._backend.tell_end, "terminate")
            stack.callback(self.end)
            stack.callback(super().close)

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for a job to be done."""
        if self._waiting is None and _overrides(self._raw, "retrieval_context"):
            self._waiting = self._raw.retrieval_context()
            self._waiting.__enter__()
        self._look()
        if not self._jobs:
            return super().wait(seconds)
        until = None if seconds is None else self.clock() + seconds
        while True:
            left = _LOOK_SECONDS if until is None else until - self.clock()
            news = super().wait(max(0.0, min(left, _LOOK_SECONDS)))
            if news or left <= 0 or not self._jobs:
                return news
            self._look()

    def cancel(self) -> None:
        """End what is in flight, unless that has been done."""
        if self._is_aborted:
            self._in_flight.clear()
            self._news = []
        else:
            super().cancel()

    def _replace_engine(self) -> None:
        """Have its workers, all of which are stuck, ended; the call goes on with others."""
        self._stuck.clear()
        self._backend.tell_end("abort_everything", ensure_ready=True)

    def _look(self) -> None:
        for future, job in list(self._jobs.items()):
            if job.needs_looking:
                job.look()
            if future.done():
                del self._jobs[future]

    def _stop_waiting(self) -> None:
        context, self._waiting = self._waiting, None
        if context is not None:
            context.__exit__(None, None, None)

    def _submit(self, batch: Batch, data: bytes) -> Future[Any]:
        name = _name_of(batch)
        if self._holds:
            terms = self._terms
            run = HeldRun(
                name, batch, self._level, terms.after_failure, self._nested, terms.context
            )
            split = functools.partial(_parts, batch.size, batch.size)
            call = BatchCall(run, (0, batch.size), batch.size, split)
        else:
            encoded = functools.partial(self._split, batch, self._terms.call)
            call = BatchCall(EncodedRun(name, self._nested_data), (data,), batch.size, encoded)
        job = Job(self._raw, self._backend.by_callback)
        returned = self._backend.submit_call(call, job)
        if returned is None:
            if not job.future.done():
                raise self._backend.error("submit", "returned nothing; it must return the job")
        else:
            job.register(returned)
        if job.needs_looking:
            self._jobs[job.future] = job
        return job.future

    def _encode(self, batch: Batch) -> bytes:
        return b"" if self._holds else super()._encode(batch)

    def _split(self, batch: Batch, call: str) -> list[tuple[bytes]]:
        """Return the parts of `batch`, encoded; any thread may ask, also when the call is over."""
        parts = _parts(batch.size, _MOST_PARTS)
        encoded = [(self._encode(batch.part(first, end)),) for first, end in parts]
        return encoded if self._terms.call == call else []

    def _take(self, future: Future[Any]) -> list[Completion]:
        entry = self._in_flight.get(future)
        if entry is not None and self._notes_batches:
            batch, since = entry
            self._raw.batch_completed(batch.size, self.clock() - since)
        return _merged(super()._take(future))

    def _completions(self, batch: Batch, out: Any) -> list[Completion]:
        """Return what is in the list that the batch, or all its parts, returned."""
        method = "retrieve_result_callback"
        if isinstance(out, Job):
            method, out = "retrieve_result", out.retrieve()
        held = self._holds
        parts = _parts(batch.size, batch.size if held else _MOST_PARTS)
        if (
            not isinstance(out, (list, tuple))
            or len(out) not in (1, len(parts))
            or (held and not all(isinstance(of_part, Completion) for of_part in out))
        ):
            got = f"{len(out)} results" if isinstance(out, (list, tuple)) else repr(out)
            raise self._backend.error(
                method,
                f"returned {got}, not the list that its batch of {batch.size} tasks returned",
            )
        if held:
            return list(out)
        if len(out) == 1:
            return super()._completions(batch, out[0])
        news: list[Completion] = []
        for (first, end), data in zip(parts, out, strict=True):
            for completion in super()._completions(batch.part(first, end), data):
                completion.batch = batch
                completion.finished = completion.finished and end == batch.size
                news.append(completion)
        return news

    def _lost(self, batch: Batch, error: BaseException, index: int = 0) -> BaseException:
        """Return what to raise for a task of `batch` when the engine failed with `error`."""
        if isinstance(error, BackendError):
            return error
        what = batch.describe(index)
        reason = f"{type(error).__name__}: {error}"
        lost = WorkerDiedError(f"the engine {self._backend.name!r} lost {what}: {reason}")
        lost.position = batch.start + index
        lost.__cause__ = error
        return lost


def _parts(size: int, most: int) -> list[tuple[int, int]]:
    """Return where the parts of a batch begin and end that goes to the engine in parts."""
    number = min(size, most)
    return [(index * size // number, (index + 1) * size // number) for index in range(number)]


def _merged(news: list[Completion]) -> list[Completion]:
    """Return completions that follow each other as one: whoever sizes batches goes by batches."""
    first = news[0] if news else None
    if first is None or len(news) == 1 or first.folded is not None:
        return news
    values: list[Any] = []
    failures: list[Failure] = []
    for completion in news:
        if completion.fatal is not None or completion.first != first.first + len(values):
            return news  # a part ended with a failure; so will the call
        values += completion.values
        failures += completion.failures
    seconds = sum(completion.seconds for completion in news)
    merged = Completion(first.batch, first.first, values, seconds, news[-1].finished, failures)
    merged.nbytes = sum(completion.nbytes for completion in news)
    merged.notes = tuple(note for completion in news for note in completion.notes)
    return [merged]


def _name_of(batch: Batch) -> str:
    token, arity, payload = batch.runs[0]
    if arity == HELD:
        return function_name(payload[0][0])
    return "tasks" if token == NO_TOKEN else function_name(batch.definitions[token].obj)
