"""Workers that have grown or grown old are replaced; dispatch holds back for want of memory."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from simple_tasks import grow, pid_of, slept

from parallel_core import LowMemoryError, Parallel, delayed
from parallel_core.dispatch import memory
from parallel_core.dispatch.memory import MemoryGate, free_memory
from watching import running, wait_until

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]


# --- lifespan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize(
    ("backend", "lifespan", "batch_size"),
    [
        pytest.param("processes", 1, 1, marks=pytest.mark.core),
        ("processes", 5, "auto"),
        ("processes", 5, 7),
        ("processes", 1000, "auto"),
        ("multiprocessing", 5, "auto"),
    ],
)
def test_no_worker_runs_more_tasks_than_its_lifespan(
    backend: str, lifespan: int, batch_size: Any, return_as: str
) -> None:
    count = 12 if lifespan == 1 else 30
    parallel = Parallel(2, backend, return_as, batch_size=batch_size, worker_lifespan=lifespan)
    got = Counter(parallel(delayed(pid_of)(x) for x in range(count)))
    assert sum(got.values()) == count
    assert max(got.values()) <= lifespan
    if lifespan == 1000:
        assert len(got) <= 2


def test_order_and_exactly_once_over_many_lives() -> None:
    parallel = Parallel(2, worker_lifespan=3, batch_size=10)
    assert parallel(delayed(abs)(-x) for x in range(40)) == list(range(40))


def test_a_lifespan_counts_over_calls() -> None:
    with Parallel(2, worker_lifespan=6, batch_size=1) as parallel:
        got = Counter(pid for _ in range(8) for pid in parallel(map(delayed(pid_of), range(4))))
    assert sum(got.values()) == 32 and max(got.values()) <= 6


def test_the_next_call_has_no_lifespan() -> None:
    Parallel(2, worker_lifespan=50)(delayed(pid_of)(x) for x in range(4))
    got = Counter(Parallel(2)(delayed(pid_of)(x) for x in range(500)))
    assert len(got) <= 2


def test_a_worker_that_retires_runs_its_exit_handlers(tmp_path: Any) -> None:
    def register(x: int) -> int:
        import atexit

        atexit.register((tmp_path / str(x)).touch)
        return x

    parallel = Parallel(2, worker_lifespan=1, batch_size=1)
    assert parallel(delayed(register)(x) for x in range(4)) == [0, 1, 2, 3]
    wait_until(lambda: len(list(tmp_path.iterdir())) >= 2, "retired workers have left in peace")


def test_retired_workers_that_do_not_leave_are_gone_when_the_call_is_over() -> None:
    def hang(x: int) -> int:
        threading.Thread(target=time.sleep, args=(3600,)).start()
        return os.getpid()

    got = Parallel(2, worker_lifespan=1)(delayed(hang)(x) for x in range(4))
    assert len(set(got)) == 4 and not [pid for pid in got if running(pid)]


# --- memory of a worker ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "batch_size"),
    [("processes", "auto"), ("processes", 1), ("processes", 40), ("multiprocessing", "auto")],
)
def test_a_worker_that_has_grown_is_replaced(backend: str, batch_size: Any) -> None:
    """Each task keeps 20 MB; a worker starts with some 15 MB."""
    parallel = Parallel(2, backend, batch_size=batch_size, max_worker_memory="200M")
    got = Counter(parallel(delayed(grow)(x, 20_000_000) for x in range(40)))
    assert sum(got.values()) == 40
    assert len(got) >= 3
    # It looks every 20 ms, in which a few more tasks may run.
    assert max(got.values()) <= 20


def test_a_limit_that_every_worker_exceeds_lets_every_task_run() -> None:
    parallel = Parallel(2, max_worker_memory=1000, batch_size=1)
    assert parallel(delayed(abs)(-x) for x in range(12)) == list(range(12))
    parallel = Parallel(2, max_worker_memory=1000, return_as="generator")
    assert list(parallel(delayed(abs)(-x) for x in range(12))) == list(range(12))


def test_workers_within_the_limit_stay() -> None:
    got = Counter(Parallel(2, max_worker_memory="2G")(delayed(pid_of)(x) for x in range(300)))
    assert len(got) <= 2


# --- bytes ahead ----------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_bytes_ahead_are_bounded(return_as: str) -> None:
    yielded = 0
    most_ahead = 0
    parallel = Parallel(
        2, None, return_as, pre_dispatch="all", pre_dispatch_nbytes="300K", batch_size=1
    )

    def tasks() -> Iterator[Any]:
        nonlocal yielded, most_ahead
        for _ in range(60):
            yielded += 1
            most_ahead = max(most_ahead, yielded - parallel.n_completed_tasks)
            yield delayed(len)(b"\0" * 100_000)

    assert list(parallel(tasks())) == [100_000] * 60
    assert most_ahead <= 5


def test_a_task_larger_than_the_limit_has_its_turn() -> None:
    parallel = Parallel(2, pre_dispatch_nbytes=10)
    assert parallel(delayed(len)(b"\0" * 100_000) for _ in range(8)) == [100_000] * 8


def test_bytes_ahead_are_counted_right_over_failures() -> None:
    """Were they not, the call would come to a halt."""

    def work(x: int, data: bytes) -> int:
        if x % 10 == 3:
            os._exit(1)
        if x % 10 == 7:
            raise ValueError(x)
        return len(data)

    parallel = Parallel(
        2, pre_dispatch_nbytes="50K", on_error="skip", retries=1, retry_backoff=0.001
    )
    got = parallel(delayed(work)(x, b"\0" * (10_000 + x)) for x in range(30))
    assert got == [10_000 + x for x in range(30) if x % 10 not in (3, 7)]


# --- memory of the machine ------------------------------------------------------------------------


@pytest.mark.core
def test_free_memory_is_what_the_system_says() -> None:
    free = free_memory()
    assert free is not None
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < free < total


@pytest.mark.parametrize("backend", [*OWN, "loky", "threading", "sequential"])
def test_too_little_memory_for_too_long(backend: str) -> None:
    with pytest.raises(LowMemoryError, match=r"min_free_memory=1024\.0 TiB") as caught:
        Parallel(2, backend, min_free_memory="1024T", low_memory_timeout=0.2)(
            delayed(abs)(x) for x in range(10)
        )
    assert isinstance(caught.value, MemoryError)
    assert dict(caught.value.results) == {}  # type: ignore[attr-defined]  # born with the end
    assert Parallel(2, backend, min_free_memory="1M")(delayed(abs)(-x) for x in range(10)) == list(
        range(10)
    )


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_dispatch_goes_on_when_there_is_memory_again(
    backend: str, return_as: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's figure is replaced here: this machine's memory is not ours to fill."""
    free = 10
    started: list[int] = []
    monkeypatch.setattr(memory, "free_memory", lambda: free)

    def tasks() -> Iterator[Any]:
        for x in range(10):
            started.append(x)
            yield delayed(abs)(-x)

    def relieve() -> None:
        nonlocal free
        time.sleep(0.2)
        assert len(started) <= 4, "nothing is handed over meanwhile"
        free = 1000

    thread = threading.Thread(target=relieve)
    thread.start()
    parallel = Parallel(2, backend, return_as, min_free_memory=100, batch_size=1)
    assert list(parallel(tasks())) == list(range(10))
    thread.join()


