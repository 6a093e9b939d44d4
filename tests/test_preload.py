"""Modules that workers have imported before their first task, once for all: `preload`."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import are_gone, kill_group, run, start, told

from parallel_core import (
    InitializerError,
    Parallel,
    PreloadError,
    WorkerDiedError,
    delayed,
    parallel_config,
    shutdown_workers,
)
from parallel_core.workers import pool as pools
from parallel_core.workers.pool import worker_pool
from watching import LIMIT, children, descendants, running, some, wait_until

#: A module that leaves the number of its process, all at once.
TELLS = """
import os, pathlib, time
pathlib.Path(".fork server").write_text(str(os.getpid()))
os.rename(".fork server", "pid-fork server")
"""


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have `function` go by value, so that workers need no test module for it."""
    function.__module__ = "__main__"
    return function


@by_value
def look(seconds: float, name: str) -> tuple[int, int, bool]:
    import os
    import sys
    import time

    found = name in sys.modules
    time.sleep(seconds)
    return os.getpid(), os.getppid(), found


def workers(parallel: Parallel, count: int = 2, name: str = "heavy") -> set[tuple[int, int, bool]]:
    """Return process, parent, and whether `name` was there, of `count` workers."""
    found: set[tuple[int, int, bool]] = set()
    limit = time.monotonic() + LIMIT
    while len(found) < count and time.monotonic() < limit:
        found |= set(parallel(delayed(look)(0.01, name) for _ in range(4 * count)))
    return found


def forkservers() -> set[int]:
    """Return the fork servers of this process."""
    return {pid for pid in children(os.getpid()) if "forkserver_main" in descendants().get(pid, "")}


def the_forkserver() -> int:
    (pid,) = forkservers()
    return pid


