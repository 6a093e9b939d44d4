"""What a failing task does to its call: `on_error`, retries, and what an error carries."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pickle
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import Parallel, TaskFailure, delayed
from parallel_core.backends.base import Session, WorkerOptions
from parallel_core.backends.processes import ProcessesBackend
from parallel_core.dispatch.policy import Action, Policy
from parallel_core.errors import (
    InitializerError,
    InvalidTaskError,
    JournalError,
    ParallelError,
    PreloadError,
    SerializationError,
    TaskExitError,
    WorkerDiedError,
)
from watching import some, wait_until

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]
ALL = [*OWN, "loky", "threading", "sequential"]
RETURNS = ["list", "generator", "generator_unordered"]


def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


class Refusing:
    """Pickles, unpickles, or neither."""

    def __init__(self, leg: str) -> None:
        self.leg = leg

    def __reduce__(self) -> Any:
        if self.leg == "out":
            raise RuntimeError("this goes nowhere")
        return refuse, (self.leg, os.getpid())


def refuse(leg: str, pid: int) -> Refusing:
    if os.getpid() != pid:
        raise RuntimeError("this arrives nowhere")
    return Refusing(leg)


def kind_of(value: Any) -> str:
    return type(value).__name__


def refusing_result(x: int, bad: tuple[int, ...], leg: str) -> Any:
    return Refusing(leg) if x in bad else x


def counted(folder: str, name: object) -> int:
    """Note one more run of a task, and return how many there have been."""
    path = Path(folder, str(name))
    with path.open("ab") as file:
        file.write(b".")
    return path.stat().st_size


def fails_before(folder: str, x: int, times: int, how: str) -> tuple[int, int]:
    runs = counted(folder, x)
    if runs <= times:
        if how == "raise":
            raise ConnectionError(f"try {runs}")
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))
    return x, runs


# --- on_error -------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", some(ALL))
def test_exceptions_in_the_place_of_results(backend: str, return_as: str) -> None:
    parallel = Parallel(2, backend=backend, return_as=return_as, on_error="return")
    got = list(parallel(delayed(odd_only)(x) for x in range(100)))
    if return_as == "generator_unordered":
        assert sorted(x for x in got if isinstance(x, int)) == list(range(1, 100, 2))
        assert sorted(int(str(x).split()[0]) for x in got if isinstance(x, ValueError)) == list(
            range(0, 100, 2)
        )
        return
    assert got[1::2] == list(range(1, 100, 2))
    assert [str(error) for error in got[::2]] == [f"{x} is even" for x in range(0, 100, 2)]
    assert {type(error) for error in got[::2]} == {ValueError}
    assert f"task 42 of the call: {__name__}.odd_only(42)" in got[42].__notes__


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", some(ALL))
def test_failures_that_are_left_out(backend: str, return_as: str) -> None:
    parallel = Parallel(2, backend=backend, return_as=return_as, on_error="skip")
    got = list(parallel(delayed(odd_only)(x) for x in range(101)))
    assert sorted(got) == list(range(1, 101, 2))
    if return_as != "generator_unordered":
        assert got == sorted(got)
    assert parallel.n_completed_tasks == 101


@pytest.mark.parametrize("backend", some(ALL))
def test_when_every_task_fails(backend: str) -> None:
    def fail(x: int) -> None:
        raise KeyError(x)

    got = Parallel(2, backend=backend, on_error="return")(delayed(fail)(x) for x in range(300))
    assert [error.args for error in got] == [(x,) for x in range(300)]
    assert Parallel(2, backend=backend, on_error="skip")(delayed(fail)(x) for x in range(9)) == []


@pytest.mark.parametrize("form", ["plain", "pickled", "kwargs", "method", "captures_mutable_state"])
@pytest.mark.parametrize("batch_size", ["auto", 1, 7, 1000])
def test_other_tasks_of_a_batch_go_on(form: str, batch_size: Any) -> None:
    seen: list[int] = []

    def plain(x: int) -> int:
        return odd_only(x)

    def pickled(values: list[int]) -> int:
        return odd_only(values[0])

    def captures_mutable_state(x: int) -> int:
        seen.append(x)
        assert seen == [x], "an earlier task has changed what this one captured"
        return odd_only(x)

    tasks: dict[str, Callable[[int], Any]] = {
        "plain": lambda x: delayed(plain)(x),
        "pickled": lambda x: delayed(pickled)([x]),
        "kwargs": lambda x: delayed(plain)(x=x),
        "method": lambda x: delayed(Odd(x).check)(),
        "captures_mutable_state": lambda x: delayed(captures_mutable_state)(x),
    }
    got = Parallel(2, batch_size=batch_size, on_error="return")(map(tasks[form], range(60)))
    assert got[1::2] == list(range(1, 60, 2))
    assert [str(error) for error in got[::2]] == [f"{x} is even" for x in range(0, 60, 2)]


class Odd:
    def __init__(self, x: int) -> None:
        self.x = x

    def check(self) -> int:
        return odd_only(self.x)


@pytest.mark.parametrize("backend", some(ALL))
def test_a_function_decides(backend: str) -> None:
    asked: list[TaskFailure] = []

    def decide(failure: TaskFailure) -> Any:
        asked.append(failure)
        return [failure.replace(-failure.position), "skip", "return"][failure.position // 2 % 3]

    got = Parallel(2, backend=backend, on_error=decide)(delayed(odd_only)(x) for x in range(6))
    assert got[:4] == [0, 1, 3, got[3]] and isinstance(got[3], ValueError) and got[4] == 5
    assert sorted(failure.position for failure in asked) == [0, 2, 4]
    assert {failure.attempts for failure in asked} == {1}
    assert {str(failure.error) for failure in asked} == {"0 is even", "2 is even", "4 is even"}


@pytest.mark.parametrize("backend", some(ALL))
def test_a_function_that_decides_to_raise(backend: str) -> None:
    with pytest.raises(ValueError, match=r"[024] is even") as caught:
        Parallel(2, backend=backend, on_error=lambda failure: "raise")(
            delayed(odd_only)(x) for x in range(6)
        )
    position = str(caught.value).split()[0]  # whichever failed first
    assert f"task {position} of the call" in caught.value.__notes__[0]


@pytest.mark.parametrize("backend", some(ALL))
def test_a_function_that_tries_again(backend: str, tmp_path: Path) -> None:
    def decide(failure: TaskFailure) -> str:
        return "retry" if failure.attempts < 4 else "raise"

    call = Parallel(2, backend=backend, on_error=decide, retry_backoff=0.001)
    got = call(delayed(fails_before)(str(tmp_path), x, x % 4, "raise") for x in range(12))
    assert got == [(x, x % 4 + 1) for x in range(12)]


@pytest.mark.parametrize("backend", some(ALL))
@pytest.mark.parametrize("answer", [None, "ignore", 3])
def test_a_function_that_decides_nothing(backend: str, answer: Any) -> None:
    with pytest.raises(TypeError, match=f"on_error must return 'raise'.*not {answer!r}"):
        Parallel(2, backend=backend, on_error=lambda failure: answer)(
            delayed(odd_only)(x) for x in range(6)
        )


@pytest.mark.parametrize("backend", some(ALL))
def test_a_function_that_raises_instead_of_deciding(backend: str) -> None:
    def decide(failure: TaskFailure) -> str:
        raise LookupError("what now?")

    with pytest.raises(LookupError, match="what now"):
        Parallel(2, backend=backend, on_error=decide)(delayed(odd_only)(x) for x in range(6))


@pytest.mark.parametrize("leg", ["out", "in"])
@pytest.mark.parametrize("batch_size", ["auto", 10])
@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
def test_arguments_that_fail_on_their_way(backend: str, batch_size: Any, leg: str) -> None:
    bad = (0, 13, 14, 39)
    parallel = Parallel(2, backend=backend, batch_size=batch_size, on_error="return")
    got = parallel(delayed(kind_of)(Refusing(leg) if x in bad else [x]) for x in range(40))
    for x in range(40):
        if x in bad:
            assert isinstance(got[x], SerializationError), got[x]
            assert f"task {x} of the call" in str(got[x]) and "nowhere" in str(got[x])
        else:
            assert got[x] == "list"


@pytest.mark.parametrize("leg", ["out", "in"])
@pytest.mark.parametrize("batch_size", ["auto", 10])
@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
def test_results_that_fail_on_their_way(backend: str, batch_size: Any, leg: str) -> None:
    bad = (0, 13, 14, 39)
    parallel = Parallel(2, backend=backend, batch_size=batch_size, on_error="return")
    got = parallel(delayed(refusing_result)(x, bad, leg) for x in range(40))
    for x in range(40):
        if x in bad:
            assert isinstance(got[x], SerializationError), got[x]
            assert "nowhere" in str(got[x])
        else:
            assert got[x] == x


def test_arrays_after_an_argument_that_does_not_pickle() -> None:
    """What the failed attempt had put aside must not go with the next task."""
    arrays = [np.full(300_000, float(x)) for x in range(6)]

    def total(array: Any, other: Any = None) -> float:
        return float(array.sum() + (0 if other is None else other.sum()))

    tasks = []
    for x, array in enumerate(arrays):
        tasks.append(delayed(total)([array, threading.Lock()] if x % 2 else array))
        tasks.append(delayed(total)(array, other=arrays[0]))
    got = Parallel(2, on_error="skip")(tasks)
    expected: list[float] = []
    for x in range(6):
        expected += [300_000.0 * x] if x % 2 == 0 else []
        expected.append(300_000.0 * x)
    assert got == expected


@pytest.mark.parametrize("backend", some(ALL))
def test_sys_exit_is_a_failure_like_others(backend: str) -> None:
    def leave(x: int) -> int:
        if x == 3:
            raise SystemExit(4)
        return x

    got = Parallel(2, backend=backend, on_error="return")(delayed(leave)(x) for x in range(6))
    assert isinstance(got[3], TaskExitError) and got[3].code == 4
    assert [*got[:3], *got[4:]] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("on_error", ["return", "skip", lambda failure: "skip"])
@pytest.mark.parametrize("backend", some(ALL))
def test_an_interrupt_is_no_failure(backend: str, on_error: Any) -> None:
    def interrupt(x: int) -> int:
        if x == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        Parallel(2, backend=backend, on_error=on_error)(delayed(interrupt)(x) for x in range(6))


@pytest.mark.parametrize("backend", some(ALL))
def test_what_is_no_task_ends_the_call_all_the_same(backend: str) -> None:
    with pytest.raises(InvalidTaskError):
        Parallel(2, backend=backend, on_error="skip")([delayed(abs)(1), 17, delayed(abs)(2)])


@pytest.mark.parametrize("backend", some(ALL))
def test_what_the_iterable_raises_ends_the_call_all_the_same(backend: str) -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        Parallel(2, backend=backend, on_error="skip")(tasks())


@pytest.mark.parametrize("return_as", RETURNS[1:])
@pytest.mark.parametrize("backend", some(ALL))
def test_pulling_ahead_stays_bounded_over_failures(backend: str, return_as: str) -> None:
    pulled = 0

    def tasks() -> Iterator[Any]:
        nonlocal pulled
        for x in itertools.count():
            pulled += 1
            yield delayed(odd_only)(x if x % 5 else 2 * x)

    parallel = Parallel(
        2, backend, return_as, batch_size=1, pre_dispatch=4, on_error="skip", retries=1
    )
    with parallel:
        results = parallel(tasks())
        for _ in range(50):
            next(results)
        time.sleep(0.1)
        now = pulled
        time.sleep(0.1)
        assert pulled == now
        assert pulled <= 2 * 50 + 60
        results.close()


# --- retries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", some(ALL))
def test_listed_exceptions_are_tried_again(backend: str, return_as: str, tmp_path: Path) -> None:
    parallel = Parallel(
        2, backend, return_as, retries=2, retry_on=ConnectionError, retry_backoff=0.001
    )
    tasks = (delayed(fails_before)(str(tmp_path), x, x % 3, "raise") for x in range(30))
    assert sorted(parallel(tasks)) == [(x, x % 3 + 1) for x in range(30)]


@pytest.mark.parametrize("backend", some(ALL))
def test_too_few_retries(backend: str, tmp_path: Path) -> None:
    parallel = Parallel(2, backend, retries=2, retry_on=(OSError, LookupError), retry_backoff=0.001)
    with pytest.raises(ConnectionError, match="try 3"):
        parallel(delayed(fails_before)(str(tmp_path), x, 10 * (x == 4), "raise") for x in range(9))
    assert counted(str(tmp_path), 4) == 4  # three tries, and this look


@pytest.mark.parametrize("backend", some(ALL))
def test_other_exceptions_are_not_tried_again(backend: str, tmp_path: Path) -> None:
    parallel = Parallel(2, backend, retries=5, retry_on=LookupError)
    with pytest.raises(ConnectionError, match="try 1"):
        parallel(delayed(fails_before)(str(tmp_path), x, 10 * (x == 4), "raise") for x in range(9))


@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
@pytest.mark.parametrize("how", ["SIGKILL", "exit"])
def test_tasks_whose_worker_died_are_tried_again(backend: str, how: str, tmp_path: Path) -> None:
    times = 1 if backend == "loky" else 2
    parallel = Parallel(2, backend, retries=4, retry_backoff=0.001)
    tasks = (delayed(fails_before)(str(tmp_path), x, times * (x == 17), how) for x in range(40))
    got = parallel(tasks)
    assert [x for x, _ in got] == list(range(40))
    assert got[17] == (17, times + 1)


def test_retries_wait_longer_each_time_and_others_do_not_wait(tmp_path: Path) -> None:
    began = time.monotonic()
    parallel = Parallel(
        2, return_as="generator_unordered", retries=3, retry_on=ConnectionError, retry_backoff=0.1
    )
    tasks = (delayed(fails_before)(str(tmp_path), x, 3 * (x == 0), "raise") for x in range(50))
    results = list(parallel(tasks))
    assert results[-1] == (0, 4), "the others were there before"
    assert time.monotonic() - began > 0.1 + 0.2 + 0.4


def test_a_retried_task_has_the_arguments_that_were_yielded(tmp_path: Path) -> None:
    values = [0]

    def tasks() -> Iterator[Any]:
        for x in range(20):
            values[0] = x
            yield delayed(first_unless_first_time)(str(tmp_path), x, values)

    got = Parallel(2, retries=1, retry_on=ConnectionError, retry_backoff=0.001)(tasks())
    assert got == list(range(20))


def first_unless_first_time(folder: str, x: int, values: list[int]) -> int:
    if counted(folder, x) == 1:
        values[0] = -1
        raise ConnectionError
    return values[0]


def test_a_retried_task_has_its_array(tmp_path: Path) -> None:
    array = np.zeros(400_000)

    def tasks() -> Iterator[Any]:
        for x in range(6):
            array[:] = x
            yield delayed(sum_at_second_time)(str(tmp_path), x, array)

    got = Parallel(2, retries=1, retry_backoff=0.001)(tasks())
    assert got == [400_000.0 * x for x in range(6)]


def sum_at_second_time(folder: str, x: int, array: Any) -> float:
    if counted(folder, x) == 1 and x % 2:
        os._exit(1)
    return float(array.sum())


@pytest.mark.core
def test_back_off() -> None:
    policy = Policy("raise", 100, (ValueError,), 0.5)
    failure = (3, ValueError())
    waits = []
    for _ in range(100):
        verdict = policy.judge(failure)  # type: ignore[arg-type]  # a plain tuple does
        assert verdict.action is Action.RETRY
        waits.append(verdict.seconds)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[10:] == [60.0] * 90
    assert policy.judge(failure).action is Action.RAISE  # type: ignore[arg-type]  # as above


# --- what an error carries ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", some(ALL))
def test_the_results_that_were_there(backend: str) -> None:
    def late_failure(x: int) -> int:
        if x == 25:
            time.sleep(0.1)
            raise ValueError("late")
        return x * x

    with pytest.raises(ValueError, match="late") as caught:
        Parallel(2, backend=backend, batch_size=1)(delayed(late_failure)(x) for x in range(50))
    results = caught.value.results  # type: ignore[attr-defined]  # born with the call's end
    assert dict(results).items() >= {x: x * x for x in range(20)}.items()
    assert 25 not in results and len(results) == len(list(results)) == len(dict(results))
    assert all(results[x] == x * x for x in results)
    assert results.get(25, "none") == "none"
    with pytest.raises(KeyError):
        results[1000]
    assert "results that had arrived" in repr(results)


def test_the_results_that_a_consumer_had_not_taken() -> None:
    def late_failure(x: int) -> int:
        if x == 25:
            time.sleep(0.1)
            raise ValueError("late")
        return x

    taken: list[int] = []
    results_of_call = Parallel(2, return_as="generator", batch_size=1)(
        delayed(late_failure)(x) for x in range(50)
    )
    with pytest.raises(ValueError, match="late") as caught:
        deque(map(taken.append, results_of_call), maxlen=0)
    results = caught.value.results  # type: ignore[attr-defined]  # as above
    assert taken == list(range(25))
    assert set(results) <= set(range(26, 50))


@pytest.mark.parametrize("form", ["plain", "pickled", "kwargs", "method", "array", "main"])
@pytest.mark.parametrize("backend", some(["processes", "loky", "threading", "sequential"]))
def test_the_failing_call_again_in_this_process(backend: str, form: str) -> None:
    where: list[int] = []

    def plain(x: int) -> None:
        where.append(x)
        raise ValueError(f"plain {x}, {os.getpid()}")

    plain.__module__ = "__main__" if form == "main" else __name__
    tasks: dict[str, Any] = {
        "plain": delayed(plain)(3),
        "main": delayed(plain)(3),
        "pickled": delayed(fail_with)([3]),
        "kwargs": delayed(fail_with)(values=[3]),
        "method": delayed(Failing(3).fail)(),
        "array": delayed(fail_with)(np.full(200_000, 3)),
    }
    with pytest.raises(ValueError, match=" 3, ") as caught:
        Parallel(2, backend=backend)([delayed(abs)(1), tasks[form], delayed(abs)(1)])
    replay = caught.value.replay  # type: ignore[attr-defined]  # as above
    assert "task 1 of the call" in repr(replay)
    for _ in range(2):
        with pytest.raises(ValueError, match=f" 3, {os.getpid()}$"):
            replay()


def fail_with(values: Any) -> None:
    raise ValueError(f"values {values[0]}, {os.getpid()}")


class Failing:
    def __init__(self, x: int) -> None:
        self.x = x

    def fail(self) -> None:
        raise ValueError(f"method {self.x}, {os.getpid()}")


def test_replaying_a_task_whose_worker_died() -> None:
    with pytest.raises(WorkerDiedError) as caught:
        Parallel(2)(delayed(die_elsewhere)(os.getpid(), x) for x in range(4))
    assert caught.value.replay() == caught.value.position  # type: ignore[attr-defined]  # as above


def die_elsewhere(pid: int, x: int) -> int:
    if os.getpid() != pid:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("backend", some(["processes", "loky"]))
def test_what_an_error_carries_stays_in_its_process(backend: str) -> None:
    """A nested call's results do not travel with its error."""

    def nested(x: int) -> list[int]:
        from math import sqrt

        return Parallel(2, backend="threading")(delayed(sqrt)(1 - y) for y in range(x))

    with pytest.raises(ValueError, match=r"math|sqrt|number") as caught:
        Parallel(2, backend=backend)(delayed(nested)(x) for x in (1, 2, 3))
    results = caught.value.results  # type: ignore[attr-defined]  # as above
    assert all(value[0] == 1.0 for value in results.values())
    copy = pickle.loads(pickle.dumps(caught.value))
    assert dict(copy.results) == {}
    with pytest.raises(RuntimeError, match="another process"):
        copy.replay()


