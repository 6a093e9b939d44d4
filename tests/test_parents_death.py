"""However the parent dies, within a second nothing of it is left: no worker, no shared memory."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from programs import kill_group, run, start, told

from parallel_core.workers.lifeline import Lifeline, hold_on, own_lifeline
from watching import LIMIT, descendants, running, wait_until

SHARED_MEMORY = Path("/dev/shm")
SECOND = 10  # what the promise allows, for a machine that has other things to do

WORK = """
    case, backend = sys.argv[1:3]

    def work(n):
        tell(n)
        if case == "regex":
            re.match("(a+)+b", "a" * 40)
        elif case == "arrays":
            time.sleep(300)
        elif case == "one":
            time.sleep(300 if n == 0 else 0)
        elif case.startswith("nested"):
            engine = backend_of(case[7:])
            Parallel(2, backend=engine, batch_size=1)(delayed(rest)(f"{n}-{k}") for k in (0, 1))
        else:
            time.sleep(300)

    def rest(name):
        tell(name)
        time.sleep(300)

    if __name__ == "__main__":
        engine = backend_of(backend)
        if case == "arrays":
            import numpy
            array = numpy.ones(1_000_000)
            Parallel(2, backend=engine, batch_size=1)(
                delayed(lambda n, array: work(n))(n, array) for n in (0, 1)
            )
        if case == "idle":
            works(engine)
            tell("idle")
            time.sleep(300)
        Parallel(2, backend=engine, batch_size=1)(delayed(work)(n) for n in (0, 1))
        time.sleep(300)
"""

#: What the tasks do, the backend, the signal, how many processes are at it.
DEATHS = [
    pytest.param("sleep", "loky", "SIGKILL", 2, marks=pytest.mark.core),
    ("sleep", "loky", "SIGTERM", 2),
    ("one", "loky", "SIGKILL", 2),  # one worker has had no task, perhaps
    ("idle", "loky", "SIGKILL", 1),
    ("arrays", "loky", "SIGKILL", 2),
    ("arrays", "processes", "SIGKILL", 2),
    ("nested-processes", "loky", "SIGKILL", 6),
    ("nested-loky", "loky", "SIGKILL", 6),
    ("nested-loky", "processes", "SIGKILL", 6),
    ("nested-loky", "threading", "SIGKILL", 6),
    ("nested-processes", "context-fork", "SIGSEGV", 6),
    ("sleep", "executor-fork", "SIGKILL", 2),
    ("regex", "executor-spawn", "SIGKILL", 2),
    ("sleep", "executor-forkserver", "SIGTERM", 2),
    ("sleep", "threading", "SIGKILL", 2),
]


@pytest.mark.parametrize(("case", "backend", "death", "count"), DEATHS)
def test_nothing_outlives_the_parent(
    tmp_path: Path, case: str, backend: str, death: str, count: int
) -> None:
    if case == "arrays":
        pytest.importorskip("numpy")
    shared = set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()
    child = start(tmp_path, WORK, case, backend)
    try:
        wait_until(lambda: len(told(tmp_path)) == count or child.poll() is not None, "all are busy")
        assert child.poll() is None, child.communicate()
        below = {*descendants(child.pid), *told(tmp_path)} - {child.pid}
        child.send_signal(getattr(signal, death))
        limit = time.monotonic() + SECOND
        child.wait(LIMIT)
        while (left := set(filter(running, below))) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not left
        child.communicate(timeout=LIMIT)
    finally:
        kill_group(child.pid)
        child.wait()
        for pid in filter(running, told(tmp_path)):
            os.kill(pid, signal.SIGKILL)
    numbers = {child.pid, *below}

    def of_these() -> list[str]:
        new = set(os.listdir(SHARED_MEMORY)) - shared if shared or SHARED_MEMORY.is_dir() else ()
        return [name for name in new if numbers & set(map(int, re.findall(r"\d+", name)))]

    wait_until(lambda: not of_these(), "shared memory is free")


@pytest.mark.parametrize("killed", ["SIGKILL", "cancel"])
def test_lokys_workers_end_with_the_worker_of_ours_that_they_work_for(
    tmp_path: Path, killed: str
) -> None:
    """A worker that is killed takes along what it has started, while the program goes on."""
    text = f"""
        def outer(n):
            tell(f"outer-{{n}}")
            Parallel(2, backend="loky", batch_size=1)(delayed(inner)(n, k) for k in (0, 1))

        def inner(n, k):
            tell(f"inner-{{n}}-{{k}}")
            time.sleep(300)

        def tasks():
            yield delayed(outer)(0)
            while len(list(pathlib.Path().glob("pid-*"))) < 3:
                time.sleep(0.01)
            if {killed!r} == "cancel":
                raise LookupError("cancelled")
            os.kill(int(pathlib.Path("pid-outer-0").read_text()), signal.SIGKILL)
            time.sleep(0.1)

        def main():
            try:
                Parallel(2, batch_size=1, pre_dispatch=1)(tasks())
            except Exception as error:
                print(type(error).__name__)
            limit = time.monotonic() + {SECOND}
            pids = [int(path.read_text()) for path in pathlib.Path().glob("pid-inner-*")]
            while pids and time.monotonic() < limit:
                pids = [pid for pid in pids if alive(pid)]
                time.sleep(0.01)
            print(len(pids), "are left")

        def alive(pid):
            try:
                stat = pathlib.Path(f"/proc/{{pid}}/stat").read_text()
            except OSError:
                return False
            return stat.rsplit(")", 1)[1].split()[0] != "Z"

        if __name__ == "__main__":
            main()
    """
    # The pulling of the second task waits for the first, so it must have been handed over.
    text = text.replace("pre_dispatch=1", "pre_dispatch=2")
    out = run(tmp_path, text)
    error = "LookupError" if killed == "cancel" else "WorkerDiedError"
    assert out == f"{error}\n0 are left\n"


@pytest.mark.core
def test_a_lifeline_that_cannot_be_had_is_gone_without() -> None:
    mine = own_lifeline()
    assert mine is not None and mine == own_lifeline() and mine.pid == os.getpid()
    hold_on(None)
    hold_on(mine)  # of this very process: nothing to hold on to
    before = set(os.listdir("/proc/self/fd"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            hold_on(mine._replace(inode=mine.inode + 1))  # another file has this number by now
            hold_on(Lifeline(mine.pid, 1 << 20, 0, 0))  # there is no such file
            assert own_lifeline() != mine
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.core
def test_a_worker_born_after_its_parent_died_ends(tmp_path: Path) -> None:
    text = """
        from parallel_core.workers.lifeline import Lifeline, hold_on
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        hold_on(Lifeline(pid, 5, 0, 0))
        print("never")
    """
    assert run(tmp_path, text, code=1) == ""


def test_a_forked_child_that_goes_on_does_not_keep_lokys_workers_alive(tmp_path: Path) -> None:
    text = """
        def main():
            Parallel(2, backend="loky", batch_size=1)([delayed(tell)("worker"), delayed(abs)(1)])
            if os.fork() == 0:
                os.close(1)
                os.close(2)
                tell("child")
                time.sleep(300)
                os._exit(0)
            while not os.path.exists("pid-child"):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            main()
    """
    child = start(tmp_path, text)
    try:
        child.wait(LIMIT)
        worker = int((tmp_path / "pid-worker").read_text())
        wait_until(lambda: not running(worker), "loky's worker is gone")
        assert running(int((tmp_path / "pid-child").read_text()))
    finally:
        for pid in filter(running, told(tmp_path)):
            os.kill(pid, signal.SIGKILL)
        child.kill()
        child.communicate()
