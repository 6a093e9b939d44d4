"""A trace is true, is complete however a call ends, and does no harm."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deadly_tasks import die_once
from simple_tasks import invert
from trace_format import Trace
from traced_tasks import call_within, pause, trace_within

from parallel_core import (
    Parallel,
    WorkerPool,
    delayed,
    get_executor,
    parallel_config,
    pmap,
)
from watching import HOME, wait_until

pytestmark = pytest.mark.warm_workers

BACKENDS = ["processes", "threading", "sequential", "loky"]
HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_task_is_in_it_once(backend: str, return_as: str, path: Path) -> None:
    parallel = Parallel(2, backend, return_as=return_as, trace=path)
    found = parallel(delayed(pause)(0.002, x) for x in range(40))
    assert sorted(found) == list(range(40))
    trace = Trace(path)
    assert trace.positions() == Counter(range(40))
    [call], [end] = trace.of("b"), trace.of("e")
    assert call["name"] == "Parallel(n_jobs=2)" and call["args"]["tasks"] == 40
    assert end["args"] == {"completed": 40, "resumed": 0}
    assert trace.counter("tasks done")[-1] == 40
    assert trace.counter("tasks submitted, not done")[-1] == 0


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_rows_of_workers_and_of_the_caller(backend: str, path: Path) -> None:
    Parallel(2, backend, trace=path)(delayed(pause)(0.005, x) for x in range(30))
    trace = Trace(path)
    workers = {trace.row(event) for event in trace.tasks}
    kind = "(pid" if backend == "processes" else "(thread)"
    assert {name.partition("(")[0] for name in workers} == {"worker 0 ", "worker 1 "}
    assert all(kind in name for name in workers)
    names = {event["name"].partition(" ")[0] for event in trace.tasks}
    assert names == {"traced_tasks.pause"}
    on_caller = {event["name"] for event in trace.of("X") if trace.row(event) == "caller"}
    assert {"pull", "submit", "wait"} <= on_caller
    batches = trace.of("X", "batch")
    assert sum(event["args"]["tasks"] for event in batches if event["name"] != "load") == 30
    assert len(trace.of("s")) == len(trace.of("f")) > 0


def test_short_tasks_are_told_together(path: Path) -> None:
    Parallel(2, trace=path)(delayed(abs)(-x) for x in range(20_000))
    trace = Trace(path)
    assert trace.positions() == Counter(range(20_000)) and len(trace.tasks) < 5000
    [name] = {event["name"].partition(" ")[0] for event in trace.tasks}
    assert name == "abs"
    assert any(event["name"] == f"abs ×{event['args']['tasks']}" for event in trace.tasks)


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_long_task_has_a_slice_of_its_own(backend: str, path: Path) -> None:
    seconds = [0.0, 0.0, 0.02, 0.0, 0.0] * 4
    parallel = Parallel(2, backend, batch_size=5, trace=path)
    parallel(delayed(pause)(each, x) for x, each in enumerate(seconds))
    trace = Trace(path)
    assert trace.positions() == Counter(range(20))
    slices = {event["args"]["task"]: event for event in trace.tasks if event["dur"] >= 20_000}
    for position in (2, 7, 12, 17):
        assert slices[position]["args"]["tasks"] == 1


def test_a_worker_that_dies(path: Path, tmp_path: Path) -> None:
    parallel = Parallel(2, retries=1, retry_backoff=0, batch_size=1, trace=path)
    parallel(delayed(die_once)(str(tmp_path), x) for x in range(30))
    trace = Trace(path)
    [ended], [retry] = trace.instants("worker ended"), trace.instants("retry")
    assert "SIGKILL" in ended["args"]["reason"] and retry["args"]["task"] == 2
    assert retry["name"] == "retry: WorkerDiedError"
    assert trace.row(ended) == f"worker {ended['args']['worker']} (pid {ended['args']['pid']})"
    assert len(trace.instants("worker is ready")) >= 2
    assert trace.positions() == Counter([2, *range(30)])  # each attempt has a slice


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_failures_on_the_row_where_they_happened(backend: str, path: Path) -> None:
    parallel = Parallel(2, backend, on_error="skip", batch_size=2, trace=path)
    assert parallel(delayed(invert)(x) for x in [1, 0, 2, 4]) == [1.0, 0.5, 0.25]
    trace = Trace(path)
    [failure] = trace.instants("failure")
    assert failure["name"] == "failure: ZeroDivisionError" and failure["args"]["task"] == 1
    assert "division by zero" in failure["args"]["error"]
    if backend != "sequential":
        assert trace.row(failure).startswith("worker")


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_call_that_fails(backend: str, return_as: str, path: Path) -> None:
    parallel = Parallel(2, backend, return_as=return_as, trace=path)
    with pytest.raises(ZeroDivisionError):
        list(parallel(delayed(invert)(x) for x in [1, 2, 0, 3]))
    [end] = Trace(path).of("e")
    assert "ZeroDivisionError" in end["args"]["error"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_an_iterable_that_raises(backend: str, error: type[BaseException], path: Path) -> None:
    def tasks() -> Iterator[Any]:
        for x in range(10):
            yield delayed(pause)(0.001, x)
        raise error("enough")

    with pytest.raises(error):
        Parallel(2, backend, batch_size=1, trace=path)(tasks())
    [end] = Trace(path).of("e")
    assert end["args"]["error"] == f"{error.__name__}: enough"


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_generator_that_is_left(backend: str, path: Path) -> None:
    parallel = Parallel(2, backend, return_as="generator", trace=path)
    with parallel:
        results = parallel(delayed(pause)(0.001, x) for x in range(100))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        results.close()
        assert list(parallel(delayed(abs)(-x) for x in range(3))) == [0, 1, 2]
    assert len(Trace(path).of("b")) == 2


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_program_that_is_killed_leaves_what_was_written(name: str, tmp_path: Path) -> None:
    program = f"""
