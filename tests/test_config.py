"""What is in force where: configuration, choice of the backend, nesting, the environment."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core import (
    Backend,
    BackendError,
    Parallel,
    cpu_count,
    delayed,
    effective_n_jobs,
    get_active_backend,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
    wrap_non_picklable_objects,
)
from parallel_core.backends.base import Session, Style
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.futures import FuturesBackend
from parallel_core.backends.options import WorkerOptions

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core
ROOT = Path(parallel_core.__file__).resolve().parents[1]


def run_script(
    folder: Path, text: str, *arguments: str, options: tuple[str, ...] = (), **environment: str
) -> tuple[str, str]:
    """Run `text` as a script and return its stdout and stderr; it must succeed."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    names = ("JOBLIB_START_METHOD", "JOBLIB_MULTIPROCESSING", "LOKY_MAX_CPU_COUNT")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, *options, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def active() -> tuple[str, int]:
    backend, n_jobs = get_active_backend()
    return backend.name, n_jobs


def chosen(**parameters: Any) -> str:
    """Return the name of the backend that `Parallel` takes, or the error."""
    try:
        return Parallel(**parameters)._backend.name
    except ValueError:
        return "ValueError"


def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def places(parallel: Parallel) -> str:
    """Return where the tasks of `parallel` run."""
    pids, idents = zip(*parallel(delayed(where)() for _ in range(6)), strict=True)
    if os.getpid() not in pids:
        return "processes"
    return "here" if set(idents) == {threading.get_ident()} else "threads"


# Contexts.


@core
def test_the_default() -> None:
    assert active() == ("processes", 1)
    assert Parallel().n_jobs in (None, 1)
    assert places(Parallel()) == "here"
    assert places(Parallel(n_jobs=2)) == "processes"


@core
def test_nesting_of_contexts() -> None:
    with parallel_config(backend="threading", n_jobs=3, verbose=0):
        assert active() == ("threading", 3)
        assert Parallel().n_jobs == 3
        with parallel_config(n_jobs=2):
            assert active() == ("threading", 2)
            with parallel_config(backend="loky"):
                assert active() == ("loky", 2)
                with parallel_backend("sequential"):
                    assert active() == ("sequential", -1)
                assert active() == ("loky", 2)
        assert active() == ("threading", 3)
        with pytest.raises(KeyError), parallel_config(n_jobs=5, backend="processes"):
            raise KeyError
        assert active() == ("threading", 3)
    assert active() == ("processes", 1)


@core
def test_contexts_take_effect_where_tasks_run() -> None:
    with parallel_config(backend="threading", n_jobs=2):
        assert places(Parallel()) == "threads"
        assert places(Parallel(n_jobs=1)) == "here"
        assert places(Parallel(backend="processes")) == "processes"
    with parallel_backend("processes", n_jobs=2):
        assert places(Parallel()) == "processes"
        assert places(Parallel(prefer="threads")) == "processes"
        assert places(Parallel(require="sharedmem", n_jobs=2)) == "threads"
    with parallel_config(n_jobs=2):
        assert places(Parallel()) == "processes"
        assert places(Parallel(prefer="threads", n_jobs=2)) == "threads"
    with parallel_config(prefer="threads"):
        assert places(Parallel(n_jobs=2)) == "threads"
    with parallel_config(require="sharedmem"):
        assert places(Parallel(n_jobs=2)) == "threads"


@core
def test_precedence() -> None:
    with parallel_config(n_jobs=3, verbose=7, temp_folder="/tmp", max_nbytes=10, mmap_mode="c"):
        parallel = Parallel()
        assert (parallel.n_jobs, parallel.verbose, parallel.max_nbytes) == (3, 7, 10)
        assert (parallel.temp_folder, parallel.mmap_mode) == ("/tmp", "c")
        parallel = Parallel(2, verbose=0, temp_folder=None, max_nbytes=None, mmap_mode="r+")
        assert (parallel.n_jobs, parallel.verbose, parallel.max_nbytes) == (2, 0, None)
        assert (parallel.temp_folder, parallel.mmap_mode) == (None, "r+")
        # None means unset here
        assert Parallel(n_jobs=None).n_jobs == 3
        with parallel_config(backend="threading"):
            assert chosen(backend=None) == "threading"
    parallel = Parallel()
    assert (parallel.verbose, parallel.max_nbytes, parallel.mmap_mode) == (0, "1M", "r")


def test_an_instance_keeps_what_was_in_force_when_it_was_made() -> None:
    with parallel_config(backend="threading", n_jobs=2):
        parallel = Parallel()
    assert places(parallel) == "threads"
    parallel = Parallel(n_jobs=2)
    with parallel_config(backend="threading"):
        assert places(parallel) == "processes"


