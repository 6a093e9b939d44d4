"""Results that are folded where they are made: the same value everywhere, each result once."""

from __future__ import annotations

import functools
import math
import operator
import os
import random
import re
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import Parallel, TaskFailure, delayed
from parallel_core.errors import CallTimeoutError, SerializationError, WorkerDiedError
from parallel_core.reduction.tree import Fold, FoldTree

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]
ALL = [*OWN, "loky", "threading", "sequential"]
SOME = ["processes", "loky", "threading", "sequential"]


def wave(x: int) -> float:
    return math.sin(x) * 10.0 ** (x % 37 - 18)


def text_of(x: int) -> str:
    return f"{x},"


def vector(x: int, size: int = 100_000) -> Any:
    return np.full(size, wave(x))


def one_or_skipped(x: int) -> str:
    if x % 7 == 3:
        raise ValueError(x)
    return text_of(x)


def add_in_place(left: list[int], right: list[int]) -> list[int]:
    left.extend(right)
    return left


def fails_at_17(left: str, right: str) -> str:
    if "17," in (left, right):
        raise ZeroDivisionError("no way")
    return left + right


def folded(values: list[Any], function: Any = operator.add) -> Any:
    """Return what is to come out, from the tree alone."""
    fold, tree = Fold(function, 0), FoldTree(function)
    for value in values:
        fold.append(value)
    tree.put(0, len(values), fold.take())
    return tree.result()


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_the_bits_are_the_same_everywhere(backend: str, n_jobs: int) -> None:
    expected = folded([wave(x) for x in range(1111)])
    for size in ("auto", 1 if backend != "loky" else 64, 7, 1000):
        parallel = Parallel(n_jobs, backend, batch_size=size, reduce=operator.add)
        assert parallel(delayed(wave)(x) for x in range(1111)) == expected
        assert parallel.n_completed_tasks == parallel.n_tasks == 1111


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_order_is_kept(backend: str) -> None:
    expected = "".join(map(text_of, range(300)))
    for size in ("auto", 1, 13):
        parallel = Parallel(2, backend, batch_size=size, reduce=operator.add)
        assert parallel(delayed(text_of)(x) for x in range(300)) == expected


@pytest.mark.parametrize("backend", SOME)
def test_arrays(backend: str) -> None:
    """Large ones, which leave beside the pickle, and of middling size."""
    for size in (100_000, 10_000, 5):
        total = Parallel(2, backend, reduce=np.add, batch_size=4)(
            delayed(vector)(x, size) for x in range(37)
        )
        expected = folded([wave(x) for x in range(37)])
        assert total.shape == (size,) and total.flags.writeable
        assert set(total.tolist()) == {expected}


@pytest.mark.core
def test_every_kind_of_function() -> None:
    factor = [1]

    def closure(left: int, right: int) -> int:
        return left + right * factor[0]

    class Adding:
        def __call__(self, left: int, right: int) -> int:
            return left + right

        def method(self, left: int, right: int) -> int:
            return left + right

    functions: list[Any] = [
        operator.add,
        int.__add__,
        np.add,
        lambda left, right: left + right,
        closure,
        functools.partial(closure),
        Adding(),
        Adding().method,
    ]
    with Parallel(2, batch_size=3) as plain:
        assert sum(plain(delayed(abs)(x) for x in range(20))) == 190
    for function in functions:
        assert Parallel(2, batch_size=3, reduce=function)(delayed(abs)(x) for x in range(20)) == 190


def test_a_function_that_is_also_the_task() -> None:
    def add(left: int, right: int = 0) -> int:
        return left + right

    assert Parallel(2, batch_size=3, reduce=add)(delayed(add)(x) for x in range(20)) == 190


def test_a_function_with_a_large_array() -> None:
    weights = np.ones(400_000)

    def weighted(left: Any, right: Any) -> Any:
        return left + right * weights[-1]

    total = Parallel(2, batch_size=3, reduce=weighted)(
        delayed(np.full)(400_000, float(x)) for x in range(9)
    )
    assert set(total.tolist()) == {36.0}


