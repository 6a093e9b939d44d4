"""What tasks print comes with their results, or goes nowhere, on every backend."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parallel_core import Parallel, TaskOutput, delayed
from parallel_core.errors import WorkerDiedError
from watching import wait_until

pytestmark = pytest.mark.warm_workers

BACKENDS = ["processes", "threading", "sequential", "loky", "executor"]


@contextlib.contextmanager
def engine(name: str) -> Iterator[Any]:
    if name == "executor":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    else:
        yield name


def in_threads(n: int) -> None:
    threads = [threading.Thread(target=print, args=("thread of", n)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    Parallel(2, backend="threading")(delayed(print)("nested of", n) for _ in range(2))
    with contextlib.redirect_stdout(io.StringIO()):
        print("elsewhere")
    print("last of", n)


def test_threads_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["thread of 1\nthread of 1\nnested of 1\nnested of 1\nlast of 1\n"]
    ours = Parallel(2, output="capture")([delayed(in_threads)(1)])
    assert [one.stdout for one in ours] == expected
    theirs = Parallel(2, backend="loky", output="capture")([delayed(in_threads)(1)])
    assert [one.stdout for one in theirs] == expected
    assert capsys.readouterr().out == ""
    here = Parallel(1, output="capture")([delayed(in_threads)(1)])
    assert [one.stdout for one in here] == [expected[0].replace("thread of 1\n", "")]
    assert capsys.readouterr().out == "thread of 1\n" * 2  # it could be anybody's


def meet(barrier: threading.Barrier, n: int) -> None:
    barrier.wait()
    print("of", n)
    barrier.wait()


def fork_and_say(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        print("of a child", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print("of the task")


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize(
    ("backend", "output"), [("processes", "capture"), ("loky", "capture"), ("loky", "pass")]
)
def test_what_a_forked_child_says_is_its_own(
    backend: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out"
    found = Parallel(2, backend, output=output)([delayed(fork_and_say)(str(path))])
    assert path.read_text() == "of a child\n"
    said = found[0].stdout if output == "capture" else capsys.readouterr().out
    assert said == "of the task\n"


def test_calls_that_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    """In several threads, one of which ends while the others go on."""
    before = sys.stdout
    barriers = [threading.Barrier(2) for _ in range(3)]
    results: dict[int, Any] = {}

    def call(n: int) -> None:
        parallel = Parallel(2, backend="threading", output="discard" if n == 1 else "capture")
        results[n] = parallel([delayed(meet)(barriers[n], n)])

    threads = [threading.Thread(target=call, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for n in range(3):
        barriers[n].wait()
    print("between")  # of nobody's task
    for n in range(3):
        barriers[n].wait()
        threads[n].join()
    assert [results[n] for n in range(3)] == [
        [TaskOutput(None, "of 0\n", "")],
        [None],
        [TaskOutput(None, "of 2\n", "")],
    ]
    assert sys.stdout is before and capsys.readouterr().out == "between\n"


def log_and_say() -> None:
    logging.getLogger("of.capture").warning("a record")
    print("a word")


@pytest.mark.parametrize("output", ["capture", "discard"])
def test_records_are_no_output(output: str, caplog: pytest.LogCaptureFixture) -> None:
    backends = ("processes", "threading", "loky") if output == "capture" else ("processes",)
    for backend in backends:
        Parallel(2, backend=backend, output=output)([delayed(log_and_say)()])
    assert [record.message for record in caplog.records] == ["a record"] * len(backends)


def die(path: Path) -> None:
    import os

    print("never told")
    path.touch()
    os._exit(3)


def test_a_worker_that_dies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        Parallel(2, output="capture")([delayed(die)(tmp_path / "was here")])
    wait_until((tmp_path / "was here").exists, "it had begun")
    assert not hasattr(caught.value, "task_output")
    assert capsys.readouterr().out == ""


class Rigid(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        if name == "task_output":
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_an_error_that_takes_no_attributes() -> None:
    with pytest.raises(Rigid):
        Parallel(1, output="capture")([delayed(fail_rigidly)()])


def fail_rigidly() -> None:
    raise Rigid


def test_where_it_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output must be 'pass', 'capture' or 'discard', not 1"):
        Parallel(2, output=1)
    with pytest.raises(ValueError, match="does not go together with reduce: what is folded"):
        Parallel(2, output="capture", reduce=max)
    with pytest.raises(ValueError, match="does not go together with journal: it keeps"):
        Parallel(2, output="capture", journal=tmp_path / "journal")
    words = [delayed(print)("kept") for _ in range(2)]
    assert Parallel(2, output="pass")(words) == [None, None]