@core
def test_without_with() -> None:
    config = parallel_config(backend="threading", n_jobs=2)
    try:
        assert active() == ("threading", 2)
    finally:
        config.unregister()
    assert active() == ("processes", 1)
    config.unregister()
    assert active() == ("processes", 1)
    backend = parallel_backend("threading")
    assert active() == ("threading", -1)
    backend.unregister()
    assert active() == ("processes", 1)


def test_what_parallel_backend_gives() -> None:
    with parallel_backend("threading", n_jobs=3) as (backend, n_jobs):
        assert isinstance(backend, Backend)
        assert (backend.name, n_jobs) == ("threading", 3)
    with parallel_backend("threading"):
        assert effective_n_jobs(None) == cpu_count()
        assert Parallel().n_jobs == -1


@core
def test_contexts_belong_to_their_thread() -> None:
    seen: dict[str, tuple[str, int]] = {}
    barrier = threading.Barrier(2, timeout=20)

    def work(name: str, n_jobs: int) -> None:
        seen[f"{name} before"] = active()
        with parallel_config(backend=name, n_jobs=n_jobs):
            barrier.wait()
            seen[name] = active()
            barrier.wait()
        seen[f"{name} after"] = active()

    with parallel_config(backend="loky", n_jobs=9):
        threads = [
            threading.Thread(target=work, args=arguments)
            for arguments in [("threading", 2), ("sequential", 3)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert active() == ("loky", 9)
    assert seen["threading"] == ("threading", 2)
    assert seen["sequential"] == ("sequential", 3)
    outside = [value for key, value in seen.items() if " " in key]
    assert outside == [("processes", 1)] * 4


@core
def test_contexts_belong_to_their_async_task() -> None:
    async def work(name: str, n_jobs: int) -> list[tuple[str, int]]:
        seen = [active()]
        with parallel_config(backend=name, n_jobs=n_jobs):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(active())
        await asyncio.sleep(0)
        return [*seen, active()]

    async def main() -> list[list[tuple[str, int]]]:
        with parallel_config(n_jobs=7):
            return await asyncio.gather(work("threading", 2), work("sequential", 3))

    outer = ("processes", 7)
    assert asyncio.run(main()) == [
        [outer, *[("threading", 2)] * 3, outer],
        [outer, *[("sequential", 3)] * 3, outer],
    ]


def test_a_call_within_an_async_program() -> None:
    async def main() -> list[Any]:
        def call(base: int) -> Any:
            return Parallel()(delayed(pow)(base, i) for i in range(5))

        with parallel_config(backend="threading", n_jobs=2):
            return [call(2), *await asyncio.gather(*(asyncio.to_thread(call, i) for i in (3, 4)))]

    assert asyncio.run(main()) == [[base**i for i in range(5)] for base in (2, 3, 4)]


def test_unregister_in_another_task_does_no_harm() -> None:
    async def main() -> tuple[str, int]:
        config = parallel_config(backend="threading", n_jobs=2)

        async def other() -> None:
            config.unregister()
            assert active() == ("processes", 1)

        await asyncio.create_task(other())
        return active()

    asyncio.run(main())
    assert active() == ("processes", 1)


def test_a_generator_of_results_does_not_leak_its_context() -> None:
    def results() -> Iterator[Any]:
        with parallel_config(backend="threading", n_jobs=2):
            yield from Parallel(return_as="generator")(delayed(abs)(-i) for i in range(3))

    assert list(results()) == [0, 1, 2]
    assert active() == ("processes", 1)


# prefer and require.


@core
@pytest.mark.parametrize(
    ("context", "parameters", "expected"),
    [
        ({}, {}, "processes"),
        ({}, {"prefer": "threads"}, "threading"),
        ({}, {"prefer": "processes"}, "processes"),
        ({}, {"require": "sharedmem"}, "threading"),
        ({}, {"require": "sharedmem", "prefer": "threads"}, "threading"),
        ({}, {"require": "sharedmem", "prefer": "processes"}, "ValueError"),
        ({}, {"backend": "loky", "prefer": "threads"}, "loky"),
        ({}, {"backend": "threading", "prefer": "processes"}, "threading"),
        ({}, {"backend": "loky", "require": "sharedmem"}, "ValueError"),
        ({}, {"backend": "threading", "require": "sharedmem"}, "threading"),
        ({}, {"backend": "sequential", "require": "sharedmem"}, "sequential"),
        ({"backend": "loky"}, {"prefer": "threads"}, "loky"),
        ({"backend": "loky"}, {"require": "sharedmem"}, "threading"),
        ({"backend": "multiprocessing"}, {"require": "sharedmem"}, "threading"),
        ({"backend": "threading"}, {"prefer": "processes"}, "threading"),
        ({"backend": "threading"}, {"require": "sharedmem"}, "threading"),
        ({"backend": "sequential"}, {"prefer": "threads"}, "sequential"),
        ({"backend": "sequential"}, {"require": "sharedmem"}, "sequential"),
        ({"backend": "threading"}, {"backend": "loky"}, "loky"),
        ({"backend": "threading"}, {"backend": "loky", "require": "sharedmem"}, "ValueError"),
        ({"prefer": "threads"}, {}, "threading"),
        ({"prefer": "threads"}, {"prefer": "processes"}, "processes"),
        ({"prefer": "threads"}, {"backend": "loky"}, "loky"),
        ({"prefer": "processes"}, {"require": "sharedmem"}, "ValueError"),
        ({"require": "sharedmem"}, {}, "threading"),
        ({"require": "sharedmem"}, {"prefer": "processes"}, "ValueError"),
        ({"require": "sharedmem"}, {"backend": "threading"}, "threading"),
        ({"backend": "loky", "require": "sharedmem"}, {}, "threading"),
        ({"backend": "loky", "prefer": "threads"}, {}, "loky"),
        # a constraint of the context does not bind who names a backend
        ({"require": "sharedmem"}, {"backend": "loky"}, "loky"),
        ({"backend": "threading", "require": "sharedmem"}, {"backend": "loky"}, "loky"),
    ],
)
def test_hints_and_constraints(
    context: dict[str, Any], parameters: dict[str, Any], expected: str
) -> None:
    with parallel_config(**context):
        assert chosen(**parameters) == expected


@core
@pytest.mark.parametrize(
    ("context", "parameters", "expected"),
    [
        ({"prefer": "threads"}, {}, "threading"),
        ({"require": "sharedmem"}, {}, "threading"),
        ({"prefer": "threads"}, {"prefer": "processes"}, "processes"),
        ({"backend": "loky", "require": "sharedmem"}, {}, "threading"),
        ({"backend": "loky", "prefer": "threads"}, {}, "loky"),
        ({"backend": "loky"}, {"require": "sharedmem"}, "threading"),
        ({"require": "sharedmem"}, {"prefer": "processes"}, "ValueError"),
        ({"prefer": "processes"}, {"require": "sharedmem"}, "ValueError"),
    ],
)
def test_get_active_backend_goes_by_the_same_rules(
    context: dict[str, Any], parameters: dict[str, Any], expected: str
) -> None:
    with parallel_config(**context):
        try:
            got = get_active_backend(**parameters)[0].name
        except ValueError:
            got = "ValueError"
        assert got == expected


def test_sharedmem_really_shares() -> None:
    shared: list[int] = []
    with parallel_backend("processes", n_jobs=2):
        Parallel(n_jobs=2, require="sharedmem")(delayed(shared.append)(i) for i in range(20))
    assert sorted(shared) == list(range(20))


def test_overriding_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with parallel_config("processes", n_jobs=2, verbose=10):
        Parallel(n_jobs=2, require="sharedmem")([delayed(abs)(-1)])
    error = capsys.readouterr().err
    assert "sharedmem" in error
    assert "'processes'" in error


# How many.


@core
def test_effective_n_jobs() -> None:
    cores = cpu_count()
    assert effective_n_jobs() == effective_n_jobs(-1) == cores
    assert effective_n_jobs(None) == 1
    assert effective_n_jobs(1) == 1
    assert effective_n_jobs(5) == 5
    assert effective_n_jobs(2.9) == 2  # type: ignore[arg-type]
    assert effective_n_jobs(-1000) == 1
    assert effective_n_jobs(-cores) == 1
    with parallel_config(n_jobs=3):
        assert effective_n_jobs(None) == 3
        assert effective_n_jobs(2) == 2
        assert effective_n_jobs() == cores
    with parallel_backend("sequential"):
        assert effective_n_jobs(4) == 1
        assert effective_n_jobs() == 1
    with ThreadPoolExecutor(3) as executor, parallel_backend(executor):
        assert effective_n_jobs() == 3
        assert effective_n_jobs(-2) == 2
    with pytest.raises(ValueError, match="n_jobs"):
        effective_n_jobs(0)


@core
def test_cpu_count_and_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cpu_count()
    assert 1 <= whole <= len(os.sched_getaffinity(0))
    assert 1 <= cpu_count(only_physical_cores=True) <= whole
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert cpu_count() == 1
    assert effective_n_jobs(-1) == 1
    assert effective_n_jobs(4) == 4
    assert places(Parallel(n_jobs=-1)) == "here"


def test_the_affinity_mask_counts(tmp_path: Path) -> None:
    script = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from parallel_core import cpu_count, effective_n_jobs
        print(cpu_count(), effective_n_jobs(-1), effective_n_jobs(-2))
    """
    assert run_script(tmp_path, script)[0] == "1 1 1\n"


# The environment.

PLACES = """
    import os, sys, threading, warnings
    import parallel_core
    from parallel_core import Parallel, delayed

    def where():
        return os.getpid(), threading.get_ident()

    def main():
        kinds = []
        for backend in (None, "processes", "loky", "multiprocessing"):
            for _ in range(2):
                got = Parallel(n_jobs=2, backend=backend)(delayed(where)() for _ in range(6))
                own = os.getpid() in [pid for pid, _ in got]
                kinds.append("threads" if own else "processes")
        print(*sorted(set(kinds)))

    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize("variable", ["JOBLIB_MULTIPROCESSING", "PARALLEL_CORE_MULTIPROCESSING"])
def test_multiprocessing_forbidden(variable: str, tmp_path: Path) -> None:
    out, error = run_script(tmp_path, PLACES, **{variable: "0"})
    assert out == "threads\n"
    assert variable in error
    assert error.count("RuntimeWarning") <= 3  # one for each kind of process
    default_only = PLACES.replace('(None, "processes", "loky", "multiprocessing")', "(None, None)")
    out, error = run_script(tmp_path, default_only, **{variable: "0"}, options=("-W", "always"))
    assert out == "threads\n"
    assert error.count("RuntimeWarning") == 1
    assert "script.py" in error, "the warning points into the library"


def test_multiprocessing_allowed(tmp_path: Path) -> None:
    for value in ("1", "", " "):
        out, error = run_script(tmp_path, PLACES, JOBLIB_MULTIPROCESSING=value)
        assert (out, error) == ("processes\n", "")
    out, _ = run_script(
        tmp_path, PLACES, JOBLIB_MULTIPROCESSING="0", PARALLEL_CORE_MULTIPROCESSING="1"
    )
    assert out == "processes\n"


@pytest.mark.parametrize(
    ("variable", "method"),
    [
        *(("JOBLIB_START_METHOD", method) for method in ("fork", "spawn", "forkserver", "loky")),
        *(("PARALLEL_CORE_START_METHOD", method) for method in ("fork", "loky")),
    ],
)
def test_the_start_method(method: str, variable: str, tmp_path: Path) -> None:
    script = """
        import os, sys
        from parallel_core import Parallel, delayed

        before = os.getpid()

        def parent():
            return os.getppid()

        def main():
            got = set(Parallel(n_jobs=2, backend="multiprocessing")(
                delayed(parent)() for _ in range(8)
            ))
            print("direct" if got == {os.getpid()} else "through a server")

        if __name__ == "__main__":
            main()
    """
    out, _ = run_script(tmp_path, script, **{variable: method})
    assert out == ("through a server\n" if method == "forkserver" else "direct\n")


def test_an_unknown_start_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBLIB_START_METHOD", "teleport")
    with pytest.raises(ValueError, match=r"JOBLIB_START_METHOD.*teleport.*forkserver"):
        Parallel(n_jobs=2, backend="multiprocessing", timeout=4321.0)  # which no test has made
    with pytest.raises(ValueError, match="teleport"):
        parallel_config("multiprocessing")
    assert Parallel(n_jobs=2)([delayed(abs)(-1)]) == [1]


# Processes that cannot be started.

UNBORN = """
    import os, sys, resource, threading, warnings
    from parallel_core import Parallel, delayed, shutdown_workers

    def where():
        return os.getpid()

    def main(trouble):
        for backend in (None, "threading"):  # all modules are there: nothing else fails below
            Parallel(n_jobs=2, backend=backend)(delayed(abs)(i) for i in range(4))
        shutdown_workers()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        executable = sys.executable
        if trouble == "descriptors":
            used = [int(name) for name in os.listdir("/proc/self/fd")]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 2, limits[1]))
        elif trouble == "some descriptors":
            used = [int(name) for name in os.listdir("/proc/self/fd")]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 20, limits[1]))
        elif trouble == "empty":
            sys.executable = ""
        elif trouble == "none":
            sys.executable = None
        elif trouble == "missing":
            sys.executable = "/nonexistent/python"
        elif trouble == "forbidden":
            sys.executable = "/dev/null"
        elif trouble == "no python":
            sys.executable = "/bin/false"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                pids = set(Parallel(n_jobs=8)(delayed(where)() for _ in range(20)))
            with Parallel(n_jobs=8) as parallel:
                for _ in range(2):
                    pids |= set(parallel(delayed(where)() for _ in range(20)))
                values = parallel(delayed(abs)(-i) for i in range(50))
            assert values == list(range(50))
        said = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        sys.executable = executable
        print("threads" if pids == {os.getpid()} else "processes", len(said))
        print(*said)
        after = set(Parallel(n_jobs=2)(delayed(where)() for _ in range(8)))
        print("threads" if after == {os.getpid()} else "processes")

    if __name__ == "__main__":
        main(sys.argv[1])
"""


@core
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("descriptors", "Too many open files"),
        ("empty", "sys.executable"),
        ("none", "sys.executable"),
        ("missing", "/nonexistent/python"),
        ("forbidden", "/dev/null"),
    ],
)
def test_threads_where_processes_cannot_be_started(
    trouble: str, words: str, tmp_path: Path
) -> None:
    out, _ = run_script(tmp_path, UNBORN, trouble)
    where_then, said, where_after = out.splitlines()
    assert where_then == "threads 1"
    assert "threads" in said
    assert words in said
    assert where_after == "processes"


