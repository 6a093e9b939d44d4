"""Observers are told what happens in a call, in order, and cannot do it any harm."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observed_tasks import Counting, die_once, invert, wait_for

from parallel_core import (
    BatchAnswered,
    BatchSubmitted,
    CallEnded,
    CallStarted,
    Parallel,
    ResultsResumed,
    TaskFailed,
    TaskRetried,
    WorkerEnded,
    WorkerStarted,
    delayed,
    get_executor,
    parallel_config,
)
from parallel_core.backends.conventions import ThreadingBackend
from parallel_core.calls import call
from parallel_core.observe.events import observer_factories

pytestmark = pytest.mark.warm_workers

BACKENDS = ["processes", "threading", "sequential", "loky"]


class HeldJobs(ThreadingBackend):
    """A backend by joblib's conventions, whose tasks share the memory of the caller."""


class Log:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def notify(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_from_start_to_end(backend: str, return_as: str) -> None:
    log = Log()
    parallel = Parallel(2, backend, return_as=return_as, observers=[log])
    assert sorted(parallel(delayed(abs)(-x) for x in range(50))) == list(range(50))
    started, ended = log.events[0], log.events[-1]
    assert isinstance(started, CallStarted) and started.label == "Parallel(n_jobs=2)"
    assert (started.backend, started.n_jobs) == (backend, 1 if backend == "sequential" else 2)
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


def test_workers_by_their_slots(tmp_path: Path) -> None:
    log = Log()
    parallel = Parallel(2, retries=1, retry_backoff=0, batch_size=1, observers=[log])
    assert parallel(delayed(die_once)(str(tmp_path), x) for x in range(6)) == list(range(6))
    started, (ended,) = log.of(WorkerStarted), log.of(WorkerEnded)
    assert [event.worker for event in started[:2]] == [0, 1]
    for replacement in started[2:]:  # where there was enough to do for one
        assert replacement.worker == ended.worker and replacement.pid != ended.pid
    assert "SIGKILL" in ended.reason
    assert {event.worker for event in log.of(BatchAnswered)} <= {0, 1}
    [retried] = log.of(TaskRetried)
    assert retried.position == 2 and not log.of(TaskFailed)


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_failures(backend: str) -> None:
    log = Log()
    parallel = Parallel(
        2, backend, on_error="skip", retries=1, retry_on=ZeroDivisionError, retry_backoff=0,
        observers=[log],
    )  # fmt: skip
    assert parallel(delayed(invert)(x) for x in [1, 0, 2]) == [1.0, 0.5]
    [retried], [failed] = log.of(TaskRetried), log.of(TaskFailed)
    assert retried.position == failed.position == 1
    assert isinstance(failed.error, ZeroDivisionError) and log.events[-1].completed == 3


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_call_that_fails(backend: str) -> None:
    log = Log()
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(2, backend, observers=[log])(delayed(invert)(x) for x in [1, 0])
    assert log.events[-1].error is caught.value
    assert [event.position for event in log.of(TaskFailed)] == [1]


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_results_that_are_folded(backend: str) -> None:
    log = Log()
    parallel = Parallel(2, backend, reduce=operator.add, observers=[log])
    assert parallel(delayed(abs)(-x) for x in range(100)) == 4950
    assert log.of(BatchAnswered)[-1].completed == 100 and log.events[-1].completed == 100


@pytest.mark.parametrize("backend", ["processes", "sequential"])
def test_results_of_a_journal(backend: str, tmp_path: Path) -> None:
    for _ in range(2):
        log = Log()
        parallel = Parallel(2, backend, journal=tmp_path / "journal", observers=[log])
        assert parallel(delayed(abs)(-x) for x in range(5)) == list(range(5))
    assert sorted(event.position for event in log.of(ResultsResumed)) == list(range(5))
    assert log.events[-1].resumed == 5 and not log.of(BatchAnswered)


@pytest.mark.core
@pytest.mark.parametrize("reduce", [None, max])
@pytest.mark.parametrize("backend", [*BACKENDS, "joblib_style"])
def test_what_context_items_learn(
    backend: str, reduce: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "context_items_of_call", lambda *args, **kwargs: (Counting(),))
    log = Log()
    engine: Any = HeldJobs() if backend == "joblib_style" else backend
    parallel = Parallel(2, engine, on_error="skip", reduce=reduce, observers=[log])
    parallel(delayed(invert)(x - 5) for x in range(20))
    notes = [note for event in log.of(BatchAnswered) for note in event.notes]
    assert {name for name, _ in notes} == {"counting"}
    assert sorted(position for _, learned in notes for position in learned) == list(range(20))


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_an_observer_that_raises_is_reported_once(backend: str) -> None:
    class Bad:
        def notify(self, event: Any) -> None:
            raise ValueError("a bar is broken")

    log = Log()
    with pytest.warns(RuntimeWarning, match="the observer .* raised ValueError: a bar") as caught:
        results = Parallel(2, backend, observers=[Bad(), log])(delayed(abs)(x) for x in range(9))
    assert results == list(range(9)) and len(caught) == 1
    assert isinstance(log.events[-1], CallEnded)


def test_observers_of_a_context_and_of_an_executor() -> None:
    log = Log()
    with parallel_config(observers=[log]):
        Parallel(2)(delayed(abs)(x) for x in range(3))
        with get_executor(2) as executor:
            assert executor.submit(pow, 2, 5).result() == 32
    first, second = log.of(CallStarted)
    assert first.call != second.call and second.label == "get_executor(2)"
    assert len(log.of(CallEnded)) == 2


def test_observers_that_nobody_asked_for() -> None:
    log = Log()

    def make(owner: Any) -> Log | None:
        return log if isinstance(owner, Parallel) and owner.n_jobs == 2 else None

    observer_factories.append(make)
    try:
        Parallel(1)([delayed(abs)(1)])
        assert not log.events
        Parallel(2)([delayed(abs)(1)])
        assert isinstance(log.events[-1], CallEnded)
    finally:
        observer_factories.remove(make)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Log(), "must be a list of observers"),
        ([Log], "must be an object with a method notify"),
        ([print], "must be an object with a method notify"),
    ],
)
def test_what_is_no_observer(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Parallel(observers=given)
    with pytest.raises(TypeError, match=words):
        parallel_config(observers=given)


def test_looking_at_workers(tmp_path: Path) -> None:
    """A session tells which task each of its workers is on."""
    path = tmp_path / "go"
    views: list[Any] = []

    def tasks() -> Iterator[Any]:
        yield delayed(wait_for)(str(path), 0)
        yield delayed(wait_for)(str(path), 1)
        while not all(Path(f"{path}.{x}").exists() for x in range(2)):
            pass
        session = parallel._resources._session
        assert session is not None
        views.extend(session.look())
        path.touch()

    parallel = Parallel(2, batch_size=1)
    assert parallel(tasks()) == [0, 1]
    assert [view.worker for view in views] == [0, 1]
    assert sorted(view.position for view in views) == [0, 1]
    assert all(view.phase == "RUNNING" and view.queued == 1 for view in views)
