"""What `benchmarks.chaos` has found, each as small as it can be."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import Parallel, delayed, shutdown_workers
from parallel_core.backends.base import CallTerms
from parallel_core.backends.options import WorkerOptions
from parallel_core.backends.processes import ProcessesBackend
from parallel_core.errors import WorkerDiedError
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definitions
from parallel_core.serialization.encoding import BatchBuilder
from parallel_core.workers.messages import AfterFailure
from waiting_tasks import die_from_the_third_on, die_once
from watching import running, some, wait_until

pytestmark = pytest.mark.warm_workers


def refuse(x: int) -> int:
    raise ValueError(x)


def same(x: int) -> int:
    return x


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_consumer_that_is_faster_than_the_end_of_a_batch(return_as: str) -> None:
    """A failure is told at once, and taken, before its batch is over: that batch still counts."""
    parallel = Parallel(2, return_as=return_as, pre_dispatch=1, batch_size=1, on_error="return")
    for _ in range(5):
        assert len(list(parallel(delayed(refuse)(x) for x in range(50)))) == 50


def dies_in_its_first_process(folder: str, times: int) -> None:
    with Path(folder, "births").open("ab") as file:
        file.write(b".")
    if Path(folder, "births").stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("backend", some(["processes", "multiprocessing"]))
def test_a_worker_that_dies_before_it_is_ready_is_replaced(backend: str, tmp_path: Path) -> None:
    parallel = Parallel(
        2, backend, initializer=dies_in_its_first_process, initargs=(str(tmp_path), 2)
    )
    assert parallel(delayed(same)(x) for x in range(40)) == list(range(40))


def test_workers_that_never_get_ready_end_the_call(tmp_path: Path) -> None:
    parallel = Parallel(
        2, initializer=dies_in_its_first_process, initargs=(str(tmp_path), 1000), retries=5
    )
    with pytest.raises(WorkerDiedError, match="before it was ready"):
        parallel(delayed(same)(x) for x in range(40))
    assert (tmp_path / "births").stat().st_size <= 8


def test_a_call_goes_on_without_a_worker_that_cannot_be_replaced(tmp_path: Path) -> None:
    options: dict[str, Any] = {"retries": 50, "retry_backoff": 0.0, "batch_size": 1}
    with Parallel(
        2, initializer=die_from_the_third_on, initargs=(str(tmp_path),), **options
    ) as parallel:
        with pytest.warns(RuntimeWarning, match=r"before it was ready.*with 1 of 2 workers"):
            got = parallel(delayed(die_once)(str(tmp_path), x) for x in range(20))
        assert got == list(range(20))
        assert (tmp_path / "births").stat().st_size == 6
        with pytest.raises(WorkerDiedError, match="before it was ready"):
            parallel(delayed(os._exit)(1) for _ in range(60))


def stay(x: int) -> None:
    time.sleep(300)


def test_a_worker_that_is_gone_when_it_is_told_of_a_closed_object() -> None:
    """It is found gone before the new batch has come to it; the one that it had is not lost."""
    definitions = Definitions(frozenset())
    session: Any = ProcessesBackend().open(1, 1, WorkerOptions())

    def batch(position: int) -> Batch:
        builder = BatchBuilder(definitions)
        builder.begin(position)
        builder.add(stay, (position,), {})
        return builder.finish(1)

    try:
        session.begin(CallTerms(definitions.call, after_failure=AfterFailure.CARRY_ON))
        session.submit(batch(0))
        (worker,) = session._workers.all
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not running(worker.pid), "the worker is dead")
        worker.to_forget.append("a shared object")
        session.submit(batch(1))
        (completion,) = session.wait(10)
        told = [*completion.unrun, *completion.failures]
        assert completion.batch.start == 0 and completion.finished and told
    finally:
        session.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_a_context_leave_no_pipe_behind(method: str) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    def call(n_jobs: int) -> None:
        parallel = Parallel(n_jobs, get_context(method))
        assert parallel(delayed(same)(x) for x in range(9)) == list(range(9))
        shutdown_workers()
        gc.collect()

    call(2)
    before = count()
    call(5)  # multiprocessing keeps what ended until it starts the next one
    assert count() <= before


def test_a_block_goes_on_after_a_call_that_was_cut_short_on_loky() -> None:
    """What was cut short took the executor with it."""

    def work(x: int) -> int:
        time.sleep(300 if x == 5 else 0)
        return x

    with Parallel(2, "loky", batch_size=1, stop_when=lambda x: x == 3) as parallel:
        assert 3 in parallel(delayed(work)(x) for x in (1, 5, 3, 5, 5))
        assert parallel(delayed(same)(x) for x in (7, 8, 9)) == [7, 8, 9]


def dies_once(folder: str, x: int) -> int:
    path = Path(folder, str(x))
    if x % 10 == 5 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_two_calls_on_loky_survive_its_broken_executor(tmp_path: Path) -> None:
    got: dict[int, Any] = {}

    def call(number: int) -> None:
        parallel = Parallel(2, "loky", batch_size=1, retries=20, retry_backoff=0)
        positions = range(100 * number, 100 * number + 20)
        try:
            got[number] = parallel(delayed(dies_once)(str(tmp_path), x) for x in positions)
        except BaseException as error:
            got[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: list(range(100 * number, 100 * number + 20)) for number in (1, 2)}


def test_arrays_of_tasks_that_loky_runs_again(tmp_path: Path) -> None:
    def work(x: int, array: Any) -> int:
        return dies_once(str(tmp_path), x) + int(array.sum())

    parallel = Parallel(2, "loky", batch_size=1, retries=20, retry_backoff=0)
    got = parallel(delayed(work)(x, np.full(200_000, x)) for x in range(20))
    assert got == [200_001 * x for x in range(20)]


def test_tasks_that_were_cancelled_do_not_keep_lokys_executor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its manager would log them as an error; a log that is kept would keep its semaphores."""

    def stay(x: int) -> int:
        time.sleep(300 if x else 0)
        return x

    first, second = (
        Parallel(2, "loky", "generator", batch_size=1, pre_dispatch="all")(
            delayed(stay)(x) for x in range(20)
        )
        for _ in range(2)
    )
    assert next(first) == 0
    second.close()  # cancels what is queued, since the executor is in use
    first.close()  # kills it
    assert not caplog.records


def test_a_stopped_worker_of_lokys_does_not_keep_others_waiting() -> None:
    """Whoever has stopped it may be who waits for the end of all."""
    pids = set(Parallel(2, backend="loky")(delayed(os.getpid)() for _ in range(4)))
    os.kill(min(pids), signal.SIGSTOP)
    shutdown_workers()
    assert not any(map(running, pids))
