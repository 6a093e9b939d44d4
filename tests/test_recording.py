"""Workers record when tasks began, and what they spend beside running them."""

from __future__ import annotations

import itertools
import os
from array import array
from typing import Any

import pytest
from recorded_tasks import SlowToLoad, be_slow_to_pickle, fail_after, same, take_slow, wait

from parallel_core import BatchAnswered, Parallel, Span, TaskTimes, delayed
from parallel_core.workers.recorder import MARK_SECONDS, Recorder

pytestmark = pytest.mark.warm_workers


class Answers:
    """Keeps what was told of answers."""

    def __init__(self) -> None:
        self.events: list[BatchAnswered] = []

    def notify(self, event: Any) -> None:
        if isinstance(event, BatchAnswered):
            self.events.append(event)

    @property
    def times(self) -> list[TaskTimes]:
        return [event.times for event in self.events if event.times is not None]

    def spans(self) -> list[Span]:
        """Return the spans of all answers, in the order of the tasks."""
        found = []
        for event in self.events:
            if not event.tasks:
                continue  # the end of a batch, all of whose tasks were answered before
            assert event.times is not None
            spans = event.times.spans(event.first, event.tasks, event.seconds)
            assert spans[0].began >= event.times.ended - event.seconds - 1e-9
            assert spans[-1].ended == event.times.ended
            for before, after in itertools.pairwise(spans):
                assert before.began <= before.ended == after.began <= after.ended
                assert before.first + before.tasks == after.first
            found += spans
        return sorted(found)


def told(function: Any, arguments: list[Any], **params: Any) -> Answers:
    answers = Answers()
    Parallel(**params, observers=[answers])(delayed(function)(*args) for args in arguments)
    return answers


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "threading", "loky", "sequential"])
def test_a_long_task_has_a_span_of_its_own(backend: str) -> None:
    seconds = [0.0, 0.002, 0.0, 0.0, 0.003, 0.0, 0.0, 0.0, 0.0, 0.002] * 3
    answers = told(wait, [(each,) for each in seconds], n_jobs=2, backend=backend, batch_size=10)
    spans = answers.spans()
    assert sum(span.tasks for span in spans) == 30
    assert [span.first for span in spans] == [
        sum(span.tasks for span in spans[:index]) for index in range(len(spans))
    ]
    of_long = {span.first: span for span in spans if seconds[span.first]}
    for position in (position for position in range(30) if seconds[position]):
        span = of_long[position]
        assert span.tasks == 1
        assert span.ended - span.began >= seconds[position]


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_tiny_tasks_are_told_together(backend: str) -> None:
    answers = told(abs, [(x,) for x in range(20_000)], n_jobs=2, backend=backend)
    spans = answers.spans()
    assert sum(span.tasks for span in spans) == 20_000
    assert len(spans) < 10_000


def test_who_has_run_them() -> None:
    answers = told(wait, [(0.001,)] * 8, n_jobs=2)
    assert os.getpid() not in {times.pid for times in answers.times}
    here = told(wait, [(0.001,)] * 8, n_jobs=1)
    assert {times.pid for times in here.times} == {os.getpid()}


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_loading_an_argument_is_told(backend: str) -> None:
    arguments = [(SlowToLoad(0.004), x) for x in range(6)]
    answers = told(take_slow, arguments, n_jobs=2, backend=backend, batch_size=3)
    assert sum(times.loading for times in answers.times) >= 6 * 0.004
    assert all(
        event.times is not None and event.times.loading <= event.seconds for event in answers.events
    )


def test_loading_a_function_is_told() -> None:
    slow = SlowToLoad(0.01)

    def use(x: int) -> float:
        return x * slow.seconds

    answers = told(use, [(x,) for x in range(4)], n_jobs=2, batch_size=2)
    assert sum(times.loading for times in answers.times) >= 0.01


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_pickling_a_result_is_told(backend: str) -> None:
    answers = told(be_slow_to_pickle, [(0.004,)] * 6, n_jobs=2, backend=backend, batch_size=3)
    assert sum(times.pickling for times in answers.times) >= 6 * 0.004


