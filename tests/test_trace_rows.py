"""Which slices of a trace come from which events, with events made by hand."""

from __future__ import annotations

import os
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trace_format import Trace

from parallel_core import (
    BatchAnswered,
    BatchSubmitted,
    CallEnded,
    CallerWaited,
    CallStarted,
    TaskFailed,
    TasksPulled,
    TasksStolen,
    TaskTimes,
    WorkerEnded,
    WorkersSeen,
    WorkerStarted,
    WorkerView,
)
from parallel_core.trace import file as trace_file
from parallel_core.trace import observer as trace_observer
from parallel_core.trace.file import TraceFile
from parallel_core.trace.observer import TraceObserver
from parallel_core.trace.target import Target

PID = 4_000_000  # of a worker that is none
START = 1000.0  # when the call starts, by the clock
Record = Callable[..., Trace]


class Clock:
    """Stands for the clock of the machine."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Return what writes a call to a trace, of events and of the times at which they come."""
    clock = Clock()
    monkeypatch.setattr(trace_file, "monotonic_ns", clock)
    monkeypatch.setattr(trace_observer, "monotonic_ns", clock)

    def write(*events: tuple[float, Any], backend: str = "processes") -> Trace:
        path = tmp_path / "run.json"
        observer = TraceObserver(TraceFile(Target(str(path))))
        observer.open()
        observer.notify(CallStarted(1, backend, 2, "a call", None))
        for at, event in events:
            clock.now = START + at
            observer.notify(event)
        observer.notify(CallEnded(1, 0, None, 0, None))
        return Trace(path)

    return write


def answer(
    first: int,
    tasks: int,
    began: float,
    ended: float,
    marks: tuple[tuple[float, int], ...] = (),
    worker: int | None = 0,
    pid: int = PID,
    loading: float = 0.0,
) -> BatchAnswered:
    """Return an answer with times after the start of the call."""
    numbers = [number for at, index in marks for number in (START + at, index)]
    times = TaskTimes(pid, START + ended, loading=loading, marks=array("d", numbers).tobytes())
    return BatchAnswered(1, worker, first, tasks, ended - began, 0, None, (), times)


def microseconds(event: dict[str, Any]) -> tuple[float, float]:
    """Return beginning and length of a slice."""
    return float(event["ts"]), float(event["dur"])


def named(trace: Trace, kind: str) -> list[tuple[str, int, int]]:
    """Return name, first task and number of tasks of the slices of a kind."""
    return [
        (event["name"], event["args"].get("task", -1), event["args"].get("tasks", 0))
        for event in trace.of("X", kind)
    ]


def test_spans_of_a_batch_that_is_answered_in_parts(record: Record) -> None:
    trace = record(
        (0.002, BatchSubmitted(1, 0, 10, 500, "work", 1e-3)),
        (0.006, answer(0, 4, 0.003, 0.005, ((0.003, 0), (0.0045, 3)), loading=1e-3)),
        (0.009, answer(4, 6, 0.005, 0.008)),
    )
    assert named(trace, "task") == [("work ×3", 0, 3), ("work", 3, 1), ("work ×6", 4, 6)]
    assert [microseconds(event) for event in trace.tasks] == [
        (3000, 1500),
        (4500, 500),
        (5000, 3000),
    ]
    load, batch = trace.of("X", "batch")
    assert load["name"] == "load" and microseconds(load) == (2000, 1000)
    assert batch["name"] == "batch of 10" and microseconds(batch) == (2000, 6000)
    assert batch["args"]["bytes"] == 500 and batch["args"]["loading_us"] == 1000
    [submit] = trace.of("X", "caller")
    assert submit["name"] == "submit" and microseconds(submit) == (1000, 1000)
    [begin], [end] = trace.of("s"), trace.of("f")
    assert (float(begin["ts"]), float(end["ts"])) == (1000, 2000)


