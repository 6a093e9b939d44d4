"""What multiprocessing shares between processes: proxies of managers, queues, locks."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import environment

from parallel_core import Parallel, SerializationError, delayed
from watching import LIMIT

PROGRAM = """
    import sys
    from parallel_core import Parallel, delayed

    def append(values, value):
        values.append(value)
        return len(values) > 0

    def begin(values):
        global known
        known = values

    def append_known(value):
        return append(known, value)

    def managed(n_tasks, opened):
        import multiprocessing
        opened.append(multiprocessing.Manager())
        values = opened[0].list()
        opened.append(values)  # the manager forgets what nobody holds
        for value in range(n_tasks):
            yield delayed(append)(values, value)

    if __name__ == "__main__":
        parallel = Parallel(2, backend=sys.argv[1])
        print(parallel(delayed(abs)(i) for i in range(2)))  # the workers do not know the key
        opened = []
        print(parallel(managed(3, opened)))
        opened[0].shutdown()
        from multiprocessing import Manager
        with Manager() as manager:
            values = manager.list()
            print(parallel(delayed(append)(values, value) for value in range(3)))
            begun = Parallel(2, backend=sys.argv[1], initializer=begin, initargs=(values,))
            print(begun(delayed(append_known)(value) for value in range(3, 6)))
            queue = manager.Queue()
            parallel(delayed(queue.put)(value) for value in range(2))
            print(sorted(values), sorted([queue.get(), queue.get()]))
"""


@pytest.mark.core
@pytest.mark.parametrize("backend", ["processes", "multiprocessing"])
def test_proxies_reach_workers_that_were_there_before(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, str(path), backend],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[0, 1]",
        *["[True, True, True]"] * 3,
        "[0, 1, 2, 3, 4, 5] [0, 1]",
    ]


SHARED: list[tuple[Callable[[], Any], str]] = [
    (multiprocessing.Queue, "Queue()"),
    (multiprocessing.SimpleQueue, "Queue()"),
    (multiprocessing.Lock, "Lock()"),
    (multiprocessing.Event, "Event()"),
    (lambda: multiprocessing.Value("i"), "Value(...)"),
    (lambda: multiprocessing.Array("i", 2), "Array(...)"),
]


@pytest.mark.core
@pytest.mark.parametrize(("make", "instead"), SHARED)
def test_what_cannot_cross_is_refused_with_advice(make: Callable[[], Any], instead: str) -> None:
    shared = make()
    try:
        advice = rf"multiprocessing\.Manager\(\)\.{instead[:-1].rstrip('.(')}\("
        with pytest.raises(SerializationError, match=rf"init.* initargs\[0\].*{advice}"):
            Parallel(2, initializer=id, initargs=(shared,))(delayed(abs)(i) for i in range(2))
        with pytest.raises(SerializationError, match=rf"argument 0\[0\].*{advice}"):
            Parallel(2)(delayed(len)([shared]) for _ in range(2))
    finally:
        close = getattr(shared, "close", None)
        if close is not None:
            close()
