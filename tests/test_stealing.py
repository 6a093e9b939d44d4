"""What a busy worker has not started goes to one that has nothing to do; nothing runs twice."""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from parallel_core import Parallel, delayed, shutdown_workers
from parallel_core.backends.channel_session import ChannelSession
from parallel_core.backends.placement import choose_victim, load, tasks_to_leave
from parallel_core.backends.thread_share import BatchInWork, Form, Share
from parallel_core.serialization.batch import Batch
from parallel_core.workers import barrier
from parallel_core.workers.board import STARTED, Board
from parallel_core.workers.sent import SentBatch
from parallel_core.workers.worker import Worker
from waiting_tasks import take_turns
from watching import LIMIT as LONG
from watching import wait_until

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core
OWN = ["processes", "multiprocessing"]
RETURNS = ["list", "generator", "generator_unordered"]


def note(folder: Path, x: int, waits: frozenset[int], others: int) -> int:
    """Say that task `x` ran; one that `waits` ends only when `others` have run."""
    with open(folder / str(x), "a") as file:
        file.write("x")
    if x in waits:
        limit = time.monotonic() + LONG
        while len(os.listdir(folder)) < others:
            assert time.monotonic() < limit, os.listdir(folder)
            time.sleep(0.002)
    return x


@core
@pytest.mark.parametrize("backend", [*OWN, "threading"])
@pytest.mark.parametrize("return_as", RETURNS)
def test_no_task_waits_behind_a_slow_one(tmp_path: Path, backend: str, return_as: str) -> None:
    waits = frozenset({3})
    parallel = Parallel(2, backend, return_as, batch_size=20)
    got = parallel(delayed(note)(tmp_path, x, waits, 60) for x in range(60))
    assert sorted(got) == list(range(60))
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}


@core
@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_nor_behind_two(tmp_path: Path, backend: str) -> None:
    """All workers but one are on slow tasks, of which one stands behind the other at first."""
    waits = frozenset({3, 4})
    got = Parallel(3, backend, batch_size=30)(
        delayed(note)(tmp_path, x, waits, 30) for x in range(30)
    )
    assert got == list(range(30))


ORDERS = sorted(set(itertools.permutations(["long", "short", "quick", "quick"])))


@pytest.mark.parametrize("backend", [*OWN, "loky"])
@pytest.mark.parametrize("return_as", RETURNS)
def test_nor_where_workers_are_cold(tmp_path: Path, backend: str, return_as: str) -> None:
    orders = ORDERS if backend in OWN else ORDERS[::4]  # loky's are slow to start
    for number, kinds in enumerate(orders):
        shutdown_workers()
        folder = tmp_path / str(number)
        folder.mkdir()
        parallel = Parallel(2, backend, return_as)
        got = parallel(delayed(take_turns)(folder, kind, x) for x, kind in enumerate(kinds))
        assert sorted(got) == sorted(kinds)