@pytest.mark.parametrize("backend", ["processes", "loky"])
@pytest.mark.parametrize("size", [5000, 100_000, 5_000_000])
def test_bytes_of_results_are_told(backend: str, size: int) -> None:
    answers = told(same, [([b"x" * size],)] * 4, n_jobs=2, backend=backend)
    nbytes = sum(times.nbytes for times in answers.times)
    assert 4 * size <= nbytes < 4 * size + 2000


def test_arrays_count_in_the_bytes() -> None:
    numpy = pytest.importorskip("numpy")
    answers = told(numpy.zeros, [(300_000,)] * 4, n_jobs=2)
    assert sum(times.nbytes for times in answers.times) >= 4 * 8 * 300_000


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_a_failed_task_has_a_span(backend: str) -> None:
    tasks = [(0.002, x) for x in range(6)]
    answers = told(fail_after, tasks, n_jobs=2, backend=backend, batch_size=6, on_error="skip")
    spans = answers.spans()
    assert [span.first for span in spans] == list(range(6))
    assert all(span.ended - span.began >= 0.002 for span in spans)


def test_what_is_short_is_not_sent() -> None:
    recorder = Recorder()
    recorder.begin(5.0, 0)
    assert recorder.take(5.0001, 1, 0) == (os.getpid(), 5.0001)


def test_marks_are_bounded() -> None:
    recorder = Recorder()
    recorder.begin(0.0, 0)
    for index in range(1, 100_000):
        recorder.add(index, index * MARK_SECONDS)
    *_, marks = recorder.take(100_000 * MARK_SECONDS, 100_000, 0)
    assert len(marks) == 8 << 13
    spans = TaskTimes(1, 50.0, marks=marks).spans(0, 100_000, 50.0)
    assert spans[-1].first + spans[-1].tasks == 100_000


def test_marks_go_forward() -> None:
    recorder = Recorder()
    recorder.begin(1.0, 0)
    for index, at in ((-1, 0.9), (0, 1.00001), (2, 1.5), (2, 1.6), (1, 1.7), (3, 1.8)):
        recorder.add(index, at)
    *_, marks = recorder.take(2.0, 4, 0)
    found = array("d")
    found.frombytes(marks)
    assert list(found) == [1.5, 2, 1.8, 3]


def test_what_is_not_measured_is_estimated() -> None:
    recorder = Recorder()
    recorder.begin(0.0, 0)
    assert recorder.is_timing
    recorder.unpickling = 0.25  # a quarter of the time, measured
    recorder.end_interval(1.0, 1_000_000)
    assert not recorder.is_timing
    recorder.end_interval(2.0, 2_000_000)
    recorder.pickling = 0.0
    *_, loading, pickling, _, nbytes, marks = recorder.take(3.0, 3_000_000, 0)
    assert (loading, pickling, nbytes, marks) == (0.75, 0.0, 0, b"")


def test_tiny_tasks_are_measured_again_now_and_then() -> None:
    recorder = Recorder()
    recorder.begin(0.0, 0)
    states = []
    for number in range(1, 65):
        recorder.end_interval(number * 1e-3, number * 1000)
        states.append(recorder.is_timing)
    assert sum(states) == 4


def test_a_batch_that_is_slow_to_unpickle_counts_as_loading() -> None:
    recorder = Recorder()
    recorder.unpickled = 2.0
    assert recorder.begin(10.0, 0) == 8.0
    assert recorder.take(11.0, 1, 0)[2] == 2.0
    recorder.resume(11.0)
    recorder.unpickled = 1e9  # it was read while the batch before it ran
    ended = recorder.begin(12.0, 1)
    assert ended >= 11.0
