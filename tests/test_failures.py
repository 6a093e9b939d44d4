"""What a failing task does to its call: `on_error`, retries, and what an error carries."""

from __future__ import annotations

import importlib.util
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
from contract_tasks import Refusing, counted, fails_before, odd_only

from parallel_core import Parallel, delayed
from parallel_core.backends.base import Session
from parallel_core.backends.options import WorkerOptions
from parallel_core.backends.processes import ProcessesBackend
from parallel_core.dispatch.policy import Action, Policy
from parallel_core.errors import (
    InitializerError,
    JournalError,
    ParallelError,
    PreloadError,
    SerializationError,
    WorkerDiedError,
)
from watching import some, wait_until

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]
ALL = [*OWN, "loky", "threading", "sequential"]
RETURNS = ["list", "generator", "generator_unordered"]


# --- on_error -------------------------------------------------------------------------------------


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


# --- retries --------------------------------------------------------------------------------------


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


# --- stop_when ------------------------------------------------------------------------------------


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
    pages = set(folder.glob("*.md")) - {
        folder / "write-a-door.md"
    }  # for those who change the inside
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
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
