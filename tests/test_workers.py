"""The pool of workers: leases, reuse, deaths of all kinds, and its pure parts one by one."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core import Parallel, delayed, shutdown_workers
from parallel_core.backends.answers import decode
from parallel_core.calls.pre_dispatch import resolve_pre_dispatch
from parallel_core.serialization.definitions import Definitions
from parallel_core.serialization.encoding import BatchBuilder
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.tasks.description import describe_call, function_name, short_repr
from parallel_core.workers.board import NO_LIMIT, Board, Phase
from parallel_core.workers.channel import Channel, ChannelClosed
from parallel_core.workers.execute import Execution
from parallel_core.workers.messages import AfterFailure, Answer, FailureKind, RunBatch
from parallel_core.workers.pool import worker_pool
from watching import HOME, LIMIT, running, some, wait_until

pytestmark = pytest.mark.warm_workers

SHARED_MEMORY = Path("/dev/shm")
OWN = ["processes", "multiprocessing"]


def pid_after(seconds: float) -> int:
    import os
    import time

    time.sleep(seconds)
    return os.getpid()


pid_after.__module__ = "__main__"  # so that workers need no test module for it


def pids_of(parallel: Parallel, count: int = 2) -> set[int]:
    """Return the workers that a call has; it waits until `count` have answered."""
    found: set[int] = set()
    limit = time.monotonic() + LIMIT
    while len(found) < count and time.monotonic() < limit:
        found |= set(parallel(delayed(pid_after)(0.002) for _ in range(8 * count)))
    return found


def environment() -> dict[str, str]:
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def start_script(folder: Path, text: str, *flags: str, **options: Any) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(textwrap.dedent(text))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, *flags, "script.py"],
        cwd=folder,
        env=environment(),
        text=True,
        **options,
    )


def run_script(folder: Path, text: str, *flags: str, **options: Any) -> str:
    child = start_script(folder, text, *flags, **options)
    try:
        out, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, err
    assert not err, err
    return out


def descriptor_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped_boards() -> int:
    return Path("/proc/self/maps").read_text().count("parallel-core-board")


# --- leases and reuse -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", some(OWN))
def test_workers_are_used_again(backend: str) -> None:
    before = pids_of(Parallel(2, backend=backend))
    assert os.getpid() not in before
    assert len(before) == 2
    for _ in range(5):
        assert set(Parallel(2, backend=backend)([delayed(os.getpid)()] * 10)) <= before
    with Parallel(2, backend=backend) as parallel:
        assert set(parallel([delayed(os.getpid)()] * 10)) <= before
        assert set(parallel([delayed(os.getpid)()] * 10)) <= before
    assert pids_of(Parallel(2, backend=backend)) == before


@pytest.mark.fresh_workers
@pytest.mark.core
def test_growing_and_shrinking() -> None:
    two = pids_of(Parallel(2))
    four = pids_of(Parallel(4), 4)
    assert two < four and len(four) == 4
    for _ in range(3):
        again = pids_of(Parallel(2))
        assert again < four
    assert set(worker_pool().idle_pids()) == again
    for pid in four - again:
        wait_until(lambda pid=pid: not running(pid), "spare workers have ended")


def test_workers_of_different_kinds_are_kept_apart() -> None:
    kinds = [
        Parallel(2),
        Parallel(2, initializer=int),
        Parallel(2, initializer=int, initargs=("7",)),
        Parallel(2, backend="multiprocessing"),
    ]
    pids = [pids_of(parallel) for parallel in kinds]
    assert len(set.union(*pids)) == 8


def test_two_kinds_of_calls_in_turns_keep_their_workers() -> None:
    plain, prepared = Parallel(2), Parallel(2, initializer=int)
    before = pids_of(plain), pids_of(prepared)
    for _ in range(3):
        assert (pids_of(plain), pids_of(prepared)) == before


@pytest.mark.fresh_workers
@pytest.mark.core
def test_shutdown_ends_all_idle_workers() -> None:
    pids = pids_of(Parallel(3), 3)
    assert shutdown_workers() == 3
    assert not any(map(running, pids))
    assert shutdown_workers() == 0
    assert worker_pool().idle_pids() == []
    assert not pids_of(Parallel(2)) & pids


def test_shutdown_within_a_call_leaves_its_workers() -> None:
    with Parallel(2) as parallel:
        before = pids_of(parallel)
        shutdown_workers()
        assert pids_of(parallel) == before
        results = Parallel(2, return_as="generator")(delayed(abs)(n) for n in range(100))
        next(results)
        shutdown_workers()
        assert list(results) == list(range(1, 100))


def test_shutdown_from_a_callers_generator() -> None:
    def tasks() -> Iterator[Any]:
        for n in range(40):
            shutdown_workers()
            yield delayed(abs)(-n)

    assert Parallel(2, batch_size=1)(tasks()) == list(range(40))


def test_idle_workers_leave_after_their_time() -> None:
    pids = pids_of(Parallel(2, idle_worker_timeout=0.1))
    for pid in pids:
        wait_until(lambda pid=pid: not running(pid), "the idle worker has left")
    for _ in range(2):
        assert Parallel(2)(delayed(abs)(-n) for n in range(5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seconds", [0, 0.001, 0.003])
def test_calls_that_meet_workers_just_leaving(seconds: float) -> None:
    parallel = Parallel(2, idle_worker_timeout=seconds)
    for n in range(30):
        assert parallel(delayed(abs)(-k) for k in range(6)) == list(range(6))
        time.sleep(0.0005 * n % 0.004)


@pytest.mark.core
def test_many_threads_at_a_time() -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(8)

    def work(thread: int) -> None:
        try:
            together.wait(LIMIT)
            for n in range(6):
                if (thread + n) % 5 == 0:
                    with pytest.raises(ValueError, match="invalid literal"):
                        Parallel(2)(delayed(int)(text) for text in ["1", "x"])
                elif (thread + n) % 3 == 0:
                    results = Parallel(2, return_as="generator")(
                        delayed(divmod)(k, thread + 1) for k in range(50)
                    )
                    assert next(results) == (0, 0)
                    results.close()
                else:
                    results = Parallel(2)(delayed(divmod)(k, thread + 1) for k in range(50))
                    assert results == [divmod(k, thread + 1) for k in range(50)]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert len(worker_pool().idle_pids()) <= 16


def test_a_call_from_a_thread_outlives_the_thread_that_made_the_workers() -> None:
    """PR_SET_PDEATHSIG, say, would kill the workers with the thread."""
    found: list[set[int]] = []
    thread = threading.Thread(target=lambda: found.append(pids_of(Parallel(2))))
    thread.start()
    thread.join(LIMIT)
    time.sleep(0.1)
    assert pids_of(Parallel(2)) == found[0]


def test_descriptors_and_boards_do_not_grow_over_calls() -> None:
    Parallel(2)([delayed(abs)(1)] * 4)
    before = descriptor_count(), mapped_boards()
    for n in range(100):
        if n % 10 == 3:
            with pytest.raises(ValueError, match="invalid literal"):
                Parallel(2)([delayed(int)("x")])
        elif n % 10 == 5:
            with Parallel(2, return_as="generator") as parallel:
                results = parallel(delayed(abs)(k) for k in range(100))
                next(results)
        elif n % 20 == 7:
            shutdown_workers()
        else:
            Parallel(2)(delayed(abs)(k) for k in range(4))
    Parallel(2)([delayed(abs)(1)] * 4)
    assert (descriptor_count(), mapped_boards()) <= before
    shutdown_workers()
    assert mapped_boards() == 0


def test_nothing_is_kept_of_workers_that_died() -> None:
    Parallel(2)([delayed(abs)(1)] * 4)
    before = descriptor_count(), mapped_boards()
    for _ in range(5):
        with pytest.raises(parallel_core.WorkerDiedError):
            Parallel(2)([delayed(os._exit)(3)])
        Parallel(2)([delayed(abs)(1)] * 4)
    assert (descriptor_count(), mapped_boards()) == before


@pytest.mark.core
def test_a_worker_that_died_is_replaced() -> None:
    with Parallel(2) as parallel:
        before = pids_of(parallel)
        one = min(before)
        os.kill(one, signal.SIGKILL)
        wait_until(lambda: not running(one), "it is dead")
        after = pids_of(parallel)
        assert len(after) == 2 and one not in after and max(before) in after


# --- fork -----------------------------------------------------------------------------------------

FORKED = """
    import os, sys, time
    from parallel_core import Parallel, delayed, shutdown_workers

    def pid_after(seconds):
        time.sleep(seconds)
        return os.getpid()

    def pids(parallel):  # of both: one alone would take what the other has not begun
        return set(parallel(delayed(pid_after)(0.01) for _ in range(8)))

    def in_child(function):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                function()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                shutdown_workers()
                sys.stderr.flush()
                os._exit(code)
        return pid

    def wait(pid):
        assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.core