def gone(pid: int) -> None:
    wait_until(lambda: not running(pid), f"{pid} is gone")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Make modules."""
    made = set()

    def make(text: str = "", name: str = "heavy") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        made.add(name)
        return path

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in made:
        sys.modules.pop(name, None)


# --- what it is for -------------------------------------------------------------------------------


@pytest.mark.core
def test_modules_are_imported_once_for_all_workers(
    module: Callable[..., Path], tmp_path: Path
) -> None:
    module(f"open({str(tmp_path / 'imports')!r}, 'a').write('.')")
    found = workers(Parallel(3, preload=["heavy"]), 3)
    assert len(found) == 3
    assert {parent for _, parent, _ in found} == forkservers()
    assert all(there for _, _, there in found)
    assert (tmp_path / "imports").read_text() == "."
    assert workers(Parallel(3, preload=["heavy"]), 3) == found  # they stay warm


@pytest.mark.core
def test_one_module_may_stand_alone(module: Callable[..., Path]) -> None:
    module()
    assert all(there for _, _, there in workers(Parallel(2, preload="heavy")))
    with parallel_config(preload=["heavy", "heavy"]):
        workers(Parallel(2))
    assert len(forkservers()) == 1


@pytest.mark.core
def test_workers_of_other_modules_are_other_workers(module: Callable[..., Path]) -> None:
    module()
    module(name="other")
    plain = workers(Parallel(2))
    heavy = workers(Parallel(2, preload="heavy"))
    other = workers(Parallel(2, preload="other"))
    assert not any(there for _, _, there in plain | other)
    assert not {pid for pid, *_ in heavy} & {pid for pid, *_ in plain | other}
    assert len(forkservers()) == 2


def test_workers_share_the_pages_of_what_is_imported(module: Callable[..., Path]) -> None:
    size = 64 << 20
    module(f"data = b'x' * {size}; objects = [object() for _ in range(100_000)]")

    def own_memory() -> int:
        import gc
        import re

        import heavy

        gc.collect()
        text = Path("/proc/self/smaps_rollup").read_text()
        assert len(heavy.data) > 0
        return sum(int(kb) << 10 for kb in re.findall(r"Private_\w+: +(\d+) kB", text))

    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this kernel does not tell")
    shared = Parallel(2, preload="heavy", batch_size=1)([delayed(own_memory)()] * 4)
    single = Parallel(2, batch_size=1)([delayed(own_memory)()] * 4)
    assert max(shared) < size / 2 < size < min(single)


@pytest.mark.core
def test_a_forked_worker_is_like_any_other(
    module: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(
        "import os; get = os.environ.get; seen = get('SEEN'), get('OMP_NUM_THREADS'), os.getcwd()"
    )

    @by_value
    def tell() -> Any:
        import os
        import re
        import signal
        import sys

        open_ones = []
        for number in sorted(map(int, os.listdir("/proc/self/fd"))):
            try:
                open_ones.append(re.split(r"\d|:", os.readlink(f"/proc/self/fd/{number}"))[0])
            except OSError:
                continue
        heavy: Any = sys.modules.get("heavy")
        return (
            (sys.path, sys.argv, os.getcwd(), dict(os.environ), tuple(sys.flags)),
            (
                sorted(open_ones),
                repr(signal.getsignal(signal.SIGTERM)),
                os.getpgrp(),
            ),
            None if heavy is None else heavy.seen,
        )

    monkeypatch.setenv("SEEN", "1")
    monkeypatch.chdir(tmp_path)
    forked = Parallel(2, preload="heavy", inner_max_num_threads=3)([delayed(tell)()])[0]
    born = Parallel(2, inner_max_num_threads=3)([delayed(tell)()])[0]
    assert forked[:2] == born[:2]
    assert forked[2] == ("1", "3", str(tmp_path))
    monkeypatch.setenv("SEEN", "2")
    workers(Parallel(2, inner_max_num_threads=3, preload="heavy"))
    again = Parallel(4, preload="heavy", inner_max_num_threads=3)
    with again:
        found = workers(again, 4)
        seen = {answer[2][0] for answer in again([delayed(tell)()] * 20)}
    assert len({parent for _, parent, _ in found}) == 2, "born for another environment"
    assert seen <= {"1", "2"} and "2" in seen


@pytest.mark.core
def test_functions_of_main_work(tmp_path: Path) -> None:
    text = """
        def double(x):
            return 2 * x + offset

        offset = 1
        print("once")
        print(Parallel(2, preload=["json", "decimal"])(delayed(double)(x) for x in range(3)))
        print(Parallel(2, preload=["json", "decimal"])(delayed(__import__)(x) for x in ["json"]))
    """
    assert run(tmp_path, text).startswith("once\n[1, 3, 5]\n[<module 'json'")


@pytest.mark.core
def test_what_a_module_prints_is_printed_once(tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text("print('hello')")
    text = """
        Parallel(3, preload="talks", batch_size=1)(delayed(time.sleep)(0.02) for _ in range(9))
        shutdown_workers()
    """
    assert run(tmp_path, text) == "hello\n"


def test_output_goes_where_it_goes_now(module: Callable[..., Path], capfd: Any) -> None:
    module()
    Parallel(2, preload="heavy")([delayed(abs)(1)])
    with os.fdopen(os.dup(1), "wb") as before, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            with Parallel(4, preload="heavy", worker_lifespan=1) as parallel:
                parallel(delayed(os.write)(2, b"x") for _ in range(8))
                parallel(delayed(os.write)(1, b"never") for _ in range(4))
        finally:
            os.dup2(before.fileno(), 1)
    captured = capfd.readouterr()
    assert captured.err == "x" * 8


def test_random_numbers_differ(module: Callable[..., Path]) -> None:
    pytest.importorskip("numpy")

    @by_value
    def draw(_: int) -> tuple[int, float, float]:
        import os
        import random
        import time

        import numpy as np

        time.sleep(0.02)
        return os.getpid(), random.random(), float(np.random.rand())

    drawn = Parallel(3, preload=["numpy.random", "random"], batch_size=1)(
        delayed(draw)(n) for n in range(12)
    )
    assert len({pid for pid, *_ in drawn}) > 1
    assert len({one for _, one, _ in drawn}) == len({two for *_, two in drawn}) == 12


@pytest.mark.parametrize("backend", [*some(["threading", "sequential"]), "multiprocessing"])
def test_other_backends(module: Callable[..., Path], backend: str) -> None:
    """Contexts import the modules in each worker; where there are no processes, nothing does."""
    module()
    parallel = Parallel(2, backend=backend, preload=["heavy"], pre_dispatch="all")
    found = parallel([delayed(look)(0, "heavy")] * 2)
    assert all(there for _, _, there in found) == (backend == "multiprocessing")
    assert not forkservers()


@pytest.mark.core
def test_where_nothing_can_be_forked_each_worker_imports(
    module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module()
    monkeypatch.setattr(pools, "has_forkserver", lambda: False)
    found = workers(Parallel(2, preload="heavy"))
    assert all(there for _, _, there in found) and not forkservers()
    with pytest.raises(PreloadError, match="the module 'nowhere' does not import in a worker"):
        Parallel(2, preload=["nowhere"])([delayed(abs)(1)])


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (1, TypeError),
        ([1], TypeError),
        ({"json"}, TypeError),
        (b"json", TypeError),
        ("", ValueError),
        (["js on"], ValueError),
        (["json."], ValueError),
        ([".json"], ValueError),
        (["json/decoder"], ValueError),
    ],
)
def test_names_are_checked(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="preload must be a list of names of modules"):
        Parallel(2, preload=given)
    with pytest.raises(error, match="preload must be a list of names of modules"):
        parallel_config(preload=given)


@pytest.mark.core
@pytest.mark.parametrize(
    ("text", "words", "trace"),
    [
        (None, "ModuleNotFoundError: No module named 'heavy'", "ModuleNotFoundError"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero", "x = 1 / 0"),
        ("raise SystemExit(3)", "heavy", "SystemExit: 3"),
        ("x = (", "SyntaxError", "heavy.py"),
    ],
)
def test_a_module_that_does_not_import(
    module: Callable[..., Path], text: str | None, words: str, trace: str
) -> None:
    if text is not None:
        module(text)
    with pytest.raises(PreloadError) as caught:
        Parallel(2, preload=["json", "heavy"])([delayed(abs)(-1)])
    assert isinstance(caught.value, InitializerError)
    assert "the module 'heavy' does not import in a worker" in str(caught.value)
    assert words in str(caught.value)
    cause = caught.value.__cause__
    assert cause is not None and trace in str(cause.__cause__)
    assert not forkservers()
    module("")
    assert workers(Parallel(2, preload=["json", "heavy"]))


@pytest.mark.core
@pytest.mark.parametrize(
    ("text", "words"),
    [("import os; os._exit(3)", "ended with exit code 3"), ("kill", "was killed by SIGKILL")],
)
def test_a_module_that_ends_the_process(module: Callable[..., Path], text: str, words: str) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    module(kill if text == "kill" else text)
    with pytest.raises(PreloadError, match=f"that was to import 'heavy' {words}"):
        Parallel(2, preload=["json", "heavy"])([delayed(abs)(-1)])
    assert Parallel(2, preload=["json"])([delayed(abs)(-1)]) == [1]


@pytest.mark.core
def test_a_module_that_starts_a_thread(module: Callable[..., Path]) -> None:
    module("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()")
    with pytest.raises(PreloadError, match="import of 'heavy' starts a thread"):
        Parallel(2, preload=["json", "heavy", "decimal"])([delayed(abs)(-1)])
    module(
        "import threading; thread = threading.Thread(target=abs, args=(1,)); "
        "thread.start(); thread.join()"
    )
    time.sleep(0.01)
    os.utime(module("import threading", "other"))
    assert Parallel(2, preload=["other"])([delayed(abs)(-1)]) == [1]


@pytest.mark.core
def test_a_template_that_was_killed_between_two_calls(module: Callable[..., Path]) -> None:
    module()
    first = workers(Parallel(2, preload="heavy"))
    before = the_forkserver()
    os.kill(before, signal.SIGKILL)
    gone(before)
    assert {pid for pid, *_ in workers(Parallel(2, preload="heavy"))} == {pid for pid, *_ in first}
    found = workers(Parallel(4, preload="heavy"), 4)
    assert {pid for pid, *_ in first} < {pid for pid, *_ in found}
    assert len(found) == 4 or len({pid for pid, *_ in found}) == 4
    assert all(there for _, _, there in found)
    assert before not in forkservers() and len(forkservers()) == 1


@pytest.mark.core
@pytest.mark.parametrize("stopped", [signal.SIGKILL, signal.SIGSTOP])
def test_a_template_that_is_lost_in_the_middle_of_births(
    module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, stopped: signal.Signals
) -> None:
    module()
    monkeypatch.setattr("parallel_core.workers.forkserver._PATIENCE", 0.5)
    start_worker = pools.start_worker
    born: list[int] = []

    def counted(*args: Any) -> Any:
        if len(born) == 2 and forkservers():
            os.kill(the_forkserver(), stopped)
        worker = start_worker(*args)
        born.append(worker.pid)
        return worker

    monkeypatch.setattr(pools, "start_worker", counted)
    with Parallel(5, preload="heavy") as parallel:
        found = workers(parallel, 5)
    assert {pid for pid, *_ in found} == set(born) and len(born) == 5
    assert all(there for _, _, there in found)
    assert not forkservers()


@pytest.mark.core
def test_how_a_worker_ended_is_told(module: Callable[..., Path]) -> None:
    module()

    @by_value
    def end(how: str) -> None:
        import os
        import signal

        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), getattr(signal, how))

    for how, words, code in [
        ("exit", "ended with exit code 7", 7),
        ("SIGKILL", "was killed by SIGKILL", -9),
        ("SIGSEGV", "was killed by SIGSEGV", -11),
    ]:
        with pytest.raises(WorkerDiedError, match=words) as caught:
            Parallel(2, preload="heavy")([delayed(end)(how)])
        assert caught.value.exitcode == code
        assert caught.value.memory
    assert Parallel(2, preload="heavy")([delayed(abs)(-1)]) == [1]


@pytest.mark.core
def test_a_worker_that_outlived_its_template(module: Callable[..., Path]) -> None:
    module()
    with Parallel(2, preload="heavy") as parallel:
        workers(parallel)
        before = the_forkserver()
        os.kill(before, signal.SIGKILL)
        gone(before)
        with pytest.raises(WorkerDiedError, match="nobody knows how") as caught:
            parallel([delayed(os._exit)(7)])
        assert caught.value.exitcode is None


@pytest.mark.core
def test_a_killed_task_is_tried_again(module: Callable[..., Path], tmp_path: Path) -> None:
    module()

    @by_value
    def once(n: int) -> int:
        import os
        import pathlib
        import signal

        if n == 3:
            try:
                (pathlib.Path(folder) / "done").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return os.getppid()

    folder = str(tmp_path)
    parents = Parallel(2, preload="heavy", retries=1, batch_size=1)(
        delayed(once)(n) for n in range(8)
    )
    assert set(parents) == forkservers()


@pytest.mark.core
def test_where_a_template_cannot_fork_workers_are_born_as_usual(
    module: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module()
    from parallel_core.workers.forkserver import ForkServer

    spawn = ForkServer.spawn
    calls = 0

    def refuse(self: ForkServer, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return spawn(self, *args)

    monkeypatch.setattr(ForkServer, "spawn", refuse)
    found = workers(Parallel(3, preload="heavy"), 3)
    assert len({parent for _, parent, _ in found}) == 2 and all(there for _, _, there in found)


# --- how long it lives ----------------------------------------------------------------------------


@pytest.mark.core
def test_shutdown_ends_templates(module: Callable[..., Path]) -> None:
    module()
    found = workers(Parallel(2, preload="heavy"))
    before = the_forkserver()
    assert shutdown_workers() == 2
    assert not any(map(running, {before, *(pid for pid, *_ in found)}))
    assert workers(Parallel(2, preload="heavy"))


@pytest.mark.core
def test_workers_at_work_keep_their_template(module: Callable[..., Path]) -> None:
    module()
    with Parallel(2, preload="heavy") as parallel:
        workers(parallel)
        before = the_forkserver()
        assert shutdown_workers() == 0
        assert running(before)
        with pytest.raises(WorkerDiedError, match="exit code 7"):
            parallel([delayed(os._exit)(7)])
    shutdown_workers()
    gone(before)


@pytest.mark.core
def test_an_idle_template_leaves_after_its_workers(module: Callable[..., Path]) -> None:
    module()
    workers(Parallel(2, preload="heavy", idle_worker_timeout=0.2))
    if forkservers():
        gone(the_forkserver())
    assert not any(map(running, worker_pool().idle_pids()))
    assert all(there for _, _, there in workers(Parallel(2, preload="heavy")))


@pytest.mark.core
def test_a_module_that_was_reloaded_is_imported_anew(module: Callable[..., Path]) -> None:
    import importlib

    path = module("value = 1")
    heavy = importlib.import_module("heavy")

    @by_value
    def value() -> int:
        import heavy

        return int(heavy.value)

    assert Parallel(2, preload="heavy")([delayed(value)()]) == [1]
    before = the_forkserver()
    path.write_text("value = 22")
    importlib.reload(heavy)
    assert Parallel(2, preload="heavy")([delayed(value)()]) == [22]
    assert the_forkserver() != before


def test_templates_are_not_kept_for_ever(module: Callable[..., Path]) -> None:
    for number in range(7):
        module(name=f"heavy_{number}")
        Parallel(2, preload=f"heavy_{number}")([delayed(abs)(1)])
    assert len(forkservers()) <= 6
    shutdown_workers()
    assert not forkservers()


@pytest.mark.core
def test_a_fork_of_the_caller_has_none_of_it(module: Callable[..., Path], tmp_path: Path) -> None:
    module()
    workers(Parallel(2, preload="heavy"))
    before = the_forkserver()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            links = {
                target
                for number in os.listdir("/proc/self/fd")
                if (target := _target(number)) and "pidfd" in target
            }
            pids = Parallel(2, preload="heavy")([delayed(os.getppid)()] * 4)
            shutdown_workers()
            code = 0 if not links and before not in pids else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert running(before)
    assert {parent for _, parent, _ in workers(Parallel(2, preload="heavy"))} == {before}


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


@pytest.mark.core
@pytest.mark.parametrize(
    ("state", "death"),
    [
        ("busy", "SIGKILL"),
        ("busy", "SIGTERM"),
        ("busy", "SIGSEGV"),
        ("idle", "SIGKILL"),
        ("importing", "SIGKILL"),
        ("forked", "SIGKILL"),
    ],
)
def test_nothing_outlives_the_parent(tmp_path: Path, state: str, death: str) -> None:
    (tmp_path / "heavy.py").write_text(TELLS + ("time.sleep(300)" if state == "importing" else ""))
    text = f"""
        def work(n):
            tell(n)
            if {state!r} == "busy":
                re.match("(a+)+b", "a" * 40)
            time.sleep(0.05)

        Parallel(2, preload="heavy", batch_size=1)(delayed(work)(n) for n in (0, 1))
        if {state!r} == "forked" and os.fork() == 0:
            os.close(1)
            os.close(2)
            tell("child")
            time.sleep(300)
            os._exit(0)
        tell("done")
        time.sleep(300)
    """
    count = {"busy": 3, "idle": 4, "importing": 1, "forked": 5}[state]
    child = start(tmp_path, text)
    try:
        wait_until(lambda: len(told(tmp_path)) >= count or child.poll() is not None, "all are busy")
        assert child.poll() is None, child.communicate()
        below = {*descendants(child.pid), *told(tmp_path)} - {child.pid}
        child.send_signal(getattr(signal, death))
        child.wait(LIMIT)
        if state == "forked":  # which goes on, and keeps nobody alive
            below.remove(int((tmp_path / "pid-child").read_text()))
        are_gone(below, "nothing is left")
        child.communicate(timeout=LIMIT)
    finally:
        kill_group(child.pid)
        child.wait()


@pytest.mark.core
@pytest.mark.parametrize("how", ["return", "exit", "error", "thread"])
def test_nothing_outlives_the_program(tmp_path: Path, how: str) -> None:
    text = f"""
        Parallel(2, preload=["json"])(delayed(abs)(n) for n in range(4))
        from pathlib import Path
        children = Path(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read_text().split()
        print(*children, flush=True)
        if {how!r} == "exit":
            sys.exit(0)
        if {how!r} == "error":
            os._exit(0)
        if {how!r} == "thread":
            threading.Thread(target=time.sleep, args=(0.05,)).start()
    """
    out = run(tmp_path, text)
    assert out.split()
    are_gone([int(pid) for pid in out.split()], "the fork server is gone")


@pytest.mark.core
def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(TELLS + "time.sleep(300)")
    text = """
        try:
            Parallel(2, preload="slow")([delayed(abs)(1)])
        except KeyboardInterrupt:
            print("interrupted")
        print(Parallel(2, preload="json")([delayed(abs)(-1)]))
    """
    child = start(tmp_path, text)
    try:
        wait_until(lambda: told(tmp_path) or child.poll() is not None, "it imports")
        (forkserver,) = told(tmp_path)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=LIMIT)
        assert (out, err) == ("interrupted\n[1]\n", "")
        are_gone([forkserver], "the fork server is gone")
    finally:
        kill_group(child.pid)
        child.wait()


@pytest.mark.core
def test_calls_from_several_threads(module: Callable[..., Path]) -> None:
    import threading

    module("import time; time.sleep(0.05)")
    found: list[Any] = []

    def call() -> None:
        found.append(Parallel(2, preload="heavy")(delayed(os.getppid)() for _ in range(20)))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert {pid for pids in found for pid in pids} == forkservers()


def test_an_initializer_runs_in_each_worker(module: Callable[..., Path]) -> None:
    module("value = []")

    @by_value
    def prepare() -> None:
        import os
        import sys

        sys.modules["heavy"].value.append(os.getpid())  # type: ignore[attr-defined]

    @by_value
    def value() -> Any:
        import json
        import os

        import heavy

        return json.dumps([heavy.value, os.getpid()])

    for text in Parallel(2, preload="heavy", initializer=prepare)([delayed(value)()] * 6):
        seen, pid = json.loads(text)
        assert seen == [pid]