def test_tasks_with_state_of_their_own() -> None:
    """Functions that go by value and have something that a task could change."""
    seen: list[int] = []

    def remember(x: int) -> list[int]:
        seen.append(x)
        return list(seen)

    expected = [[x] for x in range(20)]
    result = Parallel(2, batch_size=6, reduce=operator.add)(delayed(remember)(x) for x in range(20))
    assert [[x] for x in result] == expected


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_functions_that_change_their_left_argument(backend: str) -> None:
    with Parallel(2, backend, batch_size=3, reduce=add_in_place, reduce_initial=[-1]) as parallel:
        for _ in range(2):
            assert parallel(delayed(list)([x]) for x in range(20)) == list(range(-1, 20))

    def update(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
        left.update(right)
        return left

    merged = Parallel(2, backend, reduce=update)(delayed(dict)([(x, x * x)]) for x in range(50))
    assert list(merged) == list(range(50)) and merged[7] == 49


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_nothing_to_fold(backend: str) -> None:
    with pytest.raises(ValueError, match="there are no tasks; give reduce_initial"):
        Parallel(2, backend, reduce=operator.add)([])
    assert Parallel(2, backend, reduce=operator.add, reduce_initial=None)([]) is None
    assert Parallel(2, backend, reduce=operator.add, reduce_initial="a")([delayed(text_of)(1)]) == (
        "a1,"
    )
    assert Parallel(2, backend, reduce=operator.add)([delayed(text_of)(1)]) == "1,"
    skipping: dict[str, Any] = {"on_error": "skip", "reduce": operator.add}
    with pytest.raises(ValueError, match="every task was skipped"):
        Parallel(2, backend, **skipping)([delayed(one_or_skipped)(3)])
    assert Parallel(2, backend, **skipping, reduce_initial=5)([delayed(one_or_skipped)(3)]) == 5


@pytest.mark.parametrize("backend", SOME)
def test_tasks_that_fail(backend: str) -> None:
    tasks = [delayed(one_or_skipped)(x) for x in range(200)]
    kept = [text_of(x) for x in range(200) if x % 7 != 3]
    for size in (1, 10) if backend != "loky" else (50,):
        parallel = Parallel(2, backend, batch_size=size, reduce=operator.add, on_error="skip")
        assert parallel(tasks) == "".join(kept)
        assert parallel.n_completed_tasks == 200

    def decide(failure: TaskFailure) -> Any:
        return failure.replace(f"<{failure.position}>")

    instead = [text_of(x) if x % 7 != 3 else f"<{x}>" for x in range(200)]
    parallel = Parallel(2, backend, batch_size=10, reduce=operator.add, on_error=decide)
    assert parallel(tasks) == "".join(instead)
    with pytest.raises(ValueError, match="on_error must not return 'return'"):
        Parallel(2, backend, reduce=operator.add, on_error=lambda failure: "return")(tasks)
    with pytest.raises(ValueError, match=r"3|10") as caught:  # some engines are out of order
        Parallel(2, backend, batch_size=2, reduce=operator.add)(tasks)
    error: Any = caught.value
    assert len(error.results) == 0 and f"task {error} of the call" in notes_of(error)
    with pytest.raises(ValueError, match=str(error)):
        error.replay()


def fails_once(folder: str, x: int, how: str = "raise") -> str:
    if x % 5 == 2:
        try:
            Path(folder, str(x)).touch(exist_ok=False)
        except FileExistsError:
            return text_of(x)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConnectionError
    return text_of(x)


@pytest.mark.parametrize("backend", SOME)
def test_retries(backend: str, tmp_path: Path) -> None:
    result = Parallel(
        2, backend, batch_size=8, reduce=operator.add, retries=1, retry_on=OSError, retry_backoff=0
    )(delayed(fails_once)(str(tmp_path), x) for x in range(60))
    assert result == "".join(map(text_of, range(60)))


@pytest.mark.parametrize("backend", OWN)
def test_workers_that_die(backend: str, tmp_path: Path) -> None:
    result = Parallel(
        2,
        backend,
        batch_size=8,
        reduce=operator.add,
        retries=3,  # a batch that waits behind two that kill is suspected, too
        retry_backoff=0,
    )(delayed(fails_once)(str(tmp_path), x, "kill") for x in range(40))
    assert result == "".join(map(text_of, range(40)))


def slow_wave(x: int, folder: str | None = None) -> float:
    """Take a millisecond; every 200th has its worker killed, once, a moment later."""
    time.sleep(0.001)
    if folder is not None and x % 200 == 20:
        try:
            Path(folder, str(x)).touch(exist_ok=False)
        except FileExistsError:
            return wave(x)
        kill = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
        threading.Timer(random.random() * 0.05, kill).start()
    return wave(x)


@pytest.mark.parametrize("size", ["auto", 64, 1000])
def test_workers_that_are_killed_at_any_moment(size: Any, tmp_path: Path) -> None:
    """No result counts twice, none is missing, and not one bit is another."""
    parallel = Parallel(2, batch_size=size, reduce=operator.add, retries=20, retry_backoff=0)
    result = parallel(delayed(slow_wave)(x, str(tmp_path)) for x in range(1500))
    assert result == folded([wave(x) for x in range(1500)])
    assert parallel.n_completed_tasks == 1500 and len(os.listdir(tmp_path)) == 8


def waits_at_3(folder: str, x: int) -> str:
    """Note that it ran; task 3 ends only when all others have."""
    with Path(folder, str(x)).open("a") as file:
        file.write("x")
    while x == 3 and len(os.listdir(folder)) < 60:
        time.sleep(0.002)
    return text_of(x)


@pytest.mark.parametrize("backend", OWN)
def test_tasks_that_are_taken_back(backend: str, tmp_path: Path) -> None:
    """What stands behind a slow task runs elsewhere, and is folded once, in its place."""
    result = Parallel(2, backend, batch_size=20, reduce=operator.add)(
        delayed(waits_at_3)(str(tmp_path), x) for x in range(60)
    )
    assert result == "".join(map(text_of, range(60)))
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}