def test_parent_and_forked_child_both_call(tmp_path: Path) -> None:
    text = (
        FORKED
        + """
    mine = pids(Parallel(2))

    def child():
        for _ in range(3):
            theirs = pids(Parallel(2))
            assert not theirs & mine and os.getpid() not in theirs

    children = [in_child(child) for _ in range(2)]
    for _ in range(3):
        assert pids(Parallel(2)) <= mine
    for pid in children:
        wait(pid)
    assert pids(Parallel(2)) <= mine
    print("good")
    """
    )
    assert run_script(tmp_path, text) == "good\n"


def test_a_fork_within_a_with_block(tmp_path: Path) -> None:
    text = (
        FORKED
        + """
    with Parallel(2) as parallel:
        mine = pids(parallel)

        def child():
            assert not pids(parallel) & mine
            parallel.__exit__(None, None, None)
            assert not pids(Parallel(2)) & mine
            assert not pids(parallel) & mine

        pid = in_child(child)
        assert pids(parallel) <= mine
        wait(pid)
        assert pids(parallel) <= mine
    assert pids(Parallel(2)) <= mine
    print("good")
    """
    )
    assert run_script(tmp_path, text) == "good\n"


def test_a_fork_while_a_generator_is_open(tmp_path: Path) -> None:
    text = (
        FORKED
        + """
    import gc
    results = Parallel(2, return_as="generator")(delayed(abs)(-n) for n in range(3000))
    assert next(results) == 0

    def child():
        global results
        results.close()
        del results
        gc.collect()
        assert Parallel(2)(delayed(abs)(-n) for n in range(5)) == [0, 1, 2, 3, 4]

    pid = in_child(child)
    assert list(results) == list(range(1, 3000))
    wait(pid)
    print("good")
    """
    )
    assert run_script(tmp_path, text) == "good\n"