@pytest.mark.core
def test_a_gate_opens_and_its_patience_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1000
    now = 100.0
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    monkeypatch.setattr(memory.time, "monotonic", lambda: now)
    gate = MemoryGate(100, 10.0)
    assert not gate.hold(0)
    free, now = 99, now + 0.01
    assert not gate.hold(0), "it looked a moment ago"
    now += 1
    assert gate.hold(0)
    free, now = 100, now + 9
    assert not gate.hold(0)
    free, now = 0, now + 9
    assert gate.hold(0)
    now += 9
    assert gate.hold(0)
    now += 1000
    assert gate.hold(1), "what is at work may free memory"
    now += 9
    assert gate.hold(0)
    now += 11
    with pytest.raises(LowMemoryError, match="less free"):
        gate.hold(0)


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_memory_that_runs_short_when_all_is_handed_over(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 40
    monkeypatch.setattr(memory, "free_memory", lambda: free)

    def tasks() -> Iterator[Any]:
        nonlocal free
        for x in range(2):
            yield delayed(slept)(0.3, x)
            time.sleep(0.01)  # so that it is handed over before the next is pulled
        free = 0

    parallel = Parallel(
        2, backend, min_free_memory="1G", low_memory_timeout=0.1, batch_size=1, pre_dispatch=2
    )
    assert parallel(tasks()) == [0, 1]


def test_a_system_that_tells_nothing_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    assert not MemoryGate(1 << 60, 1.0).hold(0)
