"""Parallelism in one call: each form of the examples, each parameter, each bad input."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scripting_tasks as tasks

import parallel_core
from parallel_core import (
    ParallelRun,
    loadbalancer,
    parallel_progress,
    parallelcmd,
    parallelize,
    rng,
)
from parallel_core.compat import sciris as sc
from parallel_core.dispatch import load
from parallel_core.scripting import cpu_load, memory_load

pytestmark = pytest.mark.warm_workers

METHODS = ["default", "robust", "fast", "multiprocessing", "thread", "serial", "thread-copy",
           "serial-copy", "multiprocess-async", "async", "loky"]  # fmt: skip


# Forms.


@pytest.mark.core
def test_shortcut_for_a_pool() -> None:
    assert parallelize(tasks.square, [1, 2, 3]) == [1, 4, 9]


def test_a_number_calls_a_function_without_arguments() -> None:
    assert parallelize(tasks.nothing, 10, ncpus=4) == ["done"] * 10
    assert parallelize(tasks.nothing, np.int64(2)) == parallelize(tasks.nothing, 2.0)
    assert parallelize(tasks.given, 2, args=[5], z=1) == [((5,), {"z": 1})] * 2


def test_several_arguments() -> None:
    def multiply(x: int, y: int) -> int:
        return x * y

    results = parallelize(func=multiply, iterarg=[(1, 2), (2, 3), (3, 4)])
    assert results == [2, 6, 12]
    assert parallelize(multiply, iterkwargs={"x": [1, 2, 3], "y": [2, 3, 4]}) == results
    rows = [{"x": 1, "y": 2}, {"x": 2, "y": 3}, {"x": 3, "y": 4}]
    assert parallelize(multiply, iterkwargs=rows) == results


def test_arguments_of_all_jobs() -> None:
    first = parallelize(tasks.given, kwargs={"x": 3, "y": 8}, iterarg=range(2))
    assert first == [((0,), {"x": 3, "y": 8}), ((1,), {"x": 3, "y": 8})]
    assert parallelize(tasks.given, x=3, y=8, iterarg=[0, 1]) == first
    args = parallelize(tasks.given, [(1, 2), [3], None], args=(8, 9))
    assert args == [((1, 2, 8, 9), {}), (([3], 8, 9), {}), ((None, 8, 9), {})]
    both = parallelize(tasks.given, [1, 2], {"x": [3, 4]}, kwargs={"x": 0, "y": 5})
    assert both == [((1,), {"x": 3, "y": 5}), ((2,), {"x": 4, "y": 5})]
    assert parallelize(tasks.given, 2, {"x": [3, 4]}) == [((), {"x": 3}), ((), {"x": 4})]


def test_any_iterable() -> None:
    assert parallelize(tasks.square, (x for x in range(3))) == [0, 1, 4]
    assert parallelize(tasks.square, np.arange(3)) == [0, 1, 4]
    assert parallelize(tasks.given, "ab") == [(("a",), {}), (("b",), {})]


# Methods.


@pytest.mark.parametrize("method", METHODS)
def test_each_parallelizer(method: str) -> None:
    run = ParallelRun(tasks.square, range(20), ncpus=2, parallelizer=method)
    assert run.run().results == [x * x for x in range(20)]
    assert run.method == method
    assert all(seconds >= 0 for seconds in run.times.jobs)
    with pytest.raises(ZeroDivisionError):
        parallelize(tasks.invert, [1, 0], parallelizer=method)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_each_start_method(start_method: str) -> None:
    assert parallelize(tasks.square, range(4), ncpus=2, start_method=start_method) == [0, 1, 4, 9]


def test_a_pool_of_ones_own() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = parallelize(
            tasks.given, iterkwargs={"x": [1, 2], "y": [4, 5]}, parallelizer=pool.map
        )
        assert found == [((), {"x": 1, "y": 4}), ((), {"x": 2, "y": 5})]
        run = ParallelRun(tasks.invert, [1, 0], parallelizer=pool.imap, die=False, capture=True)
        with pytest.warns(RuntimeWarning, match=r"job 1 failed|only 1"):
            run.run()
        assert run.results[0] == 1.0 and isinstance(run.results[1], ZeroDivisionError)
        assert run.stdout == ["inverting 1\n", "inverting 0\n"]
    with ThreadPool(2) as threads:
        with pytest.raises(ZeroDivisionError):
            parallelize(tasks.invert, [1, 0], parallelizer=threads.map)
    mapper = tasks.Mapper()
    assert ParallelRun(tasks.square, [2], parallelizer=mapper).method == "Mapper"
    assert parallelize(tasks.square, [2, 3], parallelizer=mapper) == [4, 9]
    with pytest.raises(RuntimeError, match="tasks of a call with a seed"):
        rng()  # the jobs ran in this thread, and what was to hold in them ended with them
    assert len(mapper.tasks) == 2


def test_an_executor_and_a_backend() -> None:
    with ThreadPoolExecutor(2) as executor:
        assert parallelize(tasks.square, range(3), parallelizer=executor) == [0, 1, 4]
    backend, _ = parallel_core.get_active_backend(prefer="threads")
    assert parallelize(tasks.square, range(3), parallelizer=backend) == [0, 1, 4]


def test_serial() -> None:
    assert parallelize(os.getpid, 2, serial=True) == [os.getpid()] * 2
    assert parallelize(os.getpid, 2, parallelizer="thread", serial=True) == [os.getpid()] * 2


def test_the_settings_in_force() -> None:
    with parallel_core.parallel_config(backend="threading", n_jobs=1):
        assert ParallelRun(os.getpid, 2).ncpus == 1
        assert parallelize(os.getpid, 2) == [os.getpid()] * 2
        assert set(parallelize(os.getpid, 2, ncpus=2, parallelizer="robust")) != {os.getpid()}


@pytest.mark.parametrize("ncpus", [None, 0, 1, 2, 0.5, 2.7, np.int64(3)])
def test_numbers_of_workers(ncpus: Any) -> None:
    cores = parallel_core.cpu_count()
    expected = {None: cores, 0: cores, 0.5: math.ceil(cores / 2), 2.7: 2}.get(ncpus, ncpus)
    assert ParallelRun(tasks.square, range(100), ncpus=ncpus).ncpus == expected
    assert ParallelRun(tasks.square, [1], ncpus=ncpus).ncpus == 1


@pytest.mark.parametrize("method", ["serial", "thread"])
def test_copies(method: str) -> None:
    values: list[int] = []
    shared: dict[Any, Any] = {}
    copied = f"{method}-copy"
    assert parallelize(tasks.change, 2, args=(values,), parallelizer=copied) == [[1], [1]]
    parallelize(tasks.change, 2, args=(values,), parallelizer=copied, globaldict=shared)
    assert values == [] and shared == {(1,): 1}
    parallelize(tasks.change, 2, args=(values,), parallelizer=method)
    assert values == [1, 1]


# Outcomes.


@pytest.mark.parametrize("method", ["default", "thread", "serial"])
def test_exceptions_among_the_results(method: str) -> None:
    run = ParallelRun(tasks.invert, [1, 0, 2], die=False, parallelizer=method, capture=True)
    with pytest.warns(RuntimeWarning) as warned:
        results = run.run().results
    assert results[::2] == [1.0, 0.5]
    assert results[1] is run.exceptions[1] and isinstance(results[1], ZeroDivisionError)
    assert run.success == [True, False, True]
    assert run.exceptions[::2] == [None, None]
    told = [str(each.message) for each in warned]
    assert "job 1 failed: ZeroDivisionError: division by zero" in told
    assert "only 2 of 3 jobs succeeded" in told
    assert run.stdout == [f"inverting {x}\n" for x in (1, 0, 2)]
    assert all(type(seconds) is float and seconds >= 0 for seconds in run.times.jobs)


def test_a_worker_that_dies_is_one_failure() -> None:
    with pytest.warns(RuntimeWarning, match=r"job 0 failed|only 1 of 2"):
        results = parallelize(exit_at, [True, False], ncpus=2, die=False)
    assert isinstance(results[0], parallel_core.WorkerDiedError) and results[1] == 1


def exit_at(ends: bool) -> int:
    if ends:
        os._exit(3)
    return 1


def test_the_first_error_is_raised_as_itself() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        parallelize(tasks.invert, [1, 0, 2], ncpus=2)
    assert "task 1" in "".join(getattr(raised.value, "__notes__", []))


def test_what_jobs_print(capsys: pytest.CaptureFixture[str]) -> None:
    run = ParallelRun(tasks.invert, [1, 2], capture=True).run()
    assert run.stdout == ["inverting 1\n", "inverting 2\n"]
    assert capsys.readouterr().out == ""
    parallelize(tasks.invert, [4], ncpus=2)
    assert capsys.readouterr().out == "inverting 4\n"


@pytest.mark.parametrize("method", ["default", "thread", "serial", "map"])
def test_a_shared_dictionary(method: str) -> None:
    own = {"before": 1}
    parallelizer = tasks.Mapper() if method == "map" else method
    assert parallelize(tasks.remember, range(4), globaldict=own, parallelizer=parallelizer) == [
        *range(4)
    ]
    assert own == {"before": 1, 0: 0, 1: 1, 2: 4, 3: 9}


@pytest.mark.parametrize("method", ["default", "thread", "serial"])
def test_callback(method: str) -> None:
    told: list[Any] = []
    shared: dict[Any, Any] = {}

    def note(data: Any) -> None:
        data.globaldict[f"told of {data.index}"] = 0  # what jobs see, too
        told.append(data)

    with pytest.warns(RuntimeWarning, match=r"job 1 failed|only 2"):
        parallelize(
            tasks.change,
            [([1],), (3,), ([5],)],
            callback=note,
            globaldict=shared,
            die=False,
            parallelizer=method,
        )
    told.sort(key=lambda data: data.index)
    assert [data.index for data in told] == [0, 1, 2]
    assert [data["njobs"] for data in told] == [3] * 3
    assert [data.outdict.success for data in told] == [True, False, True]
    assert [data.outdict["result"] for data in told][::2] == [[1, 1], [5, 1]]
    assert isinstance(told[1].outdict.exception, AttributeError)
    assert all(data.outdict.elapsed >= 0 and not data.outdict.skipped for data in told)
    assert told[1].args == (3,) and told[1].kwargs == {}
    assert set(shared.values()) == {0, 2, 6} and "told of 2" in shared
    with pytest.raises(AttributeError, match="there is no 'nothing'"):
        _ = told[0].nothing


@pytest.mark.parametrize("method", ["default", "thread", "serial", "map"])
def test_callback_stops_the_run(method: str) -> None:
    def stop(data: Any) -> None:
        data.stop = data.index == 0

    parallelizer = tasks.Mapper() if method == "map" else method
    ncpus = None if method == "map" else 2
    run = ParallelRun(
        tasks.wait_at_seven, range(8), ncpus=ncpus, callback=stop, parallelizer=parallelizer
    )
    assert run.run().results[0] == 0
    assert run.results[7] is None and run.skipped[7] and not run.skipped[0]
    assert run.status == "done"


def test_callback_that_raises() -> None:
    def refuse(data: Any) -> None:
        raise LookupError("not that")

    with pytest.raises(LookupError, match="not that"):
        parallelize(tasks.square, range(3), callback=refuse)


def test_progress() -> None:
    seen: list[Any] = []
    assert parallelize(tasks.square, range(3), progress=seen.append) == [0, 1, 4]
    assert seen[-1].completed == seen[-1].total == 3


# Random numbers.


@pytest.mark.parametrize("method", ["default", "serial", "multiprocessing", "map"])
def test_numbers_follow_from_the_callers_generator(method: str) -> None:
    parallelizer = tasks.Mapper() if method == "map" else method
    expected: Any = None
    for _ in range(2):
        np.random.seed(5)
        found = parallelize(tasks.draw_both, range(6), parallelizer=parallelizer)
        expected = expected or found
        assert found == expected
    np.random.seed(5)
    assert parallelize(tasks.draw_both, range(6), ncpus=1) == expected
    assert parallelize(tasks.draw_both, range(6)) != expected
    assert len(set(parallelize(tasks.draw, 10))) == 10


# Runs.


def test_a_run_in_the_background() -> None:
    run = ParallelRun(tasks.thread_name, 2, parallelizer="serial-async", label="names")
    assert run.is_async and run.status == "not run" and not run.already_run
    assert repr(run) == (
        'ParallelRun("names"; jobs=2; cpus=1; method=serial-async; status=not run)'
    )
    assert run.run_async() is run
    assert run.finalize() is run and run.ready and not run.running and run.already_run
    assert all(name.startswith("parallel-core-run") for name in run.results)
    assert run.times.finished >= run.times.started and run.times.elapsed >= 0
    assert run.run().results == [threading.current_thread().name] * 2


def test_watching_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = ParallelRun(tasks.wait, [0.0, 0.01, 0.02], ncpus=2).run_async().monitor(interval=0.001)
    assert run.ready
    assert capsys.readouterr().out.splitlines()[-1].startswith("3/3 jobs done (")


def test_stopping_a_run() -> None:
    begun = threading.Event()
    run = ParallelRun(
        tasks.wait, [0, 50, 50, 50], ncpus=2, callback=lambda data: begun.set()
    ).run_async()
    assert begun.wait(30) and run.running and run.status == "running"
    with pytest.raises(RuntimeError, match="is running"):
        run.reset()
    run.close()
    assert run.finalize().results == [0, None, None, None]
    assert run.skipped == [False, True, True, True]
    assert run.reset().status == "not run" and run.results == [None] * 4


def test_results_of_a_run_that_is_stopped() -> None:
    run = ParallelRun(tasks.wait, [0, 50, 50], ncpus=2).run_async()
    while run.n_done < 1:
        time.sleep(0.01)
    run.close()
    assert run.results == [0, None, None] and run.skipped == [False, True, True]
    assert run.success == [True, False, False] and run.times.jobs[1] is None


@pytest.mark.parametrize("method", ["serial", "map"])
def test_stopping_a_run_from_one_of_its_jobs(method: str) -> None:
    parallelizer = tasks.Mapper() if method == "map" else method

    def stop_at_two(x: int) -> int:
        if x == 2:
            run.stop()
        return x

    run = ParallelRun(stop_at_two, range(9), parallelizer=parallelizer)
    assert run.run().results[:2] == [0, 1] and run.results[3:] == [None] * 6


def test_what_had_arrived_when_a_job_failed() -> None:
    run = ParallelRun(tasks.invert_with_results, [1, 2, 0, 4], serial=True)
    with pytest.raises(tasks.HasResults, match="division"):
        run.run()
    assert run.results == [None] * 4, "the exception has results of its own"
    run = ParallelRun(tasks.invert, [1, 2, 0, 4], serial=True)
    with pytest.raises(ZeroDivisionError):
        run.run()
    assert run.results == [1.0, 0.5, None, None] and run.status == "done"


def test_errors_of_a_run_in_the_background() -> None:
    run = ParallelRun(tasks.invert, [0]).run_async()
    with pytest.raises(ZeroDivisionError):
        run.finalize()
    with pytest.raises(RuntimeError, match=r"has not run.*run\(\)"):
        run.reset().finalize()


# Loads.


class Machine:
    """A machine of two processors whose load a test sets, in the place of `psutil`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.load = self.memory = 0.0
        self.looks = 0
        self.idle_from = math.inf  # the look from which on nothing runs any more
        self.has_looked = threading.Condition()
        self._busy = self._idle = 0.0
        monkeypatch.setattr(load, "_psutil", lambda: self)

    def cpu_times(self) -> Any:
        if self.looks >= self.idle_from:
            self.load = 0.0
        self._busy += self.load
        self._idle += 1 - self.load
        with self.has_looked:
            self.looks += 1
            self.has_looked.notify_all()
        return SimpleNamespace(_asdict=lambda: {"user": self._busy, "idle": self._idle})

    def virtual_memory(self) -> Any:
        return SimpleNamespace(percent=self.memory * 100)

    def cpu_count(self) -> int:
        return 2

    def wait_for_looks(self, count: int) -> None:
        with self.has_looked:
            until = self.looks + count
            assert self.has_looked.wait_for(lambda: self.looks >= until, 30)