def test_a_forked_child_that_goes_on_does_not_keep_workers_alive(tmp_path: Path) -> None:
    text = (
        FORKED
        + """
    import time
    print(*pids(Parallel(2)))
    if os.fork() == 0:
        os.close(1)
        os.close(2)
        open("child", "w").write(str(os.getpid()))
        time.sleep(300)
        os._exit(0)
    sys.stdout.flush()
    while not os.path.exists("child"):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
    """
    )
    child = start_script(tmp_path, text)
    out, _ = child.communicate(timeout=LIMIT)
    try:
        pids = list(map(int, out.split()))
        assert len(pids) == 2
        wait_until(lambda: not any(map(running, pids)), "the workers are gone")
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


# --- the parent's death ---------------------------------------------------------------------------

BUSY = {
    "sleep": "time.sleep(300)",
    "loop": "while True: pass",
    "regex": "re.match('(a+)+b', 'a' * 40)",
    "power": "7 ** 10 ** 9",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "nested": (
        "Parallel(2, backend='processes', batch_size=1)"
        "([delayed(sleep_within)(f'{n}-{k}') for k in (0, 1)])"
    ),
    "nothing": "pass",
}


FAST = pytest.mark.core
DEATHS = [
    pytest.param("SIGKILL", "sleep", "processes", marks=FAST),
    pytest.param("SIGTERM", "sleep", "processes", marks=FAST),
    pytest.param("SIGKILL", "regex", "processes", marks=FAST),
    *[("SIGKILL", busy, "processes") for busy in ("loop", "power", "stopped", "nested", "nothing")],
    *[("SIGTERM", busy, "processes") for busy in ("regex", "nested", "nothing")],
    *[("SIGKILL", "sleep", method) for method in ("fork", "spawn", "forkserver")],
    ("SIGKILL", "regex", "fork"),
]


@pytest.mark.parametrize(("death", "busy", "backend"), DEATHS)
def test_workers_die_with_their_parent(tmp_path: Path, death: str, busy: str, backend: str) -> None:
    text = f"""
        import multiprocessing, os, pathlib, re, signal, time
        from parallel_core import Parallel, delayed

        def tell(name):
            pathlib.Path("." + name).write_text(str(os.getpid()))
            os.rename("." + name, "pid-" + name)

        def sleep_within(name):
            tell(name)
            time.sleep(300)

        def work(n):
            tell(str(n))
            {BUSY[busy]}

        if __name__ == "__main__":
            backend = {backend!r}
            if backend != "processes":
                backend = multiprocessing.get_context(backend)
            Parallel(2, backend=backend, batch_size=1)(delayed(work)(n) for n in range(2))
            time.sleep(300)
    """
    shared = set(os.listdir(SHARED_MEMORY))
    child = start_script(tmp_path, text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    expected = 6 if busy == "nested" else 2
    try:
        wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == expected, "all are busy")
        pids = {int(path.read_text()) for path in tmp_path.glob("pid-*")}
        child.send_signal(getattr(signal, death))
        child.wait(LIMIT)
        survivors = set(pids)
        limit = time.monotonic() + 10
        while survivors and time.monotonic() < limit:
            survivors = {pid for pid in survivors if running(pid)}
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
        for pid in [int(path.read_text()) for path in tmp_path.glob("pid-*")]:
            if running(pid):
                os.kill(pid, signal.SIGKILL)
    assert not survivors
    assert not [name for name in set(os.listdir(SHARED_MEMORY)) - shared if str(child.pid) in name]


