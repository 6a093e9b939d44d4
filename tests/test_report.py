"""`Parallel.report` tells where the time of a call went."""

from __future__ import annotations

import gc
import sys
import time
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_tasks import fail_once, length, numbers, same, wait

from parallel_core import Parallel, Report, WorkerPool, delayed, last_report, pmap
from parallel_core.insights import record as records
from parallel_core.insights.record import CallRecord
from parallel_core.insights.totals import WorkerTotals
from parallel_core.observe.events import TaskTimes
from parallel_core.serialization.batch import Batch

pytestmark = pytest.mark.warm_workers

BACKENDS = ["processes", "threading", "loky"]
KEYS = [
    "label",
    "backend",
    "n_jobs",
    "seconds",
    "tasks",
    "total",
    "failed",
    "retried",
    "resumed",
    "efficiency",
    "caller",
    "workers",
    "batches",
    "bytes_sent",
    "bytes_received",
    "shared_memory",
    "slowest",
    "deaths",
    "advice",
]


def reported(function: Callable[..., Any], tasks: list[Any], **params: Any) -> Report:
    with Parallel(**{"n_jobs": 2, **params}) as parallel:
        if parallel.n_jobs > 1 and "journal" not in params:
            parallel(delayed(wait)(0.01) for _ in range(4))  # so that the workers are there
        parallel(delayed(function)(*args) for args in tasks)
        return parallel.report()


@pytest.mark.core
@pytest.mark.measures
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_report_adds_up(backend: str) -> None:
    report = reported(wait, [(0.004,)] * 20, backend=backend)
    assert list(report) == KEYS
    assert (report["tasks"], report["total"], report["n_jobs"]) == (20, 20, 2)
    assert report["backend"] == backend and report["label"] == "Parallel(n_jobs=2)"
    workers = report["workers"]
    assert sum(worker["tasks"] for worker in workers) == 20
    for worker in workers:
        assert worker["working"] >= 0.004 * worker["tasks"]
        parts = ("start_up", "waiting", "loading", "working", "pickling", "sending")
        assert all(worker[part] >= 0 for part in parts)
        assert sum(worker[part] for part in parts) == pytest.approx(report["seconds"], rel=0.01)
    assert sum(report["caller"].values()) == pytest.approx(report["seconds"], rel=0.01)
    assert 0 < report["efficiency"] <= 1
    assert sum(batch["tasks"] for batch in report["batches"]) >= 20
    assert report["batches"] == sorted(report["batches"], key=lambda batch: batch["at"])


def test_workers_have_their_numbers() -> None:
    workers = reported(wait, [(0.01,)] * 8, batch_size=1)["workers"]
    assert [worker["worker"] for worker in workers] == [0, 1]
    assert len({worker["pid"] for worker in workers}) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_slowest_tasks(backend: str) -> None:
    seconds = [0.0, 0.05, 0.0, 0.05, 0.0, 0.0, 0.3, 0.2, 0.01, 0.0]
    report = reported(wait, [(each,) for each in seconds], backend=backend, batch_size=1)
    slowest = report["slowest"]
    assert [slow["position"] for slow in slowest][:2] == [6, 7]
    assert {1, 3} <= {slow["position"] for slow in slowest} and len(slowest) == 5
    assert slowest[0]["call"] == "recorded_tasks.wait(0.3)" and slowest[0]["seconds"] >= 0.3


def test_a_slow_task_within_a_batch() -> None:
    seconds = [0.0] * 30
    seconds[17] = 0.1
    report = reported(wait, [(each,) for each in seconds], batch_size=30)
    assert report["slowest"][0]["position"] == 17


class Quiet:
    """An object whose ``repr`` must not be asked for."""

    def __repr__(self) -> str:
        raise AssertionError("this could take for ever")


@pytest.mark.parametrize("prefer", ["processes", "threads"])
def test_words_run_nothing_of_the_user(prefer: Any) -> None:
    tasks = [(0.01, Quiet(), [1, 2], "a", {"b": 1})] * 2
    report = reported(wait_besides, tasks, prefer=prefer)
    expected = "<list of 2 items>" if prefer == "threads" else "[1, 2]"
    for slow in report["slowest"]:
        assert "Quiet>, " + expected in slow["call"] and "raised" not in slow["call"]


def wait_besides(seconds: float, *besides: Any) -> float:
    return wait(seconds)