def test_threads_where_the_executable_is_no_python(tmp_path: Path) -> None:
    out, _ = run_script(tmp_path, UNBORN, "no python")
    where_then, _, where_after = out.splitlines()
    assert where_then == "threads 1"
    assert where_after == "processes"


def test_fewer_workers_where_some_cannot_be_started(tmp_path: Path) -> None:
    out, _ = run_script(tmp_path, UNBORN, "some descriptors")
    assert out.splitlines()[0] == "processes 0"
    assert out.splitlines()[-1] == "processes"


def test_the_warning_can_be_an_error_and_the_next_call_works(tmp_path: Path) -> None:
    script = """
        import sys
        from parallel_core import Parallel, delayed
        executable, sys.executable = sys.executable, ""
        for _ in range(2):
            try:
                print(Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(3)))
            except RuntimeWarning as warning:
                print("RuntimeWarning")
        sys.executable = executable
        print(Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(3)))
    """
    out, _ = run_script(tmp_path, script, options=("-W", "error::RuntimeWarning"))
    assert out.splitlines()[0] == "RuntimeWarning"
    assert out.splitlines()[-1] == "[0, 1, 2]"


# Backends of others.


class Remote(FuturesBackend):
    """Wants to know where to connect to."""

    name = "remote"
    made: list[Remote]

    def __init__(self, endpoint: str, api_key: str = "none") -> None:
        self.endpoint = endpoint
        self.api_key = api_key
        self.pool: Executor | None = None
        type(self).made.append(self)

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        assert (self.endpoint, self.api_key) == ("http://compute", "42")
        assert options.initializer is None
        self.pool = ThreadPoolExecutor(n_jobs, thread_name_prefix="remote")
        return self.pool

    def release(self, executor: Executor) -> None:
        executor.shutdown()