@pytest.mark.parametrize(
    "end", ["sys.exit(3)", "os._exit(3)", "raise SystemExit(3)", "os.abort()", "1 / 0"]
)
def test_workers_end_with_the_program_however_it_ends(tmp_path: Path, end: str) -> None:
    text = f"""
        import os, resource, sys
        from parallel_core import Parallel, delayed

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        print(*set(Parallel(2)([delayed(os.getpid)()] * 20)), flush=True)
        {end}
    """
    child = start_script(tmp_path, text)
    out, _ = child.communicate(timeout=LIMIT)
    assert child.returncode != 0
    for pid in map(int, out.split()):
        wait_until(lambda pid=pid: not running(pid), "the worker is gone")


# --- what workers inherit and follow --------------------------------------------------------------


@pytest.mark.parametrize("backend", some(OWN))
def test_standard_input_is_not_the_workers(tmp_path: Path, backend: str) -> None:
    text = f"""
        import sys
        from parallel_core import Parallel, delayed

        if __name__ == "__main__":
            read = lambda: sys.stdin.read()
            print(Parallel(2, backend={backend!r})([delayed(read)()] * 4))
            print(repr(sys.stdin.read()))
    """
    (tmp_path / "given").write_text("for the parent")
    with open(tmp_path / "given") as given:
        out = run_script(tmp_path, text, stdin=given)
    assert out == "['', '', '', '']\n'for the parent'\n"


@pytest.mark.core
def test_what_tasks_print_is_seen(tmp_path: Path) -> None:
    text = """
        import sys
        from parallel_core import Parallel, delayed

        def write(n):
            sys.stdout.write(f"line {n}\\n")

        if __name__ == "__main__":
            Parallel(2)(delayed(write)(n) for n in range(10))
            Parallel(2, backend="multiprocessing")(delayed(write)(n) for n in range(10, 20))
    """
    out = run_script(tmp_path, text)
    assert sorted(out.splitlines()) == sorted(f"line {n}" for n in range(20))


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        (kind, backend)
        for kind in ("closed", "none", "string", "broken", "descriptor")
        for backend in (*OWN, "loky", "threading")
        # Those two flush sys.stdout themselves.
        if not (backend == "loky" and kind != "string")
        and (backend, kind) != ("multiprocessing", "broken")
    ],
)
def test_strange_standard_streams(tmp_path: Path, kind: str, backend: str) -> None:
    text = f"""
        import io, os, sys
        from parallel_core import Parallel, delayed

        class Broken:
            def write(self, text):
                raise OSError("broken")
            def flush(self):
                raise OSError("broken")

        if __name__ == "__main__":
            out = open("out", "w")
            if {kind!r} == "closed":
                sys.stdout.close()
            elif {kind!r} == "none":
                sys.stdin = sys.stdout = None
            elif {kind!r} == "string":
                sys.stdout = io.StringIO()
            elif {kind!r} == "broken":
                sys.stdout = Broken()
            else:
                for descriptor in (0, 1, 2):
                    os.close(descriptor)
                sys.stdin = sys.stdout = sys.stderr = None
            for _ in range(2):
                results = Parallel(2, backend={backend!r})(delayed(abs)(-n) for n in range(6))
                print(results, file=out, flush=True)
            sys.stdout = None
    """
    assert run_script(tmp_path, text) == ""
    assert (tmp_path / "out").read_text() == "[0, 1, 2, 3, 4, 5]\n" * 2


