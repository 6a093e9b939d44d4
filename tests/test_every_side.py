"""`Parallel` from wherever a program may call it: threads, forks, signal handlers, the very end."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import BEGIN, environment, run

from memmapping.modules import loaded
from parallel_core import Parallel, delayed
from watching import LIMIT

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core
BACKENDS = ["processes", "threading", "loky", "multiprocessing", "sequential"]


def works(backend: Any, **options: Any) -> bool:
    parallel = Parallel(2, backend=backend, **options)
    return list(parallel(delayed(abs)(-n) for n in range(6))) == list(range(6))


# --- several at once ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backends",
    [
        pytest.param(["processes", "threading", "sequential"], marks=core),
        BACKENDS,
        ["processes", "multiprocessing"],
    ],
    ids=", ".join,
)
def test_several_threads_at_once(tmp_path: Path, backends: list[str]) -> None:
    """One fork beside one start hung both; executors of threads that had ended crashed others."""
    text = f"""
        errors = []

        def call(backend):
            try:
                for _ in range(3):
                    assert works(backend)
                    results = Parallel(2, backend=backend, return_as="generator")(
                        delayed(abs)(-n) for n in range(30)
                    )
                    assert next(results) == 0
                    results.close()
            except BaseException as error:
                errors.append(error)

        def main():
            for _ in range(2):
                threads = [
                    threading.Thread(target=call, args=(backend,))
                    for backend in {backends!r} for _ in range({max(2, 6 // len(backends))})
                ]
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
            assert not errors, errors
            print("good")

        if __name__ == "__main__":
            main()
    """
    assert run(tmp_path, text) == "good\n"


@core
def test_first_calls_of_many_threads_import_at_the_same_time(tmp_path: Path) -> None:
    """A module that another thread is importing lacks half of its names."""
    text = """
        errors = []

        def call(start):
            start.wait()
            try:
                function = lambda n: -n  # by value: it takes cloudpickle
                assert Parallel(2)(delayed(function)([n]) for n in ()) == []
                assert Parallel(2)(delayed(lambda n: n[0])([n]) for n in range(3)) == [0, 1, 2]
            except BaseException as error:
                errors.append(error)

        if __name__ == "__main__":
            start = threading.Barrier(6)
            threads = [threading.Thread(target=call, args=(start,)) for _ in range(6)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert not errors, errors
            print("good")
    """
    assert run(tmp_path, text) == "good\n"


@core
def test_a_module_that_is_being_imported_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "from memmapping.modules import loaded\nfound = loaded('slow_to_import')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert loaded("slow_to_import") is None
    import slow_to_import

    assert slow_to_import.found is None
    assert loaded("slow_to_import") is slow_to_import
    del sys.modules["slow_to_import"]


def nested(backends: tuple[str, ...], value: int) -> int:
    from parallel_core import Parallel, delayed

    if not backends:
        return value
    return sum(
        Parallel(2, backend=backends[0])(delayed(nested)(backends[1:], value + n) for n in (0, 1))
    )


nested.__module__ = "__main__"  # so that workers need no test module for it


@pytest.mark.parametrize(
    "backends",
    [
        *[
            pytest.param(pair, marks=core if "loky" not in pair else ())
            for pair in itertools.product(BACKENDS[:4], repeat=2)
            if pair.count("loky") != 1 or "processes" in pair  # loky takes long to start
        ],
        ("processes", "threading", "processes"),
        ("threading", "processes", "threading"),
        ("loky", "threading", "loky"),
    ],
    ids=" in ".join,
)
def test_a_call_within_a_call(backends: tuple[str, ...]) -> None:
    expected = {2: 12 - 4, 3: 20}[len(backends)]
    assert nested(backends, 1) == expected


@pytest.mark.parametrize("backend", BACKENDS[:4])
def test_a_call_from_a_thread_pool_and_from_asyncio(backend: str) -> None:
    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        calls = (loop.run_in_executor(executor, works, backend) for _ in range(4))
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(works, [backend] * 6))
        assert asyncio.run(main()) == [True] * 4


# --- processes ------------------------------------------------------------------------------------


def test_a_fork_while_calls_run_in_other_threads(tmp_path: Path) -> None:
    text = """
        stop = threading.Event()
        errors = []

        def call(backend):
            try:
                while not stop.is_set():
                    assert works(backend)
            except BaseException as error:
                errors.append(error)

        def starts():
            while not stop.wait(0.01):
                shutdown_workers()

        def child():
            code = 1
            try:
                signal.alarm(20)
                code = 0 if all(map(works, ("processes", "threading"))) else 1
                shutdown_workers()
            finally:
                os._exit(code)

        def main():
            calls = [("processes",), ("processes",), ("threading",)]
            threads = [threading.Thread(target=call, args=args) for args in calls]
            threads.append(threading.Thread(target=starts))
            [thread.start() for thread in threads]
            children = []
            for _ in range(8):
                time.sleep(0.02)
                pid = os.fork()
                if pid == 0:
                    child()
                children.append(pid)
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            stop.set()
            [thread.join() for thread in threads]
            assert not errors, errors
            print(set(codes))

        if __name__ == "__main__":
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of fork and threads
            main()
    """
    assert run(tmp_path, text) == "{0}\n"


@pytest.mark.parametrize("step", ["find", "run"])
def test_a_fork_while_another_thread_imports(tmp_path: Path, step: str) -> None:
    """The lock of a half imported module stayed taken in the child."""
    text = f"""
        from importlib.machinery import PathFinder

        imports = threading.Event()

        class Slow:
            "Finds what a call imports, slowly, or makes it slow to run."

            def find_spec(self, name, path=None, target=None):
                if name != "parallel_core.backends.threads":
                    return None
                if {step!r} == "find":
                    self.wait()
                spec = PathFinder.find_spec(name, path, target)
                if {step!r} == "run":
                    run = spec.loader.exec_module
                    spec.loader.exec_module = lambda module: (self.wait(), run(module))
                return spec

            def wait(self):
                imports.set()
                time.sleep(0.3)

        def main():
            sys.meta_path.insert(0, Slow())
            thread = threading.Thread(target=works, args=("threading",))
            thread.start()
            imports.wait()
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                os._exit(0 if works("threading") else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            thread.join()

        if __name__ == "__main__":
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of fork and threads
            main()
    """
    assert run(tmp_path, text) == "0\n"


def test_a_fork_while_another_thread_imports_a_package(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "part.py").write_text("value = 1\n")
    (tmp_path / "package" / "__init__.py").write_text(
        "import time, package.part\ntime.sleep(0.3)\nvalue = package.part.value\n"
    )
    text = """
        def main():
            thread = threading.Thread(target=__import__, args=("package",))
            thread.start()
            while "package.part" not in sys.modules:
                time.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                import package
                os._exit(package.value - 1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            thread.join()

        if __name__ == "__main__":
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of fork and threads
            main()
    """
    assert run(tmp_path, text) == "0\n"


@pytest.mark.parametrize("backend", BACKENDS[:4])
def test_parent_and_child_after_a_fork(tmp_path: Path, backend: str) -> None:
    text = """
        def main(backend):
            assert works(backend)
            began = time.monotonic()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(20)
                    code = 0 if works(backend) else 1
                    shutdown_workers()
                finally:
                    os._exit(code)
            assert works(backend)
            assert os.waitpid(pid, 0)[1] == 0
            assert works(backend)
            print("good")

        if __name__ == "__main__":
            warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of fork and threads
            main(sys.argv[1])
    """
    assert run(tmp_path, text, backend) == "good\n"


@pytest.mark.fresh_workers
@core
def test_a_forked_child_does_not_take_its_parents_workers_for_lost() -> None:
    """It once waited for each of them, and would have killed them."""
    pids = set(Parallel(2)([delayed(os.getpid)()] * 20))
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert set(Parallel(2)([delayed(os.getpid)()] * 20)) <= pids or len(pids) == 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_call_in_a_child_of_multiprocessing(tmp_path: Path, method: str) -> None:
    text = """
        def child(pipe, backends):
            warnings.simplefilter("ignore")  # of the threads that daemons get
            pipe.send([works(backend) for backend in backends])
            pipe.close()

        def main(method):
            assert works("processes")
            context = multiprocessing.get_context(method)
            backends = ["processes", "threading", "multiprocessing", "loky"]
            for daemon in (False, True):
                mine, theirs = context.Pipe()
                process = context.Process(target=child, args=(theirs, backends), daemon=daemon)
                process.start()
                assert mine.poll(40)
                print(daemon, set(mine.recv()))
                process.join()
                assert process.exitcode == 0
            assert works("processes")

        if __name__ == "__main__":
            main(sys.argv[1])
    """
    assert run(tmp_path, text, method) == "False {True}\nTrue {True}\n"


# --- limits of the system -------------------------------------------------------------------------


@core
def test_ten_thousand_open_descriptors(tmp_path: Path) -> None:
    """So poll, not select, everywhere."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 11_000:
        pytest.skip("the hard limit of open files is lower")
    text = """
        import resource

        def main():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10_000)]
            for name in ("processes", "threading", "loky", "context-fork", "context-spawn"):
                for _ in range(2):
                    assert works(backend_of(name), return_as="generator", timeout=40)
            print("good")

        if __name__ == "__main__":
            main()
    """
    assert run(tmp_path, text) == "good\n"


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("processes", marks=core),
        "loky",
        "context-fork",
        "context-spawn",
    ],
)
def test_few_descriptors_left(tmp_path: Path, backend: str) -> None:
    text = """
        import resource

        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        def call(backend):
            import numpy
            assert works(backend)
            sums = Parallel(2, backend=backend)(
                delayed(numpy.sum)(numpy.ones(200_000)) for _ in range(2)
            )
            assert sums == [200_000.0] * 2

        def main(backend):
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            works("threading")
            call(backend)
            shutdown_workers()
            gc.collect()
            before = descriptors()
            for spare in (1, 3, 6, 8, 9, 14, 30):
                resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
                held = []
                try:
                    while True:
                        held.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                for _ in range(spare):
                    os.close(held.pop())
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call(backend)  # on fewer workers, or on threads
                [os.close(descriptor) for descriptor in held]
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                call(backend)
                shutdown_workers()
                limit = time.monotonic() + 5
                while descriptors() > before and time.monotonic() < limit:
                    gc.collect()
                    time.sleep(0.005)
                assert descriptors() == before, (spare, descriptors(), before)
            print("good")

        if __name__ == "__main__":
            main(backend_of(sys.argv[1]))
    """
    pytest.importorskip("numpy")
    assert run(tmp_path, text, backend) == "good\n"


def test_a_dead_worker_that_cannot_be_replaced_for_want_of_descriptors(tmp_path: Path) -> None:
    text = """
        import resource

        def main():
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            with Parallel(2, batch_size=1) as parallel:
                pids = set()
                while len(pids) < 2:
                    pids |= set(parallel(delayed(work)() for _ in range(8)))
                resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
                held = []
                try:
                    while True:
                        held.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    pass
                os.kill(min(pids), signal.SIGKILL)
                assert parallel(delayed(abs)(-n) for n in range(20)) == list(range(20))
                [os.close(descriptor) for descriptor in held]
                assert parallel(delayed(abs)(-n) for n in range(20)) == list(range(20))
            assert works("processes")
            print("good")

        def work():
            time.sleep(0.002)
            return os.getpid()

        if __name__ == "__main__":
            main()
    """
    assert run(tmp_path, text) == "good\n"


def test_no_more_processes_or_threads(tmp_path: Path) -> None:
    """The limit does not hold for root, so the program runs as somebody else."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root has no limit of processes, and there is no setpriv to be another")
        rights = "-all,+dac_override"  # to read this very interpreter, wherever it lies
        prefix = (
            setpriv, "--reuid=64321", "--regid=64321", "--clear-groups",
            f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}",
        )  # fmt: skip
        tried = subprocess.run(
            [*prefix, sys.executable, "-c", ""], capture_output=True, timeout=LIMIT, check=False
        )
        if tried.returncode:
            pytest.skip(f"setpriv cannot do this here: {tried.stderr.decode().strip()}")
    text = """
        import resource

        def try_all():
            for backend in ("processes", "multiprocessing", "loky", "threading"):
                try:
                    assert works(backend)
                except (OSError, RuntimeError) as error:
                    words = str(error)
                    assert "ulimit -u" in words or "new thread" in words or backend in words, words
                shutdown_workers()

        def main():
            warnings.simplefilter("ignore")
            soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            for limit in (1, 2, 3, 4, 6):
                resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
                try_all()
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
            for backend in ("processes", "multiprocessing", "loky", "threading"):
                assert works(backend)
            print("good")

        if __name__ == "__main__":
            main()
    """
    # A thread of loky's that cannot start another says so by itself.
    assert run(tmp_path, text, prefix=prefix, err=None) == "good\n"


# --- the end of the interpreter -------------------------------------------------------------------


@core
def test_calls_in_atexit_handlers(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n"
        "    from parallel_core import Parallel, delayed\n"
        "    for backend in ('processes', 'threading', 'sequential'):\n"
        "        Parallel(2, backend=backend)(delayed(abs)(-n) for n in range(4))\n"
        "    print('last')\n"
    )
    text = """
        @atexit.register
        def first():
            print("first", works("processes"), works("threading"), flush=True)

        sys.path.insert(0, ".")
        if __name__ == "__main__":
            works("processes")
    """
    script = "import sys; sys.path.insert(0, '.'); import early\n"
    import textwrap

    (tmp_path / "program.py").write_text(script + textwrap.dedent(BEGIN) + textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if sys.version_info >= (3, 12) and "interpreter shutdown" in done.stderr:
        pytest.skip("this Python starts no thread any more when atexit handlers run")
    assert (done.stdout, done.stderr) == ("first True True\nlast\n", "")
    assert done.returncode == 0


def test_loky_that_cannot_be_imported_any_more(tmp_path: Path) -> None:
    text = """
        @atexit.register
        def last():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert works("loky")
            print("threads" in str(caught[0].message))
    """
    if sys.version_info >= (3, 12):
        pytest.skip("this Python starts no thread any more when atexit handlers run")
    assert run(tmp_path, text) == "True\n"


@core
@pytest.mark.parametrize("used", ["used", ""])
def test_calls_of_objects_that_die_at_the_end(tmp_path: Path, used: str) -> None:
    text = """
        class Late:
            def __del__(self):
                for parallel in self.made:
                    assert parallel(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
                for backend in ("processes", "threading", "sequential"):
                    assert works(backend)
                os.write(1, b"late\\n")

        late = Late()
        late.itself = late
        late.made = [Parallel(2, backend=backend) for backend in ("processes", "threading")]
        if sys.argv[1]:
            assert works("processes")
        # Its globals are gone by then, one after the other, but not what it holds itself.
        Late.__del__.__globals__["late"] = late
    """
    assert run(tmp_path, text, used) == "late\n"


@core
def test_a_finalizer_that_calls_amidst_a_call(tmp_path: Path) -> None:
    text = """
        class Caller:
            def __init__(self):
                self.itself = self
            def __del__(self):
                done.append(works("processes"))

        def tasks():
            for n in range(3):
                Caller()
                gc.collect()
                yield delayed(abs)(n)

        done = []
        if __name__ == "__main__":
            assert works("processes")
            print(Parallel(2)(tasks()), done)
    """
    assert run(tmp_path, text) == "[0, 1, 2] [True, True, True]\n"


@pytest.mark.parametrize("backend", ["processes", "threading", "multiprocessing"])
@pytest.mark.parametrize("kind", ["thread", "daemon"])
def test_a_thread_that_calls_while_the_program_ends(
    tmp_path: Path, backend: str, kind: str
) -> None:
    text = """
        def call(backend, kind):
            for _ in range(5) if kind == "thread" else iter(int, 1):
                assert works(backend)
                begun.set()
            print("done")

        begun = threading.Event()
        if __name__ == "__main__":
            threading.Thread(target=call, args=sys.argv[1:], daemon=sys.argv[2] == "daemon").start()
            begun.wait()
    """
    if kind == "thread" and sys.version_info >= (3, 12) and backend == "threading":
        pytest.skip("this Python starts no thread any more when the main thread has ended")
    out = run(tmp_path, text, backend, kind)
    assert out == ("done\n" if kind == "thread" else "")


# --- signal handlers ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS[:4])
def test_a_call_from_a_signal_handler_amidst_another(tmp_path: Path, backend: str) -> None:
    """A handler that forked a worker in the middle of a start hung it."""
    text = """
        import random

        def handle(*_):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the call may last longer than the timer
            done.append(works(inner))

        def main(outer, inners, rounds):
            global inner
            chance = random.Random(3)
            for inner in inners:
                assert works(inner)  # no handler can use a module whose import it interrupts
                done.clear()
                while len(done) < rounds:
                    if chance.random() < 0.4:
                        shutdown_workers()
                    signal.signal(signal.SIGALRM, handle)
                    signal.setitimer(signal.ITIMER_REAL, chance.random() * 0.01 + 1e-4)
                    assert works(outer)
                    assert works(outer, return_as="generator")
                    signal.setitimer(signal.ITIMER_REAL, 0)
                assert all(done)
            print("good")

        done = []
        if __name__ == "__main__":
            inners = ["processes", "threading", "multiprocessing"]
            if sys.argv[1] == "loky":
                inners.append("loky")
                # The tracker of multiprocessing refuses to be used while it is being used.
                warnings.filterwarnings("ignore", "the backend .loky. .*ReentrantCallError")
            main(sys.argv[1], inners, 3 if "loky" in inners else 6)
    """
    assert run(tmp_path, text, backend) == "good\n"


@pytest.mark.parametrize(
    "step",
    [
        "parallel_core.workers.demand:Demand.lease",
        "parallel_core.workers.pool:WorkerPool._watch",
        "memmapping.store:SegmentStore._sort_in",
    ],
)
def test_a_call_from_a_signal_handler_while_a_lock_is_held(tmp_path: Path, step: str) -> None:
    text = """
        import functools
        import importlib
        import operator

        import numpy as np

        def handle(*_):
            done.append(call())

        def call():
            array = np.ones(200_000)
            return Parallel(2)(delayed(operator.length_hint)(array) for _ in range(3))

        def interrupted(method):
            @functools.wraps(method)
            def run(*args):
                if armed:
                    armed.clear()
                    signal.raise_signal(signal.SIGALRM)
                return method(*args)
            return run

        done, armed = [], [True]
        if __name__ == "__main__":
            signal.signal(signal.SIGALRM, handle)
            module, _, name = sys.argv[1].partition(":")
            kind, name = name.split(".")
            expected = call()
            kind = getattr(importlib.import_module(module), kind)
            setattr(kind, name, interrupted(getattr(kind, name)))
            assert call() == expected and done == [expected], done
            print("good")
    """
    assert run(tmp_path, text, step) == "good\n"


# --- how the program was started ------------------------------------------------------------------

PROGRAM = """
import sys
sys.path[:0] = {path!r}
from parallel_core import Parallel, delayed
def negative(n):
    return -n
for backend in {backends!r}:
    assert Parallel(2, backend=backend)(delayed(negative)(n) for n in range(3)) == [0, -1, -2]
print("good")
"""


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["-c"], marks=core),
        ["-"],
        [],
        ["-I", "-c"],
        ["-O", "-c"],
        ["-S", "-c"],
        ["-X", "dev", "-c"],
        ["-W", "error", "-c"],
    ],
    ids=" ".join,
)
def test_programs_without_a_file(tmp_path: Path, flags: list[str]) -> None:
    path = [part for part in environment()["PYTHONPATH"].split(os.pathsep) if part]
    backends = BACKENDS if flags == ["-c"] else ["processes", "multiprocessing"]
    if "-S" in flags:
        path += [part for part in sys.path if part]
    code = PROGRAM.format(path=path, backends=backends)
    arguments = [*flags, code] if "-c" in flags else flags
    done = subprocess.run(
        [sys.executable, *arguments],
        input="" if "-c" in flags else code,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("good\n", "")


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_a_folder_that_is_gone(tmp_path: Path, backend: str) -> None:
    text = """
        if __name__ == "__main__":
            os.mkdir("gone")
            os.chdir("gone")
            os.rmdir("../gone")
            warnings.simplefilter("ignore")  # loky cannot do without, so it is threads then
            print(works(sys.argv[1]))
    """
    assert run(tmp_path, text, backend) == "True\n"


@core
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["closed", "none", "odd"])
def test_messages_and_warnings_to_strange_streams(tmp_path: Path, stream: str, kind: str) -> None:
    text = """
        class Odd:
            def write(self, text):
                raise OSError("broken")

        out = open("out", "w")
        stream, kind = sys.argv[1:3]
        if kind == "closed":
            getattr(sys, stream).close()
        else:
            setattr(sys, stream, None if kind == "none" else Odd())
        for verbose in (11, 51):
            try:
                done = works("processes", verbose=verbose)
            except (OSError, ValueError) as error:  # said by the stream itself
                done = works("processes") and "after " + type(error).__name__
            print(done, file=out)
        out.close()
        setattr(sys, stream, None)
    """
    run(tmp_path, text, stream, kind, err=None)
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 2
    assert all(line in ("True", "after OSError", "after ValueError") for line in lines)


# --- threads --------------------------------------------------------------------------------------


@core
def test_no_thread_to_be_had_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match=r"not even one thread can be started.*n_jobs=1"):
        works("threading")
    monkeypatch.undo()
    assert works("threading")


def test_one_place_knows_what_is_done_at_forks() -> None:
    home = Path(__file__).parents[1]
    files = (*(home / "parallel_core").rglob("*.py"), *(home / "memmapping").rglob("*.py"))
    names = [file.name for file in files if "register_at_fork(" in file.read_text()]
    assert names == ["forks.py"]


def test_handlers_of_forks() -> None:
    """Those before a fork run in reverse; one that raises is shown, and the others run."""
    script = """
import os, sys
from memmapping.forks import around_forks, in_child
said = []
sys.unraisablehook = lambda what: said.append(type(what.exc_value).__name__)
around_forks(lambda: said.append("before 1"), lambda: said.append("in parent"))
around_forks(lambda: said.append("before 2"))
in_child(lambda: 1 / 0)
in_child(lambda: said.append("in child"))
pid = os.fork()
if pid == 0:
    print(said, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(said)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    child, parent = done.stdout.splitlines()
    assert child == "['before 2', 'before 1', 'ZeroDivisionError', 'in child']"
    assert parent == "['before 2', 'before 1', 'in parent']"
