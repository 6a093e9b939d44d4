"""What rank 0 of an MPI program does in tests: checks, each of which is a test of `test_mpi`.

It prints a line of JSON for each: its name, and what went wrong or nothing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from parallel_core import (
    InitializerError,
    Parallel,
    TaskTimeoutError,
    WorkerPool,
    delayed,
    effective_n_jobs,
    parallel_config,
    rng,
    this_worker,
)

CHECKS: dict[str, Callable[[], None]] = {}
SIZE = 3
IS_OVER_MESSAGES = os.environ.get("PARALLEL_CORE_MPI_LINK") == "messages"
IS_LENT = "mpi4py.futures" in sys.modules


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def call(tasks: Any, **options: Any) -> Any:
    return Parallel(backend="mpi", **options)(tasks)


def where(x: int) -> tuple[int, int, int]:
    from mpi4py import MPI

    time.sleep(0.02)
    return x, MPI.COMM_WORLD.Get_rank(), this_worker().id


@check
def tasks_run_in_the_other_ranks() -> None:
    got = call((delayed(where)(x) for x in range(40)), batch_size=1)
    assert [x for x, _, _ in got] == list(range(40))
    assert {rank for _, rank, _ in got} == {1, 2}
    assert all(rank == worker for _, rank, worker in got)


@check
def all_ranks_are_taken_unless_told_otherwise() -> None:
    assert effective_n_jobs(-1) >= 1
    with parallel_config(backend="mpi"):
        assert effective_n_jobs(-1) == effective_n_jobs(None) == SIZE - 1
        assert effective_n_jobs(-2) == 1
        assert Parallel()(delayed(abs)(-x) for x in range(5)) == list(range(5))


@check
def one_job_is_in_a_rank() -> None:
    (got,) = call([delayed(os.getpid)()], n_jobs=1)
    assert got != os.getpid()


@check
def more_jobs_than_ranks_are_refused() -> None:
    for make in (
        lambda: call([delayed(abs)(1)], n_jobs=3),
        lambda: WorkerPool(3, start_method="mpi"),
    ):
        with pytest.raises(ValueError, match=r"n_jobs=3.* 2 ranks .*-n 4"):
            make()


@check
def functions_of_the_script_need_no_import() -> None:
    offset = 3
    assert call(delayed(lambda x: x + offset)(x) for x in range(500)) == list(range(3, 503))


def fail(x: int) -> int:
    if x == 7:
        raise KeyError("seven")
    return x


@check
def an_error_has_the_traceback_of_the_rank() -> None:
    with pytest.raises(KeyError) as raised:
        call(delayed(fail)(x) for x in range(20))
    assert "in fail" in str(raised.value.__cause__)
    got = call((delayed(fail)(x) for x in range(20)), on_error="return")
    assert isinstance(got[7], KeyError) and got[:7] == list(range(7))


def fail_at_first(path: str, x: int) -> int:
    if x == 3 and not os.path.exists(path):
        open(path, "w").close()
        raise OSError("not yet")
    return x


@check
def tasks_are_tried_again() -> None:
    path = os.path.abspath("tried")
    got = call((delayed(fail_at_first)(path, x) for x in range(9)), retries=1, retry_on=OSError)
    assert got == list(range(9))


@check
def what_tasks_print_is_captured_and_shown() -> None:
    call(delayed(print)("printed", x) for x in range(3))
    got = call((delayed(print)("line", x) for x in range(50)), output="capture")
    assert [one.stdout for one in got] == [f"line {x}\n" for x in range(50)]


@check
def seeds_do_not_depend_on_the_backend() -> None:
    def draw() -> float:
        return float(rng().random())

    ours = call((delayed(draw)() for _ in range(20)), seed=5)
    here = Parallel(1, "sequential", seed=5)(delayed(draw)() for _ in range(20))
    assert ours == here


def prepare(text: str) -> None:
    os.environ["PREPARED_BY_TEST"] = text


def variable(name: str) -> str | None:
    time.sleep(0.01)
    return os.environ.get(name)


def fail_to_prepare() -> None:
    raise LookupError("nothing there")


@check
def an_initializer_runs_in_each_rank() -> None:
    got = call(
        (delayed(variable)("PREPARED_BY_TEST") for _ in range(8)),
        initializer=prepare,
        initargs=("yes",),
    )
    assert got == ["yes"] * 8


@check
def an_initializer_that_raises_ends_the_call_alone() -> None:
    with pytest.raises(InitializerError, match="LookupError"):
        call((delayed(abs)(x) for x in range(4)), initializer=fail_to_prepare)
    assert call(delayed(abs)(x) for x in range(4)) == list(range(4))


@check
def a_task_over_its_time_is_stopped_and_the_rank_stays() -> None:
    times = [0.0] * 5 + [60.0] + [0.0] * 5
    got = call((delayed(time.sleep)(x) for x in times), timeout=0.5, on_error="return")
    assert isinstance(got[5], TaskTimeoutError), got
    assert [value for index, value in enumerate(got) if index != 5] == [None] * 10
    assert {rank for _, rank, _ in call((delayed(where)(x) for x in range(20)), batch_size=1)} == {
        1,
        2,
    }


@check
def what_still_runs_is_interrupted_when_a_call_ends() -> None:
    def work(x: int) -> None:
        if x:
            raise ZeroDivisionError
        time.sleep(60)

    with pytest.raises(ZeroDivisionError):
        call((delayed(work)(x) for x in range(2)), batch_size=1)
    assert {rank for _, rank, _ in call((delayed(where)(x) for x in range(20)), batch_size=1)} == {
        1,
        2,
    }


@check
def a_rank_without_work_takes_what_another_has_not_begun() -> None:
    def work(x: int) -> int:
        time.sleep(1.0 if x == 0 else 0.01)
        return this_worker().id

    got = call((delayed(work)(x) for x in range(40)), batch_size=20)
    assert len(set(got[:20])) == 2, got


def total(array: np.ndarray[Any, Any]) -> tuple[float, str, bool]:
    return float(array.sum()), type(array).__name__, array.flags.writeable


@check
def an_array_is_shared_by_ranks_of_a_host() -> None:
    array = np.arange(1 << 20, dtype=float)
    got = call(delayed(total)(array) for _ in range(6))
    assert {value for value, _, _ in got} == {float(array.sum())}
    if not IS_OVER_MESSAGES:
        assert {(kind, writeable) for _, kind, writeable in got} == {("memmap", False)}


@check
def an_array_that_was_changed_is_not_seen_as_it_was() -> None:
    array = np.zeros(1 << 20)
    for number in range(4):
        array[:] = number
        got = call(delayed(total)(array) for _ in range(4))
        assert {value for value, _, _ in got} == {float(number << 20)}


@check
def large_results_arrive() -> None:
    def make(x: int) -> np.ndarray[Any, Any]:
        return np.full(1 << 21, x, float)

    got = call(delayed(make)(x) for x in range(6))
    assert [(one[0], one[-1], one.shape) for one in got] == [(x, x, (1 << 21,)) for x in range(6)]


@check
def large_arguments_and_results_cross() -> None:
    def double(data: bytes) -> bytes:
        return data * 2

    given = [bytes([x]) * 3_000_000 for x in range(8)]
    assert call((delayed(double)(data) for data in given), batch_size=1) == [
        data * 2 for data in given
    ]


@check
def results_come_as_they_are_ready() -> None:
    got = call((delayed(fail)(x) for x in (1, 2, 3)), return_as="generator")
    assert list(got) == [1, 2, 3]
    unordered = call((delayed(fail)(x) for x in (1, 2, 3)), return_as="generator_unordered")
    assert sorted(unordered) == [1, 2, 3]


@check
def a_generator_may_be_left() -> None:
    got = call((delayed(where)(x) for x in range(100)), return_as="generator", batch_size=1)
    assert next(got)[0] == 0
    got.close()
    assert call(delayed(abs)(x) for x in range(4)) == list(range(4))


@check
def tasks_may_make_calls_of_their_own() -> None:
    def inner(x: int) -> list[int]:
        return Parallel(2)(delayed(abs)(y) for y in range(x))

    assert call(delayed(inner)(x) for x in range(4)) == [list(range(x)) for x in range(4)]


@check
def only_rank_zero_has_ranks() -> None:
    def inner() -> str:
        try:
            Parallel(backend="mpi")([delayed(abs)(1)])
        except RuntimeError as error:
            return str(error)
        return ""

    for said in call([delayed(inner)()]):
        assert "rank 0 alone" in said, said


@check
def ranks_are_replaced_by_themselves() -> None:
    got = call((delayed(where)(x) for x in range(9)), worker_lifespan=2, batch_size=1)
    assert [x for x, _, _ in got] == list(range(9))


@check
def variables_follow_and_those_of_the_rank_stay() -> None:
    names = [name for name in os.environ if name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")]
    os.environ["CHANGED_BY_TEST"] = "1"
    assert set(call(delayed(variable)("CHANGED_BY_TEST") for _ in range(6))) == {"1"}
    del os.environ["CHANGED_BY_TEST"]
    assert set(call(delayed(variable)("CHANGED_BY_TEST") for _ in range(6))) == {None}
    for name in names:
        got = call((delayed(variable)(name) for _ in range(20)), batch_size=1)
        assert "0" not in got


@check
def each_slot_has_variables_of_its_own() -> None:
    def look(x: int) -> str | None:
        time.sleep(0.02)
        return os.environ.get("OF_SLOT")

    got = call(
        (delayed(look)(x) for x in range(20)),
        n_jobs=2,
        batch_size=1,
        worker_env=[{"OF_SLOT": "a"}, {"OF_SLOT": "b"}],
    )
    assert set(got) == {"a", "b"}
    assert set(call(delayed(look)(x) for x in range(6))) == {None}


@check
def a_pool_has_workers_in_ranks() -> None:
    def begin(worker: int, state: dict[str, Any]) -> None:
        state["seen"] = 0

    def work(worker: int, state: dict[str, Any], x: int) -> tuple[int, int]:
        state["seen"] += 1
        return worker, x

    def end(worker: int, state: dict[str, Any]) -> tuple[int, int]:
        return worker, state["seen"]

    with WorkerPool(2, start_method="mpi", pass_worker_id=True, use_worker_state=True) as pool:
        got = pool.map(work, range(30), worker_init=begin, worker_exit=end, chunk_size=1)
        exits = dict(pool.get_exit_results())
    assert [x for _, x in got] == list(range(30))
    assert set(exits) <= {1, 2} and sum(exits.values()) == 30
    with WorkerPool(start_method="mpi") as pool:
        assert pool.map(abs, range(10)) == list(range(10))


@check
def calls_of_two_threads_end() -> None:
    found: list[Any] = []

    def run() -> None:
        with warnings.catch_warnings():  # one of them gets threads where the other has all ranks
            warnings.simplefilter("ignore")
            found.append(call(delayed(abs)(x) for x in range(300)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(300))] * 2


@check
def a_block_keeps_its_ranks() -> None:
    with Parallel(backend="mpi") as parallel:
        for number in range(20):
            assert parallel(delayed(pow)(x, 2) for x in range(number)) == [
                x * x for x in range(number)
            ]


def main(names: list[str]) -> None:
    for name in names or list(CHECKS):
        try:
            CHECKS[name]()
            wrong = ""
        except BaseException:
            wrong = traceback.format_exc()
        print("\n" + json.dumps({"check": name, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