def test_a_program_started_without_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
            from parallel_core import Parallel, delayed
            with open("out", "w") as out:
                print(Parallel(2)(delayed(abs)(-n) for n in range(6)), file=out)
        """)
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" script.py <&- >&- 2>&-'],
        cwd=tmp_path,
        env=environment(),
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "[0, 1, 2, 3, 4, 5]\n"


@pytest.mark.parametrize("backend", some(OWN))
def test_warm_workers_follow_folder_path_and_argv(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = lambda: (os.getcwd(), list(sys.path), sys.argv)  # noqa: E731 - by value
    before = pids_of(Parallel(2, backend=backend))
    for n in range(3):
        folder = tmp_path / str(n)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        monkeypatch.setattr(sys, "argv", ["program", str(n)])
        results = Parallel(2, backend=backend)([delayed(look)()] * 6)
        assert results == [(str(folder), sys.path, sys.argv)] * 6
    assert pids_of(Parallel(2, backend=backend)) == before


def test_a_module_found_by_a_path_added_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pids_of(Parallel(2))
    (tmp_path / "found_later.py").write_text("def f(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import found_later

    assert Parallel(2)(delayed(found_later.f)(n) for n in range(3)) == [1, 2, 3]
    assert pids_of(Parallel(2)) == before
    del sys.modules["found_later"]


@pytest.mark.parametrize("backend", OWN)
def test_workers_follow_the_environment(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def get() -> tuple[str | None, str | None]:
        return os.environ.get("OF_A_TEST"), os.getenv("TO_BE_DELETED")

    monkeypatch.setenv("OF_A_TEST", "first")
    monkeypatch.setenv("TO_BE_DELETED", "there")
    assert Parallel(2, backend=backend)([delayed(get)()] * 4) == [("first", "there")] * 4
    monkeypatch.setenv("OF_A_TEST", "second")
    monkeypatch.delenv("TO_BE_DELETED")
    assert Parallel(2, backend=backend)([delayed(get)()] * 4) == [("second", None)] * 4


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    text = """
        import os
        from parallel_core import Parallel, delayed
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
        print(Parallel(2)(delayed(abs)(-n) for n in range(3)))
    """
    assert run_script(tmp_path, text) == "[0, 1, 2]\n"


def test_a_module_in_the_folder_named_as_one_of_the_library(tmp_path: Path) -> None:
    for name in ("pickle", "socket", "struct", "parallel_core", "memmapping", "signal"):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / f"{name}.py").write_text("raise RuntimeError('taken for ours')\n")
    text = """
        import os
        import parallel_core, memmapping
        from parallel_core import Parallel, delayed
        os.chdir("elsewhere")
        print(Parallel(2)(delayed(abs)(-n) for n in range(3)))
    """
    assert run_script(tmp_path, text) == "[0, 1, 2]\n"


@pytest.mark.parametrize("flags", [["-I"], ["-S"], ["-O"], ["-X", "utf8"], ["-u"], ["-B"], ["-P"]])
def test_flags_of_the_interpreter(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "script.py").write_text(
        textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(HOME)!r})
            sys.path += {[path for path in sys.path if path]!r}
            from parallel_core import Parallel, delayed
            look = lambda: (sys.flags.isolated, sys.flags.optimize, sys.flags.utf8_mode)
            assert Parallel(2)([delayed(look)()] * 3) == [look()] * 3
            print("good")
        """)
    )
    done = subprocess.run(
        [sys.executable, *flags, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_tasks_may_have_children_and_threads_of_their_own() -> None:
    def work(n: int) -> tuple[int, int]:
        import subprocess
        import sys
        import threading

        found: list[int] = []
        thread = threading.Thread(target=found.append, args=(n,))
        thread.start()
        thread.join()
        code = subprocess.run([sys.executable, "-c", f"raise SystemExit({n})"], check=False)
        return found[0], code.returncode

    for backend in OWN:
        results = Parallel(2, backend=backend)(delayed(work)(n) for n in range(4))
        assert results == [(n, n) for n in range(4)]


@pytest.mark.parametrize("backend", ["processes", "loky", "threading"])
def test_calls_within_tasks(backend: str) -> None:
    def outer(n: int) -> int:
        from parallel_core import Parallel, delayed

        return sum(Parallel(2)(delayed(pow)(k, n) for k in range(4)))

    results = Parallel(2, backend=backend)(delayed(outer)(n) for n in range(6))
    assert results == [sum(k**n for k in range(4)) for n in range(6)]


def test_processes_within_tasks() -> None:
    def outer(n: int) -> tuple[int, set[int]]:
        import os

        from parallel_core import Parallel, delayed

        return os.getpid(), set(Parallel(2, backend="processes")([delayed(os.getpid)()] * 8))

    for me, inner in Parallel(2)(delayed(outer)(n) for n in range(4)):
        assert me not in inner and os.getpid() not in inner


# --- pre_dispatch ---------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", None),
        (1, 1),
        (7, 7),
        (2.9, 2),
        (10**30, 10**30),
        ("2*n_jobs", 8),
        ("1.5*n_jobs", 6),
        (" n_jobs ", 4),
        ("n_jobs + 1", 5),
        ("(n_jobs+1)*(2-1)", 5),
        ("n_jobs // 3", 1),
        ("7 % n_jobs", 3),
        ("n_jobs/4", 1),
        ("min(3, n_jobs)", 3),
        ("max(n_jobs, 9)", 9),
        ("--n_jobs", 4),
        ("int(n_jobs*1.3)", 5),
        ("5", 5),
        ("1e2", 100),
    ],
)
def test_pre_dispatch(given: Any, expected: int | None) -> None:
    assert resolve_pre_dispatch(given, 4) == expected


