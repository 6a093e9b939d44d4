"""Tasks that treat their worker roughly: close its descriptors, leave threads behind, fork."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from programs import run, start, told

from parallel_core import Parallel, WorkerDiedError, delayed
from watching import running, wait_until

pytestmark = pytest.mark.warm_workers

OWN = ("processes", "preload", "context-fork", "context-forkserver", "context-spawn")
LONG = 300  # seconds: longer than any test may take


def options_of(name: str) -> dict[str, Any]:
    kind, _, method = name.partition("-")
    if kind == "preload":
        return {"backend": "processes", "preload": ["json"]}
    if kind == "context":
        import multiprocessing

        return {"backend": multiprocessing.get_context(method)}
    return {"backend": name}


def close_all(n: int, then: str) -> int:
    if n == 1:
        os.closerange(3, 256)
        if then == "thread":
            threading.Thread(target=time.sleep, args=(LONG,)).start()
        elif then == "sleep":
            time.sleep(LONG)
    return n


@pytest.mark.parametrize("then", ["return", "thread", "sleep"])
@pytest.mark.parametrize("backend", [pytest.param("processes", marks=pytest.mark.core), *OWN[1:]])
def test_a_task_that_closes_all_descriptors_is_blamed(backend: str, then: str) -> None:
    parallel = Parallel(2, on_error="return", **options_of(backend))
    results = parallel(delayed(close_all)(n, then) for n in range(4))
    died = results.pop(1)
    assert results == [0, 2, 3]
    assert isinstance(died, WorkerDiedError) and died.position == 1
    assert f"at task 1 of the call: test_rough_tasks.close_all(1, {then!r})" in str(died)
    if then == "sleep":
        assert "closed its connection, as tasks do that close all descriptors" in str(died)


ORPHANED = """
    def rest(n):
        if n:
            os.closerange(3, 4096)
            tell(n)
            time.sleep(300)

    if __name__ == "__main__":
        with Parallel(2, backend=backend_of(sys.argv[1]), batch_size=2) as parallel:
            parallel(delayed(rest)(0) for n in range(8))
            parallel(delayed(rest)(n) for n in (1, 0, 2, 0))
"""


@pytest.mark.parametrize("backend", ["processes", "context-fork", "context-spawn"])
def test_a_worker_without_descriptors_does_not_outlive_the_parent(
    backend: str, tmp_path: Path
) -> None:
    parent = start(tmp_path, ORPHANED, backend)
    wait_until(lambda: told(tmp_path) or parent.poll() is not None, "a task has closed all")
    assert parent.poll() is None and told(tmp_path)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not any(map(running, told(tmp_path))), "the workers have ended, too")


LEAVES = """
    def leave(n):
        threading.Thread(target=time.sleep, args=(300,)).start()
        return n

    if __name__ == "__main__":
        name = sys.argv[1]
        options = {"preload": ["json"]} if name == "preload" else {"backend": backend_of(name)}
        print(Parallel(2, **options)(delayed(leave)(n) for n in range(4)))
"""


@pytest.mark.parametrize("backend", [*OWN, "loky"])
def test_a_worker_does_not_wait_for_threads_that_tasks_left(backend: str, tmp_path: Path) -> None:
    assert run(tmp_path, LEAVES, backend) == "[0, 1, 2, 3]\n"


FORKS = """
    def fork(how):
        child = os.fork()
        if not child:
            if how == "exit":
                sys.exit(0)
            if how == "fail":
                sys.exit(3)
            if how == "words":
                sys.exit("last words")
            if how == "raise":
                raise ValueError("in the child")
            print("said")
            return None
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    if __name__ == "__main__":
        name, batch_size = sys.argv[1:]
        options = {"preload": ["json"]} if name == "preload" else {"backend": backend_of(name)}
        parallel = Parallel(2, batch_size=int(batch_size), **options)
        print(parallel(delayed(fork)(how) for how in ("exit", "fail", "words", "raise", "return")))
        shutdown_workers()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("backend", [*OWN, "loky", "executor-fork"])
def test_a_forked_child_ends_as_a_program_does(
    backend: str, batch_size: int, tmp_path: Path
) -> None:
    process = start(tmp_path, FORKS, backend, str(batch_size))
    out, err = process.communicate(timeout=50)
    assert sorted(out.splitlines()) == ["[0, 3, 1, 1, 0]", "said"]
    assert "last words\n" in err
    assert err.count("Traceback") == 1 and "ValueError: in the child" in err
    assert "parallel_core" not in err
