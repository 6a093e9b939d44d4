"""What every backend owes those who watch a call, those who call within tasks, and large arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from contract import every, of
from contract_tasks import filled, nested
from observed_tasks import Counting, Log
from progress_tasks import pause
from simple_tasks import invert

from parallel_core import (
    BatchAnswered,
    BatchSubmitted,
    CallEnded,
    CallStarted,
    Parallel,
    Progress,
    TaskFailed,
    TaskRetried,
    delayed,
    get_active_backend,
    parallel_config,
)
from parallel_core.calls import call

pytestmark = pytest.mark.warm_workers


@every()
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_events_of_a_call_from_start_to_end(backend: Any, return_as: str) -> None:
    log = Log()
    parallel = Parallel(2, backend, return_as=return_as, observers=[log])
    assert sorted(parallel(delayed(abs)(-x) for x in range(50))) == list(range(50))
    started, ended = log.events[0], log.events[-1]
    assert isinstance(started, CallStarted) and started.label == "Parallel(n_jobs=2)"
    engine = of(backend)
    assert (started.backend, started.n_jobs) == (engine.name, engine.effective_n_jobs(2))
    assert ended == CallEnded(started.call, 50, 50, 0, None)
    assert {event.call for event in log.events} == {started.call}
    answered = log.of(BatchAnswered)
    assert sum(event.tasks for event in answered) == 50
    assert [event.completed for event in answered] == sorted(event.completed for event in answered)
    assert answered[-1].completed == 50 and all(event.seconds >= 0 for event in answered)
    submitted = {
        position
        for event in log.of(BatchSubmitted)
        for position in range(event.first, event.first + event.tasks)
    }
    assert submitted == set(range(0 if backend == "sequential" else 50))


@every()
def test_events_of_failures(backend: Any) -> None:
    log = Log()
    parallel = Parallel(
        2, backend, on_error="skip", retries=1, retry_on=ZeroDivisionError, retry_backoff=0,
        observers=[log],
    )  # fmt: skip
    assert parallel(delayed(invert)(x) for x in [1, 0, 2]) == [1.0, 0.5]
    [retried], [failed] = log.of(TaskRetried), log.of(TaskFailed)
    assert retried.position == failed.position == 1
    assert isinstance(failed.error, ZeroDivisionError) and log.events[-1].completed == 3


@every()
def test_events_of_a_call_that_fails(backend: Any) -> None:
    log = Log()
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(2, backend, observers=[log])(delayed(invert)(x) for x in [1, 0])
    assert log.events[-1].error is caught.value
    assert [event.position for event in log.of(TaskFailed)] == [1]


@every()
def test_events_of_results_that_are_folded(backend: Any) -> None:
    log = Log()
    parallel = Parallel(2, backend, reduce=operator.add, observers=[log])
    assert parallel(delayed(abs)(-x) for x in range(100)) == 4950
    assert log.of(BatchAnswered)[-1].completed == 100 and log.events[-1].completed == 100


@every()
def test_an_observer_that_raises_is_reported_once(backend: Any) -> None:
    class Bad:
        def notify(self, event: Any) -> None:
            raise ValueError("a bar is broken")

    log = Log()
    with pytest.warns(RuntimeWarning, match="the observer .* raised ValueError: a bar") as caught:
        results = Parallel(2, backend, observers=[Bad(), log])(delayed(abs)(x) for x in range(9))
    assert results == list(range(9)) and len(caught) == 1
    assert isinstance(log.events[-1], CallEnded)


@every()
@pytest.mark.parametrize("reduce", [None, max])
def test_what_context_items_learn(
    backend: Any, reduce: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "context_items_of_call", lambda *args, **kwargs: (Counting(),))
    log = Log()
    parallel = Parallel(2, backend, on_error="skip", reduce=reduce, observers=[log])
    parallel(delayed(invert)(x - 5) for x in range(20))
    notes = [note for event in log.of(BatchAnswered) for note in event.notes]
    assert {name for name, _ in notes} == {"counting"}
    assert sorted(position for _, learned in notes for position in learned) == list(range(20))


@every()
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_progress_in_numbers(backend: Any, return_as: str) -> None:
    told: list[Progress] = []
    parallel = Parallel(2, backend, return_as=return_as, progress=told.append)
    assert sorted(parallel(delayed(pause)(0.01, x) for x in range(40))) == list(range(40))
    last = told[-1]
    assert (last.completed, last.total, last.is_over, last.error) == (40, 40, True, None)
    assert last.label == "Parallel(n_jobs=2)" and last.seconds > 0 and last.rate is not None
    assert [one.completed for one in told] == sorted(one.completed for one in told)
    assert all(one.total == 40 for one in told) and sum(one.is_over for one in told) == 1


# --- calls within tasks ---------------------------------------------------------------------------


@every()
def test_calls_within_tasks(backend: Any) -> None:
    expected = [[x * y for y in range(3)] for x in range(4)]
    assert Parallel(2, backend)(delayed(nested)(x, 3) for x in range(4)) == expected


@every()
def test_a_backend_of_the_configuration(backend: Any) -> None:
    with parallel_config(backend=backend, n_jobs=2):
        assert get_active_backend()[1] == 2
        assert Parallel()(delayed(abs)(-x) for x in range(9)) == list(range(9))
        with Parallel() as parallel:
            for _ in range(2):
                assert parallel(delayed(abs)(-x) for x in range(9)) == list(range(9))


# --- arrays ---------------------------------------------------------------------------------------


@every()
def test_large_arrays_come_and_go_whole(backend: Any) -> None:
    arrays = [np.full(200_000, float(x)) for x in range(4)]
    results = Parallel(2, backend)(delayed(np.multiply)(array, 2) for array in arrays)
    for x, (array, result) in enumerate(zip(arrays, results, strict=True)):
        assert array[0] == array[-1] == x, "the caller's stay as they were"
        assert result.shape == array.shape and np.all(result == 2 * x)
        assert result.flags.writeable
    total = Parallel(2, backend, reduce=operator.add)(delayed(filled)(x) for x in range(4))
    assert total.shape == (200_000,) and np.all(total == 6)


@every()
def test_an_array_that_the_generator_goes_on_changing(backend: Any) -> None:
    def tasks() -> Iterator[Any]:
        array = np.zeros(200_000)
        for x in range(6):
            array[:] = x
            yield delayed(np.sum)(array)

    if not of(backend).supports_sharedmem:
        assert Parallel(2, backend)(tasks()) == [200_000.0 * x for x in range(6)]