def test_an_exception_with_results_of_its_own_keeps_them() -> None:
    def fail() -> None:
        error = RuntimeError("own")
        error.results = "mine"  # type: ignore[attr-defined]  # that is the point
        raise error

    for backend in ("processes", "threading"):
        with pytest.raises(RuntimeError) as caught:
            Parallel(2, backend=backend)([delayed(fail)(), delayed(fail)()])
        assert caught.value.results == "mine"  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize("backend", some(ALL))
def test_what_the_generator_raises_carries_results_too(backend: str) -> None:
    done = threading.Event()

    def tasks() -> Iterator[Any]:
        for x in range(4):
            yield delayed(abs)(-x)
        limit = time.monotonic() + 10
        while parallel.n_completed_tasks < 2 and time.monotonic() < limit:
            yield delayed(abs)(-1)
            done.wait(0.001)
        raise OSError("broken")

    parallel = Parallel(2, backend=backend, batch_size=1)
    with pytest.raises(OSError, match="broken") as caught:
        parallel(tasks())
    assert len(caught.value.results) >= 2  # type: ignore[attr-defined]  # as above
    assert caught.value.replay is None  # type: ignore[attr-defined]  # as above


# --- stop_when ------------------------------------------------------------------------------------


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", some(ALL))
def test_stop_at_the_first_hit(backend: str, return_as: str, tmp_path: Path) -> None:
    def square(x: int) -> int:
        Path(tmp_path, str(x)).touch()
        time.sleep(0.001)
        return x * x

    closed = []

    def tasks() -> Iterator[Any]:
        try:
            for x in itertools.count():
                yield delayed(square)(x)
        finally:
            closed.append(True)

    parallel = Parallel(2, backend, return_as, stop_when=lambda value: value == 49)
    got = list(parallel(tasks()))
    assert 49 in got and closed == [True]
    if return_as != "generator_unordered":
        assert got == sorted(got)
    time.sleep(0.05)  # until threads have ended what they were on
    begun = len(list(tmp_path.iterdir()))
    time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == begun, "nothing goes on"