#: Arithmetic that comes to too little when there are four workers; it may be checked at the call.
NOT_FOR_FOUR = ("n_jobs-4", "-n_jobs", "n_jobs/0", "n_jobs%0")


@pytest.mark.core
@pytest.mark.parametrize(
    "given",
    [
        0,
        -1,
        0.5,
        math.nan,
        math.inf,
        None,
        True,
        [],
        b"2*n_jobs",
        1j,
        "",
        " ",
        "0",
        "n_jobs-4",
        "-n_jobs",
        "n_jobs/0",
        "n_jobs%0",
        "1e400",
        "1e308*10",
        "many",
        "ALL",
        "n_jobs n_jobs",
        "2**n_jobs",
        "9**9**9**9",
        "n_jobs << 62",
        "'a'*3",
        "[1]*3",
        "1j",
        "True",
        "None",
        "...",
        "int(1, 7)",
        "min()",
        "max(1, default=2)",
        "min(*[1, 2])",
        "int('7')",
        "float('7')",
        "n_jobs()",
        "n_jobs.real",
        "n_jobs if n_jobs else 1",
        "n_jobs > 1",
        "(lambda: 2)()",
        "[x for x in (1,)][0]",
        "(n_jobs := 5)",
        "__import__('os')",
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "exec('x = 1')",
        "open('/etc/passwd')",
        "n_jobs; 2",
        "n_jobs\nimport os",
        "f'{n_jobs}'",
        "(" * 99 + "1" + ")" * 98,
        "-" * 150 + "1.5.5",
        "1" * 201,
        "1+" * 5000 + "1",
        "\0",
        "\ud800",
        "n\u200b_jobs",
    ],
    ids=lambda given: repr(given)[:40],
)
def test_pre_dispatch_that_makes_no_sense(given: Any) -> None:
    with pytest.raises(ValueError, match="pre_dispatch"):
        resolve_pre_dispatch(given, 4)
    if not (isinstance(given, str) and given in NOT_FOR_FOUR):
        with pytest.raises(ValueError, match="pre_dispatch"):
            Parallel(2, pre_dispatch=given)


def test_an_enormous_pre_dispatch() -> None:
    for given in (10**400, "1e300"):
        assert Parallel(2, pre_dispatch=given)(delayed(abs)(-n) for n in range(5)) == [
            0, 1, 2, 3, 4
        ]  # fmt: skip


# --- words for tasks ------------------------------------------------------------------------------


@pytest.mark.core
def test_short_representations() -> None:
    np = pytest.importorskip("numpy")

    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    class Endless(list):  # type: ignore[type-arg]  # a plain subclass
        def __repr__(self) -> str:
            return "x" * 1_000_000

    ring: list[Any] = []
    ring.append(ring)
    values = [
        "x" * 10**6, b"y" * 10**6, bytearray(10**6), list(range(10**5)),
        dict.fromkeys(range(10**5)),
        set(range(10**5)), (0,) * 10**5, np.zeros((30, 20)), np.zeros(10**6), np.float64(1), Bad(),
        Endless(), "a\nb\tc", ring, None, 10**4000, type, len, object(), "",
    ]  # fmt: skip
    for value in values:
        text = short_repr(value)
        assert len(text) <= 120
        assert "\n" not in text
    assert short_repr("abc") == "'abc'"
    assert short_repr([1, 2]) == "[1, 2]"
    assert short_repr(np.zeros((30, 20))) == "<ndarray 30x20 float64>"
    assert "ValueError" in short_repr(Bad())
    assert len(describe_call(print, tuple(values), {f"k{n}": n for n in range(50)})) < 2000


def test_short_representation_of_numbers_too_long_for_text() -> None:
    assert len(short_repr(10**10_000)) <= 120


@pytest.mark.core
def test_names_of_functions() -> None:
    import functools
    import operator

    class Thing:
        def method(self) -> None: ...

        def __call__(self) -> None: ...

    assert function_name(len) == "len"
    assert function_name(math.sqrt) == "math.sqrt"
    assert function_name(functools.partial(len)) == "partial(len)"
    assert function_name(functools.partial(functools.partial(math.sqrt), 1)).count("sqrt") == 1
    assert function_name(Thing().method).endswith("Thing.method")
    assert "Thing" in function_name(Thing())
    assert "Thing" in function_name(Thing)
    assert "lambda" in function_name(lambda: None)
    assert "itemgetter" in function_name(operator.itemgetter(1))
    assert describe_call(pow, (2, 5), {"mod": 7}) == "pow(2, 5, mod=7)"