def test_names_of_functions_that_differ(record: Record) -> None:
    odd = 'a"\\\n\x01é🎉'
    trace = record(
        (0.001, BatchSubmitted(1, 0, 1, 0, odd, 1e-5)),
        (0.002, BatchSubmitted(1, 1, 1, 0, "two", 1e-5)),
        (0.003, BatchSubmitted(1, 2, 1, 0, "", 1e-5)),
        (0.010, answer(1, 1, 0.004, 0.005)),
        (0.010, answer(2, 1, 0.005, 0.006)),
        (0.010, answer(0, 1, 0.006, 0.007)),
    )
    assert [name for name, _, _ in named(trace, "task")] == ["two", "task", odd]


def test_a_name_that_is_no_text(record: Record) -> None:
    trace = record(
        (0.001, BatchSubmitted(1, 0, 1, 0, "a\ud800", 1e-5)),
        (0.010, answer(0, 1, 0.004, 0.005)),
    )
    assert [name for name, _, _ in named(trace, "task")] == ["a?"]


def test_neighbours_do_not_overlap_by_a_nanosecond(record: Record) -> None:
    thirds = [index / 3e6 for index in range(3000)]
    answers = [
        (1.0, answer(index, 1, thirds[index], thirds[index + 1]))
        for index in range(len(thirds) - 1)
    ]
    assert len(record(*answers).tasks) == 2999


def test_answers_that_overlap_are_put_one_behind_the_other(record: Record) -> None:
    trace = record((0.1, answer(0, 1, 0.01, 0.03)), (0.1, answer(1, 1, 0.02, 0.025)))
    assert [microseconds(event) for event in trace.tasks] == [(10_000, 20_000), (30_000, 0)]


@pytest.mark.parametrize("shift", [-1e6, -5.0, 5.0, 1e6])
def test_a_worker_of_another_machine(record: Record, shift: float) -> None:
    trace = record(
        (0.010, BatchSubmitted(1, 0, 1, 0, "work", 1e-5)),
        (0.020, answer(0, 1, shift + 0.012, shift + 0.018)),
        (0.030, BatchSubmitted(1, 1, 1, 0, "work", 1e-5)),
        (0.040, answer(1, 1, shift + 0.032, shift + 0.037)),
    )
    first, second = map(microseconds, trace.tasks)
    assert first == (pytest.approx(14_000, abs=1), pytest.approx(6000, abs=1))
    assert second == (pytest.approx(34_000, abs=1), pytest.approx(5000, abs=1))


def test_an_engine_that_tells_nothing_has_as_many_rows_as_it_needs(record: Record) -> None:
    trace = record(
        *((at, BatchAnswered(1, None, first, 1, seconds, 0, None))
        for first, (at, seconds) in enumerate([(1.0, 0.9), (2.0, 0.9), (2.5, 60.0), (3.0, 0.4)])),
        backend="loky",
    )  # fmt: skip
    rows = [trace.row(event) for event in trace.tasks]
    assert rows == ["loky, row 0", "loky, row 0", "loky, row 1", "loky, row 0"]


def test_processes_of_an_engine_without_slots(record: Record) -> None:
    trace = record(
        (0.1, answer(0, 1, 0.01, 0.02, worker=None, pid=PID)),
        (0.1, answer(1, 1, 0.01, 0.02, worker=None, pid=PID + 1)),
    )
    rows = [trace.row(event) for event in trace.tasks]
    assert rows == [f"process {PID}", f"process {PID + 1}"]


def test_stolen_tasks_end_a_batch_early(record: Record) -> None:
    trace = record(
        (0.01, BatchSubmitted(1, 0, 10, 0, "work", 1e-5)),
        (0.03, TasksStolen(1, 4, 6)),
        (0.04, BatchSubmitted(1, 4, 6, 0, "work", 1e-5)),
        (0.06, answer(0, 4, 0.02, 0.05, worker=0, pid=PID)),
        (0.08, answer(4, 6, 0.05, 0.07, worker=1, pid=PID + 1)),
    )
    batches = [name for name, _, _ in named(trace, "batch")]
    assert batches == ["batch of 4", "batch of 6"]
    [steal] = trace.instants("steal")
    assert steal["args"] == {"task": 4, "tasks": 6}


def test_a_batch_that_is_stolen_whole_after_a_part_of_it(record: Record) -> None:
    trace = record(
        (0.01, BatchSubmitted(1, 0, 10, 0, "work", 1e-5)),
        (0.04, answer(0, 4, 0.02, 0.03)),
        (0.05, TasksStolen(1, 4, 6)),
    )
    assert [name for name, _, _ in named(trace, "batch")] == ["batch of 4"]