@pytest.mark.parametrize("backend", some(ALL))
def test_no_hit(backend: str) -> None:
    parallel = Parallel(2, backend, stop_when=lambda value: value < 0)
    assert parallel(delayed(abs)(-x) for x in range(100)) == list(range(100))


@pytest.mark.parametrize("backend", some(ALL))
def test_a_predicate_sees_results_only(backend: str) -> None:
    seen = []

    def look(value: Any) -> bool:
        seen.append(value)
        return False

    parallel = Parallel(2, backend, stop_when=look, on_error="return")
    parallel(delayed(odd_only)(x) for x in range(40))
    assert sorted(seen) == list(range(1, 40, 2))


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", some(ALL))
def test_a_predicate_that_raises(backend: str, return_as: str) -> None:
    def look(value: Any) -> bool:
        raise LookupError("cannot tell")

    parallel = Parallel(2, backend, return_as, stop_when=look)
    with pytest.raises(LookupError, match="cannot tell"):
        list(parallel(delayed(abs)(x) for x in range(10)))
    assert Parallel(2, backend)(delayed(abs)(x) for x in range(3)) == [0, 1, 2]


def test_a_hit_while_another_worker_is_on_a_long_task(tmp_path: Path) -> None:
    """The hit ends the call; nobody waits for the other worker."""
    flag = tmp_path / "begun"

    def work(x: int) -> int:
        if x == 0:
            flag.touch()
            time.sleep(300)
        else:
            wait_until(flag.exists, "the long task has begun")
        return x

    assert (
        Parallel(2, stop_when=lambda x: x == 1, batch_size=1)(delayed(work)(x) for x in range(100))[
            0
        ]
        == 1
    )


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"on_error": "ignore"}, ValueError, "'raise', 'return', 'skip', or a function"),
        ({"on_error": None}, ValueError, "on_error must be one of"),
        ({"retries": -1}, ValueError, "retries must be a number of times"),
        ({"retries": 1.5}, ValueError, "retries must be a number of times"),
        ({"retries": True}, ValueError, "retries must be a number of times"),
        ({"retry_on": "ValueError"}, TypeError, "retry_on must be an exception class"),
        ({"retry_on": (ValueError, 3)}, TypeError, "retry_on must be an exception class"),
        ({"retry_backoff": -1}, ValueError, "retry_backoff must not be negative"),
        ({"retry_backoff": float("nan")}, ValueError, "retry_backoff must not be negative"),
        ({"retry_backoff": "1"}, TypeError, "retry_backoff must be a number"),
        ({"stop_when": 3}, TypeError, "stop_when must be a function"),
        ({"call_timeout": 0}, ValueError, "call_timeout must be a positive number"),
        ({"call_timeout": "1"}, TypeError, "call_timeout must be a number"),
        ({"pre_dispatch_nbytes": "much"}, ValueError, "pre_dispatch_nbytes must be a size"),
        ({"pre_dispatch_nbytes": 0}, ValueError, "pre_dispatch_nbytes must be more than nothing"),
        ({"min_free_memory": -1}, ValueError, "min_free_memory must not be negative"),
        ({"low_memory_timeout": -1}, ValueError, "low_memory_timeout must be a positive number"),
        ({"max_worker_memory": "0"}, ValueError, "max_worker_memory must be more than nothing"),
        ({"worker_lifespan": 0}, ValueError, "worker_lifespan must be a positive integer"),
        ({"worker_lifespan": 2.0}, ValueError, "worker_lifespan must be a positive integer"),
        ({"journal": 3}, TypeError, "journal must be the path of a file"),
        ({"retrys": 3}, TypeError, "no parameter .retrys.; did you mean .retries."),
    ],
)
def test_parameters_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Parallel(2, **options)