Remote.made = []


@core
def test_a_backend_with_parameters() -> None:
    Remote.made = []
    register_parallel_backend("custom", Remote)
    with parallel_backend("custom", endpoint="http://compute", api_key="42") as (backend, n_jobs):
        assert isinstance(backend, Remote)
        assert n_jobs == -1
        assert get_active_backend()[0] is backend
        names = Parallel()(delayed(lambda: threading.current_thread().name)() for _ in range(10))
        assert all(name.startswith("remote") for name in names)
        with parallel_config(n_jobs=2):
            assert Parallel()(delayed(abs)(-i) for i in range(10)) == list(range(10))
        assert places(Parallel(n_jobs=2, require="sharedmem")) == "threads"
        assert Parallel(backend="sequential")([delayed(abs)(-1)]) == [1]
    assert len(Remote.made) == 1
    made = Parallel(n_jobs=2, backend="custom", endpoint="http://compute", api_key="42")
    assert made(delayed(abs)(-i) for i in range(10)) == list(range(10))
    with pytest.raises(TypeError, match="endpoint"):
        Parallel(n_jobs=2, backend="custom")
    with pytest.raises(TypeError, match="endpoint"):
        parallel_backend("custom")
    with pytest.raises(TypeError, match="port"):
        parallel_backend("custom", endpoint="http://compute", port=1)
    assert active() == ("processes", 1)