@pytest.mark.parametrize("method", ["default", "thread", "serial"])
def test_jobs_are_held_back(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.load = 1.0
    run = ParallelRun(tasks.square, range(50), maxcpu=0.8, interval=0.002, parallelizer=method)
    run.run_async()
    machine.wait_for_looks(5)
    assert run.n_done == 0
    machine.load = 0.5
    assert run.finalize().results == [x * x for x in range(50)]


def test_used_memory_holds_jobs_back(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.memory = 0.95
    run = ParallelRun(tasks.square, [3], lbkwargs={"maxmem": 90, "interval": 0.001}, maxcpu=1.0)
    run.run_async()
    machine.wait_for_looks(5)
    assert run.n_done == 0
    machine.memory = 0.5
    assert run.finalize().results == [9]


def test_no_more_jobs_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    gate = load.LoadGate(0.8, None, interval=0.0)
    gate.again = 0.0
    machine.load = 0.3  # one of two processors is missing to the limit
    assert [gate.hold(at_work) for at_work in (0, 1, 2)] == [False, False, False]
    gate = load.LoadGate(0.8, None, interval=1e9)
    gate.again = 0.0
    assert [gate.hold(at_work) for at_work in (1, 2, 1)] == [False, True, False]


def test_a_limit_is_given_up_in_the_end() -> None:
    options = {"maxtime": 0.01, "interval": 0.001, "verbose": False}
    assert parallelize(tasks.square, [1, 2], maxmem=1e-9, lbkwargs=options) == [1, 4]
    assert parallelize(tasks.square, [1, 2], maxmem=99.99, interval=0.001) == [1, 4]
    assert parallelize(tasks.square, [1, 2], maxcpu=None, maxmem=False, interval=3) == [1, 4]


def test_loadbalancer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(monkeypatch)
    options = {"interval": 0.001, "cpu_interval": 0.0}
    assert loadbalancer(index=2, **options) == "CPU 0% ≤ 90%, memory 0% ≤ 90%: starting"
    assert capsys.readouterr().out == ""
    machine.load = 1.0
    machine.idle_from = machine.looks + 4
    told = loadbalancer(0.5, maxmem=None, label="here", verbose=True, **options)
    waiting = "here: CPU 100% > 50%: waiting for 0.001 s"
    assert capsys.readouterr().out.splitlines() == [waiting, waiting, told]
    assert told == "here: CPU 0% ≤ 50%: starting"
    machine.idle_from, machine.load = math.inf, 1.0
    told = loadbalancer(0.5, maxmem=None, maxtime=0, verbose=False, **options)
    assert told == "CPU 100% > 50%: going on after 0 s" and capsys.readouterr().out == ""
    with pytest.warns(FutureWarning, match="write maxcpu"):
        assert loadbalancer(maxload=100, maxmem=False, **options) == "CPU 100% ≤ 100%: starting"
    with pytest.warns(UserWarning, match=r"too short; it is 0\.001 s"):
        loadbalancer(None, None, interval=0)


def test_loads_of_this_machine() -> None:
    assert 0 <= cpu_load(0.01) <= 1
    assert 0 < memory_load() < 1
    assert loadbalancer(maxcpu=100, maxmem=100, index=0).endswith("starting")


def test_psutil_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert parallelize(tasks.square, [2]) == [4]
    with pytest.raises(ImportError, match=r"pip install 'parallel-core\[scripting\]'"):
        ParallelRun(tasks.square, [2], maxcpu=0.9)


def test_the_former_name_of_maxcpu() -> None:
    with pytest.warns(FutureWarning, match="write maxcpu") as warned:
        assert parallelize(tasks.square, range(3), maxload=1.0, interval=0.001) == [0, 1, 4]
    assert warned[0].filename == __file__


# Blocks of code.


def test_a_block_of_code() -> None:
    cmd = """
        import math
        def newval(x):
            return x + const  # a function sees the names of the block
        result = sum(newval(val) for _ in range(1)) ** 2
    """
    parfor = {"val": [3, 5, 9]}
    assert parallelcmd(cmd=cmd, parfor=parfor, returnval="result", const=4) == [49, 81, 169]
    assert parallelcmd("from math import *\ny = floor(x)", {"x": [1.5]}, "y") == [1]
    assert parallelcmd("y = func + cmds", [{"func": 1, "cmds": 2}], "y") == [3]


def test_an_error_in_a_block_names_its_line() -> None:
    cmd = "y = 0\nfor z in range(3):\n    y += 1 / x\n"
    with pytest.raises(ZeroDivisionError) as raised:
        parallelcmd(cmd, {"x": [1, 0]}, "y")
    assert "in line 3 of cmd: y += 1 / x" in raised.value.__notes__
    with pytest.warns(RuntimeWarning, match=r"job 1 failed|only 1 of 2"):
        results = parallelcmd(cmd, {"x": [1, 0]}, "y", die=False)
    assert results[0] == 3 and isinstance(results[1], ZeroDivisionError)
    with pytest.raises(NameError, match="has not set 'y'"):
        parallelcmd("if x:\n    y = 1", {"x": [0]}, "y")


@pytest.mark.parametrize(
    ("cmd", "kind", "words"),
    [
        ("x = (1\ny = 2", SyntaxError, "never closed"),
        ("return 5", SyntaxError, "outside function"),
        ("y = 5 + z", NameError, r"uses 'z', which nothing defines, in line 1: y = 5 \+ z"),
        ("def f():\n    return a_b\ny = f()", NameError, "'a_b', which nothing defines, in line 2"),
        ("z = x", ValueError, "never sets 'y', which is to be returned; it sets z"),
        ("def f():\n    y = 1\nf()", ValueError, "never sets 'y'"),
        (5, TypeError, "cmd must be a string of code"),
    ],
)
def test_blocks_that_cannot_run(cmd: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        parallelcmd(cmd, {"x": [1]}, "y")


def test_other_faults_of_a_block() -> None:
    with pytest.raises(TypeError, match="returnval must be the name"):
        parallelcmd("y = x", {"x": [1]}, "y + 1")
    with pytest.raises(ValueError, match="parfor must have the variables"):
        parallelcmd("y = 1", None, "y")
    with pytest.raises(ValueError, match="'x' has 1, 'z' has 2"):
        parallelcmd("y = 1", {"x": [1], "z": [1, 2]}, "y")
    assert parallelcmd("def f():\n    global y\n    y = x\nf()", {"x": [1]}, "y") == [1]


# The rest.


def test_parallel_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert parallel_progress(tasks.square, range(3), 2) == [0, 1, 4]
    assert parallel_progress(tasks.nothing, 2, show_progress=False) == ["done"] * 2
    with pytest.raises(ZeroDivisionError):
        parallel_progress(tasks.invert, [0])


def test_calls_in_several_threads() -> None:
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda n: parallelize(tasks.square, range(n)), (5, 6, 7)))
    assert found == [[x * x for x in range(n)] for n in (5, 6, 7)]


def test_calls_within_jobs() -> None:
    assert parallelize(nested, [2, 3], ncpus=2) == [[0, 1], [0, 1, 4]]


def nested(n: int) -> list[int]:
    return parallelize(tasks.square, range(n))


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"func": 5, "iterarg": [1]}, TypeError, "func must be a function"),
        ({}, ValueError, "nothing to iterate over: give iterarg"),
        ({"iterarg": []}, ValueError, "no items"),
        ({"iterkwargs": {}}, ValueError, "no items"),
        ({"iterkwargs": []}, ValueError, "no items"),
        ({"iterarg": 0}, ValueError, "positive whole number"),
        ({"iterarg": 1.5}, ValueError, "positive whole number"),
        ({"iterarg": math.nan}, ValueError, "positive whole number"),
        ({"iterarg": 1j}, TypeError, "a sequence or a number"),
        ({"iterarg": True}, TypeError, "a sequence or a number"),
        ({"iterarg": len}, TypeError, "a sequence or a number"),
        ({"iterkwargs": {"x": [1, 2], "y": [1]}}, ValueError, "'x' has 2, 'y' has 1"),
        ({"iterkwargs": {"x": [1, 2]}, "iterarg": [1]}, ValueError, "1 items and iterkwargs has 2"),
        ({"iterkwargs": {"x": 5}}, TypeError, r"iterkwargs\['x'\] must be a list"),
        ({"iterkwargs": {5: [5]}}, TypeError, "must be a string, not 5"),
        ({"iterkwargs": [5]}, TypeError, r"iterkwargs\[0\] must be a dictionary"),
        ({"iterkwargs": 5}, TypeError, "a dictionary of lists or a list"),
        ({"iterarg": [1], "args": 5}, TypeError, r"write args=\(x,\)"),
        ({"iterarg": [1], "kwargs": 5}, TypeError, "kwargs must be a dictionary"),
        ({"iterarg": [1], "ncpus": -1}, ValueError, "ncpus must be a number of workers"),
        ({"iterarg": [1], "ncpus": math.inf}, ValueError, "ncpus must be a number of workers"),
        ({"iterarg": [1], "ncpus": "2"}, TypeError, "ncpus must be a number or None"),
        ({"iterarg": [1], "ncpus": True}, TypeError, "ncpus must be a number or None"),
        ({"iterarg": [1], "ncpus": 2, "parallelizer": map}, ValueError, "ncpus has no meaning"),
        ({"iterarg": [1], "maxcpu": 0.9, "parallelizer": map}, ValueError, "maxcpu or maxmem has"),
        ({"iterarg": [1], "progress": True, "parallelizer": map}, ValueError, "progress has no"),
        ({"iterarg": [1], "maxcpu": 101}, ValueError, "no machine can have maxcpu=101"),
        ({"iterarg": [1], "maxcpu": 0}, ValueError, "no machine can have maxcpu=0"),
        ({"iterarg": [1], "maxmem": -0.5}, ValueError, "no machine can have maxmem"),
        ({"iterarg": [1], "maxmem": math.nan}, ValueError, "no machine can have maxmem"),
        ({"iterarg": [1], "maxmem": "most"}, TypeError, "maxmem must be a number"),
        ({"iterarg": [1], "maxcpu": 0.5, "maxload": 0.5}, TypeError, "not both"),
        ({"iterarg": [1], "maxcpu": 0.5, "interval": -1}, ValueError, "interval must be"),
        ({"iterarg": [1], "maxcpu": 0.5, "interval": "1"}, TypeError, "interval must be"),
        ({"iterarg": [1], "lbkwargs": {"maxtimes": 1}}, TypeError, "no option 'maxtimes'"),
        ({"iterarg": [1], "parallelizer": "threads"}, ValueError, "parallelizer must be one of"),
        ({"iterarg": [1], "parallelizer": "threads-copy"}, ValueError, "unknown backend 'threads'"),
        ({"iterarg": [1], "parallelizer": 5}, TypeError, "no backend"),
        (
            {"iterarg": [1], "start_method": "born"},
            ValueError,
            "start_method must be one of",
        ),
        (
            {"iterarg": [1], "start_method": "fork", "parallelizer": "thread"},
            ValueError,
            "for processes that are started",
        ),
        ({"iterarg": [1], "callback": 5}, TypeError, "callback must be a function"),
        ({"iterarg": [1], "globaldict": 5}, TypeError, "globaldict must be a dictionary"),
        ({"iterarg": [1], "progress": "blue"}, ValueError, "progress must be"),
        ({"iterarg": [1], "parallelizer": lambda f, jobs: [1]}, TypeError, "as map does"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_bad_input(params: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        parallelize(**{"func": tasks.square, **params})


def test_the_originals_names() -> None:
    import parallel_core.compat.sciris.sc_parallel as submodule

    assert sc.Parallel is submodule.Parallel is ParallelRun
    assert sc.parallelize is submodule.parallelize is parallelize
    assert sc.parallelcmd is parallelcmd and sc.parallel_progress is parallel_progress
    assert sc.loadbalancer is loadbalancer
    assert sc.cpu_count() == sc.cpucount() == parallel_core.cpu_count()
    assert sc.cpuload is sc.cpu_load is cpu_load
    assert sc.memload is sc.mem_load is memory_load
    assert all(hasattr(sc, name) for name in sc.__all__) and sc.__all__ == submodule.__all__
    with pytest.raises(AttributeError, match="import everything else from sciris itself"):
        _ = sc.odict


def test_names_are_found_when_they_are_used() -> None:
    import parallel_core.scripting as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="no attribute 'odict'"):
        _ = room.odict