@pytest.mark.core
def test_errors_of_the_library_have_one_base() -> None:
    from parallel_core import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        if issubclass(kind, Exception) and name not in ("RemoteTraceback", "PerformanceWarning"):
            assert issubclass(kind, ParallelError), name


def test_every_public_name_is_in_the_reference() -> None:
    import parallel_core
    from parallel_core import backends, errors

    folder = Path(__file__).parents[1] / "doc" / "reference"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    named = set(re.findall(r"^\.\. (?:auto|py:)\w+:: [\w.]*?(\w+)$", text, re.MULTILINE))
    assert {*parallel_core.__all__, *errors.__all__, *backends.__all__} - named == set()
    assert all(hasattr(backends, name) for name in backends.__all__)


def test_the_guide_imports_public_names_alone() -> None:
    folder = Path(__file__).parents[1] / "doc" / "howto"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    modules = set(re.findall(r"(?:from|import) (parallel_core(?:\.\w+)+)", text))
    assert all(map(importlib.util.find_spec, modules))
    modules = {name for name in modules if not name.startswith("parallel_core.compat")}
    public = {"parallel_core.backends", "parallel_core.errors", "parallel_core.mapping"}
    assert modules - public == set()


class Interrupting(ProcessesBackend):
    """Ctrl-C comes before there are workers."""

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("unreachable")


EARLY: list[tuple[type[BaseException], dict[str, Any]]] = [
    (KeyboardInterrupt, {"backend": Interrupting()}),
    (PreloadError, {"preload": "nowhere"}),
    (JournalError, {"journal": __file__}),
    (ValueError, {"temp_folder": __file__}),
    (SerializationError, {"initializer": print, "initargs": (Refusing("out"),)}),
    (InitializerError, {"initializer": odd_only, "initargs": (2,)}),
]


@pytest.mark.parametrize(
    ("kind", "options"), EARLY, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("return_as", RETURNS)
def test_what_ends_a_call_before_workers_are_ready_carries_as_much(
    kind: type[BaseException], options: dict[str, Any], return_as: str
) -> None:
    parallel = Parallel(2, return_as=return_as, **options)
    for _ in range(2):
        with pytest.raises(kind) as caught:
            list(parallel([delayed(abs)(-1)] * 9))
        assert dict(caught.value.results) == {}  # type: ignore[attr-defined]  # as above
        assert caught.value.replay is None  # type: ignore[attr-defined]  # as above
