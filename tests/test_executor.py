"""Futures over the same workers: ours, and what the standard library expects of an executor."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from concurrent.futures import TimeoutError as FuturesTimeoutError
from pathlib import Path
from typing import Any

import pytest

from parallel_core import (
    InitializerError,
    Parallel,
    SerializationError,
    TaskExitError,
    TaskOutput,
    TaskTimeoutError,
    WorkerDiedError,
    delayed,
    get_executor,
    parallel_config,
    rng,
)
from parallel_core.errors import RemoteTraceback

pytestmark = pytest.mark.warm_workers

BACKENDS = ("processes", "threading", "loky")


@pytest.fixture
def executor() -> Iterator[Executor]:
    with get_executor(2) as made:
        yield made


class Fifo:
    """Two named pipes by which a task says that it has begun, and is told to end."""

    def __init__(self, folder: Path, name: str = "task") -> None:
        self.begun, self.end = str(folder / f"{name}-begun"), str(folder / f"{name}-end")
        for path in (self.begun, self.end):
            os.mkfifo(path)

    def task(self, value: Any = None) -> Any:
        """Say so, and wait."""
        with open(self.begun, "w"):
            pass
        with open(self.end):
            return value

    def await_begin(self) -> None:
        with open(self.begun):
            pass

    def let_end(self) -> None:
        with open(self.end, "w"):
            pass


def run_script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_futures_have_results_and_exceptions(backend: str) -> None:
    with get_executor(2, backend=backend) as executor:
        assert isinstance(executor, Executor)
        assert executor.submit(pow, 2, 5).result() == 32
        assert executor.submit(lambda x, *, y: x - y, 5, y=2).result() == 3
        failed = executor.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError) as caught:
            failed.result()
        assert any("divmod(1, 0)" in note for note in caught.value.__notes__)
        if backend == "processes":
            assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert list(executor.map(pow, range(7), range(7))) == [n**n for n in range(7)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()  # once more does no harm


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_from_many_threads(backend: str) -> None:
    with get_executor(2, backend=backend) as executor, ThreadPoolExecutor(4) as threads:

        def submit(thread: int) -> list[Any]:
            futures = [executor.submit(divmod, thread * 100 + n, 7) for n in range(100)]
            return [future.result() for future in futures]

        found = [result for results in threads.map(submit, range(4)) for result in results]
    assert found == [divmod(n, 7) for n in range(400)]


def test_a_task_is_answered_while_the_one_behind_it_runs(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path)
    with get_executor(1, batch_size=50) as executor:
        gate = Fifo(tmp_path, "gate")
        first = executor.submit(gate.task)
        gate.await_begin()  # so that the rest is pulled as one batch
        quick = [executor.submit(abs, -n) for n in range(20)]
        slow = executor.submit(fifo.task, "done")
        gate.let_end()
        first.result()
        assert [future.result() for future in quick] == list(range(20))
        fifo.await_begin()
        assert not slow.done()
        fifo.let_end()
        assert slow.result() == "done"


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_running_and_cancelled(tmp_path: Path, backend: str) -> None:
    fifos = [Fifo(tmp_path, str(n)) for n in range(2)]
    with get_executor(2, backend=backend) as executor:
        running = [executor.submit(fifo.task, n) for n, fifo in enumerate(fifos)]
        for fifo in fifos:
            fifo.await_begin()
        queued = [executor.submit(abs, -n) for n in range(5)]
        assert all(future.running() for future in running)
        assert not any(future.running() for future in queued)
        assert not running[0].cancel()
        assert queued[2].cancel()
        for fifo in fifos:
            fifo.let_end()
        assert [future.result() for future in running] == [0, 1]
        assert [future.result() for future in queued if future is not queued[2]] == [0, 1, 3, 4]
        with pytest.raises(CancelledError):
            queued[2].result()
        assert wait(queued, timeout=30).not_done == set()


def test_shutdown_cancels_what_has_not_begun(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path)
    executor = get_executor(1)
    running = executor.submit(fifo.task, "done")
    fifo.await_begin()
    queued = [executor.submit(abs, -n) for n in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in queued)
    assert wait(queued, timeout=30).not_done == set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    fifo.let_end()
    executor.shutdown()
    assert running.done() and running.result() == "done"


def test_the_death_of_a_worker_costs_its_future_alone(executor: Executor) -> None:
    dying = executor.submit(os.kill, os.getpid(), 0)  # the parent is there
    assert dying.result() is None
    before = [executor.submit(abs, -n) for n in range(50)]
    dying = executor.submit(os._exit, 3)
    after = [executor.submit(abs, -n) for n in range(50)]
    with pytest.raises(WorkerDiedError, match=r"exit code 3 at task \d+ of the call: .*_exit"):
        dying.result()
    assert isinstance(dying.exception(), BrokenExecutor)
    assert [future.result() for future in before + after] == [*range(50), *range(50)]
    assert executor.submit(abs, -1).result() == 1


def _interrupt() -> None:
    raise KeyboardInterrupt("of the task's own")


def _return_a_lock() -> Any:
    return threading.Lock()


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_nothing_that_a_task_does_ends_the_executor(backend: str) -> None:
    with get_executor(2, backend=backend) as executor:
        futures: dict[str, Future[Any]] = {
            "interrupt": executor.submit(_interrupt),
            "exit": executor.submit(sys.exit, 4),
            "result": executor.submit(_return_a_lock),
            "argument": executor.submit(id, threading.Lock()),
            "good": executor.submit(abs, -1),
        }
        assert isinstance(futures["interrupt"].exception(), KeyboardInterrupt)
        assert isinstance(futures["exit"].exception(), TaskExitError)
        assert futures["good"].result() == 1
        if backend == "processes":
            assert isinstance(futures["result"].exception(), SerializationError)
            assert isinstance(futures["argument"].exception(), SerializationError)
        assert executor.submit(abs, -2).result() == 2


def _fail() -> None:
    raise ValueError("no licence")


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_an_initializer_that_raises(backend: str) -> None:
    with get_executor(2, backend=backend, initializer=_fail) as executor:
        futures = [executor.submit(abs, -n) for n in range(20)]
        for future in futures:
            with pytest.raises(InitializerError, match="no licence"):
                future.result()
        assert isinstance(futures[0].exception(), BrokenExecutor)


def test_an_initializer_that_raises_in_one_thread() -> None:
    calls = iter([None, ValueError("no licence")])
    over = threading.Event()

    def prepare() -> None:
        error = next(calls, None)
        if error is not None:
            raise error

    with get_executor(2, backend="threading", initializer=prepare) as executor:
        failed = executor.submit(over.wait)
        executor.submit(abs, 0)  # for which another thread is started
        assert isinstance(failed.exception(), InitializerError)
        over.set()
        assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))


def _set_state(value: str) -> None:
    os.environ["TEST_EXECUTOR_STATE"] = value


def test_parameters_of_workers_and_tasks_hold(tmp_path: Path) -> None:
    with get_executor(
        1, initializer=_set_state, initargs=("set",), timeout=0.2, worker_lifespan=50
    ) as executor:
        assert executor.submit(os.getenv, "TEST_EXECUTOR_STATE").result() == "set"
        with pytest.raises(TaskTimeoutError):
            executor.submit(time.sleep, 600).result()
    marker = tmp_path / "tried"

    def once() -> str:
        if not marker.exists():
            marker.touch()
            raise OSError("not yet")
        return "done"

    with get_executor(1, retries=1, retry_on=OSError, retry_backoff=0.0) as executor:
        assert executor.submit(once).result() == "done"


def test_large_arrays_are_shared(executor: Executor) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1 << 18, dtype="f8")
    kinds = [executor.submit(lambda a: (type(a).__name__, float(a.sum())), array) for _ in "ab"]
    assert [kind.result() for kind in kinds] == [("memmap", float(array.sum()))] * 2


def test_submit_from_a_callback_and_from_within_a_task(executor: Executor) -> None:
    chained: Future[int] = Future()

    def go_on(done: Future[int]) -> None:
        executor.submit(abs, -done.result()).add_done_callback(
            lambda last: chained.set_result(last.result())
        )

    executor.submit(abs, -7).add_done_callback(go_on)
    assert chained.result(30) == 7

    def nested(depth: int) -> int:
        from parallel_core import get_executor

        with get_executor(2) as inner:
            if depth:
                return sum(inner.map(nested, [depth - 1] * 2))
            return sum(inner.map(abs, [-1, -2]))

    assert list(executor.map(nested, [2, 2])) == [12, 12]
    assert executor.submit(
        lambda: Parallel(n_jobs=2)(delayed(abs)(-n) for n in range(3))
    ).result() == [0, 1, 2]


def test_map_is_ahead_as_far_as_it_may(executor: Executor, tmp_path: Path) -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(20):
            asked.append(n)
            yield n

    results = executor.map(abs, numbers(), buffersize=3)
    assert asked == [0, 1, 2]
    assert next(results) == 0
    assert asked == [0, 1, 2, 3]
    assert list(results) == list(range(1, 20))
    assert list(executor.map(divmod, range(10), [3] * 9, chunksize=4)) == [
        divmod(n, 3) for n in range(9)
    ]
    for name in ("chunksize", "buffersize"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            executor.map(abs, [], **{name: 0})
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            executor.map(abs, [], **{name: 1.5})
    fifo = Fifo(tmp_path)
    waiting = executor.map(fifo.task, ["late"], timeout=0.05)
    fifo.await_begin()
    with pytest.raises(FuturesTimeoutError):
        next(waiting)
    fifo.let_end()


def test_an_idle_executor_has_no_thread_and_no_lease(executor: Executor) -> None:
    pid = executor.submit(os.getpid).result()
    second = executor.submit(os.getpid).result()
    names = {thread.name for thread in threading.enumerate() if "executor" in thread.name}
    while any("executor" in thread.name for thread in threading.enumerate()):
        time.sleep(0.01)
    pids = set(Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(50)))
    assert len(names) <= 1
    assert {pid, second} & pids  # the same workers serve both doors
    assert executor.submit(os.getpid).result() in pids


def test_a_dropped_executor_finishes_its_tasks() -> None:
    executor = get_executor(2)
    futures = [executor.submit(abs, -n) for n in range(20)]
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert [future.result() for future in futures] == list(range(20))
    for thread in threading.enumerate():
        if "executor" in thread.name:
            thread.join()  # it ends by itself


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_at_the_end_of_the_program(backend: str) -> None:
    code = f"""
