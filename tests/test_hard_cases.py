"""Cases that were got wrong once: each a failure that hid, hung or hit the innocent."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core import Parallel, TaskTimeoutError, WorkerDiedError, delayed
from watching import HOME, LIMIT, wait_until

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core


def keep(data: bytes) -> None:
    global kept
    kept = len(data)


def size_kept() -> int:
    return int(globals()["kept"])


@core
def test_an_initializer_larger_than_any_socket_buffer() -> None:
    data = b"x" * 10_000_000
    parallel = Parallel(2, initializer=keep, initargs=(data,))
    assert parallel(delayed(size_kept)() for _ in range(4)) == [len(data)] * 4


@core
def test_a_module_that_ends_every_worker_which_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        f"import os\nif os.getpid() != {os.getpid()}:\n    os._exit(3)\ndef f(x):\n    return x\n"
    )
    (tmp_path / "deadly_module.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly_module

    with pytest.raises(
        WorkerDiedError, match=r"exit code 3 at task [0-3] of the call: deadly_module"
    ):
        Parallel(2)(delayed(deadly_module.f)(n) for n in range(4))
    del sys.modules["deadly_module"]
    assert Parallel(2)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


class Unshowable:
    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape")

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def fail_with(value: object) -> None:
    raise ValueError("as it was")


@core
@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_the_error_of_a_task_whose_argument_cannot_be_shown(backend: str) -> None:
    with pytest.raises(ValueError, match="as it was"):
        Parallel(2, backend=backend)(delayed(fail_with)(Unshowable()) for _ in range(8))


@core
def test_a_time_limit_counts_from_the_turn_of_a_task_on_an_executor() -> None:
    with ThreadPoolExecutor(2) as executor:
        results = Parallel(2, backend=executor, return_as="generator", timeout=20)(
            delayed(time.sleep)(0.01) for _ in range(8)
        )
        assert list(results) == [None] * 8


@core
def test_a_thread_that_fails_while_the_iterable_blocks() -> None:
    """The failure is told before the iterable goes on: it waits for that."""
    told = threading.Event()

    def tasks() -> Any:
        yield delayed(fail_with)(0)
        assert told.wait(LIMIT)

    def call() -> None:
        with pytest.raises(ValueError, match="as it was"):
            Parallel(2, backend="threading", pre_dispatch=1)(tasks())
        told.set()

    caller = threading.Thread(target=call)
    caller.start()
    caller.join(LIMIT)
    assert told.is_set()
    caller.join()


@core
@pytest.mark.parametrize("backend", ["processes", "threading"])
@pytest.mark.parametrize("seconds", [1e7, 1e15])
def test_a_time_limit_longer_than_anybody_waits(backend: str, seconds: float) -> None:
    parallel = Parallel(2, backend=backend, timeout=seconds)
    assert parallel(delayed(abs)(-n) for n in range(3)) == [0, 1, 2]


def test_a_daemon_that_may_not_have_children(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, warnings\n"
        "from parallel_core import Parallel, delayed\n"
        "def main():\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always')\n"
        "        parallel = Parallel(2, backend='multiprocessing')\n"
        "        made = parallel(delayed(abs)(-n) for n in range(3))\n"
        "    print(made, sum('daemonic' in str(w.message) for w in caught), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('fork').Process(target=main, daemon=True)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[0, 1, 2] 1\n", "")


@core
def test_an_interrupt_while_workers_are_born_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from parallel_core.workers import pool as pools

    pool = pools.worker_pool()
    born = []
    start_worker = pools.start_worker

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if born:
            raise KeyboardInterrupt
        born.append(start_worker(*args, **kwargs))
        return born[0]

    parallel_core.shutdown_workers()
    monkeypatch.setattr(pools, "start_worker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Parallel(2)(delayed(abs)(n) for n in range(4))
    monkeypatch.undo()
    wait_until(lambda: not born[0].alive(), "the first worker has ended")
    assert pool.idle_pids() == []
    assert Parallel(2)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


@core
def test_defaults_that_change_between_two_tasks() -> None:
    def local(x: int, factor: int = 1) -> int:
        return x * factor

    def tasks() -> Any:
        for factor in (1, 2, 3):
            local.__defaults__ = (factor,)
            yield delayed(local)(10)

    assert Parallel(2, batch_size=3)(tasks()) == [10, 20, 30]


class WithSlot(Exception):
    __slots__ = ("code",)

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def fail_with_slot() -> None:
    raise WithSlot("m", 7)


@core
def test_an_exception_with_an_optional_slot() -> None:
    with pytest.raises(WithSlot) as caught:
        Parallel(2)([delayed(fail_with_slot)()])
    assert caught.value.code == 7


@core
def test_error_classes_are_one_for_all_threads() -> None:
    from parallel_core import errors

    found = []
    names = ("TaskTimeoutError", "WorkerDiedError", "InitializerError")

    def look() -> None:
        found.append(tuple(getattr(errors, name) for name in names))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0][0] is TaskTimeoutError


@core
def test_a_nested_call_in_a_forked_executor_does_not_use_its_parents() -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with contextlib.ExitStack() as stack:
        context = multiprocessing.get_context("fork")
        executor = stack.enter_context(ProcessPoolExecutor(2, mp_context=context))
        stack.enter_context(parallel_core.parallel_config(backend=executor, n_jobs=2))
        assert Parallel()(delayed(nested)(n) for n in range(3)) == [[0, n] for n in range(3)]


def nested(n: int) -> list[int]:
    return list(Parallel(n_jobs=2)(delayed(abs)(value) for value in (0, n)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("how", ["return", "raise", "exit"])
@pytest.mark.parametrize("batch_size", [1, 20])
def test_a_forked_child_that_comes_back_out_of_its_task(
    batch_size: int, how: str, tmp_path: Path
) -> None:
    """Nothing is run twice, and the child's answer is nobody's."""

    def work(x: int) -> int:
        if x == 3 and os.fork() == 0:
            if how == "raise":
                raise RuntimeError("in the child")
            if how == "exit":
                sys.exit(3)
            return -1
        with (tmp_path / str(x)).open("ab") as file:
            file.write(b".")
        time.sleep(0.002)
        return x

    for on_error in ("raise", "return"):
        for path in tmp_path.iterdir():
            path.unlink()
        parallel = Parallel(2, batch_size=batch_size, on_error=on_error)
        assert parallel(delayed(work)(x) for x in range(40)) == list(range(40))
        assert {path.stat().st_size for path in tmp_path.iterdir()} == {1}
