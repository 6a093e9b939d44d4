"""What every backend owes for limits of time; and what it cannot do, it refuses in plain words."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import DROPS, INITIALIZES, PARALLEL, STOPS, every, of
from contract_tasks import get_level, nap, set_level, stick

from parallel_core import CallTimeoutError, Parallel, TaskTimeoutError, delayed

pytestmark = pytest.mark.warm_workers

#: Seconds; loky's count from when a task is handed over, and its workers take a while to start.
LIMITS = {"loky": 3.0, "dask": 2.0, "ray": 2.0}


@pytest.fixture
def go(tmp_path: Path) -> Iterator[str]:
    """Yield the path of a file that ends tasks which nobody can end, when the test is over."""
    path = tmp_path / "go"
    yield str(path)
    path.touch()


def limit_of(backend: Any) -> float:
    return LIMITS.get(of(backend).name, 0.8)


# --- time -----------------------------------------------------------------------------------------


@every(PARALLEL)
def test_a_task_over_its_time_fails_and_the_others_go_on(backend: Any, go: str) -> None:
    parallel = Parallel(2, backend, timeout=limit_of(backend), on_error="return")
    got = parallel(delayed(stick)(x, (3,), go) for x in range(20))
    error = got.pop(3)
    assert isinstance(error, TaskTimeoutError) and isinstance(error, TimeoutError)
    assert "task 3 of the call" in str(error)
    assert got == [x for x in range(20) if x != 3]


@every(PARALLEL)
def test_the_call_ends_with_it_unless_told_otherwise(backend: Any, go: str) -> None:
    with pytest.raises(TaskTimeoutError, match="task 2 of the call") as caught:
        Parallel(2, backend, timeout=limit_of(backend), batch_size=1)(
            delayed(stick)(x, (2,), go) for x in range(200)
        )
    results = caught.value.results  # type: ignore[attr-defined]  # born with the call's end
    assert results[0] == 0 and results[1] == 1


@every(STOPS)
def test_workers_that_were_stopped_are_replaced(backend: Any, go: str) -> None:
    parallel = Parallel(2, backend, timeout=limit_of(backend), on_error="skip")
    got = parallel(delayed(stick)(x, (0, 3, 4), go) for x in range(20))
    assert got == [x for x in range(20) if x not in (0, 3, 4)]


@every(PARALLEL)
def test_it_is_tried_again_if_listed(backend: Any, go: str, tmp_path: Path) -> None:
    def slow_at_first(x: int) -> int:
        path = tmp_path / str(x)
        if x == 3 and not path.exists():
            path.touch()
            stick(x, (x,), go)
        return x

    parallel = Parallel(
        2,
        backend,
        timeout=limit_of(backend),
        retries=1,
        retry_on=TimeoutError,
        retry_backoff=0.01,
    )
    assert parallel(delayed(slow_at_first)(x) for x in range(10)) == list(range(10))


@every()
def test_a_limit_for_the_whole_call(backend: Any) -> None:
    assert Parallel(2, backend, call_timeout=60)(delayed(nap)(x) for x in range(4)) == [0, 1, 2, 3]
    with pytest.raises(CallTimeoutError, match=r"more than call_timeout=0\.5 s") as caught:
        Parallel(2, backend, call_timeout=0.5, batch_size=1)(
            delayed(nap)(x) for x in itertools.count()
        )
    assert isinstance(caught.value, TimeoutError)
    results = caught.value.results  # type: ignore[attr-defined]  # as above
    assert results and all(value == x for x, value in results.items())
    assert Parallel(2, backend, call_timeout=60)(delayed(nap)(x) for x in range(4)) == [0, 1, 2, 3]


@every(PARALLEL)
def test_a_call_that_waits_for_a_task_ends_in_time(backend: Any, go: str) -> None:
    with pytest.raises(CallTimeoutError):
        Parallel(2, backend, call_timeout=0.3)(delayed(stick)(x, (1,), go) for x in range(2))


# --- what it cannot do ----------------------------------------------------------------------------


def counted(state: dict[str, int], x: int) -> int:
    state["seen"] = state.get("seen", 0) + 1
    return x


#: What single workers are asked for; see `Backend.worker_features`.
OF_WORKERS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "worker_init": (lambda: None, abs),
    "worker_exit": (lambda: 3, abs),
    "use_worker_state": (True, counted),
    "worker_env": ([{"CONTRACT": "1"}, {"CONTRACT": "2"}], abs),
    "order_tasks": (True, abs),
}


@every()
@pytest.mark.parametrize("name", OF_WORKERS)
def test_parameters_of_single_workers(backend: Any, name: str) -> None:
    value, function = OF_WORKERS[name]
    features = of(backend).worker_features
    if name in features:
        n_jobs = of(backend).effective_n_jobs(2)
        given = value[:n_jobs] if isinstance(value, list) else value
        parallel = Parallel(2, backend, **{name: given})
        assert parallel(delayed(function)(x) for x in range(9)) == list(range(9))
    else:
        with pytest.raises(ValueError, match=rf"{re.escape(of(backend).name)!r}.* has no {name}"):
            Parallel(2, backend, **{name: value})


@every()
def test_the_memory_of_the_caller(backend: Any) -> None:
    seen: list[int] = []
    if of(backend).supports_sharedmem:
        Parallel(2, backend, require="sharedmem")(delayed(seen.append)(x) for x in range(9))
        assert sorted(seen) == list(range(9))
    else:
        with pytest.raises(ValueError, match=r"does not share the caller's memory.*threading"):
            Parallel(2, backend, require="sharedmem")
        Parallel(2, backend)(delayed(seen.append)(x) for x in range(9))
        assert seen == []


@every()
def test_initializers(backend: Any, can: frozenset[str]) -> None:
    parallel = Parallel(2, backend, initializer=set_level, initargs=(3, "extra"))
    if INITIALIZES in can:
        try:
            assert parallel(delayed(get_level)() for _ in range(6)) == [(3, "extra")] * 6
        finally:
            set_level(0, "unset")
    else:
        with pytest.raises(TypeError, match="initializer"):
            parallel(delayed(get_level)() for _ in range(6))


@every()
def test_nothing_begins_after_the_call_has_ended(
    backend: Any, can: frozenset[str], tmp_path: Path
) -> None:
    """What cannot end running tasks, or drop the rest of a batch, has at most begun its batches."""

    def work(x: int) -> int:
        (tmp_path / str(x)).touch()
        time.sleep(0.005)
        if x == 5:
            raise LookupError("told")
        return x

    with pytest.raises(LookupError, match="told"):
        Parallel(2, backend, batch_size=10, pre_dispatch=4)(delayed(work)(x) for x in range(2000))
    if DROPS in can:
        time.sleep(0.02)  # a thread ends the task that it is on
        begun = len(list(tmp_path.iterdir()))
        time.sleep(0.1)
        assert len(list(tmp_path.iterdir())) == begun
    assert len(list(tmp_path.iterdir())) <= 100


@every(but=("joblib's conventions",))  # whose object belongs to one call
def test_calls_of_several_threads_at_once(backend: Any) -> None:
    found: dict[int, list[int]] = {}

    def call(number: int) -> None:
        for _ in range(3):
            found[number] = Parallel(2, backend)(delayed(pow)(number, x) for x in range(30))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number**x for x in range(30)] for number in range(3)}