def test_an_instance_of_a_backend() -> None:
    Remote.made = []
    backend = Remote("http://compute", "42")
    assert Parallel(n_jobs=2, backend=backend)([delayed(abs)(-1)]) == [1]
    with parallel_config(backend=backend, n_jobs=2):
        assert get_active_backend() == (backend, 2)
        assert Parallel()(delayed(abs)(-i) for i in range(30)) == list(range(30))


class Wrapping(Backend):
    """Hands on to the default workers, and counts."""

    name = "wrapping"
    style = Style.PUSH

    def __init__(self) -> None:
        self.opened: list[int] = []

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        self.opened.append(n_jobs)
        from parallel_core.backends.processes import ProcessesBackend

        return ProcessesBackend().open(n_jobs, level, options)


class Inline(Backend):
    """Runs in the caller's thread; nothing but two attributes."""

    name = "inline"
    style = Style.INLINE


def test_backends_of_every_style() -> None:
    wrapping = Wrapping()
    with Parallel(n_jobs=2, backend=wrapping) as parallel:
        for _ in range(3):
            assert parallel(delayed(abs)(-i) for i in range(30)) == list(range(30))
    assert wrapping.opened == [2]
    assert places(Parallel(n_jobs=1, backend=wrapping)) == "processes"
    register_parallel_backend("inline", Inline)
    assert places(Parallel(n_jobs=4, backend="inline")) == "here"
    with parallel_backend("inline"):
        assert places(Parallel()) == "here"


