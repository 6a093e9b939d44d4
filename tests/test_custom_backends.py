"""Backends that others wrote: by our interface, by joblib's conventions, and published ones."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest

from parallel_core import (
    Backend,
    Completion,
    FuturesBackend,
    Parallel,
    Session,
    WorkerOptions,
    delayed,
    effective_n_jobs,
    get_active_backend,
    parallel_backend,
    parallel_config,
    register_context,
    register_parallel_backend,
    unregister_context,
)
from parallel_core.backends import CallTerms
from parallel_core.backends.registry import _factories, find_backend
from parallel_core.compat.joblib import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)
from parallel_core.errors import (
    BackendError,
    ContextError,
    TaskExitError,
    TaskTimeoutError,
    WorkerDiedError,
)
from parallel_core.serialization.batch import Batch

core = pytest.mark.core


def square(x: int) -> int:
    return x * x


def fail_at(x: int, at: int) -> int:
    if x == at:
        raise KeyError(x)
    return x


class Noting:
    """By the conventions, over threads; notes what is called. It has no base class."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: list[int] = []
        self.parallel: Any = None
        self.pool: Any = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 3 if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_args: Any) -> int:
        self.calls.append("configure")
        self.parallel = parallel
        n_jobs = self.effective_n_jobs(n_jobs)
        self.pool = ThreadPoolExecutor(n_jobs, "conventional")
        return n_jobs

    def start_call(self) -> None:
        self.calls.append("start_call")

    def stop_call(self) -> None:
        self.calls.append("stop_call")

    def terminate(self) -> None:
        self.calls.append("terminate")
        if self.pool is not None:
            self.pool.shutdown()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.calls.append(f"abort_everything({ensure_ready})")
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = None
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel, **self.parallel._backend_args)
            self.calls.pop()


class Conventional(Noting):
    """With results that the callback brings."""

    supports_retrieve_callback = True

    def submit(self, func: Any, callback: Any = None) -> Any:
        self.batches.append(len(func))
        future = self.pool.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        return out.result()


class WithOurBase(Conventional, AutoBatchingMixin, ParallelBackendBase):
    """The same over our base classes."""

    def __init__(self, **kwargs: Any) -> None:
        AutoBatchingMixin.__init__(self, **kwargs)
        Conventional.__init__(self)


def with_joblibs_base() -> Any:
    joblib = pytest.importorskip("joblib.parallel")
    bases = (Conventional, joblib.AutoBatchingMixin, joblib.ParallelBackendBase)
    return type("WithJoblibsBase", bases, {"__init__": Conventional.__init__})()


def thread_name(_: int) -> str:
    return threading.current_thread().name


@core
@pytest.mark.parametrize("make", [Conventional, WithOurBase, with_joblibs_base])
def test_a_class_by_the_conventions(make: Callable[[], Any]) -> None:
    backend = make()
    names = Parallel(n_jobs=2, backend=backend)(delayed(thread_name)(i) for i in range(9))
    assert all(name.startswith("conventional") for name in names)
    once = ["configure", "start_call", "stop_call", "terminate"]
    assert backend.calls == once
    backend.calls.clear()
    with parallel_config(backend=backend, n_jobs=2), Parallel() as parallel:
        shift = 7  # by value
        for _ in range(2):
            expected = [x + shift for x in range(500)]
            assert parallel(delayed(lambda x: x + shift)(x) for x in range(500)) == expected
        assert backend.parallel.n_jobs == 2
        assert backend.parallel._backend_kwargs == {}
    assert backend.calls == [once[0], *once[1:3] * 2, once[3]]
    assert sum(backend.batches) == 1009

    backend.calls.clear()
    with pytest.raises(KeyError) as caught:
        Parallel(n_jobs=2, backend=backend)(delayed(fail_at)(x, 50) for x in range(10**6))
    assert "fail_at(50, 50)" in caught.value.__notes__[0]
    assert 50 not in caught.value.results  # of those before it, some may be on their way
    assert all(place == value for place, value in caught.value.results.items())
    assert "in fail_at" in str(caught.value.__cause__)
    assert backend.calls in (once, [*once[:2], "abort_everything(False)", *once[2:]])
    generator = Parallel(n_jobs=2, backend=backend, return_as="generator")(
        delayed(square)(x) for x in range(40)
    )
    assert list(generator) == [x * x for x in range(40)]
    total = Parallel(n_jobs=2, backend=backend, reduce=lambda x, y: x + y)
    assert total(delayed(square)(x) for x in range(40)) == sum(x * x for x in range(40))


