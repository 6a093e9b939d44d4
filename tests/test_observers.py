"""Observers are told what happens in a call, in order, and cannot do it any harm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deadly_tasks import die_once
from observed_tasks import Log, wait_for

from parallel_core import (
    BatchAnswered,
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
from parallel_core.observe.observers import observer_factories

pytestmark = pytest.mark.warm_workers

BACKENDS = ["processes", "threading", "sequential", "loky"]


class HeldJobs(ThreadingBackend):
    """A backend by joblib's conventions, whose tasks share the memory of the caller."""


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


@pytest.mark.parametrize("backend", ["processes", "sequential"])
def test_results_of_a_journal(backend: str, tmp_path: Path) -> None:
    for _ in range(2):
        log = Log()
        parallel = Parallel(2, backend, journal=tmp_path / "journal", observers=[log])
        assert parallel(delayed(abs)(-x) for x in range(5)) == list(range(5))
    assert sorted(event.position for event in log.of(ResultsResumed)) == list(range(5))
    assert log.events[-1].resumed == 5 and not log.of(BatchAnswered)


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