def test_bytes_each_way() -> None:
    # Nothing waits in a worker's queue, so nothing is taken back from there and sent once more.
    report = reported(same, [([b"x" * 50_000],)] * 6, batch_size=1, pre_dispatch="n_jobs")
    assert 300_000 <= report["bytes_sent"] < 310_000
    assert 300_000 <= report["bytes_received"] < 310_000
    assert report["shared_memory"] == 0


def test_arrays_in_shared_memory() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.zeros(500_000)
    with Parallel(n_jobs=2) as parallel:
        for shared in (4_000_000, 0):  # the second call finds it there
            parallel(delayed(length)(array, x) for x in range(4))
            report = parallel.report()
            assert shared <= report["shared_memory"] < shared + 100_000
            assert report["bytes_sent"] < 100_000


def test_results_are_read() -> None:
    report = reported(numbers, [(100_000,)] * 4)
    assert report["caller"]["reading"] > 0
    assert sum(worker["pickling"] for worker in report["workers"]) > 0


def test_failures_and_retries(tmp_path: Path) -> None:
    tasks = [(str(tmp_path), x) for x in range(4)]
    report = reported(fail_once, tasks, retries=1, retry_on=OSError)
    assert (report["tasks"], report["failed"], report["retried"]) == (4, 0, 4)
    report = reported(pow, [(0, -1), (1, 1)], on_error="return")
    assert (report["tasks"], report["failed"]) == (2, 1)


def test_a_call_that_failed() -> None:
    parallel = Parallel(n_jobs=2)
    with pytest.raises(ZeroDivisionError):
        parallel(delayed(divmod)(1, x) for x in (1, 0))
    assert parallel.report()["failed"] == 1


def test_results_of_a_journal(tmp_path: Path) -> None:
    for resumed in (0, 5):
        report = reported(abs, [(x,) for x in range(5)], journal=tmp_path / "j")
        assert (report["resumed"], report["tasks"]) == (resumed, 5)


def test_without_workers() -> None:
    report = reported(abs, [(x,) for x in range(5)], n_jobs=1)
    assert (report["tasks"], report["workers"], report["advice"]) == (5, [], [])
    assert "5 tasks in" in str(report) and "in the calling thread" in str(report)
    assert "<svg" not in report._repr_html_()


def test_before_any_call() -> None:
    with pytest.raises(RuntimeError, match="make a call of this Parallel object first"):
        Parallel(n_jobs=2).report()


def test_in_the_middle_of_a_call() -> None:
    parallel = Parallel(n_jobs=2, return_as="generator")
    results = parallel(delayed(wait)(0.002) for _ in range(10))
    next(results)
    first = parallel.report()
    assert 1 <= first["tasks"] <= 10
    assert len(list(results)) == 9
    last = parallel.report()
    assert last["tasks"] == 10 and last["seconds"] >= first["seconds"]
    assert last["bytes_sent"] == first["bytes_sent"] == 0


def test_each_call_has_its_own() -> None:
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(abs)(x) for x in range(100))
        before = parallel.report()
        parallel(delayed(abs)(x) for x in range(3))
        after = parallel.report()
    assert (before["tasks"], after["tasks"]) == (100, 3)
    assert after["seconds"] < sum(after["caller"].values()) * 1.01


def test_as_text() -> None:
    text = str(reported(wait, [(0.004,)] * 10))
    for words in (
        "Parallel(n_jobs=2): 10 tasks in",
        "on 2 workers of backend 'processes'",
        "Time of the caller",
        "pulling",
        "Time of the workers",
        "start-up",
        "Slowest tasks",
        "recorded_tasks.wait(0.004)",
    ):
        assert words in text
    assert all(len(line) < 100 for line in text.partition("Advice")[0].splitlines())


def test_as_a_picture() -> None:
    report = reported(wait, [(0.004,)] * 10)
    html = report._repr_html_()
    svg = html[html.index("<svg") : html.index("</svg>") + len("</svg>")]
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img" and root.find(f"{space}title") is not None
    rects = root.findall(f"{space}rect")
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert len(rects) >= 4
    for rect in rects:
        x, y = float(rect.get("x", -1)), float(rect.get("y", -1))
        assert x >= 0 and x + float(rect.get("width", 0)) <= width + 1 and 0 <= y < height
    assert "<script" not in html and "http://" not in html.replace("http://www.w3.org", "")


def test_what_a_picture_shows_is_escaped() -> None:
    html = reported(same_after, [("<b>&amp;", 0.01)])._repr_html_()
    assert "<b>&amp;" not in html.replace("<b>Parallel", "")
    assert "&lt;b&gt;" in html


def same_after(value: Any, seconds: float) -> Any:
    return wait(seconds) and value