import time
from parallel_core import Parallel, delayed
from traced_tasks import pause
Parallel(2, trace={name!r})(delayed(pause)(0.005, x) for x in range(10**6))
"""
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HOME}"}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment
    ) as process:
        path = tmp_path / name
        try:
            wait_until(lambda: path.exists() and path.stat().st_size > 3000, "it is written")
        finally:
            process.send_signal(signal.SIGKILL)
    trace = Trace(path, is_complete=False)
    positions = trace.positions()
    assert positions and set(positions.values()) == {1}
    assert len(trace.of("b")) == 1 and not trace.of("e")


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_calls_of_one_object_are_in_one_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("something else")
    parallel = Parallel(2, trace=str(path))
    for n in range(1, 5):
        parallel(delayed(abs)(-x) for x in range(n))
        trace = Trace(path)
        assert [event["args"]["tasks"] for event in trace.of("b")] == list(range(1, n + 1))
    assert sum(trace.positions().values()) == 10
    assert len([name for name in trace.rows.values() if name == "caller"]) == 1
    Parallel(2, trace=str(path))([delayed(abs)(-1)])  # another object begins the file anew
    assert len(Trace(path).of("b")) == 1


@pytest.mark.parametrize("change", ["removed", "written"])
def test_a_file_that_somebody_changes_is_begun_anew(change: str, path: Path) -> None:
    parallel = Parallel(2, trace=path)
    parallel([delayed(abs)(-1)])
    if change == "removed":
        path.unlink()
    else:
        path.write_text("something else")
    parallel(delayed(abs)(-x) for x in range(5))
    assert [event["args"]["tasks"] for event in Trace(path).of("b")] == [5]


def test_the_folder_of_the_first_call_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Parallel(2, trace="run.json")([delayed(abs)(-1)])
        assert len(Trace(tmp_path / name / "run.json").of("b")) == 1


def test_all_calls_of_a_block(path: Path) -> None:
    with parallel_config(trace=path, n_jobs=2):
        Parallel()(delayed(abs)(-x) for x in range(3))
        assert list(pmap(abs, [-1, -2], n_jobs=2)) == [1, 2]
        with WorkerPool(2) as pool:
            assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
        with get_executor(2) as executor:
            assert executor.submit(abs, -1).result() == 1
        Parallel(trace=None)(delayed(abs)(-x) for x in range(3))  # but this one
    Parallel(2)(delayed(abs)(-x) for x in range(3))
    trace = Trace(path)
    assert sum(trace.positions().values()) == 3 + 2 + 3 + 1
    assert len(trace.of("b")) == 4


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_calls_within_tasks_are_not_in_that_of_a_block(backend: str, path: Path) -> None:
    with parallel_config(trace=path):
        parallel = Parallel(2, backend)
        assert parallel(delayed(call_within)(x) for x in range(3)) == [0, 3, 6]
    assert len(Trace(path).of("b")) == 1


def test_a_call_within_the_iterable_of_another(path: Path) -> None:
    inner = Parallel(2, trace=path)

    def tasks() -> Iterator[Any]:
        for x in range(5):
            inner(delayed(pause)(0.001, y) for y in range(4))
            yield delayed(pause)(0.001, x)

    with parallel_config(trace=path):
        Parallel(2)(tasks())
    trace = Trace(path)
    assert len(trace.of("b")) == 6 and sum(trace.positions().values()) == 25


def test_calls_of_several_threads_share_a_file(path: Path) -> None:
    started = threading.Barrier(4)

    def run(number: int) -> None:
        def tasks() -> Iterator[Any]:
            started.wait()  # all have begun their calls
            yield from (delayed(pause)(0.001, x) for x in range(25))

        backend = "processes" if number % 2 else "threading"
        Parallel(2, backend, trace=path)(tasks())

    threads = [
        threading.Thread(target=run, args=(number,), name=f"thread {number}") for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace = Trace(path)
    assert len(trace.of("b")) == 4 and trace.positions() == Counter(4 * list(range(25)))
    callers = {name for name in trace.rows.values() if name.startswith("caller")}
    assert callers == {f"caller, thread {number}" for number in range(4)}


@pytest.mark.core
def test_more_events_than_wanted(path: Path) -> None:
    parallel = Parallel(2, batch_size=1, trace={"path": path, "max_events": 50})
    with pytest.warns(RuntimeWarning, match="has the first 50 events; left out were .* tasks"):
        parallel(delayed(pause)(0.001, x) for x in range(100))
    parallel([delayed(abs)(-1)])  # it is said once
    trace = Trace(path, is_complete=False)
    [note] = trace.instants("left out")
    said = note["args"]
    assert said["max_events"] == 50 and said["tasks"] == 101 - sum(trace.positions().values())
    others = [event for event in trace.events if event is not note]
    assert len(others) == 50 + 2  # two say what the file and the process are
    assert trace.events[-1] is note


def test_no_limit(path: Path) -> None:
    Parallel(2, trace={"path": path, "max_events": None})([delayed(abs)(-1)])
    assert Trace(path).positions() == Counter([0])


@pytest.mark.core
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (3, TypeError, "trace must be a path"),
        (b"run.json", TypeError, "trace must be a path"),
        (True, TypeError, "trace must be a path"),
        ("", ValueError, "trace must be the path of a file"),
        ({"max_events": 3}, TypeError, "needs a 'path'"),
        ({"path": "x", "max": 3}, TypeError, "no option 'max'; known are 'path' and 'max_events'"),
        ({"path": "x", "max_events": 0}, ValueError, "number of events or None, not 0"),
        ({"path": "x", "max_events": True}, ValueError, "number of events or None, not True"),
    ],
)
@pytest.mark.parametrize("door", [Parallel, parallel_config])
def test_what_is_no_trace(
    door: Callable[..., object], given: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        door(trace=given)


def places(folder: Path) -> dict[str, tuple[Path, type[Exception], str]]:
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return {
        "missing": (folder / "none" / "run.json", FileNotFoundError, "No such file or directory"),
        "folder": (folder / "folder", IsADirectoryError, "Is a directory"),
        "pipe": (folder / "pipe", OSError, "this is not a regular file"),
        "full": (Path("/dev/full"), OSError, "this is not a regular file"),
    }


@pytest.mark.core
@pytest.mark.parametrize("place", ["missing", "folder", "pipe", "full"])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_place_that_cannot_be_written(place: str, return_as: str, tmp_path: Path) -> None:
    path, error, reason = places(tmp_path)[place]
    tasks = iter([delayed(abs)(-1)])
    parallel = Parallel(2, return_as=return_as, trace=path)
    with pytest.raises(error) as caught:
        parallel(tasks)
    assert f"the trace cannot be written: {reason}" in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(list(tasks)) == 1  # the call did not begin
    with pytest.raises(error):  # and may be tried again
        parallel([delayed(abs)(-1)])


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_disk_that_fills(name: str, full_disk: Path) -> None:
    path = full_disk / name
    filler = full_disk / "filler"
    parallel = Parallel(2, batch_size=1, trace=path)

    def tasks() -> Iterator[Any]:
        for x in range(3000):
            if x == 300:
                with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass
            yield delayed(abs)(-x)

    with pytest.warns(RuntimeWarning, match="ends early, and the call goes on: No space") as told:
        assert parallel(tasks()) == list(range(3000))
    assert len(told) == 1
    filler.unlink()
    assert parallel([delayed(abs)(-1)]) == [1]  # it is said once
    positions = Trace(path, is_complete=False).positions()
    assert set(positions.values()) <= {1} and len(positions) < 3000


def test_a_limit_of_the_size_of_files(tmp_path: Path) -> None:
    program = """
