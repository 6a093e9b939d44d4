"""Where the tasks of a call with one job run."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import (
    BatchAnswered,
    ContextError,
    Parallel,
    TaskTimeoutError,
    WorkerDiedError,
    delayed,
    parallel_config,
    rng,
)
from parallel_core.calls.call import Call
from parallel_core.calls.resources import CallResources
from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.observe.events import Event
from watching import LIMIT, some

PROTECTIONS: list[dict[str, Any]] = [
    {"timeout": 60},
    {"retries": 1},
    {"on_error": "return"},
    {"on_error": lambda failure: "skip"},
    {"max_worker_memory": "64G"},
]


def is_here(**options: Any) -> bool:
    return Parallel(**options)([delayed(os.getpid)()]) == [os.getpid()]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.mark.core
@pytest.mark.parametrize("n_jobs", [1, None])
@pytest.mark.parametrize("options", PROTECTIONS, ids=lambda options: next(iter(options)))
def test_a_protection_takes_a_worker(n_jobs: int | None, options: dict[str, Any]) -> None:
    assert not is_here(n_jobs=n_jobs, **options)


def test_other_options_take_none(tmp_path: Path) -> None:
    assert is_here(n_jobs=1)
    assert is_here(n_jobs=1, call_timeout=60, seed=1, journal=tmp_path / "kept")
    assert is_here(n_jobs=1, timeout=None, retries=0, on_error="raise", max_worker_memory=None)


@pytest.mark.core
@pytest.mark.parametrize("backend", some(["processes", "multiprocessing", "loky"]))
def test_one_worker_on_one_core(backend: str, one_core: None) -> None:
    assert not is_here(n_jobs=-1, backend=backend), "processes are asked for by name"
    assert is_here(n_jobs=1, backend=backend), "one job is asked for"
    with parallel_config(backend=backend):
        assert is_here(n_jobs=-1), "the call names none"


def test_what_crashes_on_one_core_costs_its_task(one_core: None) -> None:
    got = Parallel(n_jobs=-1, on_error="return", timeout=LIMIT)(
        delayed(os._exit if x == 1 else abs)(x) for x in range(3)
    )
    assert [got[0], got[2]] == [0, 2] and isinstance(got[1], WorkerDiedError)


@pytest.mark.core
def test_the_time_of_a_task_is_limited_with_one_job() -> None:
    with pytest.raises(TaskTimeoutError):
        Parallel(n_jobs=1, timeout=0.2)([delayed(time.sleep)(600)])


def test_of_threads_only_a_time_limit_takes_one() -> None:
    here = threading.get_ident()
    for options in PROTECTIONS:
        parallel = Parallel(n_jobs=1, backend="threading", **options)
        assert (parallel([delayed(threading.get_ident)()]) == [here]) == ("timeout" not in options)


@pytest.mark.parametrize("options", PROTECTIONS, ids=lambda options: next(iter(options)))
def test_sequential_is_always_here(options: dict[str, Any]) -> None:
    assert is_here(n_jobs=1, backend="sequential", **options)


# What holds inside tasks is set up once for a list of them: no code of the caller's runs between.


def draw(fails: bool = False) -> tuple[float, float, float]:
    drawn = random.random(), float(np.random.random()), float(rng().random())
    if fails:
        raise ValueError(*drawn)
    return drawn


def test_tasks_of_a_list_draw_what_tasks_of_a_generator_do() -> None:
    tasks = [delayed(draw)(fails) for fails in (False, False, True, False)]
    run = Parallel(backend="sequential", seed=3, on_error="return")
    before = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    expected = run(task for task in tasks)
    for of_kind in tasks, tuple(tasks):
        found = run(of_kind)
        assert found[:2] == expected[:2] and found[3:] == expected[3:]
        assert found[2].args == expected[2].args
    after = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    assert before == after
    with pytest.raises(ValueError, match=repr(expected[2].args[0])):
        Parallel(backend="sequential", seed=3)(tasks)
    assert random.getstate() == before[0]


def test_a_task_of_a_list_that_runs_again_draws_the_same() -> None:
    tried: list[Any] = []

    def try_twice() -> Any:
        tried.append(draw())
        if len(tried) == 1:
            raise OSError
        return tried[-1]

    options: dict[str, Any] = {"retries": 1, "retry_on": OSError, "retry_backoff": 0}
    run = Parallel(backend="sequential", seed=3, **options)
    results = run([delayed(try_twice)(), delayed(draw)()])
    assert tried == [results[0]] * 2
    assert results == Parallel(backend="sequential", seed=3)(delayed(draw)() for _ in range(2))


def test_output_of_the_tasks_of_a_list() -> None:
    found = Parallel(output="capture")([delayed(print)(1), delayed(print)(2)])
    assert [each.stdout for each in found] == ["1\n", "2\n"]


class Counting(Part):
    """Counts the tasks of a batch."""

    def __init__(self) -> None:
        self.count = 0

    def bind(self, function: Any, position: int) -> Any:
        def call(*args: Any) -> Any:
            self.count += 1
            return function(*args)

        return call

    def end(self) -> int:
        return self.count


class Counts(ContextItem):
    name = "count"
    places = tuple(Place)

    def begin(self, position: Any, place: Place) -> Part:
        return Counting()


class Refuses(Counts):
    def begin(self, position: Any, place: Place) -> Part:
        raise OSError("not here")


class Notes:
    look_seconds = 60.0

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def notify(self, event: Event) -> None:
        if isinstance(event, BatchAnswered) and event.notes:
            self.notes += event.notes


def call_within(item: ContextItem, tasks: list[Any], observer: Notes) -> Any:
    spec = Parallel()._spec
    items = (item,)
    call = Call(
        tasks, spec, CallResources(spec), label="", observers=[observer], context_items=items
    )
    return call.run()


def test_what_is_learned_of_the_tasks_of_a_list() -> None:
    observer = Notes()
    tasks = [delayed(abs)(-1), delayed(abs)(-2), delayed(pow)(2, 3)]
    assert call_within(Counts(), tasks, observer) == [1, 2, 8]
    assert observer.notes == [("count", 3)]


def test_what_cannot_be_set_up_around_a_list() -> None:
    with pytest.raises(ContextError, match=r"'count' could not be restored.*OSError: not here"):
        call_within(Refuses(), [delayed(abs)(-1)], Notes())