def stuck_at_5(x: int) -> str:
    if x == 5:
        time.sleep(60)
    return text_of(x)


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_time_limits(backend: str) -> None:
    limit = 3 if backend == "processes" else 0.5  # a new worker imports this module first
    result = Parallel(
        2, backend, batch_size=4, timeout=limit, on_error="skip", reduce=operator.add
    )(delayed(stuck_at_5 if backend == "processes" else briefly_stuck)(x) for x in range(12))
    assert result == "".join(text_of(x) for x in range(12) if x != 5)


def briefly_stuck(x: int) -> str:
    if x == 5:
        time.sleep(1.2)
    return text_of(x)


def slow_add(left: int, right: int) -> int:
    time.sleep(0.02)
    return left + right


def test_the_time_of_folding_is_no_tasks() -> None:
    for kind in (int, np.int64):
        result = Parallel(2, batch_size=64, timeout=1, reduce=slow_add)(
            delayed(kind)(x) for x in range(128)
        )
        assert result == 8128


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_the_time_of_a_call(backend: str) -> None:
    with pytest.raises(CallTimeoutError) as caught:
        Parallel(2, backend, call_timeout=0.3, reduce=operator.add)(
            delayed(slow_wave)(x) for x in range(100_000)
        )
    assert dict(caught.value.results) == {}  # type: ignore[attr-defined]  # see `Parallel.__call__`


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("size", [1, 8])
def test_a_function_that_raises(backend: str, on_error: str, size: int) -> None:
    """In a worker where the batch has two of them, else in the parent."""
    with pytest.raises(ZeroDivisionError, match="no way") as caught:
        Parallel(2, backend, batch_size=size, reduce=fails_at_17, on_error=on_error, retries=1)(
            delayed(text_of)(x) for x in range(40)
        )
    words = "fails_at_17 was being applied to the results of task 16 and of task 17 of the call"
    assert words in notes_of(caught.value)
    assert len(caught.value.results) == 0  # type: ignore[attr-defined]  # see `Parallel.__call__`


@pytest.mark.parametrize("backend", ["processes", "loky", "threading", "sequential"])
def test_functions_that_end_programs(backend: str) -> None:
    def leave(left: int, right: int) -> int:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"called sys.exit\(3\)"):
        Parallel(2, backend, batch_size=4, reduce=leave)(delayed(abs)(x) for x in range(40))


@pytest.mark.parametrize("backend", SOME)
def test_an_initial_value_that_does_not_fit(backend: str) -> None:
    with pytest.raises(TypeError) as caught:
        Parallel(2, backend, reduce=operator.add, reduce_initial="")([delayed(abs)(1)])
    assert "reduce_initial" in notes_of(caught.value)


def locked(left: Any, right: Any) -> Any:
    return threading.Lock()


class Unreadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def unreadable(left: Any, right: Any) -> Any:
    return Unreadable()


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_values_that_do_not_pickle(backend: str) -> None:
    tasks = [delayed(abs)(x) for x in range(8)]
    with pytest.raises(SerializationError, match=r"what reduce made of tasks \d to 7") as caught:
        Parallel(2, backend, batch_size=8, reduce=locked, on_error="skip")(tasks)
    assert "lock" in str(caught.value)
    with pytest.raises(SerializationError, match="does not unpickle") as caught:
        Parallel(2, backend, batch_size=8, reduce=unreadable, on_error="skip")(tasks)
    assert re.search(r"reduce made of tasks \d to 7 of the call", notes_of(caught.value))
    with pytest.raises(SerializationError, match="reduce="):
        Parallel(2, backend, reduce=functools.partial(locked, threading.Lock()))(tasks)