@pytest.mark.parametrize("backend", [*OWN, "threading"])
@pytest.mark.parametrize("most", [1, 2])
def test_nor_where_as_many_are_ahead_as_may_be(tmp_path: Path, backend: str, most: int) -> None:
    waits = frozenset({0})
    parallel = Parallel(2, backend, batch_size=20 // most, pre_dispatch=most)
    parallel([delayed(abs)(-1)] * 40)  # so that both workers have answered, and take two
    got = parallel(delayed(note)(tmp_path, x, waits, 20) for x in range(20))
    assert got == list(range(20))


def test_tasks_that_went_to_no_worker_do_not_count(tmp_path: Path) -> None:
    """They were completed, but never dispatched."""
    lock = threading.Lock()
    tasks = [delayed(abs)(lock) for _ in range(20)]
    tasks += [delayed(note)(tmp_path, x, frozenset({3}), 40) for x in range(40)]
    got = Parallel(2, batch_size=20, on_error="skip")(tasks)
    assert got == list(range(40))


def test_large_arguments_are_not_passed_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each move sends them again, and while one worker reads them the next has nothing to do."""
    submitted = []
    submit = ChannelSession.submit

    def counted(self: ChannelSession, batch: Batch) -> None:
        submitted.append(batch.start)
        submit(self, batch)

    monkeypatch.setattr(ChannelSession, "submit", counted)
    parallel = Parallel(4)
    parallel(delayed(time.sleep)(0.02) for _ in range(8))
    submitted.clear()
    large = [1.5 * x for x in range(400_000)]
    assert parallel(delayed(len)(large) for _ in range(2)) == [len(large)] * 2
    assert len(submitted) <= 4


def test_without_the_barrier_the_answer_gives_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier, "for_all", lambda: False)
    with Parallel(2, batch_size=10, return_as="generator_unordered") as parallel:
        parallel = Parallel(2, batch_size=50)
        for _ in range(20):
            durations = [0.0] * 49 + [0.02] + [0.0] * 10
            parallel(delayed(time.sleep)(seconds) for seconds in durations)
    folder = tmp_path / "ran"
    folder.mkdir()
    got = Parallel(2, batch_size=20)(delayed(note)(folder, x, frozenset({3}), 4) for x in range(60))
    assert got == list(range(60))
    assert {path.read_text() for path in folder.iterdir()} == {"x"}


@core
def test_a_thread_that_is_free_need_not_wait_for_the_iterable(tmp_path: Path) -> None:
    """One thread is within the generator until all tasks that were yielded have run."""

    def tasks() -> Iterator[Any]:
        for x in range(20):
            yield delayed(note)(tmp_path, x, frozenset({0}), 20)
        wait_until(lambda: len(os.listdir(tmp_path)) == 20, "all had run")
        yield delayed(note)(tmp_path, 20, frozenset(), 0)

    parallel = Parallel(3, "threading", batch_size=20, pre_dispatch=3)
    assert parallel(tasks()) == list(range(21))


@pytest.mark.parametrize("backend", [*OWN, "threading"])
def test_random_durations_run_once(tmp_path: Path, backend: str) -> None:
    rng = random.Random(backend)
    path = tmp_path / "ran"

    def work(x: int, seconds: float) -> int:
        with open(path, "ab") as file:
            file.write(b"%d\n" % x)
        time.sleep(seconds)
        return x

    for _ in range(6):
        path.write_bytes(b"")
        size = rng.choice([5, 40, 200])
        durations = [rng.choice([0, 0, 0, 1e-4, 0.01]) for _ in range(300)]
        parallel = Parallel(3, backend, batch_size=size)
        assert parallel(delayed(work)(*entry) for entry in enumerate(durations)) == [*range(300)]
        assert Counter(map(int, path.read_text().split())) == Counter(range(300))


@pytest.mark.parametrize("backend", OWN)
def test_a_worker_that_dies_after_its_tasks_were_taken(tmp_path: Path, backend: str) -> None:
    def work(x: int) -> int:
        note(tmp_path, x, frozenset({3}), 60)
        if x == 3:
            os._exit(7)
        return x

    parallel = Parallel(2, backend, batch_size=20, on_error="skip")
    assert parallel(delayed(work)(x) for x in range(60)) == [x for x in range(60) if x != 3]
    twice = {int(path.name) for path in tmp_path.iterdir() if path.read_text() != "x"}
    assert twice <= {0, 1, 2}, "finished, and not sent yet"


def test_the_lifespan_counts_tasks_that_were_run() -> None:
    """40 tasks in a batch of which most were taken back use up no worker of ten tasks."""
    parallel = Parallel(2, batch_size=10, worker_lifespan=10)
    durations = [0.1] + [0.0] * 39
    pids = parallel(delayed(pid_after)(seconds) for seconds in durations)
    assert max(Counter(pids).values()) <= 10


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_a_limit_is_raised_again(keep: int) -> None:
    """Many calls in a row on the same workers, each with something taken back."""
    shutdown_workers()
    durations = [0.03] + [0.0] * (20 + keep)
    for _ in range(10):
        parallel = Parallel(2, batch_size=len(durations))
        pids = parallel(delayed(pid_after)(seconds) for seconds in durations)
        assert len(pids) == len(durations)
    assert len(set(pids)) == 2, "both took part, so both could start tasks again"


# --- the parts ------------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("first", [0, 1, 2, 4, 5])
def test_a_batch_is_split(first: int) -> None:
    def tasks(batch: Batch) -> list[Any]:
        return [value for run in batch.runs for value in run[2]]

    batch = Batch(10, 5, [(0, 1, [0, 1, 2]), (1, -1, [b"3", b"4"])], {}, nbytes=101)
    batch.losses = 1
    rest = batch.split_off(first)
    assert (batch.start, batch.size) == (10, first)
    assert (rest.start, rest.size) == (10 + first, 5 - first)
    assert tasks(batch) + tasks(rest) == [0, 1, 2, b"3", b"4"]
    assert batch.nbytes + rest.nbytes == 101 and rest.losses == 1


@core
def test_shares() -> None:
    assert tasks_to_leave(1, 0.0, 1.0) == 0
    assert tasks_to_leave(7, 0.0, 1.0) == 3
    assert tasks_to_leave(7, 8.0, 1.0) == 0
    assert tasks_to_leave(7, 0.0, 0.0) is None
    assert tasks_to_leave(7, 0.001, 0.0) == 0


@core
def test_who_gets_a_batch_and_who_is_robbed() -> None:
    in_order = [(0, False, False), (1, True, False), (2, True, False), (1, False, False)]
    assert sorted(in_order, key=lambda one: load(*one)) == in_order
    assert load(3000, False, False) < load(0, True, True), "whatever there is behind it"
    candidates = [("few", 2, 0.0), ("many", 8, 0.0), ("none", 0, 9.0)]
    assert choose_victim(candidates, 5.0, 1.0) == ("many", 4, math.inf)
    slow = [*candidates, ("slow", 1, 20.0)]
    assert choose_victim(slow, 5.0, 1.0) == ("slow", 0, math.inf)
    victim, _, again = choose_victim(candidates, 5.0, 1e-6)
    assert victim is None and 5.0 < again < 5.1


@core
@pytest.mark.parametrize(("started", "waiting"), [(0, 2), (10, 2), (11, 2), (12, 1), (13, 0)])
def test_the_next_task_of_a_worker_is_not_waiting(started: int, waiting: int) -> None:
    """It may be reading it; numbers before those that it was sent may have been taken back."""
    board, descriptor = Board.make()
    os.close(descriptor)
    board.words[STARTED] = started
    sent = SentBatch(Batch(0, 3, [(0, 1, [0, 1, 2])], {}), 0, 10)
    worker = Worker.__new__(Worker)
    worker.board, worker.sent = board, deque([sent])
    assert worker.waiting(sent.at)[0] == waiting
    assert worker.has_begun == (started > 10)
    board.close()


@core
def test_tasks_are_taken_from_a_thread_that_takes_them_too() -> None:
    for _ in range(20):
        tasks = deque(range(5_000))
        share = Share(BatchInWork(Batch(0, 5_000, [], {})), Form(), tasks, 5_000)
        begun: list[int] = []

        def begin(tasks: deque[int] = tasks, begun: list[int] = begun) -> None:
            with suppress(IndexError):
                while True:
                    begun.append(tasks.popleft())

        thread = threading.Thread(target=begin)
        thread.start()
        parts = []
        while tasks:
            part = share.split(len(tasks) // 2)
            if part is not None:
                parts.append((part.end - len(part.tasks), list(part.tasks)))
        thread.join(LONG)
        for first, taken in parts:
            assert taken == list(range(first, first + len(taken)))
        assert sorted(begun + [x for _, taken in parts for x in taken]) == list(range(5_000))


def test_stress() -> None:
    from benchmarks import stealing as stress

    figures = stress.run(rounds=400, seed=1)
    assert figures.taken and figures.left, "both ways of giving back were taken"
    assert (figures.twice, figures.lost) == (0, 0)


def test_stress_as_workers_join_the_barriers() -> None:
    from benchmarks import stealing as stress

    figures = stress.run_joining(rounds=100, seed=1)
    assert figures.taken and (figures.twice, figures.lost) == (0, 0)