# --- frames ---------------------------------------------------------------------------------------


def pair() -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return Channel(one), Channel(other)


def read_all(channel: Channel, into: list[Any]) -> None:
    """Read until the end, which is an exception."""
    while True:
        into += channel.receive(wait=True) or ()


SIZES = [0, 1, 7, 8, 9, 255, 256, 4095, 65527, 65528, 65535, 65536, 65537, 212992, 262100, 262135,
         262136, 262137, 262144, 262145, 500_000, 1_000_000]  # fmt: skip


@pytest.mark.core
@pytest.mark.timeout(30)
def test_frames_of_all_sizes_both_ways() -> None:
    one, other = pair()
    for first in SIZES:
        for second in (0, 100, 262130, 700_000):
            messages = [os.urandom(first), os.urandom(second), "end"]
            for message in messages:
                one.send(message)
                other.send(message)
            got_one: list[Any] = []
            got_other: list[Any] = []
            while len(got_one) < 3 or len(got_other) < 3:
                got_other += other.receive() or ()
                one.flush()
                got_one += one.receive() or ()
                other.flush()
            assert got_one == got_other == messages
            assert not one.pending and not other.pending
            assert one.receive() is None
    one.close()
    other.close()


@pytest.mark.timeout(30)
def test_frames_that_come_in_pieces() -> None:
    import random

    chance = random.Random(3)
    for size in (0, 1, 300, 262100, 262136, 262137, 400_000):
        messages = [("first", size), bytes(size), ["last"] * 3]
        stream = b"".join(
            struct.pack("<Q", len(data)) + data for data in (pickle.dumps(m, 5) for m in messages)
        )
        for most in (1, 9, 5000, 200_000):
            if most < 1000 and size > 1000:
                continue
            raw, end = socket.socketpair()
            channel = Channel(end)
            got: list[Any] = []
            position = 0
            while position < len(stream):
                step = chance.randint(1, most)
                position += raw.send(stream[position : position + step], socket.MSG_DONTWAIT)
                got += channel.receive() or ()
            while len(got) < 3:
                got += channel.receive(wait=True) or ()
            assert got == messages
            raw.close()
            with pytest.raises(ChannelClosed):
                channel.receive()
            channel.close()


@pytest.mark.core
def test_many_small_frames_at_once() -> None:
    one, other = pair()
    sent = [(n, "x" * (n % 50)) for n in range(20_000)]
    got: list[Any] = []
    for message in sent:
        one.send(message)
    while len(got) < len(sent):
        one.flush()
        got += other.receive(wait=True) or ()
    assert got == sent
    one.close()
    other.close()


@pytest.mark.core
def test_what_was_sent_before_the_end_is_read() -> None:
    one, other = pair()
    one.send("a")
    one.send(b"b" * 100_000)
    one.close()
    got: list[Any] = []
    with pytest.raises(ChannelClosed):
        read_all(other, got)
    assert got == ["a", b"b" * 100_000]
    with pytest.raises(ChannelClosed):
        other.send("nobody reads this")
    other.close()


def test_a_frame_that_is_cut_by_the_end() -> None:
    for length in (5, 100, 300_000):
        raw, end = socket.socketpair()
        channel = Channel(end)
        raw.send(struct.pack("<Q", length) + b"abc")
        raw.close()
        got: list[Any] = []
        with pytest.raises(ChannelClosed):
            read_all(channel, got)
        assert not got
        channel.close()


@pytest.mark.core
def test_patience_and_refusal() -> None:
    one, other = pair()
    other.set_patience(0.01)
    assert other.receive(wait=True) is None
    other.set_patience(0)
    assert other.receive(wait=True) is None
    other.set_patience(None)
    one.send("x")
    other.refuse()
    assert other.receive() == ["x"]  # sent before the refusal
    with pytest.raises(ChannelClosed):
        one.send("too late")
    one.close()
    other.close()


# --- the board ------------------------------------------------------------------------------------


def run_batch(runs: list[Any], number: int, base: int) -> RunBatch:
    return RunBatch(number, "", base, runs, None, (), AfterFailure.STOP, False, None, 0, None)