class Elsewhere:
    """A function that cannot be had anywhere but here."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def __reduce__(self) -> Any:
        return only_here, (self.pid,)

    def __call__(self, left: int, right: int) -> int:
        return left + right


def only_here(pid: int) -> Elsewhere:
    if os.getpid() != pid:
        raise RuntimeError("not here")
    return Elsewhere()


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_a_function_that_does_not_unpickle(backend: str) -> None:
    with pytest.raises(RuntimeError, match="not here") as caught:
        Parallel(2, backend, reduce=Elsewhere())(delayed(abs)(x) for x in range(8))
    assert "reduce does not unpickle" in notes_of(caught.value)


@pytest.mark.core
@pytest.mark.parametrize(
    "given",
    [
        {"return_as": "generator"},
        {"return_as": "generator_unordered"},
        {"on_error": "return"},
        {"stop_when": bool},
        {"journal": "journal"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_does_not_go_together(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"reduce does not go together with {next(iter(given))}"):
        Parallel(reduce=operator.add, **given)


@pytest.mark.core
def test_bad_parameters() -> None:
    with pytest.raises(TypeError, match="reduce must be a function"):
        Parallel(reduce="sum")
    with pytest.raises(ValueError, match="only together with reduce"):
        Parallel(reduce_initial=None)


def test_several_calls_of_one_instance() -> None:
    with Parallel(2, reduce=operator.add) as parallel:
        for count in (10, 1000, 3):
            assert parallel(delayed(abs)(x) for x in range(count)) == count * (count - 1) // 2
        with pytest.raises(TypeError):
            parallel([delayed(abs)(1), delayed(text_of)(1)])
        assert parallel(delayed(abs)(x) for x in range(10)) == 45


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_executors(executor: Any) -> None:
    expected = folded([wave(x) for x in range(500)])
    with executor(2) as pool:
        parallel = Parallel(2, pool, reduce=operator.add)
        assert parallel(delayed(wave)(x) for x in range(500)) == expected


def test_tasks_that_cannot_be_handed_over() -> None:
    tasks = [delayed(text_of)(x) if x % 4 else delayed(text_of)(threading.Lock()) for x in range(9)]
    result = Parallel(2, reduce=operator.add, on_error="skip")(tasks)
    assert result == "1,2,3,5,6,7,"


def test_many_functions_in_a_batch() -> None:
    tasks = [delayed([text_of, str, repr][x % 3])(x) for x in range(100)]
    expected = "".join(function(*args) for function, args, _ in tasks)
    assert Parallel(2, batch_size=30, reduce=operator.add)(tasks) == expected


class Counted:
    """Knows how many there are."""

    alive = 0
    most = 0
    lock = threading.Lock()

    def __init__(self) -> None:
        with Counted.lock:
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        with Counted.lock:
            Counted.alive -= 1


def another(left: Counted, right: Counted) -> Counted:
    return Counted()


@pytest.mark.parametrize("backend", ["sequential", "threading"])
def test_few_values_at_a_time(backend: str) -> None:
    Counted.most = Counted.alive
    Parallel(2, backend, batch_size=500, reduce=another)(delayed(Counted)() for _ in range(5000))
    assert Counted.most < 60


def test_few_values_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    from parallel_core.backends import answers

    crossed: list[tuple[int, int]] = []
    read = answers.read_answer

    def spy(batch: Any, answer: Any) -> Any:
        completion = read(batch, answer)
        crossed.append((completion.folded, len(completion.values)))
        return completion

    monkeypatch.setattr(answers, "read_answer", spy)
    assert Parallel(2, reduce=operator.add)(delayed(abs)(x) for x in range(100_000)) == 4999950000
    assert sum(tasks for tasks, _ in crossed) == 100_000
    assert sum(values for _, values in crossed) < 2500
    crossed.clear()
    Parallel(2, batch_size=64, reduce=operator.add)(delayed(abs)(x) for x in range(6400))
    assert sum(values for _, values in crossed) < 200


def test_a_dead_worker_without_retries() -> None:
    with pytest.raises(WorkerDiedError, match="task 2 of the call"):
        Parallel(2, batch_size=2, reduce=operator.add)(
            delayed(os._exit if x == 2 else abs)(x) for x in range(6)
        )


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    Parallel(2, verbose=50, reduce=operator.add)(delayed(abs)(x) for x in range(1000))
    assert "1000 out of 1000" in capsys.readouterr().err
