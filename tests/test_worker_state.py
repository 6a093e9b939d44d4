"""Workers with numbers, a state, functions before and after their tasks, CPUs and variables."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import neg
from pathlib import Path
from typing import Any

import pytest
from worker_state_tasks import (
    add_to,
    begin,
    begin_with,
    count,
    count_with,
    die,
    die_at,
    end,
    end_with,
    fail,
    had_at_start,
    hang,
    is_loaded,
    released,
    unpicklable,
    wait_for_others,
    worker_of,
)

from parallel_core import (
    InitializerError,
    Parallel,
    SerializationError,
    TaskTimeoutError,
    WorkerDiedError,
    WorkerExitError,
    delayed,
    parallel_config,
    this_worker,
)
from parallel_core.backends.base import CallTerms
from parallel_core.backends.options import WorkerOptions, WorkerSetup
from parallel_core.backends.registry import find_backend
from parallel_core.calls.resources import CallResources
from parallel_core.context.this_worker import Passed
from parallel_core.dispatch.call_errors import PartialResults
from parallel_core.workers.pool import worker_pool

core = pytest.mark.core
OWN = ["processes", "multiprocessing", "threading"]


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    released.clear()
    yield
    released.set()


def jobs(backend: str) -> int:
    return 1 if backend == "sequential" else 2


# --- init, exit, state ----------------------------------------------------------------------------


@core
@pytest.mark.parametrize("backend", [*OWN, "sequential"])
def test_each_worker_begins_once_and_ends_once_a_call(backend: str) -> None:
    n = jobs(backend)
    parallel = Parallel(n, backend, worker_init=begin, worker_exit=end, order_tasks=True)
    for _ in range(2):
        got = parallel(delayed(count)(x) for x in range(6))
        assert got == [(x % n, x // n + 1, True) for x in range(6)]
        assert parallel.exit_results == [(number, 6 // n, 1) for number in range(n)]


@core
@pytest.mark.parametrize("backend", [*OWN, "sequential"])
def test_in_a_with_block_a_worker_keeps_its_state(backend: str, tmp_path: Path) -> None:
    n = jobs(backend)
    parallel = Parallel(n, backend, worker_init=begin, worker_exit=end, order_tasks=True)
    with parallel:
        parallel(delayed(count)(x) for x in range(4))
        before = os.getcwd()
        os.chdir(tmp_path)  # which workers are told, and not replaced for
        try:
            got = parallel(delayed(count)(x) for x in range(4))
        finally:
            os.chdir(before)
        assert got == [(x % n, 4 // n + x // n + 1, True) for x in range(4)]
        assert parallel.exit_results == []
    assert parallel.exit_results == [(number, 8 // n, 1) for number in range(n)]


@pytest.mark.parametrize("backend", [*OWN, "sequential"])
@pytest.mark.parametrize("x", [1, [1]])
def test_functions_get_the_state_first(backend: str, x: Any) -> None:
    parallel = Parallel(
        jobs(backend),
        backend,
        worker_init=begin_with,
        worker_exit=end_with,
        use_worker_state=True,
        batch_size=4,
        order_tasks=True,
    )
    got = parallel(delayed(count_with)(x, by=2) for _ in range(4))
    assert got == [(2, 1), (4, 1), (6, 1), (8, 1)]
    assert parallel.exit_results == [8]


def test_functions_of_main_and_globals_that_they_set() -> None:
    def prepare() -> None:
        global model
        model = 40

    def use(x: int) -> int:
        return model + x

    prepare.__module__ = use.__module__ = "__main__"
    assert Parallel(2, worker_init=prepare)(delayed(use)(x) for x in range(3)) == [40, 41, 42]


@pytest.mark.parametrize("backend", OWN)
def test_the_state_of_a_call_is_gone_with_it(backend: str) -> None:
    for _ in range(2):
        got = Parallel(2, backend, order_tasks=True)(delayed(count)(x) for x in range(4))
        assert [n for _, n, _ in got] == [1, 1, 2, 2]


def test_a_worker_without_tasks_calls_neither() -> None:
    parallel = Parallel(2, worker_init=fail, worker_exit=fail)
    assert parallel([]) == [] and parallel.exit_results == []


@pytest.mark.parametrize("backend", [*OWN, "sequential"])
def test_exit_functions_run_at_the_end_of_a_generator(backend: str) -> None:
    n = jobs(backend)
    parallel = Parallel(n, backend, "generator", worker_exit=end, order_tasks=True)
    assert len(list(parallel(delayed(count)(x) for x in range(4)))) == 4
    assert parallel.exit_results == [(number, 4 // n, 0) for number in range(n)]


@pytest.mark.parametrize("backend", OWN)
def test_exit_functions_run_when_a_call_stops_early(backend: str) -> None:
    parallel = Parallel(2, backend, worker_exit=end, stop_when=bool)
    parallel(delayed(neg)(x) for x in range(1000))
    assert parallel.exit_results


@pytest.mark.parametrize("backend", OWN)
def test_no_exit_function_runs_after_a_failure(backend: str) -> None:
    parallel = Parallel(2, backend, worker_exit=end)
    with pytest.raises(LookupError):
        parallel(delayed(fail)(x) for x in range(3))
    assert parallel.exit_results == []


def test_the_same_functions_take_the_same_processes() -> None:
    parallel = Parallel(2, worker_init=begin)
    parallel(delayed(count)(x) for x in range(2))
    before = set(worker_pool().idle_pids())
    parallel(delayed(count)(x) for x in range(2))
    assert set(worker_pool().idle_pids()) == before
    Parallel(2)(delayed(neg)(x) for x in range(2))
    assert set(worker_pool().idle_pids()) > before, "which others do not get"


# --- replaced workers -----------------------------------------------------------------------------


def test_a_worker_that_takes_the_place_of_another_has_its_number() -> None:
    parallel = Parallel(
        2,
        worker_init=begin,
        worker_exit=end,
        order_tasks=True,
        retries=0,
        on_error="skip",
        pre_dispatch="all",
    )
    got = parallel(delayed(die_at)(x, 2) for x in range(8))
    assert got == [(0, 1), (1, 1), (1, 2), (0, 1), (1, 3), (0, 2), (1, 4)]
    assert parallel.exit_results == [(0, 2, 1), (1, 4, 1)]


def test_exit_functions_run_before_old_workers_leave() -> None:
    parallel = Parallel(2, worker_init=begin, worker_exit=end, worker_lifespan=2, order_tasks=True)
    got = parallel(delayed(count)(x) for x in range(8))
    assert got == [(x % 2, x // 2 % 2 + 1, True) for x in range(8)]
    assert parallel.exit_results == [(0, 2, 1), (0, 2, 1), (1, 2, 1), (1, 2, 1)]


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_a_worker_out_of_time_is_set_up_anew(backend: str) -> None:
    parallel = Parallel(
        2,
        backend,
        worker_init=begin,
        worker_exit=end,
        timeout=0.2,
        on_error="skip",
        order_tasks=True,
    )
    functions = [count, count, hang, count, count, count]
    got = parallel(delayed(function)(x) for x, function in enumerate(functions))
    assert got == [(0, 1, True), (1, 1, True), (1, 2, True), (0, 1, True), (1, 3, True)]
    assert parallel.exit_results == [(0, 1, 1), (1, 3, 1)]


# --- what fails -----------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("backend", [*OWN, "sequential"])
def test_an_init_function_that_raises(backend: str) -> None:
    parallel = Parallel(jobs(backend), backend, worker_init=fail, on_error="skip")
    with pytest.raises(
        InitializerError, match=r"^worker [01]: worker_init .*fail raised Lookup"
    ) as e:
        parallel(delayed(neg)(x) for x in range(3))
    assert isinstance(e.value.__cause__, LookupError)
    Parallel(jobs(backend), backend)(delayed(neg)(x) for x in range(3))


@core
@pytest.mark.parametrize("backend", [*OWN, "sequential"])
def test_an_exit_function_that_raises(backend: str) -> None:
    parallel = Parallel(jobs(backend), backend, worker_exit=fail)
    with pytest.raises(WorkerExitError, match=r"^worker [01]: worker_exit .*fail raised Look") as e:
        parallel(delayed(neg)(x) for x in range(3))
    assert isinstance(e.value.__cause__, LookupError)
    results: PartialResults = e.value.results  # type: ignore[attr-defined]  # attached to errors
    assert dict(results) == {0: 0, 1: -1, 2: -2}, "no result is lost"


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"worker_init": die}, InitializerError, "ended with exit code 7 in worker_init .*die"),
        ({"worker_exit": die}, WorkerExitError, "ended with exit code 7 in worker_exit .*die"),
        (
            {"worker_exit": unpicklable},
            WorkerExitError,
            "what it returned: cannot pickle",
        ),
    ],
)
def test_a_worker_that_ends_in_them(params: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        Parallel(2, **params)(delayed(neg)(x) for x in range(3))


def test_functions_that_do_not_pickle_are_named() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"^worker_init .*'lock'"):
        Parallel(2, worker_init=lambda: lock)(delayed(neg)(x) for x in range(3))


@pytest.mark.parametrize("backend", ["processes", "threading"])
@pytest.mark.parametrize("name", ["init", "exit"])
def test_functions_that_take_too_long(backend: str, name: str) -> None:
    setup = WorkerSetup(**{name: hang, f"{name}_timeout": 0.1})  # type: ignore[arg-type]
    parallel = Parallel(2, backend)
    spec = parallel._spec._replace(workers=WorkerOptions(setup=setup))
    parallel._spec, parallel._resources = spec, CallResources(spec)
    with pytest.raises(TaskTimeoutError, match=rf"worker_{name} .*hang has run for more"):
        parallel(delayed(neg)(x) for x in range(3))


def test_ctrl_c_in_an_exit_function() -> None:
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        Parallel(2, worker_exit=hang)(delayed(neg)(x) for x in range(3))
    assert time.monotonic() - began < 30
    assert Parallel(2)(delayed(neg)(x) for x in range(3)) == [0, -1, -2]


def test_a_call_out_of_time_during_an_init_function() -> None:
    with pytest.raises(TimeoutError):
        Parallel(2, worker_init=hang, call_timeout=0.3)(delayed(neg)(x) for x in range(3))


# --- CPUs, variables, turns -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["processes", "multiprocessing", "threading"])
def test_workers_run_on_their_cpus(backend: str, tmp_path: Path) -> None:
    all_cpus = os.sched_getaffinity(0)
    first, *_, last = sorted(all_cpus)
    ids: Any = [first, [first, last]]
    got = Parallel(2, backend, cpu_ids=ids, order_tasks=True)(
        delayed(wait_for_others)(tmp_path, 2) for _ in range(2)
    )
    assert got == [(0, None, {first}), (1, None, {first, last})]
    assert os.sched_getaffinity(0) == all_cpus
    got = Parallel(2, backend, order_tasks=True)(
        delayed(wait_for_others)(tmp_path, 2) for _ in range(2)
    )
    assert got == [(0, None, all_cpus), (1, None, all_cpus)], "as before, for others"


def test_one_worker_alone_can_be_tied_to_a_cpu(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    got = Parallel(1, cpu_ids=[cpu])(delayed(wait_for_others)(tmp_path, 1) for _ in range(1))
    assert got == [(0, None, {cpu})]


@pytest.mark.parametrize("params", [{}, {"preload": "json"}])
def test_each_worker_has_its_variables_from_its_start(tmp_path: Path, params: Any) -> None:
    parallel = Parallel(2, worker_env=[{"SLOT": "a"}, {"SLOT": "b"}], order_tasks=True, **params)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        got = parallel(delayed(wait_for_others)(folder, 2) for _ in range(2))
        assert [entry[:2] for entry in got] == [(0, "a"), (1, "b")]
    assert parallel(delayed(had_at_start)("SLOT") for _ in range(2)) == ["a", "b"]
    if params:
        assert all(parallel(delayed(is_loaded)("json", x) for x in range(2)))
    assert Parallel(2)(delayed(had_at_start)("SLOT") for _ in range(2)) == [None, None]


def test_a_replaced_worker_has_the_variables_of_its_number() -> None:
    parallel = Parallel(
        2,
        worker_env=[{"SLOT": "a"}, {"SLOT": "b"}],
        worker_lifespan=1,
        order_tasks=True,
    )
    assert parallel(delayed(had_at_start)("SLOT") for _ in range(6)) == ["a", "b"] * 3


@pytest.mark.parametrize("backend", OWN)
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_workers_take_turns(backend: str, return_as: str) -> None:
    parallel = Parallel(2, backend, return_as, order_tasks=True, batch_size=3)
    got = parallel(delayed(worker_of)(x) for x in range(20))
    assert list(got) == [x // 3 % 2 for x in range(20)]


@pytest.mark.parametrize("backend", OWN)
def test_no_other_worker_helps_with_what_is_one_workers(backend: str) -> None:
    parallel = Parallel(2, backend, order_tasks=True, pre_dispatch="all", batch_size=5)
    functions = [time.sleep, *[worker_of] * 19]
    got = parallel(delayed(function)(0.1) for function in functions)
    assert got[1:] == [x // 5 % 2 for x in range(1, 20)]


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_requests_between_tasks(backend: str) -> None:
    session = find_backend(backend).open(2, 1, WorkerOptions())
    try:
        session.begin(CallTerms("call"))
        asked = [session.request(slot, worker_of, (0,)) for slot in (1, 0)]
        failed = session.request(0, fail)
        while not (failed.is_answered and all(one.is_answered for one in asked)):
            session.wait(5.0)
        assert [one.result() for one in asked] == [1, 0]
        with pytest.raises(LookupError):
            failed.result()
    finally:
        session.close()


def test_a_request_that_kills_its_worker_fails_alone() -> None:
    session = find_backend("processes").open(2, 1, WorkerOptions())
    try:
        session.begin(CallTerms("call"))
        deadly, other = session.request(0, die), session.request(1, worker_of, (0,))
        while not (deadly.is_answered and other.is_answered):
            session.wait(5.0)
        with pytest.raises(WorkerDiedError, match="worker 0 ended with exit code 7 in the request"):
            deadly.result()
        assert other.result() == 1
    finally:
        session.close()


def test_a_view_shows_init_functions() -> None:
    setup = WorkerSetup(init=hang)
    session = find_backend("processes").open(1, 1, WorkerOptions(setup=setup))
    try:
        session.begin(CallTerms("call"))
        session.request(0, worker_of, (0,))
        limit = time.monotonic() + 30
        while session.look()[0].phase != "INIT":
            assert time.monotonic() < limit
            session.wait(0.01)
    finally:
        session.close()


@pytest.mark.parametrize("backend", ["processes", "multiprocessing", "threading"])
def test_shared_objects_are_those_of_one_session_alone(backend: str) -> None:
    passed = Passed(id=True, shared=True)
    setup = WorkerSetup(passed=passed, shared_objects=["it"], is_exclusive=True)
    parallel = Parallel(2, backend, order_tasks=True)
    spec = parallel._spec._replace(workers=WorkerOptions(setup=setup))
    parallel._spec, parallel._resources = spec, CallResources(spec)
    before = set(worker_pool().idle_pids())
    assert parallel(delayed(lambda *args: args)(x) for x in range(2)) == [
        (0, ["it"], 0),
        (1, ["it"], 1),
    ]
    assert set(worker_pool().idle_pids()) <= before, "they have ended"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "processes"])
def test_what_multiprocessing_hands_to_its_own_processes_is_shared(method: str) -> None:
    context: Any = multiprocessing.get_context("spawn" if method == "processes" else method)
    lock, number, array, queue = shared = (
        context.Lock(),
        context.Value("i"),
        context.Array("i", 2),
        context.Queue(),
    )
    setup = WorkerSetup(passed=Passed(shared=True), shared_objects=shared)
    parallel = Parallel(2, method if method == "processes" else context)
    spec = parallel._spec._replace(workers=WorkerOptions(setup=setup))
    parallel._spec, parallel._resources = spec, CallResources(spec)
    assert parallel(delayed(add_to)(x) for x in range(10)) == list(range(10))
    with lock:
        assert (number.value, array[:]) == (45, [10, 0])
    assert sorted(queue.get() for _ in range(10)) == list(range(10))
    queue.close()


def test_tasks_that_are_taken_from_a_busy_worker_get_the_state_of_their_own() -> None:
    parallel = Parallel(2, use_worker_state=True, batch_size=50)
    for _ in range(10):
        got = parallel(delayed(count_with)(x) for x in range(100))
        assert sum(n == 1 for n, _ in got) <= 2 and len(got) == 100


# --- where it does not apply ----------------------------------------------------------------------


def test_no_worker_is_here() -> None:
    with pytest.raises(RuntimeError, match=r"^this_worker\(\) is for tasks"):
        this_worker()


def test_nor_in_the_worker_of_another_engine() -> None:
    with pytest.raises(RuntimeError, match=r"^this_worker\(\) is for tasks"):
        Parallel(2, "loky")(delayed(worker_of)(x) for x in range(2))


N_CPUS = os.cpu_count() or 1


@core
@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"worker_init": 3}, TypeError, "worker_init must be a function or None, not 3"),
        ({"worker_exit": "f"}, TypeError, "worker_exit must be a function or None, not 'f'"),
        ({"use_worker_state": 1}, TypeError, "use_worker_state must be True or False, not 1"),
        ({"order_tasks": None}, TypeError, "order_tasks must be True or False, not None"),
        ({"cpu_ids": 0}, TypeError, "cpu_ids must be a list with one entry for each worker"),
        ({"cpu_ids": [0, "1"]}, TypeError, "cpu_ids must be a list with one entry"),
        ({"cpu_ids": [0, True]}, TypeError, "cpu_ids must be a list with one entry"),
        ({"cpu_ids": [0, []]}, ValueError, "a worker needs one CPU at least"),
        ({"cpu_ids": [0, -1]}, ValueError, "there is no CPU -1 here, but 0 to"),
        ({"cpu_ids": [0, N_CPUS]}, ValueError, f"there is no CPU {N_CPUS} here"),
        ({"cpu_ids": [0]}, ValueError, "cpu_ids must have one entry .* has 1, and n_jobs=2"),
        ({"worker_env": {}}, TypeError, "worker_env must be a list with one mapping"),
        ({"worker_env": [{}]}, ValueError, "worker_env must have one .* has 1, and n_jobs=2"),
        ({"worker_env": [{"A": 1}, {}]}, TypeError, "must be strings, not 'A': 1; write '1'"),
        ({"worker_env": [{1: "a"}, {}]}, TypeError, "must be strings, not 1: 'a'"),
        ({"worker_env": [{"A=": "a"}, {}]}, ValueError, "'A=': 'a' cannot be a variable"),
        ({"worker_env": [{"A": "\0"}, {}]}, ValueError, "cannot be a variable"),
        (
            {"backend": "loky", "worker_init": begin, "order_tasks": True},
            ValueError,
            "backend='loky' has no worker_init and no order_tasks: use backend='processes' or",
        ),
        (
            {"backend": "threading", "worker_env": [{}, {}]},
            ValueError,
            "backend='threading' has no worker_env",
        ),
        ({"backend": "sequential", "cpu_ids": [0]}, ValueError, "'sequential' has no cpu_ids"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(params: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        Parallel(2, **params)


def test_an_executor_of_the_users_has_none() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="has no worker_exit"):
        Parallel(2, executor, worker_exit=end)


def test_a_context_gives_them_to_calls_that_name_no_backend(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="worker_init must be a function"):
        parallel_config(worker_init=3)  # type: ignore[arg-type]  # that is the test
    with parallel_config(n_jobs=2, worker_init=begin, worker_exit=end, cpu_ids=[0, 0]):
        parallel = Parallel(order_tasks=True)
        assert parallel(delayed(count)(x) for x in range(2)) == [(0, 1, True), (1, 1, True)]
        assert parallel.exit_results == [(0, 1, 1), (1, 1, 1)]
        Parallel(2, "loky")


def test_pinning_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from parallel_core.calls import checks

    monkeypatch.setattr(checks, "can_pin", lambda: False)
    with pytest.warns(RuntimeWarning, match="cannot be tied to CPUs on this system"):
        parallel = Parallel(2, cpu_ids=[0, 0])
    assert parallel(delayed(neg)(x) for x in range(2)) == [0, -1]