def test_a_backend_without_open() -> None:
    class Unfinished(Backend):
        name = "unfinished"

    with pytest.raises(BackendError, match=r"Unfinished\.open is missing"):
        Parallel(n_jobs=2, backend=Unfinished())([delayed(abs)(-1)])


class Plain(Executor):
    """The smallest executor: runs at once, in the caller's thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Mine:
    def __init__(self, x: int) -> None:
        self.x = x

    def double(self) -> int:
        return 2 * self.x


@core
@pytest.mark.parametrize("factory", [ThreadPoolExecutor, ProcessPoolExecutor, Plain])
def test_executors(factory: Any) -> None:
    def closure(x: int) -> int:
        return x + offset

    offset = 5
    with factory() if factory is Plain else factory(2) as executor:
        for parameters in ({}, {"batch_size": 7}, {"pre_dispatch": "all"}):
            parallel = Parallel(n_jobs=2, backend=executor, **parameters)
            assert parallel(delayed(abs)(-i) for i in range(50)) == list(range(50))
            assert parallel(delayed(closure)(i) for i in range(50)) == list(range(5, 55))
            assert parallel(delayed(Mine(i).double)() for i in range(9)) == list(range(0, 18, 2))
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(divmod)(1, 3 - i) for i in range(5))
        assert parallel([]) == []
        with parallel_config(backend=executor):
            assert Parallel(n_jobs=2)([delayed(abs)(-1)]) == [1]
        assert executor.submit(abs, -2).result() == 2  # still its owner's


def test_an_executor_from_a_factory() -> None:
    made: list[ThreadPoolExecutor] = []

    def factory(workers: int = 2) -> ThreadPoolExecutor:
        made.append(ThreadPoolExecutor(workers))
        return made[-1]

    register_parallel_backend("pooled", factory)
    try:
        assert Parallel(n_jobs=2, backend="pooled")([delayed(abs)(-1)]) == [1]
        with parallel_backend("pooled", workers=3):
            assert effective_n_jobs(-1) == 3
            assert Parallel()(delayed(abs)(-i) for i in range(30)) == list(range(30))
    finally:
        for executor in made:
            executor.shutdown()
    assert len(made) == 2


def test_classes_by_value_on_threads_of_an_executor() -> None:
    """Threads of an executor have one table of definitions, whatever batch came first."""

    def make(name: str) -> type:
        return type(name, (), {"__init__": lambda self, x: setattr(self, "x", x)})

    kinds = [make(f"Kind{i}") for i in range(6)]

    def read(item: Any, other: Any = None) -> Any:
        return type(item).__name__, item.x

    with ThreadPoolExecutor(4) as executor:
        for _ in range(5):
            parallel = Parallel(n_jobs=4, backend=executor, batch_size=1, pre_dispatch="all")
            items = [kinds[i % 6](i) for i in range(120)]
            got = parallel(delayed(read)(item) for item in items)
            assert got == [(f"Kind{i % 6}", i) for i in range(120)]
            same = parallel(delayed(lambda item: item)(item) for item in items)
            assert [type(item) for item in same] == [kinds[i % 6] for i in range(120)]


@core
def test_make_default(tmp_path: Path) -> None:
    script = """
        from concurrent.futures import ThreadPoolExecutor
        from parallel_core import Parallel, delayed, get_active_backend, register_parallel_backend
        import threading
        executor = ThreadPoolExecutor(2, thread_name_prefix="mine")
        register_parallel_backend("mine", lambda: executor, make_default=True)
        name = lambda: threading.current_thread().name
        print({n.split("_")[0] for n in Parallel(n_jobs=2)(delayed(name)() for _ in range(9))})
        print({n.split("-")[0] for n in Parallel(n_jobs=2, prefer="threads")(
            delayed(name)() for _ in range(9))})
        print(Parallel(n_jobs=2, backend="processes")(delayed(abs)(-i) for i in range(3)))
        register_parallel_backend("processes", lambda: executor)  # a known name anew
        print({n.split("_")[0] for n in Parallel(n_jobs=2, backend="processes")(
            delayed(name)() for _ in range(9))})
        executor.shutdown()
    """
    out, _ = run_script(tmp_path, script)
    assert out.splitlines() == ["{'mine'}", "{'parallel'}", "[0, 1, 2]", "{'mine'}"]


# Calls within calls.


def descend(levels: int, backend: str | None) -> list[Any]:
    """Return, for this level and those below, where it ran and on which backend they go on."""
    name = get_active_backend()[0].name
    below: list[Any] = []
    if levels:
        results = Parallel(n_jobs=2, backend=backend)(
            delayed(descend)(levels - 1, backend) for _ in range(2)
        )
        below = results[0]
    return [(os.getpid(), threading.get_ident(), name), *below]


@core
def test_four_levels() -> None:
    names = [[name for _, _, name in descend(4, None)] for _ in range(2)]
    expected = ["processes", "threading", "sequential", "sequential", "sequential"]
    assert names == [expected] * 2
    here, first, second, third, fourth = descend(4, None)
    assert here[0] == os.getpid()
    assert first[0] != here[0]  # a process
    assert second[0] == first[0] and second[1] != first[1]  # a thread of it
    assert third[:2] == fourth[:2] == second[:2]  # and then a loop


@pytest.mark.parametrize(
    ("backend", "levels"),
    [("processes", 3), ("threading", 4), ("sequential", 4), ("multiprocessing", 2)],
)
def test_levels_of_one_backend(backend: str, levels: int) -> None:
    assert len(descend(levels, backend)) == levels + 1


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (outer, inner)
        for outer in ("processes", "threading", "loky", "multiprocessing")
        for inner in ("processes", "threading", "loky")
        if not outer == inner == "loky"  # there is a test of that below
    ],
)
def test_one_backend_within_another(outer: str, inner: str) -> None:

    def work(i: int) -> list[int]:
        return Parallel(n_jobs=2, backend=inner)(delayed(pow)(i, j) for j in range(5))

    got = Parallel(n_jobs=2, backend=outer)(delayed(work)(i) for i in range(4))
    assert got == [[i**j for j in range(5)] for i in range(4)]


def test_loky_within_loky(tmp_path: Path) -> None:
    """In a program of its own: loky clears up after killed executors when the program ends."""
    script = """
        from parallel_core import Parallel, delayed

        def work(i):
            return Parallel(n_jobs=2, backend="loky")(delayed(pow)(i, j) for j in range(3))

        print(Parallel(n_jobs=2, backend="loky")(delayed(work)(i) for i in range(3)))
    """
    assert run_script(tmp_path, script)[0] == "[[1, 0, 0], [1, 1, 1], [1, 2, 4]]\n"


def threads_and_depth(levels: int) -> int:
    """Return the largest number of threads that were there at once, here or below."""
    count = threading.active_count()
    if not levels:
        return count
    return max(
        count,
        *Parallel(n_jobs=2)(delayed(threads_and_depth)(levels - 1) for _ in range(2)),
    )


def test_nested_calls_within_a_context_do_not_multiply() -> None:
    """Below the second level the default is a loop, whatever context the outermost call had."""
    before = threading.active_count()
    with parallel_config(backend="threading", n_jobs=2):
        assert Parallel()([delayed(threads_and_depth)(6)])[0] - before <= 2 + 4


def settings_seen() -> tuple[int | None, int]:
    return Parallel().n_jobs, effective_n_jobs(None)


@pytest.mark.parametrize("backend", ["processes", "threading", "loky"])
def test_what_tasks_see_of_the_context(backend: str) -> None:
    """The number of jobs was for this level, on every backend."""
    with parallel_config(backend=backend, n_jobs=2):
        got = Parallel()(delayed(settings_seen)() for _ in range(4))
    assert [(n_jobs or 1, effective) for n_jobs, effective in got] == [(1, 1)] * 4


def test_a_configuration_within_a_task() -> None:
    def work(i: int) -> list[int]:
        with parallel_config(backend="threading", n_jobs=2):
            return Parallel()(delayed(pow)(i, j) for j in range(3))

    for backend in ("processes", "threading", "sequential"):
        got = Parallel(n_jobs=2, backend=backend)(delayed(work)(i) for i in range(4))
        assert got == [[i**j for j in range(3)] for i in range(4)]
        assert active() == ("processes", 1)


# wrap_non_picklable_objects


@core
def test_wrapping() -> None:
    factor = 3

    def times(x: int, *, plus: int = 0) -> int:
        """Multiply."""
        return factor * x + plus

    wrapped = wrap_non_picklable_objects(times)
    assert wrapped(2) == 6
    assert (wrapped.__name__, wrapped.__doc__) == ("times", "Multiply.")
    assert pickle.loads(pickle.dumps(wrapped))(2, plus=1) == 7
    assert pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(wrapped))))(2) == 6
    assert wrap_non_picklable_objects(lambda: factor)() == 3

    @wrap_non_picklable_objects
    class Local:
        kind = "local"

        def __init__(self, x: int) -> None:
            self.x = x

        def double(self) -> int:
            return 2 * self.x

        def __call__(self, y: int) -> int:
            return self.x + y

    item = Local(4)
    assert (item.x, item.double(), item(1)) == (4, 8, 5)
    back = pickle.loads(pickle.dumps(item))
    assert (back.x, back.double(), back(1)) == (4, 8, 5)
    with pytest.raises(AttributeError, match="nothing"):
        _ = item.nothing
    plain = wrap_non_picklable_objects(functools.partial(times, plus=2), keep_wrapper=False)
    assert type(pickle.loads(pickle.dumps(plain))) is functools.partial

    for backend in ("processes", "loky", "threading"):
        parallel = Parallel(n_jobs=2, backend=backend)
        assert parallel(delayed(wrapped)(i) for i in range(4)) == [0, 3, 6, 9]
        assert parallel(delayed(item.double)() for _ in range(3)) == [8] * 3
        assert parallel(delayed(item)(i) for i in range(3)) == [4, 5, 6]


# The names of joblib.


@core
def test_names_of_joblib(tmp_path: Path) -> None:
    from parallel_core.backends import conventions
    from parallel_core.compat import joblib

    names = {
        "Parallel": Parallel,
        "delayed": delayed,
        "cpu_count": cpu_count,
        "effective_n_jobs": effective_n_jobs,
        "parallel_backend": parallel_backend,
        "parallel_config": parallel_config,
        "register_parallel_backend": register_parallel_backend,
        "wrap_non_picklable_objects": wrap_non_picklable_objects,
        "ParallelBackendBase": conventions.ParallelBackendBase,
        "FallbackToBackend": conventions.FallbackToBackend,
    }
    for name, expected in names.items():
        assert getattr(joblib, name) is expected
    assert set(names) <= set(joblib.__all__)
    got = joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(3))
    assert got == [0, 1, 2]
    script = """
        from parallel_core.compat import joblib
        from parallel_core.compat.joblib import Parallel, delayed
        with joblib.parallel_backend("loky", n_jobs=2):
            print(Parallel(verbose=0, prefer="threads")(delayed(pow)(i, 2) for i in range(5)))
        with joblib.parallel_config(backend="threading", n_jobs=2, inner_max_num_threads=None):
            print(joblib.Parallel()(joblib.delayed(lambda x: x)(i) for i in range(5)))
        try:
            joblib.no_such_name
        except AttributeError as error:
            print("no_such_name" in str(error))
    """
    out, error = run_script(tmp_path, script)
    assert out == "[0, 1, 4, 9, 16]\n[0, 1, 2, 3, 4]\nTrue\n"
    assert error == ""


def test_the_number_of_threads_in_workers() -> None:
    def limits() -> tuple[str | None, ...]:
        return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))

    inherited = limits()
    with parallel_config("processes", n_jobs=2, inner_max_num_threads=3):
        got = Parallel()(delayed(limits)() for _ in range(4))
        assert set(got) == {tuple(value or "3" for value in inherited)}
    shared = str(threads_per_worker(2, None))
    got = Parallel(n_jobs=2)(delayed(limits)() for _ in range(4))
    assert set(got) == {tuple(value or shared for value in inherited)}