class MyCustomBackend(Conventional, ParallelBackendBase):
    """As in joblib's reference."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        self.endpoint = endpoint
        self.api_key = api_key
        Conventional.__init__(self)


@core
def test_parameters_reach_the_class() -> None:
    register_parallel_backend("custom", MyCustomBackend)
    with parallel_backend("custom", endpoint="http://compute", api_key="42") as (backend, n_jobs):
        assert Parallel()(delayed(square)(i) for i in range(10)) == [i * i for i in range(10)]
        assert type(backend) is MyCustomBackend is type(get_active_backend()[0])
        assert (backend.endpoint, backend.api_key) == ("http://compute", "42")
        assert (n_jobs, effective_n_jobs()) == (-1, 3)
        assert backend.nesting_level == 0
        with pytest.raises(AttributeError, match="no_such"):
            _ = backend.no_such
    with pytest.raises(TypeError, match="api_key"):
        parallel_backend("custom", endpoint="http://compute")
    for options in ({"initializer": square}, {"inner_max_num_threads": 2}):
        given = Parallel(n_jobs=2, backend=MyCustomBackend("here", "1"), **options)
        with pytest.raises(TypeError, match=f"{next(iter(options))} cannot be given with MyCustom"):
            given([])


# Jobs that tell less.


class Pooled(Noting, ParallelBackendBase):
    """Its jobs are asked for their results; of what else there is, subclasses take away."""

    kept: tuple[str, ...] = ()
    calls_back = False

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        future = self.pool.submit(func)
        if self.calls_back:
            future.add_done_callback(callback)
        methods = {name: getattr(future, name) for name in self.kept if name != "get"}
        if "get" in self.kept:
            methods["get"] = future.result
        return type("Job", (), {name: staticmethod(found) for name, found in methods.items()})()


@pytest.mark.parametrize(
    ("kept", "calls_back"),
    [
        (("get",), True),
        (("get",), False),
        (("get", "done"), False),
        (("result", "add_done_callback"), False),
        (("result", "done"), True),
    ],
)
def test_jobs_of_all_sorts(kept: tuple[str, ...], calls_back: bool) -> None:
    backend = Pooled()
    backend.kept, backend.calls_back = kept, calls_back
    if "get" not in kept:
        backend.retrieve_result = lambda job: job.result()  # type: ignore[method-assign, misc]
    parallel = Parallel(n_jobs=2, backend=backend)
    assert parallel(delayed(square)(x) for x in range(300)) == [x * x for x in range(300)]
    with pytest.raises(KeyError):
        parallel(delayed(fail_at)(x, 50) for x in range(300))
    held = threading.Event()
    late = Parallel(n_jobs=2, backend=backend, timeout=0.05)
    with pytest.raises(TaskTimeoutError, match=r"timeout=0\.05 s"):
        late(delayed(_wait_for)(name) for name in [_hold(held)])
    held.set()
    assert parallel(delayed(square)(x) for x in range(3)) == [0, 1, 4]


_held: dict[str, threading.Event] = {}


def _hold(event: threading.Event) -> str:
    name = f"event {len(_held)}"
    _held[name] = event
    return name


def _wait_for(name: str) -> None:
    _held[name].wait(30)


def test_the_callback_alone_and_before_submit_returns() -> None:
    class Here(Conventional):
        def submit(self, func: Any, callback: Any = None) -> Any:
            future: Future[Any] = Future()
            future.set_result(func())
            callback(future)

    parallel = Parallel(n_jobs=2, backend=Here())
    assert parallel(delayed(square)(x) for x in range(9)) == [x * x for x in range(9)]


# What the class decides.


def test_its_own_batch_sizes() -> None:
    class Sizing(Conventional, ParallelBackendBase):
        def __init__(self) -> None:
            super().__init__()
            self.done: list[tuple[int, bool]] = []

        def compute_batch_size(self) -> int:
            return 3

        def batch_completed(self, batch_size: int, duration: float) -> None:
            self.done.append((batch_size, duration >= 0))

    backend = Sizing()
    assert Parallel(n_jobs=2, backend=backend)(delayed(square)(x) for x in range(10))
    assert sorted(backend.batches) == [1, 3, 3, 3]
    assert sorted(backend.done) == [(1, True), (3, True), (3, True), (3, True)]
    backend.batches.clear()
    assert Parallel(n_jobs=2, backend=backend, batch_size=5)(delayed(square)(x) for x in range(10))
    assert backend.batches == [5, 5]


class OneByOne(Conventional):
    """Hands out the tasks of a batch by themselves, in any order; pickles, as engines do."""

    def submit(self, func: Any, callback: Any = None) -> Any:
        names = {function.__name__ for function, _, _ in func.items}
        assert names and not any("." in name for name in names)
        copies = pickle.loads(pickle.dumps(func.items))
        assert len({function for function, _, _ in copies}) == 1
        self.batches.append(len(copies))
        future = self.pool.submit(lambda: [f(*args, **kwargs) for f, args, kwargs in copies])
        future.add_done_callback(callback)
        return future


@pytest.mark.parametrize("n_tasks", [5, 64, 1000])
def test_tasks_of_a_batch_one_by_one(n_tasks: int) -> None:
    backend = OneByOne()
    parallel = Parallel(n_jobs=2, backend=backend, batch_size=n_tasks)
    assert parallel(delayed(square)(x) for x in range(n_tasks)) == [x * x for x in range(n_tasks)]
    assert backend.batches == [min(n_tasks, 64)]
    caught = Parallel(n_jobs=2, backend=backend, batch_size=n_tasks, on_error="return")(
        delayed(fail_at)(x, n_tasks - 2) for x in range(n_tasks)
    )
    assert [x for x in caught if type(x) is int] == [x for x in range(n_tasks) if x != n_tasks - 2]
    assert type(caught[n_tasks - 2]) is KeyError
    total = Parallel(n_jobs=2, backend=backend, batch_size=n_tasks, reduce=lambda x, y: x + y)
    assert total(delayed(square)(x) for x in range(n_tasks)) == sum(x * x for x in range(n_tasks))


class Apart(OneByOne):
    """Its workers are processes."""

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_args: Any) -> int:
        self.workers = ProcessPoolExecutor(n_jobs, get_context("forkserver"))
        return super().configure(n_jobs, parallel, **backend_args)

    def terminate(self) -> None:
        self.workers.shutdown()
        super().terminate()

    def submit(self, func: Any, callback: Any = None) -> Any:
        futures = [self.workers.submit(function, *args) for function, args, _ in func.items]
        future = self.pool.submit(lambda: [future.result() for future in futures])
        future.add_done_callback(callback)
        return future


def test_what_tasks_print_that_run_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert Parallel(2, Apart(), batch_size=3)(delayed(print)(n) for n in range(5)) == [None] * 5
    assert sorted(capsys.readouterr().out.split()) == ["0", "1", "2", "3", "4"]


class LeavesBadly:
    """A context manager."""

    def __init__(self, state: Any) -> None:
        del state

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        raise OSError("leaving")


def slow(x: int) -> int:
    time.sleep(0.03)
    return x


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("options", [{}, {"on_error": "return"}, {"retries": 2}])
def test_a_context_that_fails_ends_the_call(one_by_one: bool, options: dict[str, Any]) -> None:
    sharing = Sharing()
    sharing.one_by_one = one_by_one
    for backend in sharing, OneByOne() if one_by_one else Conventional():
        for restore in (fail_at_once, LeavesBadly):
            register_context("bad one", int, restore)
            try:
                with pytest.raises(ContextError, match=r"'bad one' could not be .* OSError"):
                    Parallel(2, backend, batch_size=3, **options)(
                        delayed(slow)(x) for x in range(6)
                    )
            finally:
                unregister_context("bad one")
        assert Parallel(2, backend)(delayed(square)(x) for x in range(3)) == [0, 1, 4]


def fail_at_once(state: Any) -> None:
    raise OSError(state)


class Sharing(Conventional):
    """Its workers share the memory of the caller."""

    supports_sharedmem = True
    one_by_one = False

    def submit(self, func: Any, callback: Any = None) -> Any:
        self.batches.append(len(func))
        run = (
            (lambda: [f(*args, **kwargs) for f, args, kwargs in func.items])
            if self.one_by_one
            else func
        )
        future = self.pool.submit(run)
        future.add_done_callback(callback)
        return future


@pytest.mark.parametrize("one_by_one", [False, True])
def test_workers_that_share_memory(one_by_one: bool) -> None:
    class Local:
        """Does not pickle."""

        def __reduce__(self) -> Any:
            raise AssertionError

    backend = Sharing()
    backend.one_by_one = one_by_one
    seen: list[Any] = []
    mine = Local()

    def see(x: int, obj: Local) -> Local:
        seen.append((x, obj))
        return obj

    with parallel_config(backend=backend, n_jobs=2):
        got = Parallel(require="sharedmem")(delayed(see)(x, mine) for x in range(200))
        assert all(obj is mine for obj in [*got, *(obj for _, obj in seen)])
        assert sorted(x for x, _ in seen) == [*range(200)]
        assert backend.batches
        with pytest.raises(KeyError) as caught:
            Parallel()(delayed(fail_at)(x, 50) for x in range(10**6))
        assert "fail_at(50, 50)" in caught.value.__notes__[0]
        with pytest.raises(KeyError):
            caught.value.replay()
        with pytest.raises(TaskExitError, match=r"^task 0 of the call: sys\.exit\(3\) called"):
            Parallel()([delayed(sys.exit)(3)])
        kept = Parallel(batch_size=7, on_error="skip")(delayed(fail_at)(x, 9) for x in range(20))
        assert kept == [x for x in range(20) if x != 9]
        names = Parallel()(delayed(lambda: get_active_backend()[0].name)() for _ in range(3))
        assert set(names) == {"threading"}
        assert Parallel(reduce=max)(delayed(square)(x) for x in range(30)) == 29**2
        again = Parallel(retries=1, retry_on=KeyError, retry_backoff=0.01)
        tries: list[int] = []
        assert again(delayed(fail_once)(x, tries) for x in range(9)) == [*range(9)]
        generator = Parallel(return_as="generator")(delayed(see)(x, mine) for x in range(20))
        assert all(obj is mine for obj in generator)
    backend.get_nested_backend = lambda: (SequentialBackend(), None)  # type: ignore[attr-defined]
    names = Parallel(n_jobs=2, backend=backend)(
        delayed(lambda: get_active_backend()[0].name)() for _ in range(3)
    )
    assert set(names) == {"sequential"}


def fail_once(x: int, tries: list[int]) -> int:
    tries.append(x)
    if x == 5 and tries.count(5) == 1:
        raise KeyError(x)
    return x


def fallback_of(name: str) -> Any:
    if name == "joblib's":
        joblib = pytest.importorskip("joblib.parallel")
        return joblib.FallbackToBackend(joblib.SequentialBackend(nesting_level=0))
    backends = {"ours": SequentialBackend(), "threads": ThreadingBackend(), "other": Conventional()}
    return FallbackToBackend(backends[name])


@pytest.mark.parametrize("name", ["ours", "threads", "other", "joblib's"])
def test_falling_back(name: str) -> None:
    fallback = fallback_of(name)

    class Falling(Conventional):
        def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_args: Any) -> int:
            raise fallback

    with Parallel(n_jobs=2, backend=Falling()) as parallel:
        for _ in range(2):
            names = set(parallel(delayed(thread_name)(i) for i in range(9)))
    main = {threading.current_thread().name}
    assert (names == main) == (name in ("ours", "joblib's"))
    assert all(thread.startswith("conventional") for thread in names) == (name == "other")


def test_who_runs_nested_calls() -> None:
    class Nesting(Conventional, ParallelBackendBase):
        nested: Any = None

        def get_nested_backend(self) -> Any:
            return self.nested

    def inner(_: int) -> tuple[str, int, set[str]]:
        backend, n_jobs = get_active_backend()
        return backend.name, n_jobs, set(Parallel(n_jobs=2)(delayed(thread_name)(i) for i in "ab"))

    backend = Nesting()
    for nested, expected in (
        ((SequentialBackend(nesting_level=1), None), ("sequential", 1)),
        ((ThreadingBackend(), 2), ("threading", 2)),
    ):
        backend.nested = nested
        got = Parallel(n_jobs=2, backend=backend)(delayed(inner)(i) for i in range(3))
        assert {(name, n_jobs) for name, n_jobs, _ in got} == {expected}
        assert all(
            ("conventional" in str(names)) == (expected[0] == "sequential") for *_, names in got
        )
    got = Parallel(n_jobs=2, backend=WithOurBase())(delayed(inner)(i) for i in range(3))
    assert {name for name, *_ in got} == {"threading"}


def test_the_context_of_waiting() -> None:
    class Waiting(Conventional):
        waiting = 0

        @contextlib.contextmanager
        def retrieval_context(self) -> Iterator[None]:
            self.calls.append("wait")
            yield
            self.calls.append("waited")

    backend = Waiting()
    parallel = Parallel(n_jobs=2, backend=backend)
    parallel(delayed(square)(x) for x in range(9))
    assert backend.calls == ["configure", "start_call", "wait", "waited", "stop_call", "terminate"]
    with pytest.raises(KeyError):
        parallel(delayed(fail_at)(x, 0) for x in range(9))
    assert backend.calls.count("waited") == 2


def test_a_call_that_ends_early_and_the_next_one() -> None:
    held = threading.Event()
    name = _hold(held)
    backend = Conventional()
    with Parallel(n_jobs=2, backend=backend, stop_when=lambda x: x == 9) as parallel:
        for _ in range(2):
            tasks = [delayed(_wait_for)(name), delayed(square)(3), delayed(square)(4)]
            assert 9 in parallel(tasks)
    held.set()
    aborted = ["configure", "start_call", "abort_everything(False)", "stop_call", "terminate"]
    assert backend.calls == aborted * 2


# What goes wrong.


def broken(name: str) -> Any:
    """Return a class with one fault."""

    def returning(value: Any) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: value

    faults: dict[str, dict[str, Any]] = {
        "no jobs": {"effective_n_jobs": returning(0)},
        "many jobs": {"effective_n_jobs": returning("many")},
        "true jobs": {"effective_n_jobs": returning(True)},
        "nothing configured": {"configure": returning(None)},
        "nothing submitted": {"submit": returning(None)},
        "nothing retrieved": {"retrieve_result_callback": returning(None)},
        "too many results": {"retrieve_result_callback": returning([b"", b"", b""])},
        "a batch of nothing": {"compute_batch_size": returning(0)},
        "nothing nested": {"get_nested_backend": returning((None, None))},
    }
    return type("Broken", (Conventional, ParallelBackendBase), faults[name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no jobs", r"Broken\.effective_n_jobs\(2\) returned 0: it has no active worker"),
        ("many jobs", r"Broken\.effective_n_jobs\(2\) returned 'many'"),
        ("true jobs", r"Broken\.effective_n_jobs\(2\) returned True"),
        ("nothing configured", r"Broken\.configure\(n_jobs=2\) returned None"),
        ("nothing submitted", r"Broken\.submit returned nothing; it must return the job"),
        ("nothing retrieved", r"Broken\.retrieve_result_callback returned None, not the list"),
        ("too many results", r"Broken\.retrieve_result_callback returned 3 results, not the list"),
        ("a batch of nothing", r"Broken\.compute_batch_size\(\) returned 0"),
        ("nothing nested", r"Broken\.get_nested_backend\(\) returned no backend"),
    ],
)
def test_a_class_that_breaks_the_conventions(name: str, words: str) -> None:
    register_parallel_backend("broken", broken(name))
    with pytest.raises(BackendError, match=f"^backend 'broken': {words}"):
        Parallel(n_jobs=2, backend="broken")(delayed(square)(x) for x in range(9))
    assert Parallel(n_jobs=2, backend=Conventional())([delayed(square)(3)]) == [9]


class Lacking:
    def effective_n_jobs(self, n_jobs: int) -> int:
        return n_jobs


class LackingJobs:
    def submit(self, func: Any, callback: Any = None) -> Any:
        raise AssertionError


class LackingRetrieval(ParallelBackendBase):
    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        return n_jobs

    def submit(self, func: Any, callback: Any = None) -> Any:
        raise AssertionError


@core
def test_a_class_without_a_method() -> None:
    def nothing() -> None:
        return None

    for factory, words in (
        (Lacking, "Lacking.submit is missing"),
        (LackingRetrieval, "LackingRetrieval.retrieve_result_callback is missing"),
        (type("Abstract", (ParallelBackendBase,), {}), "Abstract.*effective_n_jobs"),
        (type("Same", (LackingJobs, ParallelBackendBase), {}), "Same.*effective_n_jobs"),
        (LackingJobs, "is no backend"),
        (nothing, "the factory of backend 'lacking' gave None, which is no backend"),
    ):
        register_parallel_backend("lacking", factory)
        for choose in (Parallel, parallel_config):
            with pytest.raises(TypeError, match=words):
                choose(backend="lacking")
    with pytest.raises(TypeError, match="is a class, and no backend yet"):
        Parallel(backend=Conventional)
    falling = Conventional()
    falling.configure = lambda **_: _raise(FallbackToBackend(falling))  # type: ignore[assignment]
    with pytest.raises(BackendError, match=r"Conventional.configure\(n_jobs=2\) falls back to"):
        Parallel(n_jobs=2, backend=falling)([delayed(square)(3)])


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("where", ["submit", "job", "callback", "start_call"])
def test_an_engine_that_fails(where: str) -> None:
    class Failing(Conventional):
        healthy = False

        def start_call(self) -> None:
            super().start_call()
            if where == "start_call" and not self.healthy:
                raise OSError("no network")

        def submit(self, func: Any, callback: Any = None) -> Any:
            if self.healthy:
                return super().submit(func, callback)
            if where == "submit":
                raise OSError("no network")
            future: Future[Any] = Future()
            if where == "callback":
                future.add_done_callback(callback)
            threading.Timer(0, future.set_exception, (OSError("no network"),)).start()
            return future

    backend = Failing()
    parallel = Parallel(n_jobs=2, backend=backend)
    kind: type[Exception] = OSError if where == "start_call" else WorkerDiedError
    with pytest.raises(kind, match="no network") as caught:
        parallel(delayed(square)(x) for x in range(9))
    if kind is WorkerDiedError:
        words = "the engine 'Failing' lost task 0 of the call: test_custom_backends.square(0): "
        assert str(caught.value) == words + "OSError: no network"
    assert backend.calls[-1] == "terminate"
    backend.healthy = True
    assert parallel(delayed(square)(x) for x in range(9)) == [x * x for x in range(9)]


def test_abort_everything_that_raises_is_a_warning() -> None:
    class Stubborn(Conventional):
        def abort_everything(self, ensure_ready: bool = True) -> None:
            raise OSError("still busy")

    held = threading.Event()
    name = _hold(held)
    threading.Timer(0.2, held.set).start()  # else terminate would wait for it
    with pytest.warns(
        RuntimeWarning, match=r"Stubborn\.abort_everything raised OSError: still busy"
    ):
        with pytest.raises(KeyError):
            Parallel(n_jobs=2, backend=Stubborn())(
                delayed(_wait_for)(name) if x == 0 else delayed(fail_at)(x, x) for x in range(2)
            )


@pytest.mark.parametrize("method", ["stop_call", "terminate"])
def test_an_end_that_raises_costs_no_results(method: str) -> None:
    backend = Conventional()
    setattr(backend, method, lambda: _raise(OSError("no network")))
    with pytest.warns(RuntimeWarning, match=rf"Conventional\.{method} raised OSError: no network"):
        assert Parallel(n_jobs=2, backend=backend)([delayed(square)(3)]) == [9]


def test_results_beside_a_failure_keep_their_places() -> None:
    backend = OneByOne()
    with pytest.raises(KeyError) as caught:
        Parallel(n_jobs=1, backend=backend, batch_size=640)(
            delayed(fail_at)(x, 105) for x in range(640)
        )
    assert dict(caught.value.results) == {x: x for x in range(640) if not 105 <= x < 110}


def test_parts_that_are_asked_for_too_late_are_none() -> None:
    class Late(Conventional):
        kept: list[Any]

        def submit(self, func: Any, callback: Any = None) -> Any:
            self.kept.append(func)
            return super().submit(func, callback)

    backend = Late()
    backend.kept = []
    with Parallel(n_jobs=1, backend=backend, batch_size=3) as parallel:
        parallel(delayed(square)(x) for x in range(3))
        assert len(backend.kept[0].items) == 3
        parallel(delayed(fail_at)(x, 9) for x in range(3))
        assert backend.kept[0].items == []
        assert len(backend.kept[1].items) == 3


def test_workers_on_tasks_over_their_time_are_freed() -> None:
    held = threading.Event()
    name = _hold(held)
    backend = Conventional()
    got = Parallel(n_jobs=2, backend=backend, timeout=0.1, on_error="return")(
        delayed(_wait_for)(name) if x < 2 else delayed(square)(x) for x in range(6)
    )
    held.set()
    assert [type(x) for x in got[:2]] == [TaskTimeoutError] * 2
    assert got[2:] == [4, 9, 16, 25]
    assert backend.calls.count("abort_everything(True)") == 1


# The base classes.


def test_base_classes_by_themselves() -> None:
    class Plain(AutoBatchingMixin, ParallelBackendBase):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return n_jobs

    plain = Plain(nesting_level=1, inner_max_num_threads=2, color="red")
    assert (plain.nesting_level, plain.inner_max_num_threads) == (1, 2)
    assert plain.backend_kwargs == {"color": "red"}
    assert plain.configure(n_jobs=3, parallel="it") == 3
    assert plain.parallel == "it"
    assert not plain.supports_timeout and not plain.supports_return_generator
    nested, n_jobs = plain.get_nested_backend()
    assert isinstance(nested, SequentialBackend) and n_jobs is None
    assert isinstance(Plain().get_nested_backend()[0], ThreadingBackend)
    for call in (plain.submit, plain.apply_async, plain.retrieve_result_callback):
        with pytest.raises(NotImplementedError, match="Plain has no"):
            call(None)
    sizes = []
    for _ in range(5):
        sizes.append(plain.compute_batch_size())
        plain.batch_completed(sizes[-1], 0.01 * sizes[-1])
    assert sizes == [1, 2, 4, 8, 16]
    plain.batch_completed(10, 1000.0)
    assert plain.compute_batch_size() == 1
    with plain.retrieval_context():
        plain.start_call(), plain.stop_call(), plain.terminate(), plain.abort_everything()
    assert SequentialBackend().effective_n_jobs(5) == 1
    assert SequentialBackend().submit(lambda: [9]).result() == [9]
    assert ParallelBackendBase.compute_batch_size(plain) == 1
    ParallelBackendBase.batch_completed(plain, 1, 1.0)
    with ThreadPool(1) as pool:
        assert plain.retrieve_result(pool.apply_async(square, (3,)), timeout=30) == 9
        assert plain.retrieve_result(pool.apply_async(square, (3,))) == 9


def test_joblibs_own_stand_for_ours() -> None:
    joblib = pytest.importorskip("joblib._parallel_backends")
    for name, ours in (
        ("SequentialBackend", "sequential"),
        ("ThreadingBackend", "threading"),
        ("LokyBackend", "loky"),
        ("MultiprocessingBackend", "multiprocessing"),
    ):
        assert find_backend(getattr(joblib, name)(nesting_level=0)).name == ours


@pytest.mark.parametrize("home", ["parallel_core.compat.joblib", "joblib.parallel"])
@pytest.mark.parametrize("name", ["sequential", "threading"])
def test_a_class_that_stands_for_ours_registered_under_its_name(home: str, name: str) -> None:
    classes = pytest.importorskip(home)
    before = _factories[name]
    try:
        register_parallel_backend(name, getattr(classes, f"{name.capitalize()}Backend"))
        for hints in ({"backend": name}, {"prefer": "threads"}):
            got = Parallel(n_jobs=2, **hints)(delayed(square)(x) for x in range(9))
            assert got == [x * x for x in range(9)]
        assert type(find_backend(name)).__module__ == "parallel_core.backends.local"
    finally:
        register_parallel_backend(name, before)


@pytest.mark.parametrize("base", [SequentialBackend, ThreadingBackend])
def test_a_class_derived_from_one_that_stands_for_ours(base: type) -> None:
    seen = []

    class Derived(base):  # type: ignore[misc]
        def submit(self, func: Any, callback: Any = None) -> Any:
            seen.append(len(func))
            return super().submit(func, callback)

    shared: list[int] = []
    with Parallel(n_jobs=2, backend=Derived(), require="sharedmem") as parallel:
        assert parallel(delayed(shared.append)(x) for x in range(9)) == [None] * 9
        assert sorted(shared) == [*range(9)] and sum(seen) == 9
        with pytest.raises(KeyError):
            parallel(delayed(fail_at)(x, 50) for x in range(100))
        assert parallel(delayed(square)(x) for x in range(9)) == [x * x for x in range(9)]
        assert parallel(delayed(_calls_in_a_task)() for _ in range(2)) == [[1, 2]] * 2


def test_a_class_derived_from_joblibs_that_runs_one_after_the_other() -> None:
    joblib = pytest.importorskip("joblib.parallel")

    class Derived(joblib.SequentialBackend):  # type: ignore[misc]
        pass

    shared: list[int] = []
    with parallel_config(backend=Derived(), n_jobs=3):
        assert type(get_active_backend()[0]) is Derived and effective_n_jobs(3) == 1
        Parallel(require="sharedmem")(delayed(shared.append)(x) for x in range(9))
    assert shared == [*range(9)]


def _calls_in_a_task() -> Any:
    return Parallel(n_jobs=2)(delayed(abs)(x) for x in (-1, -2))


def test_a_pool_of_joblibs_that_somebody_has_changed() -> None:
    joblib = pytest.importorskip("joblib._parallel_backends")

    class Changed(joblib.ThreadingBackend):  # type: ignore[misc]
        pass

    backend = Changed()
    with Parallel(n_jobs=2, backend=backend) as parallel:
        assert parallel(delayed(square)(x) for x in range(100)) == [x * x for x in range(100)]
        with pytest.raises(KeyError):
            parallel(delayed(fail_at)(x, 50) for x in range(100))
        assert parallel(delayed(square)(x) for x in range(9)) == [x * x for x in range(9)]
    assert backend._pool is None


class Patient(Session):
    """Works while somebody waits for it, as in the documentation."""

    n_workers = 1

    def begin(self, terms: CallTerms) -> None:
        self.batches: deque[Batch] = deque()

    def has_capacity(self, queued: int) -> bool:
        return len(self.batches) < queued

    def submit(self, batch: Batch) -> None:
        self.batches.append(batch)

    def wait(self, seconds: float | None) -> list[Completion]:
        batch = self.batches.popleft()
        calls = [batch.call(index) for index in range(batch.size)]
        values = [function(*args, **kwargs) for function, args, kwargs in calls]
        return [Completion(batch, batch.start, values, 0.0, True)]

    def enforce_timeout(self, limit: float) -> float:
        return float("inf")

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass


class Opening(Backend):
    """Has what it is told to have for a session."""

    name = "opening"

    def __init__(self, session: Any) -> None:
        self.session = session

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        return self.session  # type: ignore[no-any-return]


class NoExecutor(FuturesBackend):
    name = "futures"

    def executor(self, n_jobs: int, options: WorkerOptions) -> Any:
        return None


class NoFutures(FuturesBackend):
    name = "futures"

    def executor(self, n_jobs: int, options: WorkerOptions) -> Any:
        return object()

    def submit(self, executor: Any, data: bytes) -> Any:
        return None


@core
def test_a_session_is_told_by_name_what_it_need_not_know() -> None:
    parallel = Parallel(n_jobs=2, backend=Opening(Patient()))
    assert parallel(delayed(square)(x) for x in range(4)) == [0, 1, 4, 9]


def _without(method: str) -> Backend:
    return Opening(type("Silent", (Patient,), {method: lambda *_: None})())


@core
@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (type("Bare", (Backend,), {"name": "bare"})(), "backend 'bare': Bare.open is missing"),
        (Opening(None), "backend 'opening': Opening.open returned None; it must be a Session"),
        (
            type("Bare", (FuturesBackend,), {"name": "bare"})(),
            "backend 'bare': Bare.executor is missing: it returns the executor",
        ),
        (NoExecutor(), "backend 'futures': NoExecutor.executor returned nothing"),
        (NoFutures(), "backend 'futures': NoFutures.submit returned None; it must return the fut"),
        (_without("has_capacity"), "Silent.has_capacity returned nothing"),
        (_without("wait"), "Silent.wait returned nothing"),
        (_without("enforce_timeout"), "Silent.enforce_timeout returned nothing"),
    ],
)
def test_a_backend_of_our_interface_that_lacks_something(backend: Backend, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        Parallel(n_jobs=2, backend=backend, timeout=60)(delayed(square)(x) for x in range(9))
    assert Parallel(n_jobs=2, backend="threading")([delayed(square)(3)]) == [9]