import atexit, os, sys, time
from parallel_core import get_executor

def late():
    try:
        executor.submit(abs, -1)
    except RuntimeError as error:
        print(error, flush=True)

atexit.register(late)
executor = get_executor(2, backend={backend!r})
for n in range(30):
    executor.submit(lambda n: os.write(1, b"%d\\n" % n), n)
executor.submit(time.sleep, 0.2).add_done_callback(lambda _: print("done", flush=True))
"""
    done = run_script(code)
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "cannot schedule new futures after interpreter shutdown"
    assert sorted(lines[:-1]) == sorted([*map(str, range(30)), "done"])


def test_ctrl_c_while_a_result_is_waited_for() -> None:
    code = """
import os, signal, threading
from parallel_core import get_executor

def interrupt(parent):
    os.kill(parent, signal.SIGINT)
    return 5

with get_executor(2) as executor:
    executor.submit(abs, -1).result()
    future = executor.submit(interrupt, os.getpid())
    try:
        threading.Event().wait(30)
    except KeyboardInterrupt:
        print("interrupted", future.result(), executor.submit(abs, -2).result())
"""
    done = run_script(code)
    assert (done.stdout, done.stderr) == ("interrupted 5 2\n", "")


def test_in_a_forked_child(executor: Executor) -> None:
    assert executor.submit(abs, -1).result() == 1
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            executor.submit(abs, -2)
        except RuntimeError as error:
            os.write(writer, str(error).encode())
            executor.shutdown()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        assert "of which this one is a fork" in pipe.read()
    os.waitpid(child, 0)
    assert executor.submit(abs, -3).result() == 3


def test_asyncio_runs_in_it(executor: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, abs, -n) for n in range(20)))

    assert asyncio.run(main()) == list(range(20))


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"return_as": "list"}, TypeError, "get_executor has no parameter 'return_as'"),
        ({"on_error": "skip"}, TypeError, "each future has its own result or exception"),
        ({"seed": 1}, TypeError, "'seed', which is about a call: tasks have no position here"),
        ({"backend": "nonsense"}, ValueError, "unknown backend 'nonsense'"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_parameters_that_make_no_sense(
    params: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        get_executor(**params)


def test_what_surrounds_it_says_how_many(executor: Executor) -> None:
    with parallel_config(n_jobs=3):
        assert get_executor()._max_workers == 3
    assert get_executor()._max_workers == get_executor(-1)._max_workers >= 1
    with pytest.raises(TypeError, match="takes a function and its arguments, not 5"):
        executor.submit(5)  # type: ignore[arg-type]
    assert {future.result() for future in as_completed([executor.submit(abs, -1)])} == {1}


def draws() -> bool:
    with get_executor(1) as executor:
        futures = [executor.submit(rng) for _ in range(2)]
        kinds = [type(future.exception(60)) for future in futures]
    return kinds == [RuntimeError] * 2 and rng() is not None


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_one_within_a_seeded_task_repeats_no_stream(backend: str) -> None:
    assert Parallel(2, backend, seed=1)(delayed(draws)() for _ in range(2)) == [True] * 2


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_each_call_of_a_chunk_has_its_own_output(backend: str) -> None:
    with get_executor(2, backend=backend, output="capture") as executor:
        assert executor.submit(print, "one").result() == TaskOutput(None, "one\n", "")
        found = list(executor.map(print, "abc", chunksize=2))
        assert [output.stdout for output in found] == ["a\n", "b\n", "c\n"]
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(print, "abc", chunksize=0)