import resource, warnings
from parallel_core import Parallel, delayed
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    found = Parallel(2, batch_size=1, trace="run.json")(delayed(abs)(-x) for x in range(3000))
assert found == list(range(3000))
print([str(each.message) for each in told])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("ends early, and the call goes on: File too large") == 1
    trace = Trace(tmp_path / "run.json", is_complete=False)
    assert 0 < sum(trace.positions().values()) < 3000


def test_processes_do_not_write_one_file(path: Path) -> None:
    parallel = Parallel(2, on_error="return", batch_size=1, trace=path)
    found: list[Any] = parallel(delayed(trace_within)(str(path), x) for x in range(3))
    assert [type(each) for each in found] == [BlockingIOError] * 3
    assert "another process is writing to it; use a name with os.getpid()" in str(found[0])
    assert Trace(path).positions() == Counter(range(3))


def test_a_forked_child_leaves_the_file_alone(path: Path) -> None:
    def tasks() -> Iterator[Any]:
        for x in range(20):
            if x == 10:
                child = os.fork()
                if not child:
                    try:
                        parallel([delayed(abs)(-1)])
                    finally:
                        os._exit(0)
                os.waitpid(child, 0)
            yield delayed(pause)(0.001, x)

    parallel = Parallel(2, trace=path)
    parallel(tasks())
    assert Trace(path).positions() == Counter(range(20))


def test_a_journal(path: Path, tmp_path: Path) -> None:
    for _ in range(2):
        parallel = Parallel(2, journal=tmp_path / "journal", trace=path)
        assert parallel(delayed(abs)(-x) for x in range(5)) == list(range(5))
    trace = Trace(path)
    [end] = trace.of("e")
    assert end["args"] == {"completed": 5, "resumed": 5} and not trace.tasks
    assert trace.counter("tasks done")[-1] == 5


def test_results_that_are_folded(path: Path) -> None:
    assert Parallel(2, reduce=max, trace=path)(delayed(abs)(-x) for x in range(100)) == 99
    assert Trace(path).positions() == Counter(range(100))


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\nc\n")
    command = [sys.executable, "-m", "parallel_core", "map", "-j", "2"]

    def run(*trace: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *trace, "builtins:len", "lines"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("--trace", "run.json")
    assert (done.returncode, done.stdout) == (0, "1\n1\n1\n"), done.stderr
    assert Trace(tmp_path / "run.json").positions() == Counter(range(3))
    done = run("--trace", "none/run.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the trace cannot be written: No such file or directory" in done.stderr