class Bench:
    """An `Execution` of tasks that reach back into the test, in this very process."""

    def __init__(self, tasks: list[Any]) -> None:
        self.board, descriptor = Board.make()
        self.seen_by_parent = Board(descriptor)
        os.close(descriptor)
        definitions = Definitions()
        builder = BatchBuilder(definitions)
        builder.begin(0)
        for task in tasks:
            builder.add(*task)
        self.batch = builder.finish(len(tasks))
        self.received = ReceivedDefinitions(definitions.call, {})
        self.received.receive(
            {token: definition.sent() for token, definition in self.batch.definitions.items()},
            (),
        )
        self.answers: list[Answer] = []

    def run(self, number: int = 0, base: int = 0) -> Any:
        batch = run_batch(self.batch.runs, number, base)
        Execution(batch, self.received, self.board, self.answers.append).run()
        return self.answers[-1]

    def values(self) -> list[Any]:
        found = []
        for answer in self.answers:
            assert answer.first == len(found)
            assert not list(decode(answer))
            found += answer.values
        return found

    def close(self) -> None:
        self.received.close()
        self.board.close()
        self.seen_by_parent.close()


@pytest.fixture
def bench() -> Iterator[Callable[[list[Any]], Bench]]:
    made: list[Bench] = []

    def make(tasks: list[Any]) -> Bench:
        made.append(Bench(tasks))
        return made[-1]

    yield make
    for one in made:
        one.close()


FORMS: dict[str, list[Any]] = {
    "plain": [delayed(abs)(-n) for n in range(10)],
    "pickled": [delayed(abs)(-n) for n in range(10)],
    "none": [delayed(int)() for n in range(10)],
    "several": [delayed(max)(n, 0) for n in range(10)],
    "mixed": [delayed(len)([0] * n) if n % 2 else delayed(abs)(n) for n in range(10)],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [0, 1, 5, 9, 10, 11])
def test_a_limit_cuts_a_batch(bench: Callable[[list[Any]], Bench], form: str, limit: int) -> None:
    tasks = FORMS[form]
    one = bench(tasks)
    one.seen_by_parent.words[8] = 100 + limit
    answer = one.run(base=100)
    assert answer.finished and answer.failure is None
    expected = [function(*args, **kwargs) for function, args, kwargs in tasks][:limit]
    assert one.values() == expected
    started, _, phase = one.seen_by_parent.running()
    assert phase == Phase.IDLE
    assert started == 100 + min(limit + 1, 10)


@pytest.mark.core
def test_cancel_and_allow() -> None:
    board, descriptor = Board.make()
    os.close(descriptor)
    assert board.words[8] == NO_LIMIT
    assert board.running() == (0, 0.0, Phase.IDLE)
    board.cancel()
    assert board.words[8] == 0
    board.allow()
    assert board.words[8] == NO_LIMIT
    before = mapped_boards()
    board.close()
    assert mapped_boards() == before - 1


def test_a_cancelled_batch_says_so_and_the_next_one_runs(
    bench: Callable[[list[Any]], Bench],
) -> None:
    one = bench([delayed(abs)(-n) for n in range(5)])
    one.seen_by_parent.cancel()
    assert one.run(0, 0).values == []
    one.seen_by_parent.allow()
    assert one.run(1, 5).values == [0, 1, 2, 3, 4]
    assert one.answers[-1].number == 1


def test_a_cancel_from_another_process_takes_effect_between_two_tasks(tmp_path: Path) -> None:
    """Every task that began is counted, and none begins after the answer."""

    def work(n: int) -> int:
        with open(path, "a") as file:
            file.write(f"{n}\n")
        return n

    for _ in range(10):
        path = str(tmp_path / "begun")
        Path(path).write_text("")
        results = Parallel(2, return_as="generator_unordered", batch_size=500, pre_dispatch=2)(
            delayed(work)(n) for n in range(1000)
        )
        wait_until(lambda path=path: Path(path).stat().st_size > 20, "it runs")
        results.close()
        begun = Path(path).read_text().split()
        Parallel(2)([delayed(abs)(1)] * 4)
        assert Path(path).read_text().split() == begun
        assert len(set(begun)) == len(begun)


def test_failures_name_their_index_and_keep_what_was_done(
    bench: Callable[[list[Any]], Bench],
) -> None:
    one = bench([delayed(int)(text) for text in ("1", "2", "x", "4")])
    failure = one.run().failure
    assert one.values() == [1, 2]
    assert failure.task == 2
    assert failure.kind is FailureKind.TASK
    one = bench([delayed(len)(value) for value in ([1], [2], 5, [4])])
    failure = one.run().failure
    assert one.values() == [1, 1]
    assert failure.task == 2