def test_threads_and_worker_processes_that_take_a_place(record: Record) -> None:
    trace = record(
        (0.01, WorkerStarted(1, 0, PID)),
        (0.02, BatchAnswered(1, 0, 0, 1, 1e-6, 1, None)),
        (0.03, WorkerEnded(1, 0, PID, "was killed by SIGKILL")),
        (0.04, WorkerStarted(1, 0, PID + 1)),
        (0.07, answer(1, 1, 0.05, 0.06, worker=0, pid=PID + 1)),
        (0.07, answer(2, 1, 0.05, 0.06, worker=3, pid=os.getpid())),
    )
    assert [trace.row(event) for event in trace.tasks] == [
        f"worker 0 (pid {PID})",
        f"worker 0 (pid {PID + 1})",
        "worker 3 (thread)",
    ]
    [ended] = trace.instants("worker ended")
    assert ended["args"]["reason"] == "was killed by SIGKILL" and ended["tid"] == PID


def test_the_row_of_the_caller(record: Record) -> None:
    trace = record(
        (0.02, TasksPulled(1, 3, 2, 0.01, START + 0.02)),
        (0.04, CallerWaited(1, 0.01, START + 0.04)),
        (0.05, WorkersSeen(1, 0, None, ())),
        (0.06, CallerWaited(1, 0.01, START + 0.06)),
        (0.09, TasksPulled(1, 5, 0, 0.01, START + 0.08)),
        (0.10, CallerWaited(1, 0.01, START + 0.10)),
    )
    slices = trace.of("X", "caller")
    assert [event["name"] for event in slices] == ["pull", "wait", "pull", "wait"]
    assert [microseconds(event) for event in slices] == [
        (10_000, 10_000),
        (30_000, 30_000),  # a wait in which the caller looked at the workers is one
        (70_000, 10_000),
        (90_000, 10_000),
    ]
    assert slices[0]["args"] == {"task": 3, "tasks": 2}


def test_counters(record: Record) -> None:
    views = (WorkerView(0, PID, 1, 3_000_000, "RUNNING"), WorkerView(1, PID + 1))
    trace = record(
        (0.01, BatchSubmitted(1, 0, 10, 0)),
        (0.02, WorkersSeen(1, 7, 10, views)),
        (0.021, WorkersSeen(1, 8, 10, ())),  # so soon after the last that it is left out
    )
    assert trace.counter("workers busy") == [1]
    assert [float(each) for each in trace.counter("memory of workers (MB)")] == [3.0]
    assert trace.counter("tasks done") == [0, 7, 0]
    assert trace.counter("tasks submitted, not done") == [0, 3, 10]


def test_an_error_that_has_no_words(record: Record) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    trace = record(
        (0.1, TaskFailed(1, 0, Silent())), (0.2, TaskFailed(1, 1, ValueError("x" * 10_000)))
    )
    silent, long = (event["args"]["error"] for event in trace.instants("failure"))
    assert silent == "Silent" and len(long) < 400


def test_what_is_kept_does_not_grow(tmp_path: Path) -> None:
    observer = TraceObserver(TraceFile(Target(str(tmp_path / "run.json"), None)))
    observer.open()
    observer.notify(CallStarted(1, "processes", 2, "a call", None))

    def run(first: int, last: int) -> None:
        for n in range(first, last):
            at = n * 1e-3 - START
            observer.notify(BatchSubmitted(1, n, 1, 0, f"work {n % 100}", 1e-6))
            observer.notify(WorkerStarted(1, 0, 100_000 + n))
            observer.notify(answer(n, 1, at, at + 1e-4, pid=100_000 + n))
            observer.notify(WorkerEnded(1, 0, 100_000 + n, "left"))

    run(0, 500)
    tracemalloc.start()
    run(500, 2000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    observer.notify(CallEnded(1, 2000, 2000, 0, None))
    assert grown < 200_000
    assert len(Trace(tmp_path / "run.json").tasks) == 2000