def test_as_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    report = reported(wait, [(0.004,)] * 10, batch_size=1)
    frame = report.to_frame()
    assert isinstance(frame, pandas.DataFrame) and frame.index.name == "worker"
    assert frame["tasks"].sum() == 10 and (frame["working"] > 0).all()
    assert list(reported(abs, [(1,)], n_jobs=1).to_frame().columns) == list(frame.columns)


def test_a_frame_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    report = reported(abs, [(1,)])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        report.to_frame()


def test_the_report_of_a_pool() -> None:
    with WorkerPool(n_jobs=2, start_method="processes") as pool:
        with pytest.raises(RuntimeError, match="no map of this pool has ended"):
            pool.report()
        pool.map(wait, [0.004] * 10)
        assert pool.report()["tasks"] == 10
        assert len(list(pool.imap(wait, [0.001] * 5))) == 5
        assert pool.report()["tasks"] == 5


def test_the_report_of_a_call_of_somebody_else() -> None:
    pmap(abs, range(-7, 0), n_jobs=2)
    assert last_report()["tasks"] == 7


def test_nothing_of_the_user_is_kept() -> None:
    class Big:
        pass

    result = Big()
    watched = weakref.ref(result)
    parallel = Parallel(n_jobs=2, prefer="threads")
    found = parallel(delayed(wait_besides)(0.01, value) for value in [result])
    del result, found
    gc.collect()
    assert watched() is None
    assert "Big>" in parallel.report()["slowest"][0]["call"]


def test_a_record_is_bounded() -> None:
    record = CallRecord("processes", 2, "", 0.0)
    n, batch = 20_000, Batch(0, 10, [], {})
    for number in range(n):
        at = number * 0.01
        record.submit(at, 0.001, 10, 5)
        times = TaskTimes(number % 2, at + 0.005, marks=b"")
        record.take((at + 0.006, number % 2, number * 10, 10, 0.005, times), batch)
    assert len(record.answers) < 2048 and len(record.batches) <= 1024
    workers = record.workers()
    assert [totals.tasks for totals in workers] == [n * 5, n * 5]
    assert sum(batch[2] for batch in record.batches) == n * 10
    assert sum(batch[3] for batch in record.batches) == n * 5
    for totals in workers:
        assert len(totals.slices) <= 400
        assert sum(one.tasks for one in totals.slices) == n * 5
        assert totals.working == pytest.approx(n / 2 * 0.005)


def test_the_clock_of_another_machine() -> None:
    answers = [(100.0 + at, None, 0, 1, 0.5, TaskTimes(7, 5000.0 + at)) for at in (1.0, 2.0, 3.0)]
    totals = WorkerTotals(answers[0], 100.0, is_local=False)
    for answer in answers:
        totals.take(answer)
    assert totals.waiting == pytest.approx(1.5) and totals.working == pytest.approx(1.5)
    assert totals.slices[-1].ended == pytest.approx(103.0)


def test_sending_is_part_of_what_lies_between() -> None:
    first = TaskTimes(1, 1.0)
    second = TaskTimes(1, 3.0, loading=0.25, pickling=0.25, sending=0.75)
    totals = WorkerTotals((1.1, 0, 0, 1, 0.5, first), 0.0, is_local=True)
    totals.take((1.1, 0, 0, 1, 0.5, first))
    totals.take((3.1, 0, 1, 1, 1.5, second))  # it began 0.5 s after the first was answered
    assert totals.sending == 0.75 and totals.waiting == 0.5
    assert totals.working == pytest.approx(0.5 + 1.5 - 0.25 - 0.5)


def test_tasks_that_take_ever_longer_are_not_all_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described: list[int] = []

    def words_for(batch: Any, index: int, is_held: bool) -> str:
        described.append(index)
        return "f()"

    monkeypatch.setattr("parallel_core.insights.words.words_for", words_for)
    record = CallRecord("processes", 2, "", 0.0)

    for number in range(1000):
        seconds = 0.01 + number * 1e-5
        times = TaskTimes(1, number + seconds)
        record.take((number + 1.0, 0, number, 1, seconds, times), Batch(0, 1000, [], {}))
    assert len(described) < 100
    assert len(record.slowest) == records.SLOWEST
    assert record.slowest[0].seconds >= 0.019


def test_a_report_takes_no_time_from_a_call() -> None:
    parallel = Parallel(n_jobs=2)
    parallel(delayed(time.sleep)(0) for _ in range(50))
    assert parallel.report()["seconds"] == parallel.report()["seconds"]
